use std::collections::BTreeMap;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::scenario::expect::{Num, SplatKind};
use crate::scenario::step::{Command, FileState};
use crate::scenario::values::Value;

fn values() -> Values {
    let own = BTreeMap::from([("insn-offset".to_owned(), Value::Int(5))]);
    Values::new("x86_64", "x86_64".parse().unwrap(), own)
}

fn read(text: &str) -> Result<Scenario, Vec<Diagnostic>> {
    let modules = ["refmod", "testmod", "kprobe_example", "refscan"].map(str::to_owned);
    let context = Context { modules: &modules, errnos: &["ENOENT", "EWOULDBLOCK", "EBUSY", "EINVAL"] };
    super::read(text, &values(), context)
}

/// `line:column message; hint` for each error.
fn errors(text: &str) -> Vec<String> {
    let line = |d: &Diagnostic| {
        let hint = d.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{}:{} {}{hint}", d.at.line, d.at.column, d.message)
    };
    read(text).map(|scenario| panic!("{scenario:?}")).unwrap_err().iter().map(line).collect()
}

#[test]
fn an_ordinary_scenario_is_read() {
    let text = r#"
name: an open device keeps its module in use
covers: [R1, R2]
requires: { kernel: ">=5.6", config: [MODULE_UNLOAD] }   # unmet: skip, with this as the reason
timeout: 30s
steps:
  - trace: { events: [module], filter: 'name == "refmod"' }
  - load: refmod
  - spawn: { name: holder, run: "exec sleep 1000 < /dev/refmod" }
  - wait-for: { refcount: { module: refmod, is: 1 } }
  - unload: { module: refmod, errno: EWOULDBLOCK }
  - stop: holder
  - unload: refmod
expect:
  trace:
    in-order:
      - { event: module_load, module: refmod }
      - { event: module_get, module: refmod, refcnt: 2, comm: sh }
      - { event: module_put, module: refmod, refcnt: 1, comm: sleep }
  log: { contains: ["refmod: loaded"] }
"#;
    let scenario = read(text).unwrap();
    assert_eq!(scenario.steps.iter().map(|step| step.at.line).collect::<Vec<_>>(), [7, 8, 9, 10, 11, 12, 13]);
    let Action::Unload(unload) = &scenario.steps[4].action else { panic!() };
    assert_eq!(unload.errno.as_ref().unwrap().value, "EWOULDBLOCK");
    let trace = scenario.expect.as_ref().unwrap().trace.as_ref().unwrap();
    assert_eq!(trace.in_order[1].refcnt, Some(Num::exactly(2)));
}

#[test]
fn everything_that_the_format_has_is_read() {
    let text = r#"
name: everything
description: |
  Two lines
  of text.
covers: [R23, P11]
requires: { kernel: ">=4.15, <7", config: MODULES, arch: [x86_64, arm], not-arch: ppc64le, reason: "no such thing" }
machine: { smp: 2, memory-mib: 512 }
timeout: 1m 30s
steps:
  - name: start
    timeout: 500ms
    trace:
      events: [module, kprobes/hit]
      filter: name == "refmod"
      event-filters: { module/module_put: name == "x" }
      triggers: { module/module_get: stacktrace if name == "x", module/module_put: [stacktrace, traceoff] }
      buffer-kb: 512
      options: { stacktrace: true }
      clock: mono
  - trace: clear
  - load: { in-tree: firewire-ohci, force: true, errno: ENOENT }
  - load: { module: kprobe_example, params: { symbol: do_exit, offset: $<insn-offset>, quiet: true } }
  - push: [refmod, { in-tree: loop }, { kernel-source: samples/kprobes/kprobe_example.c }]
  - push: testmod
  - run: cat /proc/modules
    expect: { exit: 0, stdout: { contains: refmod }, stderr: "", modules: { loop: { loaded: false } } }
  - run: [test, -f, /x, 5]
    expect: { exit: 1..255 }
  - run: { command: kill -9 $$, stdin: x, env: { A: 1 }, cwd: /tmp }
    expect: { signal: KILL }
  - spawn: { name: one, run: [sleep, 10] }
  - spawn: { name: two, run: "true" }
  - wait-exit: two
  - stop: { name: one, signal: INT }
    expect: { signal: INT }
  - write: { path: $<tracing>/trace, text: "", append: true, errno: EINVAL }
  - read: /proc/version
    expect: { content: { regex: ^Linux, none: /x+y/, count: { of: Linux, is: ">= 1" }, empty: false } }
  - read: { path: /gone, errno: ENOENT }
  - wait-for: { file: { path: /x, exists: false } }
  - wait-for: { file: { path: /x, contains: 1 } }
    timeout: 2s
  - wait-for: { log: /ref.*/ }
  - wait-for: { loaded: loop }
  - wait-for: { gone: loop }
  - assert:
      kprobes: { contains: { symbol: do_exit, type: kprobe, flags: DISABLED }, none: { type: jprobe } }
      files: { $<tracing>/tracing_on: 1 }
  - unload: { in-tree: loop, force: true }
  - trace: stop
expect:
  trace: { none: [{ event: module_free }], count: { of: { event: module_get }, is: 0 } }
  splats: { kind: warn, title: "refcount_t: underflow" }
  taint: [W]
"#;
    let scenario = read(text).unwrap();
    let action = |index: usize| &scenario.steps[index].action;
    let Action::Load(load) = action(3) else { panic!() };
    let params: Vec<_> = load.params.iter().map(|(key, value)| format!("{key}={}", value.0)).collect();
    assert_eq!(params, ["offset=5", "quiet=true", "symbol=do_exit"]);
    let Action::Push(modules) = action(4) else { panic!() };
    assert_eq!(
        modules.iter().map(|module| module.origin).collect::<Vec<_>>(),
        [Origin::Test, Origin::InTree, Origin::Source]
    );
    let Action::Run(run) = action(7) else { panic!() };
    assert_eq!(run.command, Command::Argv(["test", "-f", "/x", "5"].map(str::to_owned).into()));
    let Action::Write(write) = action(13) else { panic!() };
    assert_eq!(write.path.0, "/sys/kernel/tracing/instances/kmodlab/trace");
    let Action::WaitFor(WaitFor::File(condition)) = action(17) else { panic!() };
    assert_eq!(condition.state, FileState::Contains("1".into()));
    let expect = scenario.expect.as_ref().unwrap();
    assert_eq!(expect.splats.as_ref().unwrap()[0].kind, SplatKind::Warn);
}

/// One of each kind of error, all told at once.
#[test]
fn a_file_full_of_errors_shows_them_all() {
    let text = "\
name: bad
covers: [R1, R99]
timeout: soon
requres: { kernel: '>=5.6' }
steps:
  - load: refmot
  - load: { module: refmod, errno: ENOET }
  - lod: testmod
  - run: 'true'
    stop: holder
  - run: echo
    expect: { stdout: { regex: '(' }, content: x, exit: { a: 1 } }
  - spawn: { name: one, run: sleep }
  - spawn: { name: one, run: sleep }
  - wait-for: { refcount: { module: refmod, is: '=> 1' } }
  - read: proc/version
  - trace: { events: [module/], options: { stacktrace: yes } }
  - run: echo $<insn-ofset>
  - stop: { name: one, signal: SIGKIL }
expect:
  trace:
    in-order: []
    contains: { event: module_get, refcont: 2 }
  files: {}
  files: { /x: y }
";
    let expected = [
        "2:14 there is no row `R99`; rows are R1 to R23 and P1 to P11",
        "3:10 `soon` is no duration; write `30s`, `500ms` or `1m 30s`",
        "4:1 unknown key `requres`; did you mean `requires`?",
        "6:11 unknown test module `refmot`; did you mean `refmod`?",
        "7:36 unknown errno `ENOET`; did you mean `ENOENT`?",
        "8:5 unknown key `lod`; did you mean `load`?",
        "9:5 the step has two actions, `run` and `stop`; make it two steps",
        "12:32 `(` is no regular expression: unclosed group",
        "12:48 `content` has nothing to look at here; it belongs to a step `read` without `errno`",
        "12:57 expected text, found a map",
        "14:20 a program `one` was spawned already; it is on line 13",
        "15:49 `=> 1` is no comparison of numbers; write `2`, `>= 1`, `< 3` or `1..3`",
        "16:11 `proc/version` is no absolute path",
        "17:23 `module/` is no event; write a group such as `module`, or `module/module_get`",
        "17:56 expected `true` or `false`, found the text `yes`",
        "18:10 unknown value `insn-ofset`; did you mean `insn-offset`?",
        "19:32 unknown signal `SIGKIL`; did you mean `SIGKILL`?",
        "22:15 the list is empty",
        "23:36 unknown key `refcont`; did you mean `refcnt`?",
        "24:10 the map is empty; leave it out, or say what is meant",
        "25:3 the key `files` is there twice; it is on line 24 already",
    ];
    assert_eq!(errors(text), expected);
}

/// Each is put after the name and a first step.
#[rstest]
#[case::stop_unknown(
    "- stop: hodler",
    "3:11 no program `hodler` was spawned; start it before this with `spawn: { name: hodler, run: … }`"
)]
#[case::stop_near(
    "- spawn: { name: holder, run: x }\n- stop: hodler",
    "4:11 no program `hodler` was spawned; did you mean `holder`?"
)]
#[case::stop_twice(
    "- spawn: { name: holder, run: x }\n- stop: holder\n- wait-exit: holder",
    "5:16 the program `holder` has ended already"
)]
#[case::nothing(
    "- name: x",
    "3:5 the step does nothing; actions are `trace`, `load`, `unload`, `push`, `run`, `spawn`, `stop`, `wait-exit`, `write`, `read`, `wait-for`, `break`, `plug`, `unplug`, `assert`"
)]
#[case::exit_of_load(
    "- load: refmod\n  expect: { exit: 0 }",
    "4:21 `exit` has nothing to look at here; it belongs to a step `run`, `stop` or `wait-exit`"
)]
#[case::content_with_errno(
    "- read: { path: /x, errno: ENOENT }\n  expect: { content: x }",
    "4:24 `content` has nothing to look at here; it belongs to a step `read` without `errno`"
)]
#[case::keep_what_is_absent(
    "- read: { path: /x, errno: ENOENT, keep: x }",
    "3:44 both `errno` and `keep`; what cannot be read cannot be kept"
)]
#[case::keep_twice("- read: { path: /x, keep: x }\n- read: { path: /y, keep: x }", "4:29 `x` is there twice")]
#[case::keep_elsewhere(
    "- read: { path: /x, keep: ../x }",
    "3:29 `../x` is no plain name of a file; write one such as `trace.dat`"
)]
#[case::backtrace_of_nothing(
    "- run: x\n  expect: { backtrace: do_exit }",
    "4:26 there was no breakpoint; put a step `break: FUNCTION` before"
)]
#[case::break_for_what(
    "- break: { function: module_put, module: refmot }",
    "3:44 unknown test module `refmot`; did you mean `refmod`?"
)]
#[case::break_where("- break: do_exit if 1", "3:12 `do_exit if 1` is no name of a function")]
#[case::unplug_what(
    "- unplug: disk",
    "3:13 no device `disk` is plugged in; plug it in before this with `plug: { name: disk, device: … }`"
)]
#[case::plug_twice(
    "- plug: { name: x, device: usb-kbd }\n- plug: { name: x, device: usb-kbd }",
    "4:19 a device `x` is plugged in already"
)]
#[case::splats_early(
    "- run: x\n  expect: { splats: { kind: warn } }",
    "4:23 `splats` has nothing to look at here; it belongs to the `expect` at the end of the scenario"
)]
#[case::exit_and_signal(
    "- run: x\n  expect: { exit: 1, signal: TERM }",
    "4:32 both `exit` and `signal`; a program ends with one of them"
)]
#[case::not_traced(
    "- assert: { trace: { empty: true } }",
    "3:22 nothing was traced; put a step `trace: { events: … }` before"
)]
#[case::clear_early("- trace: clear", "3:5 nothing is traced yet; start with `trace: { events: … }`")]
#[case::trace_word("- trace: stpo", "3:12 unknown word `stpo`; did you mean `stop`?")]
#[case::two_modules(
    "- load: { module: refmod, in-tree: loop }",
    "3:11 both `module` and `in-tree`; give one of them"
)]
#[case::source_outside(
    "- load: { kernel-source: samples/../x.c }",
    "3:28 `samples/../x.c` is no module's file in a kernel's sources; write it like `samples/kprobes/kprobe_example.c`"
)]
#[case::no_module(
    "- load: { force: true }",
    "3:11 no module is named; give `module`, `in-tree` or `kernel-source`"
)]
#[case::empty_map("- load: {}", "3:11 no module is named; give `module`, `in-tree` or `kernel-source`")]
#[case::no_command("- run: ''", "3:10 there is no command")]
#[case::no_arguments("- run: []", "3:10 there is no command")]
#[case::wait_module(
    "- wait-for: { gone: refmot }",
    "3:23 unknown test module `refmot`; did you mean `refmod`?"
)]
#[case::wait_what("- wait-for: { gnoe: refmod }", "3:17 unknown key `gnoe`; did you mean `gone`?")]
#[case::wait_file(
    "- wait-for: { file: { path: /x } }",
    "3:23 give exactly one of `exists`, `equals`, `contains`"
)]
#[case::expect_module(
    "- assert: { modules: { refmot: { loaded: true } } }",
    "3:26 unknown test module `refmot`; did you mean `refmod`?"
)]
#[case::blame_module(
    "- trace: { events: module }\n- assert: { blame: { refmot: free } }",
    "4:24 unknown test module `refmot`; did you mean `refmod`?"
)]
#[case::blame_word(
    "- trace: { events: module }\n- assert: { blame: { refmod: fre } }",
    "4:32 unknown word `fre`; did you mean `free`?"
)]
#[case::blame_untraced(
    "- assert: { blame: { refmod: free } }",
    "3:24 nothing was traced; put a step `trace: { events: module }` before the module is loaded"
)]
#[case::errno_null("- unload: { module: refmod, errno: }", "3:31 expected text, found nothing")]
#[case::timeout_long("- run: x\n  timeout: 2h", "4:14 a timeout of more than an hour")]
#[case::timeout_zero("- run: x\n  timeout: 0s", "4:14 a timeout of nothing; give one such as `30s`")]
#[case::text_is_bytes("- write: { path: /x }", "3:12 the key `text` is missing")]
#[case::flag(
    "- assert: { kprobes: { contains: { flags: disabled } } }",
    "3:45 unknown word `disabled`; did you mean `DISABLED`?"
)]
#[case::pattern(
    "- assert: { log: { none: '/[/' } }",
    "3:28 `[` is no regular expression: unclosed character class"
)]
fn an_error_says_where_and_what(#[case] steps: &str, #[case] expected: &str) {
    let steps: String = steps.lines().map(|line| format!("  {line}\n")).collect();
    assert_eq!(errors(&format!("name: x\nsteps:\n{steps}")), [expected]);
}

#[rstest]
#[case("steps: [{ run: x }]", &["1:1 the key `name` is missing; it says what the scenario shows"])]
#[case("name: x", &["1:1 the key `steps` is missing; a scenario does at least one thing"])]
#[case("covers: [R1]", &[
    "1:1 the key `name` is missing; it says what the scenario shows",
    "1:1 the key `steps` is missing; a scenario does at least one thing",
])]
#[case("name: x\nsteps: []", &["2:8 there are no steps; a scenario does at least one thing"])]
#[case("name: [x]\nsteps: {}", &["1:7 expected text, found a list", "2:8 expected a list, found a map"])]
#[case("name: ''\nsteps: [{ run: x }]", &["1:7 a name is one line of text"])]
#[case("name: x\ncovers: [R1, P1, R1]\nsteps: [{ run: x }]", &["2:18 `R1` is there twice"])]
#[case("name: x\npackages: [kmod, trace-cmd, kmod]\nsteps: [{ run: x }]", &["2:29 `kmod` is there twice"])]
#[case(
    "name: x\npackages: Kmod\nsteps: [{ run: x }]",
    &["2:11 `Kmod` is no name of Debian's: lower-case letters, digits, `+`, `-` and `.`"]
)]
#[case(
    "name: x\nmachine: { devices: 'qemu-xhci -netdev user' }\nsteps: [{ run: x }]",
    &["2:21 `qemu-xhci -netdev user` is no device; write one such as `qemu-xhci` or `qemu-xhci,id=usb`"]
)]
#[case("name: x\nmachine: { smp: 0 }\nsteps: [{ run: x }]", &["2:17 expected 1 to 8 CPUs, found 0"])]
#[case(
    "name: x\nrequires: { kernel: '5.6', config: [CONFIG_X] }\nsteps: [{ run: x }]",
    &[
        "2:21 `5.6` is no set of kernel versions; write `>=5.6` or `>=4.15, <6.5`",
        "2:37 `CONFIG_X` has the prefix `CONFIG_`; write `X`",
    ]
)]
fn errors_at_the_top_are_told(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(errors(text), expected);
}

#[test]
fn architectures_are_those_of_the_table() {
    let told = errors("name: x\nrequires: { arch: ia64 }\nsteps: [{ run: x }]").join("\n");
    assert!(told.starts_with("2:19 unknown architecture `ia64`: known are x86_64, arm, "), "{told}");
    assert!(told.contains("ia64 left the kernel in 6.7"), "{told}");
}

#[test]
fn in_tree_modules_bring_names_that_are_not_known_here() {
    let text = "name: x\nsteps:\n  - load: { in-tree: firewire-ohci }\n  - wait-for: { loaded: crc_itu_t }\n  \
                - assert: { modules: { firewire_core: { use-count: 1 } } }\n";
    read(text).unwrap();
}

#[rstest]
#[case(">=5.6", "6.1.0-49-amd64", true)]
#[case(">=5.6", "5.6.0", true)]
#[case(">=5.6", "5.5.19", false)]
#[case(">=4.15, <5.6", "5.5.19", true)]
#[case(">=4.15, <5.6", "5.6", false)]
#[case("<4.15", "4.15.0-rc1", false)]
#[case("=6.1", "6.1.0", true)]
#[case(">6.1", "6.1.1", true)]
#[case("<=6.1.5", "6.1.5-x", true)]
#[case(">=5.6", "strange", false)]
fn kernel_versions_are_compared(#[case] range: &str, #[case] release: &str, #[case] expected: bool) {
    let range: crate::scenario::KernelRange = crate::yaml::from_str(&format!("{range:?}")).unwrap();
    assert_eq!(range.contains(release), expected);
}

#[rstest]
#[case("kernel: '>=5.6'", None)]
#[case(
    "kernel: '>=6.6'\n  config: [KPROBES, KUNIT]",
    Some("needs kernel >=6.6, this is 6.1.0-49-armmp; needs CONFIG_KUNIT")
)]
#[case("arch: [x86_64]\n  reason: jumps", Some("not for arm; jumps"))]
#[case("not-arch: [arm, ppc64le]", Some("not for arm"))]
#[case("arch: [arm]\n  config: KPROBES", None)]
fn requirements_that_are_not_met_give_the_reason(#[case] requires: &str, #[case] expected: Option<&str>) {
    let scenario = read(&format!("name: x\nsteps: [{{ run: x }}]\nrequires:\n  {requires}\n")).unwrap();
    let facts = crate::scenario::KernelFacts {
        release: "6.1.0-49-armmp",
        arch: "arm".parse().unwrap(),
        has_config: &|name| name == "KPROBES",
    };
    assert_eq!(scenario.requires.unmet(&facts).as_deref(), expected);
}

proptest! {
    #[test]
    fn no_scenario_panics(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "name: x\n", "steps:\n", "expect:\n", "  ", "- ", "load: ", "run: ", "trace: ", "expect: ", "log: ", "{ ", " }", "[", "]",
                ", ", "module: refmod", "contains: a", "in-order: ", "event: b", "is: '>= 1'", "\n", "$<arch>", "$<x>", "stop", "''",
                "wait-for: ", "refcount: ", "/(/", "covers: [R1]\n", "5", "true", "~", "*a", "&a ",
            ]),
            0..40,
        )
    ) {
        let text = words.concat();
        if let Err(errors) = read(&text) {
            prop_assert!(!errors.is_empty());
            let _ = yaml::render("x.yaml", &text, &errors);
        }
    }
}

#[test]
fn a_scan_needs_the_module_that_scans() {
    let text = "name: x\nsteps:\n- assert: { blame: { loop: { left-over: 0 } } }\n";
    let modules = ["loop".to_owned()];
    let context = Context { modules: &modules, errnos: &[] };
    let errors = super::read(text, &Values::default(), context).unwrap_err();
    let told: Vec<_> = errors.iter().map(|error| (error.at.line, error.message.as_str())).collect();
    assert_eq!(told, [(3, "`holders` and `left-over` need the test module `refscan`, which is not there")]);
}

/// Every example in the documentation is one: a scenario, steps, or expectations.
#[test]
fn the_documentation_is_true() {
    let page = include_str!("../../../../docs/scenarios.md");
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let indented = |block: &str| block.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let tracing = "  - trace: { events: module }\n";
    let mut examples = 0;
    for block in blocks {
        let text = match block.split([' ', ':']).next().unwrap() {
            "name" => block.to_owned(),
            "-" => format!("name: x\nsteps:\n{tracing}{}", indented(block)),
            "expect" => format!("name: x\nsteps:\n{tracing}{block}"),
            "#" => continue,
            other => panic!("an example begins with `{other}`"),
        };
        let errors = read(&text).err().unwrap_or_default();
        assert!(errors.is_empty(), "{}", yaml::render("docs/scenarios.md", &text, &errors));
        examples += 1;
    }
    assert_eq!(examples, 8);
}
