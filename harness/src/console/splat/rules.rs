//! How reports begin, go on and end.
//!
//! A report begins only with the very words of the kernel at the start of a line, so that a message that speaks of a
//! BUG or an oops, or a command line with `oops=panic`, is none.

use super::{Splat, SplatKind};

/// How a report ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With `---[ end trace`.
    Marker,
    /// With `---[ end Kernel panic` or `Rebooting in`, where the kernel lives to print it.
    Panic,
    /// With a line of `=`.
    Rule,
    /// After its stack trace.
    Trace,
    /// After its stack traces, of which it may have several.
    Traces,
}

impl End {
    /// Whether a line is the last of a report that ends so.
    pub(super) fn is(self, text: &str) -> bool {
        match self {
            End::Marker => text.starts_with("---[ end trace"),
            End::Panic => text.starts_with("---[ end Kernel panic") || text.starts_with("Rebooting in "),
            End::Rule => is_rule(text) || text.starts_with("---[ end trace"),
            End::Trace => text.starts_with("---[ end trace") || text.trim_ascii_start() == "</TASK>",
            End::Traces => false,
        }
    }
}

/// How a report begins.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) kind: SplatKind,
    pub(super) end: End,
    /// What is wrong, for the title.
    pub(super) what: String,
    /// The function, where the line names it.
    pub(super) function: Option<String>,
}

/// How lines begin, what that means, and what is said of it; `*` stands for the rest of the line, up to a bracket or
/// the place.
const STARTS: &[(&str, SplatKind, &str)] = &[
    // x86
    ("BUG: unable to handle page fault for address", SplatKind::Oops, PAGE_FAULT),
    ("BUG: unable to handle kernel NULL pointer dereference", SplatKind::Oops, NULL),
    ("BUG: unable to handle kernel paging request", SplatKind::Oops, PAGE_FAULT),
    ("BUG: kernel NULL pointer dereference", SplatKind::Oops, NULL),
    ("BUG: supervisor ", SplatKind::Oops, PAGE_FAULT),
    ("general protection fault", SplatKind::Oops, "general protection fault"),
    ("Oops: general protection fault", SplatKind::Oops, "general protection fault"),
    ("traps: PANIC: double fault", SplatKind::Oops, "double fault"),
    ("PANIC: double fault", SplatKind::Oops, "double fault"),
    ("invalid opcode: ", SplatKind::Oops, "invalid opcode"),
    ("divide error: ", SplatKind::Oops, "divide error"),
    ("stack segment: ", SplatKind::Oops, "stack segment fault"),
    ("int3: ", SplatKind::Oops, "int3"),
    ("kernel tried to execute NX-protected page", SplatKind::Oops, EXECUTION),
    // arm, arm64, riscv, s390, sparc64
    ("Unable to handle kernel NULL pointer dereference", SplatKind::Oops, NULL),
    ("Unable to handle kernel access to user memory", SplatKind::Oops, "access to user memory"),
    ("Unable to handle kernel ", SplatKind::Oops, PAGE_FAULT),
    ("Unhandled fault: ", SplatKind::Oops, "unhandled fault"),
    ("Unhandled prefetch abort: ", SplatKind::Oops, "unhandled fault"),
    ("Internal error: ", SplatKind::Oops, "internal error"),
    // powerpc
    ("BUG: Kernel NULL pointer dereference", SplatKind::Oops, NULL),
    ("BUG: Unable to handle kernel instruction fetch (NULL pointer?)", SplatKind::Oops, NULL),
    ("BUG: Unable to handle kernel ", SplatKind::Oops, PAGE_FAULT),
    ("Kernel attempted to ", SplatKind::Oops, PAGE_FAULT),
    ("kernel tried to execute ", SplatKind::Oops, EXECUTION),
    ("Oops: ", SplatKind::Oops, "oops"),
    ("Oops [#", SplatKind::Oops, "oops"),
    ("Oops[#", SplatKind::Oops, "oops"),
    // All.
    ("kernel BUG at ", SplatKind::Bug, "kernel BUG"),
    ("watchdog: BUG: soft lockup - CPU#", SplatKind::SoftLockup, "soft lockup"),
    ("NMI watchdog: BUG: soft lockup - CPU#", SplatKind::SoftLockup, "soft lockup"),
    ("BUG: soft lockup - CPU#", SplatKind::SoftLockup, "soft lockup"),
    ("watchdog: Watchdog detected hard LOCKUP", SplatKind::HardLockup, "hard lockup"),
    ("NMI watchdog: Watchdog detected hard LOCKUP", SplatKind::HardLockup, "hard lockup"),
    ("watchdog: CPU ", SplatKind::HardLockup, "hard lockup"),
    ("WARNING: possible ", SplatKind::Lockdep, "possible *"),
    ("INFO: possible ", SplatKind::Lockdep, "possible *"),
    ("[ INFO: possible ", SplatKind::Lockdep, "possible *"),
    ("WARNING: suspicious RCU usage", SplatKind::Lockdep, SUSPICIOUS_RCU),
    ("INFO: suspicious RCU usage", SplatKind::Lockdep, SUSPICIOUS_RCU),
    ("[ INFO: suspicious RCU usage", SplatKind::Lockdep, SUSPICIOUS_RCU),
    ("WARNING: inconsistent lock state", SplatKind::Lockdep, "inconsistent lock state"),
    ("WARNING: bad unlock balance detected", SplatKind::Lockdep, "bad unlock balance"),
    (
        "WARNING: lock held when returning to user space",
        SplatKind::Lockdep,
        "lock held when returning to user space",
    ),
    ("WARNING: held lock freed", SplatKind::Lockdep, "held lock freed"),
    ("WARNING: Nested lock was not taken", SplatKind::Lockdep, "nested lock was not taken"),
    ("INFO: trying to register non-static key", SplatKind::Lockdep, "non-static lock key"),
    ("BUG: KASAN: ", SplatKind::Kasan, "KASAN: *"),
    ("BUG: KMSAN: ", SplatKind::Kmsan, "KMSAN: *"),
    ("BUG: KCSAN: ", SplatKind::Kcsan, "KCSAN: *"),
    ("BUG: KFENCE: ", SplatKind::Kfence, "KFENCE: *"),
    ("UBSAN: ", SplatKind::Ubsan, "UBSAN: *"),
    ("BUG: scheduling while atomic", SplatKind::SchedulingWhileAtomic, "scheduling while atomic"),
    (
        "BUG: sleeping function called from invalid context",
        SplatKind::SchedulingWhileAtomic,
        "sleeping function called from invalid context",
    ),
    ("BUG: Bad page state", SplatKind::BadPage, "bad page state"),
    ("BUG: Bad page map", SplatKind::BadPage, "bad page map"),
    ("BUG: Bad rss-counter state", SplatKind::BadPage, "bad rss-counter state"),
    ("BUG: spinlock ", SplatKind::Bug, "spinlock *"),
    ("BUG: rwlock ", SplatKind::Bug, "rwlock *"),
    ("BUG: workqueue lockup", SplatKind::Bug, "workqueue lockup"),
    ("BUG: workqueue leaked lock or atomic", SplatKind::Bug, "workqueue leaked lock or atomic"),
    ("BUG: using ", SplatKind::Bug, "per-cpu access in preemptible code"),
];

pub(super) const PAGE_FAULT: &str = "page fault";
pub(super) const EXECUTION: &str = "execution of data";
const NULL: &str = "NULL pointer dereference";
const SUSPICIOUS_RCU: &str = "suspicious RCU usage";

/// Whether a report begins with this line.
pub(super) fn start(text: &str) -> Option<Start> {
    if let Some(reason) = text.strip_prefix("Kernel panic - not syncing") {
        let reason = reason.strip_prefix(": ").unwrap_or("");
        let what = format!("kernel panic: {}", super::title::without_numbers(reason));
        return Some(Start { kind: SplatKind::Panic, end: End::Panic, what, function: None });
    }
    if let Some(rest) = text.strip_prefix("WARNING: ")
        && let Some(function) = warn(rest)
    {
        return Some(Start { kind: SplatKind::Warn, end: End::Marker, what: "WARNING".into(), function });
    }
    if let Some(task) = text.strip_prefix("INFO: task ")
        && task.contains(" blocked for more than ")
    {
        let what = "hung task".to_owned();
        return Some(Start { kind: SplatKind::HungTask, end: End::Trace, what, function: None });
    }
    if is_rcu_stall(text) {
        let what = "RCU stall".to_owned();
        return Some(Start { kind: SplatKind::RcuStall, end: End::Traces, what, function: None });
    }
    // mips, `arch/mips/mm/fault.c`: `CPU 0 Unable to handle kernel paging request at virtual address …`
    let text = text
        .strip_prefix("CPU ")
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start())
        .filter(|rest| rest.starts_with("Unable to handle kernel "))
        .unwrap_or(text);
    let Some((prefix, kind, what)) = STARTS.iter().find(|(prefix, ..)| text.starts_with(prefix)) else {
        return died(text);
    };
    if *prefix == "watchdog: CPU " && !text.to_ascii_lowercase().contains("hard lockup") {
        return None;
    }
    let end = match kind {
        SplatKind::Oops => End::Marker,
        SplatKind::Bug if *prefix == "kernel BUG at " => End::Marker,
        SplatKind::Kasan | SplatKind::Kmsan | SplatKind::Ubsan | SplatKind::Kcsan | SplatKind::Kfence => {
            End::Rule
        }
        _ => End::Trace,
    };
    // arm, where user space is a domain of its own: `page domain fault (0x81b) at 0x00000000`.
    let is_null = text
        .rsplit_once(" at 0x")
        .is_some_and(|(_, address)| matches!(u64::from_str_radix(address, 16), Ok(0..4096)));
    let what = if prefix.starts_with("Unhandled ") && is_null { NULL } else { what };
    let (what, function) = match what.strip_suffix('*') {
        Some(what) => {
            let (rest, function) = super::title::finding(text.strip_prefix(prefix).unwrap_or(""));
            (format!("{what}{rest}"), function)
        }
        None => ((*what).to_owned(), None),
    };
    Some(Start { kind: *kind, end, what, function })
}

/// The line with which a kernel dies where no line of its own comes before, with the count of such deaths:
/// `Break instruction in kernel code[#1]:` on mips (`arch/mips/kernel/traps.c`, `die`), `illegal operation: 0001 ilc:1
/// [#1] SMP` on s390 (`arch/s390/kernel/dumpstack.c`, `die`), `insmod(86): Kernel bad sw trap 5 [#1]` on sparc64
/// (`arch/sparc/kernel/traps_64.c`, `die_if_kernel`).
fn died(text: &str) -> Option<Start> {
    let (before, after) = text.split_once("[#")?;
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(']')?;
    let what = if after == ":" {
        before
    } else if let Some((what, _)) = before.split_once(" ilc:") {
        what.split_once(": ")?.0
    } else if after.is_empty() {
        before.split_once("): ")?.1.trim_end()
    } else {
        return None;
    };
    let (kind, what) = match what {
        "Kernel bug detected" => (SplatKind::Bug, "kernel BUG"),
        "Oops" => (SplatKind::Oops, "oops"),
        what => (SplatKind::Oops, what),
    };
    Some(Start { kind, end: End::Marker, what: what.to_owned(), function: None })
}

/// The function, where it is said, of `CPU: 0 PID: 1 at kernel/module/main.c:1234 __module_put+0x10/0x20`, of
/// `at kernel/module.c:1234 module_put+0x10/0x20()` (before 3.12) or of `kernel/module/main.c:1234 at
/// __module_put+0x10/0x20, CPU#0: insmod/86` (from 6.18 on). A kernel without DEBUG_BUGVERBOSE leaves out the file
/// (`kernel/panic.c`, `__warn`). None for other warnings, which are no reports.
fn warn(rest: &str) -> Option<Option<String>> {
    let (before, after) = match rest.strip_prefix("at ") {
        Some(after) => ("", after),
        None => rest.split_once(" at ")?,
    };
    let is_place = |word: &str| {
        word.rsplit_once(':').is_some_and(|(file, line)| {
            !file.is_empty() && !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let is_function = |word: &str| {
        word.split_once("+0x").is_some_and(|(name, rest)| !name.is_empty() && rest.contains("/0x"))
    };
    let old = before.is_empty() || before.starts_with("CPU: ");
    let place = if old { after.split(' ').next()? } else { before };
    (is_place(place) || old && is_function(place)).then(|| super::title::function(after))
}

/// `rcu: INFO: rcu_sched self-detected stall on CPU`, `INFO: rcu_preempt detected stalls on CPUs/tasks:`
fn is_rcu_stall(text: &str) -> bool {
    let text = text.strip_prefix("rcu: ").unwrap_or(text);
    text.strip_prefix("INFO: rcu").is_some_and(|rest| {
        ["self-detected stall", "detected stall", "detected expedited stall"]
            .iter()
            .any(|what| rest.contains(what))
    })
}

/// Whether what looks like the start of a report is part of one that has begun: a fault is reported in several lines,
/// each of which could be the first.
pub(super) fn belongs(current: SplatKind, start: SplatKind) -> bool {
    match current {
        SplatKind::Oops | SplatKind::Bug => matches!(start, SplatKind::Oops | SplatKind::Bug),
        _ => false,
    }
}

/// Whether a line announces a report.
pub(super) fn is_lead(text: &str) -> bool {
    text.starts_with("------------[ cut here ]") || text.starts_with("8<--- cut here ---") || is_rule(text)
}

fn is_rule(text: &str) -> bool {
    text.len() >= 20 && text.bytes().all(|b| b == b'=')
}

/// Whether a line is a stack entry: ` func+0x1/0x2 [mod]`, `[c000000000000000] [c000000000000000] func+0x1/0x2`,
/// ` func from caller+0x1/0x2`.
pub(super) fn is_stack_entry(text: &str) -> bool {
    text.starts_with([' ', '\t', '[']) && super::title::function(text).is_some()
}

/// Whether a line goes on with a stack trace, or with the registers and the code that stand with one.
pub(super) fn continues_trace(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "Call Trace",
        "Call trace",
        "Backtrace",
        "Exception stack",
        "Instruction dump",
        "Code:",
        "Stack:",
        "Modules linked in",
        "CPU: ",
        "Hardware name",
        "Workqueue:",
        "RIP:",
        "RSP:",
        "RAX:",
        "RBX:",
        "RDX:",
        "RBP:",
        "R10:",
        "R13:",
        "FS:",
        "CS:",
        "CR2:",
        "EIP:",
        "EAX:",
        "ESI:",
        "DS:",
        "NIP",
        "LR ",
        "REGS:",
        "MSR:",
        "CFAR:",
        "GPR",
        "IRQMASK:",
        "---",
        "PC is at",
        "LR is at",
        "pc :",
        "sp :",
        "Flags:",
        "Control:",
        "Register ",
        "Task dump",
        "task:",
        "NMI backtrace",
        "Sending NMI",
        "rcu:",
        "Showing all locks",
    ];
    text.is_empty()
        || text.starts_with([' ', '\t', '[', '#', '<'])
        || WORDS.iter().any(|word| text.starts_with(word))
        || is_register_line(text)
}

/// `r10: 00000000 …`, `x29: ffff…`, `3fa0: 00000000 …`
fn is_register_line(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, rest)| {
        (2..=5).contains(&name.trim_ascii_end().len())
            && name
                .trim_ascii_end()
                .bytes()
                .all(|b| b.is_ascii_hexdigit() || matches!(b, b'r' | b'x' | b'p' | b's'))
            && rest
                .split_ascii_whitespace()
                .next()
                .is_some_and(|word| word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

/// Takes from a line which cpu and which task the report is about.
pub(super) fn whereabouts(text: &str, splat: &mut Splat) {
    let text = text.strip_prefix("WARNING: ").unwrap_or(text);
    if let Some(rest) = text.strip_prefix("CPU: ") {
        splat.cpu = splat.cpu.or_else(|| number(rest));
        splat.pid = splat.pid.or_else(|| number(rest.split_once("PID: ")?.1));
        splat.comm = splat.comm.take().or_else(|| comm(rest));
    } else if let Some((_, rest)) = text.split_once(" - CPU#") {
        splat.cpu = splat.cpu.or_else(|| number(rest));
        // `stuck for 22s! [insmod:123]`
        if let Some((_, task)) = rest.split_once('[') {
            name_and_pid(task.strip_suffix(']').unwrap_or(task), ':', splat);
        }
    } else if let Some((_, rest)) = text.split_once(", CPU#") {
        // `…, CPU#0: insmod/86`
        splat.cpu = splat.cpu.or_else(|| number(rest));
        if let Some((_, task)) = rest.split_once(": ") {
            name_and_pid(task, '/', splat);
        }
    } else if let Some(rest) = text.strip_prefix("INFO: task ") {
        name_and_pid(rest.split(" blocked for ").next().unwrap_or(rest), ':', splat);
    } else if let Some(rest) = text.strip_prefix("BUG: scheduling while atomic: ") {
        // `insmod/123/0x00000002`
        name_and_pid(rest.rsplit_once('/').map_or(rest, |(task, _)| task), '/', splat);
    }
}

fn name_and_pid(task: &str, separator: char, splat: &mut Splat) {
    if let Some((comm, pid)) = task.rsplit_once(separator)
        && let Ok(pid) = pid.parse()
        && splat.pid.is_none()
    {
        splat.pid = Some(pid);
        splat.comm = Some(comm.to_owned());
    }
}

/// `… Comm: kworker/0:1 Tainted: G` or `… Comm: insmod Not tainted 6.1.0`
fn comm(rest: &str) -> Option<String> {
    let (_, comm) = rest.split_once("Comm: ")?;
    let end = comm.find(" Tainted: ").or_else(|| comm.find(" Not tainted"))?;
    comm.get(..end).map(str::to_owned)
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}
