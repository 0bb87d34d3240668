//! A kernel of the user's own, put where the rest of the harness finds it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Found;
use crate::image::cache::{Cache, Entry, KeyBuilder};
use crate::image::depmod::{self, Index, ModInfo};
use crate::image::{kernel, prepare};
use crate::work::{Cancel, Watch, Work};

/// What builds of modules read of a tree, besides single files: thousands of headers, and kbuild itself.
const HEADERS: [&str; 3] = ["include", "arch", "scripts"];

/// The parts of a kernel of the user's own, in the cache.
pub(in crate::image) struct Stored {
    /// Holds `kernel`, `config` and `release`: copies, so that a build of the tree does not disturb a run.
    pub(in crate::image) kernel: Entry,
    /// Holds what depmod would write: `modules.dep`, `modules.builtin` and `modules.alias`.
    pub(in crate::image) index: Entry,
    /// Changes with the headers.
    pub(in crate::image) headers_key: Option<String>,
}

impl Stored {
    /// Puts a kernel into the cache.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read, or the boot file is of another release than the rest: it was not built with it.
    pub(in crate::image) fn new(
        found: &Found,
        cache: &Cache,
        watch: &dyn Watch,
        cancel: &Cancel,
    ) -> Result<Self, prepare::Error> {
        Ok(Stored {
            kernel: boot_file(found, cache, cancel)?,
            index: index(found, cache, watch, cancel)?,
            headers_key: found.headers.as_deref().map(headers_key).transpose()?,
        })
    }
}

fn boot_file(found: &Found, cache: &Cache, cancel: &Cancel) -> Result<Entry, prepare::Error> {
    let label = format!("kernel {} of {}", found.release, found.boot_file.display());
    let key = KeyBuilder::new(label)
        .part("source", "own kernel")
        .file("kernel", &found.boot_file)?
        .part("config", &found.config)
        .part("release", &found.release)
        .finish();
    cache.entry("kernels", &key, cancel, |dir| {
        let kernel = fs::read(&found.boot_file)?;
        let release = kernel::boot_release(&kernel);
        if let Some(release) = release.filter(|release| *release != found.release) {
            return Err(prepare::Error::Own(super::Error::OtherRelease {
                remedy: "build the tree: its configuration or its sources are newer than its kernel"
                    .to_owned(),
                path: found.modules_dir.clone(),
                found: found.release.clone(),
                kernel: found.boot_file.clone(),
                wanted: release,
            }));
        }
        fs::write(dir.join("kernel"), kernel)?;
        fs::write(dir.join("config"), &found.config)?;
        Ok(fs::write(dir.join("release"), &found.release)?)
    })
}

fn index(found: &Found, cache: &Cache, watch: &dyn Watch, cancel: &Cancel) -> Result<Entry, prepare::Error> {
    let mut key = KeyBuilder::new(format!("modules of {} in {}", found.release, found.modules_dir.display()))
        .part("source", "own modules")
        .part("builtin", &found.builtin);
    for module in &found.modules {
        key = stat(key, &found.modules_dir, module)?;
    }
    cache.entry("modules", &key.finish(), cancel, |dir| {
        let _work = Work::begin(watch, format!("index the modules of {}", found.release));
        let mut index = Index::default();
        for module in &found.modules {
            let elf = depmod::decompress(fs::read(found.modules_dir.join(module))?)?;
            index.add(&module.to_string_lossy(), ModInfo::of(&elf).unwrap_or_default());
        }
        fs::write(dir.join("modules.dep"), index.dep())?;
        fs::write(dir.join("modules.alias"), index.alias())?;
        Ok(fs::write(dir.join("modules.builtin"), &found.builtin)?)
    })
}

/// Stands for what modules are built against. By what stat(2) says, since a tree's headers are many; `touch` is thus a
/// change, but no change goes unseen.
fn headers_key(dir: &Path) -> io::Result<String> {
    let mut key = KeyBuilder::new("headers");
    let sources = dir.join("source");
    for root in [dir, sources.as_path()].into_iter().filter(|root| root.is_dir()) {
        for file in ["Makefile", "Module.symvers", ".config"].map(Path::new) {
            if root.join(file).is_file() {
                key = stat(key, root, file)?;
            }
        }
        let mut pending: Vec<PathBuf> = HEADERS.map(PathBuf::from).into();
        while let Some(below) = pending.pop() {
            // A folder that is not there has nothing; `scripts` of packaged headers is a link.
            let Ok(entries) = fs::read_dir(root.join(&below)) else { continue };
            let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort();
            for path in names.iter().map(|name| below.join(name)) {
                let kind = fs::symlink_metadata(root.join(&path))?.file_type();
                if kind.is_dir() && may_hold_headers(&path) {
                    pending.push(path);
                } else if kind.is_file() && is_read_by_modules(&path) {
                    key = stat(key, root, &path)?;
                }
            }
        }
    }
    Ok(key.finish().to_string())
}

/// Of `arch/X`, only `include` has headers for modules; `include/config` has a file for each option, which `autoconf.h` has
/// in one.
fn may_hold_headers(dir: &Path) -> bool {
    let parts: Vec<_> = dir.iter().map(|part| part.to_string_lossy()).collect();
    match parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
        ["include", "config"] => false,
        ["arch", _, below, ..] => below == "include",
        _ => true,
    }
}

fn is_read_by_modules(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.extension().is_some_and(|extension| ["h", "lds", "S"].iter().any(|kind| extension == *kind))
        || ["Makefile", "Kbuild"].iter().any(|kind| name.starts_with(kind))
        || ["modpost", "fixdep", "objtool"].contains(&&*name)
}

fn stat(key: KeyBuilder, root: &Path, file: &Path) -> io::Result<KeyBuilder> {
    let meta = fs::metadata(root.join(file))?;
    let what = format!("{} {}.{}", meta.len(), meta.mtime(), meta.mtime_nsec());
    Ok(key.part(&file.to_string_lossy(), what))
}
