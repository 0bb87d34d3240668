//! Titles that are the same in every run.

use super::SplatKind;
use super::rules::{EXECUTION, PAGE_FAULT, Start};

/// Makes a title as the lines of a report come.
#[derive(Debug)]
pub(super) struct Builder {
    kind: SplatKind,
    what: String,
    function: Option<String>,
    /// Whether the function is where it happened, not merely the first of a stack trace.
    certain: bool,
    /// `kernel/module/main.c`
    file: Option<String>,
}

impl Builder {
    pub(super) fn new(start: Start, text: &str) -> Self {
        let Start { kind, what, function, .. } = start;
        Builder { kind, what, certain: function.is_some(), function, file: source_file(text) }
    }

    /// Takes another line that could have been the first, and may say more exactly what is wrong.
    pub(super) fn also(&mut self, what: String) {
        if exactness(&what) > exactness(&self.what) {
            self.what = what;
        }
    }

    /// Takes a line; says whether the title has changed.
    pub(super) fn line(&mut self, text: &str) -> bool {
        if self.certain || matches!(self.kind, SplatKind::Panic | SplatKind::Lockdep | SplatKind::BadPage) {
            return false;
        }
        if let Some(found) = program_counter(text).and_then(function) {
            self.function = Some(found);
            self.certain = true;
            return true;
        }
        if self.function.is_none()
            && super::rules::is_stack_entry(text)
            && !text.trim_ascii_start().starts_with('?')
            && !text.ends_with("(unreliable)")
        {
            self.function = entry(text).filter(|name| !is_scenery(name));
            return self.function.is_some();
        }
        false
    }

    pub(super) fn title(&self) -> String {
        match (&self.function, &self.file) {
            (Some(function), _) => format!("{} in {function}", self.what),
            (None, Some(file)) => format!("{} at {file}", self.what),
            (None, None) => self.what.clone(),
        }
    }
}

/// How much is said of what is wrong with a fault.
fn exactness(what: &str) -> u8 {
    match what {
        "oops" | "internal error" | "unhandled fault" => 0,
        PAGE_FAULT | EXECUTION => 1,
        _ => 2,
    }
}

/// What follows the name of the program counter, on any architecture.
fn program_counter(text: &str) -> Option<&str> {
    const NAMES: &[&str] =
        &["RIP: ", "EIP: ", "PC is at ", "pc : ", "NIP [", "epc : ", "epc   : ", "TPC: ", "Krnl PSW : "];
    NAMES.iter().find_map(|name| text.trim_ascii_start().strip_prefix(name))
}

/// What a stack trace begins with before it comes to the point.
fn is_scenery(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "unwind_backtrace",
        "show_stack",
        "_switch",
        "__switch_to",
        "__schedule",
        "__schedule_bug",
        "schedule",
        "schedule_timeout",
        "schedule_preempt_disabled",
        "io_schedule",
        "preempt_schedule",
        "context_switch",
        "__cond_resched",
        "wait_for_completion",
        "__wait_for_common",
        "mutex_lock",
        "mutex_lock_interruptible",
        "mutex_lock_killable",
        "__mutex_lock",
        "__mutex_lock_slowpath",
        "down",
        "__down",
        "__down_common",
        "down_read",
        "down_write",
        "rwsem_down_read_slowpath",
        "rwsem_down_write_slowpath",
        "synchronize_rcu",
        "__wait_rcu_gp",
        "msleep",
    ];
    NAMES.contains(&name)
        || ["dump_stack", "dump_backtrace", "__might_", "___might_"].iter().any(|p| name.starts_with(p))
}

/// The function that a stack entry is of: arm's `func from caller+0x1/0x2` names it first.
fn entry(text: &str) -> Option<String> {
    match text.split_once(" from ") {
        Some((name, _)) => {
            // Before 5.18, ` [<c010f3a8>] (func) from [<c010a1c4>] (caller+0x1/0x2)`; then ` func [mod] from …`.
            let name = name.split_ascii_whitespace().find(|word| !word.starts_with('['))?;
            Some(plain(name.trim_matches(['(', ')'])).to_owned())
        }
        None => function(text),
    }
}

/// The first word of the form `kernel/module/main.c:1234`, without the line.
fn source_file(text: &str) -> Option<String> {
    let is_source = |file: &str| [".c", ".h", ".S", ".rs"].iter().any(|end| file.ends_with(end));
    let mut files = text.split(' ').filter_map(|word| word.split(':').next());
    files.find(|file| is_source(file)).map(str::to_owned)
}

/// The first word of the form `func+0x1/0x2`, as the function's name.
pub(super) fn function(text: &str) -> Option<String> {
    let word = text.split([' ', '\t', ':', '(', ')', '<', '>']).find(|word| word.contains("+0x"))?;
    let (name, _) = word.split_once("+0x")?;
    let name = plain(name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// A name without what compilers and the ABI add: `.func.isra.0.cold` is `func`.
fn plain(name: &str) -> &str {
    let mut name = name.strip_prefix('.').unwrap_or(name);
    while let Some((head, tail)) = name.rsplit_once('.') {
        let is_suffix = matches!(tail, "part" | "isra" | "constprop" | "cold" | "llvm" | "lto_priv")
            || tail.bytes().all(|b| b.is_ascii_digit());
        if !is_suffix || head.is_empty() {
            break;
        }
        name = head;
    }
    name
}

/// What a checker found, and the function if it names one: `use-after-free in func+0x1/0x2 [mod]`.
pub(super) fn finding(text: &str) -> (String, Option<String>) {
    let text = text.split(" [").next().unwrap_or(text).trim_end_matches([' ', '!', ']']);
    if let Some((what, place)) = text.split_once(" in ") {
        let name =
            function(place).unwrap_or_else(|| plain(place.split(' ').next().unwrap_or(place)).to_owned());
        // UBSAN names a file: `array-index-out-of-bounds in drivers/x.c:12:3`.
        let name = name.split(':').next().unwrap_or(&name).to_owned();
        return (what.to_owned(), Some(name));
    }
    let what = text.split(" on CPU#").next().unwrap_or(text);
    (what.strip_suffix(" detected").unwrap_or(what).to_owned(), None)
}

/// A sentence with `N` for every number, hexadecimal or decimal, that is a word of its own.
pub(super) fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let push_word = |word: &mut String, out: &mut String| {
        out.push_str(if is_number(word) { "N" } else { word });
        word.clear();
    };
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
        } else {
            push_word(&mut word, &mut out);
            out.push(c);
        }
    }
    push_word(&mut word, &mut out);
    out
}

fn is_number(word: &str) -> bool {
    match word.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => {
            let is_decimal = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
            is_decimal || word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit())
        }
    }
}
