//! The names of cache entries.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use fs_err as fs;
use sha2::{Digest, Sha256};

/// Changes whenever the layout of the cache or of what is in it does.
const FORMAT: &[u8] = b"kmodlab cache 1";

/// How much of a hash names an entry.
pub(super) const HASH_DIGITS: usize = 32;

/// Names a cache entry: a hash over everything that it is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    hash: String,
    label: String,
}

impl Key {
    /// A key that was made before, as its entry is named.
    pub(super) fn known(hash: &str, label: &str) -> Self {
        Key { hash: hash.to_owned(), label: label.to_owned() }
    }

    /// The first 32 hexadecimal digits of the hash.
    pub fn as_str(&self) -> &str {
        &self.hash
    }

    /// What people call it.
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hash)
    }
}

/// Gathers the inputs of an entry.
///
/// Each has a name and is hashed with its length, so that no two different lists of inputs hash alike.
#[derive(Debug, Clone)]
pub struct KeyBuilder {
    hash: Sha256,
    label: String,
}

impl KeyBuilder {
    /// Begins a key. `label` is what people call the entry; it is no input.
    pub fn new(label: impl Into<String>) -> Self {
        KeyBuilder { hash: Sha256::new_with_prefix(FORMAT), label: label.into() }
    }

    /// Adds an input.
    #[must_use]
    pub fn part(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for bytes in [name.as_bytes(), value.as_ref()] {
            self.hash.update((bytes.len() as u64).to_le_bytes());
            self.hash.update(bytes);
        }
        self
    }

    /// Adds the content of a file.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn file(self, name: &str, path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(self.part(name, sha256_file(path.as_ref())?))
    }

    /// Adds another entry's key, for an entry made from that one.
    #[must_use]
    pub fn key(self, name: &str, key: &Key) -> Self {
        self.part(name, &key.hash)
    }

    /// The key.
    pub fn finish(self) -> Key {
        let mut hash = hex(&self.hash.finalize());
        hash.truncate(HASH_DIGITS);
        Key { hash, label: self.label }
    }
}

/// The SHA-256 of a file's content, in hexadecimal.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            return Ok(hex(&hash.finalize()));
        };
        hash.update(read);
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_between_inputs_count_and_the_label_does_not() {
        let key = |parts: &[(&str, &str)], label: &str| {
            parts.iter().fold(KeyBuilder::new(label), |key, (name, value)| key.part(name, value)).finish()
        };
        assert_eq!(key(&[("a", "bc")], "x").as_str(), key(&[("a", "bc")], "y").as_str());
        assert_ne!(key(&[("a", "bc")], "x"), key(&[("ab", "c")], "x"));
        assert_ne!(key(&[("a", ""), ("b", "")], "x"), key(&[("a", "")], "x"));
        assert_eq!(key(&[], "x").as_str().len(), 32);
    }

    #[test]
    fn a_file_counts_with_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "abc").unwrap();
        assert_eq!(
            sha256_file(&file).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let key = || KeyBuilder::new("").file("f", &file).unwrap().finish();
        let before = key();
        fs::write(&file, "abd").unwrap();
        assert_ne!(before, key());
    }
}
