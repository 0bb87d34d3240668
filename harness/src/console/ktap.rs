//! Test results in KTAP, the kernel's Test Anything Protocol: its `Documentation/dev-tools/ktap.rst`, and the output
//! of KUnit before it had that name.

use serde::Serialize;

use super::kmsg::ConsoleLine;

/// Subtests nested more deeply are read as if they were not.
const MAX_DEPTH: usize = 32;
/// Tests beyond this many are dropped; so are tests that a plan promises.
const MAX_TESTS: usize = 100_000;
/// Diagnostic lines of one test beyond this many are dropped.
const MAX_DIAGNOSTICS: usize = 200;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KtapVerdict {
    /// `ok`
    Pass,
    /// `not ok`
    Fail,
    /// `# SKIP`
    Skip,
    /// `# TODO`: known not to work yet.
    Todo,
    /// `# XFAIL`: expected to fail.
    Xfail,
    /// `# TIMEOUT`
    Timeout,
    /// `# ERROR`: it could not be carried out.
    Error,
    /// No result came: the plan promised it, or its subtests began.
    Missing,
}

impl KtapVerdict {
    /// Every verdict, in the order in which reports list them.
    pub const ALL: [KtapVerdict; 8] = [
        KtapVerdict::Pass,
        KtapVerdict::Skip,
        KtapVerdict::Todo,
        KtapVerdict::Xfail,
        KtapVerdict::Fail,
        KtapVerdict::Timeout,
        KtapVerdict::Error,
        KtapVerdict::Missing,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            KtapVerdict::Pass => "pass",
            KtapVerdict::Fail => "fail",
            KtapVerdict::Skip => "skip",
            KtapVerdict::Todo => "todo",
            KtapVerdict::Xfail => "xfail",
            KtapVerdict::Timeout => "timeout",
            KtapVerdict::Error => "error",
            KtapVerdict::Missing => "missing",
        }
    }

    /// Whether this is a failure.
    pub fn is_bad(self) -> bool {
        matches!(self, KtapVerdict::Fail | KtapVerdict::Timeout | KtapVerdict::Error | KtapVerdict::Missing)
    }
}

/// A test's result, with those of its subtests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KtapTest {
    /// Its name; empty where a missing test's name is not known.
    pub name: String,
    /// Its number among its siblings, from 1.
    pub number: u32,
    /// How it ended, by its own line.
    pub verdict: KtapVerdict,
    /// What stands after the directive, such as why it was skipped.
    pub reason: Option<String>,
    /// The lines that came with it.
    pub diagnostics: Vec<String>,
    /// Its subtests.
    pub tests: Vec<KtapTest>,
}

impl KtapTest {
    /// Whether neither it nor any of its subtests failed.
    pub fn passed(&self) -> bool {
        !self.verdict.is_bad() && self.tests.iter().all(KtapTest::passed)
    }
}

/// A result without subtests below it, or one that its subtests do not explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subtest {
    /// Its name behind those of the tests that it belongs to: `suite/test`. A missing one's is its number: `#3`.
    pub name: String,
    /// How it ended.
    pub verdict: KtapVerdict,
    /// What stands after the directive, such as why it was skipped.
    pub reason: Option<String>,
    /// The lines that came with it.
    pub diagnostics: Vec<String>,
}

/// All results of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct KtapReport {
    /// The tests of the outermost level, of every KTAP document in the log.
    pub tests: Vec<KtapTest>,
    /// How many documents have a version line and no plan, so that nobody can tell whether they are whole.
    pub unplanned: usize,
    /// What stands after `Bail out!`: the run was given up there.
    pub bail_out: Option<String>,
}

/// The subtests of a case, from everywhere that it printed some.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Subtests {
    /// They, in the order in which they came.
    pub tests: Vec<Subtest>,
    /// As [`KtapReport::unplanned`].
    pub unplanned: usize,
    /// The reasons of [`KtapReport::bail_out`].
    pub bail_outs: Vec<String>,
}

impl Subtests {
    /// Adds what a log had.
    pub fn add(&mut self, report: KtapReport) {
        report.tests.into_iter().for_each(|test| self.flatten("", test));
        self.unplanned += report.unplanned;
        self.bail_outs.extend(report.bail_out);
    }

    /// How many ended so.
    pub fn count(&self, verdict: KtapVerdict) -> usize {
        self.tests.iter().filter(|test| test.verdict == verdict).count()
    }

    fn flatten(&mut self, outer: &str, test: KtapTest) {
        let own = if test.name.is_empty() { format!("#{}", test.number) } else { test.name };
        let name = if outer.is_empty() { own } else { format!("{outer}/{own}") };
        let explained = if test.verdict.is_bad() {
            !test.tests.iter().all(KtapTest::passed)
        } else {
            !test.tests.is_empty()
        };
        for inner in test.tests {
            self.flatten(&name, inner);
        }
        if !explained {
            let KtapTest { verdict, reason, diagnostics, .. } = test;
            self.tests.push(Subtest { name, verdict, reason, diagnostics });
        }
    }
}

/// Reads KTAP out of a log, line by line. Other lines may stand between.
#[derive(Debug, Default)]
pub struct KtapReader {
    report: KtapReport,
    /// The levels that are open, the outermost first. The indents grow.
    levels: Vec<Level>,
    count: usize,
}

#[derive(Debug, Default)]
struct Level {
    indent: usize,
    /// From `# Subtest:`.
    name: Option<String>,
    /// Whether it is outermost and a version line began it. Below one, and before KUnit printed such lines, a level may
    /// have no plan, as where the number of a test's parameters is not known.
    announced: bool,
    plan: Option<u32>,
    tests: Vec<KtapTest>,
    /// Those since the last result.
    diagnostics: Vec<String>,
}

enum Parsed<'a> {
    Version,
    Plan(u32),
    Subtest(&'a str),
    Result(KtapTest),
    BailOut(&'a str),
    Diagnostic(&'a str),
    Other(&'a str),
}

impl KtapReader {
    /// Takes a line, with or without the prefixes of the kernel log or the console.
    pub fn push_line(&mut self, line: &str) {
        let text = ConsoleLine::parse(line).text.trim_end();
        let body = text.trim_start_matches([' ', '\t']);
        let indent = text.len() - body.len();
        let parsed = parse(body);
        if self.levels.is_empty() {
            match parsed {
                Parsed::Version => {}
                // KUnit in a module, before 6.2, begins with the subtests.
                Parsed::Subtest(_) if indent > 0 => self.levels.push(Level::default()),
                _ => return,
            }
        }
        match parsed {
            Parsed::Version => self.version(indent),
            Parsed::Plan(plan) => {
                if let Some(level) = self.level(indent) {
                    level.plan = level.plan.or(Some(plan));
                }
            }
            Parsed::Subtest(name) => {
                if let Some(level) = self.level(indent) {
                    level.name = Some(name.to_owned());
                }
            }
            Parsed::Result(test) => self.result(indent, test),
            Parsed::BailOut(reason) => {
                self.report.bail_out = Some(reason.to_owned());
                self.close_all();
            }
            Parsed::Diagnostic(text) => self.diagnostic(indent, text),
            // What goes on with a diagnostic is indented; lines that others log are not.
            Parsed::Other(text) => {
                let goes_on = self.levels.last().is_some_and(|level| !level.diagnostics.is_empty());
                if goes_on && indent > 0 {
                    self.diagnostic(indent, text);
                }
            }
        }
    }

    /// The results, when no more is to come. Levels that are still open, and what plans promised, are missing.
    pub fn finish(mut self) -> KtapReport {
        self.close_all();
        self.report
    }

    fn version(&mut self, indent: usize) {
        // A second document at the outermost level: another module's tests.
        if self.levels.first().is_some_and(|outer| indent <= outer.indent) {
            self.close_all();
        }
        // Another suite, after one whose result did not come.
        if let Some(level) = self.levels.pop_if(|level| level.indent >= indent) {
            self.unresolved(level);
        }
        let outermost = self.levels.is_empty();
        if let Some(level) = self.level(indent).filter(|_| outermost) {
            level.announced = true;
        }
    }

    /// The level at an indent, opened if need be. Deeper ones that are still open end without their result.
    fn level(&mut self, indent: usize) -> Option<&mut Level> {
        while self.levels.len() > 1
            && let Some(level) = self.levels.pop_if(|level| level.indent > indent)
        {
            self.unresolved(level);
        }
        let deeper = self.levels.last().is_none_or(|level| level.indent < indent);
        if deeper && self.levels.len() < MAX_DEPTH {
            self.levels.push(Level { indent, ..Level::default() });
        }
        self.levels.last_mut()
    }

    fn result(&mut self, indent: usize, mut test: KtapTest) {
        self.count += 1;
        if self.count > MAX_TESTS {
            return;
        }
        // The innermost open level holds the subtests; levels between, if any, have no result.
        while let Some(level) = self.levels.pop_if(|level| level.indent > indent) {
            let outer = self.levels.last().is_some_and(|outer| outer.indent > indent);
            if outer {
                self.unresolved(level);
            } else {
                test.tests = self.tests_of(&level.plan, level.tests);
                test.diagnostics = level.diagnostics;
            }
        }
        let Some(level) = self.level(indent) else { return };
        let mut diagnostics = std::mem::take(&mut level.diagnostics);
        diagnostics.append(&mut test.diagnostics);
        test.diagnostics = diagnostics;
        if test.number == 0 {
            test.number = level.tests.last().map_or(1, |last| last.number.saturating_add(1));
        }
        level.tests.push(test);
    }

    /// A level ended without the result of the test that it is the subtests of.
    fn unresolved(&mut self, level: Level) {
        let tests = self.tests_of(&level.plan, level.tests);
        let (name, diagnostics) = (level.name.unwrap_or_default(), level.diagnostics);
        if name.is_empty() && tests.is_empty() {
            return;
        }
        let siblings = self.levels.last_mut().map_or(&mut self.report.tests, |outer| &mut outer.tests);
        let number = siblings.last().map_or(1, |last| last.number.saturating_add(1));
        siblings.push(KtapTest {
            name,
            number,
            verdict: KtapVerdict::Missing,
            reason: None,
            diagnostics,
            tests,
        });
    }

    /// A level's tests, with those that its plan promised and that did not come.
    fn tests_of(&mut self, plan: &Option<u32>, mut tests: Vec<KtapTest>) -> Vec<KtapTest> {
        let seen: std::collections::HashSet<u32> = tests.iter().map(|test| test.number).collect();
        let room = u32::try_from(MAX_TESTS.saturating_sub(self.count)).unwrap_or(u32::MAX);
        let missing = (1..=plan.unwrap_or(0)).filter(|number| !seen.contains(number)).take(room as usize);
        let before = tests.len();
        tests.extend(missing.map(|number| KtapTest {
            name: String::new(),
            number,
            verdict: KtapVerdict::Missing,
            reason: None,
            diagnostics: Vec::new(),
            tests: Vec::new(),
        }));
        self.count += tests.len() - before;
        tests
    }

    fn diagnostic(&mut self, indent: usize, text: &str) {
        // It belongs to the innermost level that is not deeper.
        let level = self.levels.iter_mut().rev().find(|level| level.indent <= indent);
        if let Some(level) = level
            && level.diagnostics.len() < MAX_DIAGNOSTICS
        {
            level.diagnostics.push(text.to_owned());
        }
    }

    fn close_all(&mut self) {
        while let Some(level) = self.levels.pop() {
            if self.levels.is_empty() {
                self.report.unplanned += usize::from(level.announced && level.plan.is_none());
                let tests = self.tests_of(&level.plan, level.tests);
                self.report.tests.extend(tests);
            } else {
                self.unresolved(level);
            }
        }
    }
}

fn parse(body: &str) -> Parsed<'_> {
    if body.starts_with("KTAP version ") || body.starts_with("TAP version ") {
        return Parsed::Version;
    }
    if let Some(reason) = body.strip_prefix("Bail out!") {
        return Parsed::BailOut(reason.trim_ascii());
    }
    if let Some(name) = body.strip_prefix("# Subtest: ") {
        return Parsed::Subtest(name);
    }
    if let Some(diagnostic) = body.strip_prefix('#') {
        return Parsed::Diagnostic(diagnostic.strip_prefix(' ').unwrap_or(diagnostic));
    }
    let plan = body.strip_prefix("1..").map(|rest| rest.split(' ').next().unwrap_or(rest).parse());
    if let Some(Ok(plan)) = plan {
        return Parsed::Plan(plan);
    }
    let (passed, rest) = match body.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => match body.strip_prefix("ok") {
            Some(rest) => (true, rest),
            None => return Parsed::Other(body),
        },
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Parsed::Other(body);
    }
    Parsed::Result(result(passed, rest.trim_ascii()))
}

/// `[number] [-] [name] [# [directive] [text]]`
fn result(passed: bool, rest: &str) -> KtapTest {
    let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
    // 0 stands for no number; it is made good where the siblings are known.
    let (number, rest) = first.parse().map_or((0, rest), |number| (number, after));
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, comment) = match rest.split_once("# ") {
        Some((name, comment)) if name.is_empty() || name.ends_with(' ') => (name, Some(comment.trim_ascii())),
        _ => (rest, None),
    };
    let (directive, text) =
        comment.map_or(("", ""), |text| text.split_once([' ', ':']).unwrap_or((text, "")));
    let (verdict, reason) = match directive.to_ascii_uppercase().as_str() {
        "SKIP" => (KtapVerdict::Skip, text),
        "TODO" => (KtapVerdict::Todo, text),
        "XFAIL" => (KtapVerdict::Xfail, text),
        "TIMEOUT" => (KtapVerdict::Timeout, text),
        "ERROR" => (KtapVerdict::Error, text),
        _ if passed => (KtapVerdict::Pass, comment.unwrap_or("")),
        _ => (KtapVerdict::Fail, comment.unwrap_or("")),
    };
    let reason = Some(reason.trim_ascii()).filter(|reason| !reason.is_empty()).map(str::to_owned);
    let name = name.trim_ascii().to_owned();
    KtapTest { name, number, verdict, reason, diagnostics: Vec::new(), tests: Vec::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn read(log: &str) -> KtapReport {
        let mut reader = KtapReader::default();
        log.lines().for_each(|line| reader.push_line(line));
        reader.finish()
    }

    /// The tree in a line: `name=verdict(subtests)`.
    fn tree(tests: &[KtapTest]) -> String {
        let one = |test: &KtapTest| {
            let subtests =
                if test.tests.is_empty() { String::new() } else { format!("({})", tree(&test.tests)) };
            format!("{}.{}={:?}{subtests}", test.number, test.name, test.verdict)
        };
        tests.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_example_of_the_specification() {
        let report = read(
            "KTAP version 1\n1..1\n  KTAP version 1\n  1..3\n    KTAP version 1\n    1..1\n    # test_1: initializing test_1\n\
             \u{20}   ok 1 test_1\n  ok 1 example_test_1\n    KTAP version 1\n    1..2\n    ok 1 test_1 # SKIP test_1 skipped\n\
             \u{20}   ok 2 test_2\n  ok 2 example_test_2\n    KTAP version 1\n    1..3\n    ok 1 test_1\n\
             \u{20}   # test_2: FAIL\n    not ok 2 test_2\n    ok 3 test_3 # SKIP test_3 skipped\n  not ok 3 example_test_3\nnot ok 1 main_test\n",
        );
        assert_eq!(
            tree(&report.tests),
            "1.main_test=Fail(1.example_test_1=Pass(1.test_1=Pass) \
             2.example_test_2=Pass(1.test_1=Skip 2.test_2=Pass) \
             3.example_test_3=Fail(1.test_1=Pass 2.test_2=Fail 3.test_3=Skip))"
        );
        let failed = &report.tests[0].tests[2].tests[1];
        assert_eq!(failed.diagnostics, ["test_2: FAIL"]);
        assert!(!report.tests[0].passed());
    }

    #[test]
    fn kunit_in_a_module_before_6_2() {
        let report = read(
            "[    5.1] noise\n\
             [    5.100000]     # Subtest: kprobes_test\n\
             [    5.100001]     1..3\n\
             [    5.100002]     ok 1 - test_kprobe\n\
             [    5.100003] clocksource: ok 7 is no result\n\
             [    5.100004]     # test_kretprobe: EXPECTATION FAILED at lib/test_kprobes.c:1\n\
             [    5.100005]     Expected 1 == 2, but\n\
             [    5.100006]     not ok 2 - test_kretprobe\n\
             [    5.100007]     ok 3 - test_kprobes # SKIP no kprobes\n\
             [    5.100008] # kprobes_test: pass:1 fail:1 skip:1 total:3\n\
             [    5.100009] not ok 1 - kprobes_test\n",
        );
        assert_eq!(
            tree(&report.tests),
            "1.kprobes_test=Fail(1.test_kprobe=Pass 2.test_kretprobe=Fail 3.test_kprobes=Skip)"
        );
        let failed = &report.tests[0].tests[1];
        let diagnostics =
            ["test_kretprobe: EXPECTATION FAILED at lib/test_kprobes.c:1", "Expected 1 == 2, but"];
        assert_eq!(failed.diagnostics, diagnostics);
    }

    #[rstest]
    #[case("ok 1 a # SKIP why", "1.a=Skip", Some("why"))]
    #[case("ok 1 a # skip", "1.a=Skip", None)]
    #[case("not ok 1 a # TODO later", "1.a=Todo", Some("later"))]
    #[case("not ok 1 a # XFAIL", "1.a=Xfail", None)]
    #[case("not ok 1 a # TIMEOUT 45 seconds", "1.a=Timeout", Some("45 seconds"))]
    #[case("not ok 1 a # ERROR: no memory", "1.a=Error", Some("no memory"))]
    #[case("ok 1 a # took 3 s", "1.a=Pass", Some("took 3 s"))]
    #[case("ok 1 - a b#c", "1.a b#c=Pass", None)]
    #[case("not ok", "1.=Fail", None)]
    #[case("ok # SKIP x", "1.=Skip", Some("x"))]
    #[case("ok a", "1.a=Pass", None)]
    #[case("okay 1 a", "1.=Missing", None)]
    fn results(#[case] line: &str, #[case] expected: &str, #[case] reason: Option<&str>) {
        let report = read(&format!("TAP version 14\n1..1\n{line}\n"));
        assert_eq!(tree(&report.tests), expected);
        assert_eq!(report.tests[0].reason.as_deref(), reason);
    }

    #[rstest]
    #[case::short("KTAP version 1\n1..3\nok 1 a\nok 3 c\n", "1.a=Pass 3.c=Pass 2.=Missing")]
    #[case::plan_last("KTAP version 1\nok 1 a\n1..2\n", "1.a=Pass 2.=Missing")]
    #[case::no_plan("KTAP version 1\nok 1 a\n", "1.a=Pass")]
    #[case::cut_inside(
        "KTAP version 1\n1..1\n  # Subtest: s\n  1..2\n  ok 1 a\n",
        "1.s=Missing(1.a=Pass 2.=Missing)"
    )]
    #[case::next_suite(
        "KTAP version 1\n1..2\n  KTAP version 1\n  # Subtest: s\n  1..1\n  KTAP version 1\n  # Subtest: t\n  1..1\n  ok 1 b\nok 2 t\n",
        "1.s=Missing(1.=Missing) 2.t=Pass(1.b=Pass)"
    )]
    #[case::two_documents(
        "KTAP version 1\n1..1\nok 1 a\nKTAP version 1\n1..1\nnot ok 1 b\n",
        "1.a=Pass 1.b=Fail"
    )]
    #[case::none("ok 1 a\n1..4\n# x\n", "")]
    #[case::huge_plan("KTAP version 1\nok 1 a\n1..99999999999\n", "1.a=Pass")]
    fn plans(#[case] log: &str, #[case] expected: &str) {
        assert_eq!(tree(&read(log).tests), expected);
    }

    #[test]
    fn bail_out() {
        let report = read("KTAP version 1\n1..2\nok 1 a\nBail out! no disk\nok 2 b\n");
        assert_eq!(report.bail_out.as_deref(), Some("no disk"));
        assert_eq!(tree(&report.tests), "1.a=Pass 2.=Missing");
    }

    #[rstest]
    #[case::planned("KTAP version 1\n1..1\nok 1 a\n", 0)]
    #[case::empty("TAP version 13\n", 1)]
    #[case::two("KTAP version 1\nok 1 a\nKTAP version 1\nok 1 b\n", 2)]
    #[case::parameters("KTAP version 1\n1..1\n  KTAP version 1\n  # Subtest: s\n  ok 1 p\nok 1 s\n", 0)]
    #[case::old_kunit("    # Subtest: s\n    1..1\n    ok 1 - a\nok 1 - s\n", 0)]
    fn documents_without_a_plan_are_counted(#[case] log: &str, #[case] unplanned: usize) {
        assert_eq!(read(log).unplanned, unplanned);
    }

    #[test]
    fn subtests_are_those_that_say_something() {
        let mut subtests = Subtests::default();
        subtests.add(read(
            "KTAP version 1\n1..4\n  KTAP version 1\n  1..2\n  # why\n  not ok 1 a\n  ok 2 b # SKIP x\nnot ok 1 s\n\
             \u{20} KTAP version 1\n  1..1\n  ok 1 a\nnot ok 2 cleanup\n  KTAP version 1\n  1..1\n  ok 1 a\nok 3 t\n",
        ));
        subtests.add(read("TAP version 13\nBail out! gone\n"));
        let shown: Vec<_> =
            subtests.tests.iter().map(|test| format!("{} {}", test.name, test.verdict.name())).collect();
        let expected = ["s/a fail", "s/b skip", "cleanup/a pass", "cleanup fail", "t/a pass", "#4 missing"];
        assert_eq!(shown, expected);
        assert_eq!((subtests.unplanned, subtests.bail_outs.len()), (1, 1));
        assert_eq!(subtests.tests[0].diagnostics, ["why"]);
        assert_eq!(
            KtapVerdict::ALL.map(|verdict| subtests.count(verdict)).iter().sum::<usize>(),
            subtests.tests.len()
        );
    }

    #[test]
    fn a_plan_of_millions_is_bounded() {
        assert!(read("KTAP version 1\n1..4294967295\n").tests.len() <= MAX_TESTS);
    }

    proptest! {
        #[test]
        fn any_lines_are_read(lines in proptest::collection::vec(" {0,6}(KTAP version 1|1\\.\\.[0-9]{1,3}|(not )?ok [0-9]{0,3} a|# Subtest: x|# d|Bail out!|\\PC{0,9})", 0..40)) {
            read(&lines.join("\n"));
        }
    }
}
