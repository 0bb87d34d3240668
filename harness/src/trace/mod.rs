//! What the kernel's tracing says: event lines as ftrace and `trace-cmd report` print them, recordings of trace-cmd, the list of kprobes,
//! the list of modules, the events' `format` files.
//!
//! All pure: text in, values out. What a guest sends is hostile, so that nothing here panics or grows without bound
//! on any input; what cannot be read is passed over or reported, never guessed.

mod context;
pub mod dat;
mod event;
mod format;
mod kprobes;
pub mod ledger;
mod module_list;
mod stream;
mod text;

pub use event::{Event, ModuleEvent, Timestamp};
pub use format::{EventFormat, FormatField};
pub use kprobes::{ListedProbe, ProbeFlag, ProbeType};
pub use module_list::{ListedModule, ModuleState};
pub use stream::{Assembler, Item};
pub use text::{Context, EventRef, Line, Lost, parse_line};

/// A line of a kernel's list that does not have the list's layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of {list} cannot be read: `{text}`")]
pub struct UnreadableLine {
    /// Which list.
    pub list: &'static str,
    /// The line's number, from 1.
    pub line: usize,
    /// The line itself.
    pub text: String,
}

impl UnreadableLine {
    /// `index` counts from 0. A long line is cut.
    fn new(list: &'static str, index: usize, text: &str) -> Self {
        UnreadableLine { list, line: index + 1, text: text.chars().take(200).collect() }
    }
}

#[cfg(test)]
mod tests;
