//! A kernel's own list of its functions, and the symbol file for a debugger that is made from it.

use std::collections::BTreeMap;

use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, SectionHeader, Sym, Writer};

use crate::arch::Arch;

/// The functions of a kernel and its modules, and where its ORC tables are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Functions by address, of the kernel itself (no name) and of each module.
    functions: BTreeMap<String, Vec<(u64, String)>>,
    /// Whether addresses have 64 bits.
    is_64: bool,
    orc: [Option<u64>; 3],
}

/// Where a table of ORC is: its places, its entries, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orc {
    /// The address of the table of places.
    pub places: u64,
    /// The address of the table of entries.
    pub entries: u64,
    /// How many entries there are.
    pub count: u64,
}

/// What marks the kernel's own ORC tables (`include/asm-generic/vmlinux.lds.h`).
const ORC: [&str; 3] = ["__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind"];

/// A kernel's names are not longer, in bytes (`include/linux/kallsyms.h`, `KSYM_NAME_LEN`).
const LONGEST_NAME: usize = 512;

impl Symbols {
    /// Reads the text of `/proc/kallsyms`. Lines that are none of its are left out, and so are functions whose address is
    /// hidden.
    pub fn parse(kallsyms: &str) -> Self {
        let mut symbols = Symbols::default();
        for line in kallsyms.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(digits), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Some(address) = u64::from_str_radix(digits, 16).ok().filter(|&address| address != 0) else {
                continue;
            };
            symbols.is_64 |= digits.len() > 8;
            let module = words.next().unwrap_or_default().trim_matches(['[', ']']);
            if let Some(index) = ORC.iter().position(|mark| *mark == name) {
                symbols.orc[index] = Some(address);
            }
            // Pages for probes' copies of instructions, anywhere in memory, are listed like this; no module has them
            // (`kernel/kallsyms.c`).
            if module.starts_with("__builtin__") {
                continue;
            }
            let good = name.len() <= LONGEST_NAME && name.chars().all(|c| c.is_ascii_graphic());
            // With ppc64's ELFv1 ABI the plain name is that of the function's descriptor, which is data.
            let name = name.strip_prefix('.').unwrap_or(name);
            if good && matches!(kind, "t" | "T" | "w" | "W") {
                symbols.functions.entry(module.to_owned()).or_default().push((address, name.to_owned()));
            }
        }
        symbols
    }

    /// Whether there is no function.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The kernel's own ORC tables, where it has some.
    pub fn orc(&self) -> Option<Orc> {
        let [start, stop, entries] = self.orc;
        let (places, entries) = (start?, entries?);
        let count = stop?.checked_sub(places)? / 4;
        Some(Orc { places, entries, count })
    }

    /// An ELF file with the functions of the kernel, and of modules but those that are named, each where it is.
    ///
    /// # Errors
    ///
    /// Where it would be too big.
    pub fn elf(&self, arch: Arch, but: &[&str]) -> Result<Vec<u8>, object::write::Error> {
        let endian = if arch.big_endian { Endianness::Big } else { Endianness::Little };
        let groups: Vec<&Vec<(u64, String)>> = self
            .functions
            .iter()
            .filter(|(module, _)| !but.contains(&module.as_str()))
            .map(|(_, functions)| functions)
            .collect();
        let mut bytes = Vec::new();
        let mut writer = Writer::new(endian, self.is_64, &mut bytes);
        writer.reserve_file_header();
        writer.reserve_null_section_index();
        writer.reserve_null_symbol_index();
        // gdb takes a symbol for a function's where its section is one of code.
        let text = writer.add_section_name(b".text");
        let mut symbols = Vec::new();
        for functions in &groups {
            let section = writer.reserve_section_index();
            for (address, name) in functions.iter() {
                writer.reserve_symbol_index(Some(section));
                symbols.push((section, writer.add_string(name.as_bytes()), *address));
            }
        }
        writer.reserve_symtab_section_index();
        writer.reserve_strtab_section_index();
        writer.reserve_shstrtab_section_index();
        writer.reserve_symtab();
        writer.reserve_strtab()?;
        writer.reserve_shstrtab()?;
        writer.reserve_section_headers();

        writer.write_file_header(&FileHeader {
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: elf::ET_EXEC,
            e_machine: elf::Machine(arch.elf_machine),
            e_entry: 0,
            e_flags: elf::FileFlags(0),
        })?;
        writer.write_null_symbol();
        for (section, name, address) in symbols {
            writer.write_symbol(&Sym {
                section: Some(section.0),
                st_name: writer.string_offset(Some(name)),
                st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, elf::STT_FUNC),
                st_other: elf::SymbolOther(0),
                st_shndx: elf::SymbolSection(0),
                st_value: address,
                st_size: 0,
            });
        }
        writer.write_strtab();
        writer.write_shstrtab();
        writer.write_null_section_header();
        for functions in groups {
            let addresses = functions.iter().map(|(address, _)| *address);
            let start = addresses.clone().min().unwrap_or_default();
            let end = addresses.max().unwrap_or_default();
            writer.write_section_header(&SectionHeader {
                sh_name: writer.section_name_offset(Some(text)),
                // The code itself is in the guest's memory.
                sh_type: elf::SHT_NOBITS,
                sh_flags: elf::SHF_ALLOC | elf::SHF_EXECINSTR,
                sh_addr: start,
                sh_offset: 0,
                // A function's end is not known.
                sh_size: end - start + 1,
                sh_link: 0,
                sh_info: 0,
                sh_addralign: 1,
                sh_entsize: 0,
            });
        }
        writer.write_symtab_section_header(1);
        writer.write_strtab_section_header();
        writer.write_shstrtab_section_header();
        Ok(bytes)
    }
}
