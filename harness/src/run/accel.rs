//! Choosing who runs the guests' instructions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;

use super::host::identity;
use super::start::{Bootable, StartError, Starter};
use crate::image::cache::{self, KeyBuilder};
use crate::lab::Lab;
use crate::vm::{self, Accel, Machine};
use crate::work::Work;

/// The kind of cache entry that holds whether KVM serves.
pub(super) const KIND: &str = "kvm";

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

/// Decides, once for each image.
pub(super) struct Accelerators<'a> {
    choice: AccelChoice,
    lab: &'a Lab,
    known: Mutex<HashMap<String, Slot>>,
}

/// What was decided for one image; whoever comes second waits for the first, and other images do not.
type Slot = Arc<Mutex<Option<Result<Accel, String>>>>;

#[derive(Debug, thiserror::Error)]
enum Trial {
    #[error(transparent)]
    Vm(#[from] vm::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl<'a> Accelerators<'a> {
    /// Decides as `choice` says.
    pub(super) fn new(choice: AccelChoice, lab: &'a Lab) -> Self {
        Accelerators { choice, lab, known: Mutex::default() }
    }

    /// Who runs the guests of an image, which boots in `machine`.
    ///
    /// # Errors
    ///
    /// Why KVM, where it was asked for, does not serve.
    pub(super) fn of(
        &self,
        machine: &Machine,
        bootable: &Bootable,
        starter: &Starter<'_>,
    ) -> Result<Accel, String> {
        if self.choice == AccelChoice::Tcg {
            return Ok(Accel::Tcg);
        }
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(bootable.image.clone()).or_default())
        };
        let mut decided = slot.lock().unwrap_or_else(PoisonError::into_inner);
        decided.get_or_insert_with(|| self.decide(machine, bootable, starter)).clone()
    }

    fn decide(&self, machine: &Machine, bootable: &Bootable, starter: &Starter<'_>) -> Result<Accel, String> {
        let trouble = match self.try_kvm(machine, bootable, starter) {
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

    /// Why KVM does not serve, if it does not. The answer of a trial is remembered until QEMU or the kernel changes or
    /// the host is started anew.
    ///
    /// A virtual cpu that runs is not enough: there are hypervisors whose KVM runs a firmware and, in a kernel, stops for
    /// ever at an instruction that it cannot emulate. So the image itself is booted.
    fn try_kvm(
        &self,
        machine: &Machine,
        bootable: &Bootable,
        starter: &Starter<'_>,
    ) -> Result<Option<String>, Trial> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        let key = KeyBuilder::new(format!("KVM for {}", bootable.image))
            .part("method", "2")
            .part("qemu", identity(machine.arch.qemu))
            .part("kernel", bootable.boot.kernel.to_string_lossy().as_ref())
            .part("boot", boot)
            .part("device", if device { "opens" } else { "does not open" })
            .finish();
        let entry = self.lab.cache().entry(KIND, &key, self.lab.cancel(), |dir| -> Result<(), Trial> {
            let answer = match vm::accel::try_kvm(machine.arch, self.lab.cancel())? {
                Err(no) => no.to_string(),
                Ok(()) => {
                    let _work = Work::begin(self.lab.watch(), format!("try KVM with {}", bootable.image));
                    match starter.try_boot(&Machine { accel: Accel::Kvm, ..machine.clone() }, bootable) {
                        Ok(()) => String::new(),
                        Err(error) if error.cancelled => return Err(error.into()),
                        Err(error) => {
                            format!("a virtual cpu runs, but {} does not boot: {error}", bootable.image)
                        }
                    }
                }
            };
            fs::write(dir.join("answer"), answer)?;
            Ok(())
        })?;
        let answer = fs::read_to_string(entry.join("answer"))?;
        Ok(Some(answer).filter(|answer| !answer.is_empty()))
    }
}
