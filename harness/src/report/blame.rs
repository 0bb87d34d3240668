//! What holds a module, for people: one screen a module. Writing to a String cannot fail.

use std::fmt::Write as _;

use crate::blame::{Answer, Present, certainty, note, task_name};
use crate::trace::ledger::{CountAt, Reference};

/// So many references, functions of a chain and points of the timeline fit a screen.
const REFERENCES: usize = 5;
const FUNCTIONS: usize = 8;
const POINTS: usize = 10;
const HOLDERS: usize = 8;
/// The widest bar of the timeline.
const BAR: i64 = 40;

/// The answer as lines of plain text.
pub fn blame(answer: &Answer) -> String {
    let mut out = format!("{}\n", answer.sentence);
    let ledger = &answer.ledger;
    if !ledger.outstanding.is_empty() {
        out.push_str("\nreferences taken and not given back\n");
        ledger.outstanding.iter().take(REFERENCES).for_each(|held| reference(&mut out, held));
        left_out(&mut out, ledger.outstanding.len(), REFERENCES);
    }
    if let Some(present) = &answer.present {
        out.push_str("\nwhat holds it now\n");
        holders(&mut out, present);
    }
    if !ledger.timeline.is_empty() {
        out.push_str("\nuse count over time\n");
        timeline(&mut out, &ledger.timeline);
    }
    let _ = write!(out, "\nremoval\n  {}\n", answer.removal);
    section(&mut out, "what to do", answer.advice.iter().cloned());
    section(&mut out, "to bear in mind", ledger.notes.iter().map(note));
    out
}

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        let _ = write!(out, "\n{title}\n");
        lines.for_each(|line| {
            let _ = writeln!(out, "  {line}");
        });
    }
}

fn reference(out: &mut String, held: &Reference) {
    let whom = held.dependent.as_ref().map(|module| format!(" for module `{module}`")).unwrap_or_default();
    let (task, at, sure) = (task_name(&held.taken_by), &held.time.0, certainty(held.certainty));
    let _ = writeln!(out, "  {task}{whom} at {at} ({sure})");
    for function in held.chain.iter().take(FUNCTIONS) {
        let _ = writeln!(out, "      {function}");
    }
    left_out(out, held.chain.len(), FUNCTIONS);
}

fn holders(out: &mut String, present: &Present) {
    for holder in present.holders.iter().take(HOLDERS) {
        let shared =
            if holder.references == Some(0) { " (shares another's reference, or has none)" } else { "" };
        let _ = writeln!(out, "  {holder}{shared}");
    }
    let cut = usize::try_from(present.cut).unwrap_or(usize::MAX);
    left_out(out, present.holders.len().saturating_add(cut), HOLDERS.min(present.holders.len()));
    if let Some(left @ 1..) = present.left_over {
        let _ = writeln!(out, "  left over: {left}, which no file, mapping, mount, interface or module has");
    }
    if present.holders.is_empty() && present.left_over == Some(0) {
        out.push_str("  nothing\n");
    }
}

fn left_out(out: &mut String, all: usize, shown: usize) {
    if all > shown {
        let _ = writeln!(out, "      … and {} more", all - shown);
    }
}

/// The end of a timeline is what counts; its beginning shows where it came from.
fn timeline(out: &mut String, points: &[CountAt]) {
    let (head, tail) = match points.len() {
        len if len <= POINTS => (points, &[][..]),
        len => (points.get(..1).unwrap_or(points), points.get(len - POINTS + 1..).unwrap_or_default()),
    };
    head.iter().for_each(|at| point(out, at));
    if !tail.is_empty() {
        let _ = writeln!(out, "  {:>16}", "…");
        tail.iter().for_each(|at| point(out, at));
    }
}

fn point(out: &mut String, at: &CountAt) {
    let bar = "#".repeat(usize::try_from(at.use_count.clamp(0, BAR)).unwrap_or(0));
    let line = format!("  {:>16} {:>4} {bar}", at.time.0, at.use_count);
    let _ = writeln!(out, "{}", line.trim_end());
}
