//! What a snapshot depends on of the machine that saves it: QEMU's build, and, under KVM, the processor.
//!
//! It is made of content, so that machines that are alike have the same and exchange snapshots: a program's SHA-256 and
//! not its path and time, which differ where the same package is installed twice.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::image::cache::{self, Cache, KeyBuilder, sha256_file};
use crate::process::{self, Command};
use crate::vm::Accel;
use crate::vm::accel::processor;
use crate::work::Cancel;

/// The kind of cache entry that holds what is known of a program.
pub(super) const KIND: &str = "program";

/// Part of a snapshot's key, and kept beside it, to say later what does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Host {
    pub(super) qemu: Program,
    /// KVM or TCG.
    pub(super) accel: String,
    /// Under KVM the guest has the host's processor.
    pub(super) processor: Option<String>,
}

/// A program's build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    /// Of its file.
    pub(super) sha256: String,
    /// The first line that it says of its version.
    pub(super) version: String,
}

impl Host {
    pub(super) fn new(qemu: Program, accel: Accel) -> Self {
        let cpuinfo = || processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
        let processor = (accel == Accel::Kvm).then(cpuinfo);
        Host { qemu, accel: accel.name().to_owned(), processor }
    }

    /// How `other`, which saved a snapshot, differs from this one, which cannot use it.
    pub(super) fn difference(&self, other: &Host) -> Option<String> {
        if self.qemu.sha256 != other.qemu.sha256 {
            let (there, here) = (&other.qemu.version, &self.qemu.version);
            return Some(match there == here {
                true => format!("another build of {there}"),
                false => format!("{there}, and here is {here}"),
            });
        }
        if self.accel != other.accel {
            return Some(format!("a guest under {}, and here is {}", other.accel, self.accel));
        }
        (self.processor != other.processor).then(|| "another processor".to_owned())
    }
}

/// What is known of programs; found out once for each build, and kept in the cache.
#[derive(Default)]
pub(super) struct Programs(Mutex<HashMap<&'static str, Program>>);

impl Programs {
    /// The build of a program; of none, where it is not installed.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or the cache not be used.
    pub(super) fn get(
        &self,
        cache: &Cache,
        name: &'static str,
        cancel: &Cancel,
    ) -> Result<Program, cache::Error> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = known.get(name) {
            return Ok(program.clone());
        }
        let program = find_out(cache, name, cancel)?;
        known.insert(name, program.clone());
        Ok(program)
    }
}

fn find_out(cache: &Cache, name: &str, cancel: &Cancel) -> Result<Program, cache::Error> {
    const FILE: &str = "program.json";
    let Some(path) = process::find(name) else { return Ok(Program::default()) };
    let key = KeyBuilder::new(name).part("file", identity(name)).finish();
    let entry = cache.entry(KIND, &key, cancel, |dir| {
        let mut command = Command::new(&path);
        command.arg("--version");
        // What it says of itself is for messages alone.
        let said = command.check(cancel).map(|output| output.stdout).unwrap_or_default();
        let version = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned();
        let program = Program { sha256: sha256_file(&path)?, version };
        let json = serde_json::to_vec(&program).map_err(std::io::Error::from)?;
        fs::write(dir.join(FILE), json).map_err(cache::Error::from)
    })?;
    let program = serde_json::from_slice(&fs::read(entry.join(FILE))?).map_err(std::io::Error::from)?;
    Ok(program)
}

/// Tells one file of a program on this machine from another, without reading it.
pub(super) fn identity(program: &str) -> String {
    let Some(path) = process::find(program) else { return String::new() };
    match fs::metadata(&path) {
        Ok(data) => format!("{} {} {} {}", path.display(), data.len(), data.mtime(), data.mtime_nsec()),
        Err(_) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(sha256: &str, version: &str, accel: &str, processor: Option<&str>) -> Host {
        Host {
            qemu: Program { sha256: sha256.into(), version: version.into() },
            accel: accel.into(),
            processor: processor.map(str::to_owned),
        }
    }

    #[test]
    fn what_differs_is_told() {
        let here = host("1", "QEMU 7.2", "KVM", Some("a"));
        let difference = |other: &Host| here.difference(other);
        assert_eq!(difference(&here), None);
        let other = difference(&host("2", "QEMU 10.0", "KVM", Some("a")));
        assert_eq!(other.as_deref(), Some("QEMU 10.0, and here is QEMU 7.2"));
        let other = difference(&host("2", "QEMU 7.2", "KVM", Some("a")));
        assert_eq!(other.as_deref(), Some("another build of QEMU 7.2"));
        let other = difference(&host("1", "QEMU 7.2", "TCG", None));
        assert_eq!(other.as_deref(), Some("a guest under TCG, and here is KVM"));
        let other = difference(&host("1", "QEMU 7.2", "KVM", Some("b")));
        assert_eq!(other.as_deref(), Some("another processor"));
    }

    #[test]
    fn a_program_is_known_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path()), std::sync::Arc::new(crate::work::Unwatched)).unwrap();
        let (programs, cancel) = (Programs::default(), Cancel::new().unwrap());
        let sh = programs.get(&cache, "sh", &cancel).unwrap();
        assert_eq!(sh.sha256, sha256_file(&process::find("sh").unwrap()).unwrap());
        assert_eq!(Programs::default().get(&cache, "sh", &cancel).unwrap(), sh);
        assert_eq!(programs.get(&cache, "no-such-program", &cancel).unwrap(), Program::default());
    }
}
