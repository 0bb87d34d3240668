//! A module's file, as gdb takes it.

use object::read::elf::FileHeader;
use object::{Endianness, FileKind, elf};

/// A relocatable file whose sections have no addresses. Those of arm's modules have some, against the rule
/// (`arch/arm/include/asm/module.lds.h` begins `.plt` where the section before it ended); gdb then takes all addresses in
/// it for final ones, and puts the functions of all sections into one place (gdb: `symfile.c`, `default_symfile_offsets`).
pub(super) fn without_addresses(mut file: Vec<u8>) -> Vec<u8> {
    // What is no such file is for gdb to complain of.
    let fields = match FileKind::parse(&*file) {
        Ok(FileKind::Elf32) => address_fields::<elf::FileHeader32<Endianness>>(&file, 12, 4),
        Ok(FileKind::Elf64) => address_fields::<elf::FileHeader64<Endianness>>(&file, 16, 8),
        _ => None,
    };
    for field in fields.unwrap_or_default() {
        if let Some(field) = file.get_mut(field) {
            field.fill(0);
        }
    }
    file
}

/// The bytes of each section header's `sh_addr`, which is at `at` in it.
fn address_fields<Elf: FileHeader<Endian = Endianness>>(
    file: &[u8],
    at: usize,
    size: usize,
) -> Option<Vec<std::ops::Range<usize>>> {
    let header = Elf::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let table = usize::try_from(header.e_shoff(endian).into()).ok()?;
    let (each, count) = (usize::from(header.e_shentsize(endian)), usize::from(header.e_shnum(endian)));
    let start = |index| table.checked_add(each * index)?.checked_add(at);
    (0..count).map(|index| start(index).map(|start| start..start.saturating_add(size))).collect()
}
