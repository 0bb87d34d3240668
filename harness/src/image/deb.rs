//! Debian packages as files: deb(5).

use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use crate::work::Cancel;

/// What becomes of one file of a package: its path and content, or nothing.
pub type Kept = Option<(PathBuf, Vec<u8>)>;

/// How to unpack a package.
pub struct Rules<'a> {
    /// Decides on each file, by its path in the package and its content.
    pub file: &'a mut dyn FnMut(PathBuf, Vec<u8>) -> io::Result<Kept>,
    /// Decides on each symbolic link, by its path and target: the path and target it gets, or nothing.
    pub link: &'a mut dyn FnMut(PathBuf, PathBuf) -> Option<(PathBuf, PathBuf)>,
}

/// Unpacks the files and links of `deb` into `dest`. Owners, times and special files are left behind.
///
/// # Errors
///
/// Where the package is broken, or has a path that leads out of `dest`; where something cannot be written; of kind
/// [`io::ErrorKind::Interrupted`] when `cancel` came.
pub fn unpack(deb: &Path, dest: &Path, rules: &mut Rules<'_>, cancel: &Cancel) -> io::Result<()> {
    unpack_tar(data(deb)?, dest, rules, cancel)
}

/// Unpacks, in the same way, the tar archive in xz that is a file of `deb`: the first one whose path `is_wanted`. It is
/// read as a stream, and so may be big.
///
/// # Errors
///
/// As [`unpack`], and where there is no such file.
pub fn unpack_inner(
    deb: &Path,
    is_wanted: impl Fn(&Path) -> bool,
    dest: &Path,
    rules: &mut Rules<'_>,
    cancel: &Cancel,
) -> io::Result<()> {
    let mut archive = tar::Archive::new(data(deb)?);
    for entry in archive.entries()? {
        let entry = entry?;
        if is_wanted(&plain(&entry.path()?)?) {
            let entry = BufReader::with_capacity(256 * 1024, entry);
            return unpack_tar(liblzma::bufread::XzDecoder::new(entry), dest, rules, cancel);
        }
    }
    Err(broken("the archive in it is missing".to_owned()))
}

fn unpack_tar(from: impl Read, dest: &Path, rules: &mut Rules<'_>, cancel: &Cancel) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    // Links come last, so that nothing is written through one.
    let mut links = Vec::new();
    for entry in archive.entries()? {
        if cancel.is_cancelled() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let mut entry = entry?;
        let path = plain(&entry.path()?)?;
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            if let Some((path, content)) = (rules.file)(path, content)? {
                let executable = entry.header().mode()? & 0o100 != 0;
                write(&dest.join(plain(&path)?), &content, executable)?;
            }
        } else if kind.is_symlink() {
            let target = entry.link_name()?.unwrap_or_default().into_owned();
            if let Some((path, target)) = (rules.link)(path, target) {
                links.push((dest.join(plain(&path)?), target));
            }
        } else if kind.is_hard_link() {
            return Err(broken(format!("`{}` is a hard link", path.display())));
        }
    }
    // To the end, where the checksums are.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    for (path, _) in &links {
        fs::create_dir_all(path.parent().unwrap_or(dest))?;
    }
    for (path, target) in links {
        fs::os::unix::fs::symlink(target, path)?;
    }
    Ok(())
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The path without its leading `./`; none but plain names may be in it.
pub(in crate::image) fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return Err(broken(format!("path `{}` leads out of the package", path.display()))),
        }
    }
    Ok(plain)
}

fn write(path: &Path, content: &[u8], executable: bool) -> io::Result<()> {
    let create = || {
        let mode = if executable { 0o755 } else { 0o644 };
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)
    };
    let mut file = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            create()?
        }
        file => file?,
    };
    file.write_all(content)
}

/// The `data.tar` member, decompressed.
fn data(deb: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(256 * 1024, fs::File::open(deb)?);
    let (name, size) = find_member(&mut file, "data.tar")
        .map_err(|error| broken(format!("`{}` is no Debian package: {error}", deb.display())))?;
    let member = file.take(size);
    Ok(match name.as_str() {
        "data.tar" => Box::new(member),
        "data.tar.gz" => Box::new(flate2::bufread::GzDecoder::new(member)),
        "data.tar.xz" => Box::new(liblzma::bufread::XzDecoder::new(member)),
        "data.tar.zst" => Box::new(zstd::stream::read::Decoder::with_buffer(member)?),
        _ => return Err(broken(format!("`{}` has its data in `{name}`", deb.display()))),
    })
}

/// Goes on to the first member of an ar(5) archive whose name begins so; its name and size.
fn find_member(file: &mut impl Read, prefix: &str) -> io::Result<(String, u64)> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    if &magic != b"!<arch>\n" {
        return Err(broken("it has no ar header".into()));
    }
    loop {
        let mut header = [0; 60];
        file.read_exact(&mut header)?;
        let header = String::from_utf8_lossy(&header);
        let field = |range: std::ops::Range<usize>| header.get(range).unwrap_or_default().trim().to_owned();
        let name = field(0..16).trim_end_matches('/').to_owned();
        let size: u64 = field(48..58).parse().map_err(|_| broken(format!("member `{name}` has no size")))?;
        if name.starts_with(prefix) {
            return Ok((name, size));
        }
        // Members begin at even offsets.
        io::copy(&mut file.take(size.next_multiple_of(2)), &mut io::sink())?;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A package with these files (a leading `!` marks an executable) and links.
    pub(in crate::image) fn package(path: &Path, files: &[(&str, &[u8])], links: &[(&str, &str)]) {
        let mut tar = tar::Builder::new(Vec::new());
        let header = |kind, size| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(size);
            header
        };
        for (name, target) in links {
            let mut header = header(tar::EntryType::Symlink, 0);
            tar.append_link(&mut header, name, target).unwrap();
        }
        for (name, content) in files {
            let mut header = header(tar::EntryType::Regular, content.len() as u64);
            header.set_mode(if name.starts_with('!') { 0o755 } else { 0o644 });
            tar.append_data(&mut header, name.trim_start_matches('!'), *content).unwrap();
        }
        let data = liblzma::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
        let mut deb = b"!<arch>\n".to_vec();
        for (name, content) in
            [("debian-binary", &b"2.0"[..]), ("control.tar.gz", b"x"), ("data.tar.xz", &data)]
        {
            let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len());
            deb.extend(header.as_bytes());
            deb.extend(content);
            deb.resize(deb.len().next_multiple_of(2), b'\n');
        }
        fs::write(path, deb).unwrap();
    }

    fn unpack_all(deb: &Path, dest: &Path) -> io::Result<()> {
        let mut rules = Rules {
            file: &mut |path, content| Ok(Some((path, content))),
            link: &mut |path, target| Some((path, target)),
        };
        unpack(deb, dest, &mut rules, &Cancel::new().unwrap())
    }

    #[test]
    fn files_and_links_are_unpacked_and_renamed_or_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (deb, dest) = (dir.path().join("p.deb"), dir.path().join("d"));
        package(
            &deb,
            &[("./usr/a", b"1"), ("!usr/b/c", b"2"), ("etc/no", b"")],
            &[("usr/l", "b/c"), ("x", "y")],
        );
        let mut rules = Rules {
            file: &mut |path, content| {
                Ok(path.strip_prefix("usr").ok().map(|path| (path.to_owned(), content)))
            },
            link: &mut |path, target| Some((path.strip_prefix("usr").ok()?.to_owned(), target)),
        };
        fs::create_dir(&dest).unwrap();
        unpack(&deb, &dest, &mut rules, &Cancel::new().unwrap()).unwrap();
        assert_eq!(fs::read(dest.join("l")).unwrap(), b"2");
        let mode =
            |name| std::os::unix::fs::MetadataExt::mode(&fs::metadata(dest.join(name)).unwrap()) & 0o777;
        assert_eq!((mode("a"), mode("b/c")), (0o644, 0o755));
        assert_eq!(fs::read_dir(&dest).unwrap().count(), 3);
    }

    #[test]
    fn an_archive_in_a_package_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let (deb, dest) = (dir.path().join("p.deb"), dir.path().join("d"));
        let mut inner = tar::Builder::new(Vec::new());
        for (name, content) in [("src-1/a", "1"), ("src-1/b/c", "2")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            inner.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        let inner = liblzma::encode_all(&inner.into_inner().unwrap()[..], 1).unwrap();
        package(&deb, &[("usr/config.xz", b"x"), ("usr/src-1.tar.xz", &inner)], &[]);
        let mut rules = Rules {
            file: &mut |path, content| Ok(path.ends_with("c").then_some((path, content))),
            link: &mut |_, _| None,
        };
        let mut unpack = |suffix: &str| {
            let is_wanted = |path: &Path| path.to_string_lossy().ends_with(suffix);
            unpack_inner(&deb, is_wanted, &dest, &mut rules, &Cancel::new().unwrap())
        };
        unpack(".tar.xz").unwrap();
        assert!(unpack(".tar").is_err() && unpack("config.xz").is_err());
        assert_eq!(fs::read(dest.join("src-1/b/c")).unwrap(), b"2");
        assert!(!dest.join("src-1/a").exists());
    }

    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (deb, dest) = (dir.path().join("p.deb"), dir.path().join("d"));
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        package(&deb, &[("l/file", b"1")], &[("l", outside.to_str().unwrap()), ("l/link", "x")]);
        fs::create_dir(&dest).unwrap();
        assert!(unpack_all(&deb, &dest).is_err(), "a file below what is a link too");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        for path in ["../x", "/x", "a/../../x"] {
            assert!(plain(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_no_package_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("p.deb");
        package(&deb, &[("a", &[1; 10_000])], &[]);
        let whole = fs::read(&deb).unwrap();
        for end in (0..whole.len()).step_by(7) {
            fs::write(&deb, &whole[..end]).unwrap();
            assert!(unpack_all(&deb, dir.path()).is_err(), "cut at {end}");
        }
        fs::write(&deb, "?").unwrap();
        let error = unpack_all(&deb, dir.path()).unwrap_err().to_string();
        assert!(error.contains("p.deb` is no Debian package"), "{error}");
    }

    #[test]
    fn cancelling_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("p.deb");
        package(&deb, &[("a", b"")], &[]);
        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        let mut rules = Rules { file: &mut |_, _| Ok(None), link: &mut |_, _| None };
        assert_eq!(
            unpack(&deb, dir.path(), &mut rules, &cancel).unwrap_err().kind(),
            io::ErrorKind::Interrupted
        );
    }
}
