//! From cases to outcomes: plan, schedule, execute. The only place that joins scenarios, images, modules, machines and
//! expectations.

mod accel;
mod breakpoint;
mod check;
mod code;
mod counts;
mod covered;
mod event;
mod evidence;
mod execute;
mod figures;
mod host;
mod limits;
mod material;
mod outcome;
mod pack;
mod runner;
mod schedule;
mod session;
mod start;
mod steps;
mod transcript;
mod watched;

pub use accel::AccelChoice;
pub use event::{CaseId, CaseReport, Event, Reporter, Start, StartKind, StepReport};
pub use evidence::{Change, ChangeKind, Evidence, Excerpt, ModuleHistory, StepOutput};
pub use figures::Figure;
pub use limits::Limits;
pub use outcome::{CodePlace, Crash, Failure, Kind, Outcome, Phase, Place, Timeout, Totals};
pub use pack::pack;
pub use runner::{Options, Runner, Until, bootable, headers};
pub use schedule::{Summary, default_jobs, run_all};
pub use session::{Loaded, Session, SessionError};
pub use start::{Bootable, StartError, Starter};
