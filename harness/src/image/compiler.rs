//! The C compiler for an architecture.

use std::path::PathBuf;

use crate::arch::Arch;
use crate::process::{self, Command};
use crate::work::Cancel;

/// No compiler makes programs for the architecture.
#[derive(Debug, thiserror::Error)]
#[error(
    "no C compiler for {arch}: `{cross}gcc` is not installed\n\
     install the packages `{}` and `{}`",
    packages(*arch)[0], packages(*arch)[1], cross = arch.cross
)]
pub struct Missing {
    arch: Arch,
}

/// The Debian packages that a compiler for an architecture, and the C library to link with, come in on this host.
pub fn packages(arch: Arch) -> [&'static str; 2] {
    let host = rustix::system::uname().machine().to_string_lossy().into_owned();
    // Debian has no cross compiler for what the host itself is.
    match host == arch.uname {
        true => ["gcc", "libc6-dev"],
        false => [arch.cross_package, arch.libc_package],
    }
}

/// A C compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// Its program.
    pub program: PathBuf,
    /// The prefix of its tools' names, for kbuild's `CROSS_COMPILE`; empty for the host's own.
    pub prefix: &'static str,
}

impl Compiler {
    /// The cross compiler of the architecture, or else the host's own where that is the architecture.
    ///
    /// # Errors
    ///
    /// Where there is neither.
    pub fn find(arch: Arch, cancel: &Cancel) -> Result<Self, Missing> {
        if let Some(program) = process::find(&format!("{}gcc", arch.cross)) {
            return Ok(Compiler { program, prefix: arch.cross });
        }
        let native = Compiler::native(arch, cancel);
        native.map(|program| Compiler { program, prefix: "" }).ok_or(Missing { arch })
    }

    /// What kbuild is told as `CROSS_COMPILE` for a tree of the user's: nothing where the host's own compiler serves. That
    /// is what a plain `make` takes, and another one would build everything anew.
    ///
    /// # Errors
    ///
    /// Where there is no compiler.
    pub fn kbuild_prefix(arch: Arch, cancel: &Cancel) -> Result<Option<&'static str>, Missing> {
        match Compiler::native(arch, cancel) {
            Some(_) => Ok(None),
            None => Compiler::find(arch, cancel).map(|compiler| Some(compiler.prefix)),
        }
    }

    /// The host's own compiler, where it is for the architecture.
    fn native(arch: Arch, cancel: &Cancel) -> Option<PathBuf> {
        process::find("gcc").filter(|gcc| {
            let mut command = Command::new(gcc);
            command.arg("-dumpmachine");
            let machine = command.check(cancel).map(|output| output.stdout).unwrap_or_default();
            is_for(&String::from_utf8_lossy(&machine), arch.cross)
        })
    }
}

/// Whether the machine that a compiler says it is for, such as `x86_64-pc-linux-gnu`, is that of a prefix: alike but for
/// the vendor.
fn is_for(machine: &str, prefix: &str) -> bool {
    let parts =
        |name: &str| name.trim().trim_end_matches('-').split('-').map(str::to_owned).collect::<Vec<_>>();
    let (machine, wanted) = (parts(machine), parts(prefix));
    machine.first() == wanted.first() && machine.ends_with(wanted.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_do_not_matter_and_the_rest_does() {
        let prefix = "arm-linux-gnueabihf-";
        assert!(is_for("arm-linux-gnueabihf\n", prefix) && is_for("arm-unknown-linux-gnueabihf", prefix));
        assert!(
            !is_for("arm-linux-gnueabi", prefix)
                && !is_for("x86_64-linux-gnu", prefix)
                && !is_for("", prefix)
        );
    }

    #[test]
    fn a_missing_compiler_is_told_with_its_packages() {
        let text = Missing { arch: "arm".parse().unwrap() }.to_string();
        assert!(text.contains("`gcc-arm-linux-gnueabihf` and `libc6-dev-armhf-cross`"), "{text}");
    }
}
