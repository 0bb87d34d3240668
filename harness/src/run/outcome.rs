//! Every way a case can end, as types.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::console::Splat;
use crate::scenario::expect::Mismatch;
use crate::scenario::limits::Ends;

/// How a case ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Every expectation held.
    Pass,
    /// An expectation did not hold.
    Fail(Failure),
    /// The kernel said of itself that something is wrong, or died, and the scenario did not expect it.
    Crash(Crash),
    /// Something took longer than it may.
    Timeout(Timeout),
    /// The case does not apply here; why.
    Skip(String),
    /// The test could not be made: image, build, boot or host trouble.
    Error(String),
}

/// What kinds of [`Outcome`] there are, in the order in which reports list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Outcome::Pass`].
    Pass,
    /// [`Outcome::Skip`].
    Skip,
    /// [`Outcome::Fail`].
    Fail,
    /// [`Outcome::Crash`].
    Crash,
    /// [`Outcome::Timeout`].
    Timeout,
    /// [`Outcome::Error`].
    Error,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] = [Kind::Pass, Kind::Skip, Kind::Fail, Kind::Crash, Kind::Timeout, Kind::Error];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pass => "pass",
            Kind::Skip => "skip",
            Kind::Fail => "fail",
            Kind::Crash => "crash",
            Kind::Timeout => "timeout",
            Kind::Error => "error",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A place in a scenario's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// An expectation that did not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Where it is written.
    pub place: Place,
    /// The step, as reports name it; `None` for the scenario's own expectations.
    pub step: Option<String>,
    /// What was expected and what came, one for each that did not hold.
    pub mismatches: Vec<Mismatch>,
}

/// The kernel's trouble.
#[derive(Debug, Clone, PartialEq)]
pub struct Crash {
    /// The step under way, as reports name it.
    pub step: Option<String>,
    /// In a word or a line, stable between runs.
    pub title: String,
    /// What the kernel printed of it, where it printed.
    pub splat: Option<Splat>,
    /// Where in the sources functions are that it named, as far as there is debug information.
    pub code: Vec<CodePlace>,
}

/// Where in the sources a function in a line of the kernel's is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodePlace {
    /// The line of the splat that names the function, from 0.
    pub at: usize,
    /// The function, which may be one that was inlined into the one named.
    pub function: String,
    /// The source file, as the debug information has it.
    pub file: String,
    /// The line in it, from 1.
    pub line: u32,
}

impl Crash {
    /// What the kernel printed, each line with the places in the sources below it.
    pub fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        for (at, line) in self.splat.iter().flat_map(|splat| splat.lines.iter().enumerate()) {
            told.push(line.clone());
            let places = self.code.iter().filter(|place| place.at == at);
            told.extend(
                places.map(|place| format!("    {} at {}:{}", place.function, place.file, place.line)),
            );
        }
        told
    }

    /// The crash that a report of the kernel's is.
    pub(super) fn of(step: Option<String>, splat: &Splat) -> Self {
        Crash { step, title: splat.title.clone(), splat: Some(splat.clone()), code: Vec::new() }
    }
}

/// What part of a case took too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeout {
    /// The phase.
    pub phase: Phase,
    /// How long it was given.
    pub limit: Duration,
    /// What was there instead of what was waited for.
    pub found: String,
}

/// A part of a case that has a time limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// A step, as reports name it.
    Step(String),
    /// The case as a whole.
    Case,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = humantime::format_duration(self.limit);
        match &self.phase {
            Phase::Step(step) => write!(f, "{step} did not end within {limit}: {}", self.found),
            Phase::Case => write!(f, "the case did not end within {limit}: {}", self.found),
        }
    }
}

impl Outcome {
    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Outcome::Pass => Kind::Pass,
            Outcome::Fail(_) => Kind::Fail,
            Outcome::Crash(_) => Kind::Crash,
            Outcome::Timeout(_) => Kind::Timeout,
            Outcome::Skip(_) => Kind::Skip,
            Outcome::Error(_) => Kind::Error,
        }
    }

    /// Why, in words; nothing for a pass.
    pub fn reason(&self) -> Option<String> {
        let at = |step: &Option<String>| step.as_ref().map(|step| format!("{step}: ")).unwrap_or_default();
        match self {
            Outcome::Pass => None,
            Outcome::Fail(failure) => {
                let mismatches: Vec<_> = failure.mismatches.iter().map(ToString::to_string).collect();
                Some(format!("{}{}", at(&failure.step), mismatches.join("\n")))
            }
            Outcome::Crash(crash) => Some(format!("{}{}", at(&crash.step), crash.title)),
            Outcome::Timeout(timeout) => Some(timeout.to_string()),
            Outcome::Skip(reason) | Outcome::Error(reason) => Some(reason.clone()),
        }
    }
}

/// How many cases ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals([usize; Kind::ALL.len()]);

impl Totals {
    /// Counts one more.
    pub fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// How many ended so.
    pub fn of(&self, kind: Kind) -> usize {
        self.0[kind as usize]
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        self.0.iter().sum()
    }

    /// The exit code that these totals ask for: 1 where a case failed, crashed or timed out, else 125 where a test
    /// could not be made, else 0. `git bisect run` takes them as bad, untestable and good (git-bisect(1)).
    pub fn exit_code(&self) -> u8 {
        match self {
            totals if [Kind::Fail, Kind::Crash, Kind::Timeout].iter().any(|&kind| totals.of(kind) > 0) => 1,
            totals if totals.of(Kind::Error) > 0 => 125,
            _ => 0,
        }
    }
}

impl Ends {
    /// How such a case ends, if that is certain.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Ends::Fail => Some(Kind::Fail),
            Ends::Crash => Some(Kind::Crash),
            Ends::Timeout => Some(Kind::Timeout),
            Ends::Error => Some(Kind::Error),
            Ends::Varies => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_kernel_outweighs_a_test_that_could_not_be_made() {
        let mut totals = Totals::default();
        totals.add(Kind::Skip);
        assert_eq!(totals.exit_code(), 0);
        totals.add(Kind::Error);
        assert_eq!(totals.exit_code(), 125);
        totals.add(Kind::Timeout);
        assert_eq!((totals.exit_code(), totals.all()), (1, 3));
    }
}
