//! The files of this machine.

use super::Files;

/// Reads this machine's own `/proc` and `/sys`.
#[derive(Debug, Default, Clone, Copy)]
pub struct Host;

impl Files for Host {
    fn read(&mut self, path: &str) -> Option<String> {
        std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn list(&mut self, path: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn link(&mut self, path: &str) -> Option<String> {
        std::fs::read_link(path).ok().map(|target| target.to_string_lossy().into_owned())
    }
}
