//! A machine's description, and the QEMU command line that makes it.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::Accel;
use crate::arch::{Arch, SerialPorts};
use crate::guest::agent::Transport;

/// What a guest's hardware is. Two machines that are equal can exchange snapshots, given the same QEMU and boot files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The architecture, which gives QEMU's binary, machine and cpu.
    pub arch: Arch,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Number of cpus.
    pub smp: u32,
    /// Who runs the guest's instructions.
    pub accel: Accel,
    /// Whether it has its fast firmware ([`crate::arch::Row::fast_firmware`]).
    pub fast_firmware: bool,
    /// What the agent's channels go over.
    pub transport: Transport,
    /// More `-device` arguments, each with its `-device` left off.
    pub devices: Vec<String>,
}

/// What the machine starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The initramfs: several archives in a row are one to the kernel.
    pub initramfs: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
}

/// What QEMU does once the machine is there.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Boots a kernel.
    Kernel(&'a Boot),
    /// Waits for a snapshot.
    Incoming,
    /// Runs the firmware: enough to see whether a cpu runs at all.
    Firmware,
}

/// Where the guest's memory lies.
#[derive(Debug, Clone, Copy)]
pub enum Memory<'a> {
    /// In anonymous memory of QEMU's.
    Anonymous,
    /// In a file that QEMU writes to: a snapshot in the making.
    Shared(&'a Path),
    /// In a file that QEMU maps privately, copying what it writes: a snapshot in use.
    Private(&'a Path),
}

/// How the machine's ports reach the host.
#[derive(Debug, Clone, Copy)]
pub enum Wiring {
    /// Each is a connected socket that QEMU inherits under this number.
    Sockets {
        /// QMP.
        qmp: RawFd,
        /// The first serial port.
        console: RawFd,
        /// The agent's control port.
        control: RawFd,
        /// The port for the kernel log.
        log: RawFd,
        /// The port for the trace stream.
        trace: RawFd,
    },
    /// The serial port is the terminal and the agent's ports lead nowhere: for a person who starts QEMU by hand.
    Terminal,
}

/// The virtio-serial ports: the chardev's id in QEMU, and the name the agent looks for.
const PORTS: [(&str, &str); 3] =
    [("control", "kmodlab.control"), ("log", "kmodlab.log"), ("trace", "kmodlab.trace")];

/// QEMU's system calls are restricted to what a running guest needs (QEMU: `docs/system/security.rst`).
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

impl Machine {
    /// The arguments of QEMU.
    pub fn args(&self, start: Start<'_>, memory: Memory<'_>, wiring: Wiring) -> Vec<OsString> {
        let mut args = Args(Vec::new());
        args.flags(&["-nodefaults", "-no-user-config", "-no-reboot"])
            .pair("-display", "none")
            .pair("-sandbox", SANDBOX);
        let cpu = self.accel.cpu(self.arch);
        let firmware = if self.fast_firmware { self.arch.fast_firmware } else { "" };
        args.pair("-machine", format!("{}{firmware},memory-backend=ram", self.arch.machine));
        args.pair("-accel", self.accel.argument(self.arch))
            .pair("-cpu", cpu)
            .pair("-smp", self.smp.to_string());
        args.pair("-m", format!("{}M", self.memory_mib)).pair("-object", self.memory_object(memory));
        args.flags(self.arch.qemu_args);
        args.wire(wiring);
        self.add_ports(&mut args);
        for device in &self.devices {
            args.pair("-device", device);
        }
        if !self.devices.is_empty() {
            // For a sound device, of these or plugged in later, to play to.
            args.pair("-audiodev", "none,id=none");
        }
        match start {
            Start::Kernel(boot) => {
                args.pair("-kernel", &boot.kernel)
                    .pair("-initrd", &boot.initramfs)
                    .pair("-append", &boot.cmdline);
            }
            Start::Incoming => {
                args.pair("-incoming", "defer");
            }
            Start::Firmware => {}
        }
        args.0
    }

    /// The devices of the agent's channels.
    fn add_ports(&self, args: &mut Args) {
        let serial = self.arch.serial_ports.as_ref().filter(|_| self.transport == Transport::Serial);
        match serial {
            Some(ports) => {
                for (id, _) in PORTS {
                    match ports.device {
                        Some(device) => args.pair("-device", format!("{device},chardev={id}")),
                        None => args.pair("-serial", format!("chardev:{id}")),
                    };
                }
            }
            None => {
                args.pair("-device", self.arch.virtio_serial);
                for (id, name) in PORTS {
                    args.pair("-device", format!("virtserialport,chardev={id},name={name}"));
                }
            }
        }
    }

    /// What the kernel's arguments say of the channels: which serial ports serve in place of the ports of these names.
    pub fn port_arguments(arch: Arch, transport: Transport) -> Vec<String> {
        let serial = arch.serial_ports.as_ref().filter(|_| transport == Transport::Serial);
        let named = |ports: &SerialPorts| {
            PORTS.iter().zip(ports.names).map(|((_, name), tty)| format!("{name}={tty}")).collect()
        };
        serial.map(named).unwrap_or_default()
    }

    fn memory_object(&self, memory: Memory<'_>) -> OsString {
        let size = format!("id=ram,size={}M", self.memory_mib);
        let (path, share) = match memory {
            Memory::Anonymous => return format!("memory-backend-ram,{size}").into(),
            Memory::Shared(path) => (path, "on"),
            Memory::Private(path) => (path, "off"),
        };
        let mut object = OsString::from(format!("memory-backend-file,{size},share={share},mem-path="));
        object.push(escape_commas(path));
        object
    }
}

/// A comma inside a value of QEMU's options is written twice (QEMU: `docs/system/invocation`, "-object").
pub(super) fn escape_commas(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

struct Args(Vec<OsString>);

impl Args {
    fn flags(&mut self, flags: &[&str]) -> &mut Self {
        self.0.extend(flags.iter().map(OsString::from));
        self
    }

    fn pair(&mut self, flag: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.push(flag.into());
        self.0.push(value.into());
        self
    }

    fn wire(&mut self, wiring: Wiring) {
        match wiring {
            Wiring::Sockets { qmp, console, control, log, trace } => {
                for (id, fd) in
                    [("qmp", qmp), ("console", console), ("control", control), ("log", log), ("trace", trace)]
                {
                    self.pair("-chardev", format!("socket,id={id},fd={fd}"));
                }
                self.pair("-mon", "chardev=qmp,mode=control").pair("-serial", "chardev:console");
            }
            Wiring::Terminal => {
                for (id, _) in PORTS {
                    self.pair("-chardev", format!("null,id={id}"));
                }
                self.pair("-serial", "mon:stdio");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(machine: &Machine, start: Start<'_>, memory: Memory<'_>) -> String {
        let wiring = Wiring::Sockets { qmp: 3, console: 4, control: 5, log: 6, trace: 7 };
        let args = machine.args(start, memory, wiring);
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_snapshot_maps_its_memory_privately_and_waits() {
        for arch in Arch::all() {
            let machine = Machine {
                arch,
                memory_mib: 256,
                smp: 2,
                accel: Accel::Tcg,
                fast_firmware: true,
                transport: Transport::Virtio,
                devices: vec!["qemu-xhci".into()],
            };
            let line = line(&machine, Start::Incoming, Memory::Private(Path::new("/a,b/ram")));
            assert!(line.contains("share=off,mem-path=/a,,b/ram"), "{line}");
            assert!(line.contains("-incoming defer") && !line.contains("-kernel"), "{line}");
            assert!(
                line.contains(
                    "virtserialport,chardev=trace,name=kmodlab.trace -device qemu-xhci -audiodev none,id=none"
                ),
                "{line}"
            );
            assert!(!line.contains("-netdev") && !line.contains("-virtfs"), "{line}");
        }
    }

    #[test]
    fn serial_ports_take_the_place_of_virtio_in_the_order_of_their_names() {
        for arch in Arch::all().filter(|arch| arch.serial_ports.is_some()) {
            let machine = Machine {
                arch,
                memory_mib: 256,
                smp: 1,
                accel: Accel::Tcg,
                fast_firmware: true,
                transport: Transport::Serial,
                devices: Vec::new(),
            };
            let line = line(&machine, Start::Incoming, Memory::Anonymous);
            let at = |text: &str| line.find(text).unwrap_or_else(|| panic!("{text} is not in {line}"));
            assert!(!line.contains("virtio") && !line.contains("virtserialport"), "{line}");
            let named = |id: &str| match arch.serial_ports.as_ref().unwrap().device {
                Some(device) => at(&format!("-device {device},chardev={id}")),
                None => at(&format!("-serial chardev:{id}")),
            };
            assert!(at("-serial chardev:console") < named("control"));
            assert!(named("control") < named("log") && named("log") < named("trace"));
            let arguments = Machine::port_arguments(arch, Transport::Serial);
            assert!(
                arguments[0].starts_with("kmodlab.control=") && arguments[2].starts_with("kmodlab.trace=")
            );
            assert!(Machine::port_arguments(arch, Transport::Virtio).is_empty());
        }
    }
}
