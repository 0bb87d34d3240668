//! Kernel configuration files, and the fragments of them that say what a guest's kernel needs.

use std::collections::BTreeMap;

use crate::arch::Arch;

/// What no guest comes up without.
const AGENT: &str = include_str!("../../images/kconfig/agent.config");
/// What every guest's kernel must have besides.
const NEEDED: &str = include_str!("../../images/kconfig/needed.config");
/// What single scenarios need besides.
const SCENARIOS: &str = include_str!("../../images/kconfig/scenarios.config");
/// What `--coverage-dir` needs besides.
const COVERAGE: &str = include_str!("../../images/kconfig/coverage.config");

/// A kernel's configuration, as its `.config` says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelConfig(BTreeMap<String, String>);

impl KernelConfig {
    /// Reads `CONFIG_NAME=value` lines; all others, `# CONFIG_NAME is not set` among them, say nothing.
    pub fn parse(text: &str) -> Self {
        KernelConfig(options(text).collect())
    }

    /// The value of an option, named with or without `CONFIG_`; `None` where it is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name.strip_prefix("CONFIG_").unwrap_or(name)).map(String::as_str)
    }

    /// Whether the option is `y` or `m`.
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), Some("y" | "m"))
    }

    /// Whether the option is `m`.
    pub fn is_module(&self, name: &str) -> bool {
        self.get(name) == Some("m")
    }
}

/// The options that the lines of a configuration set, with their values.
fn options(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        Some((name.to_owned(), value.trim_end().trim_matches('"').to_owned()))
    })
}

/// Part of a configuration: the options that a kernel is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment(String);

impl Fragment {
    /// What no kernel brings a guest up without, whatever the machine.
    pub fn agent() -> Self {
        Fragment(AGENT.to_owned())
    }

    /// What scenarios are about, and the channel to the guest, whatever the machine.
    pub fn subject() -> Self {
        Fragment(NEEDED.to_owned())
    }

    /// What a kernel must have for a guest of the architecture: without one of these none comes up, or no scenario can be
    /// run. Drivers may be modules where the fragment has them built in.
    pub fn needed(arch: Arch) -> Self {
        Fragment([AGENT, NEEDED, arch.kconfig].join("\n"))
    }

    /// What a kernel must have for every scenario: what is needed, and what single scenarios are skipped without; and what
    /// tells which of its lines they executed.
    pub fn full(arch: Arch) -> Self {
        Fragment([AGENT, NEEDED, arch.kconfig, SCENARIOS, COVERAGE].join("\n"))
    }

    /// Its text, with its comments.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Its options, without `CONFIG_`, and their values, in the order of the text.
    pub fn options(&self) -> impl Iterator<Item = (String, String)> {
        options(&self.0)
    }

    /// The lines whose options a configuration has neither built in nor as modules.
    pub fn missing(&self, config: &KernelConfig) -> Vec<String> {
        let missing = self.options().filter(|(name, _)| !config.is_set(name));
        missing.map(|(name, value)| format!("CONFIG_{name}={value}")).collect()
    }

    /// What a configuration made from it has otherwise. `make` says nothing of an option whose dependencies are not met,
    /// or that the kernel does not know: it is left out.
    pub fn dropped(&self, config: &KernelConfig) -> Vec<Dropped> {
        let differs = |(name, wanted): (String, String)| {
            let found = config.get(&name).map(str::to_owned);
            (found.as_ref() != Some(&wanted)).then_some(Dropped { name, wanted, found })
        };
        self.options().filter_map(differs).collect()
    }
}

/// An option that a configuration does not have as its fragment said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The option, without `CONFIG_`.
    pub name: String,
    /// Its value in the fragment.
    pub wanted: String,
    /// Its value in the configuration, if it is set there.
    pub found: Option<String>,
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Dropped { name, wanted, found } = self;
        write!(f, "CONFIG_{name}={wanted} became {}", found.as_deref().unwrap_or("n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_dropped_out_or_changed_is_told() {
        let fragment = Fragment("# words\nCONFIG_A=y\nCONFIG_B=m\n\nCONFIG_C=y\nCONFIG_D=\"x\"\n".into());
        let config = KernelConfig::parse("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=\"x\"\n");
        let dropped: Vec<String> = fragment.dropped(&config).iter().map(ToString::to_string).collect();
        assert_eq!(dropped, ["CONFIG_B=m became y", "CONFIG_C=y became n"]);
        assert_eq!(fragment.dropped(&KernelConfig::parse(fragment.text())), []);
    }

    #[test]
    fn the_fragments_name_each_option_once_and_have_nothing_but_options_and_comments() {
        for arch in Arch::all() {
            let fragment = Fragment::full(arch);
            let mut names: Vec<String> = fragment.options().map(|(name, _)| name).collect();
            assert!(names.iter().any(|name| name == "KPROBES"), "{arch}");
            let lines = fragment.text().lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            assert_eq!(lines.count(), names.len(), "{arch}");
            names.sort();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{arch}: {names:?}");
        }
    }

    #[test]
    fn options_are_set_built_in_or_modular_or_have_values() {
        let config = KernelConfig::parse(
            "# comment\nCONFIG_KPROBES=y\nCONFIG_LOOP=m\n# CONFIG_KGDB is not set\nCONFIG_HZ=250\nCONFIG_LOCALVERSION=\"-x\"\n\
             CONFIG_BROKEN\nOTHER=y\nCONFIG_OFF=n\r\n",
        );
        assert!(config.is_set("KPROBES") && config.is_set("CONFIG_LOOP"));
        assert!(config.is_module("LOOP") && !config.is_module("KPROBES"));
        for unset in ["KGDB", "OFF", "HZ", "BROKEN", "OTHER", ""] {
            assert!(!config.is_set(unset), "{unset}");
        }
        assert_eq!((config.get("HZ"), config.get("LOCALVERSION")), (Some("250"), Some("-x")));
    }
}
