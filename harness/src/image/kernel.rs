//! Kernel boot files, taken apart by their magic numbers.
//!
//! Under emulation a kernel that decompresses itself costs a second or two of each cold boot: it is decompressed on the
//! host instead, once. Formats: the kernel's `Documentation/arch/x86/boot.rst`, `arch/arm/boot/compressed/head.S`,
//! `Documentation/arch/arm64/booting.rst`; `include/image.h` of U-Boot.

use std::sync::LazyLock;

use object::elf;
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader};
use regex::bytes::Regex;

use super::compress::{self, Format};

/// A boot file made to start fast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tuned {
    /// What to boot in its place.
    Made(Vec<u8>),
    /// It is best booted as it is, for this reason.
    AsIs(&'static str),
}

/// Takes a boot file apart. `raw_load` is where a raw image is to be loaded and entered, on a machine whose loader takes
/// one in a legacy U-Boot header.
pub fn tune(file: &[u8], raw_load: Option<u32>) -> Tuned {
    if file.starts_with(elf::ELFMAG.as_slice()) || is_arm64_image(file) {
        return Tuned::AsIs("it is not compressed");
    }
    if at(file, 0x202) == Some(*b"HdrS") {
        return match x86_payload(file).and_then(unpack) {
            Some(vmlinux) if starts_by_pvh(&vmlinux) => Tuned::Made(vmlinux),
            Some(_) => Tuned::AsIs("its kernel has no PVH entry (CONFIG_PVH)"),
            None => Tuned::AsIs("its kernel is not found"),
        };
    }
    if at(file, 0x24) == Some(0x016f_2818_u32.to_le_bytes()) {
        return match (arm_payload(file), raw_load) {
            (Some(image), Some(load)) => Tuned::Made(legacy_image(&image, load)),
            (Some(_), None) => Tuned::AsIs("the machine takes no raw image"),
            (None, _) => Tuned::AsIs("its kernel is not found"),
        };
    }
    match unpack(file) {
        Some(image) if image.starts_with(elf::ELFMAG.as_slice()) || is_arm64_image(&image) => {
            Tuned::Made(image)
        }
        _ => Tuned::AsIs("its format is not known"),
    }
}

/// The kernel's release, as `uname -r` says it, from an uncompressed kernel.
pub fn release(image: &[u8]) -> Option<String> {
    static BANNER: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"Linux version ([0-9][0-9A-Za-z.+~_-]{0,63}) ").ok());
    let release = BANNER.as_ref()?.captures(image)?.get(1)?;
    Some(String::from_utf8_lossy(release.as_bytes()).into_owned())
}

fn at<const N: usize>(file: &[u8], offset: usize) -> Option<[u8; N]> {
    file.get(offset..)?.first_chunk().copied()
}

fn is_arm64_image(file: &[u8]) -> bool {
    at(file, 0x38) == Some(*b"ARM\x64")
}

fn unpack(data: &[u8]) -> Option<Vec<u8>> {
    compress::decompress(Format::of(data)?, data).ok()
}

/// The compressed kernel of a bzImage, since boot protocol 2.08.
fn x86_payload(file: &[u8]) -> Option<&[u8]> {
    let number = |offset| Some(u32::from_le_bytes(at(file, offset)?) as usize);
    if u16::from_le_bytes(at(file, 0x206)?) < 0x208 {
        return None;
    }
    // 0 stands for 4, as of old.
    let setup_sectors = match file.get(0x1f1)? {
        0 => 4,
        &sectors => usize::from(sectors),
    };
    let start = ((setup_sectors + 1) * 512).checked_add(number(0x248)?)?;
    file.get(start..start.checked_add(number(0x24c)?)?)
}

/// Whether an ELF kernel has the note that tells its 32-bit entry: `XEN_ELFNOTE_PHYS32_ENTRY` of the kernel's
/// `include/xen/interface/elfnote.h`. QEMU starts no other x86 vmlinux.
fn starts_by_pvh(vmlinux: &[u8]) -> bool {
    const PHYS32_ENTRY: elf::NoteType = elf::NoteType(18);
    fn has_note<Elf: FileHeader<Endian = object::Endianness>>(data: &[u8]) -> Option<bool> {
        let header = Elf::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let notes = header.program_headers(endian, data).ok()?.iter();
        let mut notes = notes.filter_map(|segment| segment.notes(endian, data).ok().flatten());
        let is_it = |mut notes: NoteIterator<'_, Elf>| {
            while let Ok(Some(note)) = notes.next() {
                if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                    return true;
                }
            }
            false
        };
        Some(notes.any(is_it))
    }
    has_note::<elf::FileHeader64<object::Endianness>>(vmlinux)
        .or_else(|| has_note::<elf::FileHeader32<object::Endianness>>(vmlinux))
        .unwrap_or(false)
}

/// The raw image in a zImage. Where it lies is not told: it is what decompresses to a kernel.
fn arm_payload(file: &[u8]) -> Option<Vec<u8>> {
    // A few bytes of code can look like a magic number, but not many times.
    const TRIES: usize = 32;
    let starts =
        (0x40..file.len()).filter_map(|offset| file.get(offset..).filter(|data| Format::of(data).is_some()));
    starts.take(TRIES).filter_map(unpack).find(|image| release(image).is_some())
}

/// A raw image with a legacy U-Boot header before it: uncompressed, loaded and entered at `load`.
fn legacy_image(image: &[u8], load: u32) -> Vec<u8> {
    const MAGIC: u32 = 0x2705_1956;
    // Linux, ARM, a kernel, not compressed.
    const KIND: [u8; 4] = [5, 2, 2, 0];
    let crc = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    };
    let header = |header_crc: u32| {
        let numbers = [MAGIC, header_crc, 0, image.len() as u32, load, load, crc(image)];
        let mut header: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        header.extend(KIND);
        header.resize(64, 0);
        header
    };
    let mut file = header(crc(&header(0)));
    file.extend_from_slice(image);
    file
}
