//! What comes out of a guest by itself: its console, its kernel log, its trace.

use std::time::Instant;

use super::agent;
use super::capture::Capture;
use super::proto::Port;
use crate::console::{ConsoleLine, KmsgReader, LogRecord, Splat, SplatKind, SplatReader};

/// Bytes kept of the console and of the kernel log, each.
const LOG_LIMIT: usize = 8 << 20;
/// Bytes kept of the trace.
const TRACE_LIMIT: usize = 64 << 20;
/// Splats kept of each stream: what comes after so many says nothing new.
const SPLAT_LIMIT: usize = 64;

/// Finds the kernel's reports of trouble in one stream.
#[derive(Debug, Default)]
struct Trouble {
    reader: SplatReader,
    ended: Vec<Splat>,
    since: Option<Instant>,
}

impl Trouble {
    fn line(&mut self, line: &str) {
        self.reader.push_line(line);
        if self.since.is_none() && self.reader.current().is_some() {
            self.since = Some(Instant::now());
        }
        self.collect();
    }

    fn finish(&mut self) {
        self.reader.finish();
        self.collect();
    }

    fn collect(&mut self) {
        for splat in self.reader.by_ref() {
            if self.ended.len() < SPLAT_LIMIT {
                self.ended.push(splat);
            }
        }
    }
}

/// Everything that came out of a guest since it was greeted; of the console, since it was started.
#[derive(Debug)]
pub struct Streams {
    console: Capture,
    console_line: Vec<u8>,
    on_console: Trouble,
    mark: Vec<u8>,
    log: Marked,
    records: KmsgReader,
    in_log: Trouble,
    trace: Marked,
    /// Where in the trace the part begins that was not cleared away.
    cleared: u64,
    whole_trace: Capture,
}

impl Default for Streams {
    fn default() -> Self {
        Streams {
            console: Capture::new(LOG_LIMIT),
            console_line: Vec::new(),
            on_console: Trouble::default(),
            mark: Vec::new(),
            log: Marked::new(LOG_LIMIT),
            records: KmsgReader::default(),
            in_log: Trouble::default(),
            trace: Marked::new(TRACE_LIMIT),
            cleared: 0,
            whole_trace: Capture::new(TRACE_LIMIT),
        }
    }
}

/// A port's stream, of which what came before the mark is kept apart.
#[derive(Debug)]
struct Marked {
    before: Capture,
    window: Vec<u8>,
    marked: bool,
    after: Capture,
}

impl Marked {
    fn new(limit: usize) -> Self {
        Marked { before: Capture::new(limit), window: Vec::new(), marked: false, after: Capture::new(limit) }
    }

    /// Takes bytes; gives those that are behind the mark.
    fn push<'a>(&mut self, mark: &[u8], bytes: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        if self.marked {
            self.after.push(bytes);
            return bytes.into();
        }
        self.window.extend_from_slice(bytes);
        let found = memchr::memmem::find(&self.window, mark).filter(|_| !mark.is_empty());
        let Some(at) = found else {
            // The mark may be cut in two.
            let done = self.window.len().saturating_sub(mark.len());
            self.before.push(&self.window[..done]);
            self.window.drain(..done);
            return Vec::new().into();
        };
        self.marked = true;
        self.before.push(&self.window[..at]);
        let rest = self.window.split_off(at + mark.len());
        self.window = Vec::new();
        self.after.push(&rest);
        rest.into()
    }
}

impl Streams {
    /// Says what line divides what came before from what counts.
    pub(super) fn expect_mark(&mut self, mark: Vec<u8>) {
        self.mark = mark;
    }

    pub(super) fn console(&mut self, bytes: &[u8]) {
        self.console.push(bytes);
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.console_line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.console_line.len() > LINE_LIMIT {
                self.console_line_ended();
            }
        }
    }

    fn console_line_ended(&mut self) {
        let line = String::from_utf8_lossy(&self.console_line).into_owned();
        self.on_console.line(ConsoleLine::parse(&line).text);
        self.console_line.clear();
    }

    pub(super) fn log(&mut self, bytes: &[u8]) {
        let new = self.log.push(&self.mark, bytes);
        self.records.push(&new);
        self.read_records();
    }

    fn read_records(&mut self) {
        for record in self.records.by_ref() {
            if record.facility == 0 {
                record.text.lines().for_each(|line| self.in_log.line(line));
            }
        }
    }

    pub(super) fn trace(&mut self, bytes: &[u8]) {
        let new = self.trace.push(&self.mark, bytes);
        self.whole_trace.push(&new);
    }

    /// Forgets the trace so far.
    pub(super) fn clear_trace(&mut self) {
        self.cleared += self.trace.after.total();
        self.trace.after = Capture::new(TRACE_LIMIT);
    }

    /// Bytes that have come in on a port since the greeting.
    pub(super) fn received(&self, port: Port) -> u64 {
        match port {
            Port::Log => self.log.after.total(),
            Port::Trace => self.cleared + self.trace.after.total(),
        }
    }

    /// Says that a port has brought everything there was.
    pub(super) fn idle(&mut self, port: Port) {
        if port == Port::Log {
            self.records.finish();
            self.read_records();
            self.in_log.finish();
        }
    }

    /// Says that nothing more will come.
    pub(super) fn finish(&mut self) {
        self.console_line_ended();
        self.on_console.finish();
        self.idle(Port::Log);
    }

    /// When the console first spoke of trouble.
    pub(super) fn trouble_since(&self) -> Option<Instant> {
        self.on_console.since
    }

    /// The first trouble on the console, if the kernel has said all of it.
    pub(super) fn ended_trouble(&self) -> Option<Box<Splat>> {
        self.on_console.ended.iter().find(|splat| splat.kind != SplatKind::Warn).cloned().map(Box::new)
    }

    /// The first trouble on the console.
    pub(super) fn trouble(&mut self) -> Option<Box<Splat>> {
        self.on_console.finish();
        self.ended_trouble()
    }

    /// The panic that ended the guest, or the trouble it began with.
    pub(super) fn panic(&self) -> Option<Box<Splat>> {
        let splats = &self.on_console.ended;
        splats
            .iter()
            .any(|splat| splat.kind == SplatKind::Panic)
            .then(|| splats.first().cloned().map(Box::new))
            .flatten()
    }

    /// The kernel's reports of trouble since the greeting. Where the kernel died, they are only on the console.
    pub fn splats(&self) -> &[Splat] {
        if self.panic().is_some() { &self.on_console.ended } else { &self.in_log.ended }
    }

    /// The fault in the kernel that ended one of the agent's threads, whose request will never be answered
    /// (`kernel/exit.c`, `make_task_dead`).
    pub(super) fn agent_killed(&self) -> Option<Box<Splat>> {
        let kills = |splat: &&Splat| {
            matches!(splat.kind, SplatKind::Oops | SplatKind::Bug)
                && splat.comm.as_deref() == Some(agent::COMM)
        };
        self.in_log.ended.iter().find(kills).cloned().map(Box::new)
    }

    /// The kernel's reports of trouble, when no more is to come. A kernel that hangs can still tell of it on the console.
    pub(super) fn last_words(&mut self) -> &[Splat] {
        self.finish();
        if self.in_log.ended.is_empty() { &self.on_console.ended } else { self.splats() }
    }

    /// What the console has said behind its first `seen` bytes, which then counts them; with `u64::MAX`, from now on.
    pub(super) fn console_after(&self, seen: &mut u64) -> Vec<u8> {
        let new = self.console.total().saturating_sub(*seen);
        *seen = self.console.total();
        self.console.last(usize::try_from(new).unwrap_or(usize::MAX))
    }

    /// The console's text.
    pub fn console_text(&self) -> String {
        self.console.text()
    }

    /// The kernel log since the greeting, as the records of `/dev/kmsg`.
    pub fn log_bytes(&self) -> Vec<u8> {
        self.log.after.bytes()
    }

    /// The kernel log before the greeting: of a booted guest, its boot.
    pub fn boot_log(&self) -> Vec<u8> {
        self.log.before.bytes()
    }

    /// The kernel log's records since the greeting.
    pub fn records(&self) -> Vec<LogRecord> {
        let mut reader = KmsgReader::default();
        reader.push(&self.log_bytes());
        reader.finish();
        reader.collect()
    }

    /// The trace since the greeting, or since it was cleared.
    pub fn trace_bytes(&self) -> Vec<u8> {
        self.trace.after.bytes()
    }

    /// The trace since the greeting.
    pub fn whole_trace(&self) -> Vec<u8> {
        self.whole_trace.bytes()
    }

    /// Bytes of the kernel log that were not kept.
    pub fn log_cut(&self) -> u64 {
        self.log.after.cut()
    }
}

/// No line of the console is looked at beyond this, in bytes.
const LINE_LIMIT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_left_in_a_port_does_not_count() {
        let mut marked = Marked::new(1024);
        assert!(marked.push(b"#mark\n", b"old lines\nhalf a #ma").is_empty());
        assert_eq!(&*marked.push(b"#mark\n", b"rk\nnew"), b"new");
        assert_eq!(&*marked.push(b"#mark\n", b" #mark\n"), b" #mark\n");
        assert_eq!(marked.before.bytes(), b"old lines\nhalf a ");
        assert_eq!(marked.after.bytes(), b"new #mark\n");
    }
}
