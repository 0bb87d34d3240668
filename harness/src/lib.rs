//! Boots real kernels in QEMU, loads kernel modules into them, runs declarative scenarios against them, and says
//! what happened.
//!
//! The data runs one way: scenario files × images → cases → prepared image → VM → transcript → expectations →
//! outcome → events → reports. `ARCHITECTURE.md` at the root of the repository has the map and the invariants.
//!
//! # A guest in a program
//!
//! [`lab::Lab`] opens a project (its images, scenarios and test modules) and the cache; [`run::Runner`] gives guests and
//! runs cases; [`run::Session`] loads modules into a guest, and [`guest::Guest`] does everything else there. What the
//! guest's kernel answers is a value ([`guest::Answer`]), and an error only what kept it from answering.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use kmodlab::guest::Errno;
//! use kmodlab::guest::proto::Run;
//! use kmodlab::lab::Lab;
//! use kmodlab::run::{Options, Runner};
//! use kmodlab::work::{Cancel, Unwatched};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let lab = Lab::open(None, None, Arc::new(Unwatched), Cancel::new()?)?;
//!     let runner = Runner::new(&lab, Options::default(), &Unwatched);
//!     let mut session = runner.session("x86_64", &["refmod"])?;
//!     assert_eq!(session.load("refmod", false, "", false)?.answer, Ok(()));
//!
//!     let argv = ["/bin/sh", "-c", "exec 3</dev/refmod; cat /sys/module/refmod/refcnt"];
//!     let run = Run { argv: argv.map(str::to_owned).to_vec(), ..Run::default() };
//!     let finished = session.guest().run(run)?.map_err(|errno| errno.to_string())?;
//!     assert_eq!(finished.stdout.text(), "1\n");
//!
//!     assert_eq!(session.unload("refmod", false)?, Ok(()));
//!     assert_eq!(session.unload("refmod", false)?, Err(Errno::ENOENT));
//!     Ok(())
//! }
//! ```
//!
//! A guest ends with its session, and with the thread that started it ([`process`]).
//!
//! # Scenarios as tests
//!
//! [`harness!`] makes a test target of cargo's from a folder of scenarios: see [`testing`].
//!
//! # Text from kernels
//!
//! [`console`] and [`trace`] read what kernels print. They need no guest:
//!
//! ```
//! use kmodlab::trace::{ListedProbe, ProbeFlag, ProbeType};
//!
//! let list = "ffffffff81096d30  k  kernel_clone+0x0    [DISABLED][FTRACE]\n";
//! let probes = ListedProbe::parse_list(list)?;
//! assert_eq!((probes[0].symbol.as_str(), probes[0].probe_type), ("kernel_clone", ProbeType::Kprobe));
//! assert!(probes[0].flags.contains(&ProbeFlag::Disabled));
//! # Ok::<(), kmodlab::trace::UnreadableLine>(())
//! ```

pub mod arch;
pub mod blame;
pub mod cli;
pub mod console;
pub mod coverage;
pub mod error;
pub mod gdb;
pub mod guest;
pub mod holders;
pub mod image;
pub mod lab;
pub mod module;
pub mod needs;
pub mod process;
pub mod report;
pub mod run;
pub mod scenario;
pub mod selftest;
pub mod testing;
pub mod trace;
pub mod vm;
pub mod work;
pub mod yaml;
