//! Who holds a module: the events of the group `module` folded into references.
//!
//! How the kernel counts, as of its `kernel/module/main.c`:
//!
//! - The events show the raw count, whose base is 1, after the change; other cpus may have changed it again by then.
//! - Loading takes a reference that no event shows, and gives it back with an event when the module's init function has
//!   returned: `call_site=do_init_module`.
//! - A module that uses another's symbols takes a reference in `resolve_symbol`, before its own `module_load`, and gives
//!   it back in `module_unload_free`, right after its own `module_free`.
//! - Removal takes the base away without an event.
//! - Before Linux 3.19 the count was per cpu, without a base, and could be negative.

mod account;
mod books;
mod class;
mod report;
mod symbols;
mod timeline;

pub use report::{Certainty, CountAt, ModuleLedger, Note, Reference, Request, Returned, Task};

use compact_str::CompactString;

use self::books::Books;
use self::class::Class;
use self::symbols::{Symbol, Symbols};
use super::dat::Record;
use super::event::{Event, ModuleEvent, Timestamp};
use super::stream::{Collect, MAX_LINE, Matcher};
use super::text::{EventRef, Line, Lost, parse_line};
use crate::console::lines::Lines;

/// A chain is cut here; PERF_MAX_STACK_DEPTH is 127.
const MAX_FRAMES: usize = 128;

/// Folds module events into references. Memory is bounded by what is outstanding, not by the length of the trace.
#[derive(Debug)]
pub struct Ledger {
    lines: Lines,
    matcher: Matcher<Traced>,
    folder: Folder,
    books: Books,
}

impl Ledger {
    /// A ledger of all modules, or of one.
    pub fn new(filter: Option<&str>) -> Self {
        Ledger {
            lines: Lines::new(MAX_LINE),
            matcher: Matcher::default(),
            folder: Folder::default(),
            books: Books::new(filter),
        }
    }

    /// Takes text of a trace in chunks of any size.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let Ledger { lines, matcher, folder, books } = self;
        lines.push(bytes, |line| feed(line, matcher, folder, books));
    }

    /// Takes a line of a trace.
    pub fn push_line(&mut self, line: &str) {
        feed(line, &mut self.matcher, &mut self.folder, &mut self.books);
    }

    /// Takes an event with its stack.
    pub fn push(&mut self, event: &Event) {
        self.folder.highest_cpu = self.folder.highest_cpu.max(event.cpu);
        let traced =
            self.folder.trace(&event.name, &event.text, event.comm.as_deref(), event.pid, &event.time.0);
        let Some(mut traced) = traced else { return };
        event.stack.iter().for_each(|entry| self.folder.entry(&mut traced, entry));
        self.books.enter(traced, &mut self.folder.symbols);
    }

    /// Takes what a recording has.
    pub fn push_record(&mut self, record: &Record<'_>) {
        let Ledger { matcher, folder, books, .. } = self;
        match record {
            Record::Module(context, event) => {
                folder.highest_cpu = folder.highest_cpu.max(context.cpu);
                matcher.note(context.cpu, context.pid, || {
                    Some(folder.entry_of(*event, context.comm, context.pid, context.time))
                });
            }
            Record::Stack { cpu, pid, frames } => {
                if let Some(traced) = matcher.owner(*cpu, *pid) {
                    frames.each(|function| folder.entry(traced, function));
                }
            }
            Record::Other { cpu, pid } => matcher.note(*cpu, *pid, || None),
            Record::Lost(lost) => {
                let item = folder.lost(*lost);
                matcher.gap(lost.cpu, item);
            }
            Record::Text(text) => return self.push_bytes(text),
        }
        if !matcher.done.is_empty() {
            drain(matcher, folder, books);
        }
    }

    /// Takes note that events were lost.
    pub fn push_lost(&mut self, lost: Lost) {
        self.books.lost(lost);
    }

    /// What each module's references come to, by the modules' names.
    pub fn finish(mut self) -> Vec<ModuleLedger> {
        let Ledger { lines, matcher, folder, books } = &mut self;
        lines.finish(|line| feed(line, matcher, folder, books));
        matcher.finish();
        drain(matcher, folder, books);
        self.books.close(&self.folder)
    }
}

fn feed(line: &str, matcher: &mut Matcher<Traced>, folder: &mut Folder, books: &mut Books) {
    let line = parse_line(line);
    if let Line::Comment(comment) = line {
        folder.comment(comment);
    }
    matcher.line(&line, folder);
    if !matcher.done.is_empty() {
        drain(matcher, folder, books);
    }
}

fn drain(matcher: &mut Matcher<Traced>, folder: &mut Folder, books: &mut Books) {
    for traced in matcher.done.drain(..) {
        books.enter(traced, &mut folder.symbols);
    }
}

/// An event of a module, or a gap.
#[derive(Debug)]
struct Traced {
    kind: Kind,
    step: Move,
    /// How many cpus the kernel has, at least.
    cpus: u32,
}

#[derive(Debug)]
enum Kind {
    Load { module: CompactString },
    Free { module: CompactString },
    Get { module: CompactString, call_site: Symbol, refcnt: i64 },
    Put { module: CompactString, call_site: Symbol, refcnt: i64 },
    Request { module: CompactString, call_site: Symbol },
    Lost(Lost),
}

/// Who did something, when, and through which functions.
#[derive(Debug)]
struct Move {
    comm: Option<CompactString>,
    pid: i32,
    time: CompactString,
    frames: Vec<Symbol>,
    class: Class,
}

impl Move {
    fn task(&self) -> Task {
        Task { comm: self.comm.as_deref().map(str::to_owned), pid: self.pid }
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(self.time.to_string())
    }
}

/// Makes the ledger's events of the trace's.
#[derive(Debug, Default)]
struct Folder {
    symbols: Symbols,
    /// Lines of module events that are cut short.
    unreadable: u64,
    /// Events that the ring buffer had overwritten by the time it was read.
    overwritten: u64,
    /// How many cpus the kernel has, as far as the trace says. `trace_pipe` has no header that does.
    cpus: Option<u32>,
    /// The highest cpu of an event.
    highest_cpu: u32,
}

impl Folder {
    fn trace(&mut self, name: &str, text: &str, comm: Option<&str>, pid: i32, time: &str) -> Option<Traced> {
        if !name.starts_with("module_") {
            return None;
        }
        let Some(event) = ModuleEvent::parse(name, text) else {
            let ours = ["module_load", "module_free", "module_get", "module_put", "module_request"];
            self.unreadable += u64::from(ours.contains(&name));
            return None;
        };
        Some(self.entry_of(event, comm, pid, time))
    }

    fn entry_of(&mut self, event: ModuleEvent<'_>, comm: Option<&str>, pid: i32, time: &str) -> Traced {
        let module = event.module().into();
        let kind = match event {
            ModuleEvent::Load { .. } => Kind::Load { module },
            ModuleEvent::Free { .. } => Kind::Free { module },
            ModuleEvent::Get { call_site, refcnt, .. } => {
                Kind::Get { module, call_site: self.symbols.number(call_site), refcnt }
            }
            ModuleEvent::Put { call_site, refcnt, .. } => {
                Kind::Put { module, call_site: self.symbols.number(call_site), refcnt }
            }
            ModuleEvent::Request { call_site, .. } => {
                Kind::Request { module, call_site: self.symbols.number(call_site) }
            }
        };
        let class = Class::Function(Symbol::MAX);
        let frames = Vec::with_capacity(16);
        let step = Move { comm: comm.map(Into::into), pid, time: time.into(), frames, class };
        Traced { kind, step, cpus: self.cpus() }
    }

    fn cpus(&self) -> u32 {
        self.cpus.unwrap_or(2).max(self.highest_cpu.saturating_add(1))
    }

    /// `# entries-in-buffer/entries-written: 63/430   #P:1`
    fn comment(&mut self, comment: &str) {
        let Some(rest) = comment.strip_prefix("# entries-in-buffer/entries-written: ") else { return };
        let cpus = rest.split_once("#P:").and_then(|(_, cpus)| cpus.trim_ascii().parse().ok());
        self.cpus = cpus.or(self.cpus);
        let counts = rest.split_ascii_whitespace().next().and_then(|counts| counts.split_once('/'));
        if let Some((there, written)) = counts
            && let (Ok(there), Ok(written)) = (there.parse::<u64>(), written.parse::<u64>())
        {
            self.overwritten = self.overwritten.saturating_add(written.saturating_sub(there));
        }
    }
}

impl Collect for Folder {
    type Item = Traced;

    fn event(&mut self, event: &EventRef<'_>) -> Option<Traced> {
        let context = event.context;
        self.highest_cpu = self.highest_cpu.max(context.cpu);
        self.trace(event.name, event.text, context.comm, context.pid, context.time)
    }

    fn entry(&mut self, traced: &mut Traced, entry: &str) {
        if traced.step.frames.len() < MAX_FRAMES {
            traced.step.frames.push(self.symbols.number(entry));
        }
    }

    fn lost(&mut self, lost: Lost) -> Traced {
        let class = Class::Function(Symbol::MAX);
        let step = Move { comm: None, pid: 0, time: "".into(), frames: Vec::new(), class };
        Traced { kind: Kind::Lost(lost), step, cpus: 0 }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod simulation;
