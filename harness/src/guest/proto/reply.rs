//! What the agent answers.

use std::time::Duration;

use crate::guest::{Errno, Signal};

/// What the agent says of its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The kernel's release, `uname -r`.
    pub release: String,
    /// The machine, `uname -m`.
    pub machine: String,
    /// The byte order.
    pub big_endian: bool,
    /// 32 or 64.
    pub word_bits: u8,
    /// Time since the guest's boot.
    pub uptime: Duration,
    /// The kernel's taint flags, a bit each.
    pub tainted: u64,
    /// Where tracefs is; empty if the kernel has none.
    pub tracing: String,
    /// How setting the clock went.
    pub clock: Errno,
    /// How mixing in entropy went.
    pub entropy: Errno,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this status.
    Exited(u32),
    /// A signal ended it.
    Signalled(Signal),
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// Something else.
    Other,
}

/// A file in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits.
    pub permissions: u32,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The guest is up.
    Hello(Hello),
    /// The program or stream has been started.
    Started {
        /// The program's process id; 0 for a stream.
        pid: u32,
    },
    /// Some of a program's standard output.
    Stdout(Vec<u8>),
    /// Some of a program's standard error.
    Stderr(Vec<u8>),
    /// The program has ended, and this is its last reply.
    Exit {
        /// How.
        ending: Ending,
        /// Whether its deadline had passed.
        timed_out: bool,
    },
    /// Some of a file, or of the program counters collected.
    Data(Vec<u8>),
    /// Some of a directory, in no order.
    Entries(Vec<Entry>),
    /// The request is over.
    Done {
        /// How it went.
        errno: Errno,
        /// Bytes read or written, entries listed, or program counters handed over.
        count: u64,
        /// Whether that was all that there was.
        end: bool,
    },
    /// The wait is over.
    Waited {
        /// `ETIMEDOUT` if the condition did not come to hold.
        errno: Errno,
        /// The first 4 KiB of the file as last read, without white space at the end.
        content: Vec<u8>,
    },
    /// Everything that was there has been written to the port.
    Synced {
        /// Bytes written to the port since the [`mark`](super::mark) of the last Hello.
        bytes: u64,
        /// False if a source filled as fast as it was read.
        drained: bool,
    },
    /// The agent has taken so many bytes from a serial line, or, at first, may be sent so many. Answers no request.
    Taken {
        /// How many, as they were written to the line.
        bytes: u32,
    },
    /// The agent could not make sense of the request, or cannot serve so many.
    Error(String),
}
