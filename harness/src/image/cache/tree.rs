//! Directory trees: the cheap stamp and the content hash that tell whether one is still what it was, and its size.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_err as fs;
use sha2::{Digest, Sha256};

use super::key::hex;

/// The unit in which files are hashed: a block of zeros counts as a hole, whether it is one or not.
const BLOCK: usize = 64 * 1024;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Calls `visit` with everything below `root`, in a fixed order. Paths are relative. `skip` is left out at the top.
pub(super) fn walk(
    root: &Path,
    skip: &dyn Fn(&Path) -> bool,
    visit: &mut dyn FnMut(&Path, &std::fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let mut pending = vec![std::path::PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let mut names = fs::read_dir(root.join(&dir))?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let path = dir.join(name);
            if skip(&path) {
                continue;
            }
            let meta = fs::symlink_metadata(root.join(&path))?;
            visit(&path, &meta)?;
            if meta.is_dir() {
                pending.push(path);
            }
        }
    }
    Ok(())
}

/// A hash over what `stat` says of every file below `root`: name, size, mtime, ctime and inode.
///
/// Nobody can set a ctime, so whoever alters a file changes this. Of a directory its name alone counts.
pub fn stamp(root: &Path, skip: &dyn Fn(&Path) -> bool) -> io::Result<String> {
    let mut hash = Sha256::new();
    walk(root, skip, &mut |path, meta| {
        name(&mut hash, path, meta);
        if !meta.is_dir() {
            let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
            times.iter().for_each(|time| hash.update(time.to_le_bytes()));
            hash.update(meta.len().to_le_bytes());
            hash.update(meta.ino().to_le_bytes());
        }
        Ok(())
    })?;
    Ok(hex(&hash.finalize()))
}

/// A hash over the names, modes and content of everything below `root`.
pub(super) fn content(root: &Path, skip: &dyn Fn(&Path) -> bool) -> io::Result<String> {
    let mut hash = Sha256::new();
    walk(root, skip, &mut |path, meta| {
        name(&mut hash, path, meta);
        if meta.is_file() {
            hash.update(meta.len().to_le_bytes());
            file(&mut hash, fs::File::open(root.join(path))?)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(root.join(path))?;
            hash.update((target.as_os_str().len() as u64).to_le_bytes());
            hash.update(target.as_os_str().as_bytes());
        }
        Ok(())
    })?;
    Ok(hex(&hash.finalize()))
}

fn name(hash: &mut Sha256, path: &Path, meta: &std::fs::Metadata) {
    hash.update((path.as_os_str().len() as u64).to_le_bytes());
    hash.update(path.as_os_str().as_bytes());
    hash.update(meta.mode().to_le_bytes());
}

/// Adds a file's blocks that are not zero, each with its place, so that holes cost nothing.
fn file(hash: &mut Sha256, mut file: fs::File) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while let Some(data) = next_data(&file, at)? {
        at = data - data % BLOCK as u64;
        file.seek(SeekFrom::Start(at))?;
        block.clear();
        file.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if !ZEROS.starts_with(&block) {
            hash.update(at.to_le_bytes());
            hash.update(&block);
        }
        at += BLOCK as u64;
    }
    Ok(())
}

/// Where data begins, from `at` on; `None` where there is none up to the end. See lseek(2) on `SEEK_DATA`.
fn next_data(file: &fs::File, at: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file.file(), rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The bytes that everything below `root`, and `root`, really takes on the disk.
pub(super) fn disk_usage(root: &Path) -> io::Result<u64> {
    let mut blocks = fs::symlink_metadata(root)?.blocks();
    walk(root, &|_| false, &mut |_, meta| {
        blocks += meta.blocks();
        Ok(())
    })?;
    Ok(blocks * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content_of(dir: &Path) -> String {
        content(dir, &|_| false).unwrap()
    }

    #[test]
    fn a_hole_and_zeros_are_the_same_content() {
        let (sparse, dense) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut bytes = vec![0; 5 * BLOCK + 17];
        bytes[3 * BLOCK + 5] = 1;
        fs::write(dense.path().join("f"), &bytes).unwrap();
        let file = fs::File::create(sparse.path().join("f")).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        std::os::unix::fs::FileExt::write_at(file.file(), &[1], 3 * BLOCK as u64 + 5).unwrap();
        assert_eq!(content_of(sparse.path()), content_of(dense.path()));
        assert!(disk_usage(sparse.path()).unwrap() <= disk_usage(dense.path()).unwrap());

        bytes.push(0);
        fs::write(dense.path().join("f"), &bytes).unwrap();
        assert_ne!(content_of(sparse.path()), content_of(dense.path()), "the length counts");
    }

    #[test]
    fn names_links_modes_and_data_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = vec![content_of(dir.path())];
        let mut changed = |what: &str| {
            let now = content_of(dir.path());
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(dir.path().join("a"), "1").unwrap();
        changed("a file");
        fs::write(dir.path().join("a"), "2").unwrap();
        changed("its data");
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        changed("its name");
        fs::set_permissions(dir.path().join("b"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        changed("its mode");
        fs::create_dir(dir.path().join("d")).unwrap();
        changed("an empty directory");
        fs::os::unix::fs::symlink("b", dir.path().join("d/l")).unwrap();
        changed("a link");
    }

    #[test]
    fn the_stamp_shows_a_change_that_keeps_size_and_mtime() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old").unwrap();
        let mtime = fs::metadata(&path).unwrap().modified().unwrap();
        let before = stamp(dir.path(), &|_| false).unwrap();
        assert_eq!(before, stamp(dir.path(), &|_| false).unwrap());
        // The kernel's file times advance by ticks: an alteration within the same one would not show.
        let ctime = |path: &Path| fs::metadata(path).map(|meta| (meta.ctime(), meta.ctime_nsec())).unwrap();
        let other = dir.path().with_extension("clock");
        loop {
            fs::write(&other, "").unwrap();
            if ctime(&other) != ctime(&path) {
                break fs::remove_file(&other).unwrap();
            }
        }
        fs::write(&path, "new").unwrap();
        fs::File::options().write(true).open(&path).unwrap().file().set_modified(mtime).unwrap();
        assert_ne!(before, stamp(dir.path(), &|_| false).unwrap());
    }
}
