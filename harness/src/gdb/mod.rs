//! gdb on a guest: at QEMU's own stub, which serves on any kernel, with the names that the kernel itself has for its
//! functions (`/proc/kallsyms`), and the debugging information of test modules.

mod module;
mod symbols;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fs_err as fs;

pub use self::symbols::{Orc, Symbols};
use crate::arch::{Arch, BackChain};
use crate::image::cache::Scratch;
use crate::process::{self, Command, Process};

/// The debugger: one for all architectures. The Debian package has the same name.
pub const GDB: &str = "gdb-multiarch";

/// The frames of a backtrace that are shown.
const FRAMES: u32 = 64;

/// What the debugger says when the breakpoint is there and the guest is about to go on.
const READY: &str = "kmodlab: ready";

/// Unwinds what gdb alone does not.
const UNWINDER: &str = include_str!("unwind.py");

/// How a debugger could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// gdb is not there, or cannot be started.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// gdb is not installed.
    #[error("`{GDB}` is not installed\ninstall the package `{GDB}`")]
    Missing,
    /// Its files cannot be written.
    #[error("cannot prepare files for `{GDB}`")]
    Io(#[from] io::Error),
    /// The kernel does not say where its functions are.
    #[error("the guest's /proc/kallsyms names no function")]
    NoSymbols,
    /// There are too many functions for a file.
    #[error("the guest's /proc/kallsyms is too big")]
    TooBig(#[from] object::write::Error),
}

/// What gdb has to know of a guest.
#[derive(Debug)]
pub struct Target {
    /// Its architecture.
    pub arch: Arch,
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// Its functions.
    pub symbols: Symbols,
    /// The modules of which there is a file.
    pub modules: Vec<Module>,
}

/// A module.
#[derive(Debug)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its file, with debugging information if there is some.
    pub file: PathBuf,
    /// Where its sections are, as the guest says; nothing where it is not loaded.
    pub sections: Vec<(String, u64)>,
}

impl Module {
    /// The address of its `struct module`, where it is loaded.
    fn address(&self) -> Option<u64> {
        let section = self.sections.iter().find(|(name, _)| name == ".gnu.linkonce.this_module");
        section.map(|(_, address)| *address)
    }
}

/// A private folder with what gdb reads to attach to a guest, and the socket that it attaches at.
#[derive(Debug)]
pub struct Folder {
    dir: Scratch,
    arch: Arch,
    /// The addresses of loaded modules' `struct module`, by name.
    modules: BTreeMap<String, u64>,
}

impl Folder {
    /// Writes what gdb reads.
    ///
    /// # Errors
    ///
    /// Where the files cannot be written, or nothing is known of the kernel.
    pub fn new(target: &Target) -> Result<Self, Error> {
        if target.symbols.is_empty() {
            return Err(Error::NoSymbols);
        }
        let dir = Scratch::temporary()?;
        let loaded = target.modules.iter().filter(|module| !module.sections.is_empty());
        let known: Vec<&str> = loaded.map(|module| module.name.as_str()).collect();
        fs::write(dir.join("kernel"), target.symbols.elf(target.arch, &known)?)?;
        fs::write(dir.join("unwind.py"), UNWINDER)?;
        for module in &target.modules {
            let elf = module::without_addresses(fs::read(&module.file)?);
            fs::write(dir.join(format!("{}.ko", module.name)), elf)?;
        }
        let address = |module: &Module| Some((module.name.clone(), module.address()?));
        let modules = target.modules.iter().filter_map(address).collect();
        let folder = Folder { dir, arch: target.arch, modules };
        fs::write(folder.script(), script(folder.path(), target))?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The address of the kernel's `struct module` of a module that is loaded and of which there is a file.
    pub fn module(&self, name: &str) -> Option<u64> {
        self.modules.get(name).copied()
    }

    /// Where QEMU is to listen.
    pub fn socket(&self) -> PathBuf {
        self.path().join("socket")
    }

    /// What gdb executes to attach: `gdb-multiarch -x FILE`.
    pub fn script(&self) -> PathBuf {
        self.path().join("attach.gdb")
    }
}

/// The commands that have gdb read the files in `dir` and attach.
fn script(dir: &Path, target: &Target) -> String {
    let mut text = format!("set confirm off\nset pagination off\ncd {}\nfile kernel\n", dir.display());
    for module in target.modules.iter().filter(|module| !module.sections.is_empty()) {
        let _ = write!(text, "add-symbol-file {}.ko", module.name);
        for (name, address) in module.sections.iter().filter(|(name, _)| is_kept(name)) {
            let _ = write!(text, " -s {name} {address:#x}");
        }
        text.push('\n');
    }
    let order = if target.arch.big_endian { "big" } else { "little" };
    let back_chain = target.arch.back_chain.as_ref().map(|chain| {
        let BackChain { register, caller, back, back_in_caller } = chain;
        let in_caller = if *back_in_caller { "True" } else { "False" };
        format!("BackChain('{order}', '{register}', {caller}, {back}, {in_caller})")
    });
    let orc = target.symbols.orc().map(|Orc { places, entries, count }| {
        format!("Orc({places:#x}, {entries:#x}, {count}, {})", orc_kinds(&target.release))
    });
    text.push_str("source unwind.py\n");
    for unwinder in back_chain.into_iter().chain(orc) {
        let _ = writeln!(text, "python gdb.unwinder.register_unwinder(None, {unwinder})");
    }
    text.push_str("target remote socket\n");
    text
}

/// Whether a section is for gdb to know: what only the init function uses has been freed, and the kernel's own copy of the
/// symbols is no section of the file's. The name comes from the guest, and is to be no more than a word.
fn is_kept(section: &str) -> bool {
    ![".init", ".symtab", ".strtab"].iter().any(|part| section.contains(part))
        && section.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The numbers of ORC entries behind a call and behind an interrupt, and the mask of the kind, which changed in 6.4
/// (commit fb799447ae29, "x86,objtool: Split UNWIND_HINT_EMPTY in two").
fn orc_kinds(release: &str) -> &'static str {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or_default());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 4) => "0, 1, 3",
        _ => "2, 3, 7",
    }
}

/// A gdb that waits for a breakpoint, once, and says how it was come to.
#[derive(Debug)]
pub struct Debugger {
    process: Process,
    output: OwnedFd,
    text: Vec<u8>,
    ended: bool,
    _folder: Folder,
}

/// Where to stop.
#[derive(Debug)]
pub struct Breakpoint<'a> {
    /// The function.
    pub function: &'a str,
    /// The address that its first argument must be.
    pub argument: Option<u64>,
}

impl Debugger {
    /// Starts gdb, which attaches to the guest at the folder's socket, puts the breakpoint in, and lets the guest go on.
    /// When the breakpoint is hit, it notes the backtrace, takes the breakpoint out, and lets the guest go on.
    ///
    /// # Errors
    ///
    /// Where gdb is missing or cannot be started. What goes wrong later is in what it says.
    pub fn start(folder: Folder, breakpoint: &Breakpoint<'_>) -> Result<Self, Error> {
        let register = folder.arch.gdb_argument;
        let condition = breakpoint.argument.map(|address| format!(" if {register} == {address:#x}"));
        let condition = condition.unwrap_or_default();
        // A stack that cannot be read to its end must not keep gdb from letting the guest go on.
        let once = format!(
            "set breakpoint pending off\nbreak {}{condition}\necho {READY}\\n\ncontinue\n\
             python\ntry:\n    gdb.execute('backtrace {FRAMES}')\nexcept gdb.error as error:\n    print(error)\nend\n\
             delete\ndetach\n",
            breakpoint.function
        );
        fs::write(folder.path().join("once.gdb"), once)?;
        let (output, theirs) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        rustix::io::ioctl_fionbio(&output, true).map_err(io::Error::from)?;
        let mut command = Command::new(GDB);
        command.args(["-nx", "-batch", "-iex", "set width 0", "-iex", "set auto-load no"]);
        command.arg("-x").arg(folder.script()).arg("-x").arg(folder.path().join("once.gdb"));
        command.env("DEBUGINFOD_URLS", "").dir(folder.path());
        let errors = theirs.try_clone()?;
        let process =
            command.spawn(Stdio::from(theirs), Stdio::from(errors)).map_err(|error| match error {
                process::Error::Missing { .. } => Error::Missing,
                error => error.into(),
            })?;
        Ok(Debugger { process, output, text: Vec::new(), ended: false, _folder: folder })
    }

    /// What it has said, once that can be read.
    pub fn output(&self) -> &OwnedFd {
        &self.output
    }

    /// Takes what it has said since this was last asked.
    ///
    /// # Errors
    ///
    /// Where that cannot be read.
    pub fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while !self.ended {
            match rustix::io::read(&self.output, &mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    self.process.wait()?;
                }
                Ok(count) => self.text.extend(buffer.get(..count).unwrap_or_default()),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Whether the breakpoint is there, and the guest goes on.
    pub fn is_ready(&self) -> bool {
        memchr::memmem::find(&self.text, READY.as_bytes()).is_some()
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.ended
    }

    /// All that it has said.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// The functions of a backtrace in what gdb says, from the innermost outwards.
pub fn frames(text: &str) -> Vec<String> {
    let frame = |line: &str| {
        let (number, rest) = line.strip_prefix('#')?.split_once(' ')?;
        number.parse::<u32>().ok()?;
        let rest = rest.trim_start();
        // `0x… in` is left out where a line of source begins there.
        let call = match rest.strip_prefix("0x").and_then(|rest| rest.split_once(" in ")) {
            Some((_, call)) => call,
            None => rest,
        };
        Some(call.split(" (").next()?.to_owned())
    };
    text.lines().filter_map(frame).collect()
}

#[cfg(test)]
mod tests;
