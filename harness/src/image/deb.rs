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
    let mut archive = tar::Archive::new(data(deb)?);
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
pub(super) fn plain(path: &Path) -> io::Result<PathBuf> {
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
