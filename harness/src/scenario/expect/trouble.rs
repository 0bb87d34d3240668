//! Expected trouble: a kernel's reports of warnings and worse, and its taints. What is not expected of these makes a
//! case a crash, whatever else was met.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error};

use super::{Expect, Mismatch, text::quoted};
use crate::console::{self, Splat, Taint, TaintSet};
use crate::scenario::words::Regex;

/// A report of trouble by the kernel. It may come more than once.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SplatPattern {
    /// What it is.
    pub kind: SplatKind,
    /// What its title says. A title is like `WARNING in __module_put`: without addresses, CPUs and source lines.
    #[serde(default)]
    pub title: Option<Regex>,
}

macro_rules! kinds {
    ($($name:ident: $meaning:literal, $taint:expr;)*) => {
        /// A kind of report. Panics and hard lockups are not among them, for no case goes on after one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum SplatKind {
            $(#[doc = $meaning] $name,)*
        }

        impl SplatKind {
            fn as_reported(self) -> console::SplatKind {
                match self { $(SplatKind::$name => console::SplatKind::$name,)* }
            }

            /// The taint that the kernel takes on with such a report: `add_taint` in its `kernel/panic.c`,
            /// `kernel/watchdog.c`, `kernel/sched/core.c`, `mm/page_alloc.c`, `mm/kasan/report.c` and its likes.
            fn taint(self) -> Option<Taint> {
                match self { $(SplatKind::$name => $taint,)* }
            }
        }
    };
}

kinds! {
    Oops: "A fault in the kernel.", Some(Taint::Die);
    Bug: "`kernel BUG at`, and other BUGs.", Some(Taint::Die);
    Warn: "`WARNING:`", Some(Taint::Warn);
    SoftLockup: "A CPU did not schedule.", Some(Taint::SoftLockup);
    HungTask: "A task sleeps uninterruptibly for too long.", None;
    RcuStall: "A CPU or task holds up RCU's grace period.", None;
    Lockdep: "A finding of the lock validator.", None;
    Kasan: "A finding of KASAN.", Some(Taint::BadPage);
    Kmsan: "A finding of KMSAN.", Some(Taint::BadPage);
    Ubsan: "A finding of UBSAN.", None;
    Kcsan: "A finding of KCSAN.", None;
    Kfence: "A finding of KFENCE.", Some(Taint::BadPage);
    SchedulingWhileAtomic: "`BUG: scheduling while atomic`, or a sleep where none may be.", Some(Taint::Warn);
    BadPage: "`BUG: Bad page state` and its likes.", Some(Taint::BadPage);
}

/// A taint's letter, as the kernel's documentation of tainted kernels lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub struct TaintLetter(#[schemars(with = "String", regex(pattern = "^[A-Z]$"))] pub Taint);

impl<'de> Deserialize<'de> for TaintLetter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let taint = Taint::ALL.iter().find(|taint| taint.letter().to_string() == text);
        taint.copied().map(TaintLetter).ok_or_else(|| {
            let letters: Vec<_> = Taint::ALL.iter().map(|taint| taint.letter().to_string()).collect();
            D::Error::custom(format_args!("`{text}` is no taint\nknown are {}", letters.join(", ")))
        })
    }
}

/// What came of expected and unexpected trouble.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// What was expected and did not come: the case fails.
    pub missing: Vec<Mismatch>,
    /// The reports that nobody expected, by their index: the case is a crash.
    pub unexpected_splats: Vec<usize>,
    /// The taints that nobody expected: the case is a crash.
    pub unexpected_taints: TaintSet,
}

/// Compares what a kernel reported in a case, and the taints it took on, with what the scenario expects at its end.
///
/// Loading test modules taints (out-of-tree, unsigned), and so do expected reports; neither need be listed.
pub fn check_trouble(expect: Option<&Expect>, splats: &[Splat], taints: TaintSet) -> Trouble {
    let listed = |expect: &Expect| expect.splats.as_ref().map(|splats| splats.value.0.clone());
    let patterns = expect.and_then(listed).unwrap_or_default();
    let letters = expect
        .and_then(|expect| expect.taint.as_ref())
        .map(|taint| taint.value.0.clone())
        .unwrap_or_default();
    let mut trouble = Trouble::default();
    for (index, pattern) in patterns.iter().enumerate() {
        if !splats.iter().any(|splat| pattern.matches(splat)) {
            let titles: Vec<_> = splats.iter().map(|splat| quoted(&splat.title)).collect();
            let found = if titles.is_empty() { "none".to_owned() } else { titles.join(", ") };
            trouble.missing.push(Mismatch::new(format!("splats[{index}]"), pattern.shown(), found));
        }
    }
    for TaintLetter(taint) in letters.iter().filter(|letter| !taints.contains(letter.0)) {
        let found = if taints.is_empty() { "none".to_owned() } else { format!("`{taints}`") };
        trouble.missing.push(Mismatch::new(
            "taint",
            format!("`{}`: {}", taint.letter(), taint.meaning()),
            found,
        ));
    }
    let unexpected = |splat: &Splat| !patterns.iter().any(|pattern| pattern.matches(splat));
    trouble.unexpected_splats =
        (0..).zip(splats).filter(|(_, splat)| unexpected(splat)).map(|(index, _)| index).collect();
    let implied = patterns.iter().filter_map(|pattern| pattern.kind.taint());
    let allowed = letters.iter().map(|letter| letter.0).chain(implied);
    let allowed: TaintSet = allowed.chain([Taint::OutOfTreeModule, Taint::UnsignedModule]).collect();
    trouble.unexpected_taints = taints.without(allowed);
    trouble
}

impl SplatPattern {
    /// Whether a report is meant.
    pub fn matches(&self, splat: &Splat) -> bool {
        self.kind.as_reported() == splat.kind
            && self.title.as_ref().is_none_or(|title| title.is_match(&splat.title))
    }

    fn shown(&self) -> String {
        let title = self
            .title
            .as_ref()
            .map(|title| format!(" with the title /{}/", title.as_str()))
            .unwrap_or_default();
        format!("a report `{:?}`{title}", self.kind).to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn splat(kind: console::SplatKind, title: &str) -> Splat {
        Splat {
            kind,
            title: title.to_owned(),
            lines: Vec::new(),
            cpu: None,
            pid: None,
            comm: None,
            complete: true,
        }
    }

    const WARN: console::SplatKind = console::SplatKind::Warn;

    #[rstest]
    #[case::quiet("", &[], "OE", Trouble::default())]
    #[case::met("splats: { kind: warn, title: module_put$ }", &["WARNING in module_put"], "WOE", Trouble::default())]
    #[case::twice("splats: { kind: warn }", &["WARNING in a", "WARNING in b"], "WO", Trouble::default())]
    #[case::taint("taint: [R]", &[], "ROE", Trouble::default())]
    #[case::unexpected("", &["WARNING in a"], "W", Trouble {
        unexpected_splats: vec![0],
        unexpected_taints: TaintSet::from_letters("W"),
        ..Trouble::default()
    })]
    #[case::other_title("splats: { kind: warn, title: x }", &["WARNING in a"], "W", Trouble {
        missing: vec![Mismatch::new("splats[0]", "a report `warn` with the title /x/", "`WARNING in a`")],
        unexpected_splats: vec![0],
        ..Trouble::default()
    })]
    #[case::no_taint("taint: R", &[], "O", Trouble {
        missing: vec![Mismatch::new("taint", "`R`: a module was removed by force", "`O`")],
        ..Trouble::default()
    })]
    fn trouble_is_told_apart(
        #[case] expect: &str,
        #[case] titles: &[&str],
        #[case] taints: &str,
        #[case] expected: Trouble,
    ) {
        let splats: Vec<_> = titles.iter().map(|title| splat(WARN, title)).collect();
        let expect: Option<Expect> = (!expect.is_empty()).then(|| crate::yaml::from_str(expect).unwrap());
        assert_eq!(check_trouble(expect.as_ref(), &splats, TaintSet::from_letters(taints)), expected);
    }

    #[test]
    fn an_unknown_taint_is_refused() {
        let errors = crate::yaml::from_str::<Expect>("taint: [W, Z]").unwrap_err();
        assert_eq!((errors[0].at.column, errors[0].message.as_str()), (12, "`Z` is no taint"));
    }
}
