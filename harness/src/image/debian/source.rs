//! Debian's packages of sources: those of kernels, which are packages like others, and that of busybox.

use std::io;
use std::path::Path;

use super::apt::{Index, host_architecture};
use super::unpack::Layout;
use super::{Debian, Error, Package, RESOLVED};
use crate::image::cache::{Entry, Key, KeyBuilder};
use crate::image::spec::{DebianSource, DebianUserland};
use crate::process::{self, Command};
use crate::work::{Work, WorkEvent};

/// The metapackage for the newest sources of a kernel in a suite.
const LINUX: &str = "linux-source";
const BUSYBOX: &str = "busybox";

impl Debian<'_> {
    /// The package of a kernel's sources, as recorded, or else as the archive has it now.
    ///
    /// # Errors
    ///
    /// As [`Debian::kernel`].
    pub fn source_package(&self, source: &DebianSource) -> Result<Package, Error> {
        self.one(&linux_key(source), || {
            let (archive, host) = (self.archive(&source.suite)?, host_architecture(self.cancel)?);
            let meta = archive.show(LINUX, &host, None)?;
            let (name, version) =
                meta.dependency(|name| name.starts_with("linux-source-")).ok_or_else(|| {
                    Error::NoDependency { package: LINUX.to_owned(), wanted: "linux-source-…".to_owned() }
                })?;
            Ok(vec![archive.show(&name, &host, version.as_deref())?.package])
        })
    }

    /// The sources of a kernel, to build from.
    ///
    /// # Errors
    ///
    /// As [`Debian::kernel`].
    pub fn tree(&self, source: &DebianSource, package: &Package) -> Result<Entry, Error> {
        self.unpack(&source.suite, package, &Layout::Tree)
    }

    /// busybox's sources, as recorded, or else as the archive has them now.
    ///
    /// # Errors
    ///
    /// As [`Debian::kernel`].
    pub fn busybox_source(&self, source: &DebianUserland) -> Result<Package, Error> {
        self.one(&busybox_key(source), || {
            Ok(vec![self.open(&source.suite, Index::Sources)?.show_source(BUSYBOX, None)?])
        })
    }

    /// Downloads a package of sources into the directory `download` and unpacks it, Debian's changes applied, as `dest`.
    ///
    /// # Errors
    ///
    /// As [`Debian::kernel`].
    pub fn unpack_source(
        &self,
        source: &DebianUserland,
        package: &Package,
        download: &Path,
        dest: &Path,
    ) -> Result<(), Error> {
        let archive = self.open(&source.suite, Index::Sources)?;
        archive.show_source(&package.name, Some(&package.version))?;
        let dsc = archive.download_source(package, download)?;
        let _work = Work::begin(self.watch, format!("unpack the sources of {}", package.name));
        let mut unpack = Command::new("dpkg-source");
        // What it would check are signatures of people; apt has checked the archive's.
        unpack.args(["--no-check", "--no-copy", "--extract"]).arg(dsc).arg(dest);
        unpack.check(self.cancel).map(drop).map_err(|error| match error {
            process::Error::Failed { .. } => {
                Error::Unpack { package: package.to_string(), source: io::Error::other(error) }
            }
            error => error.into(),
        })
    }

    /// Forgets which package a kernel's sources were resolved to, since it is gone; whether it was recorded.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be written.
    pub fn forget_source(&self, source: &DebianSource, gone: &str) -> Result<bool, Error> {
        self.forget_gone(&linux_key(source), &source.suite, gone)
    }

    /// As [`Debian::forget_source`], of busybox's sources.
    ///
    /// # Errors
    ///
    /// Where the cache cannot be written.
    pub fn forget_busybox_source(&self, source: &DebianUserland, gone: &str) -> Result<bool, Error> {
        self.forget_gone(&busybox_key(source), &source.suite, gone)
    }

    /// The one package that a key stands for.
    fn one(&self, key: &Key, resolve: impl Fn() -> Result<Vec<Package>, Error>) -> Result<Package, Error> {
        self.packages(key, resolve)?.pop().ok_or_else(super::broken_record)
    }

    fn forget_gone(&self, key: &Key, suite: &str, gone: &str) -> Result<bool, Error> {
        let was_known = self.cache.get(RESOLVED, key)?.is_some();
        if was_known {
            self.watch.work(WorkEvent::Warning(super::successor(gone, suite)));
            self.cache.remove(RESOLVED, key.as_str())?;
        }
        Ok(was_known)
    }
}

pub(super) fn linux_key(source: &DebianSource) -> Key {
    KeyBuilder::new(format!("{LINUX} of {}", source.suite))
        .part("source", "debian linux-source")
        .part("suite", source.suite.as_bytes())
        .finish()
}

pub(super) fn busybox_key(source: &DebianUserland) -> Key {
    KeyBuilder::new(format!("sources of {BUSYBOX} of {}", source.suite))
        .part("source", "debian busybox source")
        .part("suite", source.suite.as_bytes())
        .finish()
}
