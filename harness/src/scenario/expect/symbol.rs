//! Names of functions, as kernels print them.

use crate::scenario::Pattern;

/// Whether a function that a kernel printed is the one meant.
///
/// A kernel may print it with the dot of big-endian ppc64's text symbols, with an offset (`+0x10/0x40`), with the
/// module (` [loop]`), with a suffix that the compiler added to its copy (`.part.0`, `.isra.0`, `.constprop.0`, `.cold`,
/// `.llvm.1`). The pattern matches with them
/// or without.
pub(super) fn matches(pattern: &Pattern, printed: &str) -> bool {
    spellings(printed).any(|spelling| pattern.is(spelling))
}

/// The first of the patterns that is not in its place in a call chain: they follow each other there, with any functions
/// between them.
pub(super) fn missing<'p>(patterns: &'p [Pattern], chain: &[String]) -> Option<&'p Pattern> {
    let mut functions = chain.iter();
    patterns.iter().find(|pattern| !functions.any(|function| matches(pattern, function)))
}

/// From what was printed down to the bare name.
fn spellings(printed: &str) -> impl Iterator<Item = &str> {
    let function = printed.split(" [").next().unwrap_or(printed).trim();
    let plain = function.split("+0x").next().unwrap_or(function);
    let undotted = plain.trim_start_matches('.');
    let bare = undotted.split('.').next().unwrap_or(undotted);
    [printed, function, plain, undotted, bare].into_iter()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("kernel_clone", "kernel_clone", true)]
    #[case("kernel_clone", ".kernel_clone", true)]
    #[case(".kernel_clone", ".kernel_clone", true)]
    #[case(".kernel_clone", "kernel_clone", false)]
    #[case("blkdev_get_by_dev", "blkdev_get_by_dev.part.0", true)]
    #[case("blkdev_get_by_dev.part.0", "blkdev_get_by_dev.part.0", true)]
    #[case("blkdev_get_by_dev.part.1", "blkdev_get_by_dev.part.0", false)]
    #[case("lo_open", "lo_open+0x20/0x80 [loop]", true)]
    #[case("/^lo_/", ".lo_open+0x20/0x80 [loop]", true)]
    #[case("lo_open", "lo_opened", false)]
    #[case("open", "lo_open", false)]
    fn functions_match(#[case] pattern: &str, #[case] printed: &str, #[case] expected: bool) {
        assert_eq!(matches(&Pattern::new(pattern).unwrap(), printed), expected);
    }
}
