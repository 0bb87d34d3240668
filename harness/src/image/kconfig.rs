//! Kernel configuration files.

use std::collections::BTreeMap;

/// A kernel's configuration, as its `.config` says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelConfig(BTreeMap<String, String>);

impl KernelConfig {
    /// Reads `CONFIG_NAME=value` lines; all others, `# CONFIG_NAME is not set` among them, say nothing.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((name.to_owned(), value.trim_end().trim_matches('"').to_owned()))
        };
        KernelConfig(text.lines().filter_map(line).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

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
