//! KTAP, version 1 (the kernel's `Documentation/dev-tools/ktap.rst`): a case is a test, its steps are its subtests, and
//! the results that a step's program printed are the step's.
//!
//! The kernel's own reader, `tools/testing/kunit/kunit_parser.py`, finds no result in a line with a second `#`, and takes
//! a `# Subtest:` anywhere for one.

use std::io::{self, Write};

use super::document::{Case, Document, Outcome, Subtest, Verdict};

/// So many lines of explanation go with a test.
const DIAGNOSTICS: usize = 60;

pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let tests: Vec<Test> = document.cases.iter().map(case).collect();
    level(&tests, "", out)
}

/// A test to be written.
struct Test {
    name: String,
    ok: bool,
    /// `SKIP no such thing`
    directive: Option<String>,
    diagnostics: Vec<String>,
    tests: Vec<Test>,
}

fn level(tests: &[Test], indent: &str, out: &mut dyn Write) -> io::Result<()> {
    if indent.is_empty() {
        writeln!(out, "KTAP version 1")?;
    }
    writeln!(out, "{indent}1..{}", tests.len())?;
    let inner = format!("{indent}  ");
    for (index, test) in tests.iter().enumerate() {
        let name = name(&test.name);
        if !test.tests.is_empty() {
            writeln!(out, "{inner}KTAP version 1\n{inner}# Subtest: {name}")?;
            level(&test.tests, &inner, out)?;
        }
        for line in test.diagnostics.iter().take(DIAGNOSTICS) {
            // Two blanks, so that nothing here can be read as a line of the protocol.
            writeln!(out, "{indent}#  {}", one_line(line).trim_end())?;
        }
        let verdict = if test.ok { "ok" } else { "not ok" };
        let directive =
            test.directive.as_ref().map(|text| format!(" # {}", one_line(text).trim())).unwrap_or_default();
        writeln!(out, "{indent}{verdict} {} {name}{directive}", index + 1)?;
    }
    Ok(())
}

fn case(of: &Case) -> Test {
    let passed = of.outcome == Outcome::Pass;
    let of_step = |number| of.subtests.iter().filter(move |test| test.step == Some(number));
    let own = |index: usize| -> Vec<Test> { of_step(index + 1).map(|test| subtest(test, passed)).collect() };
    let mut tests: Vec<Test> = (of.steps.iter().enumerate())
        .map(|(index, step)| Test {
            name: step.name.clone(),
            ok: step.passed,
            directive: None,
            diagnostics: Vec::new(),
            tests: own(index),
        })
        .collect();
    let of_log: Vec<Test> =
        of.subtests.iter().filter(|test| test.step.is_none()).map(|test| subtest(test, passed)).collect();
    if !of_log.is_empty() {
        let ok = of_log.iter().all(|test| test.ok);
        tests.push(Test {
            name: "kernel log".into(),
            ok,
            directive: None,
            diagnostics: Vec::new(),
            tests: of_log,
        });
    }
    let at_end: Vec<_> = of.mismatches.iter().filter(|mismatch| mismatch.step.is_none()).collect();
    if !at_end.is_empty() {
        let diagnostics = at_end.iter().map(|of| format!("{}: expected {}", of.what, of.expected)).collect();
        tests.push(Test {
            name: "expectations".into(),
            ok: false,
            directive: None,
            diagnostics,
            tests: Vec::new(),
        });
    }
    if of.outcome.is_bad() && tests.iter().all(|test| test.ok) {
        // Readers that count the innermost tests only would find none that failed.
        let name = of.outcome.name().to_owned();
        tests.push(Test { name, ok: false, directive: None, diagnostics: Vec::new(), tests: Vec::new() });
    }
    Test {
        name: of.id(),
        ok: !of.outcome.is_bad(),
        directive: directive(of),
        diagnostics: diagnostics(of),
        tests,
    }
}

fn directive(of: &Case) -> Option<String> {
    let reason = of.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default();
    match of.outcome {
        Outcome::Skip => Some(format!("SKIP {reason}")),
        Outcome::Timeout => Some("TIMEOUT".into()),
        Outcome::Error => Some("ERROR".into()),
        Outcome::Pass | Outcome::Fail | Outcome::Crash => None,
    }
}

/// Why a case did not pass, what the kernel said of it, and how to run it again.
fn diagnostics(of: &Case) -> Vec<String> {
    if !of.outcome.is_bad() {
        return of.figures.iter().map(|figure| format!("figure {figure}")).collect();
    }
    let mut lines: Vec<String> =
        of.reason.iter().flat_map(|reason| reason.lines()).map(str::to_owned).collect();
    lines.extend(of.crash.iter().flat_map(|crash| crash.lines.iter().cloned()));
    lines.truncate(DIAGNOSTICS - 1);
    lines.push(format!("run it again: {}", of.again));
    lines
}

/// A subtest; one that failed where the case passed was expected to.
fn subtest(of: &Subtest, case_passed: bool) -> Test {
    let reason = of.reason.as_deref().unwrap_or_default();
    let word = match of.outcome {
        Verdict::Pass | Verdict::Missing => None,
        Verdict::Fail => case_passed.then_some("XFAIL"),
        Verdict::Skip => Some("SKIP"),
        Verdict::Todo => Some("TODO"),
        Verdict::Xfail => Some("XFAIL"),
        Verdict::Timeout => Some("TIMEOUT"),
        Verdict::Error => Some("ERROR"),
    };
    Test {
        name: of.name.clone(),
        ok: !of.outcome.is_bad() || case_passed,
        directive: word.map(|word| format!("{word} {reason}").trim_end().to_owned()),
        diagnostics: of.diagnostics.clone(),
        tests: Vec::new(),
    }
}

/// A name that no reader takes for more than one.
fn name(text: &str) -> String {
    let text = one_line(text).replace('#', ":");
    let text = text.trim();
    if text.is_empty() { "unnamed".to_owned() } else { text.to_owned() }
}

fn one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::{KtapReader, KtapVerdict};
    use crate::report::document::tests::recorded;

    fn text(document: &Document) -> String {
        let mut out = Vec::new();
        write(document, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn steps_are_subtests_of_their_case_and_results_those_of_their_step() {
        let mut document = recorded();
        document.cases.retain(|case| case.id() == "hostile/markup@x86_64");
        let case = &mut document.cases[0];
        case.scenario.push_str("#2");
        case.steps[0].name = "step 1 (one)".into();
        case.steps[1].name = "step 2 (two # SKIP)".into();
        case.steps[2].name = "step 3 (three)".into();
        let expected = "\
KTAP version 1
1..1
  KTAP version 1
  # Subtest: hostile/markup:2@x86_64
  1..3
  ok 1 step 1 (one)
    KTAP version 1
    # Subtest: step 2 (two : SKIP)
    1..2
    ok 1 <b>bold</b> # SKIP <i>
    not ok 2 a
  ok 2 step 2 (two : SKIP)
  not ok 3 step 3 (three)
#  step 3 (run printf '<b>x</b>'): stdout: expected `<i>y</i>`
#  found `<b>x</b>`
#  run it again: kmodlab run scenarios/hostile/markup.yaml --image x86_64 -v
not ok 1 hostile/markup:2@x86_64
";
        assert_eq!(text(&document), expected);
    }

    #[test]
    fn our_own_reader_finds_every_case() {
        let document = recorded();
        let mut reader = KtapReader::default();
        text(&document).lines().for_each(|line| reader.push_line(line));
        let read: Vec<_> = reader.finish().tests.into_iter().map(|test| (test.name, test.verdict)).collect();
        let verdict = |case: &Case| match case.outcome {
            Outcome::Pass => KtapVerdict::Pass,
            Outcome::Skip => KtapVerdict::Skip,
            Outcome::Timeout => KtapVerdict::Timeout,
            Outcome::Error => KtapVerdict::Error,
            Outcome::Fail | Outcome::Crash => KtapVerdict::Fail,
        };
        let wanted: Vec<_> = document.cases.iter().map(|case| (case.id(), verdict(case))).collect();
        assert_eq!(read, wanted);
    }

    #[test]
    fn what_a_guest_says_is_no_result_of_ours() {
        let mut document = recorded();
        document.cases.truncate(1);
        document.cases[0].reason = Some("ok 1 a\n# Subtest: b\nKTAP version 1\nBail out!\n1..9\r".into());
        let text = text(&document);
        for line in ["#  ok 1 a", "#  # Subtest: b", "#  KTAP version 1", "#  Bail out!", "#  1..9"] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
    }
}
