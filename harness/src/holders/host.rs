//! The files of this machine.

use super::Files;

/// Room for a protocol's name: `struct proto` has 32 bytes for it (`include/net/sock.h`).
const PROTOCOL_NAME: usize = 64;

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

    fn protocol(&mut self, path: &str) -> Option<String> {
        let mut name = Vec::with_capacity(PROTOCOL_NAME);
        rustix::fs::getxattr(path, "system.sockprotoname", rustix::buffer::spare_capacity(&mut name)).ok()?;
        Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
    }
}
