//! From a run's events to its document.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{
    Case, Change, ChangeKind, CodePlace, Crash, Figure, Mismatch, Module, Outcome, Place, Start, StartKind,
    Step, Subtest, Text, Verdict,
};
use super::escape::visible;
use crate::console::KtapVerdict;
use crate::run::{self, CaseReport, Excerpt, Kind, StepReport};

/// Makes cases of reports; each scenario's file is read once.
#[derive(Debug, Default)]
pub(super) struct Cases {
    sources: HashMap<PathBuf, Option<String>>,
}

/// No scenario's file is longer, in bytes; of a longer one no lines are shown.
const LONGEST_SOURCE: u64 = 1 << 20;

impl Cases {
    /// The case that a report tells of.
    pub(super) fn case(&mut self, report: &CaseReport) -> Case {
        let source = self.source(&report.file);
        let mismatches = mismatches(report);
        let crash = crash(report);
        let (mut log, mut trace) = (text(&report.evidence.log), text(&report.evidence.trace));
        if log.text.is_empty() {
            log.text = visible(&report.log_tail.iter().fold(String::new(), |text, line| text + line + "\n"));
        }
        let found: Vec<&str> = mismatches.iter().flat_map(|mismatch| mismatch.found.lines()).collect();
        let said: Vec<&str> = crash.iter().flat_map(|crash| &crash.lines).map(String::as_str).collect();
        mark(&mut log, &found, &said);
        mark(&mut trace, &found, &[]);
        let subtests = subtests(report);
        Case {
            scenario: report.id.scenario.clone(),
            image: report.id.image.clone(),
            title: report.title.clone(),
            file: report.file.display().to_string(),
            place: report.place().map(|place| Place { line: place.line, column: place.column }),
            covers: report.covers.clone(),
            outcome: outcome(report.outcome.kind()),
            reason: report.outcome.reason().as_deref().map(visible),
            again: report.command(),
            kernel: report.evidence.kernel.as_deref().map(visible),
            qemu: report.evidence.qemu.clone(),
            start: report.start.map(|start| Start {
                kind: match start.kind {
                    run::StartKind::Warm => StartKind::Warm,
                    run::StartKind::Cold => StartKind::Cold,
                },
                ms: millis(start.time),
            }),
            ms: millis(report.time),
            steps: report.steps.iter().map(|of| step(of, source)).collect(),
            expect: report.expect.as_ref().and_then(|at| lines_at(source?, at.line, at.column)),
            mismatches,
            crash,
            subtests,
            figures: report
                .figures
                .iter()
                .map(|of| Figure { name: visible(&of.name), value: of.value, unit: visible(&of.unit) })
                .collect(),
            modules: report.evidence.modules.iter().map(module).collect(),
            log,
            trace,
            artifacts: report.artifacts.as_ref().map(|dir| dir.display().to_string()),
            warnings: report.warnings.iter().map(|text| visible(text)).collect(),
        }
    }

    fn source(&mut self, file: &Path) -> Option<&str> {
        let read = || {
            let short = fs_err::metadata(file).is_ok_and(|data| data.len() <= LONGEST_SOURCE);
            fs_err::read_to_string(file).ok().filter(|_| short)
        };
        self.sources.entry(file.to_owned()).or_insert_with(read).as_deref()
    }
}

fn outcome(kind: Kind) -> Outcome {
    match kind {
        Kind::Pass => Outcome::Pass,
        Kind::Skip => Outcome::Skip,
        Kind::Fail => Outcome::Fail,
        Kind::Crash => Outcome::Crash,
        Kind::Timeout => Outcome::Timeout,
        Kind::Error => Outcome::Error,
    }
}

fn step(report: &StepReport, source: Option<&str>) -> Step {
    let output = report.output.as_ref();
    let captured = |of: fn(&run::StepOutput) -> Option<&Excerpt>| output.and_then(of).map(text);
    Step {
        name: report.name.clone(),
        line: report.place.line,
        source: source.and_then(|source| lines_at(source, report.place.line, report.place.column)),
        passed: report.passed,
        ms: millis(report.time),
        ending: output.and_then(|output| output.ending.clone()),
        stdout: captured(|output| output.stdout.as_ref()),
        stderr: captured(|output| output.stderr.as_ref()),
        content: captured(|output| output.content.as_ref()),
    }
}

fn mismatches(report: &CaseReport) -> Vec<Mismatch> {
    let run::Outcome::Fail(failure) = &report.outcome else { return Vec::new() };
    // The step that failed is the last that was done.
    let step = failure.step.as_ref().map(|_| report.steps.len());
    let told = failure.mismatches.iter().map(|mismatch| Mismatch {
        step,
        what: mismatch.what.clone(),
        expected: visible(&mismatch.expected),
        found: visible(&mismatch.found),
    });
    told.collect()
}

fn crash(report: &CaseReport) -> Option<Crash> {
    let run::Outcome::Crash(crash) = &report.outcome else { return None };
    let code = crash.code.iter().map(|place| CodePlace {
        at: place.at,
        function: place.function.clone(),
        file: place.file.clone(),
        line: place.line,
    });
    Some(Crash {
        title: visible(&crash.title),
        lines: crash.splat.iter().flat_map(|splat| &splat.lines).map(|line| visible(line)).collect(),
        code: code.collect(),
    })
}

fn subtests(report: &CaseReport) -> Vec<Subtest> {
    let of_step = |index: usize| report.steps.iter().position(|step| step.subtests.contains(&index));
    let told = report.subtests.tests.iter().enumerate().map(|(index, test)| Subtest {
        name: visible(&test.name),
        outcome: verdict(test.verdict),
        reason: test.reason.as_deref().map(visible),
        diagnostics: test.diagnostics.iter().map(|line| visible(line)).collect(),
        step: of_step(index).map(|step| step + 1),
    });
    told.collect()
}

fn verdict(verdict: KtapVerdict) -> Verdict {
    match verdict {
        KtapVerdict::Pass => Verdict::Pass,
        KtapVerdict::Fail => Verdict::Fail,
        KtapVerdict::Skip => Verdict::Skip,
        KtapVerdict::Todo => Verdict::Todo,
        KtapVerdict::Xfail => Verdict::Xfail,
        KtapVerdict::Timeout => Verdict::Timeout,
        KtapVerdict::Error => Verdict::Error,
        KtapVerdict::Missing => Verdict::Missing,
    }
}

fn module(history: &run::ModuleHistory) -> Module {
    let changes = history.changes.iter().map(|change| Change {
        time: change.time,
        kind: match change.kind {
            run::ChangeKind::Loaded => ChangeKind::Loaded,
            run::ChangeKind::Taken => ChangeKind::Taken,
            run::ChangeKind::Given => ChangeKind::Given,
            run::ChangeKind::Removed => ChangeKind::Removed,
        },
        task: visible(&change.task),
        by: visible(&change.by),
        count: change.count,
        held: change.held,
    });
    Module { module: visible(&history.module), changes: changes.collect(), more: history.more }
}

/// What a guest wrote is kept with its control characters spelt out.
fn text(excerpt: &Excerpt) -> Text {
    Text { text: visible(&excerpt.text), cut: excerpt.cut, marked: Vec::new() }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is shorter stands in too many lines.
const TELLING: usize = 8;

/// Marks the lines that what was found quotes, and those that the kernel's report of trouble has.
fn mark(text: &mut Text, found: &[&str], said: &[&str]) {
    let quotes: Vec<&str> = found.iter().flat_map(|line| line.split('`').skip(1).step_by(2)).collect();
    let quoted = |line: &str| {
        quotes.iter().any(|quote| {
            let quote = quote.trim_end_matches('…').trim();
            quote.len() >= TELLING && line.contains(quote)
        })
    };
    let lines = text.text.lines().enumerate();
    text.marked = lines
        .filter(|(_, line)| {
            let of_trouble = said.iter().any(|said| !said.trim().is_empty() && line.ends_with(said));
            of_trouble || quoted(line) || line.contains("] not ok ")
        })
        .map(|(index, _)| index)
        .collect();
}

/// The lines of a YAML file that belong to what stands at a place: its own, and those that are indented as deep.
fn lines_at(source: &str, line: u32, column: u32) -> Option<String> {
    let (line, indent) =
        (usize::try_from(line).ok()?.checked_sub(1)?, usize::try_from(column).ok()?.checked_sub(1)?);
    let mut lines = source.lines().skip(line);
    let first = lines.next()?;
    let depth = |line: &str| line.len() - line.trim_start().len();
    let more = lines.take_while(|line| line.trim().is_empty() || depth(line) >= indent);
    let mut taken: Vec<&str> = std::iter::once(first).chain(more).collect();
    while taken.last().is_some_and(|line| line.trim().is_empty()) {
        taken.pop();
    }
    let least = taken.iter().filter(|line| !line.trim().is_empty()).map(|line| depth(line)).min()?;
    let shifted = taken.iter().map(|line| line.get(least..).unwrap_or_default());
    Some(shifted.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "name: x\nsteps:\n  - load: refmod\n  - run: |\n      echo a\n\n      echo b\n    expect:\n      stdout: a\n\n  - unload: refmod\nexpect:\n  log: { contains: x }\n";

    #[test]
    fn a_step_has_its_own_lines_and_no_others() {
        assert_eq!(lines_at(SOURCE, 3, 5).unwrap(), "- load: refmod");
        let run = lines_at(SOURCE, 4, 5).unwrap();
        assert!(run.starts_with("- run: |\n    echo a\n\n    echo b\n  expect:\n    stdout: a"), "{run}");
        assert_eq!(lines_at(SOURCE, 11, 5).unwrap(), "- unload: refmod");
        assert_eq!(lines_at(SOURCE, 13, 3).unwrap(), "log: { contains: x }");
        assert_eq!(
            lines_at("steps: [{ run: 'true' }]\nexpect: {}\n", 1, 9).unwrap(),
            "steps: [{ run: 'true' }]"
        );
        assert_eq!(lines_at(SOURCE, 99, 1), None);
        assert_eq!(lines_at(SOURCE, 0, 0), None);
    }

    #[test]
    fn lines_that_tell_of_trouble_are_marked() {
        let log = "<6>[ 1.0] refmod: loaded\n<4>[ 1.1] WARNING: CPU: 0 at x.c:1 f+0x1/0x2\n<6>[ 1.2] fine\n";
        let mut text = Text { text: log.to_owned(), ..Text::default() };
        mark(
            &mut text,
            &["no such line; the nearest is `refmod: loaded`"],
            &["WARNING: CPU: 0 at x.c:1 f+0x1/0x2", ""],
        );
        assert_eq!(text.marked, [0, 1]);
    }
}
