//! Guests that do not come up.

use libtest_mimic::Trial;

use crate::project::{Ended, Project};
use crate::trial;

const STEPS: &str = "steps:\n  - run: 'true'\n";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("boot::a_panic_is_an_error_with_the_consoles_last_lines", || {
            for cold in [false, true] {
                let ended = run("rdinit=/nowhere", if cold { &["--cold"] } else { &[] });
                let case = ended.case();
                assert_eq!((ended.code, case.outcome()), (Some(125), "error"), "{ended:#?}");
                assert!(case.reason().starts_with("the guest does not start: kernel panic: "), "{case:?}");
                ended.expect_words(&[
                    "the end of the log:",
                    "Kernel panic - not syncing: VFS: Unable to mount root fs",
                ]);
                // The deadline is two minutes.
                assert!(ended.report()["ms"].as_u64().unwrap() < 60_000, "{ended:#?}");
            }
        }),
        trial("boot::a_kernel_that_says_nothing_is_an_error_at_the_deadline", || {
            // The initial program waits for input, and no agent is there.
            let ended = run("rdinit=/bin/cat", &["--timeout-scale", "0.04"]);
            let case = ended.case();
            assert_eq!((ended.code, case.outcome()), (Some(125), "error"), "{ended:#?}");
            let reason = "the guest does not start: the guest's agent did not answer within 4s 800ms";
            assert_eq!(case.reason(), reason);
        }),
        trial("boot::an_agent_that_ends_is_an_error", || {
            let ended = run("rdinit=/bin/false", &[]);
            let case = ended.case();
            assert_eq!((ended.code, case.outcome()), (Some(125), "error"), "{ended:#?}");
            assert!(case.reason().contains("kernel panic: Attempted to kill init"), "{case:?}");
        }),
    ]
}

fn run(argument: &str, args: &[&str]) -> Ended {
    Project::new().scenario("case", STEPS).kernel_argument(argument).run(args).finish()
}
