//! What gcov says in JSON (gcov(1), `--json-format`), as counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lcov::Report;
use lcov::report::section::{Key, Value, branch, function, line};
use serde::Deserialize;
use serde_json::Number;

use super::Coverage;

/// gcov said something else than expected.
#[derive(Debug, thiserror::Error)]
#[error("cannot read what gcov says: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

/// What gcov says of one object.
#[derive(Debug, Deserialize)]
struct Output {
    current_working_directory: PathBuf,
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
struct File {
    file: PathBuf,
    functions: Vec<Function>,
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    start_line: u32,
    execution_count: Number,
}

#[derive(Debug, Deserialize)]
struct Line {
    line_number: u32,
    count: Number,
    branches: Vec<Branch>,
}

#[derive(Debug, Deserialize)]
struct Branch {
    count: Number,
}

/// Reads what `gcov --json-format --stdout --branch-probabilities` printed of the objects that a case executed.
/// `resolve` gives the path of a source file from the folder that the compiler ran in, and from what it was called there.
///
/// # Errors
///
/// Where it is no such JSON.
pub fn read(
    case: &str,
    printed: &[u8],
    resolve: &dyn Fn(&Path, &Path) -> PathBuf,
) -> Result<Coverage, Unreadable> {
    let mut report = Report::new();
    for output in serde_json::Deserializer::from_slice(printed).into_iter::<Output>() {
        let Output { current_working_directory, files } = output?;
        for file in files {
            let source_file = resolve(&current_working_directory, &file.file);
            let key = Key { test_name: String::new(), source_file };
            // A header comes with every object that has code from it.
            let mut one = Report::new();
            one.sections.insert(key, counts(file));
            report.merge_lossy(one);
        }
    }
    Ok(Coverage::of_case(case, report))
}

fn counts(file: File) -> Value {
    let mut value = Value::default();
    for Function { name, start_line, execution_count } in file.functions {
        let of = function::Value { start_line: Some(start_line), count: number(&execution_count) };
        value.functions.insert(function::Key { name }, of);
    }
    // A line is there once for each function that has code from it, such as a macro's.
    let mut branches: BTreeMap<u32, u32> = BTreeMap::new();
    for Line { line_number: line, count, branches: found } in file.lines {
        let count = number(&count);
        value.lines.entry(line::Key { line }).or_default().count += count;
        let next = branches.entry(line).or_default();
        for taken in found {
            let key = branch::Key { line, block: 0, branch: *next };
            // A branch that never came up is another thing than one that was never taken.
            let taken = (count > 0).then(|| number(&taken.count));
            value.branches.insert(key, branch::Value { taken });
            *next += 1;
        }
    }
    value
}

/// A count, which comes from a guest: what is out of reason must not overflow a sum.
fn number(count: &Number) -> u64 {
    const MOST: u64 = 1 << 48;
    count.as_u64().unwrap_or(0).min(MOST)
}
