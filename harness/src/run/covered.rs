//! Which code a guest's kernel executes, where it has kcov.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use fs_err as fs;

use super::counts::Error;
use super::session::{Session, SessionError};
use crate::coverage::Coverage;
use crate::coverage::kcov::{Executed, Layout, Lines as Told};
use crate::module::{Code, Lines};

/// Where the kernel offers it (`kernel/kcov.c`).
const KCOV: &str = "/sys/kernel/debug/kcov";
/// The beginning of the kernel's code, among its symbols (`arch/*/kernel/vmlinux.lds.S`).
const BEGINNING: &str = "_stext";
/// What of `/proc/kallsyms` surely has [`BEGINNING`], in bytes: on x86, a few hundred symbols of data come before it.
const KALLSYMS: u64 = 1 << 20;

/// What has been collected in a guest.
#[derive(Debug)]
pub(super) struct Collector {
    /// The offset of the kernel's random base.
    base: u64,
    /// The modules whose code is known, by the kernel's names for them.
    modules: BTreeMap<String, Module>,
    /// Where they were when that was last looked at.
    layout: Layout,
    executed: Executed,
    complete: bool,
    /// Whether the guest is not to be asked now.
    held: bool,
}

#[derive(Debug)]
struct Module {
    elf: Elf,
    code: Code,
    /// Whether it has been loaded at any time.
    seen: bool,
}

#[derive(Debug)]
enum Elf {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Session {
    /// Collects from now on which code is executed.
    pub(super) fn start_cover(&mut self) -> Result<(), Error> {
        let refused = |errno| Error::Refused { path: KCOV.to_owned(), errno };
        self.guest().start_cover()?.map_err(refused)?;
        let mut modules = BTreeMap::new();
        for (name, file) in self.material().debug_files() {
            let code = Code::of(&fs::read(&file)?, self.material().arch())?;
            modules.insert(name, Module { elf: Elf::File(file), code, seen: false });
        }
        let base = self.random_base()?;
        let (layout, executed) = Default::default();
        self.collector = Some(Collector { base, modules, layout, executed, complete: true, held: false });
        Ok(())
    }

    /// The offset of the kernel's random base, which kcov has subtracted from everything.
    fn random_base(&mut self) -> Result<u64, Error> {
        if !self.material().has_config("RANDOMIZE_BASE") {
            return Ok(0);
        }
        let linked = self.material().system_map().ok_or(Error::NoMap)?;
        let linked = symbol(&fs::read_to_string(linked)?, BEGINNING).ok_or(Error::NoBeginning)?;
        let refused = |errno| Error::Refused { path: "/proc/kallsyms".to_owned(), errno };
        let kallsyms = self.guest().read_file("/proc/kallsyms", KALLSYMS)?.map_err(refused)?;
        let placed = symbol(&String::from_utf8_lossy(&kallsyms), BEGINNING);
        Ok(placed.filter(|address| *address != 0).ok_or(Error::NoBeginning)?.wrapping_sub(linked))
    }

    /// Lets it be known that one of the kernel's own modules is about to be loaded. Only those with debug information can be told of.
    pub(super) fn cover_module(&mut self, name: &str, elf: &[u8]) {
        let arch = self.material().arch();
        let Some(collector) = &mut self.collector else { return };
        if !collector.modules.contains_key(name)
            && let Ok(code) = Code::of(elf, arch)
        {
            let module = Module { elf: Elf::Bytes(elf.to_vec()), code, seen: false };
            collector.modules.insert(name.to_owned(), module);
        }
    }

    /// Whether [`Session::take_cover`] has to wait: it has the guest do things, and would meet a breakpoint.
    pub(super) fn hold_cover(&mut self, hold: bool) {
        if let Some(collector) = &mut self.collector {
            collector.held = hold;
        }
    }

    /// Takes over what was executed since this was last done, while it is known which module is where: to be called before
    /// and after modules come and go.
    pub(super) fn take_cover(&mut self) -> Result<(), SessionError> {
        let Some(mut collector) = self.collector.take_if(|collector| !collector.held) else { return Ok(()) };
        let taken = collector.take(self);
        self.collector = Some(collector);
        taken
    }

    /// What a case has executed, as lines, and whether that is all.
    pub(super) fn covered(&mut self, case: &str) -> Result<(Coverage, bool), Error> {
        self.hold_cover(false);
        self.take_cover().map_err(|error| match error {
            SessionError::Guest(error) => Error::Guest(error),
            error => Error::Session(error.to_string()),
        })?;
        let Some(collector) = &self.collector else { return Ok(Default::default()) };
        let mut told = Told::default();
        for (name, module) in collector.modules.iter().filter(|(_, module)| module.seen) {
            let source = |file: &str| self.material().source(name, file);
            module.tell(name, &collector.executed, &source, &mut told)?;
        }
        if collector.executed.kernel().next().is_some() {
            self.material().with_kernel_lines(|lines| {
                for (file, line) in collector.executed.kernel().filter_map(|address| lines.at(address)) {
                    told.line(self.material().source("", file), line, true);
                }
            });
        }
        Ok((told.of_case(case), collector.complete))
    }
}

impl Collector {
    fn take(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let covered = session.guest().cover()?.unwrap_or_default();
        let now = self.look(session)?;
        self.executed.add(&covered.counters, self.base, &[&now, &self.layout]);
        self.complete &= covered.complete;
        self.layout = now.without_init();
        Ok(())
    }

    /// Where the modules are now.
    fn look(&mut self, session: &mut Session) -> Result<Layout, SessionError> {
        let mut now = Layout::default();
        for (name, module) in &mut self.modules {
            let Some(first) = module.code.sections.iter().find(|section| !section.name.starts_with(".init"))
            else {
                continue;
            };
            let Some(start) = session.section(name, &first.name)? else { continue };
            if self.layout.start(name, &first.name) == Some(start) {
                now.extend(self.layout.of(name));
                continue;
            }
            module.seen = true;
            for section in &module.code.sections {
                if let Some(start) = session.section(name, &section.name)? {
                    now.add(name, &section.name, start, section.size);
                }
            }
        }
        Ok(now)
    }
}

impl Module {
    /// Tells of all lines that could have been executed which were.
    fn tell(
        &self,
        name: &str,
        executed: &Executed,
        source: &dyn Fn(&str) -> PathBuf,
        told: &mut Told,
    ) -> Result<(), Error> {
        let lines = match &self.elf {
            Elf::File(file) => Lines::read(&fs::read(file)?)?,
            Elf::Bytes(bytes) => Lines::read(bytes)?,
        };
        // Many lines are of few files.
        let mut sources: HashMap<String, PathBuf> = HashMap::new();
        let mut source = |file: &str| match sources.get(file) {
            Some(source) => source.clone(),
            None => sources.entry(file.to_owned()).or_insert(source(file)).clone(),
        };
        let places = self.code.calls.iter().map(|place| (place, false));
        for (place, executed) in places.chain(executed.of(name).map(|place| (place, true))) {
            if let Some((file, line)) = lines.in_section(&place.section, place.offset) {
                told.line(source(file), line, executed);
            }
        }
        for function in &self.code.functions {
            let start = &function.start;
            let begin = start.offset.saturating_add(self.code.room.min(function.size.saturating_sub(1)));
            let Some((file, line)) = lines.in_section(&start.section, begin) else { continue };
            let is_executed = executed.of(name).any(|place| function.has(place));
            if is_executed || self.code.calls.iter().any(|place| function.has(place)) {
                told.function(source(file), &function.name, line, is_executed);
            }
        }
        Ok(())
    }
}

/// The address of a symbol, in a list like `/proc/kallsyms` or `System.map`.
fn symbol(list: &str, name: &str) -> Option<u64> {
    list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?;
        (words.nth(1)? == name).then(|| u64::from_str_radix(address, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_is_found_by_its_whole_name() {
        let list = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext_not\n\
                    ffffffff81000040 T _stext\nffffffffc0000000 t _stext\t[m]\n";
        assert_eq!(symbol(list, BEGINNING), Some(0xffff_ffff_8100_0040));
        assert_eq!(symbol(list, "_etext"), None);
        assert_eq!(symbol("nonsense\n\n", BEGINNING), None);
    }
}
