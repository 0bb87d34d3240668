//! Entries of a cache in one file, for the cache of another machine.
//!
//! The file is a tar archive in zstd. Its first member is the index: which entries follow, in this order, each with the
//! SHA-256 of its content, as its manifest in the cache has it. An unpacked entry whose content is another is thrown away.
//! Nothing else of what the file says is believed: a member must be a file, a folder or a link, at a plain path in the
//! entry that comes next, and fit on the disk; links are made when everything else of their entry is there, so that
//! nothing is written through one.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use tar::EntryType;

use super::key::{HASH_DIGITS, Key};
use super::{Cache, Entry, Error, TMP, is_manifest, read_manifest, tree};
use crate::image::deb::plain;
use crate::work::{Cancel, Work};

/// Changes whenever the format of the file does.
const FORMAT: &str = "kmodlab pack 1";
const INDEX: &str = "index.json";
/// More than any index or number of members needs.
const LONGEST_INDEX: u64 = 16 << 20;
const MOST_MEMBERS: u64 = 2_000_000;
/// The level that costs about as much time as reading the entries.
const LEVEL: i32 = 3;

/// Why entries could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The file is none of the kind, or was cut or altered.
    #[error("`{}` cannot be unpacked: {what}\nmake it anew with `kmodlab image pack`", file.display())]
    Bad {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Serialize, Deserialize)]
struct Index {
    format: String,
    entries: Vec<Packed>,
}

/// An entry, as the index has it.
#[derive(Serialize, Deserialize)]
struct Packed {
    kind: String,
    key: String,
    label: String,
    /// The hash of its content ([`tree::content`]).
    sha256: String,
}

impl Packed {
    /// Where its members are in the archive, and where it is in the cache.
    fn path(&self) -> PathBuf {
        Path::new(&self.kind).join(&self.key)
    }

    /// Whether it names an entry that a cache can have.
    fn is_plain(&self) -> bool {
        let word = !self.kind.is_empty() && self.kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let hash = self.key.len() == HASH_DIGITS && self.key.bytes().all(|b| b.is_ascii_hexdigit());
        word && self.kind != TMP && hash
    }
}

/// What an archive brought.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries that the cache had not.
    pub new: usize,
    /// Entries that it had.
    pub had: usize,
}

impl Cache {
    /// Packs entries into a file, which is there whole or not at all.
    ///
    /// # Errors
    ///
    /// Where an entry cannot be read, the file not be written, or `cancel` came.
    pub fn pack(&self, entries: &[Entry], file: &Path, cancel: &Cancel) -> Result<(), PackError> {
        let _work = Work::begin(&*self.watch, format!("pack {} entries", entries.len()));
        let parent = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let mut builder = tempfile::Builder::new();
        let temp = builder.prefix(".kmodlab-pack-").permissions(everyone).tempfile_in(parent)?;
        let mut zstd = zstd::Encoder::new(io::BufWriter::new(temp.as_file()), LEVEL)?;
        zstd.include_checksum(true)?;
        let mut tar = tar::Builder::new(zstd);
        tar.follow_symlinks(false);
        let index = entries.iter().map(packed).collect::<io::Result<Vec<_>>>()?;
        let json = serde_json::to_vec(&Index { format: FORMAT.to_owned(), entries: index })
            .map_err(io::Error::from)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(json.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, INDEX, json.as_slice())?;
        for entry in entries {
            let place = packed(entry)?.path();
            entry.walk(&mut |path, _| {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled.into());
                }
                tar.append_path_with_name(entry.join(path), place.join(path))
            })?;
        }
        tar.into_inner()?.finish()?.flush()?;
        temp.as_file().sync_all()?;
        temp.persist(file).map_err(|error| error.error)?;
        Ok(())
    }

    /// Puts the entries of a packed file into the cache: those that it has already stay as they are.
    ///
    /// # Errors
    ///
    /// [`PackError::Bad`], after which the cache has those entries that came before what is wrong; where the cache cannot
    /// be written; where `cancel` came.
    pub fn unpack(&self, file: &Path, cancel: &Cancel) -> Result<Unpacked, PackError> {
        let source = fs::File::open(file)?;
        let work = Work::begin(&*self.watch, format!("unpack {}", file.display()));
        let total = source.metadata()?.len();
        let source = Watched { source, work: &work, done: 0, total, cancel };
        let bad = |what: String| PackError::Bad { file: file.to_owned(), what };
        let zstd = zstd::Decoder::new(source).map_err(|error| bad(error.to_string()))?;
        let mut archive = tar::Archive::new(zstd);
        archive.set_overwrite(false);
        // No set-user-id bits.
        archive.set_preserve_permissions(false);
        archive.set_preserve_mtime(false);
        let result = Members::read(&mut archive).and_then(|members| members.unpack(self, cancel));
        let unpacked = result.map_err(|error| match error {
            // What is told to stop in the middle of a read has no better way to say so.
            _ if cancel.is_cancelled() => Error::Cancelled.into(),
            Unpack::Bad(what) => bad(what),
            Unpack::Read(error) => bad(error.to_string()),
            Unpack::Cache(error) => error.into(),
        })?;
        // To the end, where the checksum is.
        let rest = io::copy(&mut archive.into_inner(), &mut io::sink());
        rest.map_err(|error| bad(error.to_string())).map(|_| unpacked)
    }
}

fn packed(entry: &Entry) -> io::Result<Packed> {
    let manifest = read_manifest(entry)?;
    let (kind, key) = (entry.kind().to_owned(), entry.key().to_owned());
    Ok(Packed { kind, key, label: manifest.label, sha256: manifest.content })
}

/// What goes wrong in the midst of an archive.
#[derive(Debug, thiserror::Error)]
enum Unpack {
    #[error("{0}")]
    Bad(String),
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Cache(#[from] Error),
}

/// The members of an archive, behind its index.
struct Members<'a, R: Read> {
    index: Vec<Packed>,
    members: Peekable<tar::Entries<'a, R>>,
    seen: u64,
}

impl<'a, R: Read + 'a> Members<'a, R> {
    /// Reads the index.
    fn read(archive: &'a mut tar::Archive<R>) -> Result<Self, Unpack> {
        let mut members = archive.entries()?;
        let no_pack = || Unpack::Bad("it was not made by `kmodlab image pack`".to_owned());
        let first = members.next().ok_or_else(no_pack)??;
        if first.path()?.as_os_str() != INDEX {
            return Err(no_pack());
        }
        let mut json = Vec::new();
        first.take(LONGEST_INDEX).read_to_end(&mut json)?;
        let index: Index = serde_json::from_slice(&json).map_err(|_| no_pack())?;
        if index.format != FORMAT {
            return Err(Unpack::Bad(format!("it is a `{}`, not a `{FORMAT}`", index.format)));
        }
        if let Some(entry) = index.entries.iter().find(|entry| !entry.is_plain()) {
            return Err(Unpack::Bad(format!("`{}` is no entry of a cache", entry.path().display())));
        }
        Ok(Members { index: index.entries, members: members.peekable(), seen: 0 })
    }

    fn unpack(mut self, cache: &Cache, cancel: &Cancel) -> Result<Unpacked, Unpack> {
        let mut unpacked = Unpacked::default();
        for packed in std::mem::take(&mut self.index) {
            let place = packed.path();
            let key = Key::known(&packed.key, &packed.label);
            let mut new = false;
            cache.entry(&packed.kind, &key, cancel, |dir| {
                new = true;
                self.entry(&place, |member, path, links| {
                    let stored = member.header().entry_size()?;
                    cache.require(&packed.label, stored)?;
                    unpack_member(member, path, dir, links)
                })?;
                match tree::content(dir, &is_manifest)? == packed.sha256 {
                    true => Ok(()),
                    false => Err(Unpack::Bad(format!("`{}` has another content", packed.label))),
                }
            })?;
            self.entry(&place, |_, _, _| Ok(()))?;
            *(if new { &mut unpacked.new } else { &mut unpacked.had }) += 1;
        }
        match self.members.next() {
            None => Ok(unpacked),
            Some(member) => Err(Unpack::Bad(format!("`{}` is not in its index", member?.path()?.display()))),
        }
    }

    /// Calls `take` with the members of the entry at `place`, as far as they come next, and their paths in it; then makes
    /// the links that it collects.
    fn entry(
        &mut self,
        place: &Path,
        mut take: impl FnMut(&mut tar::Entry<'a, R>, &Path, &mut Links) -> Result<(), Unpack>,
    ) -> Result<(), Unpack> {
        let mut links = Links::new();
        let belongs = |member: &io::Result<tar::Entry<'a, R>>| match member {
            Ok(member) => member.path().is_ok_and(|path| path.starts_with(place)),
            Err(_) => true,
        };
        while let Some(member) = self.members.next_if(belongs) {
            let mut member = member?;
            self.seen += 1;
            if self.seen > MOST_MEMBERS {
                return Err(Unpack::Bad("it has too many files".to_owned()));
            }
            let path = plain(&member.path()?)?;
            let inner = path.strip_prefix(place).map_err(|_| Unpack::Bad("a path is wrong".to_owned()))?;
            take(&mut member, inner, &mut links)?;
        }
        for (path, target) in links {
            fs::os::unix::fs::symlink(target, path)?;
        }
        Ok(())
    }
}

/// Links to make: where, and to what.
type Links = BTreeSet<(PathBuf, PathBuf)>;

fn unpack_member<R: Read>(
    member: &mut tar::Entry<'_, R>,
    path: &Path,
    dir: &Path,
    links: &mut Links,
) -> Result<(), Unpack> {
    if path.as_os_str().is_empty() || is_manifest(path) {
        return Err(Unpack::Bad(format!("`{}` is not for an archive", path.display())));
    }
    let to = dir.join(path);
    match member.header().entry_type() {
        EntryType::Directory | EntryType::Regular | EntryType::GNUSparse => {
            // Only folders are there yet: whatever leads elsewhere comes later.
            member.unpack(&to)?;
        }
        EntryType::Symlink => {
            let target = member.link_name()?.unwrap_or_default().into_owned();
            links.insert((to, target));
        }
        other => {
            return Err(Unpack::Bad(format!("`{}` is of the kind {other:?}", path.display())));
        }
    }
    Ok(())
}

/// A file that is read: says how far, and stops when told to.
struct Watched<'a> {
    source: fs::File,
    work: &'a Work<'a>,
    done: u64,
    total: u64,
    cancel: &'a Cancel,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        let count = self.source.read(buffer)?;
        self.done += count as u64;
        self.work.progress(self.done, self.total);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
