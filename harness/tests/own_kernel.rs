//! Kernels of one's own, made of the parts of an image's: booted, with test modules built against them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "fixtures are test code"
)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use kmodlab::console::LogRecord;
use kmodlab::guest::Errno;
use kmodlab::guest::proto::{Port, WriteMode};
use kmodlab::image::own::{KernelFiles, KernelTree, OwnKernel};
use kmodlab::image::prepare::Prepared;
use kmodlab::lab::Lab;
use kmodlab::needs::{REQUIRE_VM, missing};
use kmodlab::run::{Options, Runner, StartKind};
use kmodlab::work::{Cancel, Unwatched};
use rstest::rstest;

/// The project, and an image of it; `None`, having said why, where this machine cannot have a guest and need not.
fn prepared(image: &str) -> Option<(Lab, Prepared)> {
    let lab = Lab::open(None, None, Arc::new(Unwatched), Cancel::new().expect("a pipe")).expect("a project");
    let spec = lab.image(image).expect("a known image");
    if let Some(missing) = missing(spec.arch, lab.cancel()) {
        assert!(std::env::var_os(REQUIRE_VM).is_none_or(|value| value != "1"), "{missing}");
        eprintln!("skipped: {missing}");
        return None;
    }
    let prepared = lab.store().prepare(&spec, lab.watch(), lab.cancel()).expect("an image");
    Some((lab, prepared))
}

/// Boots the kernel, and uses a test module and one of the kernel's own.
fn serves(mut lab: Lab, own: OwnKernel, release: &str) {
    let image = own.image_name();
    lab.add_kernel(own).unwrap();
    let runner = Runner::new(&lab, Options::default(), &Unwatched);
    let mut session = runner.session(image, &["refmod"]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(session.guest().hello().unwrap().release, release);
    assert_eq!(session.load("refmod", false, "", false).unwrap().answer, Ok(()));
    assert_eq!(session.unload("refmod", false).unwrap(), Ok(()));
    assert_eq!(session.load("loop", true, "", false).unwrap().answer, Ok(()));
    assert_eq!(session.unload("loop", false).unwrap(), Ok(()));
    assert_eq!(session.unload("loop", false).unwrap(), Err(Errno::ENOENT));
    assert!(session.load("no_such_module", true, "", false).is_err());
}

#[rstest]
#[case::x86_64("x86_64")]
#[case::arm("arm")]
#[case::ppc64le("ppc64le")]
fn a_kernel_of_files_boots_with_its_modules_and_headers(#[case] image: &str) {
    let Some((lab, prepared)) = prepared(image) else { return };
    let files = KernelFiles {
        kernel: prepared.plain_kernel.clone(),
        modules: Some(prepared.modules_dir.clone()),
        headers: prepared.headers.as_ref().map(|headers| headers.dir.clone()),
    };
    serves(lab, OwnKernel::Files(files), &prepared.release);
}

/// Puts into `dir` what a build of the image's kernel would have left there, as far as it is used.
fn build(dir: &Path, prepared: &Prepared, boot_file: &str, modules: &[&str]) {
    let headers = &prepared.headers.as_ref().expect("headers").dir;
    for entry in fs::read_dir(headers).unwrap() {
        let name = entry.unwrap().file_name();
        if name != "Makefile" && name != "arch" {
            symlink(headers.join(&name), dir.join(&name)).unwrap();
        }
    }
    fs::write(dir.join("Makefile"), format!("include {}/Makefile\n", headers.display())).unwrap();
    let boot_file = dir.join(boot_file);
    fs::create_dir_all(boot_file.parent().unwrap()).unwrap();
    for entry in fs::read_dir(headers.join("arch")).unwrap() {
        let arch = entry.unwrap();
        fs::create_dir_all(dir.join("arch").join(arch.file_name())).unwrap();
        for below in fs::read_dir(arch.path()).unwrap() {
            let below = below.unwrap();
            symlink(below.path(), dir.join("arch").join(arch.file_name()).join(below.file_name())).unwrap();
        }
    }
    fs::copy(&prepared.plain_kernel, boot_file).unwrap();
    let known = prepared.modules().unwrap();
    let mut order = String::new();
    for name in modules.iter().flat_map(|module| known.load_order(module).expect("a module")) {
        let path = known.path(name).expect("a loadable module");
        let path = format!("{}.ko", path.split(".ko").next().unwrap());
        fs::create_dir_all(dir.join(&path).parent().unwrap()).unwrap();
        fs::write(dir.join(&path), prepared.module(&known, name).unwrap().unwrap()).unwrap();
        order.push_str(&format!("{path}\n"));
    }
    fs::write(dir.join("modules.order"), order).unwrap();
    fs::copy(prepared.modules_dir.join("modules.builtin"), dir.join("modules.builtin")).unwrap();
}

#[rstest]
#[case::x86_64("x86_64", "arch/x86/boot/bzImage")]
#[case::arm("arm", "arch/arm/boot/zImage")]
#[case::ppc64le("ppc64le", "vmlinux")]
fn a_tree_boots_with_the_modules_that_it_lists(#[case] image: &str, #[case] boot_file: &str) {
    let Some((lab, prepared)) = prepared(image) else { return };
    let dir = tempfile::tempdir().unwrap();
    build(dir.path(), &prepared, boot_file, &["virtio_pci", "virtio_console", "loop"]);
    serves(lab, OwnKernel::Tree(KernelTree::new(dir.path())), &prepared.release);
}

#[rstest]
#[case::x86_64("x86_64", "arch/x86/boot/bzImage")]
#[case::arm("arm", "arch/arm/boot/zImage")]
#[case::ppc64le("ppc64le", "vmlinux")]
fn a_kernel_without_virtio_is_reached_over_serial_ports(#[case] image: &str, #[case] boot_file: &str) {
    let Some((mut lab, prepared)) = prepared(image) else { return };
    let dir = tempfile::tempdir().unwrap();
    build(dir.path(), &prepared, boot_file, &["loop"]);
    let own = OwnKernel::Tree(KernelTree::new(dir.path()));
    lab.add_kernel(own).unwrap();
    let runner = Runner::new(&lab, Options::default(), &Unwatched);
    let mut session = runner.session("tree", &["refmod"]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(session.start().kind, StartKind::Warm);
    let arguments = session.guest().read_file("/proc/cmdline", 4096).unwrap().unwrap();
    assert!(String::from_utf8_lossy(&arguments).contains(" kmodlab.control="));
    // More than any buffer on the way takes, with what lines are known to alter: line ends, NUL, flow control.
    let bytes: Vec<u8> =
        (0..25_000_u32).flat_map(|i| [i.to_le_bytes()[0], b'\r', 0, 0x1b, 0x11, 0x13, 0xff, b'\n']).collect();
    let guest = session.guest();
    guest.set_limit(Duration::from_secs(120));
    for part in bytes.chunks(400_000) {
        assert_eq!(guest.write_file("/tmp/x", WriteMode::Append, 0o644, part).unwrap(), Ok(()));
    }
    let read = guest.read_file("/tmp/x", 1 << 24).unwrap().unwrap();
    assert!(read == bytes, "{} of {} bytes, or others", read.len(), bytes.len());
    assert_eq!(session.load("refmod", false, "", false).unwrap().answer, Ok(()));
    session.guest().sync(Port::Log).unwrap();
    let loaded = |record: &LogRecord| record.text.starts_with("refmod: ");
    assert!(session.guest().streams().records().iter().any(loaded));
    assert_eq!(session.unload("refmod", false).unwrap(), Ok(()));
}
