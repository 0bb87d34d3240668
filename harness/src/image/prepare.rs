//! From image files to files that QEMU can boot.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::cache::{self, Cache, Entry, Key, KeyBuilder};
use super::compiler;
use super::debian::{self, Debian, Package};
use super::depmod::{self, Modules};
use super::kconfig::KernelConfig;
use super::own::{self, OwnKernel, Stored};
use super::parts::Step;
use super::source;
use super::spec::{self, DebianName, ImageSpec, KernelSource, UserlandSource};
use crate::arch::Arch;
use crate::guest::agent::Transport;
use crate::process;
use crate::work::{Cancel, Watch};

/// How an image could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Debian's packages could not be had.
    #[error(transparent)]
    Debian(#[from] debian::Error),
    /// What is built from source could not be built.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// There is no compiler for the agent.
    #[error(transparent)]
    Compiler(#[from] compiler::Missing),
    /// The agent does not compile.
    #[error("cannot compile the guest agent for {arch}\nis the package `{package}` installed?", package = compiler::packages(*arch)[1])]
    Agent {
        /// The architecture.
        arch: Arch,
        /// What the compiler says.
        #[source]
        source: process::Error,
    },
    /// The kernel has no driver for the agent's channels.
    #[error(
        "the kernel {release} has no `{missing}`, which the channels to its guest need\nadd to its .config\n  {line}"
    )]
    NoDriver {
        /// The kernel's release.
        release: String,
        /// The driver that is missing.
        missing: String,
        /// The line that its configuration lacks.
        line: String,
    },
    /// There are no packages for a guest whose userland is not made of packages.
    #[error("`{image}` has its userland from source: Debian has no packages for {arch}")]
    NoPackages {
        /// The image.
        image: String,
        /// The architecture.
        arch: Arch,
    },
    /// A kernel of the user's own cannot be used.
    #[error(transparent)]
    Own(#[from] own::Error),
    /// The kernel's sources are not at hand.
    #[error("the sources of the kernel {release} are not at hand: name its tree with `--kernel-tree`")]
    NoSources {
        /// The kernel's release.
        release: String,
    },
    /// The busybox is none.
    #[error("no applets are found in the image's busybox")]
    NoApplets,
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// Files could not be read or written.
    #[error("cannot prepare the image")]
    Io(#[from] io::Error),
}

/// The project's images and where they are kept once prepared.
#[derive(Debug, Clone)]
pub struct Store {
    images: PathBuf,
    cache: Cache,
}

/// An image ready to boot. While it lives, none of its files is cleaned away.
#[derive(Debug)]
pub struct Prepared {
    /// The image.
    pub spec: ImageSpec,
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    /// The boot file that starts fastest.
    pub kernel: PathBuf,
    /// The boot file as the kernel's source has it. May be the same.
    pub plain_kernel: PathBuf,
    /// The initial RAM file system: busybox, the agent, the modules that its channel needs, and the files of packages.
    pub initramfs: PathBuf,
    /// The kernel's configuration.
    pub config: KernelConfig,
    /// What the channels to its guests go over.
    pub transport: Transport,
    /// Where the paths of the kernel's modules begin.
    pub modules_dir: PathBuf,
    /// Where `modules.dep` and the like are.
    index_dir: PathBuf,
    /// The kernel's headers, where there are any.
    pub headers: Option<HeadersDir>,
    /// The sources of a kernel that is not Debian's, where they are at hand.
    sources: Option<PathBuf>,
    /// The packages that it all came from.
    pub packages: Vec<Package>,
    /// Changes with the kernel and with the initramfs.
    pub key: Key,
    /// Keeps what the paths lead to.
    _entries: Vec<Entry>,
}

/// What modules are built against.
#[derive(Debug, Clone)]
pub struct HeadersDir {
    /// For `make -C`.
    pub dir: PathBuf,
    /// Changes with what is there.
    pub key: String,
}

/// The sources of a kernel. While it lives, they are not cleaned away.
#[derive(Debug)]
pub struct SourcesDir {
    dir: PathBuf,
    _entry: Option<Entry>,
}

impl std::ops::Deref for SourcesDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.dir
    }
}

/// A kernel with what belongs to it, wherever it came from.
pub(super) struct Kernel {
    /// Holds `kernel` (the boot file), `config` and `release`.
    pub(super) kernel: Entry,
    pub(super) modules_dir: PathBuf,
    index_dir: PathBuf,
    headers: Option<HeadersDir>,
    /// The sources, where they are a folder of the user's.
    sources: Option<PathBuf>,
    packages: Vec<Package>,
    /// What the paths lead to.
    entries: Vec<Entry>,
}

impl From<debian::Kernel> for Kernel {
    fn from(debian: debian::Kernel) -> Self {
        let debian::Kernel { kernel, headers, headers_parts, packages } = debian;
        let modules = kernel.join("modules");
        Kernel {
            kernel,
            modules_dir: modules.clone(),
            index_dir: modules,
            headers: Some(HeadersDir { dir: headers.to_path_buf(), key: headers.key().to_owned() }),
            sources: None,
            packages,
            entries: [vec![headers], headers_parts].concat(),
        }
    }
}

impl From<(source::Kernel, Package)> for Kernel {
    fn from((built, package): (source::Kernel, Package)) -> Self {
        let modules = built.entry.join("modules");
        Kernel {
            modules_dir: modules.clone(),
            index_dir: modules,
            headers: Some(HeadersDir { dir: built.headers(), key: built.entry.key().to_owned() }),
            kernel: built.entry,
            sources: None,
            packages: vec![package],
            entries: Vec::new(),
        }
    }
}

impl Prepared {
    /// The kernel's own modules.
    ///
    /// # Errors
    ///
    /// Where their index cannot be read.
    pub fn modules(&self) -> io::Result<Modules> {
        read_modules(&self.index_dir)
    }

    /// One of the kernel's own modules, as the ELF file that `finit_module` takes; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Where its file cannot be read.
    pub fn module(&self, modules: &Modules, name: &str) -> io::Result<Option<Vec<u8>>> {
        modules.path(name).map(|path| depmod::decompress(fs::read(self.modules_dir.join(path))?)).transpose()
    }
}

impl Store {
    /// The images in the directory `images`, kept in `cache`.
    pub fn new(images: impl Into<PathBuf>, cache: Cache) -> Self {
        Store { images: images.into(), cache }
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Every image, by name.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read or says no image.
    pub fn images(&self) -> Result<Vec<ImageSpec>, spec::Error> {
        ImageSpec::read_all(&self.images)
    }

    /// The image of that name.
    ///
    /// # Errors
    ///
    /// As [`Store::images`], and where there is none of that name.
    pub fn image(&self, name: &str) -> Result<ImageSpec, spec::Error> {
        let images = self.images()?;
        let known = images.iter().map(|image| image.name.clone()).collect();
        let unknown = spec::Error::Unknown { name: name.to_owned(), known };
        images.into_iter().find(|image| image.name == name).ok_or(unknown)
    }

    /// Forgets which versions the image's sources were resolved to: the next [`Store::prepare`] asks for the newest.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be written.
    pub fn refresh(&self, spec: &ImageSpec, watch: &dyn Watch, cancel: &Cancel) -> Result<(), Error> {
        Ok(Debian::new(&self.cache, spec.arch, watch, cancel).forget(&spec.kernel, &spec.userland)?)
    }

    /// What the harness uses of the sources of an image's kernel.
    ///
    /// # Errors
    ///
    /// As [`Store::prepare`].
    pub fn sources(&self, image: &Prepared, watch: &dyn Watch, cancel: &Cancel) -> Result<SourcesDir, Error> {
        let suite = match &image.spec.kernel {
            KernelSource::Debian(kernel) => &kernel.suite,
            KernelSource::Source(source) => &source.suite,
            KernelSource::Own(_) => {
                let missing = || Error::NoSources { release: image.release.clone() };
                return Ok(SourcesDir { dir: image.sources.clone().ok_or_else(missing)?, _entry: None });
            }
        };
        let debian = Debian::new(&self.cache, image.spec.arch, watch, cancel);
        let package =
            image.packages.first().ok_or_else(|| io::Error::other("the image has no kernel's package"))?;
        let entry = debian.source(suite, package)?;
        Ok(SourcesDir { dir: entry.to_path_buf(), _entry: Some(entry) })
    }

    /// The image, made ready to boot with what the cache has, and what it has not.
    ///
    /// # Errors
    ///
    /// Where a source cannot be reached, something is missing on the host, or the cache fails.
    pub fn prepare(&self, spec: &ImageSpec, watch: &dyn Watch, cancel: &Cancel) -> Result<Prepared, Error> {
        self.prepare_with(spec, &[], watch, cancel)
    }

    /// The image with packages of its userland's source added, and what they depend on.
    ///
    /// # Errors
    ///
    /// As [`Store::prepare`], and where there is no such package.
    pub fn prepare_with(
        &self,
        spec: &ImageSpec,
        added: &[DebianName],
        watch: &dyn Watch,
        cancel: &Cancel,
    ) -> Result<Prepared, Error> {
        let debian = Debian::new(&self.cache, spec.arch, watch, cancel);
        let builder = source::Builder::new(&self.cache, spec.arch, watch, cancel);
        let mut kernel: Kernel = match &spec.kernel {
            KernelSource::Debian(source) => debian.kernel(source)?.into(),
            KernelSource::Source(source) => builder.debian_kernel(source)?.into(),
            KernelSource::Own(source) => self.own(source, watch, cancel)?,
        };
        let (busybox, package) = match &spec.userland {
            UserlandSource::Debian(source) => debian.userland(source).map(|it| (it.busybox, it.package))?,
            UserlandSource::Source(source) => builder.busybox(source)?,
        };
        kernel.packages.push(package);
        let step = Step { cache: &self.cache, arch: spec.arch, watch, cancel };
        let plain_kernel = kernel.kernel.join("kernel");
        let tuned = step.tune(&kernel.kernel)?;
        let tuned_kernel = tuned.join("kernel");
        let agent = step.agent()?;
        let read = |name| fs::read_to_string(kernel.kernel.join(name));
        let (release, config) = (read("release")?, KernelConfig::parse(&read("config")?));
        let modules = read_modules(&kernel.index_dir)?;
        let transport = step.transport(spec.transport, &modules, &config, &release)?;
        let mut initramfs = step.initramfs(&kernel, &modules, &busybox, &agent)?;
        if !added.is_empty() {
            let (more, entries): (Vec<_>, Vec<_>) = match &spec.userland {
                UserlandSource::Debian(source) => debian.packages_of(source, added)?,
                UserlandSource::Source(_) => {
                    return Err(Error::NoPackages { image: spec.name.clone(), arch: spec.arch });
                }
            }
            .into_iter()
            .unzip();
            initramfs = step.add(&initramfs, &entries)?;
            kernel.packages.extend(more);
        }
        let key = KeyBuilder::new(spec.name.clone())
            .part("plain kernel", kernel.kernel.key())
            .part("kernel", tuned.key())
            .part("initramfs", initramfs.key())
            .finish();
        Ok(Prepared {
            spec: spec.clone(),
            release,
            kernel: if tuned_kernel.exists() { tuned_kernel } else { plain_kernel.clone() },
            plain_kernel,
            initramfs: initramfs.join("initramfs"),
            config,
            transport,
            modules_dir: kernel.modules_dir,
            index_dir: kernel.index_dir,
            headers: kernel.headers,
            sources: kernel.sources,
            packages: kernel.packages,
            key,
            _entries: [vec![kernel.kernel, busybox, tuned, agent, initramfs], kernel.entries].concat(),
        })
    }

    fn own(&self, source: &OwnKernel, watch: &dyn Watch, cancel: &Cancel) -> Result<Kernel, Error> {
        let found = source.find()?;
        let Stored { kernel, index, headers_key } = Stored::new(&found, &self.cache, watch, cancel)?;
        Ok(Kernel {
            kernel,
            modules_dir: found.modules_dir,
            index_dir: index.to_path_buf(),
            headers: found.headers.zip(headers_key).map(|(dir, key)| HeadersDir { dir, key }),
            sources: found.sources,
            packages: Vec::new(),
            entries: vec![index],
        })
    }
}

/// The modules whose index is in a directory.
pub(super) fn read_modules(dir: &Path) -> io::Result<Modules> {
    let read = |name| fs::read_to_string(dir.join(name));
    Ok(Modules::parse(&read("modules.dep")?, &read("modules.builtin")?, &read("modules.alias")?))
}
