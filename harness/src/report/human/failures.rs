//! What the report for people says of cases that went wrong.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::report::escape::printable;
use crate::run::{CaseId, CaseReport, Kind, Outcome};

/// No more lines of a report of the kernel's are shown. Most have some fifty; a kernel that panics of its panic never ends.
const MAX_WORDS: usize = 80;

/// The cases that went wrong so far.
#[derive(Default)]
pub(super) struct Failures {
    all: Vec<Failure>,
    /// The case that met some trouble of the kernel's first, by the trouble's title.
    first: HashMap<String, CaseId>,
}

/// A case that went wrong.
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) id: CaseId,
    /// The command that runs it again.
    pub(super) command: String,
    head: String,
    body: String,
}

impl Failures {
    /// Adds a case.
    pub(super) fn add(&mut self, report: &CaseReport) {
        let kind = report.outcome.kind();
        let head = format!("{} {}: {}", kind.name().to_uppercase(), report.id, report.title);
        let body = self.body(report);
        self.all.push(Failure { kind, id: report.id.clone(), command: report.command(), head, body });
    }

    /// The cases, in the order in which they went wrong.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Failure> {
        self.all.iter()
    }

    fn body(&mut self, report: &CaseReport) -> String {
        let mut text = String::new();
        let place = report.place().map_or_else(|| report.file.display().to_string(), ToString::to_string);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  at {place}");
        indent(&mut text, "  ", &report.outcome.reason().unwrap_or_default());
        for test in report.subtests.tests.iter().filter(|test| test.verdict.is_bad()) {
            let reason = test.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            indent(&mut text, "  ", &format!("{} {}{reason}", test.verdict.name(), test.name));
            indent(&mut text, "    ", &test.diagnostics.join("\n"));
        }
        match &report.outcome {
            Outcome::Crash(crash) if crash.splat.is_some() => match self.first.get(&crash.title) {
                Some(first) => {
                    let _ = writeln!(text, "  the kernel's words: as in {first}");
                }
                None => {
                    self.first.insert(crash.title.clone(), report.id.clone());
                    let _ = writeln!(text, "  the kernel's words:");
                    indent(&mut text, "    ", &shortened(crash.told()).join("\n"));
                }
            },
            _ if !report.log_tail.is_empty() => {
                let _ = writeln!(text, "  the end of the log:");
                indent(&mut text, "    ", &report.log_tail.join("\n"));
            }
            _ => {}
        }
        if let Some(dir) = &report.artifacts {
            let _ = writeln!(text, "  artifacts: {}", dir.display());
        }
        text
    }
}

impl Failure {
    /// Everything that it has to say.
    pub(super) fn text(&self) -> String {
        format!("{}\n{}", printable(&self.head), self.body)
    }
}

/// Appends lines, indented.
fn indent(into: &mut String, by: &str, text: &str) {
    for line in text.lines() {
        into.push_str(by);
        into.push_str(&printable(line));
        into.push('\n');
    }
}

fn shortened(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MAX_WORDS);
    if more > 0 {
        lines.truncate(MAX_WORDS);
        lines.push(format!("and {more} more lines"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_says_without_end_is_cut() {
        let lines = |count| vec!["Kernel panic".to_owned(); count];
        assert_eq!(shortened(lines(MAX_WORDS)), lines(MAX_WORDS));
        let cut = shortened(lines(MAX_WORDS + 7));
        assert_eq!((cut.len(), cut.last().map(String::as_str)), (MAX_WORDS + 1, Some("and 7 more lines")));
    }
}
