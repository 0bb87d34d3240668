//! From cases to outcomes: plan, schedule, execute. The only place that joins scenarios, images, modules, machines and
//! expectations.

mod event;
mod outcome;

pub use event::{CaseId, CaseReport, Event, Reporter, Start, StartKind, StepReport};
pub use outcome::{Crash, Failure, Kind, Outcome, Phase, Place, Timeout, Totals};
