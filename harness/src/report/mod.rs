//! Reports of a run. They consume events; nothing depends on them but the command line.

mod blame;
mod collect;
pub mod diff;
pub mod document;
mod escape;
mod files;
mod github;
mod gitlab;
pub mod html;
mod human;
mod images;
mod junit;
mod ktap;
mod lcov;

pub use self::lcov::Tracefiles;
pub use blame::blame;
pub use diff::Diff;
pub use escape::printable;
pub use files::{Files, Output, Sink};
pub use human::{Human, Style, Verbosity};
