//! Kernels of the user's own: a tree that was built, or files.

mod files;
mod store;
mod tree;
mod values;

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

pub use self::files::KernelFiles;
pub(super) use self::store::Stored;
pub use self::tree::KernelTree;
pub(super) use self::values::values;
use super::compiler;
use super::depmod::ModInfo;
use super::kconfig::{Fragment, KernelConfig};
use crate::arch::Arch;
use crate::process::{self, shell_quote};

/// The environment variable that names a kernel tree, as `--kernel-tree` does.
pub const TREE: &str = "KMODLAB_KERNEL_TREE";

/// Why a kernel of the user's own cannot be used: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such directory or file.
    #[error("there is no {what} `{}`", path.display())]
    Missing {
        /// What it was to be.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A directory is no kernel tree.
    #[error(
        "`{}` is no kernel tree: it has neither a `.config` nor the kernel's `Kconfig`\n\
         name the folder that the kernel is built in, which is that of `O=` if it has one",
        .0.display()
    )]
    NoTree(PathBuf),
    /// A tree has no configuration.
    #[error(
        "the kernel tree `{}` has no `.config`\n\
         where it is built elsewhere, name that folder (that of `O=`); else configure it first",
        .0.display()
    )]
    NotConfigured(PathBuf),
    /// A tree is not built, or not all of it.
    #[error(
        "the kernel tree `{}` is not built: it has no `{missing}`\n\
         run `make {targets}` there, or add `--build`",
        dir.display()
    )]
    NotBuilt {
        /// The tree.
        dir: PathBuf,
        /// What there is not.
        missing: String,
        /// What to make.
        targets: String,
    },
    /// A tree does not build.
    #[error("the kernel tree `{}` does not build", dir.display())]
    Build {
        /// The tree.
        dir: PathBuf,
        /// What `make` says.
        #[source]
        source: process::Error,
    },
    /// There is no compiler for it.
    #[error(transparent)]
    Compiler(#[from] compiler::Missing),
    /// The configuration is for an architecture that is not in the table.
    #[error("`{}` is for an architecture that kmodlab does not know: known are {known}", config.display(), known = known())]
    UnknownArch {
        /// The configuration's file.
        config: PathBuf,
    },
    /// Two parts are of different architectures.
    #[error("`{}` is for {found}, but `{}` is for {wanted}", file.display(), of.display())]
    OtherArch {
        /// The one.
        file: PathBuf,
        /// What it is for.
        found: String,
        /// The other.
        of: PathBuf,
        /// What that is for.
        wanted: Arch,
    },
    /// Two parts are of different releases.
    #[error("`{}` is of release {found}, but the kernel `{}` is {wanted}\n{remedy}", path.display(), kernel.display())]
    OtherRelease {
        /// What is of another release.
        path: PathBuf,
        /// That release.
        found: String,
        /// The kernel.
        kernel: PathBuf,
        /// Its release.
        wanted: String,
        /// What to do.
        remedy: String,
    },
    /// A file is no kernel.
    #[error("`{}` is no kernel that kmodlab can boot: {why}", file.display())]
    NoKernel {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel's configuration is not to be found.
    #[error(
        "the configuration of `{}` is not to be found\n\
         name the kernel's headers with `--headers`, or put the configuration beside it as `config-{release}`",
        kernel.display()
    )]
    NoConfig {
        /// The kernel.
        kernel: PathBuf,
        /// Its release.
        release: String,
    },
    /// A directory has no modules of the kernel.
    #[error("`{}` has no modules: name a directory such as `/lib/modules/{release}`", dir.display())]
    NoModules {
        /// The directory.
        dir: PathBuf,
        /// The kernel's release.
        release: String,
    },
    /// A directory has no headers of a kernel.
    #[error(
        "`{}` has no `include/generated/utsrelease.h`, so that it is no folder that modules are built against\n\
         name a built tree, or unpacked headers such as `/usr/src/linux-headers-{release}`",
        dir.display()
    )]
    NoHeaders {
        /// The directory.
        dir: PathBuf,
        /// The kernel's release.
        release: String,
    },
    /// The kernel lacks what no guest comes up without.
    #[error(
        "the kernel {release} lacks options that no guest comes up without: add to its .config\n{}\n\
         `kmodlab kconfig {arch}` prints all that guests and scenarios use",
        indented(lines)
    )]
    MissingOptions {
        /// The kernel's release.
        release: String,
        /// Its architecture.
        arch: Arch,
        /// The lines that its configuration lacks.
        lines: Vec<String>,
    },
    /// A file or directory cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether another kernel has to be named: this one is not merely not built, or not anew.
    pub fn is_usage(&self) -> bool {
        !matches!(
            self,
            Error::NotBuilt { .. }
                | Error::Build { .. }
                | Error::Compiler(_)
                | Error::OtherRelease { .. }
                | Error::MissingOptions { .. }
                | Error::Io(_)
        )
    }
}

/// A list of lines below a sentence.
fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn known() -> String {
    Arch::all().map(|arch| arch.name).collect::<Vec<_>>().join(", ")
}

/// A kernel that the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnKernel {
    /// A tree that was built.
    Tree(KernelTree),
    /// Files.
    Files(KernelFiles),
}

impl OwnKernel {
    /// The kernel that the environment names; `None` where it names none.
    pub fn from_env() -> Option<Self> {
        let dir = std::env::var_os(TREE).filter(|dir| !dir.is_empty())?;
        Some(OwnKernel::Tree(KernelTree::new(dir)))
    }

    /// The name of its image.
    pub fn image_name(&self) -> &'static str {
        match self {
            OwnKernel::Tree(_) => "tree",
            OwnKernel::Files(_) => "kernel",
        }
    }

    /// The arguments of `kmodlab` that name it.
    pub fn arguments(&self) -> String {
        let named = |flag: &str, path: &Path| format!("{flag} {}", shell_quote(&path.to_string_lossy()));
        match self {
            OwnKernel::Tree(tree) => named("--kernel-tree", tree.dir()),
            OwnKernel::Files(files) => {
                let more = [("--modules", &files.modules), ("--headers", &files.headers)];
                let more = more.iter().filter_map(|(flag, path)| Some(named(flag, path.as_deref()?)));
                std::iter::once(named("--kernel", &files.kernel)).chain(more).collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Looks at it.
    ///
    /// # Errors
    ///
    /// Where something is missing, or its parts do not belong together.
    pub fn find(&self) -> Result<Found, Error> {
        match self {
            OwnKernel::Tree(tree) => tree.find(),
            OwnKernel::Files(files) => files.find(),
        }
    }
}

/// A kernel of the user's own, found: its parts, and what they say of themselves.
#[derive(Debug, Clone)]
pub struct Found {
    /// The architecture.
    pub arch: Arch,
    /// The release, as `uname -r` says it.
    pub release: String,
    /// The file to boot.
    pub boot_file: PathBuf,
    /// The configuration.
    pub config: String,
    /// Where the modules' paths begin.
    pub modules_dir: PathBuf,
    /// The modules, each by its path below [`Found::modules_dir`].
    pub modules: Vec<PathBuf>,
    /// The text of `modules.builtin`.
    pub builtin: String,
    /// The headers, for `make -C`.
    pub headers: Option<PathBuf>,
    /// The sources, where they are at hand.
    pub sources: Option<PathBuf>,
}

impl Found {
    /// The configuration.
    pub fn kernel_config(&self) -> KernelConfig {
        KernelConfig::parse(&self.config)
    }

    /// Looks for options that every guest needs.
    ///
    /// # Errors
    ///
    /// Where some are missing.
    pub fn check_options(&self) -> Result<(), Error> {
        let lines = Fragment::agent().missing(&self.kernel_config());
        match lines.is_empty() {
            true => Ok(()),
            false => Err(Error::MissingOptions { release: self.release.clone(), arch: self.arch, lines }),
        }
    }

    /// What to tell of options that scenarios are about and that it lacks. The drivers of the channel have a substitute.
    pub fn advice(&self) -> Option<String> {
        let mut lines = Fragment::subject().missing(&self.kernel_config());
        lines.retain(|line| !line.starts_with("CONFIG_VIRTIO"));
        (!lines.is_empty()).then(|| {
            format!(
                "the kernel {} lacks options that scenarios are about: add to its .config\n{}\n\
                 `kmodlab kconfig {}` prints all that scenarios use",
                self.release,
                indented(&lines),
                self.arch
            )
        })
    }
}

/// The release that modules built against a directory are for: `UTS_RELEASE` of its `include/generated/utsrelease.h`.
/// `include/config/kernel.release` is not it where a distribution sets `KERNELRELEASE`.
fn headers_release(dir: &Path) -> io::Result<Option<String>> {
    let text = read_if_there(&dir.join("include/generated/utsrelease.h"))?;
    Ok(text.and_then(|text| Some(text.split('"').nth(1)?.to_owned())))
}

/// The release that a module's file says it is for.
fn module_release(file: &Path) -> io::Result<Option<String>> {
    let elf = super::depmod::decompress(fs::read(file)?)?;
    let magic = ModInfo::of(&elf).and_then(|info| info.vermagic);
    Ok(magic.and_then(|magic| magic.split_whitespace().next().map(str::to_owned)))
}

fn read_if_there(file: &Path) -> io::Result<Option<String>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn expect_dir(what: &'static str, path: &Path) -> Result<(), Error> {
    if path.is_dir() { Ok(()) } else { Err(Error::Missing { what, path: path.to_owned() }) }
}
