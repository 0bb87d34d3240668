//! Images from Debian's archive: prepared, prepared again without the network, and what is said where something is
//! missing.
//!
//! The archive's mirror is named by the environment, which one process has once: each test runs this program anew, to
//! prepare in an environment of its own. Hence also its own `main`, through libtest-mimic, which can ignore tests with a
//! reason found at run time.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;

use kmodlab::arch::Arch;
use kmodlab::image::cache::Cache;
use kmodlab::image::debian::{Debian, MIRROR};
use kmodlab::image::prepare::{Prepared, Store};
use kmodlab::work::{Cancel, Unwatched};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Tells this program what to prepare instead of running tests: `image <name>`, `userland <name>`, or
/// `packages <name> <package>`.
const PREPARE: &str = "KMODLAB_TEST_PREPARE";
/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9/debian";

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    if let Ok(what) = std::env::var(PREPARE) {
        return prepare_and_say(&what);
    }
    let mut tests = vec![
        test("userland_is_fetched_once_and_then_served_offline", true, fetched_once),
        test("packages_come_with_what_they_depend_on", true, packages),
        test("an_empty_cache_without_the_network_is_told", true, no_network),
        test("a_host_without_apt_is_told", false, no_apt),
        test("an_apt_without_debian_is_told", true, no_mirror),
    ];
    for arch in ["x86_64", "arm", "ppc64le"] {
        tests.push(test(&format!("{arch}_is_prepared_and_again_offline"), true, move || prepared(arch)));
    }
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

fn test(name: &str, needs_apt: bool, run: impl Fn() -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        let must = std::env::var_os("KMODLAB_REQUIRE_VM").is_some();
        if needs_apt && !must && kmodlab::process::find("apt-get").is_none() {
            return Ok(Completion::ignored_with("apt-get is not installed"));
        }
        run().map(|()| Completion::Completed).map_err(|error| Failed::from(error.to_string()))
    })
}

fn store(cache: Option<&Path>) -> Result<Store> {
    let cache = Cache::open(cache, Arc::new(Unwatched))?;
    Ok(Store::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../images"), cache))
}

/// What a child process does: prepare, and print the error with its sources if there is one.
#[expect(clippy::print_stdout, reason = "the parent process reads it")]
fn prepare_and_say(what: &str) -> ExitCode {
    let prepare = || -> Result<()> {
        let store = store(None)?;
        let (kind, name) = what.split_once(' ').ok_or("what to prepare?")?;
        let (name, package) = name.split_once(' ').unwrap_or((name, ""));
        let (spec, cancel) = (store.image(name)?, Cancel::new()?);
        if kind == "packages" {
            let source = spec.userland.packages().ok_or("no userland of packages")?;
            let debian = Debian::new(store.cache(), spec.arch, &Unwatched, &cancel);
            for (package, _) in debian.packages_of(source, &[package.to_owned().try_into()?])? {
                println!("{package}");
            }
        } else if kind == "image" {
            store.prepare(&spec, &Unwatched, &cancel)?;
        } else {
            let source = spec.userland.packages().ok_or("no userland of packages")?;
            let userland = Debian::new(store.cache(), spec.arch, &Unwatched, &cancel).userland(source)?;
            println!("{}", userland.package);
        }
        Ok(())
    };
    let Err(error) = prepare() else { return ExitCode::SUCCESS };
    let first: &dyn Error = &*error;
    let sources = std::iter::successors(Some(first), |&error| error.source());
    println!("{}", sources.map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    ExitCode::FAILURE
}

/// This program again, to prepare in a changed environment.
fn child(what: &str, environment: &[(&str, &Path)]) -> Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(PREPARE, what).envs(environment.iter().copied());
    Ok(command.output()?)
}

fn succeeds(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("it failed:\n{text}").into()) }
}

fn fails_with(output: &Output, parts: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    match parts.iter().find(|part| !text.contains(**part)) {
        None => Ok(()),
        Some(part) => Err(format!("`{part}` is not in:\n{text}").into()),
    }
}

fn fetched_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cache = ("KMODLAB_CACHE", dir.path());
    let first = succeeds(&child("userland arm", &[cache])?)?;
    assert!(first.starts_with("busybox-static "), "{first}");
    let offline = (MIRROR, Path::new(NOWHERE));
    assert_eq!(succeeds(&child("userland arm", &[cache, offline])?)?, first);

    // What was resolved stays so until it is asked for anew.
    let store = store(Some(dir.path()))?;
    let packages =
        store.cache().list()?.into_iter().find(|entry| entry.kind == "packages").ok_or("no entry")?;
    assert!(packages.label.starts_with("busybox-static "));
    let (spec, cancel) = (store.image("arm")?, Cancel::new()?);
    store.refresh(&spec, &Unwatched, &cancel)?;
    fails_with(&child("userland arm", &[cache, offline])?, &[NOWHERE])?;

    // A package that is gone from the cache alone is fetched anew.
    assert_eq!(succeeds(&child("userland arm", &[cache])?)?, first);
    assert!(store.cache().remove(&packages.kind, &packages.key)?);
    assert_eq!(succeeds(&child("userland arm", &[cache])?)?, first);
    Ok(())
}

fn packages() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cache = ("KMODLAB_CACHE", dir.path());
    let first = succeeds(&child("packages arm libssl3", &[cache])?)?;
    let names: Vec<_> = first.lines().filter_map(|line| line.split(' ').next()).collect();
    // Its scripts alone need debconf.
    assert_eq!(names, ["gcc-12-base", "libgcc-s1", "libc6", "libssl3"], "{first}");
    assert!(first.lines().all(|line| line.ends_with(" armhf")), "{first}");
    let offline = (MIRROR, Path::new(NOWHERE));
    assert_eq!(succeeds(&child("packages arm libssl3", &[cache, offline])?)?, first);
    fails_with(
        &child("packages arm no-such-package", &[cache])?,
        &["Debian's bookworm has no `no-such-package` for armhf"],
    )?;

    let store = store(Some(dir.path()))?;
    store.refresh(&store.image("arm")?, &Unwatched, &Cancel::new()?)?;
    fails_with(&child("packages arm libssl3", &[cache, offline])?, &[NOWHERE])
}

fn no_network() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let output = child("image x86_64", &[("KMODLAB_CACHE", dir.path()), (MIRROR, Path::new(NOWHERE))])?;
    fails_with(&output, &["is the network there?", MIRROR, NOWHERE, "Connection refused"])?;
    assert_eq!(std::fs::read_dir(dir.path().join("tmp"))?.count(), 0, "nothing is left behind");
    Ok(())
}

fn no_apt() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let output = child("image x86_64", &[("KMODLAB_CACHE", dir.path()), ("PATH", dir.path())])?;
    fails_with(&output, &["is not installed, which fetches Debian's kernels", "use a kernel tree"])
}

fn no_mirror() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let conf = dir.path().join("apt.conf");
    // apt reads this file before all others: the host's own are turned off in it.
    std::fs::write(
        &conf,
        "Dir::Etc::Parts \"/dev/null\";\nDir::Etc::SourceList \"/dev/null\";\nDir::Etc::SourceParts \"-\";\n",
    )?;
    let output = child(
        "image x86_64",
        &[("KMODLAB_CACHE", dir.path()), ("APT_CONFIG", &conf), (MIRROR, Path::new(""))],
    )?;
    fails_with(&output, &["knows no mirror of Debian's main archive", MIRROR])
}

fn prepared(arch: &str) -> Result<()> {
    let store = store(None)?;
    let image = store.prepare(&store.image(arch)?, &Unwatched, &Cancel::new()?)?;
    check(&image)?;
    succeeds(&child(&format!("image {arch}"), &[(MIRROR, Path::new(NOWHERE))])?)?;
    Ok(())
}

/// What every image has.
fn check(image: &Prepared) -> Result<()> {
    let arch: Arch = image.spec.arch;
    let exists = |path: &PathBuf| assert!(path.exists(), "{}", path.display());
    let headers = &image.headers.as_ref().ok_or("no headers")?.dir;
    [&image.kernel, &image.plain_kernel, &image.modules_dir, headers].into_iter().for_each(exists);
    assert!(image.release.starts_with("6.1."), "{}", image.release);
    for option in ["KPROBES", "KRETPROBES", "MODULE_UNLOAD", "MODULE_FORCE_UNLOAD"] {
        assert!(image.config.is_set(option), "{option}");
    }
    assert_eq!(image.packages.len(), 5, "image, headers, common headers, kbuild, busybox");

    let modules = image.modules()?;
    let chain = modules.load_order("firewire-ohci").ok_or("no firewire-ohci")?;
    assert_eq!(chain, ["crc_itu_t", "firewire_core", "firewire_ohci"]);
    let module = image.module(&modules, "firewire_ohci")?.ok_or("no firewire_ohci")?;
    assert_eq!(&module[..4], b"\x7fELF");
    let machine = [module[18], module[19]];
    assert!(
        [arch.elf_machine.to_le_bytes(), arch.elf_machine.to_be_bytes()].contains(&machine),
        "{machine:?}"
    );

    let initramfs = std::fs::read(&image.initramfs)?;
    assert_eq!(&initramfs[..6], b"070701");
    let has = |text: &str| initramfs.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["bin/busybox\0", "bin/modprobe\0", "init\0", "/lib/modules/virtio_console.ko\n"] {
        assert!(has(text), "{text}");
    }
    let header = std::fs::read_to_string(headers.join("include/generated/utsrelease.h"))?;
    assert!(header.contains(&image.release), "{header}");
    assert!(headers.join("scripts/Makefile.build").exists(), "kbuild's tools");
    Ok(())
}
