//! `kmodlab report`

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::args::{self, Reports};
use super::{Stop, exit};
use crate::report::document::{Case, Document};
use crate::report::{Output, Sink, html};

/// Makes reports of runs that are over.
pub(super) fn report(args: &args::Report) -> Result<u8, Stop> {
    let mut outputs = outputs(&args.reports, false)?;
    let project = || std::env::var_os("CI_PROJECT_DIR").map(PathBuf::from);
    let gitlab = |path: &PathBuf| Output::GitLab { sink: Sink::File(path.clone()), project: project() };
    outputs.extend(args.code_quality.as_ref().map(gitlab));
    outputs.extend(Output::github());
    if outputs.is_empty() && args.cases.is_none() {
        return Err(Stop::usage("no report is asked for\nuse `--html`, `--junit`, `--ktap` or `--json`"));
    }
    let mut documents = Vec::new();
    for path in &args.runs {
        for file in files(path).map_err(Stop::usage)? {
            documents.push(read(&file)?);
        }
    }
    let document = Document::merge(documents).map_err(Stop::usage)?;
    outputs.iter().try_for_each(|output| output.write(&document)).map_err(unwritten)?;
    args.cases.as_ref().map_or(Ok(0), |expected| compare(&document, expected))
}

/// The documents that a path means: a file, or all in a folder and those in it.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "json") {
            found.extend(files(&path)?);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether the run has just those cases that a file names.
fn compare(document: &Document, expected: &Path) -> Result<u8, Stop> {
    let text = fs::read_to_string(expected).map_err(Stop::usage)?;
    let wanted: BTreeSet<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let ids: Vec<String> = document.cases.iter().map(Case::id).collect();
    let there: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let lost = wanted.difference(&there).map(|id| format!("lost: {id}"));
    let extra = there.difference(&wanted).map(|id| format!("not in `{}`: {id}", expected.display()));
    let wrong: Vec<String> = lost.chain(extra).collect();
    match wrong.is_empty() {
        true => Ok(0),
        false => Err(Stop { message: wrong.join("\n"), code: exit::ERROR }),
    }
}

/// The document of a run.
pub(super) fn read(path: &Path) -> Result<Document, Stop> {
    let json = fs::read(path).map_err(Stop::usage)?;
    Document::read(&json).map_err(|error| Stop::usage(format!("`{}`: {error}", path.display())))
}

/// What the arguments ask for; with `printed`, standard output is taken already.
pub(super) fn outputs(args: &Reports, printed: bool) -> Result<Vec<Output>, Stop> {
    let sink = |path: &PathBuf| match path.as_os_str() == "-" {
        true => Sink::Stdout,
        false => Sink::File(path.clone()),
    };
    let mut outputs: Vec<Output> = Vec::new();
    outputs.extend(args.junit.as_ref().map(|path| Output::Junit(sink(path))));
    outputs.extend(args.ktap.as_ref().map(|path| Output::Ktap(sink(path))));
    outputs.extend(args.json.as_ref().map(|path| Output::Json(sink(path))));
    let there = [&args.junit, &args.ktap, &args.json].into_iter().flatten();
    if usize::from(printed) + there.filter(|path| path.as_os_str() == "-").count() > 1 {
        return Err(Stop::usage("only one report can go to standard output"));
    }
    if let Some(dir) = &args.html {
        html::may_write(dir).map_err(Stop::usage)?;
        outputs.push(Output::Html(dir.clone()));
    }
    Ok(outputs)
}

/// A report could not be written.
pub(super) fn unwritten(error: io::Error) -> Stop {
    Stop { message: format!("cannot write the report: {error}"), code: exit::ERROR }
}
