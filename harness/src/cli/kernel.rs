//! `kmodlab kernel`, `kmodlab kconfig`

use std::path::Path;

use super::args::Kernel;
use super::{Context, Stop, say};
use crate::arch::Arch;
use crate::image::kconfig::Fragment;
use crate::image::own::{KernelFiles, OwnKernel};
use crate::image::source::Builder;
use crate::image::spec::DebianSource;

/// What stands for Debian's package of a kernel's sources.
const LINUX_SOURCE: &str = "linux-source";

/// Builds a kernel.
pub(super) fn kernel(context: &Context, command: &Kernel) -> Result<u8, Stop> {
    let Kernel::Build { source, arch, suite } = command;
    let lab = context.lab()?;
    let builder = Builder::new(lab.cache(), *arch, lab.watch(), lab.cancel());
    let built = if source.as_path() == Path::new(LINUX_SOURCE) {
        builder.debian_kernel(&DebianSource { suite: suite.clone() }).map(|(kernel, _)| kernel)
    } else {
        builder.tree_kernel(source)
    };
    let built = built.map_err(|error| Stop::error(&error))?;
    let (kernel, modules, headers) =
        (built.entry.join("kernel"), built.entry.join("modules"), built.headers());
    let config = built.entry.join("config");
    for (what, path) in
        [("kernel", &kernel), ("config", &config), ("modules", &modules), ("headers", &headers)]
    {
        say(format_args!("{what:<8} {}", path.display()));
    }
    let own = OwnKernel::Files(KernelFiles { kernel, modules: Some(modules), headers: Some(headers) });
    say(format_args!("run scenarios on it: kmodlab run {}", own.arguments()));
    Ok(0)
}

/// Prints what a kernel needs for guests of an architecture.
pub(super) fn kconfig(arch: Arch) -> u8 {
    say(Fragment::full(arch).text().trim_end());
    0
}
