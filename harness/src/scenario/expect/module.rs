//! Expectations of modules.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Mismatch, Num};
use crate::trace::ListedModule;

/// What a module should be like; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModuleExpect {
    /// Whether it is loaded. Any other key says that it is.
    #[serde(default)]
    pub loaded: Option<bool>,
    /// Its use count, as `lsmod` shows it.
    #[serde(default)]
    pub use_count: Option<Num>,
    /// Its raw reference count, as events show it: one more than the use count.
    #[serde(default)]
    pub refcnt: Option<Num>,
    /// The modules that use it, in any order; `[]` for none.
    #[serde(default)]
    pub users: Option<Vec<String>>,
}

/// What the kernel adds to a module's use count (`MODULE_REF_BASE` in `kernel/module/main.c`).
const REF_BASE: i64 = 1;

impl ModuleExpect {
    /// What a module does not meet; `listed` is its line of `/proc/modules`, if it has one.
    pub fn check(&self, name: &str, listed: Option<&ListedModule>) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        let mut differs = |what: &str, expected: String, found: String| {
            mismatches.push(Mismatch::new(format!("module {name}{what}"), expected, found));
        };
        let Some(module) = listed else {
            if self.loaded != Some(false) {
                differs("", "it to be loaded".to_owned(), "it not loaded".to_owned());
            }
            return mismatches;
        };
        if self.loaded == Some(false) {
            let count = module.use_count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
            differs("", "it not to be loaded".to_owned(), format!("it loaded, with use count {count}"));
        }
        for (what, wanted, base) in [(" use-count", &self.use_count, 0), (" refcnt", &self.refcnt, REF_BASE)]
        {
            let count = module.use_count.map(|count| count.saturating_add(base));
            if let Some(wanted) = wanted
                && !count.is_some_and(|count| wanted.matches(count))
            {
                let found = count.map_or_else(
                    || "none: the kernel cannot unload modules".to_owned(),
                    |count| count.to_string(),
                );
                differs(what, wanted.to_string(), with_users(found, &module.users));
            }
        }
        if let Some(users) = &self.users {
            let sorted = |users: &[String]| {
                let mut users = users.to_vec();
                users.sort();
                users
            };
            if sorted(users) != sorted(&module.users) {
                differs(" users", list(users), list(&module.users));
            }
        }
        mismatches
    }
}

fn with_users(count: String, users: &[String]) -> String {
    if users.is_empty() { count } else { format!("{count}, used by {}", list(users)) }
}

fn list(users: &[String]) -> String {
    if users.is_empty() { "none".to_owned() } else { users.join(", ") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIST: &str = "firewire_core 81920 1 firewire_ohci, Live 0x0\ncrc_itu_t 16384 1 firewire_core, Live 0x0\n\
                        refmod 16384 2 - Live 0x0 (OE)\nold 1 - - Live 0x0\n";

    #[rstest]
    #[case("crc_itu_t", "{ use-count: 1, refcnt: 2, users: [firewire_core], loaded: true }", &[])]
    #[case("refmod", "{ use-count: '>= 2', users: [] }", &[])]
    #[case("gone", "{ loaded: false }", &[])]
    #[case("gone", "{ use-count: 0 }", &["module gone: expected it to be loaded\nfound it not loaded"])]
    #[case("refmod", "{ loaded: false }", &["module refmod: expected it not to be loaded\nfound it loaded, with use count 2"])]
    #[case(
        "crc_itu_t",
        "{ use-count: 0, refcnt: 1, users: [] }",
        &[
            "module crc_itu_t use-count: expected 0\nfound 1, used by firewire_core",
            "module crc_itu_t refcnt: expected 1\nfound 2, used by firewire_core",
            "module crc_itu_t users: expected none\nfound firewire_core",
        ]
    )]
    #[case("old", "{ use-count: 0 }", &["module old use-count: expected 0\nfound none: the kernel cannot unload modules"])]
    fn modules_are_checked(#[case] name: &str, #[case] expect: &str, #[case] expected: &[&str]) {
        let expect: ModuleExpect = crate::yaml::from_str(expect).unwrap();
        let modules = ListedModule::parse_list(LIST).unwrap();
        let listed = modules.iter().find(|module| module.name == name);
        let mismatches: Vec<_> = expect.check(name, listed).iter().map(ToString::to_string).collect();
        assert_eq!(mismatches, expected);
    }
}
