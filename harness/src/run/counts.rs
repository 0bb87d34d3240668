//! How often the guest's kernel executed each line, where it counts.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use fs_err as fs;

use super::Session;
use crate::coverage::{self, Coverage, Notes};
use crate::error::chain;
use crate::guest::proto::{FileKind, WriteMode};
use crate::guest::{self, Errno, Guest};
use crate::image::cache::Cache;
use crate::image::prepare::Prepared;
use crate::process::Command;
use crate::work::Cancel;

/// Where the kernel shows its counts (`kernel/gcov/fs.c`).
const DIR: &str = "/sys/kernel/debug/gcov";
/// The greatest file of counts that is read, in bytes: the counts of the biggest object of a kernel take some 200 KB.
const FILE_LIMIT: u64 = 16 << 20;
/// So many objects have their counts read: an `allyesconfig` has some 30 000.
const OBJECTS: usize = 1 << 16;
/// So many objects are handed to one gcov, whose arguments must fit execve(2).
const AT_ONCE: usize = 1000;

/// Why there are no counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The kernel does not count.
    #[error(
        "the kernel counts no lines, for want of CONFIG_GCOV_KERNEL, so that `--coverage-dir` has nothing to tell\n\
         `kmodlab kernel build linux-source --arch {arch}` builds one that does; of your own, add CONFIG_GCOV_KERNEL=y to its .config, and \
         name the tree that it is built in with `--kernel-tree`"
    )]
    Option { arch: &'static str },
    /// Another compiler's counts.
    #[error("the kernel was compiled by clang; `--coverage-dir` reads the counts of gcc's kernels only")]
    Clang,
    /// The guest failed.
    #[error(transparent)]
    Guest(#[from] guest::Error),
    /// The guest refused.
    #[error("`{path}` in the guest: {errno}")]
    Refused { path: String, errno: Errno },
    /// There are more objects than can be.
    #[error("the guest lists more than {OBJECTS} objects")]
    TooMany,
    /// gcov cannot be used.
    #[error(transparent)]
    Process(#[from] crate::process::Error),
    #[error(transparent)]
    Compiler(#[from] crate::image::compiler::Missing),
    #[error(transparent)]
    Unreadable(#[from] coverage::Unreadable),
    /// A file cannot be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Whether an image's kernel counts.
pub(super) fn check(image: &Prepared) -> Result<(), Error> {
    match (image.config.is_set("GCOV_KERNEL"), image.config.is_set("CC_IS_CLANG")) {
        (false, _) => Err(Error::Option { arch: image.spec.arch.name }),
        (true, true) => Err(Error::Clang),
        (true, false) => Ok(()),
    }
}

/// Has the kernel count from nothing.
pub(super) fn reset(guest: &mut Guest) -> Result<(), String> {
    let path = format!("{DIR}/reset");
    match guest.write_file(&path, WriteMode::Truncate, 0o600, b"1") {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errno)) => Err(chain(&Error::Refused { path, errno })),
        Err(error) => Err(chain(&error)),
    }
}

/// What the guest's kernel and modules have counted since, as a case's. Of objects whose notes are not at hand, nothing is told.
pub(super) fn collect(
    session: &mut Session,
    case: &str,
    cache: &Cache,
    cancel: &Cancel,
) -> Result<Coverage, Error> {
    let notes = session.material().notes(cancel)?;
    let paths = objects(session.guest())?;
    let known = paths.iter().filter_map(|path| Some((path, Notes::find(&notes, path)?)));
    let (paths, found): (Vec<String>, Vec<_>) =
        known.map(|(path, found)| (format!("{DIR}/{path}"), found)).unzip();
    let counts = session.guest().read_files(&paths, FILE_LIMIT)?;
    let work = cache.scratch()?;
    // What one gcov reads of one folder of notes has its sources resolved alike.
    let mut objects: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (number, ((path, found), counts)) in paths.into_iter().zip(found).zip(counts).enumerate() {
        let counts = counts.map_err(|errno| Error::Refused { path, errno })?;
        let object = format!("{number}.gcda");
        fs::write(work.join(&object), counts)?;
        symlink(&found.file, work.join(format!("{number}.gcno")))?;
        let of = notes.iter().position(|notes| std::ptr::eq(notes, found.notes)).unwrap_or_default();
        objects.entry(of).or_default().push(object);
    }
    let mut coverage = Coverage::default();
    for (of, objects) in objects {
        let Some(notes) = notes.get(of) else { continue };
        for some in objects.chunks(AT_ONCE) {
            coverage.add(read(case, notes, some, &work, cancel)?);
        }
    }
    Ok(coverage)
}

/// The objects whose counts the guest shows, by their paths below [`DIR`].
fn objects(guest: &mut Guest) -> Result<Vec<String>, Error> {
    let (mut found, mut folders, mut seen) = (Vec::new(), vec![String::new()], 0);
    while let Some(folder) = folders.pop() {
        let path = format!("{DIR}/{folder}");
        let listed = guest.list(&path)?.map_err(|errno| Error::Refused { path, errno })?;
        for entry in listed {
            // A path that is not UTF-8 has no notes either.
            let name = format!("{folder}{}", String::from_utf8_lossy(&entry.name));
            match entry.kind {
                FileKind::Directory => folders.push(format!("{name}/")),
                _ if name.ends_with(".gcda") => found.push(name),
                _ => continue,
            }
            seen += 1;
            if seen > OBJECTS {
                return Err(Error::TooMany);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(
    case: &str,
    notes: &Notes,
    objects: &[String],
    dir: &Path,
    cancel: &Cancel,
) -> Result<Coverage, Error> {
    let mut gcov = Command::new(&notes.gcov);
    gcov.dir(dir).args(["--json-format", "--stdout", "--branch-probabilities"]).args(objects);
    let printed = gcov.check(cancel)?.stdout;
    Ok(coverage::read(case, &printed, &|ran_in, file| notes.source(ran_in, file))?)
}
