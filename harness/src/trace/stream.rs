//! A stream of trace text into events with their stacks.

use std::collections::VecDeque;

use serde::Serialize;

use super::event::Event;
use super::text::{Context, EventRef, Line, Lost, parse_line};
use crate::console::lines::Lines;

/// No entry of the kernel's is longer: it prints each through a `trace_seq` of a page, at most 64 KiB.
pub(super) const MAX_LINE: usize = 64 * 1024;
/// The kernel's own limit is PERF_MAX_STACK_DEPTH, 127, by default.
const MAX_STACK: usize = 1024;
/// How many later events an event waits for its stack. The stack is recorded right after its event; only other cpus,
/// and interrupts, come between.
const WAIT: u64 = 64;

/// What a trace consists of, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// An event.
    Event(Event),
    /// Events were lost here.
    Lost(Lost),
}

/// Reads a stream of trace text: a `trace` file, a `trace_pipe` as it comes, the output of `trace-cmd report`.
///
/// An event comes out once its stack, if it gets one, is whole: when its task has another event on its cpu, when 64
/// others have come since, or when the stream is said to be over or idle by [`Assembler::finish`].
#[derive(Debug)]
pub struct Assembler {
    lines: Lines,
    matcher: Matcher<Item>,
    owned: Owned,
}

#[derive(Debug)]
struct Owned {
    wanted: fn(&EventRef<'_>) -> bool,
}

impl Collect for Owned {
    type Item = Item;

    fn event(&mut self, event: &EventRef<'_>) -> Option<Item> {
        (self.wanted)(event).then(|| Item::Event((*event).into()))
    }

    fn entry(&mut self, item: &mut Item, entry: &str) {
        if let Item::Event(event) = item
            && event.stack.len() < MAX_STACK
        {
            event.stack.push(entry.to_owned());
        }
    }

    fn lost(&mut self, lost: Lost) -> Item {
        Item::Lost(lost)
    }
}

impl Default for Assembler {
    fn default() -> Self {
        Assembler::new()
    }
}

impl Assembler {
    /// Takes every event.
    pub fn new() -> Self {
        Assembler::only(|_| true)
    }

    /// Takes the events that `wanted` picks, with their stacks, at little cost for the others.
    pub fn only(wanted: fn(&EventRef<'_>) -> bool) -> Self {
        Assembler { lines: Lines::new(MAX_LINE), matcher: Matcher::default(), owned: Owned { wanted } }
    }

    /// Takes text in chunks of any size. Bytes that are not UTF-8 become replacement characters.
    pub fn push(&mut self, bytes: &[u8]) {
        let (matcher, owned) = (&mut self.matcher, &mut self.owned);
        self.lines.push(bytes, |line| matcher.line(&parse_line(line), owned));
    }

    /// Takes a line, of a text that is already cut into lines.
    pub fn push_line(&mut self, line: &str) {
        self.matcher.line(&parse_line(line), &mut self.owned);
    }

    /// Says that no more is to come, or not soon: every event is complete as it is.
    pub fn finish(&mut self) {
        let (matcher, owned) = (&mut self.matcher, &mut self.owned);
        self.lines.finish(|line| matcher.line(&parse_line(line), owned));
        self.matcher.finish();
    }
}

/// Hands out what is complete; more may come after a None when more is pushed.
impl Iterator for Assembler {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.matcher.done.pop_front()
    }
}

/// What is made of events and their stacks.
pub(super) trait Collect {
    /// What an event becomes.
    type Item;
    /// An event; None if it is not wanted, and then neither is its stack.
    fn event(&mut self, event: &EventRef<'_>) -> Option<Self::Item>;
    /// An entry of the stack of an event that was wanted.
    fn entry(&mut self, item: &mut Self::Item, entry: &str);
    /// Events were lost.
    fn lost(&mut self, lost: Lost) -> Self::Item;
}

/// Brings stacks to their events.
#[derive(Debug)]
pub(super) struct Matcher<T> {
    /// What is complete.
    pub(super) done: VecDeque<T>,
    /// From the first event that a stack may still come for. Never longer than `WAIT` events and the gaps between.
    queue: VecDeque<Slot<T>>,
    /// Events seen, wanted or not.
    seen: u64,
    /// The event that the stack being read belongs to, by its place in the queue.
    stack_of: Option<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    item: T,
    cpu: u32,
    pid: i32,
    /// Whether a stack may still come.
    open: bool,
    /// Which event it is, counted as in `seen`.
    number: u64,
}

impl<T> Default for Matcher<T> {
    fn default() -> Self {
        Matcher { done: VecDeque::new(), queue: VecDeque::new(), seen: 0, stack_of: None }
    }
}

impl<T> Matcher<T> {
    /// Takes a line.
    pub(super) fn line(&mut self, line: &Line<'_>, collect: &mut impl Collect<Item = T>) {
        if let Line::StackEntry(entry) = line {
            self.entry(entry, collect);
            return;
        }
        if let Some(slot) = self.stack_of.take().and_then(|place| self.queue.get_mut(place)) {
            slot.open = false;
            self.settle();
        }
        match line {
            Line::Event(event) => self.event(event, collect),
            Line::StackStart { context, user: false, first } => {
                self.stack(context.cpu, context.pid);
                if let Some(first) = first {
                    self.entry(first, collect);
                }
            }
            Line::Lost(lost) => {
                let item = collect.lost(*lost);
                self.gap(lost.cpu, item);
            }
            // The stack of user space, if recorded, stands between an event and its kernel stack.
            Line::StackStart { user: true, .. } | Line::StackEntry(_) | Line::Comment(_) | Line::Other => {}
        }
    }

    /// Nothing is to come, or not soon.
    pub(super) fn finish(&mut self) {
        self.close(|_| true);
    }

    fn event(&mut self, event: &EventRef<'_>, collect: &mut impl Collect<Item = T>) {
        let Context { cpu, pid, .. } = event.context;
        self.note(cpu, pid, || collect.event(event));
    }

    /// An event of a task on a cpu, and what is made of it if it is wanted.
    pub(super) fn note(&mut self, cpu: u32, pid: i32, item: impl FnOnce() -> Option<T>) {
        self.seen += 1;
        if !self.queue.is_empty() {
            let seen = self.seen;
            self.close(|slot| slot.cpu == cpu && slot.pid == pid || slot.number + WAIT < seen);
        }
        if let Some(item) = item() {
            self.queue.push_back(Slot { item, cpu, pid, open: true, number: self.seen });
        }
    }

    /// Events were lost.
    pub(super) fn gap(&mut self, cpu: u32, item: T) {
        // The events after the gap are not those before it.
        self.close(|slot| slot.cpu == cpu);
        let number = self.seen;
        self.queue.push_back(Slot { item, cpu, pid: 0, open: false, number });
        self.settle();
    }

    /// What the stack that a task has recorded belongs to.
    pub(super) fn owner(&mut self, cpu: u32, pid: i32) -> Option<&mut T> {
        let is_owner = |slot: &&mut Slot<T>| slot.open && slot.cpu == cpu && slot.pid == pid;
        self.queue.iter_mut().rev().find(is_owner).map(|slot| &mut slot.item)
    }

    fn stack(&mut self, cpu: u32, pid: i32) {
        self.stack_of = self.queue.iter().rposition(|slot| slot.open && slot.cpu == cpu && slot.pid == pid);
    }

    fn entry(&mut self, entry: &str, collect: &mut impl Collect<Item = T>) {
        let Some(slot) = self.stack_of.and_then(|place| self.queue.get_mut(place)) else { return };
        // trace-cmd fills a short stack up.
        if entry != "0x0" {
            collect.entry(&mut slot.item, entry);
        }
    }

    fn close(&mut self, which: impl Fn(&Slot<T>) -> bool) {
        for slot in self.queue.iter_mut().filter(|slot| slot.open) {
            if which(slot) {
                slot.open = false;
            }
        }
        self.settle();
    }

    /// Hands on what is complete and has nothing incomplete before it.
    fn settle(&mut self) {
        self.stack_of = None;
        while self.queue.front().is_some_and(|slot| !slot.open) {
            self.done.extend(self.queue.pop_front().map(|slot| slot.item));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORDING: &str = include_str!("../../tests/data/linux-4.14-x86_64.log");

    fn items(chunks: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<Item> {
        let mut assembler = Assembler::new();
        let mut out = Vec::new();
        for chunk in chunks {
            assembler.push(chunk.as_ref());
            out.extend(assembler.by_ref());
        }
        assembler.finish();
        out.extend(assembler);
        out
    }

    fn events(text: &str) -> Vec<Event> {
        items([text].iter())
            .into_iter()
            .filter_map(|item| match item {
                Item::Event(event) => Some(event),
                Item::Lost(_) => None,
            })
            .collect()
    }

    #[test]
    fn the_recording_of_linux_4_14() {
        let seen: Vec<_> = events(RECORDING)
            .into_iter()
            .map(|event| (event.comm.unwrap(), event.pid, event.name, event.stack.len()))
            .collect();
        let expected = [
            ("insmod", 28, "module_load", 0),
            ("insmod", 28, "module_put", 5),
            ("sleep", 30, "module_get", 10),
            ("sleep", 30, "module_put", 10),
            ("rmmod", 36, "module_free", 0),
        ];
        assert_eq!(
            seen,
            expected.map(|(comm, pid, name, depth)| (comm.to_owned(), pid, name.to_owned(), depth))
        );
        let get = events(RECORDING).into_iter().find(|event| event.name == "module_get").unwrap();
        assert_eq!(get.stack.first().map(String::as_str), Some("misc_open"));
        assert_eq!((get.field("call_site"), get.field("refcnt")), (Some("misc_open"), Some("2")));
    }

    #[test]
    fn a_stack_finds_its_event_across_other_cpus() {
        let text = "\
               a-1     [000] ..... 1.000001: module_get: m call_site=f refcnt=2\n\
               b-2     [001] ..... 1.000002: module_get: m call_site=g refcnt=3\n\
               a-1     [000] ..... 1.000003: <stack trace>\n => f\n => caller_of_f\n\
               b-2     [001] ..... 1.000004: <stack trace>\n => g\n\
               b-2     [001] ..... 1.000004: <user stack trace>\n =>  <00007f>\n";
        let stacks: Vec<_> = events(text).into_iter().map(|event| event.stack).collect();
        assert_eq!(stacks, [vec!["f", "caller_of_f"], vec!["g"]]);
    }

    #[test]
    fn a_stack_of_an_unwanted_event_goes_to_nobody() {
        let text = "\
               a-1     [000] ..... 1.000001: module_get: m call_site=f refcnt=2\n\
               a-1     [000] ..... 1.000002: sched_waking: comm=x\n\
               a-1     [000] ..... 1.000003: <stack trace>\n => f\n";
        let mut assembler = Assembler::only(|event| event.module().is_some());
        assembler.push(text.as_bytes());
        assembler.finish();
        let all: Vec<_> = assembler.collect();
        assert!(matches!(&all[..], [Item::Event(event)] if event.stack.is_empty()), "{all:?}");
    }

    #[test]
    fn an_event_waits_for_its_stack_and_not_for_ever() {
        let mut assembler = Assembler::new();
        assembler.push_line("               a-1     [000] ..... 1.000001: module_load: m ");
        assert_eq!(assembler.next(), None);
        for pid in 2..70 {
            assembler.push_line(&format!("               b-{pid:<7} [001] ..... 1.000002: module_free: n"));
        }
        assert!(matches!(assembler.next(), Some(Item::Event(event)) if event.pid == 1));
    }

    #[test]
    fn lost_events_stand_where_they_were_lost() {
        let text = "\
               a-1     [000] ..... 1.000001: module_load: m \n\
               CPU:0 [LOST 7 EVENTS]\n\
               a-1     [000] ..... 1.000002: <stack trace>\n => f\n\
               a-1     [000] ..... 1.000002: module_free: m\n";
        let all = items([text].iter());
        assert_eq!(all[1], Item::Lost(Lost { cpu: 0, count: Some(7) }));
        assert!(matches!(&all[0], Item::Event(event) if event.stack.is_empty()));
        assert_eq!(all.len(), 3);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(size in 1_usize..300) {
            let bytes = RECORDING.as_bytes();
            prop_assert_eq!(items(bytes.chunks(size)), items([bytes].iter()));
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            items([bytes].iter());
        }
    }
}
