//! The parts of an image that the harness makes itself: the kernel as it boots fastest, the agent, the initial RAM file
//! system.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fs_err as fs;

use super::busybox;
use super::cache::{self, Cache, Entry, KeyBuilder};
use super::compiler::Compiler;
use super::depmod::{self, Modules};
use super::kconfig::KernelConfig;
use super::kernel::{self, Tuned};
use super::prepare::{Error, Kernel};
use crate::arch::Arch;
use crate::guest::agent::{self, Transport};
use crate::guest::initramfs;
use crate::process::{self, Command};
use crate::work::{Cancel, Watch, Work, WorkEvent};

/// Makes the parts of an image.
pub(super) struct Step<'a> {
    pub(super) cache: &'a Cache,
    pub(super) arch: Arch,
    pub(super) watch: &'a dyn Watch,
    pub(super) cancel: &'a Cancel,
}

impl Step<'_> {
    /// The kernel that starts fastest: an entry that holds `kernel`, unless the boot file is best as it is.
    pub(super) fn tune(&self, kernel: &Entry) -> Result<Entry, Error> {
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
    pub(super) fn agent(&self) -> Result<Entry, Error> {
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
    pub(super) fn initramfs(
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
    pub(super) fn add(&self, initramfs: &Entry, packages: &[Entry]) -> Result<Entry, Error> {
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
    pub(super) fn transport(
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
