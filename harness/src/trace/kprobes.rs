//! The list of kprobes in debugfs, `kprobes/list`.

use std::collections::BTreeSet;

use serde::Serialize;

use super::UnreadableLine;

/// What kind of probe it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeType {
    /// `k`
    Kprobe,
    /// `j`, which kernels from 4.15 on no longer have.
    Jprobe,
    /// `r`
    Kretprobe,
}

/// What a list says of a probe in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProbeFlag {
    /// Disabled by itself.
    Disabled,
    /// The module that it sat in is gone.
    Gone,
    /// A jump in place of a breakpoint.
    Optimized,
    /// Carried out by the function tracer.
    Ftrace,
    /// One that this program does not know.
    #[serde(untagged)]
    Other(String),
}

impl ProbeFlag {
    /// The flag by its name, which is in capitals.
    pub fn from_name(name: &str) -> Self {
        match name {
            "DISABLED" => ProbeFlag::Disabled,
            "GONE" => ProbeFlag::Gone,
            "OPTIMIZED" => ProbeFlag::Optimized,
            "FTRACE" => ProbeFlag::Ftrace,
            other => ProbeFlag::Other(other.to_owned()),
        }
    }
}

/// A line of `kprobes/list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedProbe {
    /// Where it sits; 0 where the kernel hides addresses.
    pub address: u64,
    /// What it is.
    #[serde(rename = "type")]
    pub probe_type: ProbeType,
    /// The function as the kernel names it, so with its dot on big-endian ppc64; an address (`0x…`) where the
    /// kernel finds no function any more.
    pub symbol: String,
    /// How many bytes from the function's start. Not 0 at a function's entry on some: 4 on x86 with IBT, 8 or 12 on
    /// ppc64le.
    pub offset: u64,
    /// The module that the function is in.
    pub module: Option<String>,
    /// What the brackets say.
    pub flags: BTreeSet<ProbeFlag>,
}

impl ListedProbe {
    /// Reads the list. The layout is that of `report_probe()` in the kernel's `kernel/kprobes.c`.
    ///
    /// # Errors
    ///
    /// A line does not have the layout.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, UnreadableLine> {
        let lines = list.lines().enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
        lines
            .map(|(number, line)| {
                Self::parse(line).ok_or_else(|| UnreadableLine::new("kprobes/list", number, line))
            })
            .collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let address = address(words.next()?)?;
        let probe_type = match words.next()? {
            "k" => ProbeType::Kprobe,
            "j" => ProbeType::Jprobe,
            "r" => ProbeType::Kretprobe,
            _ => return None,
        };
        let (symbol, offset) = place(words.next()?)?;
        let (mut module, mut flags) = (None, BTreeSet::new());
        for word in words {
            if !word.starts_with('[') {
                module = Some(word.to_owned());
                continue;
            }
            // Several flags stand without a blank between: `[DISABLED][FTRACE]`.
            for inner in word.split(['[', ']']).filter(|inner| !inner.is_empty()) {
                if inner.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
                    flags.insert(ProbeFlag::from_name(inner));
                } else {
                    module = Some(inner.to_owned());
                }
            }
        }
        Some(ListedProbe { address, probe_type, symbol: symbol.to_owned(), offset, module, flags })
    }
}

/// `%px` prints bare hexadecimal, zeroes where addresses are hidden; older kernels print `(null)` and the like there.
fn address(word: &str) -> Option<u64> {
    if word.starts_with('(') {
        return Some(0);
    }
    u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
}

/// `symbol+0xc`, `symbol+0xc/0x1a0`, or, with no symbol for it, an address.
fn place(word: &str) -> Option<(&str, u64)> {
    let Some((symbol, offset)) = word.rsplit_once("+0x") else {
        return Some((word, 0));
    };
    let offset = offset.split('/').next().unwrap_or(offset);
    Some((symbol, u64::from_str_radix(offset, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> ListedProbe {
        let list = ListedProbe::parse_list(line).unwrap();
        assert_eq!(list.len(), 1);
        list.into_iter().next().unwrap()
    }

    #[test]
    fn the_three_types() {
        let list = "ffffffff9ba53a60  r  _do_fork+0x0    [FTRACE]\nffffffff9ba53a60  k  _do_fork+0x0    [FTRACE]\n\
                    ffffffff9ba53a60  j  _do_fork+0x0    [FTRACE]\n";
        let types: Vec<_> =
            ListedProbe::parse_list(list).unwrap().into_iter().map(|probe| probe.probe_type).collect();
        assert_eq!(types, [ProbeType::Kretprobe, ProbeType::Kprobe, ProbeType::Jprobe]);
    }

    #[test]
    fn symbols_of_every_architecture() {
        let probe = one("c00000000012a9bc  k  kernel_clone+0xc    [FTRACE]");
        assert_eq!((probe.symbol.as_str(), probe.offset, probe.module), ("kernel_clone", 12, None));
        assert_eq!(probe.flags, [ProbeFlag::Ftrace].into());
        let probe = one("c00000000012a9b0  k  .kernel_clone+0x0    ");
        assert_eq!((probe.symbol.as_str(), probe.offset), (".kernel_clone", 0));
        let probe = one("c000000000049c20  k  __kretprobe_trampoline+0x0    [OPTIMIZED]");
        assert_eq!(
            (probe.symbol.as_str(), probe.flags),
            ("__kretprobe_trampoline", [ProbeFlag::Optimized].into())
        );
        let probe = one("80121c74  r  foo.part.0+0x10    ");
        assert_eq!((probe.address, probe.symbol.as_str(), probe.offset), (0x8012_1c74, "foo.part.0", 16));
    }

    #[test]
    fn modules_and_flags() {
        let probe = one("ffffffffc0401000  k  testmod_show+0x0  testmod [DISABLED][FTRACE]");
        assert_eq!(probe.module.as_deref(), Some("testmod"));
        assert_eq!(probe.flags, [ProbeFlag::Disabled, ProbeFlag::Ftrace].into());
        let probe = one("ffffffffc0401000  k  testmod_show+0x0/0x20 [testmod] [GONE]");
        assert_eq!((probe.module.as_deref(), probe.flags), (Some("testmod"), [ProbeFlag::Gone].into()));
        let probe = one("ffffffffc0401000  k  0xffffffffc0401000 [GONE][NEW_ONE]");
        assert_eq!((probe.symbol.as_str(), probe.offset), ("0xffffffffc0401000", 0));
        assert_eq!(probe.flags, [ProbeFlag::Gone, ProbeFlag::Other("NEW_ONE".into())].into());
        assert_eq!(one("(____ptrval____)  k  f+0x1  ").address, 0);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = ListedProbe::parse_list("0 k f+0x0\n\nffff  x  f+0x0\n").unwrap_err();
        assert_eq!(error.to_string(), "line 3 of kprobes/list cannot be read: `ffff  x  f+0x0`");
        assert!(ListedProbe::parse_list("ffff k f+0xzz").is_err());
        assert!(ListedProbe::parse_list("ffff").is_err());
        assert!(ListedProbe::parse_list("\n").unwrap().is_empty());
    }
}
