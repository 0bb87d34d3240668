//! Locks of files and directories (flock(2)), and the directories that are guarded by one while they are filled.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

/// How the names of directories begin that lie among others' temporary files.
const TEMPORARY: &str = "kmodlab-scratch-";

/// A file or directory whose lock is let go of when this is dropped.
///
/// Closing it would not do: a child that another thread is just starting has a copy of it until it executes its program.
#[derive(Debug)]
pub(super) struct Held(pub(super) fs::File);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.file().unlock();
    }
}

/// Takes the lock at `path`, unless somebody holds it.
pub(super) fn try_lock(path: &Path) -> io::Result<Option<Held>> {
    loop {
        let file = fs::File::options().create(true).truncate(false).write(true).open(path)?;
        match file.file().try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        let held = Held(file);
        // Else it was removed with its entry, between the opening and the locking.
        if is_at(&held.0, path) {
            return Ok(Some(held));
        }
    }
}

/// Whether an open file is the one at `path`.
pub(super) fn is_at(file: &fs::File, path: &Path) -> bool {
    let id = |meta: &std::fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(there)) if id(&open) == id(&there))
}

/// A directory in `tmp`, held for as long as this lives, and removed with it unless it was published.
#[derive(Debug)]
pub struct Scratch {
    pub(super) path: PathBuf,
    pub(super) dir: Arc<Held>,
    pub(super) published: bool,
}

impl Scratch {
    pub(super) fn new(tmp: &Path) -> io::Result<Self> {
        Scratch::with_prefix(tmp, "")
    }

    /// One in the system's directory for temporary files, whose path is short enough for sockets: 108 bytes (unix(7)).
    /// Nobody else can enter it. Should this process be killed, it is swept when a cache is opened next.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn temporary() -> io::Result<Self> {
        Scratch::with_prefix(&std::env::temp_dir(), TEMPORARY)
    }

    fn with_prefix(tmp: &Path, prefix: &str) -> io::Result<Self> {
        loop {
            let private = std::fs::Permissions::from_mode(0o700);
            let path = tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(tmp)?.keep();
            let Ok(dir) = fs::File::open(&path) else { continue };
            // A sweeper may have come before the lock: then the directory is gone, or about to go.
            if dir.file().try_lock().is_err() {
                continue;
            }
            let dir = Held(dir);
            if is_at(&dir.0, &path) {
                return Ok(Scratch { path, dir: Arc::new(dir), published: false });
            }
        }
    }
}

impl std::ops::Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is swept later.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes what [`Scratch::temporary`] made for processes that were killed. What cannot be removed now is left for later:
/// others' directories lie there as well.
pub(super) fn sweep_temporary() {
    let _ = sweep_prefix(&std::env::temp_dir(), TEMPORARY);
}

/// Removes the directories in `tmp` that nobody holds.
pub(super) fn sweep(tmp: &Path) -> io::Result<()> {
    sweep_prefix(tmp, "")
}

fn sweep_prefix(tmp: &Path, prefix: &str) -> io::Result<()> {
    for name in super::subdirectories(tmp)?.into_iter().filter(|name| name.starts_with(prefix)) {
        let path = tmp.join(name);
        let Ok(dir) = fs::File::open(&path) else { continue };
        if dir.file().try_lock().is_err() {
            continue;
        }
        let held = Held(dir);
        if is_at(&held.0, &path) {
            // Another sweeper may be at it too.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}
