//! Reports of trouble in the kernel log: panics, oopses, warnings, lockups and what the kernel's checkers find.

mod code;
mod rules;
mod title;

use std::collections::VecDeque;

use serde::Serialize;

pub use self::code::NamedPlace;
use self::rules::{End, Start};
use super::kmsg::{ConsoleLine, LogRecord};

/// A report longer than this is cut off and called incomplete.
const MAX_LINES: usize = 500;
/// What a line has beyond this many characters is dropped.
const MAX_LINE_CHARS: usize = 1000;
/// How many lines may stand between `[ cut here ]` and what follows from it: a WARN's own message.
const MAX_LEAD: usize = 4;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplatKind {
    /// `Kernel panic - not syncing`
    Panic,
    /// A fault in the kernel: a bad address, a general protection fault, an undefined instruction.
    Oops,
    /// `kernel BUG at`, and other BUGs that have no kind of their own.
    Bug,
    /// `WARNING: … at`
    Warn,
    /// A cpu did not schedule.
    SoftLockup,
    /// A cpu took no interrupts.
    HardLockup,
    /// A task sleeps uninterruptibly for too long.
    HungTask,
    /// A cpu or task holds up RCU's grace period.
    RcuStall,
    /// A finding of the lock validator.
    Lockdep,
    /// A finding of KASAN.
    Kasan,
    /// A finding of KMSAN.
    Kmsan,
    /// A finding of UBSAN.
    Ubsan,
    /// A finding of KCSAN.
    Kcsan,
    /// A finding of KFENCE.
    Kfence,
    /// `BUG: scheduling while atomic`, or a function that may sleep where none may.
    SchedulingWhileAtomic,
    /// `BUG: Bad page state`, `Bad page map`, `Bad rss-counter state`.
    BadPage,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Splat {
    /// What is wrong.
    pub kind: SplatKind,
    /// What is wrong and where, in words that are the same in every run: without addresses, numbers of cpus and
    /// tasks, source lines, or the compiler's suffixes of functions. `WARNING in __module_put`.
    pub title: String,
    /// The report's lines, without the log's prefixes.
    pub lines: Vec<String>,
    /// The cpu, where the report says it.
    pub cpu: Option<u32>,
    /// The task's id, where the report says it.
    pub pid: Option<i32>,
    /// The task's name, where the report says it.
    pub comm: Option<String>,
    /// Whether the report's end was seen.
    pub complete: bool,
}

/// Finds the reports in a log as it comes, line by line.
///
/// A report comes out when its end was seen or another begins, and at [`SplatReader::finish`].
#[derive(Debug, Default)]
pub struct SplatReader {
    current: Option<Open>,
    /// What may turn out to be a report's head: `[ cut here ]`, a line of `=`.
    lead: Vec<String>,
    done: VecDeque<Splat>,
}

#[derive(Debug)]
struct Open {
    splat: Splat,
    end: End,
    title: title::Builder,
    /// Whether a stack entry was seen.
    in_trace: bool,
}

impl SplatReader {
    /// Takes a line of the console or of a log, with or without its prefixes (level, time, caller).
    pub fn push_line(&mut self, line: &str) {
        self.text(ConsoleLine::parse(line).text);
    }

    /// Takes a record of the kernel log. What user space wrote into the log is no report.
    pub fn push_record(&mut self, record: &LogRecord) {
        if record.facility == 0 {
            record.text.lines().for_each(|line| self.text(line));
        }
    }

    /// The report whose end has yet to come; the title may still change.
    pub fn current(&self) -> Option<&Splat> {
        self.current.as_ref().map(|open| &open.splat)
    }

    /// Says that no more is to come. A report that has no end yet is incomplete, but for a panic, after which
    /// nothing need come.
    pub fn finish(&mut self) {
        let panicked = self.current.as_ref().is_some_and(|open| open.splat.kind == SplatKind::Panic);
        self.close(panicked);
        self.lead.clear();
    }

    fn text(&mut self, text: &str) {
        let text = text.trim_end();
        if let Some(open) = &mut self.current {
            match open.take(text) {
                Taken::More => return,
                Taken::Last => return self.close(true),
                Taken::NotMine => self.close(true),
                Taken::Another => self.close(false),
            }
        }
        if let Some(start) = rules::start(text) {
            self.open(start, text);
        } else if rules::is_lead(text) {
            self.lead = vec![cut(text)];
        } else if self.lead.len() > MAX_LEAD {
            self.lead.clear();
        } else if !self.lead.is_empty() {
            self.lead.push(cut(text));
        }
    }

    fn open(&mut self, start: Start, text: &str) {
        let mut lines = std::mem::take(&mut self.lead);
        lines.push(cut(text));
        let mut splat = Splat {
            kind: start.kind,
            title: String::new(),
            lines,
            cpu: None,
            pid: None,
            comm: None,
            complete: false,
        };
        rules::whereabouts(text, &mut splat);
        let end = start.end;
        let title = title::Builder::new(start, text);
        splat.title = title.title();
        self.current = Some(Open { splat, end, title, in_trace: false });
    }

    fn close(&mut self, complete: bool) {
        if let Some(open) = self.current.take() {
            self.done.push_back(Splat { complete, ..open.splat });
        }
    }
}

/// Hands out the reports that are over; more may come after a None when more is pushed.
impl Iterator for SplatReader {
    type Item = Splat;

    fn next(&mut self) -> Option<Splat> {
        self.done.pop_front()
    }
}

enum Taken {
    /// The line is the report's, and more may come.
    More,
    /// The line is the report's last.
    Last,
    /// The report was over before the line.
    NotMine,
    /// Another report begins.
    Another,
}

impl Open {
    fn take(&mut self, text: &str) -> Taken {
        let ends_quietly = matches!(self.end, End::Trace | End::Traces);
        if let Some(start) = rules::start(text) {
            if !rules::belongs(self.splat.kind, start.kind) {
                return if ends_quietly && self.in_trace { Taken::NotMine } else { Taken::Another };
            }
            self.title.also(start.what);
            self.splat.title = self.title.title();
        }
        if ends_quietly && self.in_trace && !rules::continues_trace(text) {
            return Taken::NotMine;
        }
        self.in_trace |= rules::is_stack_entry(text);
        if self.splat.lines.len() >= MAX_LINES {
            return Taken::Another;
        }
        self.splat.lines.push(cut(text));
        rules::whereabouts(text, &mut self.splat);
        if self.title.line(text) {
            self.splat.title = self.title.title();
        }
        if self.end.is(text) { Taken::Last } else { Taken::More }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_LINE_CHARS).collect()
}

#[cfg(test)]
mod tests;
