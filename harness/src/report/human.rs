//! The report for people: a line per case, progress below it, and the failures at the end.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::escape::printable;
use crate::console::{KtapVerdict, Subtests};
use crate::run::{CaseId, CaseReport, Event, Kind, Outcome, Reporter, Totals};
use crate::work::{Watch, WorkEvent, WorkId};

/// How much the report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// A line per case.
    Normal,
    /// And each step with its time.
    Verbose,
}

/// Prints to a terminal, or to whatever standard error is.
pub struct Human {
    bars: MultiProgress,
    live: bool,
    color: bool,
    verbosity: Verbosity,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: Option<ProgressBar>,
    works: HashMap<WorkId, (String, ProgressBar)>,
    cases: HashMap<CaseId, ProgressBar>,
    bad: Vec<String>,
    skipped: Vec<(CaseId, String)>,
}

impl Human {
    /// A report to standard error: redrawn in place on a terminal, plain lines elsewhere, in CI, and where `TERM` is
    /// `dumb`. Colors follow `NO_COLOR`.
    pub fn new(verbosity: Verbosity) -> Self {
        let terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let live = terminal && !dumb && std::env::var_os("CI").is_none();
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let color = terminal && !dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let bars = MultiProgress::with_draw_target(target);
        Human { bars, live, color, verbosity, state: Mutex::default() }
    }

    /// Prints whole lines above the progress display.
    fn print(&self, text: &str) {
        self.bars.suspend(|| {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    fn paint(&self, kind: Kind, text: &str) -> String {
        let code = match kind {
            Kind::Pass => "32",
            Kind::Skip => "33",
            Kind::Fail | Kind::Crash | Kind::Timeout => "1;31",
            Kind::Error => "1;35",
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn case_started(&self, state: &mut State, id: &CaseId) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(spinner());
        bar.set_prefix(id.to_string());
        if self.live {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        state.cases.insert(id.clone(), bar);
    }

    fn case_finished(&self, state: &mut State, report: &CaseReport) {
        if let Some(bar) = state.cases.remove(&report.id) {
            bar.finish_and_clear();
        }
        if let Some(total) = &state.total {
            total.inc(1);
        }
        let kind = report.outcome.kind();
        let word = self.paint(kind, &format!("{:>8}", kind.name().to_uppercase()));
        let mut line = format!("{word} [{:>7.3}s] {}", report.time.as_secs_f64(), report.id);
        if let Some(reason) = report.outcome.reason().filter(|_| kind == Kind::Skip) {
            let _ = write!(line, ": {reason}");
            state.skipped.push((report.id.clone(), reason));
        }
        if self.verbosity >= Verbosity::Verbose {
            let subtests = &report.subtests;
            if !subtests.tests.is_empty() {
                let _ = write!(line, " ({} subtests: {})", subtests.tests.len(), counts(subtests));
            }
            if let Some(start) = report.start {
                let _ = write!(
                    line,
                    "\n           [{:>7.3}s] {} start",
                    start.time.as_secs_f64(),
                    start.kind.name()
                );
            }
            for step in &report.steps {
                let mark = if step.passed { ' ' } else { '!' };
                let _ = write!(line, "\n          {mark}[{:>7.3}s] {}", step.time.as_secs_f64(), step.name);
            }
        }
        for figure in &report.figures {
            let _ = write!(line, "\n           {}", printable(&figure.to_string()));
        }
        self.print(&line);
        if !matches!(kind, Kind::Pass | Kind::Skip) {
            state.bad.push(self.explain(report));
        }
    }

    /// Everything that a failed case has to say.
    fn explain(&self, report: &CaseReport) -> String {
        let kind = report.outcome.kind();
        let head = format!("{} {}: {}", kind.name().to_uppercase(), report.id, report.title);
        let mut text = format!("{}\n", self.paint(kind, &head));
        let place = report.place().map_or_else(|| report.file.display().to_string(), ToString::to_string);
        let _ = writeln!(text, "  at {place}");
        indent(&mut text, "  ", &report.outcome.reason().unwrap_or_default());
        for test in report.subtests.tests.iter().filter(|test| test.verdict.is_bad()) {
            let reason = test.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            indent(&mut text, "  ", &format!("{} {}{reason}", test.verdict.name(), test.name));
            indent(&mut text, "    ", &test.diagnostics.join("\n"));
        }
        if let Outcome::Crash(crash) = &report.outcome
            && crash.splat.is_some()
        {
            let _ = writeln!(text, "  the kernel's words:");
            indent(&mut text, "    ", &crash.told().join("\n"));
        } else if !report.log_tail.is_empty() {
            let _ = writeln!(text, "  the end of the log:");
            indent(&mut text, "    ", &report.log_tail.join("\n"));
        }
        if let Some(dir) = &report.artifacts {
            let _ = writeln!(text, "  artifacts: {}", dir.display());
        }
        let _ = write!(text, "  run it again: {}", report.command());
        text
    }

    fn work(&self, state: &mut State, event: &WorkEvent) {
        match event {
            WorkEvent::Begin { id, what } => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                bar.set_style(spinner());
                bar.set_prefix(what.clone());
                if self.live {
                    bar.enable_steady_tick(Duration::from_millis(200));
                } else {
                    self.print(&format!("{what} ..."));
                }
                state.works.insert(*id, (what.clone(), bar));
            }
            WorkEvent::Progress { id, done, total } => {
                if let Some((_, bar)) = state.works.get(id) {
                    if bar.length().is_none() {
                        bar.set_style(bytes());
                    }
                    bar.set_length(*total);
                    bar.set_position(*done);
                }
            }
            WorkEvent::Count { id, done } => {
                if let Some((_, bar)) = state.works.get(id) {
                    bar.set_message(done.to_string());
                }
            }
            WorkEvent::End { id } => {
                if let Some((_, bar)) = state.works.remove(id) {
                    bar.finish_and_clear();
                }
            }
            WorkEvent::Warning(text) => {
                self.print(&self.paint(Kind::Skip, &format!("warning: {}", printable(text))));
            }
        }
    }

    fn finish(&self, state: &mut State, totals: &Totals, time: Duration, interrupted: bool) {
        if let Some(total) = state.total.take() {
            total.finish_and_clear();
        }
        for text in state.bad.drain(..) {
            self.print(&format!("\n{text}"));
        }
        let counts: Vec<String> = Kind::ALL
            .into_iter()
            .filter(|&kind| totals.of(kind) > 0)
            .map(|kind| self.paint(kind, &format!("{} {}", totals.of(kind), past(kind))))
            .collect();
        let counts = if counts.is_empty() { "no case".to_owned() } else { counts.join(", ") };
        let end = if interrupted { "; interrupted" } else { "" };
        self.print(&format!("\n{} in {:.1} s: {counts}{end}", count_cases(totals.all()), time.as_secs_f64()));
    }
}

impl Reporter for Human {
    fn event(&self, event: &Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::RunStarted { cases, jobs } => {
                let bar = self.bars.add(ProgressBar::new(*cases as u64));
                bar.set_style(overall());
                state.total = Some(bar);
                self.print(&format!("{}, {jobs} at once", count_cases(*cases)));
            }
            Event::Work(event) => self.work(&mut state, event),
            Event::CaseStarted(id) => self.case_started(&mut state, id),
            Event::StepStarted { id, step } => {
                if let Some(bar) = state.cases.get(id) {
                    bar.set_message((*step).to_owned());
                }
            }
            Event::CaseFinished(report) => self.case_finished(&mut state, report),
            Event::RunFinished { totals, time, interrupted } => {
                self.finish(&mut state, totals, *time, *interrupted);
            }
        }
    }
}

impl Watch for Human {
    fn work(&self, event: WorkEvent) {
        self.event(&Event::Work(event));
    }
}

/// How many subtests ended in which way.
fn counts(subtests: &Subtests) -> String {
    let counts = KtapVerdict::ALL.map(|verdict| (subtests.count(verdict), verdict.name()));
    let shown = counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}"));
    shown.collect::<Vec<_>>().join(", ")
}

fn count_cases(count: usize) -> String {
    format!("{count} case{}", if count == 1 { "" } else { "s" })
}

fn past(kind: Kind) -> &'static str {
    match kind {
        Kind::Pass => "passed",
        Kind::Skip => "skipped",
        Kind::Fail => "failed",
        Kind::Crash => "crashed",
        Kind::Timeout => "timed out",
        Kind::Error => "not tested",
    }
}

/// Appends lines, indented.
fn indent(into: &mut String, by: &str, text: &str) {
    for line in text.lines() {
        into.push_str(by);
        into.push_str(&printable(line));
        into.push('\n');
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn spinner() -> ProgressStyle {
    style("  {spinner} {elapsed:>4} {prefix} {wide_msg}")
}

fn bytes() -> ProgressStyle {
    style("  {spinner} {elapsed:>4} {prefix} {wide_bar} {bytes}/{total_bytes}")
}

fn overall() -> ProgressStyle {
    style("  {pos}/{len} cases {wide_bar} {elapsed}")
}
