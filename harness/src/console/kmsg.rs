//! Records of `/dev/kmsg`, and lines of the console.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::lines::Lines;

/// The kernel reads out records of at most PRINTK_MESSAGE_MAX, 2 KiB, escapes included; this has room for more.
const MAX_LINE: usize = 32 * 1024;
/// The kernel's dictionaries hold a subsystem and a device.
const MAX_DICT: usize = 32;

/// A record of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogRecord {
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// 0 for the kernel; what user space writes to `/dev/kmsg` has another.
    pub facility: u32,
    /// The record's number since boot. A gap means that records were lost.
    pub seq: u64,
    /// Since boot.
    pub time: Duration,
    /// The task (`T123`) or cpu (`C0`) that logged it, on kernels with `PRINTK_CALLER`.
    pub caller: Option<String>,
    /// What was logged, unescaped: it may hold line ends and control characters.
    pub text: String,
    /// The dictionary: `SUBSYSTEM` and `DEVICE` for messages of drivers.
    pub dict: Vec<(String, String)>,
}

impl LogRecord {
    /// Reads a record's line, `prio,seq,usec,flags[,caller=…];text`, without its dictionary. The layout is that of
    /// the kernel's `Documentation/ABI/testing/dev-kmsg`.
    fn parse(line: &str) -> Option<Self> {
        let (head, text) = line.split_once(';')?;
        let mut head = head.split(',');
        let priority: u32 = head.next()?.parse().ok()?;
        let seq = head.next()?.parse().ok()?;
        let time = Duration::from_micros(head.next()?.parse().ok()?);
        let caller = head.find_map(|part| part.strip_prefix("caller=")).map(str::to_owned);
        let level = u8::try_from(priority & 7).ok()?;
        Some(LogRecord {
            level,
            facility: priority >> 3,
            seq,
            time,
            caller,
            text: unescape(text),
            dict: Vec::new(),
        })
    }
}

/// Reads the stream of `/dev/kmsg`.
///
/// A record comes out when the next begins, for a dictionary may follow it, or when the stream is said to be over or
/// idle by [`KmsgReader::finish`].
#[derive(Debug)]
pub struct KmsgReader {
    lines: Lines,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    current: Option<LogRecord>,
    done: VecDeque<LogRecord>,
    unreadable: u64,
}

impl Default for KmsgReader {
    fn default() -> Self {
        KmsgReader { lines: Lines::new(MAX_LINE), state: State::default() }
    }
}

impl KmsgReader {
    /// Takes bytes in chunks of any size.
    pub fn push(&mut self, bytes: &[u8]) {
        let state = &mut self.state;
        self.lines.push(bytes, |line| state.line(line));
    }

    /// Says that no more is to come, or not soon.
    pub fn finish(&mut self) {
        let state = &mut self.state;
        self.lines.finish(|line| state.line(line));
        state.done.extend(state.current.take());
    }

    /// How many lines were neither records nor parts of one.
    pub fn unreadable(&self) -> u64 {
        self.state.unreadable
    }
}

/// Hands out what is complete; more may come after a None when more is pushed.
impl Iterator for KmsgReader {
    type Item = LogRecord;

    fn next(&mut self) -> Option<LogRecord> {
        self.state.done.pop_front()
    }
}

impl State {
    fn line(&mut self, line: &str) {
        if let Some(entry) = line.strip_prefix(' ') {
            match (&mut self.current, entry.split_once('=')) {
                (Some(record), Some((key, value))) if record.dict.len() < MAX_DICT => {
                    record.dict.push((unescape(key), unescape(value)));
                }
                _ => self.unreadable += 1,
            }
            return;
        }
        self.done.extend(self.current.take());
        self.current = LogRecord::parse(line);
        if self.current.is_none() {
            self.unreadable += 1;
        }
    }
}

/// Undoes the escapes: `\x` and two hexadecimal digits for a byte that is not printable ASCII, and for a backslash.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let escaped = after.strip_prefix('x').and_then(|digits| digits.split_at_checked(2));
        match escaped.and_then(|(digits, after)| Some((u8::from_str_radix(digits, 16).ok()?, after))) {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => {
                bytes.push(b'\\');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line of the console, or of `dmesg`, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleLine<'a> {
    /// 0 to 7, from a prefix such as `<6>`; `dmesg --raw` and some early consoles print it.
    pub level: Option<u8>,
    /// Since boot.
    pub time: Option<Duration>,
    /// The task (`T123`) or cpu (`C0`), on kernels with `PRINTK_CALLER`.
    pub caller: Option<&'a str>,
    /// The text.
    pub text: &'a str,
}

impl<'a> ConsoleLine<'a> {
    /// Takes a line apart. Every line is one: where it has no prefix, it is all text.
    pub fn parse(line: &'a str) -> Self {
        let line = line.trim_end_matches(['\n', '\r']);
        let (level, rest) = match level(line) {
            Some((level, rest)) => (Some(level), rest),
            None => (None, line),
        };
        let Some((time, rest)) = time(rest) else {
            return ConsoleLine { level, time: None, caller: None, text: rest };
        };
        let (caller, rest) = match caller(rest) {
            Some((caller, rest)) => (Some(caller), rest),
            None => (None, rest),
        };
        ConsoleLine { level, time: Some(time), caller, text: rest.strip_prefix(' ').unwrap_or(rest) }
    }
}

fn level(line: &str) -> Option<(u8, &str)> {
    let (priority, rest) = line.strip_prefix('<')?.split_once('>')?;
    let priority: u16 = priority.parse().ok()?;
    Some((u8::try_from(priority & 7).ok()?, rest))
}

/// `[    1.234567]`
fn time(rest: &str) -> Option<(Duration, &str)> {
    let (time, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let (seconds, micros) = time.trim_ascii_start().split_once('.')?;
    if micros.len() != 6 || !micros.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros: u64 = micros.parse().ok()?;
    let seconds: u64 = seconds.parse().ok()?;
    Some((Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?, rest))
}

/// `[    T1]`, `[   C0]`
fn caller(rest: &str) -> Option<(&str, &str)> {
    let (caller, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let caller = caller.trim_ascii_start();
    let id = caller.strip_prefix(['T', 'C'])?;
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then_some((caller, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "\
        6,339,5140900,-;NET: Registered PF_INET6 protocol family\n\
        30,340,5690716,-,caller=T1;udevd[80]: starting \\x5cversion\\x0asecond line\n\
        4,341,5690800,c;pci 0000:00:02.0: BAR 0\n \
        SUBSYSTEM=pci\n \
        DEVICE=+pci:0000:00:02.0\n\
        5,344,5690900,-;after \\xc3\\xa4\\xff\\zz\n";

    fn records(chunks: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<LogRecord>, u64) {
        let mut reader = KmsgReader::default();
        let mut out = Vec::new();
        for chunk in chunks {
            reader.push(chunk.as_ref());
            out.extend(reader.by_ref());
        }
        reader.finish();
        out.extend(reader.by_ref());
        (out, reader.unreadable())
    }

    #[test]
    fn records_of_the_kernel() {
        let (all, unreadable) = records([STREAM].iter());
        assert_eq!((all.len(), unreadable), (4, 0));
        assert_eq!((all[0].level, all[0].facility, all[0].seq), (6, 0, 339));
        assert_eq!(all[0].time, Duration::from_micros(5_140_900));
        assert_eq!((all[1].level, all[1].facility, all[1].caller.as_deref()), (6, 3, Some("T1")));
        assert_eq!(all[1].text, "udevd[80]: starting \\version\nsecond line");
        let dict = [("SUBSYSTEM", "pci"), ("DEVICE", "+pci:0000:00:02.0")];
        assert_eq!(all[2].dict, dict.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(all[3].text, "after ä\u{fffd}\\zz");
    }

    #[test]
    fn what_is_no_record_is_counted() {
        let (all, unreadable) =
            records([" A=b\n6,1,2,-;x\n nothing\nrubbish\n A=b\n;;\n-1,2,3,-;x\n6,2,3,-;y"].iter());
        assert_eq!(all.iter().map(|record| record.text.as_str()).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(unreadable, 6);
    }

    #[test]
    fn lines_of_the_console() {
        let parse = ConsoleLine::parse;
        let plain = ConsoleLine { level: None, time: None, caller: None, text: "SLOF" };
        assert_eq!(parse("SLOF\r\n"), plain);
        let time = Some(Duration::from_micros(1_234_567));
        assert_eq!(parse("[    1.234567] text"), ConsoleLine { time, text: "text", ..plain });
        assert_eq!(
            parse("<6>[    1.234567]  text"),
            ConsoleLine { level: Some(6), time, text: " text", ..plain }
        );
        let with_caller = ConsoleLine { time, caller: Some("T1"), text: "text", ..plain };
        assert_eq!(parse("[    1.234567][    T1] text"), with_caller);
        assert_eq!(parse("[    1.234567] [ T1 ] x").text, "[ T1 ] x");
        assert_eq!(parse("<30>text").level, Some(6));
        for text in ["[ 1.2] x", "[x] y", "<x>", "[", "[    1.2345xx] x", "[99999999999999999999.000000] x"] {
            assert_eq!(parse(text), ConsoleLine { text, ..plain });
        }
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(size in 1_usize..100) {
            prop_assert_eq!(records(STREAM.as_bytes().chunks(size)), records([STREAM].iter()));
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300), line in "\\PC{0,80}") {
            records([bytes].iter());
            records([format!("6,1,2,-;{line}\n {line}={line}")].iter());
            ConsoleLine::parse(&line);
        }

        #[test]
        fn escapes_are_undone(text in "\\PC{0,60}") {
            let escaped: String = text.bytes().map(|b| match b {
                b' '..=b'~' if b != b'\\' => char::from(b).to_string(),
                b => format!("\\x{b:02x}"),
            }).collect();
            prop_assert_eq!(unescape(&escaped), text);
        }
    }
}
