//! Which lines of a module a run says were executed, by a kernel that counts them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "fixtures are test code"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use fs_err as fs;
use kmodlab::lab::Lab;
use kmodlab::needs::{REQUIRE_VM, missing_for_image};
use kmodlab::testing::IMAGES;
use kmodlab::work::{Cancel, Unwatched};
use lcov::Report;
use lcov::report::section::{Value, function};

/// It is built from source, with what `images/kconfig` says.
const IMAGE: &str = "ppc64";

const COUNTED: &str = "\
name: counted
steps:
  - load: probe_target
  - write: { path: /proc/probe_target, text: recurse 4 }
  - write: { path: /proc/probe_target, text: sum 1 2 3 }
  - unload: probe_target
";

/// What it did until it failed is counted, too.
const FAILS: &str = "\
name: fails
steps:
  - load: probe_target
  - write: { path: /proc/probe_target, text: sum 1 2 3 }
  - write: { path: /proc/probe_target, text: no such command }
";

/// Of a guest that is gone nothing can be read.
const DIES: &str = "\
name: dies
steps:
  - load: probe_target
  - run: poweroff -f
";

/// Names a kernel's build folder with `CONFIG_KCOV`, without `CONFIG_GCOV_KERNEL`, for a machine like this one: no image has such a
/// kernel.
const KCOV_TREE: &str = "KMODLAB_KCOV_TREE";

/// What programs have it do, and what they do themselves.
const BY_PROGRAMS: &str = "\
name: by programs
steps:
  - push: probe_target
  - run: [modprobe, probe_target]
  - run: echo long 5 3 > /proc/probe_target
  - spawn: { name: forever, run: 'while :; do echo u64 5 3 > /proc/probe_target; done' }
  - wait-for: { file: { path: /proc/probe_target, contains: command=u64 } }
  - stop: forever
  - run: [rmmod, probe_target]
";

/// There is no such program, which must be told as ever.
const NO_PROGRAM: &str = "\
name: no program
steps:
  - run: [no-such-program]
";

fn run(dir: &Path, kernel: &[&str]) -> Output {
    let coverage = dir.join("coverage");
    let mut kmodlab = Command::new(env!("CARGO_BIN_EXE_kmodlab"));
    kmodlab.arg("run").args(kernel).args(["--jobs", "2"]).arg(dir).arg("--coverage-dir").arg(coverage);
    kmodlab.arg("--json").arg(dir.join("report.json"));
    kmodlab.arg("--artifacts").arg(dir.join("artifacts")).output().expect("kmodlab")
}

/// Whether this machine can have guests of the image; it says why not, where it need not.
fn can_run(image: &str) -> bool {
    let lab = Lab::open(None, None, Arc::new(Unwatched), Cancel::new().expect("a pipe")).expect("a project");
    let spec = lab.image(image).expect("a known image");
    let Some(missing) = missing_for_image(&spec.image, lab.cancel()) else { return true };
    assert!(std::env::var_os(REQUIRE_VM).is_none_or(|value| value != "1"), "{missing}");
    eprintln!("skipped: {missing}");
    false
}

/// The counts of a case in the module's own source.
fn counts<'a>(report: &'a Report, case: &str) -> &'a Value {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("test-modules/probe_target/probe_target.c");
    let mut sections = report.sections.iter();
    let found = sections.find(|(key, _)| key.test_name == case && key.source_file == own);
    found.unwrap_or_else(|| panic!("no `{case}` in {:?}", report.sections.keys())).1
}

fn calls(counts: &Value, name: &str) -> u64 {
    counts.functions.get(&function::Key { name: name.to_owned() }).expect(name).count
}

/// The count of the first line with a text. Lines are the source's: the first in the body of a function counts its calls.
fn line(counts: &Value, text: &str) -> u64 {
    let source = fs::read_to_string("../test-modules/probe_target/probe_target.c").unwrap();
    let at = source.lines().position(|line| line.contains(text)).expect(text) + 1;
    let key = lcov::report::section::line::Key { line: at.try_into().unwrap() };
    counts.lines.get(&key).unwrap_or_else(|| panic!("no line {at}: {text}")).count
}

#[test]
fn a_case_tells_how_often_each_function_of_a_module_was_called() {
    let required = std::env::var(REQUIRE_VM).is_ok_and(|value| value == "1");
    let images = std::env::var(IMAGES).unwrap_or_default();
    if !required && !images.split(',').any(|image| image == IMAGE || image == "all") {
        eprintln!("skipped: {IMAGES} does not name {IMAGE}, whose kernel takes minutes to build");
        return;
    }
    if !can_run(IMAGE) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("counted", COUNTED), ("fails", FAILS), ("dies", DIES)] {
        fs::write(dir.path().join(format!("{name}.yaml")), text).unwrap();
    }
    let output = run(dir.path(), &["--image", IMAGE]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no coverage of dies@ppc64: "), "{said}");
    // The reports say it, too, at the case.
    let json = fs::read(dir.path().join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let warned = |case: &&serde_json::Value| case.get("warnings").is_some();
    let warned: Vec<_> = json["cases"].as_array().unwrap().iter().filter(warned).collect();
    assert_eq!(warned.iter().map(|case| &case["scenario"]).collect::<Vec<_>>(), ["dies"]);
    assert!(warned[0]["warnings"][0].as_str().unwrap().starts_with("no coverage of dies@ppc64: "));
    let report = Report::from_file(dir.path().join("coverage/ppc64.info")).unwrap();
    let counted = counts(&report, "counted");
    let of = ["recurse", "sum", "fail"].map(|name| calls(counted, &format!("probe_target_{name}")));
    assert_eq!(of, [5, 1, 0]);
    assert_eq!(line(counted, "int result = a + b + c;"), 1);
    assert_eq!(line(counted, "long result = a - b;"), 0);
    let fails = counts(&report, "fails");
    assert_eq!(["recurse", "sum"].map(|name| calls(fails, &format!("probe_target_{name}"))), [0, 1]);
    assert!(report.sections.keys().all(|key| key.test_name != "dies"));
}

#[test]
#[ignore = "no image has a kernel with kcov; KMODLAB_KCOV_TREE names one"]
fn a_case_tells_what_kcov_saw() {
    let tree =
        std::env::var(KCOV_TREE).unwrap_or_else(|_| panic!("{KCOV_TREE} names no kernel's build folder"));
    let dir = tempfile::tempdir().unwrap();
    let cases = [("counted", COUNTED), ("fails", FAILS), ("dies", DIES), ("by_programs", BY_PROGRAMS)];
    for (name, text) in cases.into_iter().chain([("no_program", NO_PROGRAM)]) {
        fs::write(dir.path().join(format!("{name}.yaml")), text).unwrap();
    }
    let output = run(dir.path(), &["--kernel-tree", &tree]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no coverage of dies@tree: "), "{said}");
    assert!(said.contains("ENOENT"), "{said}");
    assert!(!said.contains("is not complete"), "{said}");
    let report = Report::from_file(dir.path().join("coverage/tree.info")).unwrap();
    let functions = ["init", "recurse", "sum", "long", "u64", "fail"];
    for (case, expected) in
        [("counted", [1, 1, 1, 0, 0, 0]), ("fails", [1, 0, 1, 0, 0, 0]), ("by_programs", [1, 0, 0, 1, 1, 0])]
    {
        let counts = counts(&report, case);
        let found = functions.map(|name| calls(counts, &format!("probe_target_{name}")));
        assert_eq!(found, expected, "{case}: {functions:?}");
        let lines = ["sum", "long", "fail"].map(|name| format!("*result = probe_target_{name}("));
        let expected = [expected[2], expected[3], expected[5]];
        assert_eq!(lines.map(|text| line(counts, &text)), expected, "{case}");
    }
}

#[test]
fn a_kernel_that_counts_nothing_is_told_with_the_option() {
    if !can_run("x86_64") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("counted.yaml"), COUNTED).unwrap();
    let output = run(dir.path(), &["--image", "x86_64"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("CONFIG_GCOV_KERNEL or CONFIG_KCOV"), "{said}");
    assert!(!dir.path().join("coverage/x86_64.info").exists());
}
