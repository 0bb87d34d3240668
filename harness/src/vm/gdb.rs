//! QEMU's gdb stub.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::machine::escape_commas;
use super::{Error, Vm};
use crate::work::Cancel;

impl Vm {
    /// Has QEMU serve gdb at a Unix socket that it makes. The guest stops when a gdb attaches, and goes on when that says
    /// so or detaches.
    ///
    /// # Errors
    ///
    /// Where QEMU cannot, say because the socket's path is too long.
    pub fn serve_gdb(&mut self, socket: &Path, deadline: Instant, cancel: &Cancel) -> Result<(), Error> {
        let device = format!("unix:{},server=on,wait=off", escape_commas(socket).to_string_lossy());
        // A socket served before is closed first: QEMU would take the new one for the same.
        for (device, good) in [("none", "Disabled gdbserver"), (&device, "Waiting for gdb connection")] {
            // QMP itself has no command for it; the other monitor's answers in words (QEMU: `monitor/hmp-cmds.c`).
            let line = json!({ "command-line": format!("gdbserver {device}") });
            let answer = self.qmp("human-monitor-command", line, deadline, cancel)?;
            let words = answer.as_str().unwrap_or_default().trim();
            if !words.starts_with(good) {
                return Err(Error::Refused { command: "gdbserver".to_owned(), reason: words.to_owned() });
            }
        }
        Ok(())
    }
}
