//! The report for CI servers: JUnit's XML, as Jenkins reads it.
//!
//! A suite is an image and a test case is a case, so that the counts are those of the run; a case's KTAP subtests are in
//! its output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::run::{CaseReport, Event, Outcome, Reporter};

/// Collects a run, and writes it to a file when it is over.
pub struct Junit {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    suites: BTreeMap<String, Vec<TestCase>>,
    written: io::Result<()>,
}

impl Junit {
    /// A report that is written to `path`.
    pub fn new(path: &Path) -> Self {
        let state = State { suites: BTreeMap::new(), written: Ok(()) };
        Junit { path: path.to_owned(), state: Mutex::new(state) }
    }

    /// Says whether the file could be written.
    ///
    /// # Errors
    ///
    /// What kept it from being written, such as a full disk.
    pub fn finish(self) -> io::Result<()> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).written
    }
}

impl Reporter for Junit {
    fn event(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::CaseFinished(report) => {
                state.suites.entry(report.id.image.clone()).or_default().push(case(report));
            }
            Event::RunFinished { time, .. } => {
                let mut report = Report::new("kmodlab");
                report.set_time(*time);
                for (image, mut cases) in std::mem::take(&mut state.suites) {
                    cases.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
                    let mut suite = TestSuite::new(image);
                    suite.set_time(cases.iter().filter_map(|case| case.time).sum());
                    suite.add_test_cases(cases);
                    report.add_test_suite(suite);
                }
                state.written = report
                    .to_string()
                    .map_err(io::Error::other)
                    .and_then(|text| fs::write(&self.path, text))
                    .map_err(|error| {
                        io::Error::new(error.kind(), format!("`{}`: {error}", self.path.display()))
                    });
            }
            _ => {}
        }
    }
}

fn case(report: &CaseReport) -> TestCase {
    let mut status = match &report.outcome {
        Outcome::Pass => TestCaseStatus::success(),
        Outcome::Skip(_) => TestCaseStatus::skipped(),
        Outcome::Fail(_) | Outcome::Crash(_) | Outcome::Timeout(_) => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        Outcome::Error(_) => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if let Some(reason) = report.outcome.reason() {
        status.set_message(reason.lines().next().unwrap_or_default().to_owned());
        if !matches!(report.outcome, Outcome::Skip(_)) {
            status.set_type(report.outcome.kind().name());
            let again = format!("run it again: kmodlab {} -v", report.again);
            status.set_description(format!(
                "{}\n{reason}\n{}\n{again}",
                report.title,
                report.log_tail.join("\n")
            ));
        }
    }
    let mut case = TestCase::new(report.id.scenario.clone(), status);
    case.set_classname(report.id.image.clone());
    case.set_time(report.time);
    case.extra.insert("file".into(), report.file.display().to_string().into());
    let output = output(report);
    if !output.is_empty() {
        case.set_system_out(output);
    }
    case
}

/// The steps with their times, the subtests, and what was measured.
fn output(report: &CaseReport) -> String {
    let mut text = String::new();
    for step in &report.steps {
        let mark = if step.passed { "ok" } else { "not ok" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark} [{:.3}s] {}", step.time.as_secs_f64(), step.name);
    }
    for test in &report.subtests.tests {
        let reason = test.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let _ = writeln!(text, "subtest {} {}{reason}", test.verdict.name(), test.name);
    }
    for figure in &report.figures {
        let _ = writeln!(text, "figure {figure}");
    }
    text
}
