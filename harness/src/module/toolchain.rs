//! The compilers for modules and for the guest's agent.

use crate::arch::Arch;
use crate::process::{self, Command};
use crate::work::Cancel;

/// A compiler for one architecture, and its tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// What its tools' names begin with, `CROSS_COMPILE` of kbuild; empty for the host's own.
    pub prefix: String,
    /// The compiler's own words on its version.
    pub version: String,
}

/// There is no compiler for that architecture.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "no compiler for {arch}: `{program}` is not installed\ninstall it: apt-get install {packages}",
    packages = packages(*arch)
)]
pub struct NoCompiler {
    /// The architecture.
    pub arch: Arch,
    /// The compiler that is missing.
    pub program: String,
}

/// The Debian packages of the compiler for an architecture.
fn packages(arch: Arch) -> String {
    match is_host(arch) {
        true => "gcc libc6-dev make".to_owned(),
        false => format!("{} {} make", arch.cross_package, arch.libc_package),
    }
}

/// Whether the host runs on that architecture.
fn is_host(arch: Arch) -> bool {
    arch.debian == host_debian()
}

/// Debian's name of the architecture that this program was built for.
pub fn host_debian() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "i386",
        "aarch64" => "arm64",
        "arm" => "armhf",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64el",
        "powerpc64" => "ppc64",
        other => other,
    }
}

impl Toolchain {
    /// The compiler for an architecture: the host's own where it is the same, else the cross compiler.
    ///
    /// # Errors
    ///
    /// [`NoCompiler`] names what to install.
    pub fn find(arch: Arch, cancel: &Cancel) -> Result<Self, super::Error> {
        let prefix = if is_host(arch) { "" } else { arch.cross };
        let program = format!("{prefix}gcc");
        if process::find(&program).is_none() {
            return Err(NoCompiler { arch, program }.into());
        }
        let mut command = Command::new(&program);
        command.arg("--version");
        let output = command.check(cancel)?;
        let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
        Ok(Toolchain { prefix: prefix.to_owned(), version })
    }

    /// The name of one of its tools, such as `gcc` or `strip`.
    pub fn tool(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
