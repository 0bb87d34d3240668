//! Processes of this machine, as `/proc` shows them.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A process, told from a later one of the same id by its time of start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pid: i32,
    pub(crate) command: String,
    parent: i32,
    group: i32,
    born: u64,
    dead: bool,
}

impl Found {
    /// Reads `/proc/PID/stat` (proc(5)); nothing where there is no such process.
    pub(crate) fn of(pid: i32) -> Option<Found> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Found {
            pid,
            command: String::from_utf8_lossy(&command).replace('\0', " "),
            dead: ["Z", "X"].contains(fields.first()?),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            born: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it still runs. One that nobody has reaped yet does not.
    pub(crate) fn runs(&self) -> bool {
        Found::of(self.pid).is_some_and(|now| now.born == self.born && !now.dead)
    }

    pub(crate) fn kill(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid).unwrap(), signal).unwrap();
    }
}

fn all() -> Vec<Found> {
    let names =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).filter_map(Found::of).collect()
}

/// The processes that descend from one, and those of their process groups.
pub(crate) fn descendants(of: u32) -> Vec<Found> {
    let all = all();
    let parents: HashMap<i32, i32> = all.iter().map(|process| (process.pid, process.parent)).collect();
    let root = of.cast_signed();
    let descends = |pid: i32| {
        std::iter::successors(parents.get(&pid), |parent| parents.get(parent)).any(|&parent| parent == root)
    };
    let (mut family, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|process| descends(process.pid));
    let groups: Vec<i32> = family.iter().map(|process| process.group).collect();
    family.extend(others.into_iter().filter(|process| groups.contains(&process.group)));
    family
}

/// How long anything here may take at the very most.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `find` finds something; looks every few milliseconds, and no more once the process has ended.
pub(crate) fn wait_until<T>(pid: u32, what: &str, mut find: impl FnMut() -> Option<T>) -> Result<T, String> {
    let end = pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("no {what} within {PATIENCE:?}"));
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };
        if poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&pause)).unwrap() > 0 {
            return find().ok_or_else(|| format!("it ended before there was {what}"));
        }
    }
}

/// Waits until none of the processes runs, and fails where one goes on.
pub(crate) fn expect_gone(processes: &[Found]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Some(left) = processes.iter().find(|process| process.runs()) {
        assert!(Instant::now() < deadline, "still running: {left:?}");
        let end = Pid::from_raw(left.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(end) = end {
            poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
        }
    }
}
