//! Where a module's own code takes and gives references to modules, read from the relocations of its ELF file.
//!
//! Every call that leaves a module is a relocation against the callee's name, and so is every field that a table
//! initialises with `THIS_MODULE`: no instruction needs to be understood, so that this serves all architectures.

use std::collections::BTreeSet;

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolIndex, SymbolKind};
use serde::Serialize;

/// Functions that take a reference (`include/linux/module.h`, `kernel/module/main.c`).
const TAKE: [&str; 4] = ["try_module_get", "__module_get", "__symbol_get", "ref_module"];
/// Functions that give one back. The last two were one before and after Linux 5.17 (ca3574bd653a).
const GIVE: [&str; 5] = [
    "module_put",
    "__symbol_put",
    "symbol_put_addr",
    "__module_put_and_kthread_exit",
    "__module_put_and_exit",
];
/// Parameters say whose they are, too (`struct kernel_param`), but using one takes no reference that lasts.
const PARAMETERS: &str = "__param";
/// Code for ppc64 does not name a variable that is elsewhere, but the place in this table that has its address; the linker of
/// modules, the kernel, fills it in (`arch/powerpc/kernel/module_64.c`).
const ADDRESSES: &str = ".toc";
/// What `THIS_MODULE` is.
const THIS_MODULE: &str = "__this_module";

/// What a module does to counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Callers {
    /// Its own calls, by function and offset.
    pub calls: Vec<Call>,
    /// Its tables that say whose they are: the kernel takes references for their users.
    pub owners: Vec<Owner>,
    /// The functions that hand the module itself to others, as `register_chrdev` does, or look at its count.
    pub users: Vec<String>,
}

/// Whether a call takes a reference or gives one back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It takes one.
    Take,
    /// It gives one back.
    Give,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Call {
    /// The function that calls; a section's name where no symbol covers the place.
    pub function: String,
    /// How far into that, in bytes.
    pub offset: u64,
    /// The function called.
    pub callee: String,
    /// What that does.
    pub direction: Direction,
}

/// A field that points at the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Owner {
    /// The variable that has it.
    pub table: String,
    /// Where in that, in bytes.
    pub offset: u64,
}

impl Callers {
    /// Reads a module's ELF file (`NAME.ko`, decompressed).
    ///
    /// # Errors
    ///
    /// It is no ELF file, or is damaged.
    pub fn of(elf: &[u8]) -> Result<Self, object::Error> {
        let file = object::File::parse(elf)?;
        let targets = Targets::new(&file);
        let places = Places::new(&file);
        let mut found = Callers::default();
        let mut users = BTreeSet::new();
        // Of the many relocations of a large module few are of interest; only for those is it worth finding the place.
        for section in file.sections() {
            let is_text = section.kind() == SectionKind::Text;
            let is_data = matches!(
                section.kind(),
                SectionKind::Data | SectionKind::ReadOnlyData | SectionKind::ReadOnlyDataWithRel
            );
            if !is_text && (!is_data || section.name() == Ok(PARAMETERS)) {
                continue;
            }
            for (offset, relocation) in section.relocations() {
                match targets.of(&relocation) {
                    Some(Target::Counting(symbol, direction)) if is_text => {
                        let (function, offset) = places.at(&section, offset);
                        let callee = name(&file, symbol).to_owned();
                        found.calls.push(Call { function, offset, callee, direction });
                    }
                    Some(Target::Module) if is_text => {
                        users.insert(places.at(&section, offset).0);
                    }
                    Some(Target::Module) if places.has(&section, offset) => {
                        let (table, offset) = places.at(&section, offset);
                        found.owners.push(Owner { table, offset });
                    }
                    _ => {}
                }
            }
        }
        found.calls.sort();
        found.owners.sort();
        found.users = users.into_iter().collect();
        Ok(found)
    }
}

/// What a relocation may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// A function that takes references or gives them back.
    Counting(SymbolIndex, Direction),
    /// `THIS_MODULE`.
    Module,
    /// The table of addresses, at this place of it.
    Addresses(u64),
}

/// The symbols of interest.
struct Targets {
    /// By the symbols' indices.
    symbols: Vec<Option<Target>>,
    /// Where the table of addresses has that of `THIS_MODULE`, in bytes.
    module_at: BTreeSet<u64>,
}

impl Targets {
    fn new(file: &object::File<'_>) -> Self {
        let table = file.section_by_name(ADDRESSES);
        let mut symbols = Vec::new();
        for symbol in file.symbols() {
            let in_table = table.as_ref().is_some_and(|table| symbol.section_index() == Some(table.index()));
            let target = match symbol.name() {
                Ok(THIS_MODULE) => Some(Target::Module),
                _ if in_table => Some(Target::Addresses(symbol.address())),
                Ok(name) => direction(name).map(|direction| Target::Counting(symbol.index(), direction)),
                Err(_) => None,
            };
            if target.is_some() {
                symbols.resize(symbols.len().max(symbol.index().0 + 1), None);
                if let Some(place) = symbols.get_mut(symbol.index().0) {
                    *place = target;
                }
            }
        }
        let mut targets = Targets { symbols, module_at: BTreeSet::new() };
        if let Some(table) = table {
            let own = table.relocations().filter(|(_, entry)| targets.of(entry) == Some(Target::Module));
            let own: BTreeSet<u64> = own.map(|(offset, _)| offset).collect();
            targets.module_at = own;
        }
        targets
    }

    /// What a relocation is for, directly or through the table of addresses.
    fn of(&self, relocation: &object::Relocation) -> Option<Target> {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { return None };
        match *self.symbols.get(symbol.0)? {
            Some(Target::Addresses(start)) => {
                let entry = start.wrapping_add_signed(relocation.addend());
                self.module_at.contains(&entry).then_some(Target::Module)
            }
            target => target,
        }
    }
}

fn direction(callee: &str) -> Option<Direction> {
    // The entry points of big-endian ppc64 have a dot before their name.
    let callee = callee.trim_start_matches('.');
    if TAKE.contains(&callee) {
        Some(Direction::Take)
    } else {
        GIVE.contains(&callee).then_some(Direction::Give)
    }
}

fn name<'a>(file: &object::File<'a>, symbol: SymbolIndex) -> &'a str {
    file.symbol_by_index(symbol).and_then(|symbol| symbol.name()).unwrap_or("")
}

/// Functions and variables, sorted by where they are.
struct Places<'a>(Vec<Place<'a>>);

struct Place<'a> {
    section: usize,
    start: u64,
    end: u64,
    name: &'a str,
}

impl<'a> Places<'a> {
    fn new(file: &object::File<'a>) -> Self {
        let symbols = file.symbols().filter_map(|symbol| {
            let wanted = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data) && symbol.size() > 0;
            // The lowest bit of an address says that the function is Thumb code.
            let thumb = u64::from(
                file.architecture() == object::Architecture::Arm && symbol.kind() == SymbolKind::Text,
            );
            let start = symbol.address() & !thumb;
            Some(Place {
                section: symbol.section_index().filter(|_| wanted)?.0,
                start,
                end: start.saturating_add(symbol.size()),
                name: symbol.name().ok().filter(|name| *name != THIS_MODULE)?,
            })
        });
        let mut places: Vec<_> = symbols.collect();
        places.sort_by_key(|place| (place.section, place.start));
        Places(places)
    }

    /// The innermost that covers a place. One may be within another, but not far behind its start.
    fn find(&self, section: usize, offset: u64) -> Option<&Place<'a>> {
        const ASIDE: usize = 8;
        let after = self.0.partition_point(|place| (place.section, place.start) <= (section, offset));
        let before = self.0.get(..after)?.iter().rev().take(ASIDE);
        before.filter(|place| place.section == section).find(|place| offset < place.end)
    }

    fn has(&self, section: &object::Section<'_, '_>, offset: u64) -> bool {
        self.find(section.index().0, offset).is_some()
    }

    /// The symbol that covers a place, and how far into it that is.
    fn at(&self, section: &object::Section<'_, '_>, offset: u64) -> (String, u64) {
        match self.find(section.index().0, offset) {
            Some(place) => (place.name.to_owned(), offset - place.start),
            None => (section.name().unwrap_or("?").to_owned(), offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use object::write::{Object, StandardSection, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness};

    use super::*;

    #[test]
    fn what_the_functions_do() {
        assert_eq!(direction("try_module_get"), Some(Direction::Take));
        assert_eq!(direction(".module_put"), Some(Direction::Give));
        assert_eq!(direction("module_refcount"), None);
    }

    /// An object for ppc64le whose code names the table of addresses.
    fn with_table() -> object::write::Object<'static> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::PowerPc64, Endianness::Little);
        let text = object.section_id(StandardSection::Text);
        let table = object.add_section(Vec::new(), ADDRESSES.into(), SectionKind::Data);
        object.append_section_data(text, &[0; 64], 4);
        object.append_section_data(table, &[0; 24], 8);
        let symbol = |name: &str, kind, value, size, section| object::write::Symbol {
            name: name.into(),
            value,
            size,
            kind,
            scope: object::SymbolScope::Dynamic,
            weak: false,
            section,
            flags: object::SymbolFlags::None,
        };
        let at = |section| SymbolSection::Section(section);
        for (name, start) in [("first", 0), ("second", 32)] {
            object.add_symbol(symbol(name, SymbolKind::Text, start, 32, at(text)));
        }
        let own = object.add_symbol(symbol(THIS_MODULE, SymbolKind::Unknown, 0, 0, SymbolSection::Undefined));
        let other = object.add_symbol(symbol("jiffies", SymbolKind::Unknown, 0, 0, SymbolSection::Undefined));
        let base = object.section_symbol(table);
        let mut relocate = |section, offset, symbol, addend, kind| {
            let flags = object::RelocationFlags::Elf { r_type: object::elf::RelocationType(kind) };
            object
                .add_relocation(section, object::write::Relocation { offset, symbol, addend, flags })
                .unwrap();
        };
        // R_PPC64_ADDR64, R_PPC64_TOC16_HA.
        relocate(table, 8, own, 0, 38);
        relocate(table, 16, other, 0, 38);
        relocate(text, 4, base, 16, 50);
        relocate(text, 40, base, 8, 50);
        object
    }

    #[test]
    fn a_use_through_the_table_of_addresses_is_one() {
        let callers = Callers::of(&with_table().write().unwrap()).unwrap();
        assert_eq!(callers, Callers { users: vec!["second".to_owned()], ..Callers::default() });
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(Callers::of(b"#!/bin/sh\n").is_err());
        assert!(Callers::of(b"\x7fELF").is_err());
    }
}
