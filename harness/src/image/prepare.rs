//! From image files to files that QEMU can boot.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::busybox;
use super::cache::{self, Cache, Entry, Key, KeyBuilder};
use super::compiler::{self, Compiler};
use super::debian::{self, Debian, Package};
use super::depmod::{self, Modules};
use super::kconfig::KernelConfig;
use super::kernel::{self, Tuned};
use super::own::{self, OwnKernel, Stored};
use super::source;
use super::spec::{self, DebianName, ImageSpec, KernelSource, UserlandSource};
use crate::arch::Arch;
use crate::guest::agent::{self, Transport};
use crate::guest::initramfs;
use crate::process::{self, Command};
use crate::work::{Cancel, Watch, Work, WorkEvent};

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
struct Kernel {
    /// Holds `kernel` (the boot file), `config` and `release`.
    kernel: Entry,
    modules_dir: PathBuf,
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

fn read_modules(dir: &Path) -> io::Result<Modules> {
    let read = |name| fs::read_to_string(dir.join(name));
    Ok(Modules::parse(&read("modules.dep")?, &read("modules.builtin")?, &read("modules.alias")?))
}

/// Makes the parts of an image.
struct Step<'a> {
    cache: &'a Cache,
    arch: Arch,
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
}

impl Step<'_> {
    /// The kernel that starts fastest: an entry that holds `kernel`, unless the boot file is best as it is.
    fn tune(&self, kernel: &Entry) -> Result<Entry, Error> {
        let key = KeyBuilder::new(format!(
            "kernel {} for {}",
            fs::read_to_string(kernel.join("release"))?,
            self.arch
        ))
        .part("method", "1")
        .part("kernel", kernel.key())
        .part("load", format!("{:?}", self.arch.raw_image_load))
        .finish();
        self.cache.entry("kernels", &key, self.cancel, |dir| {
            let _work =
                Work::begin(self.watch, format!("take the kernel for {} out of its boot file", self.arch));
            match kernel::tune(&fs::read(kernel.join("kernel"))?, self.arch.raw_image_load) {
                Tuned::Made(bytes) => fs::write(dir.join("kernel"), bytes)?,
                Tuned::Fastest => {}
                Tuned::AsIs(reason) => self.watch.work(WorkEvent::Warning(format!(
                    "the kernel for {} is booted from the file it came in: {reason}",
                    self.arch
                ))),
            }
            Ok(())
        })
    }

    /// The agent, compiled: an entry that holds `agent`.
    fn agent(&self) -> Result<Entry, Error> {
        let compiler = Compiler::find(self.arch, self.cancel)?;
        let key =
            KeyBuilder::new(format!("guest agent for {}", self.arch)).file("compiler", &compiler.program)?;
        let key = agent::SOURCES.iter().fold(key, |key, (name, text)| key.part(name, text));
        let key = key.part("arguments", agent::compiler_args("agent").collect::<Vec<_>>().join(" ")).finish();
        self.cache.entry("agents", &key, self.cancel, |dir| {
            let _work = Work::begin(self.watch, format!("compile the guest agent for {}", self.arch));
            let source = self.cache.scratch()?;
            for (name, text) in agent::SOURCES {
                fs::write(source.join(name), text)?;
            }
            let mut command = Command::new(&compiler.program);
            command.args(agent::compiler_args("agent")).dir(&*source);
            command.check(self.cancel).map_err(|error| match error {
                process::Error::Cancelled => Error::Cache(cache::Error::Cancelled),
                source => Error::Agent { arch: self.arch, source },
            })?;
            Ok(fs::rename(source.join("agent"), dir.join("agent"))?)
        })
    }

    /// The initial RAM file system: an entry that holds `initramfs`.
    fn initramfs(
        &self,
        kernel: &Kernel,
        modules: &Modules,
        busybox: &Entry,
        agent: &Entry,
    ) -> Result<Entry, Error> {
        let modules = self.channel_modules(kernel, modules)?;
        let key = KeyBuilder::new(format!("initramfs for {}", self.arch))
            .part("layout", "3")
            .part("busybox", busybox.key())
            .part("agent", agent.key());
        let key = modules.iter().fold(key, |key, (name, elf)| key.part(name, elf)).finish();
        self.cache.entry("initramfs", &key, self.cancel, |dir| {
            let busybox = fs::read(busybox.join("busybox"))?;
            let applets = busybox::applets(&busybox);
            if applets.is_empty() {
                return Err(Error::NoApplets);
            }
            let file = io::BufWriter::new(fs::File::create(dir.join("initramfs"))?);
            let mut archive = initramfs::Builder::new(file);
            for path in ["dev", "proc", "sys", "run", "mnt", "bin", "etc", "lib/modules"] {
                archive.dir(path, 0o755)?;
            }
            archive.dir("tmp", 0o1777)?;
            archive.dir("root", 0o700)?;
            archive.node("dev/console", 0o600, 5, 1)?;
            archive.node("dev/null", 0o666, 1, 3)?;
            archive.file(
                "etc/passwd",
                0o644,
                b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
            )?;
            archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
            archive.file("bin/busybox", 0o755, &busybox)?;
            for applet in applets {
                archive.symlink(&format!("bin/{applet}"), "busybox")?;
            }
            archive.symlink("sbin", "bin")?;
            archive.file("init", 0o755, &fs::read(agent.join("agent"))?)?;
            let mut list = String::new();
            for (name, elf) in &modules {
                let path = format!("/lib/modules/{name}.ko");
                archive.file(&path, 0o644, elf)?;
                list.push_str(&format!("{path}\n"));
            }
            archive.file(agent::MODULE_LIST, 0o644, list.as_bytes())?;
            io::Write::flush(&mut archive.finish()?)?;
            Ok(())
        })
    }

    /// An initial RAM file system with the files of packages added: an entry that holds `initramfs`.
    fn add(&self, initramfs: &Entry, packages: &[Entry]) -> Result<Entry, Error> {
        let key = KeyBuilder::new(format!("initramfs for {} with packages", self.arch))
            .part("layout", "2")
            .part("initramfs", initramfs.key());
        let key = packages.iter().fold(key, |key, package| key.part("package", package.key())).finish();
        self.cache.entry("initramfs", &key, self.cancel, |dir| {
            let mut file = io::BufWriter::new(fs::File::create(dir.join("initramfs"))?);
            io::copy(&mut fs::File::open(initramfs.join("initramfs"))?, &mut file)?;
            let mut archive = initramfs::Builder::new(file);
            for package in packages {
                package.walk(&mut |path, meta| add_file(&mut archive, &package.join(path), path, meta))?;
            }
            io::Write::flush(&mut archive.finish()?)?;
            Ok(())
        })
    }

    /// What the channels go over: what the image wants, else virtio, else serial ports.
    fn transport(
        &self,
        wanted: Option<Transport>,
        modules: &Modules,
        config: &KernelConfig,
        release: &str,
    ) -> Result<Transport, Error> {
        // Before Linux 5.2 it was `make modules_install` that made modules.builtin, which a tree may thus lack.
        let lacks = |driver: &str| {
            modules.load_order(driver).is_none() && config.get(&driver.to_ascii_uppercase()) != Some("y")
        };
        let no_driver = |missing: &str, option: &str| Error::NoDriver {
            release: release.to_owned(),
            missing: missing.to_owned(),
            line: format!("CONFIG_{option}=y"),
        };
        let missing = self.arch.channel_drivers.iter().find(|driver| lacks(driver));
        let without_virtio = |driver: &&str| no_driver(driver, &driver.to_ascii_uppercase());
        match (wanted, &self.arch.serial_ports) {
            (Some(Transport::Virtio), _) | (None, None) => {
                missing.map_or(Ok(Transport::Virtio), |driver| Err(without_virtio(driver)))
            }
            (None, Some(_)) if missing.is_none() => Ok(Transport::Virtio),
            (_, Some(ports)) if config.get(ports.option) != Some("y") => match (wanted, missing) {
                (None, Some(driver)) => Err(without_virtio(driver)),
                _ => Err(no_driver("driver of serial ports", ports.option)),
            },
            (wanted, Some(_)) => {
                if let (None, Some(driver)) = (wanted, missing) {
                    let option = driver.to_ascii_uppercase();
                    self.watch.work(WorkEvent::Warning(format!(
                        "the kernel {release} has no `{driver}`: its guests are reached over serial ports, which are slower \
                         (for virtio, add CONFIG_{option}=y to its .config)"
                    )));
                }
                Ok(Transport::Serial)
            }
            (Some(Transport::Serial), None) => {
                Err(no_driver("use for serial ports on this machine", "VIRTIO_CONSOLE"))
            }
        }
    }

    /// The modules that drive virtio-serial, in the order in which to load them: none where they are built in or missing.
    fn channel_modules(&self, kernel: &Kernel, modules: &Modules) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut channel: Vec<(String, Vec<u8>)> = Vec::new();
        for driver in self.arch.channel_drivers.iter().copied() {
            for name in modules.load_order(driver).unwrap_or_default() {
                if let Some(path) =
                    modules.path(name).filter(|_| channel.iter().all(|(known, _)| known != name))
                {
                    channel.push((
                        name.to_owned(),
                        depmod::decompress(fs::read(kernel.modules_dir.join(path))?)?,
                    ));
                }
            }
        }
        Ok(channel)
    }
}

/// Whether a path is that of the dynamic loader, which is a file of a `lib` directory, or of `lib64`.
fn is_loader(path: &str) -> bool {
    path.split_once('/')
        .is_some_and(|(dir, name)| dir.starts_with("lib") && name.starts_with("ld") && !name.contains('/'))
}

/// Adds what lies at `from` to an archive, at `path`. Directories come with what is in them.
fn add_file<W: io::Write>(
    archive: &mut initramfs::Builder<W>,
    from: &Path,
    path: &Path,
    meta: &std::fs::Metadata,
) -> io::Result<()> {
    let text = |path: &Path| match path.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => Err(io::Error::other(format!("`{}` is no UTF-8", path.display()))),
    };
    // The base has a link there, which must not become a directory.
    let path = match path.strip_prefix("sbin") {
        Ok(rest) => text(&Path::new("bin").join(rest))?,
        Err(_) => text(path)?,
    };
    // Debian 13's packages have everything below usr. Programs name what loads them where it always was; that then finds
    // the rest.
    if let Some(loader) = path.strip_prefix("usr/").filter(|rest| is_loader(rest)) {
        archive.symlink(loader, &format!("/{path}"))?;
    }
    if meta.is_symlink() {
        archive.symlink(&path, &text(&fs::read_link(from)?)?)
    } else if meta.is_file() {
        archive.file(&path, meta.permissions().mode() & 0o7777, &fs::read(from)?)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_programs_is_told_by_its_place() {
        assert!(is_loader("lib/ld-linux-riscv64-lp64d.so.1") && is_loader("lib64/ld64.so.2"));
        for path in ["lib/riscv64-linux-gnu/ld.so", "lib/libc.so.6", "share/ld", "ld"] {
            assert!(!is_loader(path), "{path}");
        }
    }
}
