//! The code of a module, and where kcov counts in it, by its ELF file.
//!
//! The compiler begins each block of code with a call (`-fsanitize-coverage=trace-pc`), which is a relocation against the
//! callee's name, so that the blocks are known without understanding instructions.

use std::collections::HashSet;

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolIndex, SymbolKind};

use crate::arch::{Arch, Jump};

/// What is called (`kernel/kcov.c`).
const COUNTS: &str = "__sanitizer_cov_trace_pc";

/// What a module's own functions are called besides (`include/linux/module.h`).
const ALIASES: [&str; 2] = ["init_module", "cleanup_module"];

/// Lists the functions that begin with room for the function tracer (gcc's `-fpatchable-function-entry`), where the kernel has
/// them do so: two instructions, on arm64 and others.
const ROOMY: &str = "__patchable_function_entries";
const ROOM: u64 = 8;

/// A module's code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Code {
    /// The sections.
    pub sections: Vec<Section>,
    /// The functions in them.
    pub functions: Vec<Function>,
    /// Where kcov is called from, and returns to.
    pub calls: Vec<Place>,
    /// The bytes at the beginning of each function that are room for the function tracer, and of no line.
    pub room: u64,
}

/// A section of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}

/// A place in a module's code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The section's name.
    pub section: String,
    /// How far into that, in bytes.
    pub offset: u64,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name, without what the compiler added to it (`NAME.isra.0`).
    pub name: String,
    /// Where it begins.
    pub start: Place,
    /// Its bytes.
    pub size: u64,
}

impl Function {
    /// Whether a place is in it.
    pub fn has(&self, place: &Place) -> bool {
        let into = place.offset.checked_sub(self.start.offset);
        place.section == self.start.section && into.is_some_and(|into| into < self.size)
    }
}

impl Code {
    /// Reads a module (`NAME.ko`) for `arch`.
    ///
    /// # Errors
    ///
    /// It is no ELF file, or is damaged.
    pub fn of(elf: &[u8], arch: Arch) -> Result<Self, object::Error> {
        let file = object::File::parse(elf)?;
        let mut code = Code::default();
        let counts = counting(&file, arch);
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let Ok(name) = section.name() else { continue };
            if section.size() > 0 {
                code.sections.push(Section { name: name.to_owned(), size: section.size() });
            }
            let Some(jump) = &arch.jump else { continue };
            let data = section.data()?;
            for (offset, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
                if counts.contains(&symbol) && returns(data, offset, jump) {
                    code.calls.push(Place { section: name.to_owned(), offset });
                }
            }
        }
        code.room = if file.section_by_name(ROOMY).is_some() { ROOM } else { 0 };
        let functions = file.symbols().filter_map(|symbol| function(&file, &symbol, arch));
        let (aliases, functions): (Vec<_>, Vec<_>) =
            functions.partition(|function| ALIASES.contains(&function.name.as_str()));
        code.functions = functions;
        for alias in aliases {
            if code.functions.iter().all(|function| function.start != alias.start) {
                code.functions.push(alias);
            }
        }
        Ok(code)
    }
}

/// The symbols that stand for what is called.
fn counting(file: &object::File<'_>, arch: Arch) -> HashSet<SymbolIndex> {
    let plain = |name: &str| name.strip_prefix(arch.text_prefix).unwrap_or(name) == COUNTS;
    let named = file.symbols().filter(|symbol| symbol.name().is_ok_and(plain));
    named.map(|symbol| symbol.index()).collect()
}

/// Whether the instruction is a call, after which kcov sees the caller. Where a block does nothing but leave its function,
/// the compiler makes the call a jump, and kcov sees whoever called the function.
fn returns(section: &[u8], offset: u64, jump: &Jump) -> bool {
    let at = offset.checked_add_signed(jump.at).and_then(|at| usize::try_from(at).ok());
    at.and_then(|at| section.get(at)).is_some_and(|byte| byte & jump.mask != jump.is)
}

fn function(file: &object::File<'_>, symbol: &object::Symbol<'_, '_>, arch: Arch) -> Option<Function> {
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    // With ppc64's ELFv1 ABI the plain name is that of a descriptor, which is no code.
    if symbol.kind() != SymbolKind::Text || section.kind() != SectionKind::Text || symbol.size() == 0 {
        return None;
    }
    let name = symbol.name().ok()?;
    let name = name.strip_prefix(arch.text_prefix).unwrap_or(name);
    // Parts that are not likely to be executed lie elsewhere, as `NAME.cold`: none is entered but through its function.
    let name = Some(name).filter(|name| !name.contains(".cold"))?;
    let name = name.split('.').next().filter(|name| !name.is_empty())?;
    let start = Place { section: section.name().ok()?.to_owned(), offset: symbol.address() };
    Some(Function { name: name.to_owned(), start, size: symbol.size() })
}

#[cfg(test)]
mod tests {
    use object::write::{Object, Relocation, StandardSection, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, RelocationFlags, SymbolFlags, SymbolScope};

    use super::*;

    fn x86_64() -> Arch {
        "x86_64".parse().unwrap()
    }

    fn symbol(name: &str, value: u64, size: u64, section: SymbolSection) -> Symbol {
        let kind = if section == SymbolSection::Undefined { SymbolKind::Unknown } else { SymbolKind::Text };
        let scope = SymbolScope::Dynamic;
        Symbol { name: name.into(), value, size, kind, scope, weak: false, section, flags: SymbolFlags::None }
    }

    /// A module of two functions: one that counts twice and calls another, and one that does nothing.
    fn module() -> Vec<u8> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = object.section_id(StandardSection::Text);
        let call = |opcode: u8| [opcode, 0, 0, 0, 0];
        let code = [call(0xe8), call(0xe8), call(0xe8), [0x90; 5], call(0xe9)].concat();
        object.append_section_data(text, &code, 16);
        object.add_symbol(symbol("twice.isra.0", 0, 20, SymbolSection::Section(text)));
        object.add_symbol(symbol("init_module", 0, 20, SymbolSection::Section(text)));
        object.add_symbol(symbol("cleanup_module", 15, 5, SymbolSection::Section(text)));
        object.add_symbol(symbol("twice.cold", 15, 5, SymbolSection::Section(text)));
        object.add_symbol(symbol("nothing", 20, 5, SymbolSection::Section(text)));
        let counts = object.add_symbol(symbol(COUNTS, 0, 0, SymbolSection::Undefined));
        let other = object.add_symbol(symbol("other", 0, 0, SymbolSection::Undefined));
        for (offset, symbol) in [(1, counts), (6, other), (11, counts), (21, counts)] {
            // R_X86_64_PLT32.
            let flags = RelocationFlags::Elf { r_type: object::elf::RelocationType(4) };
            object.add_relocation(text, Relocation { offset, symbol, addend: -4, flags }).unwrap();
        }
        object.write().unwrap()
    }

    #[test]
    fn the_places_are_those_from_which_kcov_is_called_and_returns_to() {
        let code = Code::of(&module(), x86_64()).unwrap();
        assert_eq!(code.room, 0);
        assert_eq!(code.sections, [Section { name: ".text".into(), size: 25 }]);
        let offsets: Vec<u64> = code.calls.iter().map(|call| call.offset).collect();
        assert_eq!(offsets, [1, 11]);
        let names: Vec<&str> = code.functions.iter().map(|function| function.name.as_str()).collect();
        assert_eq!(names, ["twice", "nothing", "cleanup_module"]);
        let counted: Vec<bool> =
            code.functions.iter().map(|of| code.calls.iter().any(|at| of.has(at))).collect();
        assert_eq!(counted, [true, false, false]);
    }

    #[test]
    fn where_calls_do_not_show_none_is_told() {
        let code = Code::of(&module(), "mips64el".parse().unwrap()).unwrap();
        assert_eq!(code.calls, []);
        assert_eq!(code.functions.len(), 3);
    }

    #[test]
    fn a_place_before_a_function_or_in_another_section_is_not_in_it() {
        let place = |section: &str, offset| Place { section: section.into(), offset };
        let function = Function { name: "f".into(), start: place(".text", 8), size: 4 };
        let inside = [(".text", 8), (".text", 11), (".text", 7), (".text", 12), (".init.text", 9)];
        let found = inside.map(|(section, offset)| function.has(&place(section, offset)));
        assert_eq!(found, [true, true, false, false, false]);
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(Code::of(b"#!/bin/sh\n", x86_64()).is_err());
    }
}
