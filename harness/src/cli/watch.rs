//! `kmodlab run --watch`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Context, Stop, exit};
use crate::image::spec::KernelSource;
use crate::lab::Lab;
use crate::scenario::expand::Case;
use crate::scenario::step::Origin;
use crate::work::Cancel;

/// Editors and builds change several files at a time: so long must nothing change before cases are run, in nanoseconds.
const QUIET: i64 = 300_000_000;

/// Waits for changes of files.
pub(super) struct Changes {
    watcher: Mutex<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    changed: Receiver<PathBuf>,
    /// Turns readable with each change.
    woken: OwnedFd,
}

impl Changes {
    /// Watches nothing yet.
    pub(super) fn new() -> Result<Self, Stop> {
        let (woken, wake) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|error| Stop::error(&error))?;
        let (sender, changed) = channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Access(_)) {
                return;
            }
            for path in event.paths {
                // Nobody waits any more when these fail; a full pipe is readable.
                let _ = sender.send(resolved(&path));
                let _ = rustix::io::write(&wake, b"x");
            }
        });
        let watcher = Mutex::new(watcher.map_err(|error| Stop::error(&error))?);
        Ok(Changes { watcher, watched: BTreeSet::new(), changed, woken })
    }

    /// Watches what cases are made of: scenarios, test modules, images, and a kernel of the user's own.
    pub(super) fn watch(&mut self, lab: &Lab, cases: &[Case]) -> Result<(), Stop> {
        let root = lab.root();
        let folders = ["scenarios", "test-modules", "images"].map(|name| root.join(name));
        let named = cases.iter().filter_map(|case| case.path.parent().map(Path::to_owned));
        let kernels = kernels(lab).into_iter().filter_map(|(_, file)| file.parent().map(Path::to_owned));
        for dir in folders.into_iter().filter(|dir| dir.is_dir()) {
            self.add(&dir, RecursiveMode::Recursive)?;
        }
        for dir in named.chain(kernels) {
            self.add(&dir, RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }

    fn add(&mut self, dir: &Path, mode: RecursiveMode) -> Result<(), Stop> {
        let dir = resolved(dir);
        if self.watched.iter().any(|watched| dir.starts_with(watched)) {
            return Ok(());
        }
        let mut watcher = self.watcher.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        watcher.watch(&dir, mode).map_err(|error| Stop::error(&error))?;
        self.watched.insert(dir);
        Ok(())
    }

    /// Waits until something changed and then nothing for a while; `None` where it is told to stop.
    pub(super) fn wait(&self, cancel: &Cancel) -> Option<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        loop {
            let quiet = Timespec { tv_sec: 0, tv_nsec: QUIET };
            let limit = if paths.is_empty() { None } else { Some(&quiet) };
            let mut fds = [
                PollFd::new(&self.woken, PollFlags::IN),
                PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN),
            ];
            let ready = poll(&mut fds, limit).unwrap_or(0);
            if cancel.is_cancelled() {
                return None;
            }
            if ready == 0 && !paths.is_empty() {
                return Some(paths);
            }
            let _ = rustix::io::read(&self.woken, &mut [0; 4096]);
            paths.extend(self.changed.try_iter());
        }
    }
}

/// Images with a kernel of the user's own, and the files that they boot.
fn kernels(lab: &Lab) -> Vec<(String, PathBuf)> {
    let own = lab.images().iter().filter_map(|image| match &image.kernel {
        KernelSource::Own(own) => Some((image.name.clone(), own.find().ok()?.boot_file)),
        _ => None,
    });
    own.collect()
}

/// The path without links; its last part may be gone.
fn resolved(path: &Path) -> PathBuf {
    let whole = || path.canonicalize().ok();
    let parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    whole().or_else(parent).unwrap_or_else(|| path.to_owned())
}

/// The cases that changes of these files touch.
pub(super) fn touched(lab: &Lab, cases: Vec<Case>, paths: &BTreeSet<PathBuf>) -> Vec<Case> {
    let kernels = kernels(lab);
    let within = |dir: &Path| {
        let dir = resolved(dir);
        paths.iter().any(|path| path.starts_with(&dir))
    };
    let images = lab.root().join("images");
    let agent = within(&images.join("agent"));
    let include = within(&lab.sources().dir().join("include"));
    let is_touched = |case: &Case| {
        let modules = case.scenario.modules(Origin::Test);
        let sources = modules.iter().filter_map(|name| lab.sources().in_order(name).ok()).flatten();
        let image = images.join(format!("{}.yaml", case.image));
        let kernel = kernels.iter().filter(|(image, _)| *image == case.image);
        agent
            || within(&case.path)
            || within(&image)
            || (include && !modules.is_empty())
            || sources.into_iter().any(|source| within(&source.dir))
            || kernel.into_iter().any(|(_, file)| within(file))
    };
    cases.into_iter().filter(is_touched).collect()
}

/// Runs all cases, and then again and again those that changes touch, until it is told to stop. `cases` reads them anew;
/// what is wrong with their files is told, and mending it is a change.
pub(super) fn watch(
    context: &Context,
    cases: impl Fn() -> Result<(Lab, Vec<Case>), Stop>,
    run: impl Fn(&Lab, &[Case]) -> Result<u8, Stop>,
) -> Result<u8, Stop> {
    let mut changes = Changes::new()?;
    // What changed since cases could last be run; everything, at first.
    let mut pending: Option<BTreeSet<PathBuf>> = None;
    // The project as it was when its files were last in order: what is watched.
    let (lab, all) = cases()?;
    changes.watch(&lab, &all)?;
    let mut known = Ok((lab, all));
    loop {
        let result = known.and_then(|(lab, all)| {
            changes.watch(&lab, &all)?;
            let cases = match &pending {
                None => all,
                Some(paths) => touched(&lab, all, paths),
            };
            pending = Some(BTreeSet::new());
            if cases.is_empty() { Ok(None) } else { run(&lab, &cases).map(Some) }
        });
        let waits = match result {
            Ok(Some(code)) if code == exit::INTERRUPTED => return Ok(code),
            Ok(ran) => ran.is_some(),
            Err(stop) => {
                super::complain(&stop.message);
                true
            }
        };
        if waits {
            context.human.note("waiting for changes; Ctrl-C ends this");
        }
        let Some(paths) = changes.wait(&context.cancel) else { return Ok(exit::INTERRUPTED) };
        if let Some(pending) = &mut pending {
            pending.extend(paths);
        }
        known = cases();
    }
}
