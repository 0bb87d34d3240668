//! Kernels and userland that are built from source: from Debian's packages of sources, or a kernel's own tree.
//!
//! A kernel has the options of the fragments in `images/kconfig` and no others, so that it is built in minutes. What was built is a cache
//! entry that holds what the harness uses of it; the folder that it was built in goes.

mod busybox;
mod headers;
mod kernel;
mod tools;

use std::io;
use std::path::PathBuf;

pub(super) use self::kernel::progress;
pub use self::tools::{MissingTool, missing_tools};
use super::cache::{self, Cache, Entry};
use super::compiler;
use super::debian;
use super::kconfig::Dropped;
use crate::arch::Arch;
use crate::process;
use crate::work::{Cancel, Watch};

/// How something could not be built from source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no compiler.
    #[error(transparent)]
    Compiler(#[from] compiler::Missing),
    /// A program or a library is not installed.
    #[error(transparent)]
    Tool(#[from] MissingTool),
    /// The sources could not be had.
    #[error(transparent)]
    Debian(#[from] debian::Error),
    /// The folder is no kernel's source.
    #[error("`{}` has no kernel's sources: there is no `{missing}` in it", dir.display())]
    NoTree {
        /// The folder.
        dir: PathBuf,
        /// What would be in it.
        missing: &'static str,
    },
    /// Options that the fragments ask for are not in the configuration that was made from them.
    #[error(
        "the configuration of {label} is not as its fragments say, so that the kernel would lack something:\n  {}\n\
         an option that depends on another drops out without it, and so does one that this kernel does not know",
        dropped.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    Dropped {
        /// What was to be built.
        label: String,
        /// The options.
        dropped: Vec<Dropped>,
    },
    /// It does not build.
    #[error("{label} does not build")]
    Build {
        /// What was to be built.
        label: String,
        /// What `make` says.
        #[source]
        source: process::Error,
    },
    /// The build ended well, but something that belongs to it is not there.
    #[error("the build of {label} made no `{file}`")]
    NotMade {
        /// What was built.
        label: String,
        /// What is missing.
        file: String,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// Files could not be read or written.
    #[error("cannot build from source")]
    Io(#[from] io::Error),
}

/// A kernel that was built: an entry that holds `kernel` (the boot file), `config`, `release`, `modules/` as
/// [`debian::Kernel`] has them, and `headers/`, for `make -C`.
#[derive(Debug)]
pub struct Kernel {
    /// The entry.
    pub entry: Entry,
}

impl Kernel {
    /// What modules are built against.
    pub fn headers(&self) -> PathBuf {
        self.entry.join(headers::DIR)
    }
}

/// Builds for one architecture, each thing once.
pub struct Builder<'a> {
    cache: &'a Cache,
    arch: Arch,
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
}

impl<'a> Builder<'a> {
    /// A builder whose results are kept in `cache`.
    pub fn new(cache: &'a Cache, arch: Arch, watch: &'a dyn Watch, cancel: &'a Cancel) -> Self {
        Builder { cache, arch, watch, cancel }
    }

    /// What a failed program means for what `label` names.
    fn failed(&self, label: &str) -> impl FnOnce(process::Error) -> Error {
        let label = label.to_owned();
        |error| match error {
            process::Error::Cancelled => Error::Cache(cache::Error::Cancelled),
            source => Error::Build { label, source },
        }
    }
}

/// How many compilers run at once.
pub(super) fn jobs() -> String {
    format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from))
}
