//! Warm starts: a guest saved once it is ready, restored for every case.
//!
//! Memory lies in a file that restored guests map copy-on-write, so that saving and restoring move only the state of
//! the devices (QEMU: `migration/ram.c`, capability `x-ignore-shared`). That state goes through a socket: a file would
//! have to be `fd:` for the oldest QEMU and `file:` for the newest (QEMU: `docs/about/deprecated.rst`). The guest is
//! saved while it runs: QEMU then records that it was running, and starts it by itself after a restore.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;
use serde_json::json;

use super::{Channel, Error, Machine, Memory, Start, Vm};
use crate::work::Cancel;

/// A saved guest.
#[derive(Debug, Clone)]
pub struct Snapshot {
    memory: PathBuf,
    state: PathBuf,
}

/// Why a guest could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// QEMU would not.
    #[error("QEMU cannot save this guest: {0}")]
    Refused(String),
    /// This QEMU's version cannot restore more than one cpu ([`crate::arch::Row::restores_one_cpu`]).
    #[error("QEMU {0} restores only the first cpu of such a guest")]
    LosesCpus(String),
    /// Something else went wrong.
    #[error(transparent)]
    Vm(#[from] Error),
}

impl Snapshot {
    /// The snapshot whose files lie, or are to lie, in `dir`.
    pub fn at(dir: &Path) -> Self {
        Snapshot { memory: dir.join("memory"), state: dir.join("state") }
    }

    /// The file that the guest must have as its memory, [`Memory::Shared`], to be saved here.
    pub fn memory(&self) -> &Path {
        &self.memory
    }

    /// Saves a running guest and ends its QEMU.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Refused`] where this guest cannot be saved, say because a device has no saved form, and
    /// [`SnapshotError::LosesCpus`].
    pub fn save(
        &self,
        vm: &mut Vm,
        machine: &Machine,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<(), SnapshotError> {
        let failed = || Error::io("save a snapshot");
        let mut file = fs::File::create(&self.state).map_err(failed())?;
        let refused = |error| match error {
            Error::Refused { reason, .. } => SnapshotError::Refused(reason),
            other => SnapshotError::Vm(other),
        };
        vm.name_state("state", deadline, cancel)?;
        if machine.smp > 1
            && let Some((major, minor)) = vm.version()
            && let Some(broken) = &machine.arch.restores_one_cpu
            && broken.contains(&(major, minor))
        {
            return Err(SnapshotError::LosesCpus(format!("{major}.{minor}")));
        }
        vm.qmp("migrate-set-capabilities", capabilities(), deadline, cancel).map_err(refused)?;
        vm.qmp("migrate", json!({ "uri": "fd:state" }), deadline, cancel).map_err(refused)?;
        let status = loop {
            file.write_all(&vm.take(Channel::State)).map_err(failed())?;
            match vm.past_event(migration_ended) {
                Some(status) => break status,
                None => vm.pump_on(deadline, cancel, "the end of a migration")?,
            }
        };
        if status != "completed" {
            let reason = vm.qmp("query-migrate", json!({}), deadline, cancel)?;
            let reason = reason["error-desc"].as_str().unwrap_or("no reason given");
            return Err(SnapshotError::Refused(format!("migration {status}: {reason}")));
        }
        vm.kill()?;
        file.write_all(&vm.take(Channel::State)).map_err(failed())?;
        Ok(())
    }

    /// Starts QEMU with the saved guest. The guest runs on by itself; a failure shows as QEMU's end.
    ///
    /// # Errors
    ///
    /// As [`Vm::start`], and where the snapshot's files cannot be read.
    pub fn restore(&self, machine: &Machine) -> Result<Vm, Error> {
        let state = fs::read(&self.state).map_err(Error::io("read a snapshot"))?;
        let mut vm = Vm::start(machine, Start::Incoming, Memory::Private(&self.memory))?;
        vm.post("migrate-set-capabilities", capabilities());
        vm.post("migrate-incoming", json!({ "uri": vm.state_uri() }));
        vm.write(Channel::State, &state);
        Ok(vm)
    }

    /// Waits until QEMU says that a restored guest runs.
    ///
    /// # Errors
    ///
    /// Where the snapshot cannot be restored.
    pub fn wait_running(vm: &mut Vm, deadline: Instant, cancel: &Cancel) -> Result<(), Error> {
        vm.event(deadline, cancel, |event, _| (event == "RESUME").then_some(()))
    }
}

fn capabilities() -> serde_json::Value {
    let on = |name: &str| json!({ "capability": name, "state": true });
    json!({ "capabilities": [on("x-ignore-shared"), on("events")] })
}

/// The final status in a `MIGRATION` event.
fn migration_ended(event: &str, data: &serde_json::Value) -> Option<String> {
    let status = data["status"].as_str().filter(|_| event == "MIGRATION")?;
    matches!(status, "completed" | "failed" | "cancelled").then(|| status.to_owned())
}
