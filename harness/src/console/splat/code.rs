//! The functions that a line of the kernel's report names.

use std::sync::LazyLock;

use regex::Regex;

/// A place in the kernel's code, as the kernel prints it: `name+0x12/0x340 [module]` (`kernel/kallsyms.c`,
/// `__sprint_symbol`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPlace {
    /// The function.
    pub function: String,
    /// How far in it, in bytes.
    pub offset: u64,
    /// How long it is, in bytes, up to the next name.
    pub size: u64,
    /// The module that it is in; none for the kernel itself.
    pub module: Option<String>,
    /// Whether it is where a call returns to, and the call is before it.
    pub is_return: bool,
}

/// How lines begin that say where the cpu was; all others name return addresses.
const WHERE: [&str; 8] = ["RIP:", "EIP:", "PC is at", "pc :", "NIP ", "WARNING:", "epc :", "Krnl PSW"];

impl NamedPlace {
    /// The place that a line of a report names first.
    pub fn find(line: &str) -> Option<Self> {
        // What cannot be compiled finds nothing; a test compiles it.
        static PLACE: LazyLock<Option<Regex>> = LazyLock::new(|| {
            Regex::new(r"([A-Za-z_.][\w.$]*)\+0x([0-9a-f]{1,16})/0x([0-9a-f]{1,16})(?: \[(\w+)[\] ])?").ok()
        });
        let found = PLACE.as_ref()?.captures(line)?;
        let number = |group| u64::from_str_radix(found.get(group)?.as_str(), 16).ok();
        Some(NamedPlace {
            function: found.get(1)?.as_str().to_owned(),
            offset: number(2)?,
            size: number(3)?,
            module: found.get(4).map(|module| module.as_str().to_owned()),
            is_return: !WHERE.iter().any(|start| line.trim_start().starts_with(start)),
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("RIP: 0010:fault_init+0x80/0x1000 [fault]", Some(("fault_init", 0x80, 0x1000, Some("fault"), false)))]
    #[case(" ? do_init_module+0x4a/0x1f0", Some(("do_init_module", 0x4a, 0x1f0, None, true)))]
    #[case("PC is at fault_init+0x70/0x1000 [fault]", Some(("fault_init", 0x70, 0x1000, Some("fault"), false)))]
    #[case("NIP [c008] .f.isra.0+0x8/0x20 [m 0123abcd]", Some((".f.isra.0", 8, 0x20, Some("m"), false)))]
    #[case("fault_init [fault] from do_one_initcall+0x50/0x214", Some(("do_one_initcall", 0x50, 0x214, None, true)))]
    #[case("x+0x11111111111111111/0x1", None)]
    #[case("R10: 0000000000000003", None)]
    fn a_line_names_a_place(#[case] line: &str, #[case] place: Option<(&str, u64, u64, Option<&str>, bool)>) {
        let found = NamedPlace::find(line);
        let found = found
            .as_ref()
            .map(|of| (of.function.as_str(), of.offset, of.size, of.module.as_deref(), of.is_return));
        assert_eq!(found, place);
    }
}
