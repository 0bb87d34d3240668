//! Kernels and userland of Debian's.
//!
//! What an image file asks for is resolved once to packages of exact versions, which is recorded; from then on the cache
//! serves, without the network. Each package is unpacked into a cache entry of its own, for a use: see `unpack.rs`.

mod apt;
mod source;
mod unpack;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::rc::Rc;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use self::apt::{Archive, Index};
pub use self::apt::{KEYRING, mirror};
use self::unpack::Layout;
use super::cache::{self, Cache, Entry, Key, KeyBuilder, Listed};
use super::spec::{DebianKernel, DebianName, DebianUserland, KernelSource, UserlandSource};
use crate::arch::Arch;
use crate::process;
use crate::work::{Cancel, Watch, WorkEvent};

/// The environment variable that names a mirror of Debian's main archive.
pub const MIRROR: &str = "KMODLAB_DEBIAN_MIRROR";

/// The kind of the cache entries that record what was resolved.
const RESOLVED: &str = "resolved";
/// The kind of the cache entries that hold unpacked packages.
const PACKAGES: &str = "packages";

/// How Debian's packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's apt uses no mirror of Debian's main archive.
    #[error(
        "the host's apt knows no mirror of Debian's main archive\n\
         name one with `{MIRROR}`, or run `apt-get update` first, or use a kernel tree instead"
    )]
    NoMirror,
    /// What names a mirror is no address.
    #[error("`{MIRROR}` is no address of a mirror: `{mirror}`")]
    BadMirror {
        /// What it says.
        mirror: String,
    },
    /// The host has no apt.
    #[error(
        "`{program}` is not installed, which fetches Debian's kernels\n\
         use a host with apt, or use a kernel tree instead"
    )]
    NoApt {
        /// The program that is missing.
        program: String,
    },
    /// The host does not have Debian's keys.
    #[error("Debian's keys are not in `{path}`\ninstall the package `debian-archive-keyring`")]
    NoKeyring {
        /// Where they should be.
        path: &'static str,
    },
    /// The archive does not have a package.
    #[error("Debian's {suite} has no `{package}` for {architecture}")]
    NoPackage {
        /// Its name, and version where that matters.
        package: String,
        /// Debian's name of the architecture.
        architecture: String,
        /// The suite.
        suite: String,
    },
    /// apt finds no set of packages that fit together.
    #[error("apt cannot resolve what `{packages}` depends on\n{output}", packages = packages.join("`, `"))]
    Unresolved {
        /// The packages that were asked for.
        packages: Vec<String>,
        /// What apt says.
        output: String,
    },
    /// A package does not depend on what it should.
    #[error("`{package}` does not depend on a package `{wanted}`")]
    NoDependency {
        /// The package.
        package: String,
        /// What it should depend on.
        wanted: String,
    },
    /// A download is not what the index says.
    #[error("the download of `{package}` has another checksum than the index says")]
    Checksum {
        /// The package.
        package: String,
    },
    /// A package cannot be unpacked.
    #[error("cannot unpack `{package}`")]
    Unpack {
        /// The package.
        package: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// apt failed.
    #[error(
        "Debian's packages cannot be fetched\nis the network there? `{MIRROR}` can name another mirror\n{0}"
    )]
    Apt(#[source] process::Error),
    /// apt does nothing any more.
    #[error(
        "apt-get has made no progress for {seconds} s\nis the network there? `{MIRROR}` can name another mirror"
    )]
    Stalled {
        /// For how long.
        seconds: u64,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// Files could not be read or written.
    #[error("cannot prepare Debian's packages")]
    Io(#[from] io::Error),
}

impl From<process::Error> for Error {
    fn from(error: process::Error) -> Self {
        match error {
            process::Error::Missing { program } => Error::NoApt { program },
            process::Error::Cancelled => Error::Cache(cache::Error::Cancelled),
            error => Error::Apt(error),
        }
    }
}

/// A package, as the archive's index names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// The SHA-256 of the package file.
    pub sha256: String,
    /// The size of the package file in bytes.
    pub size: u64,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.architecture)
    }
}

/// A kernel with what it takes to build modules for it.
#[derive(Debug)]
pub struct Kernel {
    /// Holds `kernel` (the boot file), `config`, `release` and `modules/`.
    pub kernel: Entry,
    /// Its headers, to be given to `make -C`.
    pub headers: Entry,
    /// What the headers lead to.
    pub headers_parts: Vec<Entry>,
    /// The packages that it came from.
    pub packages: Vec<Package>,
}

/// A userland.
#[derive(Debug)]
pub struct Userland {
    /// Holds `busybox`.
    pub busybox: Entry,
    /// The package that it came from.
    pub package: Package,
}

/// Fetches for one image.
pub struct Debian<'a> {
    cache: &'a Cache,
    arch: Arch,
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
    archives: RefCell<BTreeMap<(Index, String), Rc<Archive<'a>>>>,
}

impl<'a> Debian<'a> {
    /// A client for images of `arch`. Nothing is fetched yet.
    pub fn new(cache: &'a Cache, arch: Arch, watch: &'a dyn Watch, cancel: &'a Cancel) -> Self {
        Debian { cache, arch, watch, cancel, archives: RefCell::default() }
    }

    /// The kernel, from the cache, or else from the archive.
    ///
    /// # Errors
    ///
    /// Where the archive cannot be reached or lacks something; where the cache fails.
    pub fn kernel(&self, source: &DebianKernel) -> Result<Kernel, Error> {
        self.resolved(
            &source.suite,
            &self.kernel_key(source),
            || self.resolve_kernel(source),
            |packages| self.unpack_kernel(source, packages),
        )
    }

    /// The userland, from the cache, or else from the archive.
    ///
    /// # Errors
    ///
    /// As [`Debian::kernel`].
    pub fn userland(&self, source: &DebianUserland) -> Result<Userland, Error> {
        self.resolved(
            &source.suite,
            &self.userland_key(source),
            || Ok(vec![self.archive(&source.suite)?.show("busybox-static", self.arch.debian, None)?.package]),
            |packages| match packages {
                [package] => {
                    let busybox = self.unpack(&source.suite, package, &Layout::Busybox)?;
                    Ok(Userland { busybox, package: package.clone() })
                }
                _ => Err(broken_record()),
            },
        )
    }

    /// Packages of the userland's release, and all that they depend on, each unpacked into an entry of its own; from the
    /// cache, or else from the archive.
    ///
    /// # Errors
    ///
    /// As [`Debian::kernel`], and where there is no such package.
    pub fn packages_of(
        &self,
        source: &DebianUserland,
        names: &[DebianName],
    ) -> Result<Vec<(Package, Entry)>, Error> {
        let suite = &source.suite;
        let listed = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let key = KeyBuilder::new(format!("{}{listed}", self.label_of_packages(source)))
            .part("source", "debian packages")
            .part("suite", suite.as_bytes())
            .part("architecture", self.arch.debian)
            .part("names", &listed)
            .finish();
        self.resolved(
            suite,
            &key,
            || self.archive(suite)?.closure(names, self.arch.debian),
            |packages| {
                let unpack =
                    |package: &Package| Ok((package.clone(), self.unpack(suite, package, &Layout::Files)?));
                packages.iter().map(unpack).collect()
            },
        )
    }

    /// How the labels of records of [`Debian::packages_of`] begin.
    fn label_of_packages(&self, source: &DebianUserland) -> String {
        format!("packages of {} for {}: ", source.suite, self.arch.debian)
    }

    /// What the harness uses of a kernel's sources, in the very version of the kernel's package `image`; from the cache,
    /// or else from the archive.
    ///
    /// # Errors
    ///
    /// As [`Debian::kernel`].
    pub fn source(&self, suite: &str, image: &Package) -> Result<Entry, Error> {
        let name = format!("linux-source-{}", series(image));
        let key = KeyBuilder::new(format!("{name} {} of {suite}", image.version))
            .part("source", "debian kernel source")
            .part("suite", suite)
            .part("package", &name)
            .part("version", &image.version)
            .finish();
        let resolve = || {
            // The indexes of architectures may be out of step: that of the kernel's own has its version.
            let architecture = self.architecture_to_ask(image)?;
            Ok(vec![self.archive(suite)?.show(&name, &architecture, Some(&image.version))?.package])
        };
        self.resolved(suite, &key, resolve, |packages| match packages {
            [package] => self.unpack(suite, package, &Layout::Source),
            _ => Err(broken_record()),
        })
    }

    /// Forgets which packages the sources were resolved to, so that the next use asks the archive again.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be written.
    pub fn forget(&self, kernel: &KernelSource, userland: &UserlandSource) -> io::Result<()> {
        let mut keys: Vec<String> = match kernel {
            KernelSource::Debian(kernel) => vec![self.kernel_key(kernel).to_string()],
            KernelSource::Source(kernel) => vec![source::linux_key(kernel).to_string()],
            KernelSource::Own(_) => Vec::new(),
        };
        match userland {
            UserlandSource::Source(userland) => keys.push(source::busybox_key(userland).to_string()),
            UserlandSource::Debian(userland) => {
                keys.push(self.userland_key(userland).to_string());
                // Which packages scenarios ask for is known only to them.
                let label = self.label_of_packages(userland);
                let asked = |entry: &Listed| entry.kind == RESOLVED && entry.label.starts_with(&label);
                keys.extend(self.cache.list()?.into_iter().filter(asked).map(|entry| entry.key));
            }
        }
        keys.iter().try_for_each(|key| self.cache.remove(RESOLVED, key).map(drop))
    }

    fn kernel_key(&self, source: &DebianKernel) -> Key {
        let key = KeyBuilder::new(format!("linux-image-{} of {}", source.flavour, source.suite))
            .part("source", "debian kernel")
            .part("suite", source.suite.as_bytes())
            .part("flavour", source.flavour.as_bytes())
            .part("architecture", self.arch.debian)
            .part("host", std::env::consts::ARCH);
        source.kbuild.iter().fold(key, |key, suite| key.part("kbuild", suite.as_bytes())).finish()
    }

    fn userland_key(&self, source: &DebianUserland) -> Key {
        KeyBuilder::new(format!("busybox-static of {} for {}", source.suite, self.arch.debian))
            .part("source", "debian userland")
            .part("suite", source.suite.as_bytes())
            .part("architecture", self.arch.debian)
            .finish()
    }

    /// Resolves a source once, and unpacks what it was resolved to. A package that was cleaned away may have left the
    /// archive since, as a point release does with the version before it: then the source is resolved anew.
    fn resolved<T>(
        &self,
        suite: &str,
        key: &Key,
        resolve: impl Fn() -> Result<Vec<Package>, Error>,
        unpack: impl Fn(&[Package]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let was_known = self.cache.get(RESOLVED, key)?.is_some();
        match unpack(&self.packages(key, &resolve)?) {
            Err(Error::NoPackage { package, .. }) if was_known => {
                self.watch.work(WorkEvent::Warning(successor(&package, suite)));
                self.cache.remove(RESOLVED, key.as_str())?;
                unpack(&self.packages(key, &resolve)?)
            }
            result => result,
        }
    }

    fn packages(
        &self,
        key: &Key,
        resolve: impl Fn() -> Result<Vec<Package>, Error>,
    ) -> Result<Vec<Package>, Error> {
        const FILE: &str = "resolved.json";
        let entry = self.cache.entry(RESOLVED, key, self.cancel, |dir| {
            let json = serde_json::to_vec_pretty(&resolve()?).map_err(io::Error::from)?;
            Ok::<(), Error>(fs::write(dir.join(FILE), json)?)
        })?;
        serde_json::from_slice(&fs::read(entry.join(FILE))?).map_err(|error| io::Error::from(error).into())
    }

    /// The archive's index of packages, fetched at its first use.
    fn archive(&self, suite: &str) -> Result<Rc<Archive<'a>>, Error> {
        self.open(suite, Index::Packages)
    }

    fn open(&self, suite: &str, index: Index) -> Result<Rc<Archive<'a>>, Error> {
        let key = (index, suite.to_owned());
        if let Some(archive) = self.archives.borrow().get(&key) {
            return Ok(Rc::clone(archive));
        }
        let host = apt::host_architecture(self.cancel)?;
        let mut architectures = vec![self.arch.debian, &host];
        architectures.retain(|architecture| !architecture.is_empty());
        architectures.dedup();
        let archive = Archive::open(self.cache, suite, index, &architectures, self.watch, self.cancel)?;
        let archive = Rc::new(archive);
        self.archives.borrow_mut().insert(key, Rc::clone(&archive));
        Ok(archive)
    }

    /// From the flavour's metapackage to the versioned kernel, its headers, what they have in common with other flavours,
    /// and kbuild's tools for the host.
    fn resolve_kernel(&self, source: &DebianKernel) -> Result<Vec<Package>, Error> {
        let archive = self.archive(&source.suite)?;
        let arch = self.arch.debian;
        let follow = |from: &apt::Stanza, wanted: &str, arch: &str, matches: &dyn Fn(&str) -> bool| {
            let (name, version) = from.dependency(matches).ok_or_else(|| Error::NoDependency {
                package: from.package.name.clone(),
                wanted: wanted.to_owned(),
            })?;
            archive.show(&name, arch, version.as_deref())
        };
        let meta = archive.show(&format!("linux-image-{}", source.flavour), arch, None)?;
        let image = follow(&meta, "linux-image-…", arch, &|name| name.starts_with("linux-image-"))?;
        let release = image.package.name.trim_start_matches("linux-image-").trim_end_matches("-unsigned");
        let headers = archive.show(&format!("linux-headers-{release}"), arch, None)?;
        let common = follow(&headers, "linux-headers-…-common", arch, &|name| {
            name.starts_with("linux-headers-") && name.ends_with("-common")
        })?;
        let host = apt::host_architecture(self.cancel)?;
        let kbuild = match &source.kbuild {
            None => follow(&headers, "linux-kbuild-…", &host, &|name| name.starts_with("linux-kbuild-"))?,
            Some(suite) => {
                self.archive(suite)?.newest(&format!("linux-kbuild-{}", series(&image.package)), &host)?
            }
        };
        Ok([image, headers, common, kbuild].into_iter().map(|stanza| stanza.package).collect())
    }

    fn unpack_kernel(&self, source: &DebianKernel, packages: &[Package]) -> Result<Kernel, Error> {
        let [image, headers, common, kbuild] = packages else { return Err(broken_record()) };
        let suite = &source.suite;
        let kernel = self.unpack(suite, image, &Layout::Kernel)?;
        let kbuild_layout = Layout::Kbuild;
        let kbuild_key = key(kbuild, &kbuild_layout);
        let kbuild = self.unpack(source.kbuild_suite(), kbuild, &kbuild_layout)?;
        let common_layout = Layout::Headers { kbuild: kbuild_key.clone(), common: None };
        let common_key = key(common, &common_layout);
        let common = self.unpack(suite, common, &common_layout)?;
        let layout = Layout::Headers { kbuild: kbuild_key, common: Some(common_key) };
        let headers = self.unpack(suite, headers, &layout)?;
        Ok(Kernel { kernel, headers, headers_parts: vec![common, kbuild], packages: packages.to_vec() })
    }

    /// The architecture to ask apt for: a package for all of them is found under each that Debian has.
    fn architecture_to_ask(&self, package: &Package) -> Result<String, Error> {
        match (package.architecture.as_str(), self.arch.debian) {
            ("all", "") => Ok(apt::host_architecture(self.cancel)?),
            ("all", debian) => Ok(debian.to_owned()),
            (architecture, _) => Ok(architecture.to_owned()),
        }
    }

    /// The package, unpacked so; from the cache, or else from the archive.
    fn unpack(&self, suite: &str, package: &Package, layout: &Layout) -> Result<Entry, Error> {
        self.cache.entry(PACKAGES, &key(package, layout), self.cancel, |dir| {
            let download = self.cache.scratch()?;
            let archive = self.archive(suite)?;
            archive.show(&package.name, &self.architecture_to_ask(package)?, Some(&package.version))?;
            let deb = archive.download(package, &download)?;
            let _work = crate::work::Work::begin(
                self.watch,
                format!("unpack {} {}", package.name, package.architecture),
            );
            let unpacked = layout.unpack(&deb, dir, self.cancel);
            unpacked.map_err(|source| match source.kind() {
                io::ErrorKind::Interrupted => Error::Cache(cache::Error::Cancelled),
                _ => Error::Unpack { package: package.to_string(), source },
            })
        })
    }
}

/// The first two numbers of a kernel's version.
fn series(kernel: &Package) -> String {
    let mut numbers = kernel.version.split(['.', '-']);
    [numbers.next(), numbers.next()].map(Option::unwrap_or_default).join(".")
}

fn key(package: &Package, layout: &Layout) -> Key {
    let key = KeyBuilder::new(package.to_string()).part("sha256", &package.sha256);
    layout.add_to(key).finish()
}

/// The warning where a package is no longer there.
fn successor(package: &str, suite: &str) -> String {
    format!("`{package}` is gone from Debian's {suite} and from the cache: its successor is taken")
}

fn broken_record() -> Error {
    Error::Io(io::Error::other("the record of resolved packages is of another kind"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);

    impl Watch for Warnings {
        fn work(&self, event: WorkEvent) {
            if let WorkEvent::Warning(text) = event {
                self.0.lock().unwrap().push(text);
            }
        }
    }

    /// Resolves to version 1 at first and 2 afterwards; `there` says which versions can be unpacked.
    fn run(there: &[&str], known: bool) -> (Result<String, Error>, u32, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let warnings = Arc::new(Warnings::default());
        let cache = Cache::open(Some(dir.path()), warnings.clone()).unwrap();
        let cancel = Cancel::new().unwrap();
        let debian = Debian::new(&cache, "arm".parse().unwrap(), &*warnings, &cancel);
        let key = KeyBuilder::new("source").finish();
        let resolved = Cell::new(0);
        let resolve = || {
            resolved.set(resolved.get() + 1);
            let version = resolved.get().to_string();
            Ok(vec![Package {
                name: "p".into(),
                version,
                architecture: "all".into(),
                sha256: String::new(),
                size: 1,
            }])
        };
        if known {
            debian.packages(&key, resolve).unwrap();
        }
        let unpack = |packages: &[Package]| match there.contains(&packages[0].version.as_str()) {
            true => Ok(packages[0].version.clone()),
            false => {
                Err(Error::NoPackage { package: "p".into(), architecture: "all".into(), suite: "s".into() })
            }
        };
        let result = debian.resolved("s", &key, resolve, unpack);
        let warnings = warnings.0.lock().unwrap().clone();
        (result, resolved.get(), warnings)
    }

    #[test]
    fn what_was_resolved_stays_so() {
        let (result, resolved, warnings) = run(&["1", "2"], true);
        assert_eq!((result.unwrap().as_str(), resolved, warnings.len()), ("1", 1, 0));
    }

    #[test]
    fn a_version_that_is_gone_has_a_successor() {
        let (result, resolved, warnings) = run(&["2"], true);
        assert_eq!((result.unwrap().as_str(), resolved), ("2", 2));
        assert_eq!(warnings, ["`p` is gone from Debian's s and from the cache: its successor is taken"]);
    }

    #[test]
    fn a_version_that_was_never_there_is_an_error() {
        let (result, resolved, _) = run(&[], false);
        assert_eq!(
            (result.unwrap_err().to_string().as_str(), resolved),
            ("Debian's s has no `p` for all", 1)
        );
    }
}
