//! What kernels and machines cannot do: `limits.yaml` among the scenarios.
//!
//! An entry says that a scenario does not end well on some kernels, how it ends there, and why. Its case is run all the
//! same: where it ends so it is a skip, with the reason; where it ends in another way, that is the outcome. Where it
//! passes, the entry is out of date, which is told. Only what ends in no certain way is not run.

use serde::Deserialize;

use super::model::Requires;
use crate::yaml::{self, Diagnostic, OneOrMany, Spanned, nearest};

/// The file's name. No scenario can have it.
pub const FILE: &str = "limits.yaml";

/// A scenario that does not end well on some kernels.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limit {
    /// The scenarios' ids.
    pub scenario: OneOrMany<Spanned<String>>,
    /// Where that is so: what a kernel has. Its `reason` is the limit, by commit, option or file.
    pub on: Spanned<Requires>,
    /// How its cases end there.
    pub ends: Ends,
}

/// How a case ends that meets a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// Something expected does not come.
    Fail,
    /// The kernel reports trouble.
    Crash,
    /// Something takes too long.
    Timeout,
    /// The test cannot be made: a module does not build, a machine does not start.
    Error,
    /// Now in one way, now in another, so that its cases are not run.
    Varies,
}

impl Limit {
    /// The reason, with nothing around it.
    pub fn reason(&self) -> &str {
        self.on.value.reason.as_deref().unwrap_or_default().trim()
    }
}

/// Reads the entries; `scenarios` are the ids that there are.
///
/// # Errors
///
/// Everything that is wrong with the text.
pub fn read(text: &str, scenarios: &[&str]) -> Result<Vec<Spanned<Limit>>, Vec<Diagnostic>> {
    let limits: Vec<Spanned<Limit>> = yaml::from_str(text)?;
    let mut diagnostics = Vec::new();
    for limit in &limits {
        let Limit { scenario, on, .. } = &limit.value;
        for id in scenario.iter().filter(|id| !scenarios.contains(&id.value.as_str())) {
            let hint = nearest(&id.value, scenarios.iter().copied())
                .map(|near| format!("\ndid you mean `{near}`?"))
                .unwrap_or_default();
            diagnostics.push(Diagnostic::new(id.at, format!("there is no scenario `{}`{hint}", id.value)));
        }
        if (Requires { reason: None, ..on.value.clone() }) == Requires::default() {
            diagnostics.push(Diagnostic::new(
                on.at,
                "no kernel is named\ngive `kernel`, `config`, `arch` or `not-arch`",
            ));
        }
        if !limit.value.reason().split_whitespace().any(names_a_source) {
            let message = "the reason names no limit\nsay which commit (12 digits), option (`CONFIG_…`) or file (`a/b.c`) \
                           has it";
            diagnostics.push(Diagnostic::new(on.at, message));
        }
    }
    if diagnostics.is_empty() { Ok(limits) } else { Err(diagnostics) }
}

/// Whether a word is a commit, an option or a file.
fn names_a_source(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_commit = word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit || word.starts_with("CONFIG_") || word.split('/').filter(|part| !part.is_empty()).count() > 1
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const GOOD: &str = "\
- scenario: [kprobe/a, kprobe/b]
  on: { arch: s390x, kernel: \"<6.6\", reason: no such thing (arch/s390/kernel/kprobes.c) }
  ends: fail
";

    fn errors(text: &str) -> Vec<String> {
        let told = |error: Diagnostic| format!("{}:{} {}", error.at.line, error.at.column, error.message);
        read(text, &["kprobe/a", "kprobe/b"]).unwrap_err().into_iter().map(told).collect()
    }

    #[test]
    fn entries_are_read() {
        let limits = read(GOOD, &["kprobe/a", "kprobe/b"]).unwrap();
        assert_eq!((limits.len(), limits[0].value.ends), (1, Ends::Fail));
        assert_eq!(limits[0].value.reason(), "no such thing (arch/s390/kernel/kprobes.c)");
        let varies = read(&GOOD.replace("fail", "varies"), &["kprobe/a", "kprobe/b"]).unwrap();
        assert_eq!(varies[0].value.ends, Ends::Varies);
        assert!(read("[]", &[]).unwrap().is_empty());
    }

    #[rstest]
    #[case("kprobe/b", "kprobe/c", "1:24 there is no scenario `kprobe/c`")]
    #[case("[kprobe/a, kprobe/b]", "[]", "1:13 the list is empty")]
    #[case("arch: s390x, kernel: \"<6.6\", ", "", "2:7 no kernel is named")]
    #[case("(arch/s390/kernel/kprobes.c)", "there", "2:7 the reason names no limit")]
    #[case("arch: s390x", "arch: s390y", "2:15 unknown architecture `s390y`")]
    #[case("\"<6.6\"", "6.6", "2:30 ")]
    #[case("ends: fail", "ends: pass", "3:9 ")]
    #[case("ends: fail", "end: fail", "3:3 unknown key `end`")]
    fn what_is_wrong_is_placed(#[case] good: &str, #[case] bad: &str, #[case] expected: &str) {
        let told = errors(&GOOD.replacen(good, bad, 1));
        assert!(told.iter().any(|error| error.starts_with(expected)), "{told:?}");
    }

    #[rstest]
    #[case("0123456789ab", true)]
    #[case("(0123456789ab,", true)]
    #[case("CONFIG_USB", true)]
    #[case("kernel/kprobes.c", true)]
    #[case("facade", false)]
    #[case("and/", false)]
    fn a_source_is_a_commit_an_option_or_a_file(#[case] word: &str, #[case] is: bool) {
        assert_eq!(names_a_source(word), is);
    }
}
