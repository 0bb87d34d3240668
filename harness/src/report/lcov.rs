//! Which lines a run executed, in tracefiles for lcov, genhtml and the like: one for each image.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fs_err as fs;

use crate::coverage::Coverage;
use crate::run::{Event, Reporter};

/// Collects what the cases of a run executed, and writes it when it is over.
pub struct Tracefiles {
    dir: PathBuf,
    /// By image; of one whose cases all had none, it is empty.
    images: Mutex<BTreeMap<String, Coverage>>,
}

impl Tracefiles {
    /// Tracefiles `IMAGE.info` in a folder, which is made where there is none.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn new(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Tracefiles { dir, images: Mutex::default() })
    }

    /// Writes the tracefiles in place of an earlier run's, and gives a line on each.
    ///
    /// # Errors
    ///
    /// Where they cannot be written.
    pub fn finish(self) -> io::Result<Vec<String>> {
        let images = self.images.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut said = Vec::new();
        for (image, coverage) in images {
            let path = self.dir.join(format!("{image}.info"));
            if coverage.is_empty() {
                // lcov takes an empty file for a broken one.
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => said.push(format!("coverage of {image}: nothing was counted")),
                }
                continue;
            }
            let mut out = BufWriter::new(fs::File::create(&path)?);
            coverage.write(&mut out)?;
            out.flush()?;
            let of = coverage.summary();
            said.push(format!(
                "coverage of {image}: {} of {} lines in {} files, in {}",
                of.executed,
                of.lines,
                of.files,
                path.display()
            ));
        }
        Ok(said)
    }
}

impl Reporter for Tracefiles {
    fn event(&self, event: &Event<'_>) {
        let Event::CaseFinished(report) = event else { return };
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.entry(report.id.image.clone()).or_default().add(report.coverage.clone().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_leaves_no_file_of_an_earlier_run() {
        let dir = tempfile::tempdir().unwrap();
        let files = || Tracefiles::new(dir.path().join("coverage")).unwrap();
        let old = dir.path().join("coverage/x86_64.info");
        let traces = files();
        fs::write(&old, "old").unwrap();
        traces.images.lock().unwrap().insert("x86_64".into(), Coverage::default());
        assert_eq!(traces.finish().unwrap(), ["coverage of x86_64: nothing was counted"]);
        assert!(!old.exists());
        assert!(files().finish().unwrap().is_empty());
    }
}
