//! Expectations of the list of kprobes.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Mismatch, Num, symbol, text::quoted};
use crate::scenario::words::Pattern;
use crate::trace::{ListedProbe, ProbeFlag, ProbeType};
use crate::yaml::OneOrMany;

/// What the list of kprobes should have. It is never empty on some architectures, which keep probes of their own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KprobesExpect {
    /// Probes that are in it.
    #[serde(default)]
    pub contains: OneOrMany<KprobePattern>,
    /// Probes that are not.
    #[serde(default)]
    pub none: OneOrMany<KprobePattern>,
    /// How many there are of a kind.
    #[serde(default)]
    pub count: OneOrMany<KprobeCount>,
}

/// How many probes there are of a kind.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KprobeCount {
    /// Which.
    pub of: KprobePattern,
    /// How many.
    pub is: Num,
}

/// A probe; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KprobePattern {
    /// The function. The dot of big-endian ppc64 and the compiler's suffixes are not looked at.
    #[serde(default)]
    pub symbol: Option<Pattern>,
    /// Bytes from the function's start. At a function's entry they are not 0 on every architecture, so give this only
    /// for a probe inside a function.
    #[serde(default)]
    pub offset: Option<Num>,
    /// Its type.
    #[serde(default, rename = "type")]
    pub kind: Option<ProbeKind>,
    /// The module that the function is in.
    #[serde(default)]
    pub module: Option<Pattern>,
    /// Flags that it has, among others.
    #[serde(default)]
    pub flags: OneOrMany<FlagName>,
    /// Flags that it has not.
    #[serde(default)]
    pub not_flags: OneOrMany<FlagName>,
}

/// A type of probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ProbeKind {
    Kprobe,
    Jprobe,
    Kretprobe,
}

/// What the list says of a probe in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the kernel's words")]
pub enum FlagName {
    Disabled,
    Gone,
    Optimized,
    Ftrace,
}

impl From<ProbeKind> for ProbeType {
    fn from(kind: ProbeKind) -> Self {
        match kind {
            ProbeKind::Kprobe => ProbeType::Kprobe,
            ProbeKind::Jprobe => ProbeType::Jprobe,
            ProbeKind::Kretprobe => ProbeType::Kretprobe,
        }
    }
}

impl From<FlagName> for ProbeFlag {
    fn from(name: FlagName) -> Self {
        match name {
            FlagName::Disabled => ProbeFlag::Disabled,
            FlagName::Gone => ProbeFlag::Gone,
            FlagName::Optimized => ProbeFlag::Optimized,
            FlagName::Ftrace => ProbeFlag::Ftrace,
        }
    }
}

impl KprobesExpect {
    /// What the list does not meet.
    pub fn check(&self, probes: &[ListedProbe]) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        for (index, pattern) in self.contains.iter().enumerate() {
            if !probes.iter().any(|probe| pattern.matches(probe)) {
                let what = format!("kprobes contains[{index}]");
                mismatches.push(Mismatch::new(what, pattern.to_string(), nearest(pattern, probes)));
            }
        }
        for (index, pattern) in self.none.iter().enumerate() {
            if let Some(probe) = probes.iter().find(|probe| pattern.matches(probe)) {
                mismatches.push(Mismatch::new(
                    format!("kprobes none[{index}]"),
                    format!("no {pattern}"),
                    line(probe),
                ));
            }
        }
        for (index, KprobeCount { of, is }) in self.count.iter().enumerate() {
            let count = probes.iter().filter(|probe| of.matches(probe)).count();
            if !is.matches(i64::try_from(count).unwrap_or(i64::MAX)) {
                let found = format!("{count} among {} probes", probes.len());
                mismatches.push(Mismatch::new(
                    format!("kprobes count[{index}]"),
                    format!("{is} times {of}"),
                    found,
                ));
            }
        }
        mismatches
    }
}

impl KprobePattern {
    /// Whether a probe is meant.
    pub fn matches(&self, probe: &ListedProbe) -> bool {
        self.differences(probe).is_empty()
    }

    /// The keys in which a probe is not as it should be.
    fn differences(&self, probe: &ListedProbe) -> Vec<String> {
        let offset = i64::try_from(probe.offset).unwrap_or(i64::MAX);
        let module = probe.module.as_deref();
        let differs = [
            ("symbol", self.symbol.as_ref().is_some_and(|pattern| !symbol::matches(pattern, &probe.symbol))),
            ("offset", self.offset.as_ref().is_some_and(|num| !num.matches(offset))),
            ("type", self.kind.is_some_and(|kind| ProbeType::from(kind) != probe.probe_type)),
            (
                "module",
                self.module.as_ref().is_some_and(|pattern| !module.is_some_and(|name| pattern.is(name))),
            ),
        ];
        let keys =
            differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("its {key} differs"));
        let has = |name: &FlagName| probe.flags.contains(&ProbeFlag::from(*name));
        let missing =
            self.flags.iter().filter(|name| !has(name)).map(|name| format!("it is not {}", flag(*name)));
        let extra =
            self.not_flags.iter().filter(|name| has(name)).map(|name| format!("it is {}", flag(*name)));
        keys.chain(missing).chain(extra).collect()
    }
}

fn flag(name: FlagName) -> String {
    format!("{name:?}").to_uppercase()
}

impl fmt::Display for KprobePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or_else(|| "a probe".to_owned(), |kind| format!("{kind:?}").to_lowercase());
        let one = |key: &str, value: Option<String>| value.map(|value| format!("{key}={value}"));
        let flags = |names: &[FlagName]| names.iter().map(|name| flag(*name)).collect::<Vec<_>>().join(" ");
        let parts = [
            Some(kind),
            one("symbol", self.symbol.as_ref().map(Pattern::to_string)),
            one("offset", self.offset.as_ref().map(Num::to_string)),
            one("module", self.module.as_ref().map(Pattern::to_string)),
            (!self.flags.is_empty()).then(|| flags(&self.flags)),
            (!self.not_flags.is_empty()).then(|| format!("not {}", flags(&self.not_flags))),
        ];
        write!(f, "`{}`", parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// A probe nearly as the kernel lists it, without the address.
fn line(probe: &ListedProbe) -> String {
    let flags: String = probe.flags.iter().map(|flag| format!(" [{}]", flag_text(flag))).collect();
    let module = probe.module.as_ref().map(|module| format!(" {module}")).unwrap_or_default();
    let kind = format!("{:?}", probe.probe_type).to_lowercase();
    quoted(&format!("{kind} {}+{:#x}{module}{flags}", probe.symbol, probe.offset))
}

fn flag_text(flag: &ProbeFlag) -> String {
    match flag {
        ProbeFlag::Other(name) => name.clone(),
        known => format!("{known:?}").to_uppercase(),
    }
}

fn nearest(pattern: &KprobePattern, probes: &[ListedProbe]) -> String {
    let best = probes
        .iter()
        .map(|probe| (probe, pattern.differences(probe)))
        .min_by_key(|(_, differences)| differences.len());
    match best {
        None => "an empty list".to_owned(),
        Some((probe, differences)) => {
            format!(
                "none among {}; nearest is\n{}\nbut {}",
                probes.len(),
                line(probe),
                differences.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIST: &str = "c000000000049c20  k  __kretprobe_trampoline+0x0    [OPTIMIZED]\n\
                        c00000000012a9bc  k  .kernel_clone+0xc    [FTRACE]\n\
                        c00000000012a9b0  r  kernel_clone+0x0    [DISABLED][FTRACE]\n\
                        d000000000002000  k  lo_open.part.0+0x20  loop [GONE]\n";

    fn check(expect: &str) -> String {
        let expect: KprobesExpect = crate::yaml::from_str(expect).unwrap();
        let probes = ListedProbe::parse_list(LIST).unwrap();
        let mismatches: Vec<_> = expect.check(&probes).iter().map(ToString::to_string).collect();
        if mismatches.is_empty() { "ok".to_owned() } else { mismatches.join("\n\n") }
    }

    #[rstest]
    #[case("contains: { symbol: kernel_clone, type: kprobe, not-flags: DISABLED }")]
    #[case("contains: { symbol: kernel_clone, type: kretprobe, flags: [DISABLED, FTRACE] }")]
    #[case("contains: { symbol: lo_open, offset: 0x20, module: loop, flags: GONE }")]
    #[case("none: [{ symbol: kernel_clone, type: jprobe }, { symbol: lo_open, offset: 0 }]")]
    #[case("count: [{ of: { symbol: kernel_clone }, is: 2 }, { of: { module: /./ }, is: 1 }]")]
    fn probes_match(#[case] expect: &str) {
        assert_eq!(check(expect), "ok");
    }

    #[rstest]
    #[case(
        "contains: { symbol: kernel_clone, type: kprobe, flags: DISABLED }",
        "kprobes contains[0]: expected `kprobe symbol=kernel_clone DISABLED`\nfound:\n  none among 4; nearest is\n  \
         `kprobe .kernel_clone+0xc [FTRACE]`\n  but it is not DISABLED"
    )]
    #[case(
        "none: { module: loop }",
        "kprobes none[0]: expected no `a probe module=loop`\nfound `kprobe lo_open.part.0+0x20 loop [GONE]`"
    )]
    #[case(
        "count: { of: { type: kretprobe }, is: 2 }",
        "kprobes count[0]: expected 2 times `kretprobe`\nfound 1 among 4 probes"
    )]
    fn mismatches_are_told(#[case] expect: &str, #[case] expected: &str) {
        assert_eq!(check(expect), expected);
    }
}
