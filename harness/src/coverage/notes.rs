//! The files that gcc leaves for gcov beside objects, and the sources that they are of.

use std::path::{Component, Path, PathBuf};

/// A folder with `.gcno` files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notes {
    /// The folder.
    pub dir: PathBuf,
    /// The gcov that belongs to the compiler.
    pub gcov: String,
    /// What they are of.
    pub origin: Origin,
}

/// What was compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A kernel's tree, in which it was built.
    Kernel,
    /// A test module, built in a copy of its folder.
    Module {
        /// Its name, which the copy had.
        name: String,
        /// Its folder.
        dir: PathBuf,
    },
}

/// The notes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// The folder.
    pub notes: &'a Notes,
    /// The file.
    pub file: PathBuf,
}

impl Notes {
    /// The notes of the object whose counts the kernel shows at `path` below `/sys/kernel/debug/gcov`, which is the path at
    /// which it was compiled: the folder may have been moved since, so that the longest end of the path that leads to a file counts.
    /// The path is the guest's word, and leads nowhere but to `.gcno` files in these folders.
    pub fn find<'a>(all: &'a [Notes], path: &str) -> Option<Found<'a>> {
        let stem = path.strip_suffix(".gcda")?;
        let parts: Vec<&str> = stem.split('/').filter(|part| !part.is_empty()).collect();
        let is_plain = |part: &&str| !matches!(*part, "." | "..") && !part.contains('\0');
        if !parts.iter().all(is_plain) {
            return None;
        }
        (0..parts.len()).find_map(|start| {
            let end = format!("{}.gcno", parts.get(start..)?.join("/"));
            all.iter().find_map(|notes| {
                let file = notes.dir.join(&end);
                file.is_file().then_some(Found { notes, file })
            })
        })
    }
}

impl Origin {
    /// The path of a source file, from the folder that the compiler ran in, and from what it was called there.
    pub fn source(&self, ran_in: &Path, file: &Path) -> PathBuf {
        let as_noted = normal(&ran_in.join(file));
        let Origin::Module { name, dir } = self else { return as_noted };
        let file = normal(file);
        let in_copy = match file.strip_prefix(name) {
            Ok(below) => dir.join(below),
            // Beside it lie the headers that test modules share.
            Err(_) => dir.parent().unwrap_or(dir).join(&file),
        };
        if file.is_relative() && in_copy.is_file() { in_copy } else { as_noted }
    }
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}
