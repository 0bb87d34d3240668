//! The architectures, and the one table of what differs between them.
//!
//! Adding an architecture is adding a row to `ROWS`; nothing else in the harness asks which one it is.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::image::kconfig::KernelConfig;

/// What the harness knows of one architecture.
#[derive(Debug)]
pub struct Row {
    /// The name used in image files, on the command line and in reports.
    pub name: &'static str,
    /// The QEMU binary, found in `PATH`.
    pub qemu: &'static str,
    /// The Debian package that holds [`Row::qemu`].
    pub qemu_package: &'static str,
    /// The value of QEMU's `-machine`, without the accelerator.
    pub machine: &'static str,
    /// What is added to [`Row::machine`] for a firmware that starts a kernel faster than the machine's usual one; empty
    /// where there is none to choose.
    pub fast_firmware: &'static str,
    /// The value of QEMU's `-cpu` under TCG.
    pub cpu: &'static str,
    /// The value of QEMU's `-accel` for TCG.
    pub tcg: &'static str,
    /// The versions of QEMU (major, minor), from one and up to another, under which a restored guest's cpus other than
    /// the first never run again.
    pub restores_one_cpu: Option<Range<(u64, u64)>>,
    /// Why a guest of this machine cannot be saved at all, so that each case boots.
    pub unsaved: Option<&'static str>,
    /// Arguments of QEMU that the machine needs besides.
    pub qemu_args: &'static [&'static str],
    /// The virtio-serial bus device.
    pub virtio_serial: &'static str,
    /// The kernel modules that drive it.
    pub channel_drivers: &'static [&'static str],
    /// Serial ports that serve a kernel without those drivers; `None` where the machine has too few.
    pub serial_ports: Option<SerialPorts>,
    /// Guest memory must be a multiple of this, in MiB.
    pub memory_step_mib: u32,
    /// The kernel's name for the first serial port, for `console=`.
    pub console: &'static str,
    /// Where a raw `Image` taken out of a compressed kernel is to be loaded and entered, where the machine's loader
    /// takes such an image in a legacy U-Boot header (QEMU: `hw/core/loader.c`, `load_uboot_image`).
    pub raw_image_load: Option<u32>,
    /// The machine of a host that is of the architecture itself, as `uname -m` prints it.
    pub uname: &'static str,
    /// Debian's name of the architecture; empty where Debian builds no packages for it.
    pub debian: &'static str,
    /// Prefix of the cross compiler's tools.
    pub cross: &'static str,
    /// The Debian package of the cross compiler for a foreign host.
    pub cross_package: &'static str,
    /// The Debian package of the C library to link the agent with, on a foreign host.
    pub libc_package: &'static str,
    /// kbuild's `ARCH`.
    pub kbuild: &'static str,
    /// The options that are set in the configuration of a kernel for it, together in no other architecture's.
    pub config: &'static [&'static str],
    /// The file that QEMU boots, below the folder in which a kernel was built; its name is that of its target in kbuild.
    pub boot_file: &'static str,
    /// The options that a kernel needs for the machine, as a fragment of a configuration.
    pub kconfig: &'static str,
    /// `e_machine` of the architecture's ELF files (`include/uapi/linux/elf-em.h`).
    pub elf_machine: u16,
    /// Whether numbers in memory begin with their most significant byte.
    pub big_endian: bool,
    /// What the names of functions' code begin with; their plain names then are those of descriptors (ppc64's ELFv1 ABI).
    pub text_prefix: &'static str,
    /// How a call that is made by jumping, the last thing that a function does, differs from others; `None` where the places
    /// that are called from do not show in a module's relocations (mips, whose modules call by way of registers), or the
    /// architecture has no kcov.
    pub jump: Option<Jump>,
    /// How many cpus the machine can have, of the 8 that a scenario may ask for.
    pub max_cpus: u32,
    /// What gdb calls the register of a function's first argument.
    pub gdb_argument: &'static str,
    /// How frames lead to their callers' frames, where the ABI or the kernel's build has them do so.
    pub back_chain: Option<BackChain>,
    /// The host machines (`uname -m`) on which KVM can run it.
    pub kvm_hosts: &'static [&'static str],
}

/// A byte of an instruction that calls or jumps, by which the one is told from the other.
#[derive(Debug)]
pub struct Jump {
    /// Where the byte is, from where the instruction's relocation applies.
    pub at: i64,
    /// The bits of it that tell.
    pub mask: u8,
    /// What they are in a jump.
    pub is: u8,
}

/// Serial ports for the agent's channels, besides the console.
#[derive(Debug)]
pub struct SerialPorts {
    /// QEMU's device for each; `None` where the machine itself makes them, of further `-serial` arguments.
    pub device: Option<&'static str>,
    /// The kernel's names for them: those for requests, the kernel log and traces.
    pub names: [&'static str; 3],
    /// The option that builds their driver in.
    pub option: &'static str,
}

/// A chain of frames on the stack, each of which has the address of its caller's.
#[derive(Debug)]
pub struct BackChain {
    /// What gdb calls the register that points to the frame.
    pub register: &'static str,
    /// Where the address of the caller's frame is, in bytes from the frame.
    pub caller: i32,
    /// Where the address to return to is.
    pub back: i32,
    /// Whether that is counted from the caller's frame, not from the frame itself.
    pub back_in_caller: bool,
}

/// Figures behind the choices: `-cpu max` and `microvm` gain nothing on x86 under TCG; arm finds its PCI devices
/// only with `highmem=off`; pseries starts in VOF instead of SLOF, and TCG offers none of the `cap-*` mitigations.
///
/// With a thread for each cpu, QEMU 7.2's x86 guests of two cpus crashed or locked up in half the runs that put in and took
/// out probes on busy functions, and in none with one thread for all. An arm guest, though, spins where an x86 one
/// yields (`pause`), and with one thread did not boot two cpus within two minutes.
static ROWS: &[Row] = &[
    Row {
        name: "x86_64",
        qemu: "qemu-system-x86_64",
        qemu_package: "qemu-system-x86",
        machine: "q35",
        fast_firmware: "",
        cpu: "qemu64",
        tcg: "tcg,thread=single",
        restores_one_cpu: None,
        unsaved: None,
        qemu_args: &[],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: Some(SerialPorts {
            device: None,
            names: ["ttyS1", "ttyS2", "ttyS3"],
            option: "SERIAL_8250",
        }),
        memory_step_mib: 1,
        console: "ttyS0",
        raw_image_load: None,
        uname: "x86_64",
        debian: "amd64",
        cross: "x86_64-linux-gnu-",
        cross_package: "gcc-x86-64-linux-gnu",
        libc_package: "libc6-dev-amd64-cross",
        kbuild: "x86",
        config: &["X86_64"],
        boot_file: "arch/x86/boot/bzImage",
        kconfig: include_str!("../images/kconfig/x86_64.config"),
        elf_machine: 62,
        big_endian: false,
        text_prefix: "",
        jump: Some(Jump { at: -1, mask: 0xff, is: 0xe9 }),
        max_cpus: 8,
        gdb_argument: "$rdi",
        back_chain: None,
        kvm_hosts: &["x86_64"],
    },
    Row {
        name: "arm",
        qemu: "qemu-system-arm",
        qemu_package: "qemu-system-arm",
        machine: "virt,highmem=off",
        fast_firmware: "",
        cpu: "cortex-a15",
        tcg: "tcg,thread=multi",
        restores_one_cpu: None,
        unsaved: None,
        qemu_args: &[],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: Some(SerialPorts {
            device: Some("pci-serial"),
            names: ["ttyS0", "ttyS1", "ttyS2"],
            option: "SERIAL_8250_PCI",
        }),
        memory_step_mib: 1,
        console: "ttyAMA0",
        raw_image_load: Some(0x4020_8000),
        uname: "armv7l",
        debian: "armhf",
        cross: "arm-linux-gnueabihf-",
        cross_package: "gcc-arm-linux-gnueabihf",
        libc_package: "libc6-dev-armhf-cross",
        kbuild: "arm",
        config: &["ARM"],
        boot_file: "arch/arm/boot/zImage",
        kconfig: include_str!("../images/kconfig/arm.config"),
        elf_machine: 40,
        big_endian: false,
        text_prefix: "",
        jump: Some(Jump { at: 3, mask: 0x0f, is: 0x0a }),
        max_cpus: 8,
        gdb_argument: "$r0",
        back_chain: None,
        kvm_hosts: &["armv7l"],
    },
    Row {
        name: "ppc64le",
        qemu: "qemu-system-ppc64",
        qemu_package: "qemu-system-ppc",
        machine: "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off",
        fast_firmware: ",x-vof=on",
        cpu: "power9",
        tcg: "tcg,thread=multi",
        // A cpu that RTAS starts is no longer `quiesced`, and that was not saved (QEMU: commit fb802acdc8b in
        // `hw/ppc/spapr_rtas.c`; mended by "Fix env->quiesced migration" in `target/ppc/machine.c`).
        restores_one_cpu: Some((10, 0)..(11, 0)),
        unsaved: None,
        qemu_args: &["-vga", "none"],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: Some(SerialPorts {
            device: None,
            names: ["hvc1", "hvc2", "hvc3"],
            option: "HVC_CONSOLE",
        }),
        memory_step_mib: 256,
        console: "hvc0",
        raw_image_load: None,
        uname: "ppc64le",
        debian: "ppc64el",
        cross: "powerpc64le-linux-gnu-",
        cross_package: "gcc-powerpc64le-linux-gnu",
        libc_package: "libc6-dev-ppc64el-cross",
        kbuild: "powerpc",
        config: &["PPC64", "CPU_LITTLE_ENDIAN"],
        boot_file: "vmlinux",
        kconfig: include_str!("../images/kconfig/ppc64le.config"),
        elf_machine: 21,
        big_endian: false,
        text_prefix: "",
        jump: Some(Jump { at: 0, mask: 0x01, is: 0 }),
        max_cpus: 8,
        gdb_argument: "$r3",
        // 64-bit ELF V2 ABI, "The Stack Frame".
        back_chain: Some(BackChain { register: "r1", caller: 0, back: 16, back_in_caller: true }),
        kvm_hosts: &["ppc64le"],
    },
    Row {
        name: "ppc64",
        qemu: "qemu-system-ppc64",
        qemu_package: "qemu-system-ppc",
        machine: "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off",
        fast_firmware: ",x-vof=on",
        cpu: "power9",
        tcg: "tcg,thread=multi",
        // As on ppc64le.
        restores_one_cpu: Some((10, 0)..(11, 0)),
        unsaved: None,
        qemu_args: &["-vga", "none"],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: Some(SerialPorts {
            device: None,
            names: ["hvc1", "hvc2", "hvc3"],
            option: "HVC_CONSOLE",
        }),
        memory_step_mib: 256,
        console: "hvc0",
        raw_image_load: None,
        uname: "ppc64",
        debian: "",
        cross: "powerpc64-linux-gnu-",
        cross_package: "gcc-powerpc64-linux-gnu",
        libc_package: "libc6-dev-ppc64-cross",
        kbuild: "powerpc",
        config: &["PPC64", "CPU_BIG_ENDIAN"],
        boot_file: "vmlinux",
        kconfig: include_str!("../images/kconfig/ppc64.config"),
        elf_machine: 21,
        big_endian: true,
        text_prefix: ".",
        jump: Some(Jump { at: 3, mask: 0x01, is: 0 }),
        max_cpus: 8,
        gdb_argument: "$r3",
        // 64-bit PowerPC ELF ABI (V1), "The Stack Frame"; the places are those of V2.
        back_chain: Some(BackChain { register: "r1", caller: 0, back: 16, back_in_caller: true }),
        kvm_hosts: &["ppc64"],
    },
    Row {
        name: "ppc",
        qemu: "qemu-system-ppc",
        qemu_package: "qemu-system-ppc",
        // With graphics the firmware takes the screen for the console.
        machine: "mac99,graphics=off",
        fast_firmware: "",
        cpu: "7400",
        // QEMU: "Guest not yet converted to MTTCG".
        tcg: "tcg,thread=single",
        restores_one_cpu: None,
        unsaved: None,
        qemu_args: &["-vga", "none"],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: None,
        memory_step_mib: 1,
        console: "ttyS0",
        raw_image_load: None,
        uname: "ppc",
        debian: "",
        cross: "powerpc-linux-gnu-",
        cross_package: "gcc-powerpc-linux-gnu",
        libc_package: "libc6-dev-powerpc-cross",
        kbuild: "powerpc",
        config: &["PPC32"],
        boot_file: "vmlinux",
        kconfig: include_str!("../images/kconfig/ppc.config"),
        elf_machine: 20,
        big_endian: true,
        text_prefix: "",
        jump: Some(Jump { at: 3, mask: 0x01, is: 0 }),
        max_cpus: 1,
        gdb_argument: "$r3",
        back_chain: Some(BackChain { register: "r1", caller: 0, back: 4, back_in_caller: true }),
        kvm_hosts: &[],
    },
    Row {
        name: "sparc64",
        qemu: "qemu-system-sparc64",
        qemu_package: "qemu-system-sparc",
        machine: "sun4u",
        fast_firmware: "",
        cpu: "TI-UltraSparc-IIi",
        tcg: "tcg,thread=multi",
        restores_one_cpu: None,
        // `memory-backend` is accepted, and `sun4u.ram` is another block beside it (QEMU: `hw/sparc64/sun4u.c`); `migrate`
        // ended in SIGFPE, five times of five: pages of 8 KiB are more than the host's 4 KiB (`migration/ram.c`).
        unsaved: Some("QEMU's sun4u keeps its memory in no file, and QEMU 7.2 dies of saving it"),
        qemu_args: &["-vga", "none"],
        // The other bus is full with the machine's own devices.
        virtio_serial: "virtio-serial-pci,bus=pciB",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: None,
        memory_step_mib: 1,
        console: "ttyS0",
        raw_image_load: None,
        uname: "sparc64",
        debian: "",
        cross: "sparc64-linux-gnu-",
        cross_package: "gcc-sparc64-linux-gnu",
        libc_package: "libc6-dev-sparc64-cross",
        kbuild: "sparc",
        config: &["SPARC64"],
        boot_file: "vmlinux",
        kconfig: include_str!("../images/kconfig/sparc64.config"),
        elf_machine: 43,
        big_endian: true,
        text_prefix: "",
        jump: None,
        max_cpus: 1,
        // gdb stops behind the instruction that makes the callee's window of its caller's.
        gdb_argument: "$i0",
        back_chain: None,
        kvm_hosts: &[],
    },
    Row {
        name: "i386",
        qemu: "qemu-system-i386",
        qemu_package: "qemu-system-x86",
        machine: "q35",
        fast_firmware: "",
        cpu: "qemu32",
        tcg: "tcg,thread=single",
        restores_one_cpu: None,
        unsaved: None,
        qemu_args: &[],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: Some(SerialPorts {
            device: None,
            names: ["ttyS1", "ttyS2", "ttyS3"],
            option: "SERIAL_8250",
        }),
        memory_step_mib: 1,
        console: "ttyS0",
        raw_image_load: None,
        uname: "i686",
        debian: "i386",
        cross: "i686-linux-gnu-",
        cross_package: "gcc-i686-linux-gnu",
        libc_package: "libc6-dev-i386-cross",
        kbuild: "x86",
        config: &["X86_32"],
        boot_file: "arch/x86/boot/bzImage",
        kconfig: include_str!("../images/kconfig/i386.config"),
        elf_machine: 3,
        big_endian: false,
        text_prefix: "",
        jump: Some(Jump { at: -1, mask: 0xff, is: 0xe9 }),
        max_cpus: 8,
        gdb_argument: "$eax",
        // `struct stack_frame` of `arch/x86/include/asm/stacktrace.h`, with FRAME_POINTER.
        back_chain: Some(BackChain { register: "ebp", caller: 0, back: 4, back_in_caller: false }),
        kvm_hosts: &["i686", "x86_64"],
    },
    Row {
        name: "arm64",
        qemu: "qemu-system-aarch64",
        qemu_package: "qemu-system-arm",
        machine: "virt",
        fast_firmware: "",
        cpu: "cortex-a53",
        tcg: "tcg,thread=multi",
        restores_one_cpu: None,
        unsaved: None,
        qemu_args: &[],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: Some(SerialPorts {
            device: Some("pci-serial"),
            names: ["ttyS0", "ttyS1", "ttyS2"],
            option: "SERIAL_8250_PCI",
        }),
        memory_step_mib: 1,
        console: "ttyAMA0",
        raw_image_load: None,
        uname: "aarch64",
        debian: "arm64",
        cross: "aarch64-linux-gnu-",
        cross_package: "gcc-aarch64-linux-gnu",
        libc_package: "libc6-dev-arm64-cross",
        kbuild: "arm64",
        config: &["ARM64"],
        boot_file: "arch/arm64/boot/Image",
        kconfig: include_str!("../images/kconfig/arm64.config"),
        elf_machine: 183,
        big_endian: false,
        text_prefix: "",
        jump: Some(Jump { at: 3, mask: 0xfc, is: 0x14 }),
        max_cpus: 8,
        gdb_argument: "$x0",
        // The frame record: `arch/arm64/kernel/stacktrace.c`, `unwind_next`.
        back_chain: Some(BackChain { register: "x29", caller: 0, back: 8, back_in_caller: false }),
        kvm_hosts: &["aarch64"],
    },
    Row {
        name: "s390x",
        qemu: "qemu-system-s390x",
        qemu_package: "qemu-system-misc",
        machine: "s390-ccw-virtio",
        fast_firmware: "",
        cpu: "qemu",
        tcg: "tcg,thread=multi",
        restores_one_cpu: None,
        unsaved: None,
        qemu_args: &[],
        virtio_serial: "virtio-serial-ccw",
        // The bus itself, virtio_ccw, is part of every kernel (S390_GUEST is no module), and modules.builtin leaves it out.
        channel_drivers: &["virtio_console"],
        serial_ports: None,
        memory_step_mib: 1,
        console: "ttyS1",
        raw_image_load: None,
        uname: "s390x",
        debian: "s390x",
        cross: "s390x-linux-gnu-",
        cross_package: "gcc-s390x-linux-gnu",
        libc_package: "libc6-dev-s390x-cross",
        kbuild: "s390",
        config: &["S390"],
        boot_file: "arch/s390/boot/bzImage",
        kconfig: include_str!("../images/kconfig/s390x.config"),
        elf_machine: 22,
        big_endian: true,
        text_prefix: "",
        jump: Some(Jump { at: -1, mask: 0x0f, is: 0x04 }),
        max_cpus: 8,
        gdb_argument: "$r2",
        // `struct stack_frame` of `arch/s390/include/asm/stacktrace.h`: `back_chain`, and `gprs[8]`, which is r14.
        back_chain: Some(BackChain { register: "r15", caller: 152, back: 136, back_in_caller: true }),
        kvm_hosts: &["s390x"],
    },
    Row {
        name: "riscv64",
        qemu: "qemu-system-riscv64",
        qemu_package: "qemu-system-misc",
        machine: "virt",
        fast_firmware: "",
        cpu: "rv64",
        tcg: "tcg,thread=multi",
        restores_one_cpu: None,
        unsaved: None,
        qemu_args: &[],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: None,
        memory_step_mib: 1,
        console: "ttyS0",
        raw_image_load: None,
        uname: "riscv64",
        debian: "riscv64",
        cross: "riscv64-linux-gnu-",
        cross_package: "gcc-riscv64-linux-gnu",
        libc_package: "libc6-dev-riscv64-cross",
        kbuild: "riscv",
        config: &["RISCV", "64BIT"],
        boot_file: "arch/riscv/boot/Image",
        kconfig: include_str!("../images/kconfig/riscv64.config"),
        elf_machine: 243,
        big_endian: false,
        text_prefix: "",
        jump: Some(Jump { at: 4, mask: 0x80, is: 0 }),
        max_cpus: 8,
        gdb_argument: "$a0",
        // `struct stackframe` of `arch/riscv/include/asm/stacktrace.h`, which ends where the frame pointer points.
        back_chain: Some(BackChain { register: "fp", caller: -16, back: -8, back_in_caller: false }),
        kvm_hosts: &["riscv64"],
    },
    Row {
        name: "mips64el",
        qemu: "qemu-system-mips64el",
        qemu_package: "qemu-system-mips",
        machine: "malta",
        fast_firmware: "",
        cpu: "5KEc",
        // QEMU 7.2: "Guest not yet converted to MTTCG". With a thread for each cpu, guests hung at probes.
        tcg: "tcg,thread=single",
        restores_one_cpu: None,
        unsaved: None,
        qemu_args: &[],
        virtio_serial: "virtio-serial-pci",
        channel_drivers: &["virtio_pci", "virtio_console"],
        serial_ports: None,
        memory_step_mib: 1,
        console: "ttyS0",
        raw_image_load: None,
        uname: "mips64",
        debian: "mips64el",
        cross: "mips64el-linux-gnuabi64-",
        cross_package: "gcc-mips64el-linux-gnuabi64",
        libc_package: "libc6-dev-mips64el-cross",
        kbuild: "mips",
        config: &["MIPS", "64BIT", "CPU_LITTLE_ENDIAN"],
        boot_file: "vmlinux",
        kconfig: include_str!("../images/kconfig/mips64el.config"),
        elf_machine: 8,
        big_endian: false,
        text_prefix: "",
        // Debian's kernel for this cpu has SMP by the MT extension alone (MIPS_MT_SMP), which the cpu has not; with two, a
        // guest did not come up.
        jump: None,
        max_cpus: 1,
        gdb_argument: "$a0",
        back_chain: None,
        kvm_hosts: &[],
    },
];

/// An architecture: a handle on its row.
#[derive(Clone, Copy)]
pub struct Arch(&'static Row);

impl Arch {
    /// Every architecture, in the order of the table.
    pub fn all() -> impl Iterator<Item = Arch> {
        ROWS.iter().map(Arch)
    }

    /// The architecture that a kernel's configuration is for.
    pub fn of_config(config: &KernelConfig) -> Option<Arch> {
        Arch::all().find(|arch| arch.config.iter().all(|option| config.is_set(option)))
    }
}

impl std::ops::Deref for Arch {
    type Target = Row;

    fn deref(&self) -> &Row {
        self.0
    }
}

impl PartialEq for Arch {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Arch {}

impl fmt::Debug for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name)
    }
}

/// Architectures that are not in the table, and why nobody needs to look for them.
pub const GONE: [(&str, &str); 1] =
    [("ia64", "ia64 left the kernel in 6.7 (commit cf8e8658100d), and QEMU has no machine for it")];

/// What there is to say of a name in [`GONE`], on a line of its own; nothing of others.
pub fn remark(name: &str) -> String {
    let gone = GONE.iter().find(|(gone, _)| *gone == name);
    gone.map(|(_, why)| format!("\n{why}")).unwrap_or_default()
}

/// The name is of no architecture in the table.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown architecture `{0}`: known are {known}{remark}",
    known = Arch::all().map(|a| a.name).collect::<Vec<_>>().join(", "),
    remark = remark(.0)
)]
pub struct UnknownArch(String);

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        Arch::all().find(|arch| arch.name == name).ok_or_else(|| UnknownArch(name.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_round_trip() {
        for arch in Arch::all() {
            assert_eq!(arch.name.parse::<Arch>().unwrap(), arch);
        }
        let unknown = |name: &str| name.parse::<Arch>().unwrap_err().to_string();
        assert!(unknown("vax").starts_with("unknown architecture `vax`: known are x86_64, arm, ppc64le, "));
        assert!(!unknown("vax").contains('\n'));
        assert!(unknown("ia64").ends_with(
            "\nia64 left the kernel in 6.7 (commit cf8e8658100d), and QEMU has no machine for it"
        ));
    }

    #[test]
    fn a_configuration_is_for_one_architecture() {
        for arch in Arch::all() {
            let text: String = arch.config.iter().map(|option| format!("CONFIG_{option}=y\n")).collect();
            assert_eq!(Arch::of_config(&KernelConfig::parse(&text)), Some(arch));
        }
        assert_eq!(Arch::of_config(&KernelConfig::parse("CONFIG_IA64=y\n")), None);
    }
}
