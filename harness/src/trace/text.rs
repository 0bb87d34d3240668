//! Lines of ftrace text, without copying them.
//!
//! The layouts are those of `trace_print_context()` and `trace_print_lat_context()` in the kernel's
//! `kernel/trace/trace_output.c`, and of `trace-cmd report`. This is the hot path of every reader of trace logs: it
//! scans bytes by hand and looks at few of them more than once.

use memchr::{memchr, memrchr};

use super::event::ModuleEvent;

/// What stands before the event in a line: who, where and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    /// The task's name, of which the latency layout shows the first eight characters only. None where the kernel
    /// no longer knew it and printed `<...>`.
    pub comm: Option<&'a str>,
    /// The task's (thread's) id.
    pub pid: i32,
    /// The cpu.
    pub cpu: u32,
    /// The flags column: `....`, `dN.1.`; empty where the trace has none.
    pub flags: &'a str,
    /// The timestamp as it stands; see [`super::Timestamp`].
    pub time: &'a str,
}

/// An event, borrowed from its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// Who, where and when.
    pub context: Context<'a>,
    /// The event's name, such as `module_get`; `function` for the lines of the function tracer.
    pub name: &'a str,
    /// What stands after the name and its colon.
    pub text: &'a str,
}

impl<'a> EventRef<'a> {
    /// The event as one of the group `module`, if it is one and is whole.
    pub fn module(&self) -> Option<ModuleEvent<'a>> {
        ModuleEvent::parse(self.name, self.text)
    }
}

/// A place where the ring buffer overflowed and lost events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Lost {
    /// The cpu whose buffer it was.
    pub cpu: u32,
    /// How many events, where the kernel knows.
    pub count: Option<u64>,
}

/// One line of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// An event.
    Event(EventRef<'a>),
    /// `<stack trace>`: the head of a stack, whose entries follow. It belongs to the last event of the same task and
    /// cpu, which need not be in the line before.
    StackStart {
        /// Whose stack.
        context: Context<'a>,
        /// Whether it is a `<user stack trace>`.
        user: bool,
        /// The first entry, which trace-cmd prints in the same line.
        first: Option<&'a str>,
    },
    /// One function of a stack, innermost first: what stands after `=>`.
    StackEntry(&'a str),
    /// Events were lost here.
    Lost(Lost),
    /// A comment, beginning with `#`.
    Comment(&'a str),
    /// Anything else: an empty or broken line, or the output of a tracer that prints no events.
    Other,
}

/// Reads one line of a trace, with or without its line end.
pub fn parse_line(line: &str) -> Line<'_> {
    let line = match line.as_bytes().last() {
        Some(b'\n' | b'\r') => line.trim_end_matches(['\n', '\r']),
        _ => line,
    };
    let start = line.trim_ascii_start();
    match start.as_bytes() {
        [] => Line::Other,
        [b'=', b'>', ..] => event_or(line, stack_entry(start)),
        [b'#', ..] => event_or(line, Line::Comment(start)),
        [b'C', b'P', b'U', b':', ..] => event_or(line, lost(start).map_or(Line::Other, Line::Lost)),
        _ => event_line(line),
    }
}

fn stack_entry(start: &str) -> Line<'_> {
    match start.strip_prefix("=>").map(str::trim_ascii) {
        Some(entry) if !entry.is_empty() => Line::StackEntry(entry),
        _ => Line::Other,
    }
}

/// A task's name may look like the start of something else; only an event has a colon after its time.
fn event_or<'a>(line: &'a str, otherwise: Line<'a>) -> Line<'a> {
    if memchr(b':', line.as_bytes()).is_none() {
        return otherwise;
    }
    match event_line(line) {
        Line::Other => otherwise,
        event => event,
    }
}

/// The kernel's `CPU:0 [LOST 12 EVENTS]`, `CPU:0 [LOST EVENTS]`; trace-cmd's `CPU:0 [12 EVENTS DROPPED]`,
/// `CPU:0 [EVENTS DROPPED]`.
fn lost(start: &str) -> Option<Lost> {
    let (cpu, rest) = digits(start.strip_prefix("CPU:")?)?;
    let inner = rest.trim_ascii().strip_prefix('[')?.strip_suffix(']')?;
    let count = match inner.strip_prefix("LOST") {
        Some(rest) => rest.strip_suffix("EVENTS")?,
        None => inner.strip_suffix("EVENTS DROPPED")?,
    };
    let count = match count.trim_ascii() {
        "" => None,
        count => Some(count.parse().ok()?),
    };
    Some(Lost { cpu: cpu.parse().ok()?, count })
}

fn event_line(line: &str) -> Line<'_> {
    let Some((context, rest)) = context(line) else {
        return Line::Other;
    };
    let rest = rest.trim_ascii();
    if rest.starts_with('<') {
        return match rest {
            "<stack trace>" => Line::StackStart { context, user: false, first: None },
            "<user stack trace>" => Line::StackStart { context, user: true, first: None },
            _ => Line::Other,
        };
    }
    let end = rest.bytes().position(|b| !is_name_byte(b)).unwrap_or(rest.len());
    let Some((name, after)) = rest.split_at_checked(end).filter(|(name, _)| !name.is_empty()) else {
        return Line::Other;
    };
    match after.as_bytes() {
        [b':', ..] => {
            let text = after.get(1..).unwrap_or("").trim_ascii_start();
            // trace-cmd: `kernel_stack: <stack trace >`, or, on kernels whose format it does not know, `kernel_stack: => f`.
            if name == "kernel_stack" && (text.starts_with("<stack trace") || text.starts_with("=>")) {
                let first = text.strip_prefix("=>").map(str::trim_ascii);
                return Line::StackStart { context, user: false, first };
            }
            Line::Event(EventRef { context, name, text })
        }
        // System calls: `sys_read(fd: 3, …)` and `sys_read -> 0x152`.
        [b'(', ..] | [b' ', b'-', b'>', ..] => {
            Line::Event(EventRef { context, name, text: after.trim_ascii_start() })
        }
        [b' ', b'<', b'-', ..] => Line::Event(EventRef { context, name: "function", text: rest }),
        _ => Line::Other,
    }
}

/// Events have names of C; what `trace_printk` prints stands after a function's name, which may have a suffix.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// The widths that the kernel pads the task's name to, which is never longer: the dash before the pid stands there.
const DEFAULT_DASH: usize = 16;
const LATENCY_DASH: usize = 8;

/// Splits a line into its context and the event.
///
/// A task's name may hold anything: spaces, dashes, brackets, even what looks like a context. So the dash is first
/// looked for in its column; only a line that somebody has trimmed or indented needs the search.
fn context(line: &str) -> Option<(Context<'_>, &str)> {
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
    let (pid, rest) = digits(line.get(DEFAULT_DASH..)?.trim_ascii_start())?;
    let (cpu, rest) = digits(rest.trim_ascii_start())?;
    let (flags, rest) = rest.trim_ascii_start().split_once(" [")?;
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
    let (pid, cpu) = (pid.parse().ok()?, cpu.parse().ok()?);
    let comm = (comm != "<...>").then_some(comm);
    Some((Context { comm, pid, cpu, flags: "", time }, rest))
}

/// The columns after the pid: cpu, flags, and the rest of the line.
type Columns<'a> = (u32, &'a str, &'a str);

fn context_at<'a>(
    line: &'a str,
    dash: usize,
    layout: fn(&'a str) -> Option<Columns<'a>>,
) -> Option<(Context<'a>, &'a str)> {
    let comm = line.get(..dash)?.trim_ascii();
    let (pid, rest) = digits(line.get(dash + 1..)?)?;
    let pid = pid.parse().ok()?;
    let (cpu, flags, rest) = layout(rest.strip_prefix(' ')?.trim_ascii_start())?;
    let (time, rest) = timestamp(rest)?;
    let comm = (comm != "<...>").then_some(comm);
    Some((Context { comm, pid, cpu, flags, time }, rest))
}

/// `[000] ...1.     4.123456: …`, with a thread group `(  123)` or `(-------)` before or after the cpu where the
/// option `record-tgid` is on, and without flags where `irq-info` is off.
fn default_layout(rest: &str) -> Option<Columns<'_>> {
    let (cpu, rest) = digits(skip_tgid(rest).strip_prefix('[')?)?;
    let rest = skip_tgid(rest.strip_prefix(']')?.trim_ascii_start());
    let (flags, rest) = match rest.as_bytes().first()? {
        b'0'..=b'9' => ("", rest),
        _ => token(rest)?,
    };
    Some((cpu.parse().ok()?, flags, rest))
}

/// `  0d..1.    12us+: …`: the cpu and the flags are one word.
fn latency_layout(rest: &str) -> Option<Columns<'_>> {
    let (cpu, rest) = digits(rest)?;
    let (flags, rest) = token(rest)?;
    if flags.is_empty() {
        return None;
    }
    Some((cpu.parse().ok()?, flags, rest))
}

fn skip_tgid(rest: &str) -> &str {
    let inside =
        rest.strip_prefix('(').and_then(|rest| rest.split_at_checked(memchr(b')', rest.as_bytes())?));
    match inside {
        Some((tgid, after)) if tgid.bytes().all(|b| b.is_ascii_digit() || b == b' ' || b == b'-') => {
            after.strip_prefix(')').unwrap_or(after).trim_ascii_start()
        }
        _ => rest,
    }
}

/// A number with its unit, then the mark of a delay (`+`, `!`, `#` and so on, a blank for none) in the latency
/// layout, then a colon.
fn timestamp(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.trim_ascii_start();
    let number = rest.bytes().position(|b| !b.is_ascii_digit() && b != b'.')?;
    let unit = rest.bytes().skip(number).position(|b| !b.is_ascii_lowercase())?;
    let (time, rest) = rest.split_at_checked(number + unit)?;
    let rest = match rest.as_bytes() {
        [b':', ..] => rest.get(1..)?,
        [mark, b':', ..] if !mark.is_ascii_alphanumeric() => rest.get(2..)?,
        _ => return None,
    };
    (number > 0 && time.as_bytes().first()? != &b'.').then_some((time, rest))
}

fn token(rest: &str) -> Option<(&str, &str)> {
    rest.split_at_checked(memchr(b' ', rest.as_bytes())?)
}

fn digits(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at_checked(end)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn event(line: &str) -> EventRef<'_> {
        match parse_line(line) {
            Line::Event(event) => event,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn context<'a>(comm: &'a str, pid: i32, cpu: u32, flags: &'a str, time: &'a str) -> Context<'a> {
        Context { comm: Some(comm), pid, cpu, flags, time }
    }

    #[rstest]
    #[case::linux_6_1(
        "          insmod-86      [000] ...1.     4.123456: module_load: loop ",
        context("insmod", 86, 0, "...1.", "4.123456")
    )]
    #[case::linux_4_14(
        "          insmod-28    [000] .N..     0.934511: module_load: loop O",
        context("insmod", 28, 0, ".N..", "0.934511")
    )]
    #[case::irq_info_off(
        "          insmod-86      [003]     4.123456: module_load: loop ",
        context("insmod", 86, 3, "", "4.123456")
    )]
    #[case::many_cpus(
        "          insmod-86      [1234] d.h3.  4.123456: module_load: loop ",
        context("insmod", 86, 1234, "d.h3.", "4.123456")
    )]
    #[case::tgid(
        "          insmod-86      (     86) [000] ...1.     4.123456: module_load: loop ",
        context("insmod", 86, 0, "...1.", "4.123456")
    )]
    #[case::no_tgid(
        "          insmod-86      (-------) [000] ...1.     4.123456: module_load: loop ",
        context("insmod", 86, 0, "...1.", "4.123456")
    )]
    #[case::tgid_after(
        "          insmod-86    [000] (   86) ....     4.123456: module_load: loop ",
        context("insmod", 86, 0, "....", "4.123456")
    )]
    #[case::big_pid(
        "          insmod-4194303 [000] ...1.     4.123456: module_load: loop ",
        context("insmod", 4_194_303, 0, "...1.", "4.123456")
    )]
    #[case::counter(
        "          insmod-86      [000] ...1.          1234: module_load: loop ",
        context("insmod", 86, 0, "...1.", "1234")
    )]
    #[case::nanoseconds(
        "          insmod-86      [000]  1234.567890123: module_load: loop ",
        context("insmod", 86, 0, "", "1234.567890123")
    )]
    #[case::latency(
        "  insmod-86        0...1.   12us+: module_load: loop ",
        context("insmod", 86, 0, "...1.", "12us")
    )]
    #[case::latency_no_delay(
        "  insmod-86       10dN.1. 1234us : module_load: loop ",
        context("insmod", 86, 10, "dN.1.", "1234us")
    )]
    #[case::latency_counter(
        "  insmod-86        0...1.  1234: module_load: loop ",
        context("insmod", 86, 0, "...1.", "1234")
    )]
    #[case::verbose(
        "          insmod     125   1 0 00000000 00000000 [0054f68c] 13.560ms (+1.154ms): module_load: loop OE",
        context("insmod", 125, 1, "", "13.560ms")
    )]
    #[case::verbose_counter(
        "          insmod     134   0 0 00000001 0000000a [0000000000000007] 4 (+1): module_load: loop OE",
        context("insmod", 134, 0, "", "4")
    )]
    #[case::trimmed(
        "insmod-86 [000] ...1. 4.123456: module_load: loop",
        context("insmod", 86, 0, "...1.", "4.123456")
    )]
    #[case::indented(
        "                         insmod-86      [000] ...1.     4.123456: module_load: loop\r\n",
        context("insmod", 86, 0, "...1.", "4.123456")
    )]
    #[case::trace_cmd(
        "          insmod-86    [000]     4.123456: module_load:          loop ",
        context("insmod", 86, 0, "", "4.123456")
    )]
    #[case::trace_cmd_instance(
        "own:           insmod-86    [000]     4.123456: module_load:          loop ",
        context("insmod", 86, 0, "", "4.123456")
    )]
    #[case::trace_cmd_flags(
        "          insmod-86    [000] ...1.     4.123456: module_load:          loop ",
        context("insmod", 86, 0, "...1.", "4.123456")
    )]
    #[case::trace_cmd_latency(
        "  insmod-86        0...1.     4.123456: module_load:          loop ",
        context("insmod", 86, 0, "...1.", "4.123456")
    )]
    #[case::idle(
        "          <idle>-0       [001] d.s1.     4.123456: module_load: loop ",
        context("<idle>", 0, 1, "d.s1.", "4.123456")
    )]
    #[case::kworker(
        "     kworker/0:1-23      [000] .....     4.123456: module_load: loop ",
        context("kworker/0:1", 23, 0, ".....", "4.123456")
    )]
    #[case::dashes(
        " systemd-logind-412      [000] .....     4.123456: module_load: loop ",
        context("systemd-logind", 412, 0, ".....", "4.123456")
    )]
    #[case::blanks(
        "      Web Content-99      [000] .....     4.123456: module_load: loop ",
        context("Web Content", 99, 0, ".....", "4.123456")
    )]
    #[case::hostile(
        " x-1 [000] 1.0:-99      [007] .....     4.123456: module_load: loop ",
        context("x-1 [000] 1.0:", 99, 7, ".....", "4.123456")
    )]
    #[case::hostile_start(
        "      => [x] #:-99      [007] .....     4.123456: module_load: loop ",
        context("=> [x] #:", 99, 7, ".....", "4.123456")
    )]
    #[case::hash(
        "               #-99      [007] .....     4.123456: module_load: loop ",
        context("#", 99, 7, ".....", "4.123456")
    )]
    #[case::no_name(
        "                -99      [007] .....     4.123456: module_load: loop ",
        context("", 99, 7, ".....", "4.123456")
    )]
    #[case::not_ascii(
        "          \u{fffd}\u{fffd}é-99      [007] .....     4.123456: module_load: loop ",
        context("\u{fffd}\u{fffd}é", 99, 7, ".....", "4.123456")
    )]
    fn contexts(#[case] line: &str, #[case] expected: Context<'_>) {
        let event = event(line);
        assert_eq!(event.context, expected);
        assert_eq!(event.name, "module_load");
        assert_eq!(event.text.split(' ').next(), Some("loop"));
    }

    #[test]
    fn a_forgotten_name_is_none() {
        let event = event("           <...>-86      [000] ...1.     4.123456: module_free: loop");
        assert_eq!((event.context.comm, event.context.pid), (None, 86));
    }

    #[rstest]
    #[case("p_open: (do_sys_open+0x0/0x80) dfd=0x3", "p_open", "(do_sys_open+0x0/0x80) dfd=0x3")]
    #[case("tracing_mark_write: hello: world", "tracing_mark_write", "hello: world")]
    #[case("context_switch:", "context_switch", "")]
    #[case(
        "sys_read(fd: 3, buf: 7fc46b959000, count: 10000)",
        "sys_read",
        "(fd: 3, buf: 7fc46b959000, count: 10000)"
    )]
    #[case("sys_read -> 0x152", "sys_read", "-> 0x152")]
    #[case("boom_init.isra.0: said by trace_printk", "boom_init.isra.0", "said by trace_printk")]
    #[case("vfs_read <-ksys_read", "function", "vfs_read <-ksys_read")]
    fn names_and_texts(#[case] rest: &str, #[case] name: &str, #[case] text: &str) {
        let line = format!("             cat-86      [000] ...1.     4.123456: {rest}");
        let event = event(&line);
        assert_eq!((event.name, event.text), (name, text));
    }

    #[test]
    fn stacks() {
        let start = "          insmod-28    [000] .N..     0.936898: <stack trace>";
        let expected = context("insmod", 28, 0, ".N..", "0.936898");
        assert_eq!(parse_line(start), Line::StackStart { context: expected, user: false, first: None });
        let user = start.replace("<stack", "<user stack");
        assert!(matches!(parse_line(&user), Line::StackStart { user: true, .. }));
        let trace_cmd = "          insmod-28    [000]     0.936898: kernel_stack:         <stack trace >";
        assert!(matches!(parse_line(trace_cmd), Line::StackStart { user: false, first: None, .. }));
        let first = trace_cmd.replace("<stack trace >", "\t=> module_put");
        assert!(matches!(
            parse_line(&first),
            Line::StackStart { user: false, first: Some("module_put"), .. }
        ));
        assert_eq!(parse_line(" => do_init_module\n"), Line::StackEntry("do_init_module"));
        assert_eq!(parse_line("=> f (ffffffff8106b2f4)"), Line::StackEntry("f (ffffffff8106b2f4)"));
        assert_eq!(parse_line(" =>"), Line::Other);
    }

    #[test]
    fn lost_events() {
        let lost = |cpu, count| Line::Lost(Lost { cpu, count });
        assert_eq!(parse_line("CPU:0 [LOST 123 EVENTS]"), lost(0, Some(123)));
        assert_eq!(parse_line("CPU:12 [LOST EVENTS]\n"), lost(12, None));
        assert_eq!(parse_line("CPU:1 [55 EVENTS DROPPED]"), lost(1, Some(55)));
        assert_eq!(parse_line("CPU:1 [EVENTS DROPPED]"), lost(1, None));
        assert_eq!(parse_line("CPU:x [LOST 1 EVENTS]"), Line::Other);
        assert_eq!(parse_line("CPU:1 [LOST 1x EVENTS]"), Line::Other);
    }

    #[rstest]
    #[case("")]
    #[case("cpus=2")]
    #[case("          insmod-28    [000] .N..     0.9368")]
    #[case("          insmod-28    [000] .N..     0.936898: ")]
    #[case("          insmod-28    [000] .N..     0.936898: module_l")]
    #[case("          insmod-28    [000] .N..")]
    #[case("          insmod-28    [0")]
    #[case("          insmod-")]
    #[case(" [000] ....     0.934511: module_load: hold O")]
    #[case("          insmod-99999999999 [000] ....     0.934511: module_load: hold O")]
    #[case("          insmod-1 [99999999999] ....     0.934511: module_load: hold O")]
    #[case(" 0)   0.123 us    |  vfs_read();")]
    fn what_is_no_event(#[case] line: &str) {
        assert_eq!(parse_line(line), Line::Other);
    }

    #[test]
    fn comments() {
        assert_eq!(parse_line("# tracer: nop\n"), Line::Comment("# tracer: nop"));
        assert!(matches!(
            parse_line("#           TASK-PID   CPU#  ||||    TIMESTAMP  FUNCTION"),
            Line::Comment(_)
        ));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "\\PC{0,120}") {
            parse_line(&line);
        }

        #[test]
        fn almost_lines_are_read(
            line in "[ a-]{0,16}-[0-9]{1,9} {0,3}(\\([0-9 -]{0,3}\\) )?\\[?[0-9]{0,4}\\]?[ .dN0-9]{0,8}[0-9.]{0,8}(us)?[+ !]?:? ?[a-z:<> ]{0,20}",
        ) {
            parse_line(&line);
        }

        #[test]
        fn whatever_the_name_the_context_is_found(comm in "[ -~]{1,15}", pid in 0_i32..=i32::MAX, cpu in 0_u32..8192) {
            let line = format!("{comm:>16}-{pid:<7} [{cpu:03}] d..1.   123.456789: module_free: m");
            let found = event(&line);
            let name = (comm.trim() != "<...>").then_some(comm.trim());
            prop_assert_eq!(found.context, Context { comm: name, pid, cpu, flags: "d..1.", time: "123.456789" });
        }
    }
}
