//! What changed from one run to another.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::document::{Case, Document, Outcome, schema_of};
use super::escape::printable;

/// A case that got slower by less, in milliseconds, is not told of: so much a busy machine alone makes.
const LEAST_MS: u64 = 500;

/// What changed from one run to another.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Diff {
    /// What went wrong and did not before, or was not there.
    pub newly_failing: Vec<Changed>,
    /// What passed and went wrong before.
    pub newly_passing: Vec<Changed>,
    /// What ended in another way in which neither of the above is.
    pub otherwise: Vec<Changed>,
    /// What passed both times and took longer.
    pub slower: Vec<Slower>,
    /// The cases that only the new run has, and that did not go wrong.
    pub new: Vec<String>,
    /// The cases that only the old run has.
    pub gone: Vec<String>,
    /// Whether one of the runs was interrupted, so that cases are missing for no other reason.
    pub interrupted: bool,
}

/// A case that ended in another way.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Changed {
    /// The case.
    pub case: String,
    /// How it ended in the old run, where it was there.
    pub before: Option<Outcome>,
    /// How it ended in the new one.
    pub after: Outcome,
    /// Why, in the new run.
    pub reason: Option<String>,
    /// The command that runs it again.
    pub again: String,
}

/// A case that took longer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Slower {
    /// The case.
    pub case: String,
    /// Milliseconds in the old run.
    pub before_ms: u64,
    /// Milliseconds in the new one.
    pub after_ms: u64,
}

/// The JSON Schema of a [`Diff`], in draft 2020-12.
pub fn schema() -> Value {
    schema_of::<Diff>("what changed between two runs of kmodlab")
}

impl Diff {
    /// Compares two runs. A case is slower if it took more than `factor` times as long.
    pub fn of(old: &Document, new: &Document, factor: f64) -> Self {
        let mut before: BTreeMap<String, &Case> = old.cases.iter().map(|case| (case.id(), case)).collect();
        let mut diff = Diff {
            newly_failing: Vec::new(),
            newly_passing: Vec::new(),
            otherwise: Vec::new(),
            slower: Vec::new(),
            new: Vec::new(),
            gone: Vec::new(),
            interrupted: old.interrupted || new.interrupted,
        };
        for case in &new.cases {
            diff.case(before.remove(&case.id()), case, factor);
        }
        diff.gone = before.into_keys().collect();
        diff
    }

    fn case(&mut self, old: Option<&Case>, new: &Case, factor: f64) {
        let changed = || Changed {
            case: new.id(),
            before: old.map(|old| old.outcome),
            after: new.outcome,
            reason: new.reason.clone(),
            again: new.again.clone(),
        };
        match (old.map(|old| old.outcome), new.outcome) {
            (Some(before), after) if before == after => {}
            (before, after) if after.is_bad() && before.is_none_or(|before| !before.is_bad()) => {
                self.newly_failing.push(changed());
            }
            (None, _) => self.new.push(new.id()),
            (Some(before), Outcome::Pass) if before.is_bad() => self.newly_passing.push(changed()),
            (Some(_), _) => self.otherwise.push(changed()),
        }
        let Some(old) = old.filter(|old| old.outcome == Outcome::Pass && new.outcome == Outcome::Pass) else {
            return;
        };
        if new.ms as f64 > old.ms as f64 * factor && new.ms.saturating_sub(old.ms) >= LEAST_MS {
            self.slower.push(Slower { case: new.id(), before_ms: old.ms, after_ms: new.ms });
        }
    }

    /// The exit code: 1 where something went wrong that did not before.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.newly_failing.is_empty())
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sections = Vec::new();
        section(&mut sections, "newly failing", self.newly_failing.iter().map(|of| of.told(true)));
        section(&mut sections, "newly passing", self.newly_passing.iter().map(|of| of.told(false)));
        section(&mut sections, "changed otherwise", self.otherwise.iter().map(|of| of.told(false)));
        let seconds = |ms: u64| ms as f64 / 1e3;
        let slower = self.slower.iter().map(|of| {
            let factor = of.after_ms as f64 / (of.before_ms as f64).max(1.0);
            format!(
                "{}: {:.2} s, was {:.2} s ({factor:.1} times)",
                of.case,
                seconds(of.after_ms),
                seconds(of.before_ms)
            )
        });
        section(&mut sections, "slower", slower);
        section(&mut sections, "new", self.new.iter().cloned());
        section(&mut sections, "gone", self.gone.iter().cloned());
        if sections.is_empty() {
            sections.push("nothing changed".to_owned());
        }
        if self.interrupted {
            sections
                .push("one of the runs was interrupted: cases are missing for no other reason".to_owned());
        }
        f.write_str(&sections.join("\n\n"))
    }
}

impl Changed {
    fn told(&self, at_length: bool) -> String {
        let before = self.before.map_or("not there", Outcome::name);
        let mut text = format!("{}: {}, was {before}", self.case, self.after.name());
        if at_length {
            let reason = self.reason.as_deref().unwrap_or_default();
            text.extend(reason.lines().map(|line| format!("\n  {line}")));
            text.push_str(&format!("\n  run it again: {}", self.again));
        }
        text
    }
}

fn section(sections: &mut Vec<String>, title: &str, items: impl Iterator<Item = String>) {
    let items: Vec<String> = items.map(|item| printable(&item).replace('\n', "\n  ")).collect();
    if !items.is_empty() {
        sections.push(format!("{title}: {}\n  {}", items.len(), items.join("\n  ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::tests::{is_current, recorded};

    #[test]
    fn the_schema_in_the_tree_is_current() {
        is_current("diff.schema.json", &schema());
    }

    fn set(document: &mut Document, id: &str, change: impl FnOnce(&mut Case)) {
        change(document.cases.iter_mut().find(|case| case.id() == id).unwrap());
    }

    #[test]
    fn what_changed_is_told_and_nothing_else() {
        let (old, mut new) = (recorded(), recorded());
        assert_eq!(Diff::of(&old, &new, 2.0).to_string(), "nothing changed");
        set(&mut new, "topic/leak@arm", |case| {
            (case.outcome, case.reason) = (Outcome::Fail, Some("one\n::error::two".into()));
            case.again = "kmodlab run x".into();
        });
        set(&mut new, "topic/timeout@arm", |case| case.outcome = Outcome::Pass);
        set(&mut new, "topic/cost@arm", |case| case.outcome = Outcome::Skip);
        set(&mut new, "crash/oops@arm", |case| case.outcome = Outcome::Fail);
        set(&mut new, "topic/open-file@arm", |case| case.ms = case.ms * 2 + 1000);
        set(&mut new, "topic/open-file@x86_64", |case| case.ms += 400);
        set(&mut new, "topic/results@arm", |case| case.scenario = "topic/other".into());
        set(&mut new, "crash/warn@arm", |case| case.scenario = "crash/other".into());
        let diff = Diff::of(&old, &new, 2.0);
        let old_ms = old.cases.iter().find(|case| case.id() == "topic/open-file@arm").unwrap().ms;
        let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1e3);
        let factor = (old_ms * 2 + 1000) as f64 / old_ms as f64;
        let expected = format!(
            "\
newly failing: 2
  crash/other@arm: crash, was not there
    WARNING in fault_init
    run it again: kmodlab run scenarios/crash/warn.yaml --image arm -v
  topic/leak@arm: fail, was pass
    one
    \\::error::two
    run it again: kmodlab run x

newly passing: 1
  topic/timeout@arm: pass, was timeout

changed otherwise: 2
  crash/oops@arm: fail, was crash
  topic/cost@arm: skip, was pass

slower: 1
  topic/open-file@arm: {}, was {} ({factor:.1} times)

new: 1
  topic/other@arm

gone: 2
  crash/warn@arm
  topic/results@arm",
            seconds(old_ms * 2 + 1000),
            seconds(old_ms),
        );
        assert_eq!(diff.to_string(), expected);
        assert_eq!(diff.exit_code(), 1);
        assert_eq!(Diff::of(&new, &new, 2.0).exit_code(), 0);
        assert_eq!(Diff::of(&old, &new, 1000.0).slower.len(), 0);
    }
}
