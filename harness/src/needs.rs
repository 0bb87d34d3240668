//! What this machine lacks for guests of an architecture.

use crate::arch::Arch;
use crate::gdb;
use crate::image::compiler::{self, Compiler};
use crate::image::source::{MissingTool, missing_tools};
use crate::image::spec::Image;
use crate::process;
use crate::scenario::Scenario;
use crate::scenario::step::Action;
use crate::work::Cancel;

/// Set to `1` where tests that need a guest must run: what is missing is then a failure and no reason to skip them.
pub const REQUIRE_VM: &str = "KMODLAB_REQUIRE_VM";

/// Something that is not installed.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// QEMU.
    #[error("`{program}` is not installed\ninstall the package `{package}`")]
    Qemu {
        /// Its program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The compiler for modules and for the guest's agent.
    #[error(transparent)]
    Compiler(#[from] compiler::Missing),
    /// What builds from source take.
    #[error(transparent)]
    Tool(#[from] MissingTool),
    /// The debugger.
    #[error(transparent)]
    Gdb(#[from] gdb::Error),
}

/// The first thing that is missing for an architecture, if anything is.
pub fn missing(arch: Arch, cancel: &Cancel) -> Option<Missing> {
    if process::find(arch.qemu).is_none() {
        return Some(Missing::Qemu { program: arch.qemu, package: arch.qemu_package });
    }
    Compiler::find(arch, cancel).err().map(Missing::from)
}

/// The first thing that is missing for an image, if anything is.
pub fn missing_for_image(image: &Image, cancel: &Cancel) -> Option<Missing> {
    let tool = || missing_tools(cancel).into_iter().next().map(Missing::from);
    missing(image.arch, cancel).or_else(|| image.is_built_from_source().then(tool).flatten())
}

/// What is missing for a scenario besides, if anything is.
pub fn missing_for(scenario: &Scenario) -> Option<Missing> {
    let breaks = scenario.steps.iter().any(|step| matches!(step.action, Action::Break(_)));
    (breaks && process::find(gdb::GDB).is_none()).then_some(Missing::Gdb(gdb::Error::Missing))
}
