use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use proptest::prelude::*;
use rstest::rstest;

use super::*;

const KALLSYMS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T startup_64
ffffffff81146f00 T module_put
ffffffff81e00000 r __start_orc_unwind_ip
ffffffff81e00010 r __stop_orc_unwind_ip
ffffffff81e00010 r __start_orc_unwind
ffffffff82000000 D jiffies
ffffffffc0230000 t testmod_open\t[testmod]
ffffffffc0400000 t lo_open\t[loop]
ffffffffc0400100 t lo_release\t[loop]
no line
";

fn arch(name: &str) -> Arch {
    name.parse().unwrap()
}

fn target(kallsyms: &str, modules: Vec<Module>) -> Target {
    let symbols = Symbols::parse(kallsyms);
    Target { arch: arch("x86_64"), release: "6.1.0-50-amd64".into(), symbols, modules }
}

/// The functions of a symbol file: section, address, name.
fn functions(elf: &[u8]) -> Vec<(usize, u64, String)> {
    let file = object::File::parse(elf).unwrap();
    let function = |symbol: object::Symbol<'_, '_>| {
        let section = symbol.section_index()?.0;
        Some((section, symbol.address(), symbol.name().unwrap().to_owned()))
    };
    file.symbols().filter_map(function).collect()
}

#[test]
fn the_symbol_file_has_each_function_in_its_place() {
    let elf = Symbols::parse(KALLSYMS).elf(arch("x86_64"), &["testmod"]).unwrap();
    let function = |section, address, name: &str| (section, address, name.to_owned());
    assert_eq!(
        functions(&elf),
        [
            function(1, 0xffff_ffff_8100_0000, "startup_64"),
            function(1, 0xffff_ffff_8114_6f00, "module_put"),
            function(2, 0xffff_ffff_c040_0000, "lo_open"),
            function(2, 0xffff_ffff_c040_0100, "lo_release"),
        ]
    );
    let file = object::File::parse(&*elf).unwrap();
    let text: Vec<_> = file.sections().filter(|section| section.name() == Ok(".text")).collect();
    assert_eq!((text[1].address(), text[1].size()), (0xffff_ffff_c040_0000, 0x101));
}

#[rstest]
#[case("arm", "c0101000 T stext\n", 1)]
#[case("ppc64le", "c000000000000000 T _stext\n", 1)]
#[case("ppc64", "c000000000000000 T ._stext\nc000000001000000 D _stext\n", 1)]
#[case("ppc", "c0000000 T _stext\nbe46f000 t kprobe_insn_page\t[__builtin__kprobes]\n", 1)]
#[case("x86_64", "0000000000000000 T hidden\n", 0)]
#[case("x86_64", "", 0)]
fn the_symbol_file_is_of_the_guests_kind(#[case] name: &str, #[case] kallsyms: &str, #[case] count: usize) {
    let symbols = Symbols::parse(kallsyms);
    assert_eq!(symbols.is_empty(), count == 0);
    let elf = symbols.elf(arch(name), &[]).unwrap();
    assert_eq!(functions(&elf).len(), count);
    let file = object::File::parse(&*elf).unwrap();
    assert_eq!(file.is_64(), name.starts_with("ppc64"));
    let read = if arch(name).big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
    assert_eq!(read([elf[18], elf[19]]), arch(name).elf_machine);
    assert!(functions(&elf).iter().all(|(_, _, name)| name == "stext" || name == "_stext"));
}

#[test]
fn orc_tables_are_found_where_a_kernel_has_them() {
    let orc = Symbols::parse(KALLSYMS).orc().unwrap();
    let (places, entries) = (0xffff_ffff_81e0_0000, 0xffff_ffff_81e0_0010);
    assert_eq!(orc, Orc { places, entries, count: 4 });
    assert_eq!(Symbols::parse("c0101000 T stext\n").orc(), None);
}

#[rstest]
#[case("5.10.0-30-amd64", "0, 1, 3")]
#[case("6.3.9", "0, 1, 3")]
#[case("6.4.0", "2, 3, 7")]
#[case("6.12.117+deb13-amd64", "2, 3, 7")]
#[case("7.0-rc1", "2, 3, 7")]
fn the_kinds_of_orc_entries_depend_on_the_release(#[case] release: &str, #[case] kinds: &str) {
    assert_eq!(orc_kinds(release), kinds);
}

#[test]
fn gdb_is_told_of_loaded_modules_and_never_in_the_guests_words() {
    let module = |name: &str, sections: &[(&str, u64)]| Module {
        name: name.into(),
        file: PathBuf::new(),
        sections: sections.iter().map(|&(name, address)| (name.to_owned(), address)).collect(),
    };
    let sections = [
        (".text", 0x10),
        (".gnu.linkonce.this_module", 0x20),
        (".init.text", 0x30),
        (".strtab", 0x40),
        (".x\nshell touch /tmp/x\n", 0x50),
    ];
    let target = target(KALLSYMS, vec![module("testmod", &sections), module("refmod", &[])]);
    let script = script(Path::new("/tmp/x"), &target);
    let added: Vec<_> = script.lines().filter(|line| line.starts_with("add-symbol-file")).collect();
    assert_eq!(added, ["add-symbol-file testmod.ko -s .text 0x10 -s .gnu.linkonce.this_module 0x20"]);
    assert!(!script.contains("shell") && script.contains("Orc(0xffffffff81e00000, "), "{script}");
    assert!(script.ends_with("target remote socket\n"), "{script}");
    assert_eq!(target.modules[0].address(), Some(0x20));
}

#[test]
fn a_kernel_that_hides_its_functions_is_told() {
    assert!(matches!(Folder::new(&target("0000000000000000 T x\n", Vec::new())), Err(Error::NoSymbols)));
}

#[test]
fn frames_are_read_with_and_without_source_lines() {
    let text = "\
0xffffffff81a4e8cb in native_safe_halt ()
Breakpoint 1 at 0xffffffff81146f00
kmodlab: ready

Breakpoint 1, 0xffffffff81146f00 in module_put ()
#0  testmod_show (file=<optimized out>, unused=0x0) at /x/testmod.c:27
#1  0xffffffff813669e7 in __fput ()
#2  <signal handler called>
#10 0x0000000000000000 in ?? ()
Backtrace stopped: previous frame identical to this frame (corrupt stack?)
#define x
";
    assert_eq!(frames(text), ["testmod_show", "__fput", "<signal handler called>", "??"]);
}

#[test]
fn addresses_in_relocatable_files_are_taken_out() {
    for name in ["arm", "ppc64le"] {
        let kallsyms = if name == "arm" { "c0101000 T stext\n" } else { "c000000000001000 T _stext\n" };
        let elf = Symbols::parse(kallsyms).elf(arch(name), &[]).unwrap();
        let cleared = module::without_addresses(elf.clone());
        let addresses = |elf: &[u8]| -> Vec<u64> {
            let file = object::File::parse(elf).unwrap();
            file.sections().map(|section| section.address()).filter(|&address| address != 0).collect()
        };
        assert_eq!((addresses(&elf).len(), addresses(&cleared).len()), (1, 0), "{name}");
        assert_eq!(functions(&elf), functions(&cleared), "{name}");
    }
    assert_eq!(module::without_addresses(b"no ELF".to_vec()), b"no ELF");
}

proptest! {
    #[test]
    fn nothing_in_kallsyms_breaks_the_symbol_file(text in "([0-9a-f]{1,17} [tTdwA] [a-z]{1,3}(\t\\[[a-z]?\\])?\n?){0,12}|.{0,40}") {
        let elf = Symbols::parse(&text).elf(arch("x86_64"), &[]).unwrap();
        prop_assert!(object::File::parse(&*elf).is_ok());
    }

    #[test]
    fn any_bytes_are_a_module_to_gdb(mut bytes in prop::collection::vec(any::<u8>(), 0..200), is_elf in any::<bool>()) {
        if is_elf {
            bytes.splice(0..0, *b"\x7fELF\x02\x01\x01\0");
        }
        prop_assert_eq!(module::without_addresses(bytes.clone()).len(), bytes.len());
    }
}
