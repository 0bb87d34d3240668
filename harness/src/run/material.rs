//! The modules that a guest may load: test modules that were built, and the kernel's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use fs_err as fs;

use super::code;
use super::counts::Way;
use super::runner::Image;
use super::session::kernel_name;
use crate::arch::Arch;
use crate::coverage::{Notes, Origin};
use crate::image::compiler::{Compiler, Missing};
use crate::module::{Built, Lines};
use crate::process;
use crate::work::Cancel;

/// A module's file, ready to be put into a guest.
#[derive(Debug, Clone)]
pub(super) struct ModuleFile {
    /// The module's name, as the kernel has it.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The modules that a case may use.
#[derive(Debug)]
pub(super) struct Material {
    image: Arc<Image>,
    built: BTreeMap<String, Vec<Built>>,
}

impl Material {
    pub(super) fn new(image: Arc<Image>, built: BTreeMap<String, Vec<Built>>) -> Self {
        Material { image, built }
    }

    /// The architecture.
    pub(super) fn arch(&self) -> Arch {
        self.image.prepared.spec.arch
    }

    /// The test modules, by the kernel's names for them, and their files with debugging information.
    pub(super) fn debug_files(&self) -> BTreeMap<String, PathBuf> {
        self.built.values().flatten().map(|module| (kernel_name(&module.name), module.debug())).collect()
    }

    /// The kernel with debugging information, where it was built in a tree.
    pub(super) fn vmlinux(&self) -> Option<PathBuf> {
        let tree = self.image.prepared.headers.as_ref()?;
        Some(tree.dir.join("vmlinux")).filter(|file| file.is_file())
    }

    /// How the kernel says what it executes.
    pub(super) fn way(&self) -> Result<Way, super::counts::Error> {
        Way::of(&self.image.prepared)
    }

    /// Whether the kernel's configuration has an option set.
    pub(super) fn has_config(&self, name: &str) -> bool {
        self.image.prepared.config.is_set(name)
    }

    /// The list of the kernel's symbols at the addresses that they were linked to, where it was built in a tree.
    pub(super) fn system_map(&self) -> Option<PathBuf> {
        let tree = self.image.prepared.headers.as_ref()?;
        Some(tree.dir.join("System.map")).filter(|file| file.is_file())
    }

    /// Does something with the lines of the kernel's own sources, where it has debug information. They are read once for all
    /// cases.
    pub(super) fn with_kernel_lines(&self, with: impl FnOnce(&Lines)) {
        let mut lines = self.image.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = lines.get_or_insert_with(|| self.vmlinux().and_then(|file| code::read(&file))) {
            with(lines);
        }
    }

    /// The path of a source file as the debug information of a module, or of the kernel, has it.
    pub(super) fn source(&self, module: &str, file: &str) -> PathBuf {
        let is = |built: &&Built| kernel_name(&built.name) == module;
        let tree = self.image.prepared.headers.as_ref().map(|tree| tree.dir.as_path());
        let (Some(built), Some(tree)) = (self.built.values().flatten().find(is), tree) else {
            return Origin::Kernel.source(Path::new(""), Path::new(file));
        };
        let origin = Origin::Module { name: built.name.clone(), dir: built.dir.clone() };
        // The compiler ran in the tree, by whatever path it got there.
        let real = fs::canonicalize(tree).unwrap_or_else(|_| tree.to_owned());
        let file = Path::new(file);
        let below = file.strip_prefix(tree).or_else(|_| file.strip_prefix(&real)).unwrap_or(file);
        origin.source(tree, below)
    }

    /// What gcc noted for gcov of all that may count its lines: of test modules, and of a kernel that was built in a tree.
    pub(super) fn notes(&self, cancel: &Cancel) -> Result<Vec<Notes>, Missing> {
        let gcov = format!("{}gcov", Compiler::find(self.arch(), cancel)?.prefix);
        let of_module = |module: &Built| Notes {
            dir: module.notes(),
            gcov: gcov.clone(),
            origin: Origin::Module { name: module.name.clone(), dir: module.dir.clone() },
        };
        let mut notes: Vec<Notes> = self.built.values().flatten().map(of_module).collect();
        if let Some(tree) = &self.image.prepared.headers {
            // Its compiler need not be the one that modules are built with: gcov reads what its own gcc wrote.
            let version =
                self.image.prepared.config.get("GCC_VERSION").and_then(|text| text.parse::<u32>().ok());
            let own = version.map(|version| format!("{gcov}-{}", version / 10_000));
            let gcov = own.filter(|own| process::find(own).is_some()).unwrap_or(gcov);
            notes.push(Notes { dir: tree.dir.clone(), gcov, origin: Origin::Kernel });
        }
        Ok(notes)
    }

    /// The path of a source file as seen from the kernel's sources, or from the folder of test modules.
    pub(super) fn short_path(&self, file: &str) -> String {
        let tree = self.image.prepared.headers.as_ref().map(|tree| tree.dir.as_path());
        // A folder that `O=` named has a link to where the sources are.
        let sources = tree.and_then(|tree| fs::canonicalize(tree.join("source")).ok());
        let mut places = sources.as_deref().into_iter().chain(tree);
        let short = places.find_map(|place| Path::new(file).strip_prefix(place).ok());
        short.map_or_else(|| file.to_owned(), |short| short.display().to_string())
    }

    /// A module's file, behind those of everything it needs; nothing where it is built into the kernel.
    pub(super) fn files(&self, name: &str, in_tree: bool) -> Result<Vec<ModuleFile>, String> {
        let files: Vec<(String, Vec<u8>)> =
            if in_tree { self.in_tree(name)? } else { self.test_module(name)? };
        Ok(files.into_iter().map(|(name, bytes)| ModuleFile { name, bytes }).collect())
    }

    fn test_module(&self, name: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let built = self.built.get(name).ok_or_else(|| format!("module `{name}` was not built"))?;
        let read = |module: &Built| Ok((kernel_name(&module.name), fs::read(module.ko())?));
        built.iter().map(read).collect::<std::io::Result<_>>().map_err(|error| error.to_string())
    }

    fn in_tree(&self, name: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let (prepared, modules) = (&self.image.prepared, &self.image.modules);
        let unknown = || format!("the kernel of image `{}` has no module `{name}`", prepared.spec.name);
        let order = modules.load_order(name).ok_or_else(unknown)?;
        let read = |name: &str| {
            let bytes = prepared.module(modules, name).map_err(|error| error.to_string())?;
            Ok((kernel_name(name), bytes.ok_or_else(unknown)?))
        };
        order.into_iter().map(read).collect()
    }
}
