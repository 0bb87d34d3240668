//! Boots real kernels in QEMU, loads kernel modules into them, runs declarative scenarios against them, and says
//! what happened.
//!
//! The data runs one way: scenario files × images → cases → prepared image → VM → transcript → expectations →
//! outcome → events → reports. `ARCHITECTURE.md` at the root of the repository has the map and the invariants.

pub mod arch;
pub mod cli;
pub mod console;
pub mod error;
pub mod guest;
pub mod image;
pub mod lab;
pub mod module;
pub mod needs;
pub mod process;
pub mod report;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod vm;
pub mod work;
pub mod yaml;
