//! What stands before the event in a line of a trace.

use memchr::{memchr, memrchr};

use super::text::Context;

/// The widths that the kernel pads the task's name to, which is never longer: the dash before the pid stands there.
pub(super) const DEFAULT_DASH: usize = 16;
pub(super) const LATENCY_DASH: usize = 8;

/// Splits a line into its context and the event.
///
/// A task's name may hold anything: spaces, dashes, brackets, even what looks like a context. So the dash is first
/// looked for in its column; only a line that somebody has trimmed or indented needs the search.
pub(super) fn context(line: &str) -> Option<(Context<'_>, &str)> {
    let bytes = line.as_bytes();
    if bytes.get(DEFAULT_DASH) == Some(&b'-')
        && let Some(found) = context_at(line, DEFAULT_DASH, default_layout)
    {
        return Some(found);
    }
    if bytes.get(LATENCY_DASH) == Some(&b'-')
        && let Some(found) = context_at(line, LATENCY_DASH, latency_layout)
    {
        return Some(found);
    }
    if bytes.get(DEFAULT_DASH) == Some(&b' ')
        && let Some(found) = verbose(line)
    {
        return Some(found);
    }
    let indent = line.len() - line.trim_ascii_start().len();
    let reach = line.char_indices().map(|(at, _)| at).filter(|at| *at >= indent).nth(DEFAULT_DASH);
    let mut end = reach.unwrap_or(line.len());
    while let Some(dash) = line.as_bytes().get(..end).and_then(|head| memrchr(b'-', head)) {
        let found = context_at(line, dash, default_layout).or_else(|| context_at(line, dash, latency_layout));
        if found.is_some() {
            return found;
        }
        end = dash;
    }
    behind_instance(line)
}

/// `trace-cmd report` puts the name of a tracefs instance before its lines: `own:           insmod-86 …`.
fn behind_instance(line: &str) -> Option<(Context<'_>, &str)> {
    let (name, rest) = line.split_at_checked(memchr(b':', line.as_bytes())?)?;
    let rest = rest.strip_prefix(": ").filter(|_| !name.contains([' ', '[']))?;
    (rest.as_bytes().get(DEFAULT_DASH) == Some(&b'-'))
        .then(|| context_at(rest, DEFAULT_DASH, default_layout))?
}

/// `          insmod     125   0 0 00000001 0000000a [0054f68c] 13.560ms (+1.154ms): …`, the latency layout with the
/// option `verbose`: pid, cpu, flags, preemption count, index, the absolute time, and the time since the first event.
fn verbose(line: &str) -> Option<(Context<'_>, &str)> {
    let comm = line.get(..DEFAULT_DASH)?.trim_ascii();
    let mut cursor = Cursor { line, at: DEFAULT_DASH };
    cursor.blanks();
    let pid = i32::try_from(cursor.number()?).ok()?;
    cursor.blanks();
    let cpu = cursor.number()?;
    cursor.blanks();
    let (flags, rest) = cursor.rest()?.split_once(" [")?;
    if !flags.bytes().all(|b| b.is_ascii_hexdigit() || b == b' ') {
        return None;
    }
    let (_, rest) = rest.split_once("] ")?;
    let (time, rest) = rest.split_once(" (")?;
    if !time.starts_with(|c: char| c.is_ascii_digit())
        || !time.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
    {
        return None;
    }
    let (_, rest) = rest.split_once("): ")?;
    let comm = (comm != "<...>").then_some(comm);
    Some((Context { comm, pid, cpu, flags: "", time }, rest))
}

/// The columns after the pid: cpu and flags.
type Columns<'a> = (u32, &'a str);

fn context_at<'a>(
    line: &'a str,
    dash: usize,
    layout: fn(&mut Cursor<'a>) -> Option<Columns<'a>>,
) -> Option<(Context<'a>, &'a str)> {
    let comm = line.get(..dash)?.trim_ascii();
    let mut cursor = Cursor { line, at: dash + 1 };
    let pid = i32::try_from(cursor.number()?).ok()?;
    cursor.eat(b' ')?;
    cursor.blanks();
    let (cpu, flags) = layout(&mut cursor)?;
    let time = timestamp(&mut cursor)?;
    let comm = (comm != "<...>").then_some(comm);
    Some((Context { comm, pid, cpu, flags, time }, cursor.rest()?))
}

/// `[000] ...1.     4.123456: …`, with a thread group `(  123)` or `(-------)` before or after the cpu where the
/// option `record-tgid` is on, and without flags where `irq-info` is off.
fn default_layout<'a>(cursor: &mut Cursor<'a>) -> Option<Columns<'a>> {
    cursor.tgid();
    cursor.eat(b'[')?;
    let cpu = cursor.number()?;
    cursor.eat(b']')?;
    cursor.blanks();
    cursor.tgid();
    let flags = match cursor.peek()? {
        b'0'..=b'9' => "",
        _ => cursor.word()?,
    };
    Some((cpu, flags))
}

/// `  0d..1.    12us+: …`: the cpu and the flags are one word.
fn latency_layout<'a>(cursor: &mut Cursor<'a>) -> Option<Columns<'a>> {
    let cpu = cursor.number()?;
    Some((cpu, cursor.word().filter(|flags| !flags.is_empty())?))
}

/// A number with its unit, then the mark of a delay (`+`, `!`, `#` and so on, a blank for none) in the latency
/// layout, then a colon.
fn timestamp<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    cursor.blanks();
    let start = cursor.at;
    cursor.peek().filter(u8::is_ascii_digit)?;
    cursor.skip(|byte| byte.is_ascii_digit() || byte == b'.');
    cursor.skip(|byte| byte.is_ascii_lowercase());
    let time = cursor.line.get(start..cursor.at)?;
    if cursor.eat(b':').is_none() {
        cursor.peek().filter(|mark| mark.is_ascii() && !mark.is_ascii_alphanumeric())?;
        cursor.at += 1;
        cursor.eat(b':')?;
    }
    Some(time)
}

/// A place in a line, always between two characters.
struct Cursor<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Goes past bytes of ASCII.
    fn skip(&mut self, which: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&which) {
            self.at += 1;
        }
    }

    fn blanks(&mut self) {
        self.skip(|byte| byte.is_ascii_whitespace());
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = None;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = Some(number.unwrap_or(0_u32).checked_mul(10)?.checked_add(u32::from(digit - b'0'))?);
            self.at += 1;
        }
        number
    }

    /// What stands before the next blank.
    fn word(&mut self) -> Option<&'a str> {
        let start = self.at;
        while self.peek()? != b' ' {
            self.at += 1;
        }
        self.line.get(start..self.at)
    }

    fn tgid(&mut self) {
        let start = self.at;
        if self.eat(b'(').is_none() {
            return;
        }
        self.skip(|byte| byte.is_ascii_digit() || byte == b' ' || byte == b'-');
        match self.eat(b')') {
            Some(()) => self.blanks(),
            None => self.at = start,
        }
    }

    fn rest(&self) -> Option<&'a str> {
        self.line.get(self.at..)
    }
}
