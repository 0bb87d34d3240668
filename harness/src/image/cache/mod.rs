//! What was fetched, built or recorded, kept for the next run.
//!
//! An entry is a directory `<root>/<kind>/<key>/`, with a manifest in it. It is made in `<root>/tmp` and renamed into
//! place, so that it is there whole or not at all. Three locks (flock(2), let go of by the kernel however their
//! owner ends) keep processes and threads apart:
//!
//! - `<key>.lock` beside the entry is held, exclusively, by whoever makes, mends or removes it. Its mtime says when the
//!   entry was last used.
//! - The entry's directory is held, shared, by whoever uses it: such an entry is not cleaned away.
//! - A directory in `tmp` is held, exclusively, by whoever fills it; one that nobody holds is swept.

mod key;
mod lock;
mod pack;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use etcetera::BaseStrategy;
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

pub use self::key::{Key, KeyBuilder, sha256_file};
pub use self::lock::Scratch;
use self::lock::{Held, is_at, try_lock};
pub use self::pack::{PackError, Unpacked};
pub use self::tree::stamp;
use crate::work::{Cancel, Watch, Work, WorkEvent};

/// The environment variable that names the cache directory.
pub const ENV: &str = "KMODLAB_CACHE";

/// Less than this, in bytes, is a full disk to a program that failed: what it could not write to the end it has removed.
const NEXT_TO_NOTHING: u64 = 1 << 20;

const MANIFEST: &str = ".manifest.json";
const TMP: &str = "tmp";

/// How the cache itself failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full, or about to be.
    #[error(
        "no space left for `{label}` in the cache `{root}`: it takes {takes} MiB or more, {free} MiB are free\n\
         free some space, or run `kmodlab image clean`",
        root = root.display(), takes = takes >> 20, free = free >> 20
    )]
    NoSpace {
        /// What was to be made.
        label: String,
        /// The root of the cache.
        root: PathBuf,
        /// Bytes that it takes: what is known to be needed, or what had been written.
        takes: u64,
        /// Bytes free where the cache is.
        free: u64,
        /// What met the full disk, unless it was foreseen.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The cache itself could not be read or written.
    #[error("the cache cannot be used")]
    Io(#[from] io::Error),
    /// The run was told to stop.
    #[error("interrupted")]
    Cancelled,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            error => io::Error::other(error),
        }
    }
}

/// The cache.
#[derive(Clone)]
pub struct Cache {
    root: PathBuf,
    watch: Arc<dyn Watch>,
    /// What was used since [`Cache::record`], by its path.
    used: Arc<Mutex<Option<BTreeMap<PathBuf, Entry>>>>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.root).finish()
    }
}

/// An entry in use. While it or a clone of it lives, it is not cleaned away.
#[derive(Debug, Clone)]
pub struct Entry {
    path: PathBuf,
    _in_use: Arc<Held>,
}

impl Entry {
    /// Its kind.
    pub fn kind(&self) -> &str {
        let kind = self.path.parent().and_then(Path::file_name);
        kind.and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Its key.
    pub fn key(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Calls `visit` with everything in it, in a fixed order. Paths are relative to it.
    ///
    /// # Errors
    ///
    /// Where a directory cannot be read, and those of `visit`.
    pub fn walk(&self, visit: &mut dyn FnMut(&Path, &std::fs::Metadata) -> io::Result<()>) -> io::Result<()> {
        tree::walk(&self.path, &is_manifest, visit)
    }
}

impl std::ops::Deref for Entry {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Entry {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// An entry as `kmodlab image list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// What people call it.
    pub label: String,
    /// Bytes that it takes on the disk.
    pub disk_bytes: u64,
    /// When it was last used.
    pub last_used: SystemTime,
}

/// What [`Cache::clean`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// What was removed.
    pub removed: Vec<Listed>,
    /// What was in use, and stays.
    pub in_use: Vec<Listed>,
}

/// What an entry's directory should hold.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    label: String,
    stamp: String,
    content: String,
}

/// What whoever wants an entry gets.
enum Claim {
    Entry(Entry),
    Make(Held),
}

/// What is found in an entry's place.
enum Found {
    Good(Entry),
    Missing,
    /// Its files are not those that were stamped.
    Touched(Entry, Manifest),
    Broken,
}

impl Cache {
    /// Opens the cache at `root`, else at `KMODLAB_CACHE`, else at `kmodlab` in the user's cache directory (XDG), and
    /// removes what dead processes left behind. `watch` is told of waiting and of entries found altered.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be made.
    pub fn open(root: Option<&Path>, watch: Arc<dyn Watch>) -> io::Result<Self> {
        let root = match (root, std::env::var_os(ENV).filter(|value| !value.is_empty())) {
            (Some(root), _) => root.to_owned(),
            (None, Some(root)) => root.into(),
            (None, None) => {
                let xdg = etcetera::choose_base_strategy().map_err(|_| {
                    io::Error::other(format!("no home directory is set: name a cache with `{ENV}`"))
                })?;
                xdg.cache_dir().join("kmodlab")
            }
        };
        let cache = Cache { root: std::path::absolute(root)?, watch, used: Arc::default() };
        fs::create_dir_all(cache.root.join(TMP))?;
        lock::sweep(&cache.root.join(TMP))?;
        lock::sweep_temporary();
        Ok(cache)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry of that kind and key; made by `make`, in the empty directory that it is given, where there is none.
    ///
    /// Whatever fails or is killed in the middle leaves nothing that is used later. Of several callers at once one
    /// makes the entry, and the others wait for it. Nothing in the entry may be changed afterwards: what was changed is
    /// found out at the next use, thrown away with a warning, and made anew.
    ///
    /// # Errors
    ///
    /// The maker's own error; [`Error::NoSpace`] where it failed because the disk is full; [`Error::Cancelled`] when
    /// `cancel` came while waiting for another maker; [`Error::Io`].
    pub fn entry<E: std::error::Error + From<Error> + Send + Sync + 'static>(
        &self,
        kind: &str,
        key: &Key,
        cancel: &Cancel,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Entry, E> {
        let path = self.path(kind, key.as_str());
        let entry = match self.claim(&path, key, cancel)? {
            Claim::Entry(entry) => entry,
            Claim::Make(_lock) => self.make(&path, key, make)?,
        };
        self.note_use(&path, &entry);
        Ok(entry)
    }

    /// The entry of that kind and key, where there is a good one.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be read.
    pub fn get(&self, kind: &str, key: &Key) -> io::Result<Option<Entry>> {
        let path = self.path(kind, key.as_str());
        let entry = match self.find(&path, false)? {
            Found::Good(entry) => Some(entry),
            Found::Missing => None,
            // Whoever holds the lock is mending it or making it anew.
            Found::Touched(..) | Found::Broken => match try_lock(&lock_path(&path))? {
                Some(_lock) => self.mend(&path)?,
                None => None,
            },
        };
        if let Some(entry) = &entry {
            self.note_use(&path, entry);
        }
        Ok(entry)
    }

    /// From now on every entry that is used through this cache, or a clone of it, stays in use, until [`Cache::recorded`].
    pub fn record(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(BTreeMap::new());
    }

    /// The entries that were used since [`Cache::record`], by kind and key.
    pub fn recorded(&self) -> Vec<Entry> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).take();
        used.unwrap_or_default().into_values().collect()
    }

    fn note_use(&self, path: &Path, entry: &Entry) {
        mark_used(path);
        if let Some(used) = &mut *self.used.lock().unwrap_or_else(PoisonError::into_inner) {
            used.insert(path.to_owned(), entry.clone());
        }
    }

    /// An empty directory on the cache's file system, removed with the value returned, or, should this process be
    /// killed, swept later.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn scratch(&self) -> io::Result<Scratch> {
        Scratch::new(&self.root.join(TMP))
    }

    /// Makes sure that there is room for something that takes so many bytes, for makers that run programs which do not
    /// cope with a full disk.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] where there is not.
    pub fn require(&self, label: &str, bytes: u64) -> Result<(), Error> {
        let free = self.free();
        match free >= bytes {
            true => Ok(()),
            false => {
                let (label, root) = (label.to_owned(), self.root.clone());
                Err(Error::NoSpace { label, root, takes: bytes, free, source: None })
            }
        }
    }

    /// Every entry, by kind and label.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be read.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        let mut list = Vec::new();
        for kind in subdirectories(&self.root)?.into_iter().filter(|kind| kind != TMP) {
            for key in subdirectories(&self.root.join(&kind))? {
                let path = self.path(&kind, &key);
                // One that goes away meanwhile is none.
                let (Ok(manifest), Ok(disk_bytes)) = (read_manifest(&path), tree::disk_usage(&path)) else {
                    continue;
                };
                let last_used =
                    fs::metadata(lock_path(&path)).or_else(|_| fs::metadata(&path))?.modified()?;
                list.push(Listed { kind: kind.clone(), key, label: manifest.label, disk_bytes, last_used });
            }
        }
        list.sort_by(|a, b| (&a.kind, &a.label, &a.key).cmp(&(&b.kind, &b.label, &b.key)));
        Ok(list)
    }

    /// The directories of the entries of a kind, good or not.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be read.
    pub fn paths(&self, kind: &str) -> io::Result<Vec<PathBuf>> {
        let dir = self.root.join(kind);
        Ok(subdirectories(&dir)?.into_iter().map(|key| dir.join(key)).collect())
    }

    /// Removes an entry; false where it is in use and stays.
    ///
    /// # Errors
    ///
    /// Where it cannot be removed.
    pub fn remove(&self, kind: &str, key: &str) -> io::Result<bool> {
        let path = self.path(kind, key);
        let Some(_lock) = try_lock(&lock_path(&path))? else { return Ok(false) };
        match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(dir) if dir.file().try_lock().is_err() => return Ok(false),
            Ok(dir) => {
                let _held = Held(dir);
                self.discard(&path)?;
            }
        }
        fs::remove_file(lock_path(&path))?;
        Ok(true)
    }

    /// Removes every entry, of one kind where that is named, that is not in use and has not been used for so long.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be read, or an entry not removed.
    pub fn clean(&self, kind: Option<&str>, unused_for: Duration) -> io::Result<Cleaned> {
        let mut cleaned = Cleaned::default();
        let old = |entry: &Listed| entry.last_used.elapsed().unwrap_or_default() >= unused_for;
        let chosen = |entry: &Listed| kind.is_none_or(|kind| entry.kind == kind) && old(entry);
        for entry in self.list()?.into_iter().filter(chosen) {
            match self.remove(&entry.kind, &entry.key)? {
                true => cleaned.removed.push(entry),
                false => cleaned.in_use.push(entry),
            }
        }
        lock::sweep(&self.root.join(TMP))?;
        Ok(cleaned)
    }

    fn path(&self, kind: &str, key: &str) -> PathBuf {
        self.root.join(kind).join(key)
    }

    /// The entry at `path`, or else its lock: then it is for the caller to make.
    fn claim(&self, path: &Path, key: &Key, cancel: &Cancel) -> Result<Claim, Error> {
        if let Found::Good(entry) = self.find(path, false)? {
            return Ok(Claim::Entry(entry));
        }
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let lock = self.wait_for_lock(path, key.label(), cancel)?;
        Ok(self.mend(path)?.map_or(Claim::Make(lock), Claim::Entry))
    }

    /// Looks at what is in an entry's place. `locked` says that the caller holds its lock, so that nobody can be at
    /// work on it.
    fn find(&self, path: &Path, locked: bool) -> io::Result<Found> {
        let dir = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            dir => dir?,
        };
        match locked {
            // A sweeper may still be looking at what was in `tmp` a moment ago.
            true => dir.file().lock_shared()?,
            false if dir.file().try_lock_shared().is_err() => return Ok(Found::Missing),
            false => {}
        }
        let held = Held(dir);
        if !is_at(&held.0, path) {
            return Ok(Found::Missing);
        }
        let entry = Entry { path: path.to_owned(), _in_use: Arc::new(held) };
        let Ok(manifest) = read_manifest(path) else { return Ok(Found::Broken) };
        match tree::stamp(path, &is_manifest) {
            Ok(stamp) if stamp == manifest.stamp => Ok(Found::Good(entry)),
            Ok(_) => Ok(Found::Touched(entry, manifest)),
            Err(_) => Ok(Found::Broken),
        }
    }

    /// The entry at `path`, whose lock is held, if it is good or its content still is; else it is discarded.
    fn mend(&self, path: &Path) -> io::Result<Option<Entry>> {
        match self.find(path, true)? {
            Found::Good(entry) => return Ok(Some(entry)),
            Found::Missing => return Ok(None),
            Found::Touched(entry, manifest) => {
                let work = Work::begin(&*self.watch, format!("check {}", manifest.label));
                let same = tree::content(path, &is_manifest).is_ok_and(|content| content == manifest.content);
                drop(work);
                if same {
                    self.write_manifest(
                        path,
                        &Manifest { stamp: tree::stamp(path, &is_manifest)?, ..manifest },
                    )?;
                    return Ok(Some(entry));
                }
                self.warn(format!("cached `{}` was altered: it is discarded and made anew", manifest.label));
            }
            Found::Broken => {
                self.warn(format!(
                    "cached `{}` is incomplete: it is discarded and made anew",
                    path.display()
                ));
            }
        }
        self.discard(path)?;
        Ok(None)
    }

    fn make<E: std::error::Error + From<Error> + Send + Sync + 'static>(
        &self,
        path: &Path,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Entry, E> {
        let mut temp = self.scratch().map_err(Error::Io)?;
        if let Err(error) = make(&temp.path) {
            return Err(match self.is_full(&error) {
                true => self.no_space(key, &temp, error).into(),
                false => error,
            });
        }
        let publish = || {
            let stamp = tree::stamp(&temp.path, &is_manifest)?;
            let content = tree::content(&temp.path, &is_manifest)?;
            self.write_manifest(&temp.path, &Manifest { label: key.label().to_owned(), stamp, content })?;
            fs::rename(&temp.path, path)
        };
        if let Err(error) = publish() {
            return Err(match self.is_full(&error) {
                true => self.no_space(key, &temp, error).into(),
                false => Error::Io(error).into(),
            });
        }
        temp.published = true;
        temp.dir.0.file().lock_shared().map_err(Error::Io)?;
        Ok(Entry { path: path.to_owned(), _in_use: Arc::clone(&temp.dir) })
    }

    /// Whether `error` comes from a full disk: it says so itself, or a program that was run does, in the words of the C
    /// locale's `strerror(ENOSPC)`; or there is next to nothing left.
    fn is_full(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        let says_so = |error: &(dyn std::error::Error + 'static)| {
            use io::ErrorKind::{QuotaExceeded, StorageFull};
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            matches!(kind, Some(StorageFull | QuotaExceeded))
                || error.to_string().contains("No space left on device")
        };
        std::iter::successors(Some(error), |error| error.source()).any(says_so)
            || self.free() < NEXT_TO_NOTHING
    }

    fn free(&self) -> u64 {
        rustix::fs::statvfs(&self.root).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn no_space(
        &self,
        key: &Key,
        temp: &Scratch,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        Error::NoSpace {
            label: key.label().to_owned(),
            root: self.root.clone(),
            takes: tree::disk_usage(&temp.path).unwrap_or(0),
            free: self.free(),
            source: Some(Box::new(source)),
        }
    }

    /// Takes the lock of the entry at `path`.
    fn wait_for_lock(&self, path: &Path, label: &str, cancel: &Cancel) -> Result<Held, Error> {
        let lock_path = lock_path(path);
        let mut waiting = None;
        loop {
            if let Some(lock) = try_lock(&lock_path)? {
                return Ok(lock);
            }
            waiting.get_or_insert_with(|| {
                Work::begin(&*self.watch, format!("wait for `{label}`, which another run is making"))
            });
            // flock(2) cannot be waited for together with a descriptor, so the lock is tried now and then.
            let pause = Timespec { tv_sec: 0, tv_nsec: 30_000_000 };
            let mut fds = [PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN)];
            if poll(&mut fds, Some(&pause)).is_ok_and(|ready| ready > 0) {
                return Err(Error::Cancelled);
            }
        }
    }

    /// Takes an entry away. It is renamed first, so that nobody meets half of it.
    fn discard(&self, path: &Path) -> io::Result<()> {
        let temp = self.scratch()?;
        fs::rename(path, temp.path.join("discarded"))
    }

    fn write_manifest(&self, entry: &Path, manifest: &Manifest) -> io::Result<()> {
        let temp = self.scratch()?;
        let new = temp.path.join(MANIFEST);
        fs::write(&new, serde_json::to_vec_pretty(manifest)?)?;
        fs::rename(new, entry.join(MANIFEST))
    }

    fn warn(&self, text: String) {
        self.watch.work(WorkEvent::Warning(text));
    }
}

fn lock_path(entry: &Path) -> PathBuf {
    entry.with_extension("lock")
}

/// Notes that an entry is used now.
fn mark_used(entry: &Path) {
    // The time serves the listing alone.
    let lock = fs::File::options().write(true).open(lock_path(entry));
    let _ = lock.and_then(|file| file.file().set_modified(SystemTime::now()));
}

fn is_manifest(path: &Path) -> bool {
    path.as_os_str() == MANIFEST
}

fn read_manifest(entry: &Path) -> io::Result<Manifest> {
    Ok(serde_json::from_slice(&fs::read(entry.join(MANIFEST))?)?)
}

fn subdirectories(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
