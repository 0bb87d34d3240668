//! From a place in a function to lines of source, by the debug information (DWARF) of a module or kernel.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use addr2line::Context;
use gimli::{Dwarf, EndianArcSlice, RunTimeEndian, SectionId};
use object::{
    Architecture, Object, ObjectKind, ObjectSection, ObjectSymbol, RelocationKind, RelocationTarget,
    SectionIndex, SectionKind, SymbolKind,
};

/// A line of source that an instruction comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The function, which may be one that was inlined into the one asked for.
    pub function: String,
    /// The file, as the debug information has it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// Why there are no lines to be had.
#[derive(Debug, thiserror::Error)]
pub enum NoLines {
    /// It is no ELF file, or is damaged.
    #[error("cannot read the ELF file: {0}")]
    Elf(#[from] object::Error),
    /// The debug information is damaged.
    #[error("cannot read the debug information: {0}")]
    Dwarf(#[from] gimli::Error),
}

/// A file with debug information.
pub struct Lines {
    context: Context<EndianArcSlice<RunTimeEndian>>,
    functions: Vec<Function>,
    /// Where sections of code are taken to be, by name.
    sections: BTreeMap<String, u64>,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("functions", &self.functions.len()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Function {
    name: String,
    address: u64,
    size: u64,
}

/// The sections of a relocatable file have no addresses; they get some, one after the other from here on.
const FIRST: u64 = 0x1_0000;

impl Lines {
    /// Reads a module (`NAME.ko` with debug information) or a kernel (`vmlinux`).
    ///
    /// # Errors
    ///
    /// Where the file is damaged. One without debug information has no lines.
    pub fn read(elf: &[u8]) -> Result<Self, NoLines> {
        let file = object::File::parse(elf)?;
        let bases = Bases::of(&file);
        let code = file.sections().filter(|section| section.kind() == SectionKind::Text);
        let sections = code.filter_map(|of| Some((of.name().ok()?.to_owned(), bases.base(of.index()))));
        let sections = sections.collect();
        let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let load = |id: SectionId| -> Result<_, gimli::Error> {
            let data = file.section_by_name(id.name()).map(|section| bases.relocated(&file, &section));
            Ok(EndianArcSlice::new(Arc::from(data.unwrap_or_default()), endian))
        };
        let context = Context::from_dwarf(Dwarf::load(load)?)?;
        let thumb = if file.architecture() == Architecture::Arm { 1 } else { 0 };
        let functions =
            file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text).filter_map(|symbol| {
                let base = symbol.section_index().map_or(0, |section| bases.base(section));
                // The lowest bit of an address says that the function is Thumb code.
                let address = (symbol.address() & !thumb).checked_add(base)?;
                Some(Function { name: symbol.name().ok()?.to_owned(), address, size: symbol.size() })
            });
        Ok(Lines { context, functions: functions.collect(), sections })
    }

    /// The file and the line that the code at an address of a kernel comes from; of inlined functions the innermost.
    pub fn at(&self, address: u64) -> Option<(&str, u32)> {
        // addr2line looks for what is before the next address.
        let address = Some(address).filter(|address| *address < u64::MAX)?;
        let location = self.context.find_location(address).ok()??;
        Some((location.file?, location.line.filter(|line| *line > 0)?))
    }

    /// As [`Lines::at`], of a place in a module.
    pub fn in_section(&self, section: &str, offset: u64) -> Option<(&str, u32)> {
        self.at(self.sections.get(section)?.checked_add(offset)?)
    }

    /// The lines that the instruction `offset` bytes into a function comes from, those of inlined functions first; none
    /// where it is not known, or several functions have that name and could be meant. `size` is the function's, up to the
    /// next one.
    pub fn find(&self, function: &str, offset: u64, size: u64) -> Vec<SourceLine> {
        let Some(address) = self.address(function, offset, size) else { return Vec::new() };
        let Ok(mut frames) = self.context.find_frames(address).skip_all_loads() else { return Vec::new() };
        let mut lines = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let Some(location) = frame.location else { continue };
            let (Some(file), Some(line)) = (location.file, location.line) else { continue };
            let name = frame.function.and_then(|name| name.raw_name().ok().map(|name| name.into_owned()));
            lines.push(SourceLine {
                function: name.unwrap_or_else(|| function.to_owned()),
                file: file.to_owned(),
                line,
            });
        }
        lines
    }

    fn address(&self, name: &str, offset: u64, size: u64) -> Option<u64> {
        // The entry points of big-endian ppc64 have a dot before their name.
        let named = |of: &&Function| of.name.trim_start_matches('.') == name.trim_start_matches('.');
        let fits = |of: &&Function| of.size > offset && of.size <= size;
        let mut all = self.functions.iter().filter(named).filter(fits);
        let first = all.next()?;
        if all.any(|other| other.address != first.address) { None } else { first.address.checked_add(offset) }
    }
}

/// Where sections are taken to be.
struct Bases(Vec<u64>);

impl Bases {
    fn of(file: &object::File<'_>) -> Self {
        let mut bases = Vec::new();
        let mut next = FIRST;
        for section in file.sections().filter(|_| file.kind() == ObjectKind::Relocatable) {
            let index = section.index().0;
            bases.resize(bases.len().max(index + 1), 0);
            let align = section.align().clamp(1, 1 << 12).next_power_of_two();
            if section.kind() == SectionKind::Text
                && let Some(base) = next.checked_next_multiple_of(align)
                && let Some(place) = bases.get_mut(index)
            {
                *place = base;
                next = base.saturating_add(section.size());
            }
        }
        Bases(bases)
    }

    fn base(&self, section: SectionIndex) -> u64 {
        self.0.get(section.0).copied().unwrap_or(0)
    }

    /// A section's bytes with what refers to other sections filled in.
    fn relocated(&self, file: &object::File<'_>, section: &object::Section<'_, '_>) -> Vec<u8> {
        let mut bytes = section.uncompressed_data().unwrap_or_default().into_owned();
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let Ok(symbol) = file.symbol_by_index(symbol) else { continue };
            let (RelocationKind::Absolute, size @ (32 | 64)) = (relocation.kind(), relocation.size()) else {
                continue;
            };
            let Ok(at) = usize::try_from(offset) else { continue };
            let length = usize::from(size / 8);
            let Some(field) = at.checked_add(length).and_then(|end| bytes.get_mut(at..end)) else { continue };
            let base = symbol.section_index().map_or(0, |section| self.base(section));
            let mut value = base.wrapping_add(symbol.address()).wrapping_add_signed(relocation.addend());
            if relocation.has_implicit_addend() {
                value = value.wrapping_add(number(field, file.is_little_endian()));
            }
            write(field, value, file.is_little_endian());
        }
        bytes
    }
}

/// The number of at most eight bytes.
fn number(bytes: &[u8], little: bool) -> u64 {
    let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    if little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) }
}

fn write(field: &mut [u8], value: u64, little: bool) {
    let length = field.len();
    for (at, byte) in field.iter_mut().enumerate() {
        let shift = if little { at } else { length - 1 - at } * 8;
        *byte = u8::try_from(value >> shift & 0xff).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for little in [true, false] {
            for length in [4, 8] {
                let mut field = vec![0; length];
                write(&mut field, 0x8765_4321, little);
                assert_eq!(number(&field, little), 0x8765_4321);
            }
        }
        let mut field = [0; 4];
        write(&mut field, 1, false);
        assert_eq!(field, [0, 0, 0, 1]);
    }

    #[test]
    fn a_file_that_is_none_is_told() {
        assert!(matches!(Lines::read(b"no ELF"), Err(NoLines::Elf(_))));
    }

    /// This test's own program: an executable with debug information.
    #[test]
    fn lines_of_an_executable_are_found() {
        let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let lines = Lines::read(&elf).unwrap();
        let main = lines.functions.iter().find(|function| function.name == "main").unwrap();
        assert_eq!(lines.address("main", 0, main.size + 8), Some(main.address));
        assert_eq!(lines.find("no_such_function", 0, 8), []);
        let own = lines.functions.iter().filter(|of| of.name.contains("lines_of_an_executable_are_found"));
        let mut middles =
            own.map(|own| (own.address + own.size / 2, lines.find(&own.name, own.size / 2, own.size)));
        let (middle, found) = middles.find(|(_, found)| !found.is_empty()).unwrap();
        assert!(found.iter().any(|line| line.line > 0), "{found:?}");
        assert_eq!(lines.at(middle), Some((found[0].file.as_str(), found[0].line)));
        assert_eq!(lines.at(u64::MAX), None);
        assert_eq!(lines.in_section(".no.such", 0), None);
    }
}
