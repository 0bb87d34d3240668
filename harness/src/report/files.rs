//! The reports that a run leaves: one collector makes its document, and writes all of them from it.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;

use super::collect::{Cases, millis};
use super::document::{Case, Document};
use super::{github, gitlab, html, junit, ktap};
use crate::run::{Event, Reporter};

/// Where a report of one file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// To standard output.
    Stdout,
    /// To this file.
    File(PathBuf),
}

impl Sink {
    /// Writes all that `write` gives.
    fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        match self {
            Sink::Stdout => match all(io::stdout().lock(), write) {
                // A reader that has seen enough, such as `head`.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                written => written,
            },
            Sink::File(path) => std::fs::File::create(path)
                .and_then(|file| all(file, write))
                .map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))),
        }
    }
}

fn all(to: impl Write, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(to);
    write(&mut out)?;
    out.flush()
}

/// A report to be written when a run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The document, as JSON.
    Json(Sink),
    /// JUnit's XML.
    Junit(Sink),
    /// KTAP.
    Ktap(Sink),
    /// A folder of pages.
    Html(PathBuf),
    /// A report of code quality, for GitLab.
    GitLab {
        /// Where it goes.
        sink: Sink,
        /// The repository's folder.
        project: Option<PathBuf>,
    },
    /// Annotations and a summary, for GitHub Actions.
    GitHub {
        /// The repository's folder.
        workspace: Option<PathBuf>,
        /// The file that the summary is appended to.
        summary: Option<PathBuf>,
    },
}

impl Output {
    /// What GitHub Actions is told of a run there; nothing elsewhere.
    pub fn github() -> Option<Self> {
        let path = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        github::is_there().then(|| Output::GitHub {
            workspace: path("GITHUB_WORKSPACE"),
            summary: path("GITHUB_STEP_SUMMARY"),
        })
    }

    /// Writes the report of a run.
    ///
    /// # Errors
    ///
    /// What kept it from being written, such as a full disk.
    pub fn write(&self, document: &Document) -> io::Result<()> {
        match self {
            Output::Json(sink) => sink.write(|out| {
                serde_json::to_writer_pretty(&mut *out, document)?;
                out.write_all(b"\n")
            }),
            Output::Junit(sink) => sink.write(|out| junit::write(document, out)),
            Output::Ktap(sink) => sink.write(|out| ktap::write(document, out)),
            Output::Html(dir) => html::write(document, dir),
            Output::GitLab { sink, project } => {
                sink.write(|out| gitlab::write(document, project.as_deref(), out))
            }
            Output::GitHub { workspace, summary } => {
                // A closed standard error leaves nobody to tell.
                let annotations = github::annotations(document, workspace.as_deref());
                let _ = io::stderr().write_all(annotations.as_bytes());
                summary.as_deref().map_or(Ok(()), |path| append(path, &github::summary(document)))
            }
        }
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

/// Collects a run and writes its reports when it is over.
pub struct Files {
    outputs: Vec<Output>,
    state: Mutex<State>,
}

struct State {
    maker: Cases,
    cases: Vec<Case>,
    written: io::Result<()>,
}

impl Files {
    /// Reports of these kinds.
    pub fn new(outputs: Vec<Output>) -> Self {
        let state = State { maker: Cases::default(), cases: Vec::new(), written: Ok(()) };
        Files { outputs, state: Mutex::new(state) }
    }

    /// Says whether the reports could be written.
    ///
    /// # Errors
    ///
    /// What kept the first that could not from being written, such as a full disk.
    pub fn finish(self) -> io::Result<()> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).written
    }
}

impl Reporter for Files {
    fn event(&self, event: &Event<'_>) {
        if self.outputs.is_empty() {
            return;
        }
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { maker, cases, written } = &mut *guard;
        match event {
            Event::CaseFinished(report) => cases.push(maker.case(report)),
            Event::RunFinished { time, interrupted, .. } => {
                let document = Document::new(std::mem::take(cases), *interrupted, millis(*time));
                *written =
                    self.outputs.iter().map(|output| output.write(&document)).fold(Ok(()), io::Result::and);
            }
            _ => {}
        }
    }
}
