//! Which lines the guest's kernel executed: how often each, where it counts, or what kcov saw.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use fs_err as fs;

use super::Session;
use crate::arch::Arch;
use crate::coverage::{self, Coverage, Notes};
use crate::error::chain;
use crate::guest::proto::{FileKind, WriteMode};
use crate::guest::{self, Errno, Guest};
use crate::image::cache::Cache;
use crate::image::kconfig::KernelConfig;
use crate::image::prepare::Prepared;
use crate::module::{COUNT_LINES, COVER_LINES, NoLines};
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

/// Why what kcov saw may not be all.
pub(super) const OVERRUN: &str =
    "more was executed in one go, or by more programs at once, than kcov had room for";

/// How a kernel says what it executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It counts (`CONFIG_GCOV_KERNEL`).
    Gcov,
    /// It tells of each task (`CONFIG_KCOV`).
    Kcov,
}

/// Why there are no counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The kernel does not count.
    #[error(
        "the kernel counts no lines, for want of CONFIG_GCOV_KERNEL or CONFIG_KCOV, so that `--coverage-dir` has nothing to tell\n\
         `kmodlab kernel build linux-source --arch {arch}` builds one that does; of your own, add CONFIG_GCOV_KERNEL=y or CONFIG_KCOV=y to \
         its .config, and name the tree that it is built in with `--kernel-tree`"
    )]
    Option { arch: &'static str },
    /// Another compiler's counts.
    #[error("the kernel was compiled by clang; `--coverage-dir` reads the counts of gcc's kernels only")]
    Clang,
    /// The kernel is somewhere else than it was linked to, and there is no telling where.
    #[error(
        "CONFIG_RANDOMIZE_BASE puts the kernel to a place that kcov does not tell, and the kernel's tree has no System.map\n\
         build the kernel in the tree that `--kernel-tree` names, or build it without CONFIG_RANDOMIZE_BASE"
    )]
    NoMap,
    /// The guest, or the tree, does not say where the kernel begins.
    #[error(
        "System.map in the kernel's tree, or /proc/kallsyms in the guest, does not say where the kernel's code begins"
    )]
    NoBeginning,
    /// The guest failed.
    #[error(transparent)]
    Guest(#[from] guest::Error),
    /// The guest failed, or refused.
    #[error("{0}")]
    Session(String),
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
    /// A module's file is damaged.
    #[error("cannot read a module's file: {0}")]
    Elf(#[from] object::Error),
    #[error(transparent)]
    NoLines(#[from] NoLines),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Way {
    /// That of an image's kernel.
    pub(super) fn of(image: &Prepared) -> Result<Self, Error> {
        Way::chosen(&image.config, image.spec.arch)
    }

    /// Where a kernel has both, gcov says more.
    fn chosen(config: &KernelConfig, arch: Arch) -> Result<Self, Error> {
        let [gcov, kcov, clang] = ["GCOV_KERNEL", "KCOV", "CC_IS_CLANG"].map(|name| config.is_set(name));
        match (gcov, kcov) {
            (true, _) if !clang => Ok(Way::Gcov),
            (_, true) => Ok(Way::Kcov),
            (true, false) => Err(Error::Clang),
            (false, false) => Err(Error::Option { arch: arch.name }),
        }
    }

    /// The variable of kbuild's that has it compile a module for this.
    pub(super) fn variable(self) -> &'static str {
        match self {
            Way::Gcov => COUNT_LINES,
            Way::Kcov => COVER_LINES,
        }
    }
}

/// Has the kernel tell of what it executes from now on.
pub(super) fn begin(session: &mut Session) -> Result<(), String> {
    let begun = match session.material().way() {
        Ok(Way::Gcov) => reset(session.guest()),
        Ok(Way::Kcov) => session.start_cover(),
        Err(error) => Err(error),
    };
    begun.map_err(|error| chain(&error))
}

/// What the guest's kernel and modules have executed since, as a case's, and whether that is all.
pub(super) fn collect(
    session: &mut Session,
    case: &str,
    cache: &Cache,
    cancel: &Cancel,
) -> Result<(Coverage, bool), Error> {
    match session.material().way()? {
        Way::Gcov => Ok((counted(session, case, cache, cancel)?, true)),
        Way::Kcov => session.covered(case),
    }
}

/// Has the kernel count from nothing.
fn reset(guest: &mut Guest) -> Result<(), Error> {
    let path = format!("{DIR}/reset");
    let answer = guest.write_file(&path, WriteMode::Truncate, 0o600, b"1")?;
    answer.map_err(|errno| Error::Refused { path, errno })
}

/// What the guest's kernel and modules have counted. Of objects whose notes are not at hand, nothing is told.
fn counted(session: &mut Session, case: &str, cache: &Cache, cancel: &Cancel) -> Result<Coverage, Error> {
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
    Ok(coverage::read(case, &printed, &|ran_in, file| notes.origin.source(ran_in, file))?)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::counts("CONFIG_GCOV_KERNEL=y\n", Ok(Way::Gcov))]
    #[case::both("CONFIG_GCOV_KERNEL=y\nCONFIG_KCOV=y\n", Ok(Way::Gcov))]
    #[case::sees("CONFIG_KCOV=y\n", Ok(Way::Kcov))]
    #[case::sees_under_clang("CONFIG_KCOV=y\nCONFIG_CC_IS_CLANG=y\n", Ok(Way::Kcov))]
    #[case::both_under_clang("CONFIG_GCOV_KERNEL=y\nCONFIG_KCOV=y\nCONFIG_CC_IS_CLANG=y\n", Ok(Way::Kcov))]
    #[case::counts_under_clang("CONFIG_GCOV_KERNEL=y\nCONFIG_CC_IS_CLANG=y\n", Err("clang"))]
    #[case::nothing("# CONFIG_KCOV is not set\n", Err("CONFIG_GCOV_KERNEL or CONFIG_KCOV"))]
    fn a_kernels_way_is_that_of_its_options(#[case] config: &str, #[case] expected: Result<Way, &str>) {
        let arch = "x86_64".parse().unwrap();
        let found = Way::chosen(&KernelConfig::parse(config), arch);
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }
}
