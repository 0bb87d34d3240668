//! The report for people: a line per case, progress below it, and the failures at the end.

mod failures;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::failures::Failures;
use super::escape::printable;
use super::github;
use super::images::Images;
use crate::console::{KtapVerdict, Subtests};
use crate::run::{CaseId, CaseReport, Event, Kind, Reporter, Totals};
use crate::work::{Watch, WorkEvent, WorkId};

/// How much the report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// A line per case.
    Normal,
    /// And each step with its time.
    Verbose,
}

/// How the report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// How much it says.
    pub verbosity: Verbosity,
    /// Whether it is plain lines, each written once, without colors: for screen readers and logs.
    pub plain: bool,
}

/// Prints to a terminal, or to whatever standard error is.
pub struct Human {
    inner: Arc<Inner>,
    /// Tells of slow cases while a run goes on.
    watcher: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    bars: MultiProgress,
    live: bool,
    color: bool,
    /// Whether lines are folded as GitHub's runner does on command.
    actions: bool,
    verbosity: Verbosity,
    state: Mutex<State>,
    /// Signalled when a case begins or ends, and when the run is over.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    total: Option<ProgressBar>,
    works: HashMap<WorkId, (String, ProgressBar)>,
    cases: HashMap<CaseId, Running>,
    failures: Failures,
    /// The cases that took longer than `slow_after`.
    slow: Vec<(Duration, CaseId)>,
    slow_after: Option<Duration>,
    over: bool,
    images: Images,
}

/// A case under way.
struct Running {
    bar: ProgressBar,
    begun: Instant,
    step: String,
    /// When it is to be told of as slow next.
    next: Option<Instant>,
}

/// So many slow cases are named at the end.
const SLOWEST: usize = 5;

impl Human {
    /// A report to standard error: redrawn in place on a terminal, plain lines elsewhere, in CI, and where `TERM` is
    /// `dumb`. Colors follow `NO_COLOR`.
    pub fn new(style: Style) -> Self {
        let Style { verbosity, plain } = style;
        let terminal = io::stderr().is_terminal();
        let dumb = plain || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let live = terminal && !dumb && std::env::var_os("CI").is_none();
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let color = terminal && !dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let bars = MultiProgress::with_draw_target(target);
        let (actions, state, changed) = (github::is_there(), Mutex::default(), Condvar::new());
        let inner = Inner { bars, live, color, actions, verbosity, state, changed };
        Human { inner: Arc::new(inner), watcher: Mutex::default() }
    }

    /// Names each case that is still under way after this long, again after twice as long, and so on.
    pub fn name_slow_cases(&self, after: Duration) {
        self.inner.lock().slow_after = Some(after);
    }

    /// Prints a line.
    pub fn note(&self, text: &str) {
        self.inner.print(text);
    }

    fn begin_watching(&self) {
        let inner = Arc::clone(&self.inner);
        let watcher = std::thread::spawn(move || inner.watch_for_slow_cases());
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
    }

    fn end_watching(&self) {
        self.inner.changed.notify_all();
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that panicked has told of it.
        let _ = watcher.map(JoinHandle::join);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a case is slow, and says so, until the run is over.
    fn watch_for_slow_cases(&self) {
        let mut state = self.lock();
        while !state.over {
            let now = Instant::now();
            for (id, case) in &mut state.cases {
                if let Some(next) = case.next.filter(|next| *next <= now) {
                    let time = next - case.begun;
                    case.next = next.checked_add(time.max(Duration::from_secs(1)));
                    let step = if case.step.is_empty() { "it has not begun its steps" } else { &case.step };
                    let word = self.paint(Kind::Skip, "    SLOW");
                    self.print(&format!("{word} [>{:>6.1}s] {id}: {}", time.as_secs_f64(), printable(step)));
                }
            }
            let next = state.cases.values().filter_map(|case| case.next).min();
            state = match next {
                Some(next) => {
                    let wait = self.changed.wait_timeout(state, next.saturating_duration_since(now));
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Prints whole lines above the progress display.
    fn print(&self, text: &str) {
        self.bars.suspend(|| {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(io::stderr(), "{text}");
        });
    }

    /// Prints lines, those behind the first folded where the runner can.
    fn print_folded(&self, text: &str) {
        match text.split_once('\n') {
            Some((first, rest)) if self.actions => {
                let (begin, end) =
                    (github::command("group", &[], first), github::command("endgroup", &[], ""));
                self.print(&format!("{begin}{rest}\n{}", end.trim_end()));
            }
            _ => self.print(text),
        }
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
        let begun = Instant::now();
        let next = state.slow_after.and_then(|after| begun.checked_add(after));
        state.cases.insert(id.clone(), Running { bar, begun, step: String::new(), next });
        self.changed.notify_all();
    }

    fn case_finished(&self, state: &mut State, report: &CaseReport) {
        if let Some(case) = state.cases.remove(&report.id) {
            case.bar.finish_and_clear();
        }
        if state.slow_after.is_some_and(|after| report.time >= after) {
            state.slow.push((report.time, report.id.clone()));
        }
        if let Some(total) = &state.total {
            total.inc(1);
        }
        let kind = report.outcome.kind();
        let word = self.paint(kind, &format!("{:>8}", kind.name().to_uppercase()));
        let mut line = format!("{word} [{:>7.3}s] {}", report.time.as_secs_f64(), report.id);
        if let Some(reason) = report.outcome.reason().filter(|_| kind == Kind::Skip) {
            let _ = write!(line, ": {}", printable(&reason));
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
                let _ = write!(
                    line,
                    "\n          {mark}[{:>7.3}s] {}",
                    step.time.as_secs_f64(),
                    printable(&step.name)
                );
            }
        }
        for figure in &report.figures {
            let _ = write!(line, "\n           {}", printable(&figure.to_string()));
        }
        self.print_folded(&line);
        if !matches!(kind, Kind::Pass | Kind::Skip) {
            state.failures.add(report);
        }
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
        let failures = std::mem::take(&mut state.failures);
        for failure in failures.iter() {
            let text = failure.text();
            let (head, rest) = text.split_once('\n').unwrap_or((&text, ""));
            let head = if self.actions { head.to_owned() } else { self.paint(failure.kind, head) };
            self.print("");
            self.print_folded(&format!("{head}\n{}", rest.trim_end()));
        }
        if let Some(table) = state.images.table() {
            self.print(&format!("\n{table}"));
        }
        let counts: Vec<String> = Kind::ALL
            .into_iter()
            .filter(|&kind| totals.of(kind) > 0)
            .map(|kind| self.paint(kind, &format!("{} {}", totals.of(kind), past(kind))))
            .collect();
        let counts = if counts.is_empty() { "no case".to_owned() } else { counts.join(", ") };
        let end = if interrupted { "; interrupted" } else { "" };
        self.print(&format!("\n{} in {:.1} s: {counts}{end}", count_cases(totals.all()), time.as_secs_f64()));
        state.slow.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        for (time, id) in state.slow.drain(..).take(SLOWEST) {
            self.print(&format!(
                "{} [{:>7.3}s] {id}",
                self.paint(Kind::Skip, "    SLOW"),
                time.as_secs_f64()
            ));
        }
        for failure in failures.iter() {
            let word = self.paint(failure.kind, &format!("{:>8}", failure.kind.name().to_uppercase()));
            self.print(&format!("{word} {}\n           {}", failure.id, printable(&failure.command)));
        }
    }
}

impl Reporter for Human {
    fn event(&self, event: &Event<'_>) {
        let inner = &*self.inner;
        let mut state = inner.lock();
        match event {
            Event::RunStarted { cases, jobs } => {
                let bar = inner.bars.add(ProgressBar::new(*cases as u64));
                bar.set_style(overall());
                state.total = Some(bar);
                state.over = false;
                inner.print(&format!("{}, {jobs} at once", count_cases(*cases)));
                if state.slow_after.is_some() {
                    self.begin_watching();
                }
            }
            Event::Work(event) => inner.work(&mut state, event),
            Event::CaseStarted(id) => inner.case_started(&mut state, id),
            Event::StepStarted { id, step } => {
                if let Some(case) = state.cases.get_mut(id) {
                    case.bar.set_message(printable(step));
                    (*step).clone_into(&mut case.step);
                }
            }
            Event::ImageReady { image, modules, boot } => state.images.ready(image, *modules, *boot),
            Event::CaseFinished(report) => {
                state.images.case(report);
                inner.case_finished(&mut state, report);
            }
            Event::RunFinished { totals, time, interrupted } => {
                inner.finish(&mut state, totals, *time, *interrupted);
                state.over = true;
                drop(state);
                self.end_watching();
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
