//! `kmodlab report`

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::args::{self, Reports};
use super::{Stop, exit};
use crate::report::document::Document;
use crate::report::{Output, Sink, html};

/// Makes reports of runs that are over.
pub(super) fn report(args: &args::Report) -> Result<u8, Stop> {
    let outputs = outputs(&args.reports, false)?;
    if outputs.is_empty() {
        return Err(Stop::usage("no report is asked for\nuse `--html`, `--junit`, `--ktap` or `--json`"));
    }
    let documents = args.runs.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let document = Document::merge(documents).map_err(Stop::usage)?;
    outputs.iter().try_for_each(|output| output.write(&document)).map_err(unwritten)?;
    Ok(0)
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
