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
        let places = Places::new(&file);
        let mut found = Callers::default();
        let mut users = BTreeSet::new();
        for section in file.sections() {
            let kind = section.kind();
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(target) = relocation.target() else { continue };
                let callee = name(&file, target);
                let (place, inside) = places.at(&section, offset);
                match (direction(callee), callee == THIS_MODULE, kind) {
                    (Some(direction), _, SectionKind::Text) => found.calls.push(Call {
                        function: place,
                        offset: inside,
                        callee: callee.to_owned(),
                        direction,
                    }),
                    (_, true, SectionKind::Text) => {
                        users.insert(place);
                    }
                    (
                        _,
                        true,
                        SectionKind::Data | SectionKind::ReadOnlyData | SectionKind::ReadOnlyDataWithRel,
                    ) if places.has(&section, offset) && section.name() != Ok(PARAMETERS) => {
                        found.owners.push(Owner { table: place, offset: inside });
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

/// Functions and variables by where they are.
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
        Places(symbols.collect())
    }

    fn find(&self, section: usize, offset: u64) -> Option<&Place<'a>> {
        self.0.iter().find(|place| place.section == section && (place.start..place.end).contains(&offset))
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
    use super::*;

    #[test]
    fn what_the_functions_do() {
        assert_eq!(direction("try_module_get"), Some(Direction::Take));
        assert_eq!(direction(".module_put"), Some(Direction::Give));
        assert_eq!(direction("module_refcount"), None);
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(Callers::of(b"#!/bin/sh\n").is_err());
        assert!(Callers::of(b"\x7fELF").is_err());
    }
}
