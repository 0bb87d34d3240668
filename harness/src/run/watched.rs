//! A module watched through its life in a guest: traced from before its load, used, and removed if the kernel lets it go.

use crate::blame::Removal;
use crate::guest::proto::{Port, Run, WriteMode};
use crate::guest::{Answer, Errno, Finished, Guest};
use crate::holders::{SCANNER, Scan};
use crate::scenario::values::TRACING;
use crate::trace::ListedModule;
use crate::trace::ledger::{Ledger, ModuleLedger};

use super::session::{Session, SessionError, kernel_name};

/// The events that count references. Only these are filtered: who depends on a module shows in the other's load.
const COUNTING: [&str; 2] = ["module/module_get", "module/module_put"];

/// The most of a scan that is read, in bytes; 512 holders with long paths fit.
const SCAN_LIMIT: u64 = 4 << 20;

impl Session {
    /// Traces what is done with the references of a module from now on, with stacks.
    ///
    /// # Errors
    ///
    /// Where the kernel has no such events (they need `CONFIG_TRACING` and `CONFIG_MODULE_UNLOAD`), or the guest fails.
    pub fn watch_module(&mut self, name: &str) -> Result<(), SessionError> {
        let name = kernel_name(name);
        let guest = self.guest();
        for event in COUNTING {
            tell(guest, &format!("events/{event}/filter"), &format!("name == \"{name}\""))?;
            tell(guest, &format!("events/{event}/trigger"), &format!("stacktrace if name == \"{name}\""))?;
        }
        tell(guest, "events/module/enable", "1")?;
        tell(guest, "tracing_on", "1")?;
        let pipe = format!("{TRACING}/trace_pipe");
        guest.stream(&pipe, Port::Trace)?.map(drop).map_err(|errno| refused(&pipe, errno))
    }

    /// Runs commands in the guest's shell. What they leave in the background stays.
    ///
    /// # Errors
    ///
    /// Where there is no shell, or the guest fails.
    pub fn shell(&mut self, commands: &str) -> Result<Finished, SessionError> {
        // The agent ends the process group of what it started; a session of its own is out of its reach. A shell would
        // become its last command, and setsid forks where it leads its group: hence the exit after it.
        let argv = ["/bin/sh", "-c", "setsid sh -c \"$0\"; exit $?", commands].map(str::to_owned).to_vec();
        let run = Run { argv, ..Run::default() };
        self.guest().run(run)?.map_err(|errno| refused("/bin/sh", errno))
    }

    /// Tries to remove the module, and says what was traced of it since [`Session::watch_module`]. Where the count is below
    /// its base the attempt would stop the kernel, and is not made.
    ///
    /// # Errors
    ///
    /// Where nothing was traced of the module, or the guest fails.
    pub fn account_for(&mut self, name: &str) -> Result<(ModuleLedger, Option<Removal>), SessionError> {
        let name = kernel_name(name);
        let ledger = self.ledger(&name)?;
        if ledger.use_count.is_some_and(|count| count < 0) {
            return Ok((ledger, None));
        }
        let answer = self.unload(&name, false)?;
        let list = self.guest().read_file("/proc/modules", u64::MAX)?.unwrap_or_default();
        let listed = ListedModule::parse_list(&String::from_utf8_lossy(&list)).unwrap_or_default();
        let removal = Removal { answer, listed: listed.into_iter().find(|module| module.name == name) };
        Ok((self.ledger(&name)?, Some(removal)))
    }

    /// Scans the kernel for what holds the module now, or gives the kernel's reason for not taking the module that scans.
    /// One that is loaded already is asked, and left as it was.
    ///
    /// # Errors
    ///
    /// Where that module was not built for this session, its scan cannot be read, or the guest fails.
    pub fn scan(&mut self, name: &str) -> Result<Answer<Scan>, SessionError> {
        let name = kernel_name(name);
        let text = match self.load(SCANNER, false, &format!("module={name}"), false)?.answer {
            Ok(()) => {
                let text = self.read_scan()?;
                self.unload(SCANNER, false)?.map_err(|errno| refused(SCANNER, errno))?;
                text
            }
            Err(Errno::EEXIST) => {
                let wanted = format!("/sys/module/{SCANNER}/parameters/module");
                let guest = self.guest();
                let before =
                    guest.read_file(&wanted, SCAN_LIMIT)?.map_err(|errno| refused(&wanted, errno))?;
                write(guest, &wanted, name.as_bytes())?;
                let text = self.read_scan();
                // What is empty would not be written at all; the blank around a name is nothing to the module.
                let before = Some(before.trim_ascii_end()).filter(|name| !name.is_empty()).unwrap_or(b"\n");
                write(self.guest(), &wanted, before)?;
                text?
            }
            Err(errno) => return Ok(Err(errno)),
        };
        let scan = Scan::parse(&String::from_utf8_lossy(&text));
        scan.map(Ok).map_err(|error| SessionError::Module(format!("`/proc/{SCANNER}` in the guest: {error}")))
    }

    fn read_scan(&mut self) -> Result<Vec<u8>, SessionError> {
        let path = format!("/proc/{SCANNER}");
        self.guest().read_file(&path, SCAN_LIMIT)?.map_err(|errno| refused(&path, errno))
    }

    fn ledger(&mut self, name: &str) -> Result<ModuleLedger, SessionError> {
        self.guest().sync(Port::Trace)?;
        let mut ledger = Ledger::new(Some(name));
        ledger.push_bytes(&self.guest().streams().trace_bytes());
        let module = ledger.finish().into_iter().next();
        module.ok_or_else(|| SessionError::Module(format!("the kernel traced nothing of module `{name}`")))
    }
}

/// Writes to a file of the tracefs instance.
fn tell(guest: &mut Guest, file: &str, text: &str) -> Result<(), SessionError> {
    write(guest, &format!("{TRACING}/{file}"), text.as_bytes())
}

fn write(guest: &mut Guest, path: &str, bytes: &[u8]) -> Result<(), SessionError> {
    let written = guest.write_file(path, WriteMode::Truncate, 0o644, bytes)?;
    written.map_err(|errno| refused(path, errno))
}

fn refused(path: &str, errno: Errno) -> SessionError {
    SessionError::Module(format!("`{path}` in the guest: {errno}"))
}
