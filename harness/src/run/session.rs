//! A guest together with the modules that can be loaded into it.

use super::covered::Collector;
use super::event::Start;
use super::material::{Material, ModuleFile};
use crate::gdb;
use crate::guest::proto::WriteMode;
use crate::guest::{self, Answer, Errno, Guest};
use crate::image::depmod::{Index, ModInfo};

/// Where modules lie in the guest, apart from those that its modprobe finds.
const MODULES: &str = "/run/modules";

/// The most that is read of `/proc/kallsyms`, in bytes; a kernel of a distribution has some 10 MB there.
const KALLSYMS: u64 = 64 << 20;

/// `MODULE_INIT_IGNORE_MODVERSIONS | MODULE_INIT_IGNORE_VERMAGIC` (`include/uapi/linux/module.h`).
const FORCE_LOAD: u32 = 1 | 2;

/// A running guest, and modules for it.
pub struct Session {
    guest: Guest,
    start: Start,
    material: Material,
    /// The modules that the guest's modprobe finds.
    pushed: Index,
    /// Which code is executed, where that is collected.
    pub(super) collector: Option<Collector>,
}

/// Why a module did not get into the guest.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The guest or its agent failed.
    #[error(transparent)]
    Guest(#[from] guest::Error),
    /// There is no such module, or it cannot be put into the guest.
    #[error("{0}")]
    Module(String),
    /// A debugger cannot be used.
    #[error(transparent)]
    Gdb(#[from] gdb::Error),
}

/// The kernel's answer to loading a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The module that the answer is about: the one asked for, or one that it needs and that did not load.
    pub module: String,
    /// The answer.
    pub answer: Answer<()>,
}

impl Session {
    pub(super) fn new(guest: Guest, start: Start, material: Material) -> Self {
        Session { guest, start, material, pushed: Index::default(), collector: None }
    }

    /// The guest.
    pub fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    /// How the guest came up.
    pub fn start(&self) -> Start {
        self.start
    }

    /// Loads a module; one of the kernel's own (`in_tree`) after those that it needs. `params` are as insmod takes them;
    /// with `force`, version magic and symbol versions are not looked at.
    ///
    /// # Errors
    ///
    /// Where there is no such module, it is built into the kernel, or the guest fails. What the kernel answers is no
    /// error here.
    pub fn load(
        &mut self,
        name: &str,
        in_tree: bool,
        params: &str,
        force: bool,
    ) -> Result<Loaded, SessionError> {
        let mut files = self.material.files(name, in_tree).map_err(SessionError::Module)?;
        let file = files.pop().ok_or_else(|| {
            SessionError::Module(format!("`{name}` is built into this kernel, so that it cannot be loaded"))
        })?;
        // Whoever loads a test module says in which order.
        for needed in files.iter().filter(|_| in_tree) {
            match self.load_file(needed, "", 0)? {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Ok(Loaded { module: needed.name.clone(), answer: Err(errno) }),
            }
        }
        let answer = self.load_file(&file, params, if force { FORCE_LOAD } else { 0 })?;
        Ok(Loaded { module: file.name, answer })
    }

    /// Loads the module in `bytes`, by itself.
    ///
    /// # Errors
    ///
    /// Where the guest fails. What the kernel answers is no error here.
    pub fn load_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<Answer<()>, SessionError> {
        self.load_file(&ModuleFile { name: kernel_name(name), bytes: bytes.to_vec() }, "", 0)
    }

    fn load_file(&mut self, file: &ModuleFile, params: &str, flags: u32) -> Result<Answer<()>, SessionError> {
        let path = format!("{MODULES}/{}.ko", file.name);
        self.put(&path, &file.bytes)?;
        self.cover_module(&file.name, &file.bytes);
        self.take_cover()?;
        let answer = self.guest.load_module(&path, params, flags)?;
        self.take_cover()?;
        Ok(answer)
    }

    /// Removes a module.
    ///
    /// # Errors
    ///
    /// Where the guest fails. What the kernel answers is no error here.
    pub fn unload(&mut self, name: &str, force: bool) -> Result<Answer<()>, SessionError> {
        let answer = self.guest.unload_module(&kernel_name(name), force)?;
        self.take_cover()?;
        Ok(answer)
    }

    /// Puts a module, and those that it needs, where the guest's modprobe finds them.
    ///
    /// # Errors
    ///
    /// Where there is no such module, or the guest fails.
    pub fn push(&mut self, name: &str, in_tree: bool) -> Result<(), SessionError> {
        let release = self.guest.hello().map(|hello| hello.release.clone()).unwrap_or_default();
        let dir = format!("/lib/modules/{release}");
        for file in self.material.files(name, in_tree).map_err(SessionError::Module)? {
            let path = format!("{}.ko", file.name);
            if self.pushed.add(&path, ModInfo::of(&file.bytes).unwrap_or_default()) {
                self.put(&format!("{dir}/{path}"), &file.bytes)?;
            }
        }
        let (dependencies, aliases) = (self.pushed.dep(), self.pushed.alias());
        self.put(&format!("{dir}/modules.dep"), dependencies.as_bytes())?;
        self.put(&format!("{dir}/modules.alias"), aliases.as_bytes())
    }

    /// Has QEMU serve gdb, and writes what gdb needs to know of the guest as it is now: its functions, and the test
    /// modules that are loaded.
    ///
    /// # Errors
    ///
    /// Where the guest fails, or the files cannot be written.
    pub fn debug(&mut self) -> Result<gdb::Folder, SessionError> {
        let release = self.guest.hello().map(|hello| hello.release.clone()).unwrap_or_default();
        let mut modules = Vec::new();
        for (name, file) in self.material.debug_files() {
            let sections = self.sections(&name)?;
            modules.push(gdb::Module { name, file, sections });
        }
        let kallsyms = self.guest.read_file("/proc/kallsyms", KALLSYMS)?.map_err(|errno| {
            SessionError::Module(format!("cannot read `/proc/kallsyms` in the guest: {errno}"))
        })?;
        let symbols = gdb::Symbols::parse(&String::from_utf8_lossy(&kallsyms));
        let target = gdb::Target { arch: self.material.arch(), release, symbols, modules };
        let folder = gdb::Folder::new(&target)?;
        self.guest.serve_gdb(&folder.socket())?;
        Ok(folder)
    }

    /// Where a loaded module's sections are; nothing where it is not loaded.
    fn sections(&mut self, name: &str) -> Result<Vec<(String, u64)>, SessionError> {
        let dir = format!("/sys/module/{name}/sections");
        let Ok(listed) = self.guest.list(&dir)? else { return Ok(Vec::new()) };
        let mut sections = Vec::new();
        for entry in listed {
            let section = String::from_utf8_lossy(&entry.name).into_owned();
            if let Some(address) = self.section(name, &section)? {
                sections.push((section, address));
            }
        }
        Ok(sections)
    }

    /// Where one of a loaded module's sections is; nothing where it is not loaded, or has no such section.
    pub(super) fn section(&mut self, name: &str, section: &str) -> Result<Option<u64>, SessionError> {
        let path = format!("/sys/module/{name}/sections/{section}");
        let text = self.guest.read_file(&path, 64)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let address = text.trim().strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
        Ok(address.and_then(Result::ok))
    }

    /// Puts a file of the host's into the guest, with the directories that lead to it.
    fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), SessionError> {
        let refused =
            |errno: Errno| SessionError::Module(format!("cannot write `{path}` in the guest: {errno}"));
        let mut written = self.guest.write_file(path, WriteMode::Truncate, 0o644, bytes)?;
        if written == Err(Errno::ENOENT) {
            for (end, _) in path.match_indices('/').skip(1) {
                match self.guest.make_dir(&path[..end])? {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(refused(errno)),
                }
            }
            written = self.guest.write_file(path, WriteMode::Truncate, 0o644, bytes)?;
        }
        written.map_err(refused)
    }
}

/// A module's name as the kernel has it, whatever its file is called (`scripts/Makefile.lib`, `name-fix`). The module may
/// be given by its source's path.
pub(super) fn kernel_name(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or_default();
    file.strip_suffix(".c").unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_kernel_has_them() {
        assert_eq!(kernel_name("snd-usb-audio"), "snd_usb_audio");
        assert_eq!(kernel_name("samples/trace_printk/trace-printk.c"), "trace_printk");
    }
}
