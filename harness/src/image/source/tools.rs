//! What a host needs to build kernels and userland from source, besides compilers.

use crate::process::{self, Command};
use crate::work::Cancel;

/// Something that builds from source need is not installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{what}` is not installed, which builds from source need\ninstall the package `{package}`")]
pub struct MissingTool {
    /// The program or header.
    pub what: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// The programs, and the packages that have them (the kernel's `Documentation/process/changes.rst`); dpkg-source unpacks
/// busybox's sources.
const PROGRAMS: [(&str, &str); 6] = [
    ("make", "make"),
    // Builds the tools that the build itself runs.
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("dpkg-source", "dpkg-dev"),
];

/// The header that objtool, which looks through x86 kernels, is compiled with.
const HEADER: MissingTool = MissingTool { what: "libelf.h", package: "libelf-dev" };

/// All that is missing on this host.
pub fn missing_tools(cancel: &Cancel) -> Vec<MissingTool> {
    let missing = PROGRAMS.iter().filter(|(program, _)| process::find(program).is_none());
    let mut missing: Vec<_> = missing.map(|&(what, package)| MissingTool { what, package }).collect();
    let mut compile = Command::new("gcc");
    compile.args(["-fsyntax-only", "-include", HEADER.what, "-x", "c", "/dev/null"]);
    if compile.check(cancel).is_err() {
        missing.push(HEADER);
    }
    missing
}
