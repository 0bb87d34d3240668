//! What the host asks for.

use std::time::Duration;

use super::Port;
#[cfg(doc)]
use super::Reply;
use crate::guest::Signal;

/// How a file is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum WriteMode {
    /// Emptied first, made if it is not there; as a shell's `>`.
    Truncate = 0,
    /// Written at its end, made if it is not there; as a shell's `>>`.
    Append = 1,
    /// Made; an error if it is there.
    Create = 2,
}

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is such a file.
    Exists,
    /// There is no such file.
    Absent,
    /// The file is this, but for white space at the end of either.
    Equals(Vec<u8>),
    /// This is somewhere in the file's first 256 KiB.
    Contains(Vec<u8>),
    /// The file is there and is not this, but for white space at the end of either.
    NotEquals(Vec<u8>),
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The program, looked up in the agent's `PATH` unless it has a slash, and its arguments.
    pub argv: Vec<String>,
    /// `NAME=value`, added to the agent's `PATH`, `HOME` and `TERM`.
    pub env: Vec<String>,
    /// The working directory; empty for the root.
    pub cwd: String,
    /// All of its standard input.
    pub stdin: Vec<u8>,
    /// After this many milliseconds its process group is sent `SIGTERM`, and `SIGKILL` half a second later; 0 for never.
    pub deadline_ms: u32,
}

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Sets the clock and mixes entropy in. Answered by [`Reply::Hello`].
    Hello {
        /// The wall clock, since the epoch.
        time: Duration,
        /// At most 4096 bytes; 32 or more should they be.
        entropy: Vec<u8>,
    },
    /// Runs a program. Answered by [`Reply::Started`], any number of [`Reply::Stdout`] and [`Reply::Stderr`], and
    /// [`Reply::Exit`]; by [`Reply::Done`] alone if it could not be started.
    Run(Run),
    /// Sends a signal to a program's process group. Answered by [`Reply::Done`]: `ESRCH` if it has ended.
    Signal {
        /// The id of its [`Request::Run`].
        run: u32,
        /// The signal.
        signal: Signal,
    },
    /// `finit_module`. Answered by [`Reply::Done`].
    LoadModule {
        /// The module, not compressed.
        path: String,
        /// Its parameters, as `insmod` takes them.
        params: String,
        /// `MODULE_INIT_*` of `include/uapi/linux/module.h`: 1 ignores symbol versions, 2 ignores the version magic.
        flags: u32,
    },
    /// `delete_module`, not waiting. Answered by [`Reply::Done`].
    UnloadModule {
        /// The module's name.
        name: String,
        /// `O_TRUNC`: even if it is in use, where the kernel can (`CONFIG_MODULE_FORCE_UNLOAD`).
        force: bool,
    },
    /// Answered by any number of [`Reply::Data`], and [`Reply::Done`] with the number of bytes and whether the end was
    /// seen; `EAGAIN` if there was more to come, but not at that moment.
    ReadFile {
        /// The file.
        path: String,
        /// The most bytes to read.
        limit: u64,
    },
    /// Answered by [`Reply::Done`] with the number of bytes written. As far as the file takes it, one write(2).
    WriteFile {
        /// The file.
        path: String,
        /// How it is opened.
        mode: WriteMode,
        /// The permissions of a new file.
        permissions: u32,
        /// The bytes to write.
        data: Vec<u8>,
    },
    /// Makes one directory. Answered by [`Reply::Done`].
    MakeDir {
        /// The directory.
        path: String,
        /// Its permissions.
        permissions: u32,
    },
    /// Removes a file or an empty directory. Answered by [`Reply::Done`].
    Remove {
        /// The file.
        path: String,
    },
    /// Lists a directory. Answered by any number of [`Reply::Entries`], and [`Reply::Done`].
    List {
        /// The directory.
        path: String,
    },
    /// Copies a file to a port from now on, as it grows. Answered by [`Reply::Started`], and by [`Reply::Done`] once it
    /// has ended; by that alone if it could not be started.
    Stream {
        /// The file.
        path: String,
        /// Where to.
        port: Port,
    },
    /// Ends a stream once what is there now has been copied. Answered by [`Reply::Done`].
    StopStream {
        /// The id of its [`Request::Stream`].
        stream: u32,
    },
    /// Has the port's streams copy what is there now. Answered by [`Reply::Synced`].
    Sync {
        /// The port.
        port: Port,
    },
    /// Waits inside the guest. Answered by [`Reply::Waited`].
    WaitFor {
        /// The file.
        path: String,
        /// What of it.
        condition: Condition,
        /// How long, in milliseconds; 0 looks once.
        deadline_ms: u32,
    },
    /// Switches the guest off. Answered by [`Reply::Done`], as a rule.
    PowerOff,
    /// Has the agent collect which code of the kernel is executed from now on. Answered by [`Reply::Done`]: `ENOENT` where
    /// the kernel has no kcov.
    StartCover,
    /// Hands over the program counters collected since this was last asked, each once. Answered by any number of
    /// [`Reply::Data`], which together are 64-bit numbers, and [`Reply::Done`] with how many, and whether none is missing.
    Cover,
}
