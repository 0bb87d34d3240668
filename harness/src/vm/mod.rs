//! Virtual machines: QEMU's command line, its process, QMP, warm snapshots. Nothing here knows of scenarios.

pub mod accel;
mod gdb;
mod instance;
mod machine;
mod plug;
mod qmp;
mod snapshot;

pub use accel::Accel;
pub use instance::{Channel, Exit, Pumped, Vm};
pub use machine::{Boot, Machine, Memory, Start, Wiring};
pub use snapshot::{Snapshot, SnapshotError};

use crate::arch::Arch;
use crate::process;

/// Why a machine could not be started, or be told something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no QEMU for the architecture.
    #[error(
        "`{qemu}` is not installed or not in PATH\ninstall the package `{package}`",
        qemu = arch.qemu, package = arch.qemu_package
    )]
    NoQemu {
        /// The architecture.
        arch: Arch,
    },
    /// QEMU could not be run.
    #[error(transparent)]
    Process(process::Error),
    /// A socket, file or descriptor failed.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// QEMU ended by itself.
    #[error("QEMU ended: {0}")]
    Exited(Exit),
    /// QEMU refused a command.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The QMP command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
    /// What QEMU said is not QMP.
    #[error("QEMU sent what is not QMP: `{0}`")]
    Protocol(String),
    /// It took too long.
    #[error("QEMU did not answer in time: {0}")]
    Deadline(&'static str),
    /// The run was told to stop.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { what, source }
    }
}
