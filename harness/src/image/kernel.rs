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
    /// Nothing starts faster: it is not compressed, or starts only through what decompresses it.
    Fastest,
    /// It has to be booted as it is, for this reason.
    AsIs(&'static str),
}

/// Takes a boot file apart. `raw_load` is where a raw image is to be loaded and entered, on a machine whose loader takes
/// one in a legacy U-Boot header.
pub fn tune(file: &[u8], raw_load: Option<u32>) -> Tuned {
    if file.starts_with(elf::ELFMAG.as_slice()) || is_image(file) || is_s390(file) {
        return Tuned::Fastest;
    }
    if is_x86(file) {
        return match x86_payload(file).and_then(unpack) {
            Some(vmlinux) if starts_by_pvh(&vmlinux) => Tuned::Made(vmlinux),
            Some(_) => Tuned::AsIs("its kernel has no PVH entry (CONFIG_PVH)"),
            None => Tuned::AsIs("its kernel is not found"),
        };
    }
    if is_arm_zimage(file) {
        return match (arm_payload(file), raw_load) {
            (Some(image), Some(load)) => Tuned::Made(legacy_image(&image, load)),
            (Some(_), None) => Tuned::AsIs("the machine takes no raw image"),
            (None, _) => Tuned::AsIs("its kernel is not found"),
        };
    }
    match unpack(file) {
        Some(image) if image.starts_with(elf::ELFMAG.as_slice()) || is_image(&image) => Tuned::Made(image),
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

/// What a boot file says of the machine that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootMachine {
    /// `e_machine`, as ELF files of the architecture have it.
    pub elf_machine: u16,
    /// Whether numbers begin with their most significant byte, where the file says so.
    pub big_endian: Option<bool>,
}

/// The machine that a boot file is for; `None` where its format does not tell.
pub fn machine(file: &[u8]) -> Option<BootMachine> {
    if file.starts_with(elf::ELFMAG.as_slice()) {
        let big = *file.get(5)? == elf::ELFDATA2MSB.0;
        let number: [u8; 2] = at(file, 18)?;
        let elf_machine = if big { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) };
        return Some(BootMachine { elf_machine, big_endian: Some(big) });
    }
    let plain = |machine: elf::Machine| Some(BootMachine { elf_machine: machine.0, big_endian: None });
    if is_x86(file) {
        // `XLF_KERNEL_64` of `xloadflags`, since boot protocol 2.12.
        let is_64 = file.get(0x236)? & 1 != 0;
        return plain(if is_64 { elf::EM_X86_64 } else { elf::EM_386 });
    }
    if is_arm_zimage(file) {
        return plain(elf::EM_ARM);
    }
    for (magic, machine) in IMAGES {
        if at(file, 0x38) == Some(magic) {
            return plain(machine);
        }
    }
    if is_s390(file) {
        return Some(BootMachine { elf_machine: elf::EM_S390.0, big_endian: Some(true) });
    }
    unpack(file).and_then(|inner| machine(&inner))
}

/// The release of the kernel in a boot file.
pub fn boot_release(file: &[u8]) -> Option<String> {
    if is_x86(file) {
        // `kernel_version`: where a text lies that begins with the release.
        let start = usize::from(u16::from_le_bytes(at(file, 0x20e)?)) + 0x200;
        let text = file.get(start..)?.split(|&byte| byte == 0 || byte == b' ').next()?;
        return String::from_utf8(text.to_owned()).ok().filter(|text| !text.is_empty());
    }
    if is_arm_zimage(file) {
        return release(&arm_payload(file)?);
    }
    release(file).or_else(|| release(&unpack(file)?))
}

fn is_x86(file: &[u8]) -> bool {
    at(file, 0x202) == Some(*b"HdrS")
}

fn is_arm_zimage(file: &[u8]) -> bool {
    at(file, 0x24) == Some(0x016f_2818_u32.to_le_bytes())
}

fn at<const N: usize>(file: &[u8], offset: usize) -> Option<[u8; N]> {
    file.get(offset..)?.first_chunk().copied()
}

/// What an uncompressed `Image` has at 0x38: of arm64, and of riscv (`Documentation/arch/riscv/boot-image-header.rst`).
const IMAGES: [([u8; 4], elf::Machine); 2] = [(*b"ARM\x64", elf::EM_AARCH64), (*b"RSC\x05", elf::EM_RISCV)];

fn is_image(file: &[u8]) -> bool {
    IMAGES.iter().any(|(magic, _)| at(file, 0x38) == Some(*magic))
}

/// A kernel for s390, which its decompressor sets up to be started (`arch/s390/boot/head.S`, `ep_startup_normal`).
fn is_s390(file: &[u8]) -> bool {
    at(file, 0x10008) == Some(*b"S390EP")
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BANNER: &[u8] = b"....Linux version 6.1.0-50-armmp (someone@somewhere) (gcc) #1 SMP ....";

    /// A 64-bit ELF file with nothing but a note segment.
    fn vmlinux(note_type: u32) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64 + 56, 0);
        let mut put = |offset: usize, bytes: &[u8]| elf[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(16, &[2, 0, 62, 0, 1]);
        put(32, &64_u64.to_le_bytes());
        put(52, &[64, 0, 56, 0, 1, 0]);
        put(64, &4_u32.to_le_bytes());
        put(64 + 8, &120_u64.to_le_bytes());
        put(64 + 32, &20_u64.to_le_bytes());
        put(64 + 48, &4_u64.to_le_bytes());
        for number in [4, 4, note_type] {
            elf.extend(u32::to_le_bytes(number));
        }
        elf.extend(b"Xen\0\x01\0\0\0");
        elf.extend(BANNER);
        elf
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 3 * 512];
        let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[1]);
        put(0x202, b"HdrS\x0f\x02");
        put(0x248, &512_u32.to_le_bytes());
        put(0x24c, &(payload.len() as u32 + 4).to_le_bytes());
        file.extend(payload);
        file.extend([0; 100]);
        file
    }

    fn zimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 0x24];
        file.extend(0x016f_2818_u32.to_le_bytes());
        file.resize(0x100, 0);
        // Looks like LZMA, and is none.
        file.extend(b"\x5d\0\0\0\x01");
        file.extend(payload);
        file
    }

    #[test]
    fn a_bzimage_gives_its_vmlinux() {
        let vmlinux = vmlinux(18);
        for packed in
            [zstd::encode_all(&vmlinux[..], 1).unwrap(), liblzma::encode_all(&vmlinux[..], 1).unwrap()]
        {
            assert_eq!(tune(&bzimage(&packed), None), Tuned::Made(vmlinux.clone()));
        }
        assert_eq!(release(&vmlinux).as_deref(), Some("6.1.0-50-armmp"));
    }

    #[test]
    fn a_bzimage_that_qemu_would_not_start_so_stays() {
        let other_note = zstd::encode_all(&vmlinux(17)[..], 1).unwrap();
        let reason = "its kernel has no PVH entry (CONFIG_PVH)";
        assert_eq!(tune(&bzimage(&other_note), None), Tuned::AsIs(reason));
        assert_eq!(tune(&bzimage(b"no such compression"), None), Tuned::AsIs("its kernel is not found"));
        let mut old = bzimage(&zstd::encode_all(&vmlinux(18)[..], 1).unwrap());
        old[0x206] = 7;
        assert_eq!(tune(&old, None), Tuned::AsIs("its kernel is not found"));
    }

    #[test]
    fn a_zimage_gives_its_image_with_a_header() {
        let file = zimage(&liblzma::encode_all(BANNER, 1).unwrap());
        let Tuned::Made(made) = tune(&file, Some(0x4020_8000)) else { panic!("not made") };
        assert_eq!(&made[64..], BANNER);
        let number = |at: usize| u32::from_be_bytes(made[at..at + 4].try_into().unwrap());
        assert_eq!((number(0), number(12) as usize), (0x2705_1956, BANNER.len()));
        assert_eq!((number(16), number(20)), (0x4020_8000, 0x4020_8000));
        assert_eq!(made[28..32], [5, 2, 2, 0]);
        let mut header = made[..64].to_vec();
        header[4..8].fill(0);
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        assert_eq!(number(4), crc.sum());
        assert_eq!(tune(&file, None), Tuned::AsIs("the machine takes no raw image"));
        assert_eq!(tune(&zimage(b"nothing"), Some(0)), Tuned::AsIs("its kernel is not found"));
    }

    #[test]
    fn other_files_are_decompressed_or_stay() {
        let mut image = vec![0; 0x38];
        image.extend(b"RSC\x05");
        assert_eq!(tune(&image, None), Tuned::Fastest);
        image.truncate(0x38);
        image.extend(b"ARM\x64");
        assert_eq!(tune(&image, None), Tuned::Fastest);
        let mut s390 = vec![0; 0x10008];
        s390.extend(b"S390EP");
        assert_eq!(tune(&s390, None), Tuned::Fastest);
        assert_eq!(tune(&zstd::encode_all(&image[..], 1).unwrap(), None), Tuned::Made(image));
        assert_eq!(tune(&vmlinux(18), None), Tuned::Fastest);
        for unknown in [&b""[..], b"\x1f\x8b\x08", b"what is this?"] {
            assert_eq!(tune(unknown, None), Tuned::AsIs("its format is not known"));
        }
    }

    #[test]
    fn a_release_is_a_word_after_the_banner() {
        assert_eq!(release(b"Linux version %s (x) Linux version 5.10.0+ "), Some("5.10.0+".into()));
        assert_eq!(release(b"Linux version "), None);
    }

    proptest! {
        #[test]
        fn hostile_files_make_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..700), at in 0..0x260_usize) {
            let _ = tune(&bytes, Some(0));
            let mut file = bzimage(&zstd::encode_all(&vmlinux(18)[..], 1).unwrap());
            for (place, byte) in file.iter_mut().skip(at).zip(&bytes) {
                *place = *byte;
            }
            file[0x202..0x206].copy_from_slice(b"HdrS");
            let _ = tune(&file, None);
            let mut elf = vmlinux(18);
            for (place, byte) in elf.iter_mut().skip(at % 120).zip(&bytes) {
                *place = *byte;
            }
            let _ = starts_by_pvh(&elf);
        }
    }
}
