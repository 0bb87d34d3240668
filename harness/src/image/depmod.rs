//! A kernel's own modules: what depmod(8) writes about them, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};

use super::compress::{self, Format};

/// Modules take a fifth of their size so, at a level that costs less time than their decompression from a package.
const LEVEL: i32 = 3;

/// The modules of a kernel, from `modules.dep`, `modules.builtin` and `modules.alias`.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    loadable: BTreeMap<String, Loadable>,
    builtin: BTreeSet<String>,
    aliases: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Clone)]
struct Loadable {
    path: String,
    /// Names of all modules to be loaded before it, the last one first, as in `modules.dep`.
    dependencies: Vec<String>,
}

impl Modules {
    /// Reads the texts of the three files; lines that make no sense are passed over.
    pub fn parse(dep: &str, builtin: &str, alias: &str) -> Self {
        let mut modules = Modules::default();
        for (path, dependencies) in dep.lines().filter_map(|line| line.split_once(':')) {
            let dependencies = dependencies.split_whitespace().map(name_of).collect();
            modules.loadable.insert(name_of(path), Loadable { path: path.to_owned(), dependencies });
        }
        modules.builtin = builtin.lines().filter(|line| !line.is_empty()).map(name_of).collect();
        for line in alias.lines() {
            if let ["alias", alias, module] = line.split_whitespace().collect::<Vec<_>>()[..] {
                modules.aliases.entry(alias.to_owned()).or_default().insert(name_of(module));
            }
        }
        modules
    }

    /// Whether it is part of the kernel itself.
    pub fn is_builtin(&self, module: &str) -> bool {
        self.builtin.contains(&name_of(module))
    }

    /// Whether it is there, loadable or built in.
    pub fn contains(&self, module: &str) -> bool {
        self.is_builtin(module) || self.loadable.contains_key(&name_of(module))
    }

    /// The names of all loadable modules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.loadable.keys().map(String::as_str)
    }

    /// The modules that have an alias, given without wildcards.
    pub fn with_alias(&self, alias: &str) -> impl Iterator<Item = &str> {
        self.aliases.get(alias).into_iter().flatten().map(String::as_str)
    }

    /// The file of a loadable module, below the kernel's module directory.
    pub fn path(&self, module: &str) -> Option<&str> {
        self.loadable.get(&name_of(module)).map(|module| module.path.as_str())
    }

    /// The modules to load for this one, in that order and itself last: none where it is built in. `None` where there
    /// is no such module, or one that it needs is missing.
    pub fn load_order(&self, module: &str) -> Option<Vec<&str>> {
        if self.is_builtin(module) {
            return Some(Vec::new());
        }
        let (name, module) = self.loadable.get_key_value(&name_of(module))?;
        let mut order = Vec::new();
        for dependency in module.dependencies.iter().rev().filter(|name| !self.builtin.contains(*name)) {
            order.push(self.loadable.get_key_value(dependency)?.0.as_str());
        }
        order.push(name);
        Some(order)
    }
}

/// The name that the kernel gives to a module: of its file's name or of its own, with `-` as `_`.
pub fn name_of(module: &str) -> String {
    let file = module.trim().rsplit('/').next().unwrap_or_default();
    let stem = file.split_once(".ko").map_or(file, |(stem, _)| stem);
    stem.replace('-', "_")
}

/// What a module says of itself (`MODULE_INFO` in the kernel's `include/linux/moduleparam.h`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Modules whose symbols it uses.
    pub depends: Vec<String>,
    /// Its aliases.
    pub aliases: Vec<String>,
    /// What it was built for: a kernel release and some options.
    pub vermagic: Option<String>,
}

impl ModInfo {
    /// Reads the `.modinfo` section of a module's ELF file; `None` where it has none.
    pub fn of(elf: &[u8]) -> Option<ModInfo> {
        let file = object::File::parse(elf).ok()?;
        let data = file.section_by_name(".modinfo")?.data().ok()?;
        let mut info = ModInfo::default();
        for entry in data.split(|&byte| byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok()) {
            match entry.split_once('=') {
                Some(("depends", names)) => {
                    info.depends = names.split(',').filter(|name| !name.is_empty()).map(name_of).collect();
                }
                Some(("alias", alias)) => info.aliases.push(alias.to_owned()),
                Some(("vermagic", magic)) => info.vermagic = Some(magic.to_owned()),
                _ => {}
            }
        }
        Some(info)
    }
}

/// Gathers modules, and writes what depmod would.
#[derive(Debug, Default)]
pub struct Index(BTreeMap<String, (String, ModInfo)>);

impl Index {
    /// Adds a module by its path below the module directory; whether it was not there yet.
    pub fn add(&mut self, path: &str, info: ModInfo) -> bool {
        self.0.insert(name_of(path), (path.to_owned(), info)).is_none()
    }

    /// The text of `modules.dep`.
    pub fn dep(&self) -> String {
        let mut text = String::new();
        for (name, (path, _)) in &self.0 {
            let mut order = Vec::new();
            self.visit(name, &mut order, &mut BTreeSet::new());
            order.pop();
            let dependencies = order.iter().rev().filter_map(|name| self.0.get(*name));
            let dependencies: String = dependencies.map(|(path, _)| format!(" {path}")).collect();
            text.push_str(&format!("{path}:{dependencies}\n"));
        }
        text
    }

    /// The text of `modules.alias`.
    pub fn alias(&self) -> String {
        let lines = |(name, (_, info)): (&String, &(String, ModInfo))| {
            info.aliases.iter().map(|alias| format!("alias {alias} {name}\n")).collect::<String>()
        };
        self.0.iter().map(lines).collect()
    }

    /// Appends the module and all that it needs, what is needed first. Cycles are cut: modpost allows none.
    fn visit<'a>(&'a self, name: &'a str, order: &mut Vec<&'a str>, seen: &mut BTreeSet<&'a str>) {
        if !seen.insert(name) {
            return;
        }
        let Some((_, info)) = self.0.get(name) else { return };
        for dependency in &info.depends {
            self.visit(dependency, order, seen);
        }
        order.push(name);
    }
}

/// A module's file as it is kept: compressed, where it is not yet, under the path that goes with that. It is indexed.
///
/// # Errors
///
/// Where it cannot be compressed, or its compressed data is broken.
pub fn pack(index: &mut Index, path: &Path, content: Vec<u8>) -> io::Result<(PathBuf, Vec<u8>)> {
    let name = path.to_string_lossy().into_owned();
    if !name.ends_with(".ko") {
        let elf = decompress(content.clone())?;
        index.add(&name, ModInfo::of(&elf).unwrap_or_default());
        return Ok((name.into(), content));
    }
    let packed = format!("{name}.zst");
    index.add(&packed, ModInfo::of(&content).unwrap_or_default());
    Ok((packed.into(), zstd::bulk::compress(&content, LEVEL)?))
}

/// The ELF file in a module's file, which may be compressed.
///
/// # Errors
///
/// Where the compressed data is broken.
pub fn decompress(file: Vec<u8>) -> io::Result<Vec<u8>> {
    match Format::of(&file) {
        Some(format) => compress::decompress(format, &file),
        None => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Modules {
        Modules::parse(
            "kernel/lib/crc-itu-t.ko:\n\
             kernel/drivers/firewire/firewire-core.ko.xz: kernel/lib/crc-itu-t.ko\n\
             kernel/drivers/firewire/firewire-ohci.ko: kernel/drivers/firewire/firewire-core.ko kernel/lib/crc-itu-t.ko\n\
             kernel/x.ko: kernel/fs/ext4.ko\nkernel/y.ko: kernel/gone.ko\nnonsense\n",
            "kernel/fs/ext4.ko\nkernel/drivers/virtio/virtio.ko\n",
            "# comment\nalias char-major-10-1 firewire-core\nalias net-pf-* x\nalias short\n",
        )
    }

    #[test]
    fn dependencies_come_first_and_dashes_are_underscores() {
        let modules = modules();
        let chain = ["crc_itu_t", "firewire_core", "firewire_ohci"];
        assert_eq!(modules.load_order("firewire-ohci").unwrap(), chain);
        assert_eq!(modules.load_order("firewire_ohci.ko").unwrap(), chain);
        assert_eq!(modules.path("firewire_core"), Some("kernel/drivers/firewire/firewire-core.ko.xz"));
        assert_eq!(modules.load_order("crc_itu_t").unwrap(), ["crc_itu_t"]);
    }

    #[test]
    fn built_in_modules_need_no_loading_and_missing_ones_are_told() {
        let modules = modules();
        assert_eq!(modules.load_order("virtio").unwrap(), [""; 0]);
        assert_eq!(modules.load_order("x").unwrap(), ["x"]);
        assert_eq!((modules.load_order("y"), modules.load_order("gone")), (None, None));
        assert!(modules.contains("virtio") && modules.contains("x") && !modules.contains("gone"));
        assert_eq!(modules.with_alias("char-major-10-1").collect::<Vec<_>>(), ["firewire_core"]);
        assert_eq!(modules.names().count(), 5);
    }

    #[test]
    fn an_index_is_written_as_depmod_would() {
        let info = |depends: &[&str], aliases: &[&str]| ModInfo {
            depends: depends.iter().map(|name| (*name).to_owned()).collect(),
            aliases: aliases.iter().map(|name| (*name).to_owned()).collect(),
            vermagic: None,
        };
        let mut index = Index::default();
        index.add("kernel/a/b-c.ko", info(&["d", "e"], &["x-*", "y"]));
        index.add("kernel/d.ko", info(&["e"], &[]));
        index.add("kernel/e.ko", info(&["virtio"], &[]));
        index.add("kernel/loop1.ko", info(&["loop2"], &[]));
        index.add("kernel/loop2.ko", info(&["loop1"], &[]));
        assert!(index.dep().starts_with(
            "kernel/a/b-c.ko: kernel/d.ko kernel/e.ko\nkernel/d.ko: kernel/e.ko\nkernel/e.ko:\n"
        ));
        assert_eq!(index.alias(), "alias x-* b_c\nalias y b_c\n");
        let modules = Modules::parse(&index.dep(), "", &index.alias());
        assert_eq!(modules.load_order("b_c").unwrap(), ["e", "d", "b_c"]);
    }

    #[test]
    fn modinfo_is_read_from_elf_and_from_nothing_else() {
        assert_eq!(ModInfo::of(b"\x7fELF"), None);
        assert_eq!(ModInfo::of(b""), None);
    }
}
