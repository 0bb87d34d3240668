//! Choosing who runs the guests' instructions.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use fs_err as fs;

use super::start::binary_identity;
use crate::arch::Arch;
use crate::image::cache::{self, KeyBuilder};
use crate::lab::Lab;
use crate::vm::{self, Accel};

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccelChoice {
    /// KVM where a trial shows that it works, else TCG.
    #[default]
    Auto,
    /// KVM, or nothing.
    Kvm,
    /// TCG.
    Tcg,
}

/// Decides, once for each architecture.
pub(super) struct Accelerators<'a> {
    choice: AccelChoice,
    lab: &'a Lab,
    known: Mutex<HashMap<&'static str, Result<Accel, String>>>,
}

#[derive(Debug, thiserror::Error)]
enum Trial {
    #[error(transparent)]
    Vm(#[from] vm::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl<'a> Accelerators<'a> {
    /// Decides as `choice` says.
    pub(super) fn new(choice: AccelChoice, lab: &'a Lab) -> Self {
        Accelerators { choice, lab, known: Mutex::default() }
    }

    /// Who runs the guests of an architecture.
    ///
    /// # Errors
    ///
    /// Why KVM, where it was asked for, does not serve.
    pub(super) fn of(&self, arch: Arch) -> Result<Accel, String> {
        if self.choice == AccelChoice::Tcg {
            return Ok(Accel::Tcg);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(arch.name).or_insert_with(|| self.decide(arch)).clone()
    }

    fn decide(&self, arch: Arch) -> Result<Accel, String> {
        let trouble = match self.try_kvm(arch) {
            Ok(None) => return Ok(Accel::Kvm),
            Ok(Some(trouble)) => trouble,
            Err(error) => error.to_string(),
        };
        match self.choice {
            AccelChoice::Kvm => {
                Err(format!("KVM does not serve: {trouble}\nleave out `--accel kvm` to use TCG"))
            }
            AccelChoice::Auto | AccelChoice::Tcg => Ok(Accel::Tcg),
        }
    }

    /// Why KVM does not serve, if it does not. The answer of a trial is remembered until QEMU changes or the host is
    /// started anew.
    fn try_kvm(&self, arch: Arch) -> Result<Option<String>, Trial> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        let key = KeyBuilder::new(format!("KVM for {arch}"))
            .part("qemu", binary_identity(arch.qemu))
            .part("boot", boot)
            .part("device", if device { "opens" } else { "does not open" })
            .finish();
        let entry = self.lab.cache().entry("kvm", &key, self.lab.cancel(), |dir| -> Result<(), Trial> {
            let answer = vm::accel::try_kvm(arch, self.lab.cancel())?;
            fs::write(dir.join("answer"), answer.err().map(|no| no.to_string()).unwrap_or_default())?;
            Ok(())
        })?;
        let answer = fs::read_to_string(entry.join("answer"))?;
        Ok(Some(answer).filter(|answer| !answer.is_empty()))
    }
}
