//! Writes initial RAM file systems: cpio archives in the "newc" format
//! (the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::io::{self, Write};

use cpio::newc;

/// The kernel unpacks archives that follow one another; it skips zeroes between them.
const ALIGNMENT: u64 = 512;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Writes one archive, entry by entry. The same calls always give the same bytes: inode numbers count up, every time is
/// 0 and every owner root. Directories come before what is in them; a path's missing parents are made with mode 0755.
///
/// Archives may be concatenated; where two have the same file the later one's content is what the guest sees.
#[derive(Debug)]
pub struct Builder<W: Write> {
    out: Counting<W>,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Builder<W> {
    /// An archive that is written to `out`.
    pub fn new(out: W) -> Self {
        Builder { out: Counting { inner: out, count: 0 }, inode: 0, directories: BTreeSet::new() }
    }

    /// Adds a directory; one that is there already stays as it is.
    pub fn dir(&mut self, path: &str, mode: u32) -> io::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY | mode, (0, 0), &[])
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, FILE | mode, (0, 0), bytes)
    }

    /// Adds a symbolic link at `path` to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device, such as `/dev/console` (5, 1), from which the kernel opens the standard streams of
    /// process 1.
    pub fn node(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, CHARACTER_DEVICE | mode, (major, minor), &[])
    }

    /// Ends the archive, padded so that another can follow, and gives back what it was written to.
    pub fn finish(self) -> io::Result<W> {
        let mut out = newc::trailer(self.out)?;
        let padding = out.count.next_multiple_of(ALIGNMENT) - out.count;
        io::copy(&mut io::Read::take(io::repeat(0), padding), &mut out)?;
        Ok(out.inner)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.trim_matches('/').rsplit_once('/') {
            Some((parent, _)) => self.dir(parent, 0o755),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, format!("`{path}` is over 4 GiB")))?;
        self.inode += 1;
        let mut writer = newc::Builder::new(path.trim_matches('/'))
            .ino(self.inode)
            .mode(mode)
            .rdev_major(device.0)
            .rdev_minor(device.1)
            .write(&mut self.out, size);
        writer.write_all(bytes)?;
        writer.finish().map(drop)
    }
}

/// Counts what is written through it.
#[derive(Debug)]
struct Counting<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        archive.node("/dev/console", 0o600, 5, 1).unwrap();
        archive.dir("/dev", 0o700).unwrap();
        archive.file("/etc/kmodlab/modules", 0o644, b"/a.ko\n").unwrap();
        archive.symlink("/bin/sh", "busybox").unwrap();
        archive.finish().unwrap()
    }

    /// Name, mode, device and content.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            let mut reader = newc::Reader::new(bytes).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            let entry = reader.entry();
            let device = (entry.rdev_major(), entry.rdev_minor());
            entries.push((entry.name().to_owned(), entry.mode(), device, content));
            bytes = reader.finish().unwrap();
        }
    }

    #[test]
    fn everything_is_read_back_parents_first() {
        let entry = |name: &str, mode, device, content: &str| {
            (name.to_owned(), mode, device, content.as_bytes().to_vec())
        };
        assert_eq!(
            read(&sample()),
            [
                entry("dev", 0o040_755, (0, 0), ""),
                entry("dev/console", 0o020_600, (5, 1), ""),
                entry("etc", 0o040_755, (0, 0), ""),
                entry("etc/kmodlab", 0o040_755, (0, 0), ""),
                entry("etc/kmodlab/modules", 0o100_644, (0, 0), "/a.ko\n"),
                entry("bin", 0o040_755, (0, 0), ""),
                entry("bin/sh", 0o120_777, (0, 0), "busybox"),
            ]
        );
    }

    #[test]
    fn bytes_are_reproducible_and_padded() {
        let bytes = sample();
        assert_eq!(bytes, sample());
        assert_eq!(bytes.len() as u64 % ALIGNMENT, 0);
        let both = [bytes.clone(), bytes].concat();
        assert_eq!(read(&both).len(), 7);
    }
}
