//! Many cases at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fs_err as fs;

use super::event::{Event, Reporter};
use super::outcome::{Kind, Totals};
use super::runner::{Options, Runner, Until};
use crate::lab::Lab;
use crate::scenario::expand::Case;

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How the cases ended.
    pub totals: Totals,
    /// Whether the run was told to stop before all cases were done.
    pub interrupted: bool,
}

enum Task<'a> {
    Prepare(&'a str, Vec<&'a Case>),
    Run(&'a Case),
}

/// Tasks that can be done, and how many are under way: each of those may bring more.
struct Queue<'a> {
    ready: VecDeque<Task<'a>>,
    under_way: usize,
    totals: Totals,
    /// No more cases begin.
    closed: bool,
    /// The cases that are not to be repeated, by file and image.
    ended: BTreeSet<(&'a Path, &'a str)>,
}

impl Queue<'_> {
    /// Whether it is a repeat of a case that has not passed.
    fn is_ended(&self, task: &Task<'_>) -> bool {
        matches!(task, Task::Run(case) if self.ended.contains(&(case.path.as_path(), case.image.as_str())))
    }
}

/// Runs cases, `jobs` at a time; an image's cases begin once it is ready.
pub fn run_all(lab: &Lab, cases: &[Case], jobs: usize, options: Options, reporter: &dyn Reporter) -> Summary {
    let begun = Instant::now();
    let jobs = jobs.clamp(1, cases.len().max(1));
    reporter.event(&Event::RunStarted { cases: cases.len(), jobs });
    let until = options.until;
    let runner = Runner::new(lab, options, reporter);
    let mut of_image: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        of_image.entry(&case.image).or_default().push(case);
    }
    let ready = of_image.into_iter().map(|(image, cases)| Task::Prepare(image, cases)).collect();
    let queue = Mutex::new(Queue {
        ready,
        under_way: 0,
        totals: Totals::default(),
        closed: false,
        ended: BTreeSet::new(),
    });
    let changed = Condvar::new();
    // A guest dies with the thread that started it, so that each case stays on one thread.
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(&runner, lab, &queue, &changed, until));
        }
    });
    let totals = lock(&queue).totals;
    let interrupted = lab.cancel().is_cancelled() && totals.all() < cases.len();
    reporter.event(&Event::RunFinished { totals, time: begun.elapsed(), interrupted });
    Summary { totals, interrupted }
}

fn lock<'q, 'a>(queue: &'q Mutex<Queue<'a>>) -> MutexGuard<'q, Queue<'a>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work<'a>(runner: &Runner<'_>, lab: &Lab, queue: &Mutex<Queue<'a>>, changed: &Condvar, until: Until) {
    let mut guard = lock(queue);
    loop {
        if lab.cancel().is_cancelled() {
            break;
        }
        let Some(task) = guard.ready.pop_front() else {
            if guard.under_way == 0 {
                break;
            }
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if guard.is_ended(&task) {
            continue;
        }
        guard.under_way += 1;
        drop(guard);
        let (more, outcome) = match task {
            Task::Prepare(image, cases) => {
                // The cases find it again, and tell.
                let _ = runner.prepare(image, &cases);
                (cases.into_iter().map(Task::Run).collect(), None)
            }
            Task::Run(case) => (Vec::new(), runner.run(case).map(|report| (case, report.outcome.kind()))),
        };
        guard = lock(queue);
        guard.under_way -= 1;
        guard.ready.extend(more);
        if let Some((case, kind)) = outcome {
            guard.totals.add(kind);
            match until {
                Until::End => {}
                Until::Fail => guard.closed |= matches!(kind, Kind::Fail | Kind::Crash | Kind::Timeout),
                Until::NoPass if kind == Kind::Pass => {}
                Until::NoPass => {
                    guard.ended.insert((&case.path, &case.image));
                }
            }
        }
        if guard.closed {
            guard.ready.clear();
        }
        changed.notify_all();
    }
    changed.notify_all();
}

/// How many guests this machine can run at once: one a core, as far as its free memory goes.
pub fn default_jobs(guest_mib: u32) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // QEMU itself and its translated code take about as much again as a small guest.
    let each = u64::from(guest_mib) + 256;
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let fit = available.map_or(cores, |kib| usize::try_from(kib / 1024 / each).unwrap_or(usize::MAX));
    cores.min(fit).max(1)
}
