//! What holds a module now: present users, also those whose reference nobody traced.
//!
//! Two sources give the same [`Holder`]s: what a kernel shows to user space ([`collect`], which reads through
//! [`Files`]), and what the test module that scans the kernel says ([`Scan`]), which is exact.

mod host;
mod scan;
#[cfg(test)]
mod tests;
mod user;

use std::fmt;

use serde::Serialize;

pub use self::host::Host;
pub use self::scan::{Scan, Unreadable};
pub use self::user::{Files, collect};

/// The test module that scans the kernel, and its file in `/proc`.
pub const SCANNER: &str = "refscan";

/// What kind of thing holds a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A descriptor of an open file.
    File,
    /// A mapping in a process's memory.
    Mapping,
    /// A process's working directory.
    Cwd,
    /// A process's root directory.
    Root,
    /// A kernel thread that runs the module's code.
    Thread,
    /// A mounted file system.
    Mount,
    /// A network interface.
    Interface,
    /// A descriptor of a socket of the module's protocol or family; without a task, sockets of a protocol.
    Socket,
    /// A module that uses its symbols.
    Dependent,
    /// What this version does not know.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::File => "file",
            Kind::Mapping => "mapping",
            Kind::Cwd => "cwd",
            Kind::Root => "root",
            Kind::Thread => "thread",
            Kind::Mount => "mount",
            Kind::Interface => "interface",
            Kind::Socket => "socket",
            Kind::Dependent => "dependent",
            Kind::Other => "other",
        })
    }
}

/// A process, or a thread of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Task {
    /// The process's id.
    pub pid: u32,
    /// The thread's name.
    pub comm: String,
}

/// A present user of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// What kind of thing it is.
    pub kind: Kind,
    /// By what it belongs to the module: `operations`, `device`, `driver`, `name`, …
    pub via: String,
    /// How many references the kernel keeps for it; None where that cannot be told. 0: it is a user, but another
    /// holder has the reference, or nobody.
    pub references: Option<u32>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// The descriptor's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<u32>,
    /// Numbers the open file: descriptors with the same number share one open file, and its references.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<u32>,
    /// The path, interface, protocol, function or module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where a mount is, or a mapping's addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl Holder {
    fn new(kind: Kind, via: &str, name: Option<&str>) -> Self {
        Holder {
            kind,
            via: via.to_owned(),
            references: None,
            task: None,
            fd: None,
            file: None,
            name: name.map(str::to_owned),
            place: None,
        }
    }
}

impl fmt::Display for Holder {
    /// A phrase: "`tail[42]` has `/dev/snd/timer` open as fd 3".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("?");
        if let Some(Task { pid, comm }) = &self.task {
            write!(f, "`{comm}[{pid}]` ")?;
        }
        match self.kind {
            Kind::File => write!(f, "has `{name}` open"),
            Kind::Mapping => write!(f, "has `{name}` mapped"),
            Kind::Cwd => f.write_str("has its working directory in the module's file system"),
            Kind::Root => f.write_str("has its root directory in the module's file system"),
            Kind::Thread => write!(f, "runs `{name}` as a kernel thread"),
            Kind::Mount => write!(f, "`{name}` is mounted"),
            Kind::Interface => write!(f, "network interface `{name}` is the module's by its {}", self.via),
            Kind::Socket if self.task.is_some() => write!(f, "has a socket of protocol `{name}` open"),
            Kind::Socket => write!(f, "sockets of protocol `{name}` are open"),
            Kind::Dependent => write!(f, "module `{name}` uses its symbols"),
            Kind::Other => write!(f, "a holder of an unknown kind, by its {}", self.via),
        }?;
        if let Some(fd) = self.fd {
            write!(f, " as fd {fd}")?;
        }
        match &self.place {
            Some(place) => write!(f, " at `{place}`"),
            None => Ok(()),
        }
    }
}
