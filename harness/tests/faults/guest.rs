//! A guest that dies, hangs or dawdles while a case runs in it.

use libtest_mimic::Trial;

use crate::project::{Case, Project};
use crate::{common, trial};

/// The limit of the steps below that must not be waited for, and half of it in milliseconds.
const LONG: &str = "60s";
const SOON: u64 = 30_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("guest::a_panic_is_a_crash_at_once", || {
            let case = load("panic", LONG, "");
            assert_eq!(case.outcome(), "crash", "{case:?}");
            assert_eq!(case.reason(), "step 1 (load fault): kernel panic: fault: asked to");
            assert!(case.ms() < SOON, "{case:?}");
        }),
        trial("guest::an_oops_that_hits_the_agent_is_a_crash_at_once", || {
            let case = load("oops", LONG, "");
            assert_eq!(case.outcome(), "crash", "{case:?}");
            assert_eq!(case.reason(), "step 1 (load fault): NULL pointer dereference in fault_init");
            assert!(case.ms() < SOON, "{case:?}");
        }),
        trial("guest::an_oops_that_hits_a_program_is_a_crash", || {
            let case = run("steps:\n  - push: fault\n  - run: insmod /lib/modules/*/fault.ko kind=oops\n");
            assert_eq!(case.outcome(), "crash", "{case:?}");
            assert!(case.reason().ends_with("NULL pointer dereference in fault_init"), "{case:?}");
        }),
        trial("guest::an_unexpected_warning_is_a_crash_though_all_else_holds", || {
            let case = load("warn", LONG, "expect: { log: { contains: \"fault: loaded\" } }\n");
            assert_eq!((case.outcome(), case.reason()), ("crash", "WARNING in fault_init"), "{case:?}");
        }),
        trial("guest::an_expected_warning_is_none", || {
            let case = load("warn", LONG, "expect: { splats: { kind: warn, title: fault_init } }\n");
            assert_eq!(case.outcome(), "pass", "{case:?}");
        }),
        trial("guest::a_hang_with_interrupts_off_is_a_timeout_of_the_step", || {
            let case = load("spin-irqs-off", "1s", "");
            assert_eq!(case.outcome(), "timeout", "{case:?}");
            let reason = "step 1 (load fault) did not end within 1s: the guest does not answer";
            assert_eq!(case.reason(), reason);
        }),
        trial("guest::a_lockup_that_only_the_console_tells_of_is_a_crash", || {
            // The kernel reports it after twice the threshold, in seconds (kernel/watchdog.c).
            let case = run("steps:\n  - write: { path: /proc/sys/kernel/watchdog_thresh, text: 1 }\n  \
                            - load: { module: fault, params: { kind: spin } }\n    timeout: 6s\n");
            assert_eq!(case.outcome(), "crash", "{case:?}");
            assert_eq!(case.reason(), "step 2 (load fault): soft lockup");
        }),
        trial("guest::a_report_of_the_kernels_leads_to_the_line_of_the_source", || {
            let scenario = "steps:\n  - load: { module: fault, params: { kind: oops } }\n";
            let ended = Project::new().scenario("case", scenario).run(&[]).finish();
            let source = common::repository().join("harness/tests/faults/modules/fault/fault.c");
            let source = std::fs::read_to_string(source).unwrap();
            let line = 1 + source.lines().position(|line| line.trim() == "*nowhere = 1;").unwrap();
            let crash = &ended.report()["cases"][0]["crash"];
            let place = &crash["code"][0];
            assert_eq!(
                (&place["file"], &place["line"]),
                (&"fault/fault.c".into(), &line.into()),
                "{crash:#}"
            );
            let at = usize::try_from(place["at"].as_u64().unwrap()).unwrap();
            assert!(crash["lines"][at].as_str().unwrap().starts_with("RIP: "), "{crash:#}");
            ended.expect_words(&[&format!("fault_init at fault/fault.c:{line}")]);
        }),
        trial("guest::a_step_that_outlives_its_limit_is_named", || {
            let case = run("steps:\n  - run: echo begun; sleep 1000\n    timeout: 1s\n");
            assert_eq!(case.outcome(), "timeout", "{case:?}");
            let reason = "step 1 (run echo begun; sleep 1000) did not end within 1s: it still ran\nbegun";
            assert_eq!(case.reason(), reason);
        }),
        trial("guest::a_wait_that_outlives_its_limit_is_named", || {
            let case =
                run("steps:\n  - wait-for: { file: { path: /tmp/never, exists: true } }\n    timeout: 1s\n");
            assert_eq!(case.outcome(), "timeout", "{case:?}");
            assert!(case.reason().starts_with("step 1 ("), "{case:?}");
            assert!(
                case.reason().contains("did not end within 1s: `/tmp/never` was empty or not there"),
                "{case:?}"
            );
        }),
        trial("guest::a_case_that_outlives_its_limit_is_said_to", || {
            let case = run("timeout: 1s\nsteps:\n  - run: sleep 1000\n");
            assert_eq!(case.outcome(), "timeout", "{case:?}");
            assert_eq!(case.reason(), "the case did not end within 1s: it still ran");
        }),
        trial("guest::one_that_powers_off_is_a_crash", || {
            let case = run("steps:\n  - run: poweroff -f\n");
            assert_eq!(case.outcome(), "crash", "{case:?}");
            assert!(case.reason().ends_with("the guest went away: guest-shutdown"), "{case:?}");
        }),
    ]
}

/// A case whose only step has the module `fault` do its worst.
fn load(kind: &str, limit: &str, expect: &str) -> Case {
    run(&format!(
        "steps:\n  - load: {{ module: fault, params: {{ kind: {kind} }} }}\n    timeout: {limit}\n{expect}"
    ))
}

fn run(scenario: &str) -> Case {
    let ended = Project::new().scenario("case", scenario).run(&[]).finish();
    let case = ended.case();
    let code = if case.outcome() == "pass" { 0 } else { 1 };
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    case
}
