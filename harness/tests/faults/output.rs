//! Guests that say too much, or what no terminal should see.

use libtest_mimic::Trial;
use quick_junit::{Report, TestCaseStatus};

use crate::processes::wait_until;
use crate::project::Project;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("output::a_flood_is_cut_and_memory_stays_bounded", flood),
        trial("output::escapes_and_broken_utf8_do_not_reach_the_terminal", garbage),
        trial("output::a_junit_report_counts_cases_and_has_only_what_xml_allows", junit),
        trial("output::figures_are_in_each_report_and_a_line_that_is_none_is_a_failure", figures),
        trial("output::the_summary_ends_with_the_failures_and_how_to_run_them_again", summary),
        trial("output::a_slow_case_is_named_while_it_runs_and_at_the_end", slow),
        trial("output::github_gets_groups_annotations_and_a_summary_and_obeys_no_guest", github),
        trial("output::plain_output_is_never_redrawn_and_a_narrow_terminal_serves", terminal),
        trial("output::a_report_that_cannot_be_written_is_an_error", || {
            let project = Project::new().scenario("case", "steps:\n  - run: 'true'\n");
            let ended = project.run(&["--junit", "/dev/full"]).finish();
            assert_eq!(ended.code, Some(125), "{ended:#?}");
            ended.expect_words(&["cannot write the report: `/dev/full`: No space left on device"]);
            let project = Project::new().scenario("case", "steps:\n  - run: 'true'\n");
            let ended = project.run(&[]).finish_into("/dev/full");
            assert_eq!(ended.code, Some(125), "{ended:#?}");
            ended.expect_words(&["1 passed", "cannot write the report: No space left on device"]);
        }),
    ]
}

const WARN: &str = "steps:\n  - load: { module: fault, params: { kind: warn } }\n";

fn summary() {
    let project =
        Project::new().scenario("a", WARN).scenario("b", WARN).scenario("c", "steps:\n  - run: 'false'\n");
    let ended = project.run(&["-j", "1"]).finish();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let told: Vec<&str> = ended.stderr.lines().collect();
    // The kernel's words come once.
    let whole = told.iter().filter(|line| line.trim() == "the kernel's words:").count();
    assert_eq!(whole, 1, "{ended:#?}");
    ended.expect_words(&["\n  the kernel's words: as in a@x86_64\n"]);
    let from = told.iter().position(|line| line.starts_with("3 cases in ")).unwrap();
    let last: Vec<&str> = told[from + 1..].iter().map(|line| line.trim()).collect();
    let again = |id: &str| {
        format!("kmodlab run {} --image x86_64 -v", project.path(&format!("scenarios/{id}.yaml")).display())
    };
    let (a, b, c) = (again("a"), again("b"), again("c"));
    assert_eq!(
        last,
        ["CRASH a@x86_64", a.as_str(), "CRASH b@x86_64", b.as_str(), "FAIL c@x86_64", c.as_str()]
    );
}

fn slow() {
    let project = Project::new().scenario("case", "steps:\n  - run: sleep 4\n");
    let ended = project.run(&["--slow-after", "1s"]).finish();
    ended.expect_pass();
    // While it ran it was told of by its step; the line after the totals has its time.
    ended.expect_words(&["case@x86_64: step 1 (run sleep 4)\n"]);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.trim_start().starts_with("SLOW [") && last.ends_with("] case@x86_64"), "{ended:#?}");
    let ended = project.run(&["--slow-after", "1h"]).finish();
    assert!(!ended.stderr.contains("SLOW"), "{ended:#?}");
}

fn github() {
    let print = "steps:\n  - run: printf '::error::obey\\n##[error]obey\\n'\n    expect: { stdout: other }\n";
    let project = Project::new().scenario("case", print);
    let summary = project.path("summary.md");
    std::fs::write(&summary, "before\n").unwrap();
    let run = project.run(&["-v"]).env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", &summary);
    let ended = run.env("GITHUB_WORKSPACE", project.path("")).finish();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let commands: Vec<&str> =
        ended.stderr.lines().filter(|line| line.trim_start().starts_with("::")).collect();
    let groups = commands.iter().filter(|line| line.starts_with("::group::")).count();
    assert_eq!(
        (groups, commands.iter().filter(|line| **line == "::endgroup::").count()),
        (2, 2),
        "{ended:#?}"
    );
    let annotations: Vec<_> = commands.iter().filter(|line| line.starts_with("::error")).collect();
    assert_eq!(annotations.len(), 1, "{ended:#?}");
    let place = "::error file=scenarios/case.yaml,line=3,col=5,title=fail case@x86_64::case%0Astep 1";
    assert!(annotations[0].starts_with(place), "{annotations:?}");
    assert!(!ended.stderr.contains("##[error]"), "{ended:#?}");
    let text = std::fs::read_to_string(summary).unwrap();
    assert!(text.starts_with("before\n<h2>kmodlab: some cases went wrong</h2>"), "{text}");
}

fn terminal() {
    let project = Project::new().scenario("case", "steps:\n  - run: 'true'\n");
    let root = project.path("");
    let on_a_terminal = |args: &str, set: &str| {
        let kmodlab = env!("CARGO_BIN_EXE_kmodlab");
        let run = format!("stty cols 24; {kmodlab} --root {} run {args}", root.display());
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &run, "/dev/null"]).env("TERM", "xterm").env_remove("CI").env_remove("NO_COLOR");
        script.env("XDG_STATE_HOME", project.path("state")).env_remove("GITHUB_ACTIONS");
        let (key, value) = set.split_once('=').unwrap_or(("UNUSED", ""));
        let output = script.env(key, value).stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // A color is `\x1b[…m`; whatever else begins with an escape moves the cursor or clears.
    let colors = |text: &str| {
        text.split("\x1b[")
            .skip(1)
            .any(|code| code.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
    };
    let redraws = |text: &str| text.contains("\x1b[2K") || text.contains("\x1b[1A");
    let live = on_a_terminal("", "");
    assert!(colors(&live) && redraws(&live) && live.contains("1 passed"), "{live:?}");
    let live = on_a_terminal("", "NO_COLOR=1");
    assert!(!colors(&live) && redraws(&live), "{live:?}");
    for plain in
        [on_a_terminal("--plain", ""), on_a_terminal("", "KMODLAB_PLAIN=1"), on_a_terminal("", "TERM=dumb")]
    {
        assert!(!plain.contains('\x1b') && plain.contains("PASS ["), "{plain:?}");
    }
}

fn junit() {
    let project = Project::new()
        .scenario("good", "steps:\n  - run: 'true'\n")
        .scenario("skipped", "requires: { config: NO_SUCH_THING }\nsteps:\n  - run: 'true'\n")
        .scenario(
            "bad",
            "steps:\n  - run: printf 'a<b\\001\\033[1m'\n    expect: { stdout: { equals: c } }\n",
        );
    let file = project.path("junit.xml");
    let ended = project.run(&["--junit", file.to_str().unwrap()]).finish();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
    let report = Report::deserialize_from_str(&text).unwrap();
    let [suite] = &report.test_suites[..] else { panic!("{report:?}") };
    assert_eq!((suite.tests, suite.failures, suite.errors), (3, 1, 0), "{text}");
    let names: Vec<_> = suite.test_cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["bad", "good", "skipped"]);
    let TestCaseStatus::NonSuccess { description, .. } = &suite.test_cases[0].status else {
        panic!("{text}")
    };
    let description = description.as_ref().unwrap().as_str();
    assert!(
        description.contains("a<b") && description.contains("run it again: kmodlab run "),
        "{description}"
    );
    assert!(matches!(suite.test_cases[2].status, TestCaseStatus::Skipped { .. }), "{text}");
}

fn figures() {
    let print = |text: &str| format!("steps:\n  - run: {{ command: [printf, '{text}'], figures: true }}\n");
    let project = Project::new().scenario("case", &print("time, a call: 12.50 us\\ncalls: 3\\n"));
    let file = project.path("junit.xml");
    let ended = project.run(&["--junit", file.to_str().unwrap()]).finish();
    ended.expect_pass();
    ended.expect_words(&["time, a call: 12.5 us\n", "calls: 3\n"]);
    let json = &ended.report()["cases"][0]["figures"];
    assert_eq!(
        *json,
        serde_json::json!([
            { "name": "time, a call", "value": 12.5, "unit": "us" },
            { "name": "calls", "value": 3.0, "unit": "" },
        ])
    );
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("figure time, a call: 12.5 us"), "{text}");

    let ended = Project::new().scenario("case", &print("calls: 3\\nno figure\\n")).run(&[]).finish();
    assert_eq!((ended.code, ended.case().outcome()), (Some(1), "fail"), "{ended:#?}");
    ended.expect_words(&["stdout: expected figures such as `time: 12 us`\n  found `no figure`"]);
}

/// The most memory that the harness may ever have in use, in MiB: four times what it keeps of a log.
const MEMORY: u64 = 96;

fn flood() {
    let scenario = "steps:\n  - load: { module: fault, params: { kind: flood, count: 12000 } }\n    timeout: 100s\n  \
                    - run: yes | head -c 6000000\n    timeout: 100s\n";
    let project = Project::new().scenario("case", scenario);
    let run = project.run(&["--keep"]).start();
    let mut most = 0;
    let status = format!("/proc/{}/status", run.id());
    // What it is when the process ends shows no more.
    let over = wait_until(run.id(), "end", || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) / 1024);
        None::<()>
    });
    assert!(over.is_err_and(|error| error.contains("it ended")));
    let ended = run.finish();
    ended.expect_pass();
    assert!((1..MEMORY).contains(&most), "{most} MiB");

    let artifact =
        |name: &str| std::fs::read_to_string(project.path("artifacts/x86_64/case").join(name)).unwrap();
    let log = artifact("kernel.log");
    assert!(
        log.contains("] fault: 0 xxx") && log.contains("] fault: 11999 xxx"),
        "the log has no beginning or no end"
    );
    assert!(log.len() < 10 << 20, "{}", log.len());
    let cut = log.lines().filter(|line| line.contains("were cut"));
    assert!(cut.count() > 0, "the log does not say that it was cut");
    let transcript = artifact("transcript.json");
    assert!(
        transcript.len() < 7 << 20 && transcript.contains("bytes were cut here]"),
        "{}",
        transcript.len()
    );
}

fn garbage() {
    let scenario = "steps:\n  - load: { module: fault, params: { kind: garble } }\n  \
                    - run: printf '\\033[31mred\\377\\302\\233b\\r'\n    expect: { stdout: other }\n";
    let project = Project::new().scenario("case", scenario);
    let ended = project.run(&["-v"]).finish();
    assert_eq!((ended.code, ended.case().outcome()), (Some(1), "fail"), "{ended:#?}");
    let text = String::from_utf8(ended.raw.clone()).expect("what is printed is UTF-8");
    let control = text.chars().find(|&c| c.is_control() && c != '\n');
    assert_eq!(control, None, "{ended:#?}");
    // Escaped, it is all there: of the program and of the kernel.
    ended.expect_words(&[
        "found `\\u{1b}[31mred\u{fffd}\\u{9b}b",
        "fault: garble \\u{1b}]0;title\\u{7}\\u{1b}[2J\u{fffd}",
    ]);
}
