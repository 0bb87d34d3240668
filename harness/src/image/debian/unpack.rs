//! What is taken out of each package, and under which names.

use std::io;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;

use crate::image::cache::{Key, KeyBuilder};
use crate::image::deb::{self, Kept, Rules};
use crate::image::depmod::{self, Index};
use crate::work::Cancel;

/// The folders that are kept of the kernel's sources: what the harness runs of the kernel's own tests.
const SOURCES: [&str; 1] = [crate::selftest::ftrace::FOLDER];

/// Folders of the kernel's sources, half of their size, that no fragment of a configuration has something built in.
const UNBUILT: [&str; 16] = [
    "Documentation",
    "drivers/gpu",
    "drivers/infiniband",
    "drivers/media",
    "drivers/net/ethernet/broadcom",
    "drivers/net/ethernet/chelsio",
    "drivers/net/ethernet/intel",
    "drivers/net/ethernet/mellanox",
    "drivers/net/ethernet/qlogic",
    "drivers/net/wireless",
    "drivers/scsi",
    "drivers/staging",
    "samples",
    "sound",
    "tools/perf",
    "tools/testing",
];

const HEADERS: &str = "usr/src/linux-headers-";
const KBUILD: &str = "usr/lib/linux-kbuild-";

/// What a package is unpacked for. Part of the entry's key: change `add_to` with what it does.
#[derive(Debug)]
pub(super) enum Layout {
    /// A kernel: `kernel` (the boot file), `config`, `release`, and in `modules/` its modules, compressed, with the
    /// index that depmod would write.
    Kernel,
    /// Headers. Where they lead to kbuild's tools or to the common headers, they are made to lead to those entries.
    Headers {
        /// The entry of kbuild's tools.
        kbuild: Key,
        /// The entry of the common headers, for a flavour's.
        common: Option<Key>,
    },
    /// kbuild's tools.
    Kbuild,
    /// `busybox`.
    Busybox,
    /// What a guest uses of a package's files, where they are in it.
    Files,
    /// The kernel's sources, to build kernels from: all but the larger parts that no fragment of a configuration asks for.
    Tree,
    /// The kernel's sources: of all of them the folders in [`SOURCES`], and modules that are a file each, `<file>.c` in
    /// a folder of that name.
    Source,
}

impl Layout {
    /// Adds what it depends on to the entry's key.
    pub(super) fn add_to(&self, key: KeyBuilder) -> KeyBuilder {
        match self {
            Layout::Kernel => key.part("layout", "kernel 1"),
            Layout::Kbuild => key.part("layout", "kbuild 1"),
            Layout::Busybox => key.part("layout", "busybox 1"),
            Layout::Files => key.part("layout", "files 1"),
            Layout::Tree => key.part("layout", "tree 1").part("left", UNBUILT.join(" ")),
            Layout::Source => key.part("layout", "source 2").part("kept", SOURCES.join(" ")),
            Layout::Headers { kbuild, common } => {
                let key = key.part("layout", "headers 3").key("kbuild", kbuild);
                common.iter().fold(key, |key, common| key.key("common", common))
            }
        }
    }

    /// Unpacks `deb` into `dest`.
    pub(super) fn unpack(&self, deb: &Path, dest: &Path, cancel: &Cancel) -> io::Result<()> {
        match self {
            Layout::Kernel => kernel(deb, dest, cancel),
            Layout::Headers { kbuild, common } => headers(deb, dest, cancel, kbuild, common.as_ref()),
            Layout::Kbuild => below(deb, dest, cancel, |path| strip(path, KBUILD), "scripts"),
            Layout::Busybox => below(
                deb,
                dest,
                cancel,
                |path| path.ends_with("bin/busybox").then(|| "busybox".into()),
                "busybox",
            ),
            Layout::Files => {
                let mut file = |path: PathBuf, content| Ok(is_used(&path).then_some((path, content)));
                let mut link = |path: PathBuf, target| is_used(&path).then_some((path, target));
                deb::unpack(deb, dest, &mut Rules { file: &mut file, link: &mut link }, cancel)
            }
            Layout::Tree => tree(deb, dest, cancel),
            Layout::Source => source(deb, dest, cancel),
        }
    }
}

/// Whether a guest may use a package's file: documentation and translations it does not, nor the C library's many
/// character sets.
fn is_used(path: &Path) -> bool {
    const UNUSED: [&str; 6] = ["doc", "man", "info", "locale", "lintian", "bash-completion"];
    let shared = path.strip_prefix("usr/share").ok().and_then(|path| path.components().next());
    let unused = shared.is_some_and(|part| UNUSED.iter().any(|name| part.as_os_str() == *name));
    !unused && path.components().all(|part| part.as_os_str() != "gconv")
}

/// The path below a directory whose name begins with the last part of `prefix`.
fn strip(path: &Path, prefix: &str) -> Option<PathBuf> {
    let (_, rest) = path.to_str()?.strip_prefix(prefix)?.split_once('/')?;
    Some(rest.into())
}

/// Takes the files whose path `place` maps to another, and no links. `expected` must be among them.
fn below(
    deb: &Path,
    dest: &Path,
    cancel: &Cancel,
    place: impl Fn(&Path) -> Option<PathBuf>,
    expected: &str,
) -> io::Result<()> {
    let mut file = |path: PathBuf, content| Ok(place(&path).map(|path| (path, content)));
    deb::unpack(deb, dest, &mut Rules { file: &mut file, link: &mut |_, _| None }, cancel)?;
    expect(dest, expected)
}

/// The package must have brought this.
fn expect(dest: &Path, what: &str) -> io::Result<()> {
    match dest.join(what).exists() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the package has no {what}"))),
    }
}

/// The archive in the package that has the sources, with one folder in it: `usr/src/linux-source-<version>.tar.xz`.
fn is_sources(path: &Path) -> bool {
    path.starts_with("usr/src") && path.to_str().is_some_and(|path| path.ends_with(".tar.xz"))
}

/// The sources to build from. Those of kbuild and Kconfig are all there, since each of them reads others.
fn tree(deb: &Path, dest: &Path, cancel: &Cancel) -> io::Result<()> {
    let is_built = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["Kconfig", "Makefile", "Kbuild"].iter().any(|kind| name.starts_with(kind))
            || UNBUILT.iter().all(|dir| !path.starts_with(dir))
    };
    let below = |path: PathBuf| path.components().skip(1).collect::<PathBuf>();
    let mut file = |path: PathBuf, content: Vec<u8>| {
        let path = below(path);
        Ok(is_built(&path).then_some((path, content)))
    };
    let mut link = |path: PathBuf, target: PathBuf| {
        let path = below(path);
        is_built(&path).then_some((path, target))
    };
    deb::unpack_inner(deb, is_sources, dest, &mut Rules { file: &mut file, link: &mut link }, cancel)?;
    ["Kconfig", "Makefile", "scripts/Makefile.build"].iter().try_for_each(|kept| expect(dest, kept))
}

fn source(deb: &Path, dest: &Path, cancel: &Cancel) -> io::Result<()> {
    let mut file = |path: PathBuf, content: Vec<u8>| {
        let path: PathBuf = path.components().skip(1).collect();
        if SOURCES.iter().any(|kept| path.starts_with(kept)) {
            return Ok(Some((path, content)));
        }
        if !is_module(&path, &content) {
            return Ok(None);
        }
        Ok(path.file_name().map(|name| (path.join(name), content)))
    };
    let mut rules = Rules { file: &mut file, link: &mut |_, _| None };
    deb::unpack_inner(deb, is_sources, dest, &mut rules, cancel)?;
    SOURCES.iter().try_for_each(|kept| expect(dest, kept))
}

/// Whether a file of the kernel's sources is one of its samples and tests that are a module by themselves.
fn is_module(path: &Path, content: &[u8]) -> bool {
    let has = |text: &str| memchr::memmem::find(content, text.as_bytes()).is_some();
    ["samples", "lib", "kernel/trace"].iter().any(|dir| path.starts_with(dir))
        && path.extension().is_some_and(|extension| extension == "c")
        && (has("\nmodule_init(") || has("\nkunit_test_suite"))
        && !has("\n#include \"")
}

fn kernel(deb: &Path, dest: &Path, cancel: &Cancel) -> io::Result<()> {
    let mut index = Index::default();
    let mut release = None;
    let mut file = |path: PathBuf, content: Vec<u8>| -> io::Result<Kept> {
        let Some(path) = path.to_str() else { return Ok(None) };
        if path.starts_with("boot/vmlinu") {
            return Ok(Some(("kernel".into(), content)));
        }
        if let Some(name) = path.strip_prefix("boot/config-") {
            release = Some(name.to_owned());
            return Ok(Some(("config".into(), content)));
        }
        let path = path.strip_prefix("usr/").unwrap_or(path);
        match strip(Path::new(path), "lib/modules/") {
            Some(path) => module(&mut index, &path, content).map(Some),
            None => Ok(None),
        }
    };
    deb::unpack(deb, dest, &mut Rules { file: &mut file, link: &mut |_, _| None }, cancel)?;
    for what in ["kernel", "config", "modules/modules.builtin"] {
        expect(dest, what)?;
    }
    fs::write(dest.join("release"), release.unwrap_or_default())?;
    fs::write(dest.join("modules/modules.dep"), index.dep())?;
    fs::write(dest.join("modules/modules.alias"), index.alias())
}

/// A file below the kernel's module directory. Modules that come uncompressed are compressed, and all are indexed.
fn module(index: &mut Index, path: &Path, content: Vec<u8>) -> io::Result<(PathBuf, Vec<u8>)> {
    let (path, content) = match path.to_string_lossy().contains(".ko") {
        true => depmod::pack(index, path, content)?,
        false => (path.to_owned(), content),
    };
    Ok((Path::new("modules").join(path), content))
}

/// Headers, so that `make -C <entry>` works wherever the cache is: all that leads elsewhere does so relatively, from entry
/// to entry.
fn headers(deb: &Path, dest: &Path, cancel: &Cancel, kbuild: &Key, common: Option<&Key>) -> io::Result<()> {
    let mut file = |path: PathBuf, content: Vec<u8>| -> io::Result<Kept> {
        let Some(path) = strip(&path, HEADERS).filter(|path| is_wanted(path)) else { return Ok(None) };
        // Thousands of empty files that stand for options: kbuild asks for those that are there (scripts/basic/fixdep.c).
        if content.is_empty() && path.starts_with("include/config") {
            return Ok(None);
        }
        match common {
            Some(common) if path.as_os_str() == "Makefile" => Ok(Some((path, makefile(&content, common)?))),
            _ => Ok(Some((path, content))),
        }
    };
    let mut link = |path: PathBuf, target: PathBuf| {
        let leads_to = join(path.parent()?, &target)?;
        let path = strip(&path, HEADERS).filter(|path| is_wanted(path))?;
        match strip(&leads_to, KBUILD) {
            Some(rest) => {
                let up: PathBuf = path.components().map(|_| "..").collect();
                Some((path, up.join(kbuild.as_str()).join(rest)))
            }
            None => strip(&leads_to, HEADERS).map(|_| (path, target)),
        }
    };
    deb::unpack(deb, dest, &mut Rules { file: &mut file, link: &mut link }, cancel)?;
    expect(dest, "Makefile")
}

/// What builds of modules need: no device-tree headers.
fn is_wanted(path: &Path) -> bool {
    !path.starts_with("include/dt-bindings")
}

/// A flavour's Makefile with its absolute `include` of the common one made relative to itself.
fn makefile(content: &[u8], common: &Key) -> io::Result<Vec<u8>> {
    let text = String::from_utf8_lossy(content);
    let line = |line: &str| match line.strip_prefix("include /usr/src/").and_then(|path| path.split_once('/'))
    {
        Some((_, file)) => format!("include $(dir $(lastword $(MAKEFILE_LIST)))../{common}/{file}\n"),
        None => format!("{line}\n"),
    };
    let made: String = text.lines().map(line).collect();
    match made.contains("$(MAKEFILE_LIST)") {
        true => Ok(made.into_bytes()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the headers' Makefile does not include the common one",
        )),
    }
}

/// Where a relative link leads, by the names alone.
fn join(dir: &Path, target: &Path) -> Option<PathBuf> {
    let mut path = dir.to_owned();
    for part in target.components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            _ => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::deb::tests::package;

    fn unpack(
        layout: &Layout,
        files: &[(&str, &[u8])],
        links: &[(&str, &str)],
        dest: &Path,
    ) -> io::Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("p.deb");
        package(&deb, files, links);
        fs::create_dir_all(dest).unwrap();
        layout.unpack(&deb, dest, &Cancel::new().unwrap())
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_kernel_has_its_parts_under_fixed_names() {
        for (boot, modules) in [("vmlinuz", "lib/modules"), ("vmlinux", "usr/lib/modules")] {
            let dir = tempfile::tempdir().unwrap();
            let xz = liblzma::encode_all(&b"no ELF"[..], 1).unwrap();
            let files: [(String, &[u8]); 7] = [
                (format!("boot/{boot}-6.1.0-50-x"), b"boot"),
                ("boot/config-6.1.0-50-x".into(), b"CONFIG_X=y"),
                ("boot/System.map-6.1.0-50-x".into(), b"no"),
                (format!("{modules}/6.1.0-50-x/kernel/a-b.ko"), b"no ELF"),
                (format!("{modules}/6.1.0-50-x/kernel/c.ko.xz"), &xz),
                (format!("{modules}/6.1.0-50-x/modules.builtin"), b"kernel/d.ko"),
                ("usr/share/doc/x/copyright".into(), b"no"),
            ];
            let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), *content)).collect();
            unpack(&Layout::Kernel, &files, &[("lib/modules/6.1.0-50-x/build", "/usr/src/x")], dir.path())
                .unwrap();
            let in_dir = |name: &str| dir.path().join(name);
            assert_eq!(read(in_dir("release")), "6.1.0-50-x");
            assert_eq!(
                (read(in_dir("kernel")), read(in_dir("config"))),
                ("boot".into(), "CONFIG_X=y".into())
            );
            assert_eq!(read(in_dir("modules/modules.dep")), "kernel/a-b.ko.zst:\nkernel/c.ko.xz:\n");
            let module = |name: &str| depmod::decompress(fs::read(in_dir(name)).unwrap()).unwrap();
            assert_eq!(module("modules/kernel/a-b.ko.zst"), b"no ELF");
            assert_eq!(module("modules/kernel/c.ko.xz"), b"no ELF");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        }
        let dir = tempfile::tempdir().unwrap();
        let error =
            unpack(&Layout::Kernel, &[("boot/config-1", b"")], &[], dir.path()).unwrap_err().to_string();
        assert_eq!(error, "the package has no kernel");
    }

    #[test]
    fn headers_lead_from_entry_to_entry() {
        let root = tempfile::tempdir().unwrap();
        let key = |name: &str| KeyBuilder::new(name).part("name", name).finish();
        let (kbuild, common) = (key("kbuild"), key("common"));
        let entry = |key: &Key| root.path().join(key.as_str());
        let files: [(&str, &[u8]); 2] =
            [("!usr/lib/linux-kbuild-6.1/scripts/x", b"script"), ("usr/share/doc/x", b"")];
        unpack(
            &Layout::Kbuild,
            &files,
            &[("usr/src/linux-kbuild-6.1", "../lib/linux-kbuild-6.1")],
            &entry(&kbuild),
        )
        .unwrap();
        let layout = Layout::Headers { kbuild: kbuild.clone(), common: None };
        let files: [(&str, &[u8]); 4] = [
            (
                "usr/src/linux-headers-6.1.0-50-common/Makefile",
                b"all:\n\t@cat $(dir $(lastword $(MAKEFILE_LIST)))/scripts/x\n",
            ),
            ("usr/src/linux-headers-6.1.0-50-common/arch/arm/Makefile", b"arm"),
            ("usr/src/linux-headers-6.1.0-50-common/include/dt-bindings/x.h", b""),
            ("usr/src/linux-headers-6.1.0-50-common/include/linux/x.h", b"x"),
        ];
        let links = [
            ("usr/src/linux-headers-6.1.0-50-common/scripts", "../../lib/linux-kbuild-6.1/scripts"),
            ("usr/src/linux-headers-6.1.0-50-common/include/linux/l/y.h", "../x.h"),
            ("usr/src/linux-headers-6.1.0-50-common/include/away", "/etc/passwd"),
        ];
        unpack(&layout, &files, &links, &entry(&common)).unwrap();
        let in_common = |name: &str| entry(&common).join(name);
        assert_eq!(read(in_common("scripts/x")), "script");
        assert_eq!(read(in_common("include/linux/l/y.h")), "x");
        assert!(in_common("arch/arm").exists());
        for name in ["include/dt-bindings", "include/away"] {
            assert!(fs::symlink_metadata(in_common(name)).is_err(), "{name}");
        }
        let layout = Layout::Headers { kbuild, common: Some(common) };
        let files: [(&str, &[u8]); 3] = [
            (
                "usr/src/linux-headers-6.1.0-50-x/Makefile",
                b"include /usr/src/linux-headers-6.1.0-50-common/Makefile\n",
            ),
            ("usr/src/linux-headers-6.1.0-50-x/include/config/auto.conf", b"x"),
            ("usr/src/linux-headers-6.1.0-50-x/include/config/X", b""),
        ];
        let flavour = root.path().join("flavour");
        unpack(&layout, &files, &[], &flavour).unwrap();
        assert!(
            flavour.join("include/config/auto.conf").exists() && !flavour.join("include/config/X").exists()
        );
        let mut make = crate::process::Command::new("make");
        make.arg("-s").arg("-C").arg(&flavour);
        assert_eq!(make.check(&Cancel::new().unwrap()).unwrap().stdout, b"script");
        let files: [(&str, &[u8]); 1] = [("usr/src/linux-headers-6.1.0-50-x/Makefile", b"all:\n")];
        assert!(unpack(&layout, &files, &[], &root.path().join("other")).is_err());
    }

    #[test]
    fn modules_of_the_sources_are_told_from_other_files() {
        let test = b"#include <x.h>\nmodule_init(x);\n";
        assert!(is_module(Path::new("samples/kprobes/a.c"), test));
        assert!(is_module(Path::new("lib/test_a.c"), b"\nkunit_test_suites(&a);\n"));
        for (path, content) in [
            ("drivers/a.c", &test[..]),
            ("samples/a.h", test),
            ("samples/a.c", b"int main(void);\n"),
            ("samples/a.c", b"\n#include \"a.h\"\nmodule_init(x);\n"),
        ] {
            assert!(!is_module(Path::new(path), content), "{path}");
        }
    }

    #[test]
    fn files_stay_where_they_are_and_documentation_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 5] = [
            ("!usr/bin/x", b"x"),
            ("lib/arm-linux-gnueabihf/libx.so.1.0", b"lib"),
            ("usr/share/x/data", b"data"),
            ("usr/share/doc/x/copyright", b""),
            ("usr/lib/arm-linux-gnueabihf/gconv/KOI8-R.so", b""),
        ];
        let links = [("lib/libx.so.1", "arm-linux-gnueabihf/libx.so.1.0"), ("usr/share/man/x.1", "y.1")];
        unpack(&Layout::Files, &files, &links, dir.path()).unwrap();
        let there = ["usr/bin/x", "lib/libx.so.1", "usr/share/x/data"];
        let away = ["usr/share/doc", "usr/share/man", "usr/lib"];
        assert_eq!(read(dir.path().join("lib/libx.so.1")), "lib");
        there.iter().for_each(|name| assert!(dir.path().join(name).exists(), "{name}"));
        away.iter().for_each(|name| assert!(!dir.path().join(name).exists(), "{name}"));
    }

    #[test]
    fn busybox_is_found_in_either_place() {
        for place in ["bin/busybox", "usr/bin/busybox"] {
            let dir = tempfile::tempdir().unwrap();
            unpack(&Layout::Busybox, &[(place, b"x"), ("usr/share/busybox", b"y")], &[], dir.path()).unwrap();
            assert_eq!(read(dir.path().join("busybox")), "x");
        }
    }
}
