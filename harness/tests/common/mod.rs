//! What the integration tests that run guests share.
//!
//! Whether a guest can run here is known only at run time, and libtest cannot ignore a test then: such tests are trials of
//! libtest-mimic, in a target with `harness = false`, each made by [`vm_trial`].

use std::path::{Path, PathBuf};

use kmodlab::arch::Arch;
use kmodlab::image::compiler::Compiler;
use kmodlab::process;
use kmodlab::work::Cancel;
use libtest_mimic::{Failed, Trial};

/// The environment variable that, set to anything but 0, says that guests must run: what is missing for them then fails
/// their tests.
pub(crate) const REQUIRE_VM: &str = "KMODLAB_REQUIRE_VM";

/// The architecture of that name in the harness's table.
pub(crate) fn arch(name: &str) -> Arch {
    name.parse().unwrap()
}

/// The repository, which is a project of the harness's.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A folder for what tests keep from one run to the next.
pub(crate) fn kept() -> PathBuf {
    env!("CARGO_TARGET_TMPDIR").into()
}

/// What guests of the architecture lack on this machine; nothing where they can run.
pub(crate) fn missing(arch: Arch) -> Option<String> {
    let cancel = Cancel::new().unwrap();
    let mut missing = Vec::new();
    missing.extend([arch.qemu, "make"].into_iter().filter(|program| process::find(program).is_none()));
    let gcc = format!("{}gcc", arch.cross);
    if Compiler::find(arch, &cancel).is_err() {
        missing.push(&gcc);
    }
    (!missing.is_empty()).then(|| format!("needs {}", missing.join(", ")))
}

/// A test that runs guests of an architecture. Where they cannot run it is ignored, and says why in its kind; where
/// they must, it fails.
pub(crate) fn vm_trial(arch: Arch, name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    let missing = missing(arch);
    let required = std::env::var_os(REQUIRE_VM).is_some_and(|value| !value.is_empty() && value != "0");
    let reason = missing.clone();
    let trial = Trial::test(name, move || match reason {
        Some(reason) => Err(Failed::from(reason)),
        None => {
            run();
            Ok(())
        }
    });
    match missing {
        Some(reason) if !required => trial.with_kind(reason).with_ignored_flag(true),
        _ => trial,
    }
}
