//! Building busybox, for architectures that Debian has no packages for.

use std::path::Path;

use fs_err as fs;

use super::{Builder, Error, jobs, missing_tools};
use crate::image::cache::{Entry, KeyBuilder};
use crate::image::compiler::Compiler;
use crate::image::debian::{self, Debian, Package};
use crate::image::spec::DebianUserland;
use crate::process::Command;
use crate::work::Work;

/// The kind of the cache entries that hold built programs.
const KIND: &str = "built-userland";

/// The configuration of the package `busybox-static`, in busybox's sources as Debian has them.
const CONFIG: &str = "debian/config/pkg/static";

impl Builder<'_> {
    /// busybox, linked statically and with the applets of Debian's `busybox-static`: an entry that holds `busybox`, and the
    /// package of its sources.
    ///
    /// # Errors
    ///
    /// Where the sources cannot be had, something is missing on the host, or busybox does not build.
    pub fn busybox(&self, source: &DebianUserland) -> Result<(Entry, Package), Error> {
        let debian = Debian::new(self.cache, self.arch, self.watch, self.cancel);
        match self.busybox_of(&debian, source) {
            Err(Error::Debian(debian::Error::NoPackage { package, .. }))
                if debian.forget_busybox_source(source, &package)? =>
            {
                self.busybox_of(&debian, source)
            }
            result => result,
        }
    }

    fn busybox_of(&self, debian: &Debian<'_>, source: &DebianUserland) -> Result<(Entry, Package), Error> {
        let package = debian.busybox_source(source)?;
        let compiler = Compiler::find(self.arch, self.cancel)?;
        let label = format!("{} {} for {}", package.name, package.version, self.arch);
        let key = KeyBuilder::new(&label)
            .part("method", "1")
            .part("sha256", &package.sha256)
            .part("architecture", self.arch.name)
            .file("compiler", &compiler.program)?
            .finish();
        let entry = self.cache.entry(KIND, &key, self.cancel, |dir| {
            if let Some(&missing) = missing_tools(self.cancel).first() {
                return Err(missing.into());
            }
            let scratch = self.cache.scratch()?;
            let tree = scratch.join("busybox");
            debian.unpack_source(source, &package, &scratch, &tree)?;
            let _work = Work::begin(self.watch, format!("compile {label}"));
            self.make_busybox(&label, &compiler, &tree)?;
            Ok::<(), Error>(fs::rename(tree.join("busybox"), dir.join("busybox"))?)
        })?;
        Ok((entry, package))
    }

    fn make_busybox(&self, label: &str, compiler: &Compiler, tree: &Path) -> Result<(), Error> {
        fs::copy(tree.join(CONFIG), tree.join(".config"))?;
        for targets in [&["silentoldconfig"][..], &["busybox"]] {
            let mut make = Command::new("make");
            make.arg("-C").arg(tree).arg(format!("CROSS_COMPILE={}", compiler.prefix));
            // It has no other clock than the build's.
            make.env("KCONFIG_NOTIMESTAMP", "1").env("SOURCE_DATE_EPOCH", "0");
            make.arg("-s").arg(jobs()).args(targets);
            make.check(self.cancel).map_err(self.failed(label))?;
        }
        Ok(())
    }
}
