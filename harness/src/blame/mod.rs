//! What holds a module: a ledger turned into an answer that a person can act on.
//!
//! Pure: a [`ModuleLedger`] in, an [`Answer`] out. `report` makes text of it.

use std::fmt;

use serde::Serialize;

use crate::guest::Errno;
use crate::holders::{Holder, Kind, Scan};
use crate::trace::ledger::{Certainty, ModuleLedger, Note, Reference, Task};
use crate::trace::{ListedModule, ModuleState};

/// What a trace says of one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether something holds it.
    pub verdict: Verdict,
    /// The verdict in a sentence.
    pub sentence: String,
    /// Whether the kernel would let it go, and why not.
    pub removal: String,
    /// What to do next, a line each.
    pub advice: Vec<String>,
    /// What holds it now; None where that was not looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<Present>,
    /// What the answer rests on.
    #[serde(flatten)]
    pub ledger: ModuleLedger,
}

/// Whether something holds a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing does.
    Free,
    /// It is not there at the end of the trace.
    Unloaded,
    /// Something does.
    Held,
    /// It was given back more often than it was taken.
    Overdrawn,
    /// The trace cannot tell.
    Unclear,
}

impl Verdict {
    /// Whether there is something to mend: exit code 1.
    pub fn is_bad(self) -> bool {
        matches!(self, Verdict::Held | Verdict::Overdrawn)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Free => "free",
            Verdict::Unloaded => "unloaded",
            Verdict::Held => "held",
            Verdict::Overdrawn => "overdrawn",
            Verdict::Unclear => "unclear",
        })
    }
}

/// What holds a module now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Present {
    /// Its holders.
    pub holders: Vec<Holder>,
    /// How many references none of them has: what code took and has not given back. None where that cannot be told.
    pub left_over: Option<i64>,
    /// How many more holders there are than are listed.
    pub cut: u64,
}

impl Present {
    /// What a scan found, joined with who took what is out. The kernel keeps no reference for a thread; one that the thread
    /// took itself it has until it gives it back.
    pub fn new(scan: &Scan, ledger: Option<&ModuleLedger>) -> Self {
        let mut present =
            Present { holders: scan.holders.clone(), left_over: scan.left_over(), cut: scan.cut };
        let outstanding = ledger.map(|ledger| ledger.outstanding.as_slice()).unwrap_or_default();
        for holder in present.holders.iter_mut().filter(|holder| holder.kind == Kind::Thread) {
            let Some(pid) = holder.task.as_ref().and_then(|task| i32::try_from(task.pid).ok()) else {
                continue;
            };
            let own = outstanding.iter().filter(|held| held.taken_by.pid == pid).count();
            // The count is the kernel's; a trace with gaps may show more than there are.
            let left = present.left_over.map_or(0, |left| left.max(0));
            let own = i64::try_from(own).unwrap_or(i64::MAX).min(left);
            holder.references = u32::try_from(own).ok();
            present.left_over = present.left_over.map(|left| left - own);
        }
        present
    }
}

/// What came of an attempt to remove a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// What `delete_module` answered.
    pub answer: Result<(), Errno>,
    /// Its line in `/proc/modules` after that, where it still has one.
    pub listed: Option<ListedModule>,
}

impl Answer {
    /// What a module's ledger comes to.
    pub fn new(ledger: ModuleLedger) -> Self {
        let verdict = verdict(&ledger);
        Answer {
            verdict,
            sentence: sentence(verdict, &ledger),
            removal: removal(verdict, &ledger),
            advice: advice(verdict, &ledger, None),
            present: None,
            ledger,
        }
    }

    /// The answer with what a scan found to hold the module now.
    #[must_use]
    pub fn with_scan(self, scan: &Scan) -> Self {
        let present = Present::new(scan, Some(&self.ledger));
        self.with_present(present)
    }

    /// The answer with what the kernel shows to user space of who holds the module now.
    #[must_use]
    pub fn with_holders(self, holders: &[Holder]) -> Self {
        self.with_present(Present { holders: holders.to_vec(), left_over: None, cut: 0 })
    }

    fn with_present(self, present: Present) -> Self {
        let sentence = match self.verdict {
            Verdict::Held => format!("{}; {}", self.sentence, now(&present)),
            _ => self.sentence,
        };
        let advice = advice(self.verdict, &self.ledger, Some(&present));
        Answer { sentence, advice, present: Some(present), ..self }
    }

    /// The answer after an attempt to remove the module.
    #[must_use]
    pub fn after(self, removal: &Removal) -> Self {
        let name = &self.ledger.name;
        match removal.answer {
            Ok(()) => Answer {
                verdict: Verdict::Free,
                sentence: format!("nothing holds `{name}`: it was removed"),
                removal: "allowed: the module is gone".to_owned(),
                advice: Vec::new(),
                ..self
            },
            Err(errno) => {
                let reason = refusal(errno, removal.listed.as_ref());
                let known = self.verdict.is_bad();
                let sentence =
                    if known { self.sentence } else { format!("`{name}` cannot be removed: {reason}") };
                Answer {
                    verdict: if known { self.verdict } else { Verdict::Held },
                    sentence,
                    removal: format!("refused with {}: {reason}", errno_name(errno)),
                    ..self
                }
            }
        }
    }
}

/// As the manual page of `delete_module` has it; the number is that of EAGAIN.
fn errno_name(errno: Errno) -> String {
    if errno == Errno::EAGAIN { "EWOULDBLOCK".to_owned() } else { errno.to_string() }
}

/// Why `delete_module` refuses: it has one errno for a count and for dependents, and one for a module that is not live and
/// for one without an exit function (`kernel/module/main.c`); `/proc/modules` tells which.
fn refusal(errno: Errno, listed: Option<&ListedModule>) -> String {
    let Some(listed) = listed else { return "it is not loaded".to_owned() };
    match (errno, listed.state) {
        (_, ModuleState::Loading) => "its init function still runs".to_owned(),
        (_, ModuleState::Unloading) => "it is being removed already".to_owned(),
        (Errno::EAGAIN, _) if !listed.users.is_empty() => format!("in use by {}", listed.users.join(", ")),
        (Errno::EAGAIN, _) => {
            let count = listed.use_count.map_or("unknown".to_owned(), |count| count.to_string());
            format!("its use count is {count}, and no module uses it")
        }
        (_, ModuleState::Live) if listed.permanent => "it has no exit function".to_owned(),
        _ => "the kernel does not say why".to_owned(),
    }
}

fn verdict(ledger: &ModuleLedger) -> Verdict {
    match (ledger.loaded, ledger.use_count) {
        (Some(false), _) => Verdict::Unloaded,
        (_, Some(count)) if count < 0 => Verdict::Overdrawn,
        (_, Some(0)) => Verdict::Free,
        (_, Some(_)) => Verdict::Held,
        (_, None) if ledger.outstanding.is_empty() => Verdict::Unclear,
        (_, None) => Verdict::Held,
    }
}

fn sentence(verdict: Verdict, ledger: &ModuleLedger) -> String {
    let name = &ledger.name;
    match verdict {
        Verdict::Free => format!("nothing holds `{name}`: its use count is 0"),
        Verdict::Unloaded => format!("`{name}` is not loaded at the end of the trace"),
        Verdict::Unclear => format!("the trace does not show whether something holds `{name}`"),
        Verdict::Overdrawn => {
            let by = ledger.notes.iter().find_map(|note| match note {
                Note::PutWithoutGet { task, chain, .. } => Some(format!(
                    ": {} did so{}",
                    task_name(task),
                    chain.first().map(|place| format!(" in {place}")).unwrap_or_default()
                )),
                _ => None,
            });
            format!("`{name}` was given back more often than it was taken{}", by.unwrap_or_default())
        }
        Verdict::Held => held(ledger),
    }
}

fn held(ledger: &ModuleLedger) -> String {
    let listed = ledger.outstanding.len();
    let count = ledger.use_count.unwrap_or(i64::try_from(listed).unwrap_or(i64::MAX));
    let head = format!("`{}` is held {}", ledger.name, times(count));
    let unseen = match ledger.unseen {
        1.. if listed > 0 => {
            format!("; {} taken where the trace does not show it", references(ledger.unseen))
        }
        _ => String::new(),
    };
    match ledger.outstanding.as_slice() {
        [] => format!("{head}, and the trace does not show who took it"),
        [one] => format!("{head}: {}{unseen}", took(one)),
        many => {
            let mut names: Vec<String> = many.iter().map(holder).collect();
            names.dedup();
            let more = names.len().saturating_sub(4);
            names.truncate(4);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{head}: by {}{more}{unseen}", names.join(", "))
        }
    }
}

/// Who has it now, as the end of a sentence.
fn now(present: &Present) -> String {
    let has_one = |holder: &&Holder| holder.references.is_none_or(|references| references > 0);
    let mut having: Vec<&Holder> = present.holders.iter().filter(has_one).collect();
    let threads = having.is_empty();
    if threads {
        // A kernel thread has no reference by itself, but it is what the reference was taken for.
        having.extend(present.holders.iter().filter(|holder| holder.kind == Kind::Thread));
    }
    let having: Vec<String> = having.into_iter().take(3).map(ToString::to_string).collect();
    match (having.is_empty(), present.left_over) {
        (true, None) => "no user of it shows outside the kernel".to_owned(),
        (true, _) => "nothing that is there now has it".to_owned(),
        (false, Some(left @ 1..)) if !threads => {
            format!("now {}, and {} left over that nothing has", having.join(", "), references(left))
        }
        (false, _) => format!("now {}", having.join(", ")),
    }
}

/// Who took a reference, and where, as the end of a sentence.
fn took(reference: &Reference) -> String {
    let place = reference.chain.first().map(|place| format!(" in {place}")).unwrap_or_default();
    match &reference.dependent {
        Some(dependent) => format!("module `{dependent}` uses its symbols"),
        None => {
            format!("{} took it{place} and has not given it back", task_name(&reference.taken_by))
        }
    }
}

fn holder(reference: &Reference) -> String {
    match &reference.dependent {
        Some(dependent) => format!("module `{dependent}`"),
        None => task_name(&reference.taken_by),
    }
}

/// As `ps` and traces name a task: `sleep[89]`; `<...>` where the kernel no longer knew the name.
pub fn task_name(task: &Task) -> String {
    format!("{}[{}]", task.comm.as_deref().unwrap_or("<...>"), task.pid)
}

/// What `delete_module` does (`kernel/module/main.c`): dependents are asked first, then the state, then the count, and
/// dependents and the count have the same errno.
fn removal(verdict: Verdict, ledger: &ModuleLedger) -> String {
    let dependents = dependents(ledger);
    match verdict {
        Verdict::Free => "allowed, if the module has an exit function (without one: EBUSY)".to_owned(),
        Verdict::Unloaded => "it has been removed, or its load failed".to_owned(),
        Verdict::Unclear => "the trace does not tell".to_owned(),
        Verdict::Overdrawn => {
            "not safe: with a count below its base the kernel stops with a BUG in try_release_module_ref"
                .to_owned()
        }
        Verdict::Held if dependents.is_empty() => {
            "refused with EWOULDBLOCK while the use count is above 0; no module in the trace depends on it"
                .to_owned()
        }
        Verdict::Held => format!("refused with EWOULDBLOCK: in use by {}", dependents.join(", ")),
    }
}

fn dependents(ledger: &ModuleLedger) -> Vec<String> {
    let mut names: Vec<String> =
        ledger.outstanding.iter().filter_map(|held| held.dependent.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn advice(verdict: Verdict, ledger: &ModuleLedger, present: Option<&Present>) -> Vec<String> {
    let mut lines = Vec::new();
    if verdict == Verdict::Overdrawn {
        lines.push(
            "find the module_put without a try_module_get before it; reboot before removing the module"
                .to_owned(),
        );
    }
    if verdict == Verdict::Held {
        let dependents = dependents(ledger);
        if !dependents.is_empty() {
            lines.push(format!("remove what depends on it first: modprobe -r {}", dependents.join(" ")));
        }
        let mut others: Vec<&Reference> = Vec::new();
        for held in ledger.outstanding.iter().filter(|held| held.dependent.is_none()) {
            let same = |other: &&Reference| {
                other.taken_by.pid == held.taken_by.pid && other.chain.first() == held.chain.first()
            };
            if !others.iter().any(same) {
                others.push(held);
            }
        }
        let ended = present.map(|present| release(&present.holders)).unwrap_or_default();
        // Who took a reference need not be who has it; where the present holders are known, they are whom to ask.
        let taken = others.iter().filter(|held| ended.is_empty() || own(&ledger.name, held).is_some());
        lines.extend(taken.take(4).map(|held| remedy(&ledger.name, held)));
        lines.extend(ended);
        if ledger.unseen > 0 {
            lines.push("trace from before the module is loaded, to see every reference taken".to_owned());
        }
    }
    if ledger.notes.contains(&Note::NoStacks) {
        lines.push(
            "record stacks: echo stacktrace > events/module/module_get/trigger, and the same for module_put"
                .to_owned(),
        );
    }
    if ledger.notes.iter().any(|note| matches!(note, Note::Lost { .. } | Note::Overwritten { .. })) {
        lines.push(format!(
            "lose no events: a larger buffer_size_kb, or name == \"{}\" in events/module/filter",
            ledger.name
        ));
    }
    lines
}

/// How to have present holders let go.
fn release(holders: &[Holder]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for holder in holders {
        let line = match (holder.kind, &holder.task, &holder.place, &holder.name) {
            (Kind::Mount, _, Some(place), _) => format!("umount {place}"),
            (Kind::Mount, _, None, Some(source)) => format!("unmount {source}: umount {source}"),
            (Kind::File | Kind::Mapping | Kind::Socket | Kind::Cwd | Kind::Root, Some(task), ..) => {
                format!("have {}[{}] let go, or end it: kill {}", task.comm, task.pid, task.pid)
            }
            _ => continue,
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.truncate(4);
    lines
}

/// The function of the module itself that took a reference, if one did.
fn own<'a>(module: &str, held: &'a Reference) -> Option<&'a str> {
    held.chain.first().map(String::as_str).filter(|place| place.ends_with(&format!("[{module}]")))
}

/// What gives a reference back.
fn remedy(module: &str, held: &Reference) -> String {
    let pid = held.taken_by.pid;
    if let Some(place) = own(module, held) {
        return format!("the module's own code took it: see which module_put should follow in {place}");
    }
    match held.chain.first() {
        _ if held.chain.iter().any(|place| place.contains("open")) => format!(
            "see whether pid {pid}, or a child of it, still has it open: ls -l /proc/{pid}/fd; closing gives it back"
        ),
        Some(place) => format!("see what undoes {place} for pid {pid}"),
        None => format!("see what pid {pid} does with the module"),
    }
}

/// What a note means, for people.
pub fn note(note: &Note) -> String {
    match note {
        Note::StartedLate { references: count } => {
            format!("the trace began after the load, when there {} already", were(*count))
        }
        Note::Lost { events: 0, gaps } => format!("events were lost in {}", places(*gaps)),
        Note::Lost { events, gaps } => format!("{events} events were lost in {}", places(*gaps)),
        Note::Overwritten { events } => format!("the buffer wrapped: its oldest {events} events are gone"),
        Note::TakenUnseen { references: count } => {
            format!("the count rose by {count} without an event that shows why")
        }
        Note::ReturnedUnseen { references: count } => {
            format!("the count fell by {count} without an event that shows why")
        }
        Note::PutWithoutGet { task, time, chain } => format!(
            "{} gave back at {} what nobody had taken, in {}",
            task_name(task),
            time.0,
            chain.first().map_or("a function that was not recorded", String::as_str)
        ),
        Note::PutBelowZero { times: count } => {
            format!(
                "the count was at its lowest and was to fall further, {}: the kernel warned",
                times_u(*count)
            )
        }
        Note::PerCpuCounts => {
            "the counts are those of single cpus (Linux before 3.19) and tell nothing of the whole".to_owned()
        }
        Note::RemovedWhileHeld { references: count } => {
            format!("it was removed, by force or where events are missing, while there {}", were(*count))
        }
        Note::NoStacks => "no stacks were recorded: of each chain there is one function".to_owned(),
        Note::Unreadable { lines } => format!("{lines} lines of module events are cut short"),
        Note::TooMany => "more references are out than are listed".to_owned(),
    }
}

/// How sure a reference is to be the one that is out, for people.
pub fn certainty(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Exact => "exact",
        Certainty::Likely => "likely",
        Certainty::Unknown => "one of several that it may be",
    }
}

fn times(count: i64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

fn times_u(count: u64) -> String {
    times(i64::try_from(count).unwrap_or(i64::MAX))
}

fn references(count: i64) -> String {
    if count == 1 { "1 reference was".to_owned() } else { format!("{count} references were") }
}

fn were(count: i64) -> String {
    if count == 1 { "was 1 reference".to_owned() } else { format!("were {count} references") }
}

fn places(count: u64) -> String {
    if count == 1 { "1 place".to_owned() } else { format!("{count} places") }
}

#[cfg(test)]
mod tests;
