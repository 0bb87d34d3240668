//! What scenarios have to know of a kernel and what follows from its release and configuration.

use std::collections::BTreeMap;

use super::Found;
use crate::scenario::kernel_version;
use crate::scenario::values::Value;

/// The kinds of probes: the option that brings each, and the first version without it. Of jprobes, which came with
/// KPROBES, Linux 4.15 left stubs ("kprobes: Disable the jprobes APIs").
const PROBES: [(&str, &str, Option<[u32; 3]>); 5] = [
    ("KPROBES", "kprobes", None),
    ("KRETPROBES", "kretprobes", None),
    ("KPROBES", "jprobes", Some([4, 15, 0])),
    ("KPROBES_ON_FTRACE", "kprobes-on-ftrace", None),
    ("OPTPROBES", "optprobes", None),
];

/// The values that follow from the kernel itself. All others are the architecture's.
pub(in crate::image) fn values(found: &Found) -> BTreeMap<String, Value> {
    let config = found.kernel_config();
    let is_before = |version: [u32; 3]| kernel_version(&found.release).is_some_and(|this| this < version);
    // Renamed by "fork: introduce kernel_clone()" (cad6967ac108).
    let fork = if is_before([5, 10, 0]) { "_do_fork" } else { "kernel_clone" };
    let there = |option: &str, until: Option<[u32; 3]>| config.is_set(option) && until.is_none_or(is_before);
    let kinds = PROBES.into_iter().filter(|(option, _, until)| there(option, *until));
    let probes = kinds.map(|(_, kind, _)| kind).collect::<Vec<_>>().join("\n");
    let text = |text: &str| Value::Text(text.to_owned());
    BTreeMap::from([("fork".to_owned(), text(fork)), ("probes".to_owned(), text(&probes))])
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[rstest::rstest]
    #[case("4.9.337", "_do_fork", "kprobes\nkretprobes\njprobes\noptprobes")]
    #[case("5.9.16-mine", "_do_fork", "kprobes\nkretprobes\noptprobes")]
    #[case("5.10.0-rc1", "kernel_clone", "kprobes\nkretprobes\noptprobes")]
    fn names_follow_from_versions(#[case] release: &str, #[case] fork: &str, #[case] probes: &str) {
        let found = Found {
            arch: "x86_64".parse().unwrap(),
            release: release.to_owned(),
            boot_file: PathBuf::new(),
            config: "CONFIG_KPROBES=y\nCONFIG_KRETPROBES=y\nCONFIG_OPTPROBES=y\n".to_owned(),
            modules_dir: PathBuf::new(),
            modules: Vec::new(),
            builtin: String::new(),
            headers: None,
            sources: None,
        };
        let values = values(&found);
        assert_eq!((values["fork"].to_string(), values["probes"].to_string()), (fork.into(), probes.into()));
    }
}
