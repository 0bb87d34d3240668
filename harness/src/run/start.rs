//! Bringing guests up: from a snapshot, which is made at first need, or by a boot.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::Limits;
use super::event::{Start, StartKind};
use super::host::{Host, Programs};
use crate::guest::proto::Port;
use crate::guest::{self, Errno, Guest};
use crate::image::cache::{self, Cache, Entry, Key, KeyBuilder};
use crate::scenario::values::TRACING;
use crate::vm::{self, Accel, Boot, Machine, Memory, Snapshot, SnapshotError, Vm};
use crate::work::{Cancel, Watch, Work, WorkEvent};

/// The kind of cache entry that holds a snapshot.
const KIND: &str = "snapshot";
/// The file of a snapshot that says how long its guest took to boot, in milliseconds.
const BOOT_TIME: &str = "boot.ms";

/// The file of a snapshot's entry that says its [`Subject`].
const SUBJECT: &str = "subject.json";

/// A snapshot that nobody has used for so long is of an image that has changed since.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a guest did not come up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct StartError {
    /// What went wrong.
    pub what: String,
    /// What the console said.
    pub console: String,
    /// Whether the run was told to stop.
    pub cancelled: bool,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
enum NoSnapshot {
    /// The guest does not boot, so that a cold start is no remedy.
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Save(#[from] SnapshotError),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What a snapshot depends on besides its machine: the boot files, by the keys under which the cache holds them.
#[derive(Debug, Clone)]
pub struct Bootable {
    /// What the machine boots.
    pub boot: Boot,
    /// What stands for the content of the boot files.
    pub key: String,
    /// The image's name, for messages.
    pub image: String,
}

/// Brings guests up. Shared by all cases of a run.
pub struct Starter<'a> {
    cache: &'a Cache,
    cold: bool,
    limits: Limits,
    watch: &'a dyn Watch,
    cancel: &'a Cancel,
    /// The snapshots had so far; an error stands for all cases that need the same one.
    snapshots: Mutex<HashMap<String, Slot>>,
    programs: Programs,
    /// What was said of snapshots that there are not, so that it is said once.
    said: Mutex<HashSet<String>>,
}

/// Where one snapshot is to be had, once: whoever comes second waits for the first.
type Slot = Arc<Mutex<Option<Result<Option<Entry>, StartError>>>>;

impl<'a> Starter<'a> {
    /// With `cold`, every guest is booted.
    pub fn new(
        cache: &'a Cache,
        cold: bool,
        limits: Limits,
        watch: &'a dyn Watch,
        cancel: &'a Cancel,
    ) -> Self {
        Starter {
            cache,
            cold,
            limits,
            watch,
            cancel,
            snapshots: Mutex::default(),
            programs: Programs::default(),
            said: Mutex::default(),
        }
    }

    /// Starts a guest and waits for its agent.
    ///
    /// # Errors
    ///
    /// Where the guest neither boots nor can be restored.
    pub fn start(&self, machine: &Machine, bootable: &Bootable) -> Result<(Guest, Start), StartError> {
        if !self.cold
            && let Some(entry) = self.snapshot(machine, bootable)?
        {
            match self.restore(machine, &entry) {
                Err(error) if !error.cancelled => self.forget(machine, bootable, entry, &error),
                result => return result,
            }
        }
        self.boot(machine, bootable, Memory::Anonymous)
    }

    /// Makes the snapshot that guests of that machine start from; gives how long its guest took to boot.
    ///
    /// # Errors
    ///
    /// Where the guest does not boot.
    pub fn prepare(&self, machine: &Machine, bootable: &Bootable) -> Result<Option<Duration>, StartError> {
        if self.cold {
            return Ok(None);
        }
        let entry = self.snapshot(machine, bootable)?;
        let boot = entry.and_then(|entry| fs::read_to_string(entry.join(BOOT_TIME)).ok());
        Ok(boot.and_then(|ms| ms.parse().ok()).map(Duration::from_millis))
    }

    /// Boots a guest, for no longer than a boot under KVM may take, and ends it.
    ///
    /// # Errors
    ///
    /// Why it does not boot.
    pub(super) fn try_boot(&self, machine: &Machine, bootable: &Bootable) -> Result<(), StartError> {
        let vm = Vm::start(machine, vm::Start::Kernel(&bootable.boot), Memory::Anonymous).map_err(no_vm)?;
        self.greet(vm, self.limits.kvm_trial).map(drop)
    }

    /// Boots a guest.
    fn boot(
        &self,
        machine: &Machine,
        bootable: &Bootable,
        memory: Memory<'_>,
    ) -> Result<(Guest, Start), StartError> {
        let vm = Vm::start(machine, vm::Start::Kernel(&bootable.boot), memory).map_err(no_vm)?;
        let mut guest = self.greet(vm, self.limits.boot)?;
        let time = guest.vm().started().elapsed();
        make_instance(&mut guest);
        Ok((guest, Start { kind: StartKind::Cold, time }))
    }

    /// The snapshot of that machine, where it can be had.
    ///
    /// # Errors
    ///
    /// Where the guest does not boot.
    pub fn saved(&self, machine: &Machine, bootable: &Bootable) -> Result<Option<Snapshot>, StartError> {
        Ok(self.snapshot(machine, bootable)?.map(|entry| Snapshot::at(&entry)))
    }

    fn restore(&self, machine: &Machine, entry: &Entry) -> Result<(Guest, Start), StartError> {
        let vm = Snapshot::at(entry).restore(machine).map_err(no_vm)?;
        let mut guest = self.greet(vm, self.limits.restore)?;
        let time = guest.vm().started().elapsed();
        Ok((guest, Start { kind: StartKind::Warm, time }))
    }

    fn greet(&self, vm: Vm, limit: Duration) -> Result<Guest, StartError> {
        let deadline = Instant::now() + limit;
        Guest::greet(vm, deadline, self.cancel).map_err(|(guest, error)| {
            let console = guest.streams().console_text();
            let what = match &error {
                guest::Error::Deadline => {
                    format!("the guest's agent did not answer within {}", humantime::format_duration(limit))
                }
                error => error.to_string(),
            };
            StartError { what, console, cancelled: matches!(error, guest::Error::Cancelled) }
        })
    }

    fn slot(&self, key: &Key) -> Slot {
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(snapshots.entry(key.to_string()).or_default())
    }

    /// The snapshot of that machine, made where there is none; `None` where it cannot be saved.
    fn snapshot(&self, machine: &Machine, bootable: &Bootable) -> Result<Option<Entry>, StartError> {
        if let Some(reason) = machine.arch.unsaved {
            self.say_once(format!("{}: every case boots: {reason}", bootable.image));
            return Ok(None);
        }
        let subject = self.subject(machine, bootable).map_err(|error| StartError {
            cancelled: matches!(error, cache::Error::Cancelled),
            what: crate::error::chain(&error),
            console: String::new(),
        })?;
        let key = subject.key();
        let slot = self.slot(&key);
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return known.clone();
        }
        let make = |dir: &Path| self.make(machine, bootable, &subject, dir);
        let result = match self.cache.entry(KIND, &key, self.cancel, make) {
            Ok(entry) => {
                // Every change of an image leaves its old snapshots behind. What cannot be removed now is, another time.
                let _ = self.cache.clean(Some(KIND), STALE);
                Ok(Some(entry))
            }
            Err(NoSnapshot::Start(error)) => Err(error),
            Err(NoSnapshot::Cache(cache::Error::Cancelled)) => Err(cancelled()),
            Err(error) => {
                let text = format!("{}: every case boots, since {error}", bootable.image);
                self.watch.work(WorkEvent::Warning(text));
                Ok(None)
            }
        };
        *known = Some(result.clone());
        result
    }

    fn make(
        &self,
        machine: &Machine,
        bootable: &Bootable,
        subject: &Subject,
        dir: &Path,
    ) -> Result<(), NoSnapshot> {
        self.say_what_does_not_fit(&bootable.image, subject);
        let _work = Work::begin(self.watch, format!("boot {} and save a snapshot", bootable.image));
        let snapshot = Snapshot::at(dir);
        let (mut guest, start) = self.boot(machine, bootable, Memory::Shared(snapshot.memory()))?;
        // What the boot logged must not turn up in the cases' logs.
        guest.sync(Port::Log).map_err(|error| StartError {
            what: error.to_string(),
            console: guest.streams().console_text(),
            cancelled: matches!(error, guest::Error::Cancelled),
        })?;
        fs::write(dir.join("boot.log"), guest.streams().boot_log())?;
        fs::write(dir.join(BOOT_TIME), start.time.as_millis().to_string())?;
        fs::write(dir.join(SUBJECT), serde_json::to_vec_pretty(subject).map_err(std::io::Error::from)?)?;
        snapshot.save(guest.vm(), machine, Instant::now() + self.limits.save, self.cancel)?;
        Ok(())
    }

    fn subject(&self, machine: &Machine, bootable: &Bootable) -> Result<Subject, cache::Error> {
        let qemu = self.programs.get(self.cache, machine.arch.qemu, self.cancel)?;
        let guest = guest_key(machine, bootable);
        Ok(Subject {
            label: guest.label().to_owned(),
            guest: guest.to_string(),
            host: Host::new(qemu, machine.accel),
        })
    }

    /// Says, once for an image, what snapshots there are of the same guest that another machine saved.
    fn say_what_does_not_fit(&self, image: &str, subject: &Subject) {
        let others = self.cache.paths(KIND).unwrap_or_default();
        let others = others.iter().filter_map(|entry| fs::read(entry.join(SUBJECT)).ok());
        let mut others = others.filter_map(|json| serde_json::from_slice::<Subject>(&json).ok());
        let difference = others.find_map(|other| match other.guest == subject.guest {
            true => subject.host.difference(&other.host),
            false => None,
        });
        let Some(difference) = difference else { return };
        self.say_once(format!("{image}: the snapshot at hand is of {difference}: it is made anew"));
    }

    fn say_once(&self, text: String) {
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
            self.watch.work(WorkEvent::Warning(text));
        }
    }

    /// A snapshot could not be restored: the next run makes it anew, and this one boots.
    fn forget(&self, machine: &Machine, bootable: &Bootable, entry: Entry, error: &StartError) {
        drop(entry);
        let Ok(subject) = self.subject(machine, bootable) else { return };
        let key = subject.key();
        let slot = self.slot(&key);
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*known, Some(Ok(Some(_)))) {
            *known = Some(Ok(None));
            // One that another process uses stays, and is found bad again.
            let _ = self.cache.remove(KIND, key.as_str());
            let text =
                format!("{}: its snapshot cannot be restored, so every case boots: {error}", bootable.image);
            self.watch.work(WorkEvent::Warning(text));
        }
    }
}

/// Makes the tracefs instance that cases trace in; doing it here spares every case a tenth of a second.
fn make_instance(guest: &mut Guest) {
    // A kernel without tracing has none, and a scenario that needs it says so in its own words.
    let _: Result<Result<(), Errno>, _> = guest.make_dir(TRACING);
}

/// What a snapshot is of, and what saved it: it fits only the very same.
#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    /// What people call it.
    label: String,
    /// The machine's arguments and the content of the boot files, hashed.
    guest: String,
    host: Host,
}

impl Subject {
    fn key(&self) -> Key {
        let host = &self.host;
        KeyBuilder::new(&self.label)
            .part("guest", &self.guest)
            .part("qemu", &host.qemu.sha256)
            .part("accel", &host.accel)
            .part("processor", host.processor.as_deref().unwrap_or_default())
            .finish()
    }
}

/// Of a machine with those boot files, whoever runs its instructions. Where the cache lies must not matter, so that a
/// snapshot can travel.
fn guest_key(machine: &Machine, bootable: &Bootable) -> Key {
    let boot = Boot { kernel: "kernel".into(), initramfs: "initramfs".into(), ..bootable.boot.clone() };
    let machine = Machine { accel: Accel::Tcg, ..machine.clone() };
    let args = machine.args(vm::Start::Kernel(&boot), Memory::Anonymous, vm::Wiring::Terminal);
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    KeyBuilder::new(format!("{}, {} MiB, {} cpu", bootable.image, machine.memory_mib, machine.smp))
        .part("machine", args.join("\n"))
        .part("boot files", &bootable.key)
        .finish()
}

fn no_vm(error: vm::Error) -> StartError {
    let cancelled = matches!(error, vm::Error::Cancelled);
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    StartError { what: format!("{error}{cause}"), console: String::new(), cancelled }
}

fn cancelled() -> StartError {
    StartError { what: "interrupted".into(), console: String::new(), cancelled: true }
}
