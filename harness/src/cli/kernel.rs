//! `kmodlab kconfig`

use super::say;
use crate::arch::Arch;
use crate::image::kconfig::Fragment;

/// Prints what a kernel needs for guests of an architecture.
pub(super) fn kconfig(arch: Arch) -> u8 {
    say(Fragment::full(arch).text().trim_end());
    0
}
