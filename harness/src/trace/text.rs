//! Lines of ftrace text, without copying them.
//!
//! The layouts are those of `trace_print_context()` and `trace_print_lat_context()` in the kernel's
//! `kernel/trace/trace_output.c`, and of `trace-cmd report`. This is the hot path of every reader of trace logs: it
//! scans bytes by hand and looks at few of them more than once.

use memchr::memchr;

use super::context::{DEFAULT_DASH, LATENCY_DASH, context};
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

/// A task's name may look like the start of something else; only an event has a colon after its time. What stands at the
/// very start, as entries of stacks do, must besides have the dash or blank that ends a name of all columns.
fn event_or<'a>(line: &'a str, otherwise: Line<'a>) -> Line<'a> {
    let bytes = line.as_bytes();
    let may_be_name = bytes.starts_with(b"  ")
        || matches!(bytes.get(DEFAULT_DASH), Some(b'-' | b' '))
        || bytes.get(LATENCY_DASH) == Some(&b'-');
    if !may_be_name || memchr(b':', bytes).is_none() {
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
    let (cpu, rest) = start.strip_prefix("CPU:")?.split_once(' ')?;
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
