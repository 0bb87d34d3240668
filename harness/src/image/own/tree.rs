//! A kernel tree that was built, in place or with `O=`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::{Error, Found, expect_dir, headers_release, read_if_there};
use crate::arch::Arch;
use crate::image::compiler::Compiler;
use crate::image::kconfig::KernelConfig;
use crate::image::source;
use crate::process::Command;
use crate::work::{Cancel, Watch, Work};

/// What the kernel is built with: `.config`, as it was at the last build (`scripts/kconfig/confdata.c`,
/// `conf_write_autoconf`).
const CONFIG: &str = "include/config/auto.conf";

/// The folder that a kernel is built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTree(PathBuf);

impl KernelTree {
    /// The tree in `dir`: the sources where they are built in place, else the folder of `O=`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        KernelTree(std::path::absolute(&dir).unwrap_or(dir))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Looks at what was built.
    ///
    /// # Errors
    ///
    /// Where it is no tree, or is not built.
    pub fn find(&self) -> Result<Found, Error> {
        let dir = &self.0;
        let (config, arch) = self.config(CONFIG)?;
        let targets = self.targets(arch);
        let not_built = |missing: &str| Error::NotBuilt {
            dir: dir.clone(),
            missing: missing.to_owned(),
            targets: targets.clone(),
        };
        let release = headers_release(dir)?.ok_or_else(|| not_built("include/generated/utsrelease.h"))?;
        let boot_file = dir.join(arch.boot_file);
        if !boot_file.is_file() {
            return Err(not_built(arch.boot_file));
        }
        let modules = match KernelConfig::parse(&config).is_set("MODULES") {
            true => self.modules()?.ok_or_else(|| not_built("modules.order"))?,
            false => Vec::new(),
        };
        if let Some(missing) = modules.iter().find(|module| !dir.join(module).is_file()) {
            return Err(not_built(&missing.to_string_lossy()));
        }
        Ok(Found {
            arch,
            release,
            boot_file,
            config,
            modules_dir: dir.clone(),
            modules,
            builtin: read_if_there(&dir.join("modules.builtin"))?.unwrap_or_default(),
            headers: Some(dir.clone()),
            sources: Some(self.sources()),
        })
    }

    /// Builds it, with its own configuration: options that the sources have and it does not get their defaults, as a
    /// bisection has it from commit to commit.
    ///
    /// # Errors
    ///
    /// [`Error::Build`] with what `make` says, and where it has no configuration.
    pub fn build(&self, watch: &dyn Watch, cancel: &Cancel) -> Result<(), Error> {
        let (_, arch) = self.config(".config")?;
        let prefix = match std::env::var_os("CROSS_COMPILE") {
            // `make` takes the user's own.
            Some(_) => None,
            None => Compiler::kbuild_prefix(arch, cancel)?,
        };
        let make = || {
            let mut make = Command::new("make");
            make.arg("-C").arg(&self.0).arg(format!("ARCH={}", arch.kbuild));
            make.args(prefix.map(|prefix| format!("CROSS_COMPILE={prefix}")));
            make
        };
        let failed = |source| Error::Build { dir: self.0.clone(), source };
        let work = Work::begin(watch, format!("build the kernel in {}", self.0.display()));
        let mut configure = make();
        configure.arg("olddefconfig");
        configure.check(cancel).map_err(failed)?;
        let (config, _) = self.config(".config")?;
        let mut build = make();
        build.arg(source::jobs()).args(self.target(arch));
        // Without modules, there is no such target.
        build.args(KernelConfig::parse(&config).is_set("MODULES").then_some("modules"));
        build.check_lines(cancel, &mut source::progress(&work)).map_err(failed)
    }

    /// The configuration in one of the tree's files, and the architecture that it is for.
    fn config(&self, file: &str) -> Result<(String, Arch), Error> {
        let dir = &self.0;
        expect_dir("kernel tree", dir)?;
        let path = dir.join(file);
        let Some(text) = read_if_there(&path)? else {
            let configured = read_if_there(&dir.join(".config"))?.filter(|_| file != ".config");
            return Err(match (configured, dir.join("Kconfig").is_file()) {
                (Some(text), _) => {
                    let arch = Arch::of_config(&KernelConfig::parse(&text));
                    let targets = arch.map_or_else(String::new, |arch| self.targets(arch));
                    Error::NotBuilt { dir: dir.clone(), missing: file.to_owned(), targets }
                }
                (None, true) => Error::NotConfigured(dir.clone()),
                (None, false) => Error::NoTree(dir.clone()),
            });
        };
        match Arch::of_config(&KernelConfig::parse(&text)) {
            Some(arch) => Ok((text, arch)),
            None => Err(Error::UnknownArch { config: path }),
        }
    }

    /// What to make in it.
    fn targets(&self, arch: Arch) -> String {
        let target = self.target(arch).unwrap_or_default();
        format!("{} modules", target.to_string_lossy())
    }

    /// The target of its boot file.
    fn target(&self, arch: Arch) -> Option<&'static OsStr> {
        Path::new(arch.boot_file).file_name()
    }

    /// Where its sources are: `source` is what kbuild links to them with `O=`.
    fn sources(&self) -> PathBuf {
        let linked = self.0.join("source");
        if linked.is_dir() { linked } else { self.0.clone() }
    }

    /// The modules that the last build made, whatever older builds have left; `None` where none made any.
    ///
    /// # Errors
    ///
    /// Where their list cannot be read.
    pub fn modules(&self) -> io::Result<Option<Vec<PathBuf>>> {
        let order = read_if_there(&self.0.join("modules.order"))?;
        let there = |path: &Path| self.0.join(path).is_file();
        Ok(order.map(|order| order.lines().filter_map(|line| module_path(line.trim(), &there)).collect()))
    }
}

/// The module that a line of a tree's `modules.order` names, below the tree. Lines had `kernel/` before the path until
/// Linux 5.4 ("kbuild: get rid of kernel/ prefix from in-tree modules.{order,builtin}"), and have ended in `.o` since 6.2
/// (commit f65a486821cf). A folder of the sources is called `kernel`, too.
fn module_path(line: &str, is_there: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let stem = line.strip_suffix(".ko").or_else(|| line.strip_suffix(".o"))?;
    let path = PathBuf::from(format!("{stem}.ko"));
    let below = path.strip_prefix("kernel").ok().filter(|below| !is_there(&path) && is_there(below));
    Some(below.map_or_else(|| path.clone(), Path::to_owned))
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    #[test]
    fn the_lists_of_modules_of_all_times_are_read() {
        let there = ["drivers/a.ko", "kernel/b.ko", "kernel/sub/c.ko"].map(Path::new);
        let path = |line| module_path(line, &|path| there.contains(&path));
        for line in ["kernel/drivers/a.ko", "drivers/a.ko", "drivers/a.o"] {
            assert_eq!(path(line).as_deref(), Some(there[0]), "{line}");
        }
        for line in ["kernel/kernel/b.ko", "kernel/b.ko", "kernel/b.o"] {
            assert_eq!(path(line).as_deref(), Some(there[1]), "{line}");
        }
        assert_eq!(path("kernel/sub/c.o").as_deref(), Some(there[2]));
        assert_eq!(path("drivers/gone.o").as_deref(), Some(Path::new("drivers/gone.ko")));
        assert_eq!(path("nonsense"), None);
    }

    /// A tree with what a build leaves, of no content.
    fn built() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("include/config/auto.conf", "CONFIG_X86_64=y\nCONFIG_MODULES=y\n"),
            (".config", "CONFIG_X86_64=y\n"),
            ("include/generated/utsrelease.h", "#define UTS_RELEASE \"6.6.0-mine\"\n"),
            ("arch/x86/boot/bzImage", ""),
            ("modules.order", "drivers/a.o\n"),
            ("drivers/a.ko", ""),
        ];
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn find(dir: &Path) -> Result<Found, String> {
        KernelTree::new(dir).find().map_err(|error| error.to_string())
    }

    #[test]
    fn a_built_tree_is_found_with_its_parts() {
        let dir = built();
        let found = find(dir.path()).unwrap();
        assert_eq!((found.arch.name, found.release.as_str()), ("x86_64", "6.6.0-mine"));
        assert_eq!(found.modules, [Path::new("drivers/a.ko")]);
        assert_eq!(found.sources.as_deref(), Some(dir.path()));
        let sources = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(sources.path(), dir.path().join("source")).unwrap();
        assert_eq!(find(dir.path()).unwrap().sources, Some(dir.path().join("source")));
    }

    #[rstest::rstest]
    #[case("include/config/auto.conf", "has no `include/config/auto.conf`\nrun `make bzImage modules` there")]
    #[case("include/generated/utsrelease.h", "has no `include/generated/utsrelease.h`")]
    #[case(
        "arch/x86/boot/bzImage",
        "is not built: it has no `arch/x86/boot/bzImage`\nrun `make bzImage modules`"
    )]
    #[case("modules.order", "is not built: it has no `modules.order`")]
    #[case("drivers/a.ko", "is not built: it has no `drivers/a.ko`")]
    fn what_is_not_built_is_named(#[case] missing: &str, #[case] message: &str) {
        let dir = built();
        fs::remove_file(dir.path().join(missing)).unwrap();
        let error = find(dir.path()).unwrap_err();
        assert!(error.contains(message) && error.contains("add `--build`"), "{error}");
    }

    #[test]
    fn what_is_no_tree_or_of_no_known_architecture_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(&dir.path().join("nowhere")).unwrap_err().starts_with("there is no kernel tree `/"));
        assert!(find(dir.path()).unwrap_err().contains("is no kernel tree"));
        fs::write(dir.path().join("Kconfig"), "").unwrap();
        assert!(find(dir.path()).unwrap_err().contains("has no `.config`"));
        let dir = built();
        fs::write(dir.path().join(CONFIG), "CONFIG_IA64=y\n").unwrap();
        assert!(
            find(dir.path())
                .unwrap_err()
                .contains("auto.conf` is for an architecture that kmodlab does not know")
        );
    }
}
