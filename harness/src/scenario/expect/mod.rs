//! What is expected, and whether what was captured meets it. All pure: values in, mismatches out.

mod blame;
mod event;
mod kprobe;
mod ktap;
mod module;
mod number;
mod program;
mod symbol;
mod text;
mod trouble;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

pub use blame::{
    BlameExpect, CertaintyName, HolderKind, HolderPattern, ReferencePattern, ReturnedExpect, VerdictName,
};
pub use event::{EventCount, EventPattern, TraceExpect};
pub use kprobe::{FlagName, KprobeCount, KprobePattern, KprobesExpect, ProbeKind};
pub use ktap::{KtapExpect, all_skipped, check_subtests};
pub use module::ModuleExpect;
pub use number::Num;
pub use program::{End, Program};
pub use text::{TextCount, TextMatch};
pub use trouble::{SplatKind, SplatPattern, TaintLetter, Trouble, check_trouble};

use super::step::GuestPath;
use super::words::{Pattern, Signal};
use crate::yaml::{OneOrMany, Spanned};

/// What is expected: of the step's own result (`exit`, `signal`, `stdout`, `stderr`, `content`), and of the guest and
/// all that was captured since the case began.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expect {
    /// The exit status of `run`, `stop` and `wait-exit`.
    #[serde(default)]
    pub exit: Option<Spanned<Num>>,
    /// The signal that ended the program of `run`, `stop` and `wait-exit`.
    #[serde(default)]
    pub signal: Option<Spanned<Signal>>,
    /// What the program of `run`, `stop` and `wait-exit` wrote to its standard output.
    #[serde(default)]
    pub stdout: Option<Spanned<TextMatch>>,
    /// What it wrote to its standard error.
    #[serde(default)]
    pub stderr: Option<Spanned<TextMatch>>,
    /// What `read` found in the file.
    #[serde(default)]
    pub content: Option<Spanned<TextMatch>>,
    /// The kernel log's lines since the case began, without their timestamps.
    #[serde(default)]
    pub log: Option<TextMatch>,
    /// The events traced.
    #[serde(default)]
    pub trace: Option<Spanned<TraceExpect>>,
    /// Functions of the call chain that the last breakpoint was hit in, from the innermost outwards, with any others
    /// between them. What is hit later than this is looked at is waited for.
    #[serde(default)]
    pub backtrace: Option<Spanned<OneOrMany<Pattern>>>,
    /// Files of the guest, read now.
    #[serde(default)]
    pub files: BTreeMap<GuestPath, TextMatch>,
    /// The list of kprobes, read now.
    #[serde(default)]
    pub kprobes: Option<KprobesExpect>,
    /// Modules, as they are now.
    #[serde(default)]
    pub modules: BTreeMap<Spanned<String>, ModuleExpect>,
    /// What holds modules now: who took each reference, by the trace, and who has it, by a scan of the kernel.
    #[serde(default)]
    pub blame: BTreeMap<Spanned<String>, BlameExpect>,
    /// Subtests: results in KTAP, in the kernel log since the case began and in the standard output of steps. None of
    /// them may fail unless this says so. Only at the end of the scenario.
    #[serde(default)]
    pub ktap: Option<Spanned<KtapExpect>>,
    /// Reports of trouble (WARN, BUG, oops and the like) that the kernel must make; any other makes the case a crash.
    /// Only at the end of the scenario.
    #[serde(default)]
    pub splats: Option<Spanned<OneOrMany<SplatPattern>>>,
    /// Letters of taints that the kernel must have taken on, such as `R` for a forced removal; any other makes the
    /// case a crash. Those of loading test modules and of expected reports need not be listed. Only at the end of the
    /// scenario.
    #[serde(default)]
    pub taint: Option<Spanned<OneOrMany<TaintLetter>>>,
}

impl Expect {
    /// Whether the kernel must be scanned for it, by the test module for that.
    pub fn needs_scan(&self) -> bool {
        self.blame.values().any(BlameExpect::needs_scan)
    }

    /// What of `backtrace` does not hold.
    pub fn check_backtrace(&self, functions: &[String]) -> Option<Mismatch> {
        let wanted = self.backtrace.as_ref()?;
        let missing = symbol::missing(&wanted.0, functions)?;
        let wanted = wanted.iter().map(Pattern::to_string).collect::<Vec<_>>().join(" < ");
        let found = format!("no `{missing}` in its place: {}", functions.join(" < "));
        Some(Mismatch::new("backtrace", format!("`{wanted}`"), found))
    }
}

/// Something expected that did not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What was looked at: `stdout`, `trace in-order[1]`.
    pub what: String,
    /// What should have been there.
    pub expected: String,
    /// What was there; may have several lines.
    pub found: String,
}

impl Mismatch {
    pub(crate) fn new(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Mismatch { what: what.into(), expected: expected.into(), found: found.into() }
    }

    /// The same within something larger.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.what = if self.what.is_empty() { outer.to_owned() } else { format!("{outer} {}", self.what) };
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}", self.what, self.expected)?;
        if self.found.contains('\n') {
            write!(f, "\nfound:")?;
            self.found.lines().try_for_each(|line| write!(f, "\n  {line}"))
        } else {
            write!(f, "\nfound {}", self.found)
        }
    }
}
