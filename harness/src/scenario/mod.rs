//! Scenarios: what is done in a guest, and what is expected of it.
//!
//! A scenario is one YAML file; `docs/scenarios.md` describes the format and [`schema`] is its JSON Schema. The types
//! here are the file's own: they check what can be checked without running anything, and say what they expect of
//! text, events, probes and modules through pure functions ([`expect`]). Only [`load`] touches files.

pub mod expand;
pub mod expect;
pub mod limits;
pub mod load;
mod model;
mod schema;
pub mod step;
mod validate;
pub mod values;
mod words;

pub use model::{
    ConfigName, KernelFacts, KernelRange, Machine, Requires, Row, Scenario, Timeout, kernel_version,
};
pub use schema::schema;
pub use validate::{Context, read};
pub use words::{Pattern, Regex, Scalar, Signal};
