//! Where in the sources the functions are that a kernel's report names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::material::Material;
use super::outcome::CodePlace;
use crate::console::{NamedPlace, Splat};
use crate::module::Lines;

/// No file with debug information is larger, in bytes.
const LARGEST: u64 = 1 << 30;

/// The places that a report names, as far as the modules and the kernel of a case have debug information.
pub(super) fn places(splat: &Splat, material: &Material) -> Vec<CodePlace> {
    let modules = material.debug_files();
    let kernel = material.vmlinux();
    let mut known: HashMap<PathBuf, Option<Lines>> = HashMap::new();
    let mut places = Vec::new();
    for (at, line) in splat.lines.iter().enumerate() {
        let Some(named) = NamedPlace::find(line) else { continue };
        let file = named.module.as_ref().map_or(kernel.as_ref(), |module| modules.get(module));
        let Some(file) = file else { continue };
        let Some(lines) = known.entry(file.clone()).or_insert_with(|| read(file)) else { continue };
        let offset = if named.is_return { named.offset.saturating_sub(1) } else { named.offset };
        places.extend(lines.find(&named.function, offset, named.size).into_iter().map(|found| CodePlace {
            at,
            function: found.function,
            file: material.short_path(&found.file),
            line: found.line,
        }));
    }
    places
}

/// What cannot be read has no lines: the report is whole without them.
pub(super) fn read(file: &Path) -> Option<Lines> {
    let small = fs::metadata(file).is_ok_and(|data| data.len() <= LARGEST);
    fs::read(file).ok().filter(|_| small).and_then(|elf| Lines::read(&elf).ok())
}
