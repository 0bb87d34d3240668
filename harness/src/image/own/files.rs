//! A kernel's files: the boot file, its modules, and what modules are built against.

use std::io;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use fs_err as fs;

use super::{Error, Found, expect_dir, headers_release, module_release, read_if_there};
use crate::arch::Arch;
use crate::image::kconfig::KernelConfig;
use crate::image::kernel::{self, BootMachine, Tuned};

/// A kernel as files, as the command line names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFiles {
    /// The boot file.
    pub kernel: PathBuf,
    /// The directory of modules, as `/lib/modules/RELEASE`.
    pub modules: Option<PathBuf>,
    /// What modules are built against, for `make -C`. By default, what `build` in the directory of modules leads to.
    pub headers: Option<PathBuf>,
}

impl KernelFiles {
    /// Looks at the files.
    ///
    /// # Errors
    ///
    /// Where one is missing, or they do not belong together.
    pub fn find(&self) -> Result<Found, Error> {
        let boot_file = absolute(&self.kernel);
        if !boot_file.is_file() {
            return Err(Error::Missing { what: "kernel", path: boot_file });
        }
        let bytes = fs::read(&boot_file)?;
        let no_kernel = |why: &str| Error::NoKernel { file: boot_file.clone(), why: why.to_owned() };
        let release =
            kernel::boot_release(&bytes).ok_or_else(|| no_kernel("no kernel's release is found in it"))?;
        let (modules_dir, modules) = self.modules(&boot_file, &release)?;
        let headers = self.headers(&boot_file, &release)?;
        let (config_file, config) = self.config(&boot_file, &bytes, headers.as_deref(), &release)?;
        let arch = Arch::of_config(&KernelConfig::parse(&config))
            .ok_or_else(|| Error::UnknownArch { config: config_file.clone() })?;
        if let Some(machine) = kernel::machine(&bytes).filter(|machine| !is_for(*machine, arch)) {
            let found = Arch::all().find(|arch| is_for(machine, *arch));
            let found = found.map_or_else(
                || format!("another architecture (ELF machine {})", machine.elf_machine),
                |arch| arch.to_string(),
            );
            return Err(Error::OtherArch { file: boot_file, found, of: config_file, wanted: arch });
        }
        Ok(Found {
            arch,
            release,
            boot_file,
            config,
            builtin: read_if_there(&modules_dir.join("modules.builtin"))?.unwrap_or_default(),
            modules_dir,
            modules,
            headers,
            sources: None,
        })
    }

    /// The modules, by their paths below the directory that was named.
    fn modules(&self, kernel: &Path, release: &str) -> Result<(PathBuf, Vec<PathBuf>), Error> {
        let Some(dir) = self.modules.as_deref().map(absolute) else {
            return Ok((PathBuf::from("/nonexistent"), Vec::new()));
        };
        expect_dir("directory of modules", &dir)?;
        let mut modules = Vec::new();
        collect(&dir, Path::new(""), &mut modules)?;
        modules.sort();
        let first = modules.first();
        let found = first.map(|module| module_release(&dir.join(module))).transpose()?.flatten();
        match found {
            Some(found) if found == release => Ok((dir, modules)),
            Some(found) => Err(Error::OtherRelease {
                remedy: format!("name the directory of its own modules, such as `/lib/modules/{release}`"),
                path: dir,
                found,
                kernel: kernel.to_owned(),
                wanted: release.to_owned(),
            }),
            None => Err(Error::NoModules { dir, release: release.to_owned() }),
        }
    }

    fn headers(&self, kernel: &Path, release: &str) -> Result<Option<PathBuf>, Error> {
        let named = self.headers.as_deref().map(absolute);
        let linked = || Some(absolute(self.modules.as_deref()?).join("build")).filter(|dir| dir.is_dir());
        let Some(dir) = named.or_else(linked) else { return Ok(None) };
        expect_dir("directory of headers", &dir)?;
        match headers_release(&dir)? {
            Some(found) if found == release => Ok(Some(dir)),
            Some(found) => Err(Error::OtherRelease {
                remedy: "name the headers of that release: modules built against others do not load"
                    .to_owned(),
                path: dir,
                found,
                kernel: kernel.to_owned(),
                wanted: release.to_owned(),
            }),
            None => Err(Error::NoHeaders { dir, release: release.to_owned() }),
        }
    }

    /// The configuration, with the file that it was found in.
    fn config(
        &self,
        kernel: &Path,
        bytes: &[u8],
        headers: Option<&Path>,
        release: &str,
    ) -> Result<(PathBuf, String), Error> {
        let modules = self.modules.as_deref().map(absolute);
        let places = [
            headers.map(|dir| dir.join(".config")),
            modules.map(|dir| dir.join("config")),
            kernel.parent().map(|dir| dir.join(format!("config-{release}"))),
        ];
        for place in places.into_iter().flatten() {
            if let Some(text) = read_if_there(&place)? {
                return Ok((place, text));
            }
        }
        let unpacked = match kernel::tune(bytes, Some(0)) {
            Tuned::Made(kernel) => config_in(&kernel),
            Tuned::Fastest | Tuned::AsIs(_) => config_in(bytes),
        };
        let missing = || Error::NoConfig { kernel: kernel.to_owned(), release: release.to_owned() };
        unpacked.map(|text| (kernel.to_owned(), text)).ok_or_else(missing)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn is_for(machine: BootMachine, arch: Arch) -> bool {
    machine.elf_machine == arch.elf_machine && machine.big_endian.is_none_or(|big| big == arch.big_endian)
}

/// The configuration that a kernel has in itself (`CONFIG_IKCONFIG`, the kernel's `kernel/configs.c`).
fn config_in(kernel: &[u8]) -> Option<String> {
    const START: &[u8] = b"IKCFG_ST";
    let start = memchr::memmem::find(kernel, START)? + START.len();
    let mut text = Vec::new();
    // A kernel's configuration has some 300 KB; the limit is for what only looks like one.
    io::copy(&mut io::Read::take(GzDecoder::new(kernel.get(start..)?), 16 << 20), &mut text).ok()?;
    String::from_utf8(text).ok()
}

/// Adds the modules below `dir`. Links to directories (`build`, `source`) are not followed.
fn collect(root: &Path, dir: &Path, modules: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(dir))? {
        let entry = entry?;
        let (path, kind) = (dir.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            collect(root, &path, modules)?;
        } else if is_module(&path) {
            modules.push(path);
        }
    }
    Ok(())
}

fn is_module(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_inside_a_kernel_is_found() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gz, b"CONFIG_X86_64=y\n").unwrap();
        let kernel = [b"code IKCFG_ST".as_slice(), &gz.finish().unwrap(), b"IKCFG_ED more"].concat();
        assert_eq!(config_in(&kernel).as_deref(), Some("CONFIG_X86_64=y\n"));
        assert_eq!(config_in(b"code IKCFG_ST no gzip"), None);
        assert_eq!(config_in(b"code"), None);
    }

    #[test]
    fn files_that_are_not_there_or_are_none_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            |kernel: &str| KernelFiles { kernel: dir.path().join(kernel), modules: None, headers: None };
        let error = |files: KernelFiles| files.find().unwrap_err().to_string();
        assert!(error(files("vmlinuz")).starts_with("there is no kernel `/"));
        fs::write(dir.path().join("text"), "some text").unwrap();
        assert!(
            error(files("text")).contains("is no kernel that kmodlab can boot: no kernel's release is found")
        );
        fs::write(dir.path().join("vmlinux"), "Linux version 6.6.0-mine (me)").unwrap();
        let told = error(files("vmlinux"));
        assert!(told.contains("put the configuration beside it as `config-6.6.0-mine`"), "{told}");
        let nowhere = dir.path().join("nowhere");
        let with_modules = KernelFiles { modules: Some(nowhere.clone()), ..files("vmlinux") };
        assert!(error(with_modules).starts_with("there is no directory of modules"));
        fs::create_dir(&nowhere).unwrap();
        let with_modules = KernelFiles { modules: Some(nowhere.clone()), ..files("vmlinux") };
        assert!(
            error(with_modules)
                .contains("has no modules: name a directory such as `/lib/modules/6.6.0-mine`")
        );
        let with_headers = KernelFiles { headers: Some(nowhere.clone()), ..files("vmlinux") };
        assert!(error(with_headers).contains("no folder that modules are built against"));
        fs::create_dir_all(nowhere.join("include/generated")).unwrap();
        let header = nowhere.join("include/generated/utsrelease.h");
        fs::write(header, "#define UTS_RELEASE \"6.5.0\"\n").unwrap();
        let with_headers = KernelFiles { headers: Some(nowhere), ..files("vmlinux") };
        assert!(error(with_headers).contains("is of release 6.5.0, but the kernel"));
    }
}
