//! Many cases at once.

use std::collections::{BTreeMap, VecDeque};
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

#[derive(Debug, PartialEq)]
enum Task<'a, C> {
    Prepare(&'a str, Vec<C>),
    Run(C),
}

/// Tasks that can be done, and how many are under way: each of those may bring more.
struct Queue<'a, C> {
    /// Images that are not ready yet, with their cases.
    images: VecDeque<(&'a str, Vec<C>)>,
    /// Cases of images that are.
    cases: VecDeque<C>,
    under_way: usize,
    /// How many of those are preparations.
    preparing: usize,
    totals: Totals,
    /// No more cases begin.
    closed: bool,
}

impl<'a, C> Queue<'a, C> {
    fn new(images: impl IntoIterator<Item = (&'a str, Vec<C>)>) -> Self {
        Queue {
            images: images.into_iter().collect(),
            cases: VecDeque::new(),
            under_way: 0,
            preparing: 0,
            totals: Totals::default(),
            closed: false,
        }
    }

    /// What to do next: one job gets the next image ready while the others do cases, so that no job is idle at the end for
    /// want of an image, and results do not wait for the last of many images.
    fn take(&mut self) -> Option<Task<'a, C>> {
        let ahead = self.preparing == 0 && self.under_way > 0;
        let image = if ahead || self.cases.is_empty() { self.images.pop_front() } else { None };
        let task = match image {
            Some((image, cases)) => Task::Prepare(image, cases),
            None => Task::Run(self.cases.pop_front()?),
        };
        self.under_way += 1;
        self.preparing += usize::from(matches!(task, Task::Prepare(..)));
        Some(task)
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
    let queue = Mutex::new(Queue::new(of_image));
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

fn lock<'q, 'a>(queue: &'q Mutex<Queue<'a, &'a Case>>) -> MutexGuard<'q, Queue<'a, &'a Case>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work<'a>(
    runner: &Runner<'_>,
    lab: &Lab,
    queue: &Mutex<Queue<'a, &'a Case>>,
    changed: &Condvar,
    until: Until,
) {
    let mut guard = lock(queue);
    loop {
        if lab.cancel().is_cancelled() {
            break;
        }
        let Some(task) = guard.take() else {
            if guard.under_way == 0 {
                break;
            }
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(guard);
        let outcome = match task {
            Task::Prepare(image, cases) => {
                // The cases find it again, and tell.
                let _ = runner.prepare(image, &cases);
                guard = lock(queue);
                guard.preparing -= 1;
                guard.cases.extend(cases);
                None
            }
            Task::Run(case) => {
                let kind = runner.run(case).map(|report| report.outcome.kind());
                guard = lock(queue);
                kind.map(|kind| (case, kind))
            }
        };
        guard.under_way -= 1;
        if let Some((case, kind)) = outcome {
            guard.totals.add(kind);
            match until {
                Until::End => {}
                Until::Fail => guard.closed |= matches!(kind, Kind::Fail | Kind::Crash | Kind::Timeout),
                Until::NoPass if kind == Kind::Pass => {}
                // No more repeats of it.
                Until::NoPass => {
                    guard.cases.retain(|other| (&other.path, &other.image) != (&case.path, &case.image));
                }
            }
        }
        if guard.closed {
            guard.images.clear();
            guard.cases.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An image is ready: its cases can be done.
    fn ready(queue: &mut Queue<'_, u32>, cases: Vec<u32>) {
        queue.under_way -= 1;
        queue.preparing -= 1;
        queue.cases.extend(cases);
    }

    #[test]
    fn one_job_gets_the_next_image_ready_while_the_others_do_cases() {
        let mut queue = Queue::new([("a", vec![1, 2]), ("b", vec![3]), ("c", vec![4])]);
        assert_eq!(queue.take(), Some(Task::Prepare("a", vec![1, 2])));
        // Nothing else is to be done yet.
        assert_eq!(queue.take(), Some(Task::Prepare("b", vec![3])));
        ready(&mut queue, vec![1, 2]);
        assert_eq!(queue.take(), Some(Task::Run(1)));
        ready(&mut queue, vec![3]);
        assert_eq!(queue.take(), Some(Task::Prepare("c", vec![4])));
        queue.under_way -= 1;
        assert_eq!([queue.take(), queue.take()], [Some(Task::Run(2)), Some(Task::Run(3))]);
        assert_eq!(queue.take(), None);
        ready(&mut queue, vec![4]);
        assert_eq!([queue.take(), queue.take()], [Some(Task::Run(4)), None]);
    }

    #[test]
    fn one_job_alone_does_an_image_s_cases_before_the_next_image() {
        let mut queue = Queue::new([("a", vec![1]), ("b", vec![2])]);
        assert_eq!(queue.take(), Some(Task::Prepare("a", vec![1])));
        ready(&mut queue, vec![1]);
        assert_eq!(queue.take(), Some(Task::Run(1)));
        queue.under_way -= 1;
        assert_eq!(queue.take(), Some(Task::Prepare("b", vec![2])));
    }
}
