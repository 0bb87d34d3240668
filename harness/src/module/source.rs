//! The sources of test modules: a folder each, with a Kbuild.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Error;

/// What a Kbuild says, in a comment, of the test modules whose symbols this one uses.
const NEEDS: &str = "# needs:";

/// The folder that all test modules share.
pub(super) const INCLUDE: &str = "include";

/// One module's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The module's name, and its folder's.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// The modules whose symbols it uses, which are built and loaded before it.
    pub needs: Vec<String>,
    /// The one file of the folder that it is made of, where the folder has no Kbuild for it.
    pub file: Option<String>,
}

impl Source {
    /// The Kbuild of a module that is a file by itself; `None` where the folder has one.
    pub(super) fn kbuild(&self) -> io::Result<Option<String>> {
        let Some(file) = &self.file else { return Ok(None) };
        let text = String::from_utf8_lossy(&fs::read(self.dir.join(file))?).into_owned();
        // It asks for the option that it belongs to, which only Kconfig would define (include/linux/kconfig.h): such is
        // KPROBES_SANITY_TEST in lib/test_kprobes.c, which as a module leaves out what is not exported.
        let flags: String = module_options(&text).map(|option| format!(" -D{option}_MODULE=1")).collect();
        Ok(Some(format!("obj-m := {}.o\nccflags-y :={flags}\n", self.name)))
    }
}

/// The options of which the text asks whether they are modules.
fn module_options(text: &str) -> impl Iterator<Item = &str> {
    let asked = text.split("IS_MODULE(").skip(1).filter_map(|rest| rest.split_once(')'));
    asked.map(|(option, _)| option.trim()).filter(|option| {
        option.starts_with("CONFIG_") && option.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Every test module of a folder.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    dir: PathBuf,
    modules: BTreeMap<String, Source>,
}

impl Sources {
    /// Reads what modules `dir` has.
    ///
    /// # Errors
    ///
    /// Where a folder or a Kbuild cannot be read.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut modules = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let dir = entry?.path();
            let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { continue };
            let Ok(kbuild) = fs::read_to_string(dir.join("Kbuild")) else { continue };
            let source =
                Source { name: name.to_owned(), dir: dir.clone(), needs: needs(&kbuild), file: None };
            modules.insert(name.to_owned(), source);
        }
        Ok(Sources { dir: dir.to_owned(), modules })
    }

    /// The one source folder `dir`, which need not lie among the test modules.
    ///
    /// # Errors
    ///
    /// Where there is no Kbuild in it.
    pub fn single(dir: &Path) -> io::Result<Self> {
        let dir = fs::canonicalize(dir)?;
        let kbuild =
            fs::read_to_string(dir.join("Kbuild")).or_else(|_| fs::read_to_string(dir.join("Makefile")))?;
        let name = object_name(&kbuild).ok_or_else(|| {
            io::Error::other(format!("`{}` has no Kbuild that says `obj-m := NAME.o`", dir.display()))
        })?;
        let source = Source { name: name.clone(), dir: dir.clone(), needs: needs(&kbuild), file: None };
        Ok(Sources {
            dir: dir.parent().unwrap_or(&dir).to_owned(),
            modules: BTreeMap::from([(name, source)]),
        })
    }

    /// The module in the file `file` of a kernel's `sources`: of a tree, or as [`crate::image::prepare::Store::sources`] has them; with
    /// its name.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] where it is not there, or is no module by itself.
    pub fn of_kernel(sources: &Path, file: &str) -> Result<(Self, String), Error> {
        let path = sources.join(file);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Where Debian's sources were unpacked, each such file has a folder of its own, of the file's name.
        let alone = path.file_name().map(|name| path.join(name)).filter(|file| file.is_file());
        let path = alone.unwrap_or(path);
        if path.is_file() && path.extension().is_some_and(|extension| extension == "c") {
            let source = Source {
                name: name.clone(),
                dir: path.parent().unwrap_or(sources).to_owned(),
                needs: Vec::new(),
                file: path.file_name().and_then(OsStr::to_str).map(str::to_owned),
            };
            // What lies beside the folder is none of the module's.
            return Ok((Sources { dir: path, modules: BTreeMap::from([(name.clone(), source)]) }, name));
        }
        let unknown = || Error::Unknown { name: file.to_owned(), dir: "the kernel's sources".to_owned() };
        let sources =
            Some(path).filter(|dir| dir.is_dir()).map(|dir| Sources::single(&dir)).ok_or_else(unknown)??;
        Ok((sources, name))
    }

    /// The folder that holds the modules' folders.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The headers that the modules share, where there are any.
    pub(super) fn include(&self) -> Option<PathBuf> {
        Some(self.dir.join(INCLUDE)).filter(|dir| dir.is_dir())
    }

    /// Every module, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.modules.values()
    }

    /// The module of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`].
    pub fn get(&self, name: &str) -> Result<&Source, Error> {
        self.modules
            .get(name)
            .ok_or_else(|| Error::Unknown { name: name.to_owned(), dir: self.dir.display().to_string() })
    }

    /// The module of that name, after everything it needs, each once.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] and [`Error::Circle`].
    pub fn in_order(&self, name: &str) -> Result<Vec<&Source>, Error> {
        let mut order = Vec::new();
        self.visit(name, &mut Vec::new(), &mut order)?;
        Ok(order)
    }

    fn visit<'a>(
        &'a self,
        name: &str,
        path: &mut Vec<&'a str>,
        order: &mut Vec<&'a Source>,
    ) -> Result<(), Error> {
        let source = self.get(name)?;
        if path.contains(&name) {
            return Err(Error::Circle(name.to_owned()));
        }
        if order.iter().any(|done| done.name == name) {
            return Ok(());
        }
        path.push(&source.name);
        for needed in &source.needs {
            self.visit(needed, path, order)?;
        }
        path.pop();
        order.push(source);
        Ok(())
    }
}

fn needs(kbuild: &str) -> Vec<String> {
    let lines = kbuild.lines().filter_map(|line| line.trim().strip_prefix(NEEDS));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

fn object_name(kbuild: &str) -> Option<String> {
    let value = kbuild.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("obj-m")?.trim_start();
        rest.strip_prefix(":=").or_else(|| rest.strip_prefix("+=")).or_else(|| rest.strip_prefix('='))
    })?;
    Some(value.split_whitespace().next()?.strip_suffix(".o")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(kbuilds: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let dir = tempfile::tempdir().unwrap();
        for (name, kbuild) in kbuilds {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("Kbuild"), kbuild).unwrap();
        }
        let sources = Sources::read(dir.path()).unwrap();
        (dir, sources)
    }

    #[test]
    fn what_a_module_needs_comes_first_and_once() {
        let (_dir, sources) =
            tree(&[("a", "obj-m := a.o"), ("b", "# needs: a"), ("c", "# needs: b a\nobj-m := c.o")]);
        let order: Vec<_> =
            sources.in_order("c").unwrap().iter().map(|source| source.name.as_str()).collect();
        assert_eq!(order, ["a", "b", "c"]);
    }

    #[test]
    fn circles_and_unknown_names_are_errors() {
        let (_dir, sources) = tree(&[("a", "# needs: b"), ("b", "# needs: a"), ("c", "# needs: d")]);
        assert!(matches!(sources.in_order("a"), Err(Error::Circle(_))));
        assert!(matches!(sources.in_order("c"), Err(Error::Unknown { name, .. }) if name == "d"));
    }

    #[test]
    fn a_file_of_a_kernel_tree_is_a_module_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/test-x.c"), "").unwrap();
        let (sources, name) = Sources::of_kernel(dir.path(), "lib/test-x.c").unwrap();
        let source = sources.get(&name).unwrap();
        assert_eq!((name.as_str(), source.file.as_deref()), ("test-x", Some("test-x.c")));
        assert_eq!(source.dir, dir.path().join("lib"));
        assert!(Sources::of_kernel(dir.path(), "lib/gone.c").is_err());
    }

    #[test]
    fn a_file_that_asks_whether_it_is_a_module_is_told() {
        let text =
            "#if !IS_MODULE(CONFIG_A)\n#if IS_MODULE( CONFIG_B_2 ) || IS_MODULE(x)\nIS_MODULE(CONFIG_$(x))";
        assert_eq!(module_options(text).collect::<Vec<_>>(), ["CONFIG_A", "CONFIG_B_2"]);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.c"), text).unwrap();
        let (sources, name) = Sources::of_kernel(dir.path(), "a.c").unwrap();
        assert_eq!(
            sources.get(&name).unwrap().kbuild().unwrap().unwrap(),
            "obj-m := a.o\nccflags-y := -DCONFIG_A_MODULE=1 -DCONFIG_B_2_MODULE=1\n"
        );
    }

    #[test]
    fn a_single_folder_is_named_by_its_kbuild() {
        let (dir, _) = tree(&[("folder", "obj-m += held.o\n")]);
        let sources = Sources::single(&dir.path().join("folder")).unwrap();
        assert_eq!(sources.get("held").unwrap().needs, Vec::<String>::new());
    }
}
