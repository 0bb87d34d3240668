//! Who runs the guest's instructions: KVM where it really works, else TCG.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Error, Machine, Memory, Start, Vm};
use crate::arch::Arch;
use crate::guest::agent::Transport;
use crate::work::Cancel;

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accel {
    /// The host's processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl Accel {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "KVM",
            Accel::Tcg => "TCG",
        }
    }

    /// The value of QEMU's `-accel`.
    pub(super) fn argument(self, arch: Arch) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => arch.tcg,
        }
    }

    /// The value of QEMU's `-cpu`.
    pub(super) fn cpu(self, arch: Arch) -> &'static str {
        match self {
            Accel::Kvm => "host",
            Accel::Tcg => arch.cpu,
        }
    }
}

/// Why KVM does not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoKvm {
    /// The host cannot run this architecture.
    #[error("this host ({host}) cannot run {arch} guests under KVM")]
    Foreign {
        /// The host's machine, as `uname -m` says.
        host: String,
        /// The guest's architecture.
        arch: Arch,
    },
    /// `/dev/kvm` cannot be opened.
    #[error("/dev/kvm cannot be opened: {0}")]
    Device(String),
    /// A virtual cpu was started and failed.
    #[error("/dev/kvm opens, but a virtual cpu does not run: {0}")]
    Broken(String),
}

/// What tells one processor from another, from the text of `/proc/cpuinfo`: what it says of the first cpu, without that
/// cpu's number and place, and its frequency, which changes.
pub fn processor(cpuinfo: &str) -> String {
    const CHANGING: [&str; 11] = [
        "processor",
        "cpu MHz",
        "clock",
        "physical id",
        "siblings",
        "core id",
        "cpu cores",
        "apicid",
        "initial apicid",
        "bogomips",
        "BogoMIPS",
    ];
    let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
    let first = cpuinfo.lines().take_while(|line| !line.trim().is_empty());
    first.filter(|line| !CHANGING.contains(&name(line).as_str())).collect::<Vec<_>>().join("\n")
}

/// How long the trial may take.
const TRIAL: Duration = Duration::from_secs(10);

/// Starts a virtual cpu under KVM and sees whether it runs: that `/dev/kvm` exists, or can be opened, says too little.
///
/// # Errors
///
/// [`NoKvm`] says why not.
pub fn try_kvm(arch: Arch, cancel: &Cancel) -> Result<Result<(), NoKvm>, Error> {
    let host = rustix::system::uname().machine().to_string_lossy().into_owned();
    if !arch.kvm_hosts.contains(&host.as_str()) {
        return Ok(Err(NoKvm::Foreign { host, arch }));
    }
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Ok(Err(NoKvm::Device(error.to_string())));
    }
    let memory_mib = arch.memory_step_mib.max(64);
    let machine = Machine {
        arch,
        memory_mib,
        smp: 1,
        accel: Accel::Kvm,
        fast_firmware: true,
        transport: Transport::Virtio,
        devices: Vec::new(),
    };
    let mut vm = Vm::start(&machine, Start::Firmware, Memory::Anonymous)?;
    let deadline = Instant::now() + TRIAL;
    match vm.qmp("query-status", json!({}), deadline, cancel) {
        Ok(status) if status["status"] == "running" => Ok(Ok(())),
        Ok(status) => Ok(Err(NoKvm::Broken(format!("its status is {}", status["status"])))),
        Err(Error::Exited(exit)) => Ok(Err(NoKvm::Broken(exit.to_string()))),
        Err(Error::Deadline(_)) => Ok(Err(NoKvm::Broken("QEMU did not answer".into()))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_what_it_can_do_and_not_how_fast_it_is_just_now() {
        let cpuinfo = |model: &str, mhz: &str| {
            format!(
                "processor\t: 0\nmodel name\t: {model}\ncpu MHz\t\t: {mhz}\nflags\t\t: fpu\n\nprocessor\t: 1\n"
            )
        };
        let one = processor(&cpuinfo("A", "2600.0"));
        assert_eq!(one, "model name\t: A\nflags\t\t: fpu");
        assert_eq!(one, processor(&cpuinfo("A", "800.0")));
        assert_ne!(one, processor(&cpuinfo("B", "2600.0")));
    }
}
