//! Reports of a run. They consume events; nothing depends on them but the command line.

mod blame;
mod human;
mod json;
mod junit;

pub use blame::blame;
pub use human::{Human, Verbosity, printable};
pub use json::Json;
pub use junit::Junit;
