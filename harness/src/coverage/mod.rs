//! Which lines of a kernel and its modules cases executed: gcov's counts, or what kcov saw, kept and written as lcov has them.
//!
//! A kernel with `CONFIG_GCOV_KERNEL` shows the counts of what was compiled for it below `/sys/kernel/debug/gcov`, a
//! `.gcda` file for each object (`Documentation/dev-tools/gcov.rst`). gcov joins them with the `.gcno` files that gcc left
//! beside the objects, and what it says is merged here into tracefiles (geninfo(1), "FILES").

mod gcov;
pub mod kcov;
mod notes;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use lcov::Report;
use lcov::report::section::Value;

pub use self::gcov::{Unreadable, read};
pub use self::notes::{Found, Notes, Origin};

/// The counts of some cases on one image, each case's by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(Report);

/// How much was executed, by any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Source files.
    pub files: usize,
    /// Lines with code.
    pub lines: usize,
    /// Those of them that were executed.
    pub executed: usize,
}

impl Coverage {
    /// The counts of one case, in whose name lcov's tools cannot have anything but letters, digits and underscores.
    fn of_case(case: &str, report: Report) -> Self {
        let name: String = case.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let mut named = Report::new();
        for (mut key, value) in report.sections {
            // Of what a case did not touch, one section serves for all cases.
            key.test_name = if is_executed(&value) { name.clone() } else { String::new() };
            named.sections.insert(key, value);
        }
        Coverage(named)
    }

    /// Whether there are no counts.
    pub fn is_empty(&self) -> bool {
        self.0.sections.is_empty()
    }

    /// Adds what other cases counted, and what the same case counted another time.
    pub fn add(&mut self, other: Coverage) {
        self.0.merge_lossy(other.0);
    }

    /// How much was executed.
    pub fn summary(&self) -> Summary {
        let (mut files, mut lines, mut executed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (key, value) in &self.0.sections {
            files.insert(&key.source_file);
            for (line, of) in &value.lines {
                lines.insert((&key.source_file, line));
                if of.count > 0 {
                    executed.insert((&key.source_file, line));
                }
            }
        }
        Summary { files: files.len(), lines: lines.len(), executed: executed.len() }
    }

    /// Writes a tracefile.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let executed = self.0.sections.keys().filter(|key| !key.test_name.is_empty());
        let executed: BTreeSet<&Path> = executed.map(|key| key.source_file.as_path()).collect();
        let mut report = Report::new();
        for (key, value) in &self.0.sections {
            if !key.test_name.is_empty() || !executed.contains(key.source_file.as_path()) {
                report.sections.insert(key.clone(), value.clone());
            }
        }
        report.into_records().try_for_each(|record| writeln!(out, "{record}"))
    }
}

fn is_executed(value: &Value) -> bool {
    value.lines.values().any(|line| line.count > 0)
}

#[cfg(test)]
mod tests;
