//! Building a small kernel.

use std::path::Path;

use fs_err as fs;

use super::{Builder, Error, Kernel, headers, jobs, missing_tools};
use crate::image::cache::{Key, KeyBuilder, Scratch};
use crate::image::compiler::Compiler;
use crate::image::debian::{self, Debian, Package};
use crate::image::depmod::{Index, pack};
use crate::image::kconfig::{Fragment, KernelConfig};
use crate::image::own::KernelTree;
use crate::image::spec::DebianSource;
use crate::process::{self, Command};
use crate::work::Work;

/// The kind of the cache entries that hold built kernels.
const KIND: &str = "built-kernel";
/// Changes with what a build does.
const METHOD: &str = "1";

impl Builder<'_> {
    /// A kernel from Debian's package of sources, with that package.
    ///
    /// # Errors
    ///
    /// Where the sources cannot be had, something is missing on the host, an option drops out, or the kernel does not build.
    pub fn debian_kernel(&self, source: &DebianSource) -> Result<(Kernel, Package), Error> {
        let debian = Debian::new(self.cache, self.arch, self.watch, self.cancel);
        match self.debian_kernel_of(&debian, source) {
            Err(Error::Debian(debian::Error::NoPackage { package, .. }))
                if debian.forget_source(source, &package)? =>
            {
                self.debian_kernel_of(&debian, source)
            }
            result => result,
        }
    }

    fn debian_kernel_of(
        &self,
        debian: &Debian<'_>,
        source: &DebianSource,
    ) -> Result<(Kernel, Package), Error> {
        let package = debian.source_package(source)?;
        let label = format!("{} {} for {}", package.name, package.version, self.arch);
        let key = self.kernel_key(KeyBuilder::new(&label).part("sha256", &package.sha256))?;
        let entry = self.cache.entry(KIND, &key, self.cancel, |dir| {
            self.require_tools()?;
            let tree = debian.tree(source, &package)?;
            self.make_kernel(&label, &tree, dir)
        })?;
        Ok((Kernel { entry }, package))
    }

    /// A kernel from a tree, which must not have been built in place.
    ///
    /// # Errors
    ///
    /// As [`Builder::debian_kernel`].
    pub fn tree_kernel(&self, tree: &Path) -> Result<Kernel, Error> {
        let tree = fs::canonicalize(tree)?;
        for missing in ["Kconfig", "Makefile", "scripts"] {
            if !tree.join(missing).exists() {
                return Err(Error::NoTree { dir: tree, missing });
            }
        }
        let label = format!("the kernel in `{}` for {}", tree.display(), self.arch);
        let stamp = crate::image::cache::stamp(&tree, &|path| path.starts_with(".git"))?;
        let key = self.kernel_key(KeyBuilder::new(&label).part("stamp", stamp))?;
        let entry = self.cache.entry(KIND, &key, self.cancel, |dir| {
            self.require_tools()?;
            self.make_kernel(&label, &tree, dir)
        })?;
        Ok(Kernel { entry })
    }

    /// Adds to the key of the sources what else a kernel is made from.
    fn kernel_key(&self, key: KeyBuilder) -> Result<Key, Error> {
        let compiler = Compiler::find(self.arch, self.cancel)?;
        Ok(key
            .part("method", METHOD)
            .part("architecture", self.arch.name)
            .part("boot file", self.arch.boot_file)
            .part("host", std::env::consts::ARCH)
            .file("compiler", &compiler.program)?
            .part("options", Fragment::full(self.arch).text())
            .finish())
    }

    fn require_tools(&self) -> Result<(), Error> {
        missing_tools(self.cancel).first().map_or(Ok(()), |&missing| Err(missing.into()))
    }

    /// Builds into `dir` what the harness uses of a kernel.
    fn make_kernel(&self, label: &str, tree: &Path, dir: &Path) -> Result<(), Error> {
        let compiler = Compiler::find(self.arch, self.cancel)?;
        let build = Build { builder: self, compiler, label, tree, out: self.cache.scratch()? };
        build.configure()?;
        build.compile()?;
        build.collect(dir)
    }
}

/// One build of a kernel.
struct Build<'a> {
    builder: &'a Builder<'a>,
    compiler: Compiler,
    label: &'a str,
    tree: &'a Path,
    /// The folder that it is built in.
    out: Scratch,
}

impl Build<'_> {
    fn make(&self) -> Command {
        let prefix = self.compiler.prefix;
        let mut make = Command::new("make");
        make.arg("-C").arg(self.tree).arg(format!("O={}", self.out.display()));
        make.arg(format!("ARCH={}", self.builder.arch.kbuild)).arg(format!("CROSS_COMPILE={prefix}"));
        if process::find("ccache").is_some() {
            make.arg(format!("CC=ccache {prefix}gcc"));
        }
        // The release is that of the sources alone, and what is built is the same each time.
        make.args(["LOCALVERSION=", "KBUILD_BUILD_USER=kmodlab", "KBUILD_BUILD_HOST=kmodlab"]);
        make.arg("KBUILD_BUILD_TIMESTAMP=@0");
        make
    }

    /// Makes the configuration, and compares it with what it was made from.
    fn configure(&self) -> Result<(), Error> {
        let _work = Work::begin(self.builder.watch, format!("configure {}", self.label));
        let fragment = Fragment::full(self.builder.arch);
        let file = self.out.join("fragment");
        fs::write(&file, fragment.text())?;
        let mut make = self.make();
        make.arg(format!("KCONFIG_ALLCONFIG={}", file.display())).arg("allnoconfig");
        make.check(self.builder.cancel).map_err(self.builder.failed(self.label))?;
        let dropped = fragment.dropped(&KernelConfig::parse(&fs::read_to_string(self.out.join(".config"))?));
        match dropped.is_empty() {
            true => Ok(()),
            false => Err(Error::Dropped { label: self.label.to_owned(), dropped }),
        }
    }

    fn compile(&self) -> Result<(), Error> {
        let work = Work::begin(self.builder.watch, format!("compile {}", self.label));
        let target = Path::new(self.builder.arch.boot_file).file_name().unwrap_or_default();
        let mut make = self.make();
        make.arg(jobs()).arg(target).arg("modules");
        make.check_lines(self.builder.cancel, &mut progress(&work)).map_err(self.builder.failed(self.label))
    }

    /// Takes out of the folder that it was built in what the harness uses.
    fn collect(&self, dir: &Path) -> Result<(), Error> {
        let _work = Work::begin(self.builder.watch, format!("collect {}", self.label));
        let boot_file = self.out.join(self.builder.arch.boot_file);
        let not_made = |file: &str| Error::NotMade { label: self.label.to_owned(), file: file.to_owned() };
        if !boot_file.exists() {
            return Err(not_made(self.builder.arch.boot_file));
        }
        fs::copy(boot_file, dir.join("kernel"))?;
        fs::copy(self.out.join(".config"), dir.join("config"))?;
        let release = fs::read_to_string(self.out.join("include/config/kernel.release"))?;
        fs::write(dir.join("release"), release.trim())?;
        self.collect_modules(&dir.join("modules"))?;
        Ok(headers::collect(self.tree, &self.out, self.builder.arch.kbuild, dir)?)
    }

    /// The modules, at the paths that `make modules_install` gives them, and their index.
    fn collect_modules(&self, dir: &Path) -> Result<(), Error> {
        let mut index = Index::default();
        let not_made = || Error::NotMade { label: self.label.to_owned(), file: "modules.order".to_owned() };
        for path in KernelTree::new(&*self.out).modules()?.ok_or_else(not_made)? {
            let (path, content) =
                pack(&mut index, &Path::new("kernel").join(&path), fs::read(self.out.join(&path))?)?;
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap_or(dir))?;
            fs::write(path, content)?;
        }
        fs::create_dir_all(dir)?;
        fs::write(dir.join("modules.dep"), index.dep())?;
        fs::write(dir.join("modules.alias"), index.alias())?;
        // Before Linux 5.2 it was made by the installation of modules only.
        let builtin = self.out.join("modules.builtin");
        let builtin = if builtin.exists() { fs::read_to_string(builtin)? } else { String::new() };
        Ok(fs::write(dir.join("modules.builtin"), builtin)?)
    }
}

/// Counts the commands that kbuild says it runs as the progress of `work`.
pub(in crate::image) fn progress(work: &Work<'_>) -> impl FnMut(&str) -> bool {
    let mut done = 0;
    move |line: &str| {
        let is_command = command(line).is_some();
        if is_command {
            done += 1;
            work.count(done);
        }
        is_command
    }
}

/// What kbuild says of each command that it runs, such as `  CC      kernel/fork.o`: the object.
fn command(line: &str) -> Option<&str> {
    let (command, object) = line.strip_prefix("  ")?.split_once(' ')?;
    let is_command = command.starts_with(|c: char| c.is_ascii_uppercase());
    is_command.then(|| object.trim().trim_start_matches("[M] ").trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::cache::Cache;
    use crate::work::{Cancel, Unwatched};

    /// A tree that is made like a kernel's, but for what is made: its configuration is the fragment with `edit` done to it.
    fn tree(dir: &Path, edit: &str) {
        let makefile = format!(
            "allnoconfig:\n\tsed -e '{edit}' $(KCONFIG_ALLCONFIG) > $(O)/.config\n\
             $(notdir $(BOOT)):\n\tmkdir -p $(O)/$(dir $(BOOT)) && echo boot > $(O)/$(BOOT)\n\
             \t@echo '  CC      init/main.o'\n\
             modules:\n\tmkdir -p $(O)/fs $(O)/include/config $(O)/include/generated $(O)/scripts/mod\n\
             \techo ko > $(O)/fs/x.ko; echo fs/x.o > $(O)/modules.order; echo kernel/lib/y.ko > $(O)/modules.builtin\n\
             \techo 6.1.0-x > $(O)/include/config/kernel.release; touch $(O)/include/config/OPTION $(O)/Module.symvers\n\
             \techo tool > $(O)/scripts/mod/modpost; echo object > $(O)/scripts/mod/modpost.o; echo x > $(O)/scripts/.x.cmd\n"
        );
        for folder in ["include/linux", "include/dt-bindings", "scripts", "arch/x86/include", "kernel"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let boot = x86_64().boot_file;
        fs::write(dir.join("Makefile"), format!("BOOT = {boot}\n{makefile}")).unwrap();
        for file in
            ["Kconfig", "include/linux/x.h", "include/dt-bindings/y.h", "arch/x86/Makefile", "kernel/fork.c"]
        {
            fs::write(dir.join(file), file).unwrap();
        }
    }

    fn x86_64() -> crate::arch::Arch {
        "x86_64".parse().unwrap()
    }

    /// Builds a tree whose configuration is edited so, into the folder that is given.
    fn build(edit: &str, dest: &Path) -> Result<(), Error> {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&dir.path().join("cache")), std::sync::Arc::new(Unwatched)).unwrap();
        let cancel = Cancel::new().unwrap();
        let builder = Builder::new(&cache, x86_64(), &Unwatched, &cancel);
        let sources = dir.path().join("tree");
        tree(&sources, edit);
        let compiler = Compiler { program: "gcc".into(), prefix: "" };
        let out = cache.scratch().unwrap();
        let build = Build { builder: &builder, compiler, label: "a kernel", tree: &sources, out };
        build.configure()?;
        build.compile()?;
        build.collect(dest)
    }

    #[test]
    fn an_option_that_drops_out_ends_the_build_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            build("/CONFIG_KPROBES=/d; s/CONFIG_FIREWIRE=m/CONFIG_FIREWIRE=y/", dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("the configuration of a kernel is not as its fragments say"), "{text}");
        assert!(text.contains("\n  CONFIG_KPROBES=y became n\n  CONFIG_FIREWIRE=m became y\n"), "{text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_build_is_taken_to_what_images_are_made_of() {
        let dir = tempfile::tempdir().unwrap();
        build("", dir.path()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((read("kernel"), read("release")), ("boot\n".into(), "6.1.0-x".into()));
        assert!(read("config").contains("CONFIG_KPROBES=y"));
        assert_eq!(read("modules/modules.dep"), "kernel/fs/x.ko.zst:\n");
        assert_eq!(read("modules/modules.builtin"), "kernel/lib/y.ko\n");
        let headers = |name: &str| dir.path().join("headers").join(name).exists();
        for name in [
            "Makefile",
            ".config",
            "Module.symvers",
            "include/linux/x.h",
            "arch/x86/Makefile",
            "scripts/mod/modpost",
        ] {
            assert!(headers(name), "{name}");
        }
        for name in [
            "include/dt-bindings/y.h",
            "include/config/OPTION",
            "scripts/mod/modpost.o",
            "scripts/.x.cmd",
            "kernel",
        ] {
            assert!(!headers(name), "{name}");
        }
    }

    #[test]
    fn a_folder_without_a_kernels_sources_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&dir.path().join("cache")), std::sync::Arc::new(Unwatched)).unwrap();
        let cancel = Cancel::new().unwrap();
        let error = Builder::new(&cache, x86_64(), &Unwatched, &cancel).tree_kernel(dir.path()).unwrap_err();
        assert!(
            error.to_string().ends_with("has no kernel's sources: there is no `Kconfig` in it"),
            "{error}"
        );
    }

    #[test]
    fn what_kbuild_does_is_told_from_what_it_says() {
        assert_eq!(command("  CC      kernel/fork.o"), Some("kernel/fork.o"));
        assert_eq!(command("  CC [M]  drivers/block/loop.o"), Some("drivers/block/loop.o"));
        for line in
            ["make[1]: Entering directory", "kernel/fork.c:7: error", "  ", "", "   ^~~~", "  in function"]
        {
            assert_eq!(command(line), None, "{line}");
        }
    }
}
