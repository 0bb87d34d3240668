//! What modules are built against, out of a tree and the folder that its kernel was built in: together they are large, and
//! the parts that builds of modules read are not (the kernel's `scripts/package/builddeb` ships the same ones).

use std::io;
use std::path::Path;

use fs_err as fs;

/// The folder in a kernel's entry.
pub(super) const DIR: &str = "headers";

/// Copies them to `dir/headers`.
pub(super) fn collect(tree: &Path, out: &Path, arch: &str, dir: &Path) -> io::Result<()> {
    let dest = dir.join(DIR);
    let arch = Path::new("arch").join(arch);
    fs::create_dir_all(dest.join(&arch))?;
    let source = Copy { from: tree, to: &dest, keep: &|path| !path.starts_with("include/dt-bindings") };
    source.file(Path::new("Makefile"))?;
    source.tree(Path::new("include"))?;
    source.tree(Path::new("scripts"))?;
    for entry in fs::read_dir(tree.join(&arch))? {
        let path = arch.join(entry?.file_name());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("Makefile") || name.starts_with("Kbuild") {
            source.file(&path)?;
        }
    }
    source.tree_if_there(&arch.join("include"))?;
    source.tree_if_there(&arch.join("scripts"))?;
    let built = Copy { from: out, to: &dest, keep: &is_used };
    for file in [".config", "Module.symvers"] {
        built.file(Path::new(file))?;
    }
    built.tree(Path::new("include"))?;
    built.tree(Path::new("scripts"))?;
    built.tree_if_there(&arch.join("include"))?;
    // What modules are linked with and looked through by, on some architectures.
    for file in [arch.join("lib/crtsavres.o"), "tools/objtool/objtool".into()] {
        if out.join(&file).exists() {
            built.file(&file)?;
        }
    }
    Ok(())
}

/// Whether a file that a build made is of use: its notes of dependencies and the objects of its own tools are not.
fn is_used(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.ends_with(".cmd") && (!path.starts_with("scripts") || !name.ends_with(".o"))
}

/// Copies files to the same paths in another folder.
struct Copy<'a> {
    from: &'a Path,
    to: &'a Path,
    keep: &'a dyn Fn(&Path) -> bool,
}

impl Copy<'_> {
    fn file(&self, path: &Path) -> io::Result<()> {
        let to = self.to.join(path);
        fs::create_dir_all(to.parent().unwrap_or(self.to))?;
        // Links are followed: what they lead to is what builds read. The content alone counts.
        fs::copy(self.from.join(path), to).map(drop)
    }

    fn tree_if_there(&self, path: &Path) -> io::Result<()> {
        if self.from.join(path).is_dir() { self.tree(path) } else { Ok(()) }
    }

    fn tree(&self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(self.from.join(path))? {
            let entry = entry?;
            let path = path.join(entry.file_name());
            let kind = entry.file_type()?;
            if !(self.keep)(&path) {
                continue;
            }
            if kind.is_dir() {
                self.tree(&path)?;
            } else if self.from.join(&path).is_file() && !is_mark(&path, &entry.metadata()?) {
                self.file(&path)?;
            }
        }
        Ok(())
    }
}

/// Thousands of empty files stand for options: kbuild asks for those that are there (`scripts/basic/fixdep.c`).
fn is_mark(path: &Path, meta: &std::fs::Metadata) -> bool {
    path.starts_with("include/config") && meta.len() == 0
}
