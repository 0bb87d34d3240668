//! The kernel's log, from `/dev/kmsg` and from the console: its records, the reports of trouble in it, test results.
//!
//! All pure: text in, values out. What a guest sends is hostile, so that nothing here panics or grows without bound
//! on any input.

pub(crate) mod lines;

mod kmsg;
mod ktap;
mod splat;
mod taint;

pub use kmsg::{ConsoleLine, KmsgReader, LogRecord};
pub use ktap::{KtapReader, KtapReport, KtapTest, KtapVerdict, Subtest, Subtests};
pub use splat::{NamedPlace, Splat, SplatKind, SplatReader};
pub use taint::{Taint, TaintSet};
