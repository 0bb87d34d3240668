//! The report for CI servers: JUnit's XML, as Jenkins reads it.
//!
//! A suite is an image and a test case is a case, so that the counts are those of the run; a case's KTAP subtests are in
//! its output. Attributes are those of Jenkins's schema (xunit-plugin, `junit-10.xsd`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::document::{Case, Document, Outcome};

pub(super) fn write(document: &Document, out: &mut dyn io::Write) -> io::Result<()> {
    let mut report = Report::new("kmodlab");
    report.set_time(Duration::from_millis(document.ms));
    let mut suites: BTreeMap<&str, Vec<TestCase>> = BTreeMap::new();
    for of in &document.cases {
        suites.entry(&of.image).or_default().push(case(of));
    }
    for (image, cases) in suites {
        let mut suite = TestSuite::new(image);
        suite.set_time(cases.iter().filter_map(|case| case.time).sum());
        suite.add_test_cases(cases);
        report.add_test_suite(suite);
    }
    let xml = report.to_string().map_err(io::Error::other)?;
    out.write_all(skipped_for_disabled(&xml).as_bytes())
}

/// With the count of skipped tests that a suite has under the name that Jenkins's schema has for it. Within a tag `>` and `"`
/// are always escaped, and `<` everywhere but before a tag.
fn skipped_for_disabled(xml: &str) -> String {
    const SUITE: &str = "<testsuite ";
    let mut parts = xml.split(SUITE);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (tag, rest) = part.split_once('>').unwrap_or((part, ""));
        let _ = write!(clean, "{SUITE}{}>{rest}", tag.replacen(" disabled=\"", " skipped=\"", 1));
    }
    clean
}

fn case(of: &Case) -> TestCase {
    let mut status = match of.outcome {
        Outcome::Pass => TestCaseStatus::success(),
        Outcome::Skip => TestCaseStatus::skipped(),
        Outcome::Fail | Outcome::Crash | Outcome::Timeout => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        Outcome::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if let Some(reason) = &of.reason {
        status.set_message(reason.lines().next().unwrap_or_default().to_owned());
        if of.outcome.is_bad() {
            status.set_type(of.outcome.name());
            status.set_description(description(of, reason));
        }
    }
    let mut case = TestCase::new(of.scenario.clone(), status);
    case.set_classname(of.image.clone());
    case.set_time(Duration::from_millis(of.ms));
    let output = output(of);
    if !output.is_empty() {
        case.set_system_out(output);
    }
    if !of.warnings.is_empty() {
        case.set_system_err(of.warnings.join("\n"));
    }
    case
}

/// So many lines of the log's end go with a failure.
const TAIL: usize = 20;

fn description(of: &Case, reason: &str) -> String {
    let place = of.place.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
    let mut text = format!("{}\nat {}{place}\n{reason}\n", of.title, of.file);
    let said = match &of.crash {
        Some(crash) if !crash.lines.is_empty() => crash.lines.join("\n"),
        _ => crate::process::tail(&of.log.text, TAIL),
    };
    for (at, line) in said.lines().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
        for code in of.crash.iter().flat_map(|crash| &crash.code).filter(|code| code.at == at) {
            let _ = writeln!(text, "    {} at {}:{}", code.function, code.file, code.line);
        }
    }
    let _ = write!(text, "run it again: {}", of.again);
    text
}

/// The steps with their times, the subtests, and what was measured.
fn output(of: &Case) -> String {
    let mut text = String::new();
    for step in &of.steps {
        let mark = if step.passed { "ok" } else { "not ok" };
        let _ = writeln!(text, "{mark} [{:.3}s] {}", step.ms as f64 / 1e3, step.name);
    }
    for test in &of.subtests {
        let reason = test.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let _ = writeln!(text, "subtest {} {}{reason}", test.outcome.name(), test.name);
    }
    for figure in &of.figures {
        let _ = writeln!(text, "figure {figure}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::tests::recorded;

    #[test]
    fn suites_have_no_attribute_that_jenkins_does_not_know_and_texts_stay_whole() {
        let mut document = recorded();
        document.cases[0].reason = Some("a <testsuite disabled=\"0\"> disabled=\"0\"\u{1}".into());
        let mut xml = Vec::new();
        write(&document, &mut xml).unwrap();
        let xml = String::from_utf8(xml).unwrap();
        let tags = xml.lines().filter(|line| line.trim_start().starts_with("<testsuite "));
        let skipped = tags.filter(|tag| tag.contains(" skipped=\"1\"") && !tag.contains("disabled"));
        assert_eq!(skipped.count(), 2, "{xml}");
        let report = Report::deserialize_from_str(&xml).unwrap();
        let counts: Vec<_> = report.test_suites.iter().map(|suite| (suite.tests, suite.failures)).collect();
        assert_eq!(counts, [(15, 8), (15, 8)]);
        let TestCaseStatus::NonSuccess { message, .. } = &report.test_suites[0].test_cases[0].status else {
            panic!("{xml}")
        };
        assert_eq!(message.as_ref().unwrap().as_str(), "a <testsuite disabled=\"0\"> disabled=\"0\"");
    }
}
