//! The report for programs: one JSON document, at the end of the run.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::run::{CaseReport, Event, Kind, Reporter, Totals};

/// The document.
#[derive(Serialize)]
struct Document {
    cases: Vec<Case>,
    totals: TotalsDocument,
    interrupted: bool,
    ms: u64,
}

#[derive(Serialize)]
struct Case {
    scenario: String,
    image: String,
    title: String,
    file: String,
    covers: Vec<String>,
    outcome: &'static str,
    reason: Option<String>,
    start: Option<Start>,
    ms: u64,
    steps: Vec<Step>,
    subtests: Vec<Subtest>,
    figures: Vec<Figure>,
    artifacts: Option<String>,
}

#[derive(Serialize)]
struct Start {
    kind: &'static str,
    ms: u64,
}

#[derive(Serialize)]
struct Step {
    name: String,
    line: u32,
    passed: bool,
    ms: u64,
}

#[derive(Serialize)]
struct Subtest {
    name: String,
    outcome: &'static str,
    reason: Option<String>,
    diagnostics: Vec<String>,
}

#[derive(Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
}

#[derive(Serialize)]
struct TotalsDocument {
    all: usize,
    pass: usize,
    fail: usize,
    crash: usize,
    timeout: usize,
    skip: usize,
    error: usize,
}

impl From<&CaseReport> for Case {
    fn from(report: &CaseReport) -> Self {
        Case {
            scenario: report.id.scenario.clone(),
            image: report.id.image.clone(),
            title: report.title.clone(),
            file: report.file.display().to_string(),
            covers: report.covers.clone(),
            outcome: report.outcome.kind().name(),
            reason: report.outcome.reason(),
            start: report.start.map(|start| Start { kind: start.kind.name(), ms: millis(start.time) }),
            ms: millis(report.time),
            steps: report
                .steps
                .iter()
                .map(|step| Step {
                    name: step.name.clone(),
                    line: step.place.line,
                    passed: step.passed,
                    ms: millis(step.time),
                })
                .collect(),
            subtests: report
                .subtests
                .tests
                .iter()
                .map(|test| Subtest {
                    name: test.name.clone(),
                    outcome: test.verdict.name(),
                    reason: test.reason.clone(),
                    diagnostics: test.diagnostics.clone(),
                })
                .collect(),
            figures: report
                .figures
                .iter()
                .map(|figure| Figure {
                    name: figure.name.clone(),
                    value: figure.value,
                    unit: figure.unit.clone(),
                })
                .collect(),
            artifacts: report.artifacts.as_ref().map(|dir| dir.display().to_string()),
        }
    }
}

impl From<Totals> for TotalsDocument {
    fn from(totals: Totals) -> Self {
        TotalsDocument {
            all: totals.all(),
            pass: totals.of(Kind::Pass),
            fail: totals.of(Kind::Fail),
            crash: totals.of(Kind::Crash),
            timeout: totals.of(Kind::Timeout),
            skip: totals.of(Kind::Skip),
            error: totals.of(Kind::Error),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Collects a run and writes it as one JSON document when it is over.
pub struct Json<W> {
    out: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    cases: Vec<Case>,
    written: io::Result<()>,
}

impl<W: Write + Send> Json<W> {
    /// A report that is written to `out`.
    pub fn new(out: W) -> Self {
        Json { out: Mutex::new(State { out, cases: Vec::new(), written: Ok(()) }) }
    }

    /// Says whether the document could be written.
    ///
    /// # Errors
    ///
    /// What kept it from being written, such as a full disk.
    pub fn finish(self) -> io::Result<()> {
        self.out.into_inner().unwrap_or_else(PoisonError::into_inner).written
    }
}

impl<W: Write + Send> Reporter for Json<W> {
    fn event(&self, event: &Event<'_>) {
        let mut guard = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let State { out, cases, written } = &mut *guard;
        match event {
            Event::CaseFinished(report) => cases.push((*report).into()),
            Event::RunFinished { totals, time, interrupted } => {
                let mut cases = std::mem::take(cases);
                cases.sort_by(|a, b| (&a.scenario, &a.image).cmp(&(&b.scenario, &b.image)));
                let document = Document {
                    cases,
                    totals: (*totals).into(),
                    interrupted: *interrupted,
                    ms: millis(*time),
                };
                *written =
                    serde_json::to_vec_pretty(&document).map_err(io::Error::from).and_then(|mut text| {
                        text.push(b'\n');
                        out.write_all(&text)?;
                        out.flush()
                    });
            }
            _ => {}
        }
    }
}
