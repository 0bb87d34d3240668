//! What a run tells whoever reports on it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::evidence::{Evidence, StepOutput};
use super::figures::Figure;
use super::outcome::{Outcome, Place, Totals};
use crate::console::Subtests;
use crate::coverage::Coverage;
use crate::work::WorkEvent;

/// Names a case: a scenario on an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaseId {
    /// The scenario's id: its path below the folder of scenarios, without the extension.
    pub scenario: String,
    /// The image's name.
    pub image: String,
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.scenario, self.image)
    }
}

/// How a case's guest came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartKind {
    /// Restored from a snapshot.
    Warm,
    /// Booted.
    Cold,
}

impl StartKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            StartKind::Warm => "warm",
            StartKind::Cold => "cold",
        }
    }
}

/// How a case's guest came up, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// In which way.
    pub kind: StartKind,
    /// From QEMU's start to the agent's first answer.
    pub time: Duration,
}

/// A step that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Its number, from 1, and what it does.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// How long it took.
    pub time: Duration,
    /// Whether everything expected of it held.
    pub passed: bool,
    /// What it gave; `None` where it did not come so far.
    pub output: Option<StepOutput>,
    /// Which of the case's subtests its program printed.
    pub subtests: Range<usize>,
}

/// A case that is over.
#[derive(Debug, Clone)]
pub struct CaseReport {
    /// Which.
    pub id: CaseId,
    /// The scenario's title.
    pub title: String,
    /// The scenario's file.
    pub file: PathBuf,
    /// The arguments of `kmodlab` that run it again.
    pub again: String,
    /// The rows of the source documents that it covers.
    pub covers: Vec<String>,
    /// Where the scenario's own expectations are written, where it has some.
    pub expect: Option<Place>,
    /// How it ended.
    pub outcome: Outcome,
    /// How its guest came up, where it did.
    pub start: Option<Start>,
    /// How long the case took.
    pub time: Duration,
    /// The steps that were done.
    pub steps: Vec<StepReport>,
    /// The results that it printed as KTAP.
    pub subtests: Subtests,
    /// What it measured.
    pub figures: Vec<Figure>,
    /// Which lines it executed, where that was asked for and the guest could tell.
    pub coverage: Option<Coverage>,
    /// The end of the kernel log, else of the console.
    pub log_tail: Vec<String>,
    /// What reports show besides.
    pub evidence: Evidence,
    /// The folder with its artifacts, where they are kept.
    pub artifacts: Option<PathBuf>,
    /// What the user should know besides how it ended.
    pub warnings: Vec<String>,
}

impl CaseReport {
    /// Where in the scenario's file it went wrong, as far as that is known: where what was expected is written, else the
    /// last step that was begun.
    pub fn place(&self) -> Option<&Place> {
        match &self.outcome {
            Outcome::Pass | Outcome::Skip(_) => None,
            Outcome::Fail(failure) => Some(&failure.place),
            _ => self.steps.last().map(|step| &step.place),
        }
    }

    /// The command that runs it again.
    pub fn command(&self) -> String {
        format!("kmodlab {} -v", self.again)
    }
}

/// What a run tells.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run begins.
    RunStarted {
        /// How many cases it has.
        cases: usize,
        /// How many of them run at once.
        jobs: usize,
    },
    /// Preparing something goes on.
    Work(WorkEvent),
    /// An image's cases can begin.
    ImageReady {
        /// Its name.
        image: &'a str,
        /// How long it took to have the modules that they load, with what else they need besides the image.
        modules: Duration,
        /// How long the guest took to boot that they are restored from, when its snapshot was made.
        boot: Option<Duration>,
    },
    /// A case begins.
    CaseStarted(&'a CaseId),
    /// A case begins a step.
    StepStarted {
        /// The case.
        id: &'a CaseId,
        /// The step, by number and what it does.
        step: &'a str,
    },
    /// A case is over.
    CaseFinished(&'a CaseReport),
    /// The run is over.
    RunFinished {
        /// How the cases ended.
        totals: Totals,
        /// How long it took.
        time: Duration,
        /// Whether it was interrupted, so that cases are missing.
        interrupted: bool,
    },
}

/// Is told of a run. Reporters implement it; they are called from several threads.
pub trait Reporter: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event<'_>);
}

impl Reporter for crate::work::Unwatched {
    fn event(&self, _: &Event<'_>) {}
}
