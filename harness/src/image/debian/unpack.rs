//! What is taken out of each package, and under which names.

use std::io;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;

use crate::arch::Arch;
use crate::image::cache::{Key, KeyBuilder};
use crate::image::deb::{self, Kept, Rules};
use crate::image::depmod::{self, Index, ModInfo};
use crate::work::Cancel;

/// Modules take a fifth of their size so, at a level that costs less time than their decompression from the package.
const MODULE_LEVEL: i32 = 3;

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
}

impl Layout {
    /// Adds what it depends on to the entry's key.
    pub(super) fn add_to(&self, key: KeyBuilder) -> KeyBuilder {
        match self {
            Layout::Kernel => key.part("layout", "kernel 1"),
            Layout::Kbuild => key.part("layout", "kbuild 1"),
            Layout::Busybox => key.part("layout", "busybox 1"),
            Layout::Headers { kbuild, common } => {
                let architectures: Vec<_> = Arch::all().map(|arch| arch.kbuild).collect();
                let key = key.part("layout", "headers 2").part("architectures", architectures.join(" "));
                let key = key.key("kbuild", kbuild);
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
        }
    }
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
    let name = path.to_string_lossy();
    let Some((_, compression)) = name.rsplit_once(".ko") else {
        return Ok((Path::new("modules").join(path), content));
    };
    if compression.is_empty() {
        index.add(&format!("{name}.zst"), ModInfo::of(&content).unwrap_or_default());
        let content = zstd::bulk::compress(&content, MODULE_LEVEL)?;
        return Ok((Path::new("modules").join(format!("{name}.zst")), content));
    }
    let elf = depmod::decompress(content.clone())?;
    index.add(&name, ModInfo::of(&elf).unwrap_or_default());
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

/// What builds of modules need: no device-tree headers, and no architecture that the harness does not know.
fn is_wanted(path: &Path) -> bool {
    let mut parts = path.components().map(|part| part.as_os_str());
    match (parts.next().and_then(|part| part.to_str()), parts.next(), parts.next()) {
        (Some("arch"), Some(arch), Some(_)) => Arch::all().any(|row| row.kbuild == arch),
        (Some("include"), Some(dir), Some(_)) => dir != "dt-bindings",
        _ => true,
    }
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
