//! Building modules out of tree, against a kernel's headers, once.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::source::INCLUDE;
use super::{Error, Source, Sources};
use crate::arch::Arch;
use crate::image::cache::{Cache, Entry, Key, KeyBuilder};
use crate::image::compiler::Compiler;
use crate::process::{self, Command};
use crate::work::{Cancel, Watch, Work};

/// The option of the compiler that shortens paths in what it writes.
const PATHS: &str = "-ffile-prefix-map=";

/// The kind of cache entry that holds a built module.
const KIND: &str = "module";

/// The folder of a built module's entry that holds what gcc noted for gcov.
const NOTES: &str = "notes";

/// Has kbuild compile a module so that it counts its lines, where the kernel has `CONFIG_GCOV_KERNEL`
/// (`scripts/Makefile.lib`).
pub const COUNT_LINES: &str = "GCOV_PROFILE=y";

/// Has kbuild compile a module so that kcov sees it, where the kernel has `CONFIG_KCOV` (`scripts/Makefile.lib`); with
/// `CONFIG_KCOV_INSTRUMENT_ALL` it would be anyway.
pub const COVER_LINES: &str = "KCOV_INSTRUMENT=y";

/// A kernel's build tree, as modules see it.
#[derive(Debug, Clone)]
pub struct Headers {
    /// The directory for `make -C`.
    pub dir: PathBuf,
    /// What stands for the tree's content in keys of the cache.
    pub key: String,
    /// The architecture.
    pub arch: Arch,
    /// The image's name, for messages.
    pub image: String,
    /// Variables for `make`'s command line that this tree needs.
    pub variables: Vec<String>,
}

/// A built module.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its name.
    pub name: String,
    /// The folder of its sources.
    pub dir: PathBuf,
    entry: Entry,
}

impl Built {
    /// The module, without debug information: what a guest loads.
    pub fn ko(&self) -> PathBuf {
        self.entry.join(format!("{}.ko", self.name))
    }

    /// The module with its debug information.
    pub fn debug(&self) -> PathBuf {
        self.entry.join(format!("{}.ko.debug", self.name))
    }

    /// What gcc noted for gcov, where the module counts its lines: in a folder of the module's name, a `.gcno` file for each
    /// object.
    pub fn notes(&self) -> PathBuf {
        self.entry.join(NOTES)
    }

    /// The symbols that it exports, as kbuild lists them.
    fn symvers(&self) -> PathBuf {
        self.entry.join("Module.symvers")
    }
}

/// Builds modules for one kernel.
pub struct Builder<'a> {
    cache: &'a Cache,
    headers: Headers,
    compiler: Compiler,
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
}

impl<'a> Builder<'a> {
    /// A builder for the kernel that `headers` belongs to.
    ///
    /// # Errors
    ///
    /// Where there is no compiler for it.
    pub fn new(
        cache: &'a Cache,
        headers: Headers,
        watch: &'a dyn Watch,
        cancel: &'a Cancel,
    ) -> Result<Self, Error> {
        let compiler = Compiler::find(headers.arch, cancel)?;
        Ok(Builder { cache, headers, compiler, watch, cancel })
    }

    /// The module `name`, after the modules it needs, each built where the cache has it not.
    ///
    /// # Errors
    ///
    /// [`Error::Build`] with the compiler's lines, and what else can go wrong on the way.
    pub fn build(&self, sources: &Sources, name: &str) -> Result<Vec<Built>, Error> {
        let mut built: Vec<(Built, Key)> = Vec::new();
        for source in sources.in_order(name)? {
            let needs: Vec<&(Built, Key)> =
                built.iter().filter(|(module, _)| source.needs.contains(&module.name)).collect();
            let module = self.build_one(sources, source, &needs)?;
            built.push(module);
        }
        Ok(built.into_iter().map(|(module, _)| module).collect())
    }

    fn build_one(
        &self,
        sources: &Sources,
        source: &Source,
        needs: &[&(Built, Key)],
    ) -> Result<(Built, Key), Error> {
        let label = format!("{} for {}", source.name, self.headers.image);
        let mut key = KeyBuilder::new(&label)
            .part("headers", &self.headers.key)
            .file("compiler", &self.compiler.program)?
            .part("variables", self.headers.variables.join("\n"))
            .part("kbuild", source.kbuild()?.unwrap_or_default())
            .part("paths", PATHS);
        let include = sources.include().map(|dir| Ok::<_, Error>((files(&dir)?, dir))).transpose()?;
        for (files, dir) in include.into_iter().chain([(files_of(source)?, source.dir.clone())]) {
            for file in files {
                key = key.file(&file.to_string_lossy(), dir.join(&file))?;
            }
        }
        let key = needs.iter().fold(key, |key, (module, of)| key.key(&module.name, of)).finish();
        let make = |dir: &Path| {
            let _work = Work::begin(self.watch, format!("build {label}"));
            self.make(sources, source, needs, dir)
        };
        let entry = self.cache.entry(KIND, &key, self.cancel, make)?;
        Ok((Built { name: source.name.clone(), dir: source.dir.clone(), entry }, key))
    }

    /// Builds in a copy of the sources, since kbuild writes beside them.
    fn make(
        &self,
        sources: &Sources,
        source: &Source,
        needs: &[&(Built, Key)],
        out: &Path,
    ) -> Result<(), Error> {
        let work = tempfile::Builder::new().prefix("build-").tempdir_in(out)?;
        let dir = work.path().join(&source.name);
        copy(&source.dir, &files_of(source)?, &dir)?;
        if let Some(kbuild) = source.kbuild()? {
            fs::write(dir.join("Kbuild"), kbuild)?;
        }
        if let Some(include) = sources.include() {
            copy(&include, &files(&include)?, &work.path().join(INCLUDE))?;
        }
        let symbols: Vec<String> =
            needs.iter().map(|(module, _)| module.symvers().display().to_string()).collect();
        let mut make = Command::new("make");
        make.arg("-C").arg(&self.headers.dir).arg(format!("M={}", dir.display()));
        make.arg(format!("ARCH={}", self.headers.arch.kbuild));
        make.arg(format!("CROSS_COMPILE={}", self.compiler.prefix));
        make.arg(format!("KBUILD_EXTRA_SYMBOLS={}", symbols.join(" ")));
        // The headers of Debian's name the very version of the compiler that built the kernel, and types for BPF need a
        // program (pahole) and the uncompressed kernel.
        make.arg(format!("CC={}gcc", self.compiler.prefix)).arg("CONFIG_DEBUG_INFO_BTF_MODULES=");
        // What the compiler notes of where the sources are is the same wherever they were built.
        make.arg(format!("KCFLAGS={PATHS}{}/=", work.path().display()));
        make.args(&self.headers.variables).args(["W=1", "modules"]);
        make.check(self.cancel).map_err(|error| self.build_error(source, &dir, error))?;
        let built = dir.join(format!("{}.ko", source.name));
        if !built.exists() {
            return Err(Error::NoOutput { module: source.name.clone() });
        }
        let ko = out.join(format!("{}.ko", source.name));
        let mut strip = Command::new(format!("{}strip", self.compiler.prefix));
        strip.arg("--strip-debug").arg("-o").arg(&ko).arg(&built);
        strip.check(self.cancel)?;
        fs::rename(&built, out.join(format!("{}.ko.debug", source.name)))?;
        fs::rename(dir.join("Module.symvers"), out.join("Module.symvers"))?;
        keep_notes(&dir, &out.join(NOTES).join(&source.name))?;
        work.close()?;
        Ok(())
    }

    /// The compiler's lines, with the sources' own paths in them.
    fn build_error(&self, source: &Source, copy: &Path, error: process::Error) -> Error {
        let process::Error::Failed { output, .. } = error else { return error.into() };
        Error::Build {
            module: source.name.clone(),
            image: self.headers.image.clone(),
            output: output.replace(&copy.display().to_string(), &source.dir.display().to_string()),
        }
    }
}

/// The files of a source folder, in order, without what an earlier build in place left there.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = PathBuf::from(entry?.file_name());
        let source = name
            .extension()
            .is_some_and(|extension| extension == "c" || extension == "h" || extension == "S");
        if source || ["Kbuild", "Makefile"].iter().any(|file| name == Path::new(file)) {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

/// The files of a module's sources.
fn files_of(source: &Source) -> Result<Vec<PathBuf>, Error> {
    match &source.file {
        Some(file) => Ok(vec![PathBuf::from(file)]),
        None => files(&source.dir),
    }
}

/// Copies the notes for gcov of a module's objects, but for what kbuild adds to it.
fn keep_notes(from: &Path, to: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, kept) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            keep_notes(&path, &kept)?;
        } else if name.ends_with(".gcno") && !name.ends_with(".mod.gcno") {
            fs::create_dir_all(to)?;
            fs::copy(&path, &kept)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, files: &[PathBuf], to: &Path) -> Result<(), Error> {
    fs::create_dir(to)?;
    for file in files {
        fs::copy(from.join(file), to.join(file))?;
    }
    Ok(())
}
