//! What is expected, and whether what was captured meets it. All pure: values in, mismatches out.

mod event;
mod kprobe;
mod module;
mod number;
mod symbol;
mod text;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

pub use event::{EventCount, EventPattern, TraceExpect};
pub use kprobe::{FlagName, KprobeCount, KprobePattern, KprobesExpect, ProbeKind};
pub use module::ModuleExpect;
pub use number::Num;
pub use text::{TextCount, TextMatch};

use super::step::GuestPath;
use super::words::{Regex, Signal};
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
    /// Files of the guest, read now.
    #[serde(default)]
    pub files: BTreeMap<GuestPath, TextMatch>,
    /// The list of kprobes, read now.
    #[serde(default)]
    pub kprobes: Option<KprobesExpect>,
    /// Modules, as they are now.
    #[serde(default)]
    pub modules: BTreeMap<Spanned<String>, ModuleExpect>,
    /// Each WARN, BUG or oops that the kernel must report, in order; any other makes the case a crash. Only at the
    /// end of the scenario.
    #[serde(default)]
    pub splats: Option<Spanned<OneOrMany<SplatPattern>>>,
    /// The taint letters that the kernel may have got besides those of loading test modules, such as `W` and `R`.
    /// Only at the end of the scenario.
    #[serde(default)]
    pub taint: Option<Spanned<OneOrMany<TaintLetter>>>,
}

/// A report of trouble by the kernel.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SplatPattern {
    /// What it is.
    pub kind: SplatKind,
    /// What its title line says.
    #[serde(default)]
    pub title: Option<Regex>,
}

/// A kind of report. A panic and a lockup end the guest, so that none of them can be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SplatKind {
    /// `WARNING: …`
    Warning,
    /// `BUG: …`
    Bug,
    /// `Oops: …` and its likes: the kernel killed the task that ran into it.
    Oops,
}

/// A taint's letter, as the kernel's documentation of tainted kernels lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(inline)]
pub struct TaintLetter(#[schemars(regex(pattern = "^[A-Z]$"))] pub char);

impl<'de> Deserialize<'de> for TaintLetter {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(letter @ 'A'..='Z'), None) => Ok(TaintLetter(letter)),
            _ => Err(serde::de::Error::custom(format_args!("`{text}` is no taint\ngive one capital letter"))),
        }
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
