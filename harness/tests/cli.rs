//! The command as its users see it, where no guest is needed.

#![allow(clippy::unwrap_used, reason = "helpers are test code")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;

/// A project with nothing but what a test puts there, and a cache of its own.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let project = Project(tempfile::tempdir().unwrap());
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for folder in ["images", "test-modules"] {
            std::os::unix::fs::symlink(ours.join(folder), project.path().join(folder)).unwrap();
        }
        std::fs::create_dir(project.path().join("scenarios")).unwrap();
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn scenario(&self, id: &str, text: &str) -> PathBuf {
        let file = self.path().join("scenarios").join(id).with_extension("yaml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    fn kmodlab(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kmodlab"));
        command.args(args).current_dir(self.path()).env("KMODLAB_CACHE", self.path().join("cache"));
        command.env_remove("KMODLAB_ROOT").env_remove("KMODLAB_KERNEL_TREE").output().unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const GOOD: &str = "name: nothing much\ncovers: [R1]\nsteps: [{ run: 'true' }]\n";

#[test]
fn every_error_of_every_file_is_told_at_once_and_nothing_boots() {
    let project = Project::new();
    project.scenario(
        "a/bad",
        "name: x\nstep: []\nsteps:\n  - load: refmot\n  - unload: { module: refmod, errno: EBUSSY }\n",
    );
    project.scenario("b/worse", "name: y\nsteps: []\n");
    for verb in ["check", "run", "list"] {
        let output = project.kmodlab(&[verb]);
        let text = err(&output);
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""), "{text}");
        for expected in [
            "scenarios/a/bad.yaml:2:1",
            "did you mean `steps`?",
            "scenarios/a/bad.yaml:4:11",
            "did you mean `refmod`?",
            "scenarios/a/bad.yaml:5:38",
            "did you mean `EBUSY`?",
            "scenarios/b/worse.yaml:2:8",
        ] {
            assert!(text.contains(expected), "`{expected}` is not in\n{text}");
        }
    }
}

#[test]
fn cases_are_listed_and_rows_counted() {
    let project = Project::new();
    project.scenario("topic/one", GOOD);
    let listed = out(&project.kmodlab(&["list"]));
    let ids: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(ids, ["topic/one@arm", "topic/one@ppc64le", "topic/one@x86_64"]);
    let one = out(&project.kmodlab(&["list", "--arch", "arm", "one"]));
    assert_eq!(one.lines().count(), 1);
    let other = out(&project.kmodlab(&["list", "--arch", "s390x"]));
    assert!(other.starts_with("topic/one@s390x "), "{other}");
    let all = out(&project.kmodlab(&["list", "--image", "all"]));
    assert!(["@arm-5.10 ", "@x86_64 ", "@riscv64 "].iter().all(|id| all.contains(id)), "{all}");
    let coverage = out(&project.kmodlab(&["list", "--coverage"]));
    assert!(coverage.contains("R1   topic/one\n") && coverage.contains("not covered: R2 R3"), "{coverage}");
}

#[rstest]
#[case::image(&["list", "--image", "x86_46"], "unknown image `x86_46`")]
#[case::arch(&["list", "--arch", "ia64"], "ia64 left the kernel in 6.7")]
#[case::gone(&["list", "--image", "ia64"], "ia64 left the kernel in 6.7")]
#[case::filter(&["list", "onee"], "did you mean `one`?")]
#[case::jobs(&["run", "-j", "0"], "0 is not in 1..")]
#[case::scale(&["run", "--timeout-scale", "0"], "must be a number above 0")]
#[case::root(&["--root", "images", "list"], "has no folder `scenarios`")]
#[case::nothing(&[], "Usage: kmodlab")]
fn what_is_wrong_with_the_command_line_is_told(#[case] args: &[&str], #[case] message: &str) {
    let project = Project::new();
    project.scenario("topic/one", GOOD);
    let output = project.kmodlab(args);
    let text = err(&output);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""), "{text}");
    assert!(text.contains(message), "`{message}` is not in\n{text}");
}

/// A folder that looks like a built tree, as far as nothing is booted.
fn tree(project: &Project) -> PathBuf {
    let dir = project.path().join("linux");
    let config = format!("{}CONFIG_X86_64=y\n", out(&project.kmodlab(&["kconfig", "x86_64"])));
    let config = config.replace("CONFIG_MODULES=y\n", "");
    for (path, text) in [
        ("include/config/auto.conf", config.as_str()),
        ("include/generated/utsrelease.h", "#define UTS_RELEASE \"6.6.0-mine\"\n"),
        ("arch/x86/boot/bzImage", ""),
    ] {
        let file = dir.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    dir
}

#[test]
fn a_kernel_tree_takes_the_place_of_the_default_images() {
    let project = Project::new();
    project.scenario("topic/one", GOOD);
    let tree = tree(&project);
    let listed = |args: &[&str], env: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kmodlab"));
        command.arg("list").args(args).current_dir(project.path());
        let output = command.env("KMODLAB_KERNEL_TREE", env).output().unwrap();
        let text = out(&output);
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listed(&["--kernel-tree", "linux"], Path::new("")), ["topic/one@tree"]);
    assert_eq!(listed(&["--kernel-tree", "linux", "--arch", "x86_64"], Path::new("")), ["topic/one@tree"]);
    assert_eq!(listed(&[], &tree), ["topic/one@tree"]);
    assert_eq!(listed(&["--image", "arm"], &tree), ["topic/one@arm"]);
    assert_eq!(listed(&["-i", "arm", "-i", "tree"], &tree), ["topic/one@arm", "topic/one@tree"]);
    // What is not asked for is not looked at.
    assert_eq!(listed(&["--image", "arm"], Path::new("nowhere")), ["topic/one@arm"]);
}

#[test]
fn options_that_a_kernel_lacks_are_named_before_anything_boots() {
    let project = Project::new();
    project.scenario("topic/one", GOOD);
    let config = tree(&project).join("include/config/auto.conf");
    let text = std::fs::read_to_string(&config).unwrap();
    let without = |option: &str| {
        let line = format!("CONFIG_{option}=y\n");
        assert!(text.contains(&line));
        std::fs::write(&config, text.replace(&line, "")).unwrap();
        project.kmodlab(&["list", "--kernel-tree", "linux"])
    };
    let output = without("KPROBES");
    let told = err(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(told.contains("lacks options that scenarios are about: add to its .config\n"), "{told}");
    assert!(told.contains("\n  CONFIG_KPROBES=y\n") && !told.contains("MODULE_UNLOAD"), "{told}");
    assert!(told.contains("`kmodlab kconfig x86_64` prints"), "{told}");
    let output = without("BLK_DEV_INITRD");
    assert_eq!(output.status.code(), Some(125));
    assert!(
        err(&output).contains("no guest comes up without: add to its .config\n  CONFIG_BLK_DEV_INITRD=y\n")
    );
}

#[test]
fn a_tree_that_does_not_build_is_a_commit_to_skip() {
    let project = Project::new();
    project.scenario("topic/one", GOOD);
    let dir = tree(&project);
    // A build system as far as it is asked: it makes a configuration, and then fails.
    std::fs::copy(dir.join("include/config/auto.conf"), dir.join(".config")).unwrap();
    let makefile = "olddefconfig:\n\techo CONFIG_MODULES=y >> .config\n\
                    bzImage:\n\t@echo '  CC      a.o'; echo a.c:1: error: no >&2; false\nmodules:\n";
    std::fs::write(dir.join("Makefile"), makefile).unwrap();
    let output = project.kmodlab(&["run", "--kernel-tree", "linux", "--build"]);
    let told = err(&output);
    assert_eq!(output.status.code(), Some(125), "{told}");
    assert!(told.contains("linux` does not build\n") && told.contains("a.c:1: error: no"), "{told}");
    assert!(told.contains("bzImage modules") && !told.contains("CC      a.o"), "{told}");
    std::fs::remove_file(dir.join(".config")).unwrap();
    let output = project.kmodlab(&["run", "--kernel-tree", "linux", "--build"]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
}

#[rstest]
#[case::nowhere(&["--kernel-tree", "nowhere"], 2, "there is no kernel tree `")]
#[case::no_tree(&["--kernel-tree", "."], 2, "is no kernel tree: it has neither a `.config` nor")]
#[case::not_built(&["--kernel-tree", "linux"], 125, "is not built: it has no `arch/x86/boot/bzImage`\nrun `make bzImage modules`")]
#[case::two(&["--kernel-tree", "linux", "--kernel", "linux"], 2, "cannot be used with '--kernel")]
#[case::both(&["--kernel-tree", "linux", "--image", "arm"], 2, "cannot be used with '--image")]
#[case::build(&["--build"], 2, "--kernel-tree <DIR>")]
#[case::modules(&["--modules", "linux"], 2, "--kernel <FILE>")]
#[case::no_kernel(&["--kernel", "linux/include/config/auto.conf"], 2, "is no kernel that kmodlab can boot")]
fn what_is_wrong_with_a_kernel_of_ones_own_is_told(
    #[case] args: &[&str],
    #[case] code: i32,
    #[case] message: &str,
) {
    let project = Project::new();
    project.scenario("topic/one", GOOD);
    std::fs::remove_file(tree(&project).join("arch/x86/boot/bzImage")).unwrap();
    let output = project.kmodlab(&[&["run"], args].concat());
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(code), ""), "{}", err(&output));
    assert!(err(&output).contains(message), "`{message}` is not in\n{}", err(&output));
}

#[test]
fn no_project_is_told_with_how_to_name_one() {
    let project = Project::new();
    std::fs::remove_dir(project.path().join("scenarios")).unwrap();
    let output = project.kmodlab(&["--root", ".", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("has no folder `scenarios`"), "{}", err(&output));
}

#[test]
fn a_kernel_is_built_from_sources_and_from_nothing_else() {
    let project = Project::new();
    let output = project.kmodlab(&["kernel", "build", ".", "--arch", "x86_64"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        err(&output).contains("has no kernel's sources: there is no `Kconfig` in it"),
        "{}",
        err(&output)
    );
    let output = project.kmodlab(&["kernel", "build", "linux-source", "--arch", "ia64"]);
    assert_eq!(output.status.code(), Some(2));
    let output =
        project.kmodlab(&["kernel", "build", "linux-source", "--arch", "ppc64", "--suite", "book worm"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("is no name of Debian's"), "{}", err(&output));
}

#[test]
fn the_options_that_are_printed_are_those_of_the_architecture() {
    let project = Project::new();
    for (arch, own) in [("x86_64", "CONFIG_PVH=y"), ("ppc64", "CONFIG_CPU_BIG_ENDIAN=y")] {
        let output = project.kmodlab(&["kconfig", arch]);
        assert!(output.status.success());
        for option in [own, "CONFIG_KPROBES=y", "CONFIG_MODULE_FORCE_UNLOAD=y"] {
            assert!(out(&output).lines().any(|line| line == option), "{arch}: {option}");
        }
    }
}

#[test]
fn help_has_examples_and_goes_to_standard_output() {
    let project = Project::new();
    for args in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let output = project.kmodlab(args);
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
        assert!(out(&output).contains("kmodlab"));
    }
    assert!(out(&project.kmodlab(&["--help"])).contains("Examples:"));
}

#[rstest]
#[case("bash")]
#[case("zsh")]
#[case("fish")]
fn completions_name_the_subcommands(#[case] shell: &str) {
    let output = Project::new().kmodlab(&["completions", shell]);
    assert!(output.status.success() && out(&output).contains("doctor"));
}

#[test]
fn the_schema_is_json_and_the_one_in_the_tree() {
    let output = Project::new().kmodlab(&["schema"]);
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/schema.json");
    assert_eq!(printed, serde_json::from_slice::<serde_json::Value>(&std::fs::read(file).unwrap()).unwrap());
    for of in ["report", "diff"] {
        let output = Project::new().kmodlab(&["schema", of]);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/{of}.schema.json"));
        assert_eq!(output.stdout, std::fs::read(file).unwrap());
    }
}

#[test]
fn a_run_that_is_over_becomes_every_other_report() {
    let project = Project::new();
    let run = format!("{}/tests/data/report/run.json", env!("CARGO_MANIFEST_DIR"));
    let args =
        ["report", &run, "--json", "again.json", "--junit", "junit.xml", "--ktap", "-", "--html", "pages"];
    for _ in 0..2 {
        let output = project.kmodlab(&args);
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
        assert!(out(&output).starts_with("KTAP version 1\n1..30\n"), "{}", out(&output));
    }
    let json =
        |path: &Path| serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(json(&project.path().join("again.json")), json(run.as_ref()));
    assert!(project.path().join("junit.xml").exists());
    assert_eq!(std::fs::read_dir(project.path().join("pages/cases")).unwrap().count(), 30);
    let left = std::fs::read_dir(project.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(
        left.into_iter().all(|name| !name.to_string_lossy().starts_with(".kmodlab")),
        "a folder is left over"
    );
}

#[test]
fn a_diff_tells_what_newly_fails_and_exits_with_1() {
    let (project, run) =
        (Project::new(), format!("{}/tests/data/report/run.json", env!("CARGO_MANIFEST_DIR")));
    let same = project.kmodlab(&["diff", &run, &run]);
    assert_eq!((same.status.code(), out(&same).as_str()), (Some(0), "nothing changed\n"), "{}", err(&same));
    let mut before: serde_json::Value = serde_json::from_slice(&std::fs::read(&run).unwrap()).unwrap();
    let case = &mut before["cases"][0];
    case["outcome"] = "pass".into();
    let id = format!("{}@{}", case["scenario"].as_str().unwrap(), case["image"].as_str().unwrap());
    std::fs::write(project.path().join("old.json"), before.to_string()).unwrap();
    let told = project.kmodlab(&["diff", "old.json", &run]);
    assert_eq!(told.status.code(), Some(1));
    assert!(
        out(&told).starts_with(&format!("newly failing: 1\n  {id}: crash, was pass\n")),
        "{}",
        out(&told)
    );
    let json = project.kmodlab(&["diff", "old.json", &run, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["newly_failing"][0]["case"], &json["gone"]), (&id.into(), &serde_json::json!([])));
    assert_eq!(project.kmodlab(&["diff", &run, "old.json"]).status.code(), Some(0));
    assert_eq!(project.kmodlab(&["diff", &run, "none.json"]).status.code(), Some(2));
}

#[rstest]
#[case::twice(&["report", "RUN", "RUN", "--junit", "x"], 2, "is there twice")]
#[case::nothing(&["report", "RUN"], 2, "no report is asked for")]
#[case::both(&["report", "RUN", "--ktap", "-", "--json", "-"], 2, "only one report can go to standard output")]
#[case::none(&["report", "images/x86_64.yaml", "--junit", "x"], 2, "this is no document of a run")]
#[case::ours(&["report", "RUN", "--html", "images"], 2, "is not empty and has no report of kmodlab's in it")]
#[case::full(&["report", "RUN", "--junit", "/dev/full"], 125, "`/dev/full`: No space left on device")]
fn what_is_wrong_with_a_report_is_told(#[case] args: &[&str], #[case] code: i32, #[case] message: &str) {
    let run = format!("{}/tests/data/report/run.json", env!("CARGO_MANIFEST_DIR"));
    let args: Vec<&str> = args.iter().map(|arg| if *arg == "RUN" { run.as_str() } else { arg }).collect();
    let output = Project::new().kmodlab(&args);
    assert_eq!(output.status.code(), Some(code), "{}", err(&output));
    assert!(err(&output).contains(message), "{}", err(&output));
}

#[test]
fn a_kernel_that_cannot_be_had_is_an_error_in_the_one_document() {
    let project = Project::new();
    project.scenario("topic/one", GOOD);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kmodlab"));
    command.args(["run", "--image", "x86_64", "--format", "json"]).current_dir(project.path());
    command.env("KMODLAB_CACHE", project.path().join("cache"));
    command.env("XDG_STATE_HOME", project.path().join("state"));
    // Nothing listens there.
    let output = command.env("KMODLAB_DEBIAN_MIRROR", "http://127.0.0.1:9/debian").output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", err(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["totals"]["error"], 1);
    let case = &document["cases"][0];
    assert_eq!((&case["scenario"], &case["image"]), (&"topic/one".into(), &"x86_64".into()));
    assert_eq!((&case["outcome"], &case["start"]), (&"error".into(), &serde_json::Value::Null));
    assert!(case["reason"].as_str().unwrap().starts_with("image `x86_64`: "), "{case}");
}

fn recorded(name: &str) -> String {
    let end = if name.contains('.') { "" } else { ".txt" };
    format!("{}/tests/data/trace/{name}{end}", env!("CARGO_MANIFEST_DIR"))
}

#[rstest]
#[case::held("arm-leak", &["boom"], 1, "`boom` is held once: insmod[124] took it in boom_leak [boom]")]
#[case::free("arm-leak", &["hold"], 0, "nothing holds `hold`")]
#[case::all("x86_64-double-put", &[], 1, "`boom` was given back more often than it was taken")]
#[case::of_version_6("x86_64-six.dat", &["leakmod"], 1, "`leakmod` is held once: insmod[225] took it in leakmod_get [leakmod]")]
#[case::compressed("arm-own7.dat", &[], 1, "`leakmod` is held once: insmod[246] took it in leakmod_get [leakmod]")]
#[case::printed_by_trace_cmd("x86_64-trace-cmd", &["hold"], 0, "`hold` is not loaded at the end of the trace")]
fn blame_answers_from_a_trace(
    #[case] trace: &str,
    #[case] module: &[&str],
    #[case] code: i32,
    #[case] sentence: &str,
) {
    let path = recorded(trace);
    let output = Project::new().kmodlab(&[&["blame", "--trace", &path], module].concat());
    assert_eq!(output.status.code(), Some(code), "{}", err(&output));
    assert!(out(&output).starts_with(sentence), "{}", out(&output));
    let output = Project::new().kmodlab(&[&["blame", "--format", "json", "--trace", &path], module].concat());
    assert_eq!(output.status.code(), Some(code));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["modules"][0]["sentence"].as_str().unwrap().starts_with(sentence));
}

#[test]
fn blame_says_what_is_wrong_with_a_trace() {
    let project = Project::new();
    let (text, recording) = (project.path().join("text"), project.path().join("trace.dat"));
    std::fs::write(&text, "nothing\n").unwrap();
    std::fs::write(&recording, b"\x17\x08\x44tracing6\0").unwrap();
    let (text, recording) = (text.to_str().unwrap(), recording.to_str().unwrap());
    let held = recorded("arm-held");
    for (args, message) in [
        (vec!["nowhere"], "cannot read `nowhere`"),
        (vec![text], "has no module events\nenable them"),
        (vec![recording], "trace.dat`: it is cut short: more should follow at byte 12"),
        (vec![&held, "other"], "has no event of a module `other`"),
    ] {
        let output = project.kmodlab(&[&["blame", "--trace"], args.as_slice()].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(err(&output).contains(message), "{}", err(&output));
    }
}

#[test]
fn a_recording_on_standard_input_is_refused() {
    let recording = std::fs::File::open(recorded("x86_64-own7.dat")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kmodlab"));
    let output = command.args(["blame", "--trace", "-"]).stdin(recording).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("standard input is a recording of trace-cmd"), "{}", err(&output));
    assert!(err(&output).contains("kmodlab blame --trace FILE"), "{}", err(&output));
}

#[test]
fn blame_does_not_take_a_trace_that_cannot_tell_for_a_free_module() {
    let project = Project::new();
    let trace = project.path().join("trace");
    // Counts of single cpus, as kernels before 3.19 had them, tell nothing of the whole.
    let lines = " sh-5  [000] .....  1.0: module_get: m call_site=f refcnt=0\n \
                 sh-5  [000] .....  1.1: module_put: m call_site=f refcnt=-1\n";
    std::fs::write(&trace, lines).unwrap();
    let output = project.kmodlab(&["blame", "--trace", trace.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(125), "{}", err(&output));
    assert!(
        out(&output).starts_with("the trace does not show whether something holds `m`"),
        "{}",
        out(&output)
    );
}

#[test]
fn a_project_without_images_has_those_that_are_built_in() {
    let project = Project::new();
    std::fs::remove_file(project.path().join("images")).unwrap();
    project.scenario("topic/one", GOOD);
    let listed = out(&project.kmodlab(&["list"]));
    let expected = ["arm", "ppc64le", "x86_64"].map(|image| format!("topic/one@{image}"));
    let ids: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(ids, expected);
}

#[test]
fn a_report_of_shards_must_have_each_case_just_once() {
    let project = Project::new();
    let recorded =
        std::fs::read(format!("{}/tests/data/report/run.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&recorded).unwrap();
    let all = document["cases"].as_array().unwrap().clone();
    let id = |case: &serde_json::Value| {
        format!("{}@{}", case["scenario"].as_str().unwrap(), case["image"].as_str().unwrap())
    };
    // Each case in a file of its own, in folders, as nextest's processes leave them.
    let file = |folder: &str, case: &serde_json::Value| {
        let file = project.path().join(folder).join(format!("{}.json", id(case)));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        file
    };
    for (number, case) in all.iter().enumerate() {
        document["cases"] = serde_json::json!([case]);
        let file = file(["one", "two"][number % 2], case);
        std::fs::write(file, document.to_string()).unwrap();
    }
    let names: String = all.iter().map(|case| id(case) + "  its title\n").collect();
    std::fs::write(project.path().join("cases.txt"), &names).unwrap();
    let report =
        || project.kmodlab(&["report", "one", "two", "--cases", "cases.txt", "--junit", "junit.xml"]);

    let output = report();
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    let xml = std::fs::read_to_string(project.path().join("junit.xml")).unwrap();
    assert_eq!(xml.matches("<testcase ").count(), all.len());

    let lost = file("two", &all[1]);
    let moved = lost.with_extension("away");
    std::fs::rename(&lost, &moved).unwrap();
    let output = report();
    assert_eq!(
        (output.status.code(), err(&output)),
        (Some(125), format!("kmodlab: lost: {}\n", id(&all[1])))
    );

    std::fs::copy(&moved, file("one", &all[1])).unwrap();
    std::fs::rename(&moved, &lost).unwrap();
    let output = report();
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains(&format!("the case {} is there twice", id(&all[1]))), "{}", err(&output));

    std::fs::remove_file(file("one", &all[1])).unwrap();
    std::fs::write(project.path().join("cases.txt"), names.split_once('\n').unwrap().1).unwrap();
    let output = report();
    assert_eq!(output.status.code(), Some(125));
    assert!(err(&output).contains(&format!("not in `cases.txt`: {}", id(&all[0]))), "{}", err(&output));
}

#[test]
fn gitlab_is_told_of_what_went_wrong_with_its_line() {
    let project = Project::new();
    let recorded = format!("{}/tests/data/report/run.json", env!("CARGO_MANIFEST_DIR"));
    let output = project.kmodlab(&["report", &recorded, "--code-quality", "quality.json"]);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    let read =
        |file: &Path| serde_json::from_slice::<serde_json::Value>(&std::fs::read(file).unwrap()).unwrap();
    let (issues, run) = (read(&project.path().join("quality.json")), read(Path::new(&recorded)));
    let bad: Vec<_> = run["cases"].as_array().unwrap().iter().collect();
    let bad: Vec<_> =
        bad.into_iter().filter(|case| case["outcome"] != "pass" && case["outcome"] != "skip").collect();
    let issues = issues.as_array().unwrap();
    assert!(!bad.is_empty() && bad.len() == issues.len());
    for (case, issue) in bad.into_iter().zip(issues) {
        assert_eq!(issue["location"]["path"], case["file"]);
        let line = if case["place"].is_null() { 1.into() } else { case["place"]["line"].clone() };
        assert_eq!(issue["location"]["lines"]["begin"], line);
        assert_eq!(issue["fingerprint"].as_str().unwrap().len(), 32);
    }
}
