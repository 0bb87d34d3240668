//! What a ledger says.

use std::fmt;

use serde::Serialize;

use crate::trace::event::Timestamp;

/// One module's references, as the trace has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleLedger {
    /// The module.
    pub name: String,
    /// Whether it is there at the end of the trace; None where the trace shows neither its load nor its removal.
    pub loaded: Option<bool>,
    /// The use count at the end, as `lsmod` shows it (the raw count less its base); None where the trace cannot tell.
    pub use_count: Option<i64>,
    /// The references that the trace shows taken and not given back, the oldest first.
    pub outstanding: Vec<Reference>,
    /// What the count has beyond those. Above 0: so many references were taken unseen (before the trace, in a gap, or by
    /// loading, which takes one untraced until the module's init function has returned). Below 0: so many references were
    /// given back unseen, or more often than they were taken.
    pub unseen: i64,
    /// What was given back.
    pub returned: Returned,
    /// How often the trace shows it loaded.
    pub loads: u64,
    /// Who loaded it last.
    pub loaded_by: Option<Task>,
    /// Who made the kernel ask for it by its name, before its last load.
    pub requested_by: Vec<Request>,
    /// The use count over time.
    pub timeline: Vec<CountAt>,
    /// What one must know to judge the above.
    pub notes: Vec<Note>,
}

/// A task, as an event names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Its name; None where the kernel no longer knew it.
    pub comm: Option<String>,
    /// Its id.
    pub pid: i32,
}

/// A reference that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// Who took it. A program that takes a reference and then starts another can be named as the other.
    pub taken_by: Task,
    /// When.
    pub time: Timestamp,
    /// Through which functions, the one that took it first. One function only where no stack was recorded.
    pub chain: Vec<String>,
    /// The module on whose behalf it was taken, where it is a dependency.
    pub dependent: Option<String>,
    /// How sure it is that this reference, of all that were taken, is the one that is still out.
    pub certainty: Certainty,
}

/// How sure a pairing of get and put is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Nothing tells which of several it is.
    Unknown,
    /// The same task, with a chain that matches.
    Likely,
    /// The count and the chains leave one answer.
    Exact,
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Certainty::Unknown => "unknown",
            Certainty::Likely => "likely",
            Certainty::Exact => "exact",
        })
    }
}

/// How many references were given back, by how sure their pairing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Returned {
    /// Paired exactly.
    pub exact: u64,
    /// Paired likely.
    pub likely: u64,
    /// Paired for want of better.
    pub unknown: u64,
    /// Not paired: the reference that loading takes, and others that the trace does not show taken.
    pub unseen: u64,
}

/// A request of the kernel to load a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// Whose doing it was.
    pub task: Task,
    /// When.
    pub time: Timestamp,
    /// The function that asked.
    pub call_site: String,
}

/// A point of a timeline. In a long trace each stands for a stretch of time, with the highest count in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CountAt {
    /// When.
    pub time: Timestamp,
    /// The use count from then on.
    pub use_count: i64,
}

/// What limits what a ledger can say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "note")]
pub enum Note {
    /// The trace began after the module was loaded; it had references by then.
    StartedLate {
        /// How many.
        references: i64,
    },
    /// Events were lost, in so many places; what was taken or given back there shows only in the count.
    Lost {
        /// How many events, as far as the kernel says.
        events: u64,
        /// In how many places.
        gaps: u64,
    },
    /// The ring buffer wrapped before it was read: so many of the oldest events are gone.
    Overwritten {
        /// How many.
        events: u64,
    },
    /// The count rose without events that show why.
    TakenUnseen {
        /// By how much.
        references: i64,
    },
    /// The count fell without events that show why.
    ReturnedUnseen {
        /// By how much.
        references: i64,
    },
    /// A reference was given back that nobody had taken.
    PutWithoutGet {
        /// Who gave it back.
        task: Task,
        /// When.
        time: Timestamp,
        /// Through which functions.
        chain: Vec<String>,
    },
    /// The count was at zero and did not fall further: the kernel warned.
    PutBelowZero {
        /// How often.
        times: u64,
    },
    /// The counts are those of single cpus (before Linux 3.19) and tell nothing of the whole.
    PerCpuCounts,
    /// The module was removed, by force or in a gap, while references were out.
    RemovedWhileHeld {
        /// How many.
        references: i64,
    },
    /// No stacks were recorded for what is outstanding: the chains are but a function.
    NoStacks,
    /// Lines of module events were cut short and could not be read.
    Unreadable {
        /// How many.
        lines: u64,
    },
    /// More references are out than a ledger lists; the rest only counts.
    TooMany,
}
