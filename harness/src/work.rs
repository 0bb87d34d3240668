//! How long-running work tells its watcher what it does, and how it is told to stop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// Names one piece of work for as long as it lasts.
pub type WorkId = u64;

/// What a piece of work says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkEvent {
    /// It begins; `what` is a phrase such as "download linux-image-amd64".
    Begin {
        /// The work.
        id: WorkId,
        /// What it does.
        what: String,
    },
    /// It has done `done` of `total`, in bytes.
    Progress {
        /// The work.
        id: WorkId,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It has done so many of things that are not counted beforehand, such as files compiled.
    Count {
        /// The work.
        id: WorkId,
        /// Things done.
        done: u64,
    },
    /// It is over, well or not.
    End {
        /// The work.
        id: WorkId,
    },
    /// Something that the user should know, though the work goes on.
    Warning(String),
}

/// Is told of work. Reporters implement it.
pub trait Watch: Send + Sync {
    /// Takes one event.
    fn work(&self, event: WorkEvent);
}

/// Nobody watches.
#[derive(Debug, Default, Clone, Copy)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn work(&self, _: WorkEvent) {}
}

/// A piece of work under way; dropping it ends it.
pub struct Work<'a> {
    id: WorkId,
    watch: &'a dyn Watch,
}

impl<'a> Work<'a> {
    /// Begins a piece of work.
    pub fn begin(watch: &'a dyn Watch, what: impl Into<String>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        watch.work(WorkEvent::Begin { id, what: what.into() });
        Work { id, watch }
    }

    /// Says how far it is, in bytes.
    pub fn progress(&self, done: u64, total: u64) {
        self.watch.work(WorkEvent::Progress { id: self.id, done, total });
    }

    /// Says how many things it has done, where nobody knows how many there are.
    pub fn count(&self, done: u64) {
        self.watch.work(WorkEvent::Count { id: self.id, done });
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.watch.work(WorkEvent::End { id: self.id });
    }
}

/// A request to stop, shared by everything that one run does.
///
/// It is a pipe, so that whoever waits in `poll` can wait for it too: [`Cancel::fd`] turns readable.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<(OwnedFd, OwnedFd)>);

impl Cancel {
    /// A request that has not been made yet.
    pub fn new() -> std::io::Result<Self> {
        Ok(Cancel(Arc::new(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)))
    }

    /// Makes the request. It cannot be taken back.
    pub fn cancel(&self) {
        // A full pipe is readable, which is all that matters.
        let _ = rustix::io::write(&self.0.1, b"x");
    }

    /// Whether it was made.
    pub fn is_cancelled(&self) -> bool {
        let mut fds = [PollFd::new(&self.0.0, PollFlags::IN)];
        poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Turns readable once the request is made.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }

    /// The end to write to, for a signal handler.
    pub fn signal_fd(&self) -> BorrowedFd<'_> {
        self.0.1.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_stays_made() {
        let cancel = Cancel::new().unwrap();
        assert!(!cancel.is_cancelled());
        cancel.clone().cancel();
        assert!(cancel.is_cancelled() && cancel.is_cancelled());
    }
}
