//! What a case leaves for reports to show: bounded excerpts of what it captured, and each module's references over time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::Output;
use super::transcript::log_text;
use crate::console::ConsoleLine;
use crate::guest::proto::Ending;
use crate::guest::{Capture, Guest};
use crate::trace::ledger::Ledger;
use crate::trace::{Assembler, Event, EventRef, Item, ModuleEvent};

/// Bytes kept of each output of a step.
const OUTPUT: usize = 4 << 10;
/// Bytes kept of the log and of the trace of a case that passed, and of another.
const OF_PASS: usize = 8 << 10;
const OF_OTHER: usize = 64 << 10;
/// So many modules of a trace are followed; those beyond are not shown.
const MODULES: usize = 8;
/// So many changes of a module's count are kept from its beginning.
const CHANGES: usize = 200;

/// A text, or its beginning and end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The text; where bytes were cut, a line says so.
    pub text: String,
    /// How many bytes were cut.
    pub cut: usize,
}

impl Excerpt {
    /// At most `most` bytes of a text, whole lines as far as that goes.
    pub fn of(text: &str, most: usize) -> Self {
        if text.len() <= most {
            return Excerpt { text: text.to_owned(), cut: 0 };
        }
        let half = most / 2;
        let (Some(head), Some(tail)) = (
            (0..=half).rev().find_map(|end| text.get(..end)),
            (text.len() - half..=text.len()).find_map(|start| text.get(start..)),
        ) else {
            return Excerpt::default();
        };
        let head = head.rfind('\n').map_or(head, |end| &head[..=end]);
        let tail = tail.find('\n').map_or(tail, |start| &tail[start + 1..]);
        let cut = text.len() - head.len() - tail.len();
        let gap = if head.ends_with('\n') { "" } else { "\n" };
        Excerpt { text: format!("{head}{gap}[kmodlab: {cut} bytes are not shown]\n{tail}"), cut }
    }
}

/// What a step gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepOutput {
    /// How its program ended: `exit 0`, `signal 9`.
    pub ending: Option<String>,
    /// What the program wrote to its standard output.
    pub stdout: Option<Excerpt>,
    /// What it wrote to its standard error.
    pub stderr: Option<Excerpt>,
    /// What was read from a file.
    pub content: Option<Excerpt>,
}

impl StepOutput {
    pub(super) fn new(output: &Output) -> Self {
        let excerpt = |capture: &Capture| Some(Excerpt::of(&capture.text(), OUTPUT));
        match output {
            Output::Nothing => StepOutput::default(),
            Output::Program(finished) | Output::Stopped(finished) => StepOutput {
                ending: Some(match finished.ending {
                    Ending::Exited(status) => format!("exit {status}"),
                    Ending::Signalled(signal) => format!("signal {signal}"),
                }),
                stdout: excerpt(&finished.stdout),
                stderr: excerpt(&finished.stderr),
                content: None,
            },
            Output::Content(content) | Output::Kept(_, content) => {
                StepOutput { content: excerpt(content), ..StepOutput::default() }
            }
        }
    }
}

/// What changed a module's references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The module was loaded.
    Loaded,
    /// A reference was taken.
    Taken,
    /// A reference was given back.
    Given,
    /// The module was removed.
    Removed,
}

/// A change of a module's references.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// When, in seconds of the trace's clock.
    pub time: f64,
    /// What.
    pub kind: ChangeKind,
    /// Whose doing it was: `sleep[89]`.
    pub task: String,
    /// The function that did it.
    pub by: String,
    /// The use count from then on, as `lsmod` shows it.
    pub count: i64,
    /// Whether this reference was taken and, as far as the trace shows, never given back.
    pub held: bool,
}

/// A module's references over time, as traced.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleHistory {
    /// The module.
    pub module: String,
    /// The changes, the first `CHANGES` of them.
    pub changes: Vec<Change>,
    /// How many more there were.
    pub more: usize,
}

/// What reports show of a case besides its outcome and its steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// The kernel: its release and machine.
    pub kernel: Option<String>,
    /// QEMU's version.
    pub qemu: Option<String>,
    /// The kernel log since the case began, and what a dying kernel said on its console alone.
    pub log: Excerpt,
    /// The trace since the case began.
    pub trace: Excerpt,
    /// The references of modules, where they were traced.
    pub modules: Vec<ModuleHistory>,
}

impl Evidence {
    /// Takes what a guest has left.
    pub(super) fn of(guest: &Guest, passed: bool) -> Self {
        let most = if passed { OF_PASS } else { OF_OTHER };
        let streams = guest.streams();
        let records = streams.records();
        let mut log = log_text(&records);
        if !passed {
            log.push_str(&beyond(&streams.console_text(), records.last().map(|record| record.time)));
        }
        let trace = streams.whole_trace();
        Evidence {
            kernel: guest.hello().map(|hello| format!("Linux {} {}", hello.release, hello.machine)),
            qemu: guest.qemu_version(),
            log: Excerpt::of(&log, most),
            trace: Excerpt::of(&String::from_utf8_lossy(&trace), most),
            modules: histories(&trace),
        }
    }
}

/// What a console has from its first line that is later than `last` on; all, where there is no such time.
fn beyond(console: &str, last: Option<Duration>) -> String {
    let later = |line: &&str| ConsoleLine::parse(line).time > last;
    // A console ends its lines with a carriage return, too.
    let known = console.lines().skip_while(|line| last.is_some() && !later(line));
    known.flat_map(|line| [line.trim_end_matches('\r'), "\n"]).collect()
}

/// What a trace says of each module's references; nothing where it has no such events.
fn histories(trace: &[u8]) -> Vec<ModuleHistory> {
    let counts = |event: &EventRef<'_>| event.name.starts_with("module_");
    let mut assembler = Assembler::only(counts);
    assembler.push(trace);
    assembler.finish();
    let mut ledger = Ledger::new(None);
    let mut found: Vec<ModuleHistory> = Vec::new();
    for item in assembler {
        match item {
            Item::Event(event) => {
                ledger.push(&event);
                note(&mut found, &event);
            }
            Item::Lost(lost) => ledger.push_lost(lost),
        }
    }
    let ledgers: BTreeMap<_, _> = ledger.finish().into_iter().map(|of| (of.name.clone(), of)).collect();
    for history in &mut found {
        let held = ledgers.get(&history.module).map(|of| of.outstanding.as_slice()).unwrap_or_default();
        for change in history.changes.iter_mut().filter(|change| change.kind == ChangeKind::Taken) {
            change.held = held.iter().any(|reference| {
                reference.time.seconds() == Some(change.time)
                    && change.task.ends_with(&format!("[{}]", reference.taken_by.pid))
            });
        }
    }
    found.retain(|history| history.changes.iter().any(|change| change.kind == ChangeKind::Taken));
    found
}

fn note(found: &mut Vec<ModuleHistory>, event: &Event) {
    let Some(parsed) = event.module() else { return };
    let Some(time) = event.time.seconds() else { return };
    let (module, kind, by, count) = match parsed {
        // Loading holds one itself, taken untraced (kernel/module/main.c, module_unload_init).
        ModuleEvent::Load { module, .. } => (module, ChangeKind::Loaded, "", Some(1)),
        ModuleEvent::Free { module } => (module, ChangeKind::Removed, "", Some(0)),
        // The raw count's base is 1 (kernel/module/main.c, MODULE_REF_BASE).
        ModuleEvent::Get { module, call_site, refcnt } => {
            (module, ChangeKind::Taken, call_site, refcnt.checked_sub(1))
        }
        ModuleEvent::Put { module, call_site, refcnt } => {
            (module, ChangeKind::Given, call_site, refcnt.checked_sub(1))
        }
        ModuleEvent::Request { .. } => return,
    };
    let Some(count) = count else { return };
    let history = match found.iter_mut().position(|history| history.module == module) {
        Some(index) => &mut found[index],
        None if found.len() < MODULES => {
            found.push(ModuleHistory { module: module.to_owned(), changes: Vec::new(), more: 0 });
            let last = found.len() - 1;
            &mut found[last]
        }
        None => return,
    };
    if history.changes.len() >= CHANGES {
        history.more += 1;
        return;
    }
    let task = format!("{}[{}]", event.comm.as_deref().unwrap_or("<...>"), event.pid);
    history.changes.push(Change { time, kind, task, by: by.to_owned(), count, held: false });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_ends_in_whole_lines() {
        let text: String = (0..1000).map(|line| format!("line {line} ü\n")).collect();
        let excerpt = Excerpt::of(&text, 200);
        assert!(
            excerpt.text.starts_with("line 0 ü\n") && excerpt.text.ends_with("line 999 ü\n"),
            "{excerpt:?}"
        );
        assert!(excerpt.text.len() < 260 && excerpt.cut > 10_000, "{excerpt:?}");
        assert!(excerpt.text.contains(&format!("\n[kmodlab: {} bytes are not shown]\n", excerpt.cut)));
        assert_eq!(Excerpt::of("short", 200), Excerpt { text: "short".into(), cut: 0 });
        assert!(Excerpt::of(&"ü".repeat(1000), 99).text.len() < 160);
    }

    #[test]
    fn what_the_console_alone_has_is_what_came_last() {
        let console =
            "boot\r\n[    1.000001] one\r\n[    1.000002] two\r\n[    1.000003] Kernel panic\r\n no time\r\n";
        assert_eq!(
            beyond(console, Some(Duration::from_micros(1_000_002))),
            "[    1.000003] Kernel panic\n no time\n"
        );
        assert_eq!(beyond(console, Some(Duration::from_micros(1_000_003))), "");
        assert_eq!(beyond(console, None), console.replace('\r', ""));
    }

    #[test]
    fn a_trace_shows_who_took_and_who_gave_back() {
        let trace =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/trace/arm-leak.txt")).unwrap();
        let histories = histories(&trace);
        let boom = histories.iter().find(|history| history.module == "boom").unwrap();
        let held: Vec<_> = boom.changes.iter().filter(|change| change.held).collect();
        assert!(matches!(held[..], [one] if one.task == "insmod[124]" && one.count == 2), "{boom:#?}");
        assert!(boom.changes.iter().all(|change| change.count >= 0));
        assert!(super::histories(b"nothing of the kind\n").is_empty());
    }
}
