//! `kmodlab doctor`

use std::collections::BTreeSet;
use std::path::Path;

use indicatif::HumanBytes;

use super::args::Doctor;
use super::{Context, Stop, exit, say, select};
use crate::arch::Arch;
use crate::gdb::GDB;
use crate::image::compiler::{self, Compiler};
use crate::image::debian;
use crate::image::source::missing_tools;
use crate::lab::Lab;
use crate::process::{self, Command};
use crate::vm::accel;
use crate::work::Cancel;

/// Space that the default images, their headers, modules and snapshots take, with some to spare.
const DISK: u64 = 4 << 30;

/// Something that was looked at.
struct Finding {
    what: String,
    state: State,
}

enum State {
    Good(String),
    /// Worth knowing, though everything works without it.
    Note(String),
    /// Missing; the remedy, and the Debian packages that hold it.
    Bad(String, Vec<&'static str>),
}

/// Looks at everything that the images need; status 0 where nothing is missing.
pub(super) fn doctor(context: &Context, args: &Doctor) -> Result<u8, Stop> {
    let lab = context.lab()?;
    let mut archs: Vec<Arch> = Vec::new();
    let images = select::images(&lab, &args.images, &[])?;
    for image in &images {
        if !archs.contains(&image.arch) {
            archs.push(image.arch);
        }
    }
    let mut findings = tools();
    if images.iter().any(|image| image.is_built_from_source()) {
        findings.push(source(&context.cancel));
    }
    for &arch in &archs {
        findings.push(qemu(arch, &context.cancel));
        findings.push(compiler(arch, &context.cancel));
    }
    let packages: BTreeSet<&str> =
        findings.iter().flat_map(|finding| finding.packages().iter().copied()).collect();
    if args.missing_packages {
        say(packages.into_iter().collect::<Vec<_>>().join(" "));
        return Ok(0);
    }
    findings.push(archive(&context.cancel));
    findings.extend(archs.iter().map(|&arch| kvm(arch, &context.cancel)));
    findings.push(disk(&lab));
    let bad = findings.iter().filter(|finding| matches!(finding.state, State::Bad(..))).count();
    findings.iter().for_each(Finding::show);
    if bad == 0 {
        say("\nnothing is missing");
        return Ok(0);
    }
    if !packages.is_empty() {
        say(format_args!(
            "\ninstall: apt-get install {}",
            packages.into_iter().collect::<Vec<_>>().join(" ")
        ));
    }
    Ok(exit::ERROR)
}

impl Finding {
    fn new(what: impl Into<String>, state: State) -> Self {
        Finding { what: what.into(), state }
    }

    fn packages(&self) -> &[&'static str] {
        match &self.state {
            State::Bad(_, packages) => packages,
            State::Good(_) | State::Note(_) => &[],
        }
    }

    fn show(&self) {
        let (mark, text) = match &self.state {
            State::Good(text) => ("ok     ", text),
            State::Note(text) => ("note   ", text),
            State::Bad(text, _) => ("MISSING", text),
        };
        say(format_args!(
            "{mark} {:<24} {}",
            self.what,
            text.replace('\n', "\n                                 ")
        ));
    }
}

/// What it takes to build modules, to unpack kernels, and to set breakpoints.
fn tools() -> Vec<Finding> {
    let tools = [
        ("make", "make", "builds modules"),
        ("apt-get", "apt", "fetches kernels"),
        ("strip", "binutils", "strips modules"),
        (GDB, GDB, "sets breakpoints"),
    ];
    let mut findings: Vec<Finding> = tools
        .iter()
        .map(|&(tool, package, use_)| {
            let state = match process::find(tool) {
                Some(path) => State::Good(path.display().to_string()),
                None => State::Bad(format!("`{tool}` is not installed: it {use_}"), vec![package]),
            };
            Finding::new(tool, state)
        })
        .collect();
    let keyring = Path::new(debian::KEYRING);
    let state = match keyring.exists() {
        true => State::Good(keyring.display().to_string()),
        false => {
            State::Bad("the archive's packages cannot be verified".into(), vec!["debian-archive-keyring"])
        }
    };
    findings.push(Finding::new("Debian's keys", state));
    findings
}

/// What it takes to build kernels and userland.
fn source(cancel: &Cancel) -> Finding {
    let missing = missing_tools(cancel);
    let state = match missing.is_empty() {
        true => State::Good("everything is there".into()),
        false => {
            let names: Vec<_> = missing.iter().map(|tool| format!("`{}`", tool.what)).collect();
            let packages = missing.iter().map(|tool| tool.package).collect();
            State::Bad(format!("not installed: {}", names.join(", ")), packages)
        }
    };
    Finding::new("builds from source", state)
}

fn qemu(arch: Arch, cancel: &Cancel) -> Finding {
    let mut command = Command::new(arch.qemu);
    command.arg("--version");
    let state = match command.check(cancel) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            State::Good(text.lines().next().unwrap_or_default().to_owned())
        }
        Err(error) => State::Bad(error.to_string(), vec![arch.qemu_package]),
    };
    Finding::new(format!("QEMU for {arch}"), state)
}

fn compiler(arch: Arch, cancel: &Cancel) -> Finding {
    let state = match Compiler::find(arch, cancel) {
        Ok(compiler) => State::Good(compiler.program.display().to_string()),
        Err(error) => State::Bad(error.to_string(), compiler::packages(arch).to_vec()),
    };
    Finding::new(format!("compiler for {arch}"), state)
}

fn archive(cancel: &Cancel) -> Finding {
    let state = match debian::mirror(cancel) {
        Ok(_) => State::Good("the host's apt, or the environment, names one".into()),
        Err(error) => State::Bad(crate::error::chain(&error), Vec::new()),
    };
    Finding::new("Debian mirror", state)
}

fn kvm(arch: Arch, cancel: &Cancel) -> Finding {
    let state = match accel::try_kvm(arch, cancel) {
        Ok(Ok(())) => State::Good("a virtual cpu runs; a run tries whether its images boot, too".into()),
        Ok(Err(trouble)) => State::Note(format!("TCG is used, which is slower: {trouble}")),
        Err(error) => State::Note(format!("TCG is used, which is slower: {error}")),
    };
    Finding::new(format!("KVM for {arch}"), state)
}

fn disk(lab: &Lab) -> Finding {
    let root = lab.cache().root();
    let state = match rustix::fs::statvfs(root) {
        Ok(stat) if stat.f_bavail * stat.f_frsize >= DISK => {
            State::Good(format!("{} free at {}", HumanBytes(stat.f_bavail * stat.f_frsize), root.display()))
        }
        Ok(stat) => State::Note(format!(
            "{} free at {}, of the {} that the default images take\nname another place with `--cache` or `KMODLAB_CACHE`",
            HumanBytes(stat.f_bavail * stat.f_frsize),
            root.display(),
            HumanBytes(DISK)
        )),
        Err(errno) => State::Bad(format!("{}: {errno}", root.display()), Vec::new()),
    };
    Finding::new("disk", state)
}
