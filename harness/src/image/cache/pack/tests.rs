use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::sync::Arc;

use rstest::rstest;

use super::*;
use crate::image::cache::KeyBuilder;
use crate::work::Unwatched;

const HOLES: u64 = 64 << 20;

struct Fixture {
    dir: tempfile::TempDir,
    cancel: Cancel,
}

impl Fixture {
    fn new() -> Self {
        Fixture { dir: tempfile::tempdir().unwrap(), cancel: Cancel::new().unwrap() }
    }

    fn cache(&self, name: &str) -> Cache {
        Cache::open(Some(&self.dir.path().join(name)), Arc::new(Unwatched)).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("pack.tar.zst")
    }

    /// An entry with everything that entries have: folders, modes, links, and a file with holes.
    fn entry(&self, cache: &Cache, name: &str) -> Entry {
        let make = |dir: &Path| -> io::Result<()> {
            fs::create_dir_all(dir.join("sub/empty"))?;
            fs::write(dir.join("sub/program"), name)?;
            fs::set_permissions(dir.join("sub/program"), PermissionsExt::from_mode(0o755))?;
            symlink("/nowhere/at/all", dir.join("link"))?;
            let sparse = fs::File::create(dir.join("memory"))?;
            sparse.set_len(HOLES)?;
            sparse.file().write_all_at(b"data", HOLES / 2)
        };
        cache.entry("kind", &key(name), &self.cancel, make).unwrap()
    }

    /// Packs two entries.
    fn packed(&self) -> Cache {
        let cache = self.cache("from");
        let entries = ["a", "b"].map(|name| self.entry(&cache, name));
        cache.pack(&entries, &self.file(), &self.cancel).unwrap();
        cache
    }

    /// Unpacks into a new cache, which must be left with nothing by an error.
    fn refused(&self) -> String {
        let cache = self.cache("to");
        let error = cache.unpack(&self.file(), &self.cancel).unwrap_err();
        assert!(matches!(error, PackError::Bad { .. }), "{error:?}");
        assert_eq!(fs::read_dir(cache.root().join(TMP)).unwrap().count(), 0);
        assert_eq!(cache.list().unwrap().len(), 0);
        let there: BTreeSet<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(there.iter().all(|name| ["from", "to", "pack.tar.zst"].iter().any(|known| name == known)));
        error.to_string()
    }

    /// Writes an archive whose index has one entry, and then these members.
    fn archive(&self, entry: &Packed, members: &[(&str, EntryType, &str)]) {
        let zstd = zstd::Encoder::new(fs::File::create(self.file()).unwrap(), 0).unwrap();
        let mut tar = tar::Builder::new(zstd);
        let index = serde_json::json!({ "format": FORMAT, "entries": [entry] }).to_string();
        for (path, kind, content) in [(INDEX, EntryType::Regular, index.as_str())].iter().chain(members) {
            let mut header = tar::Header::new_gnu();
            // Not by `set_path`, which refuses what is tried here.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            let data = if kind.is_file() { content.as_bytes() } else { &[] };
            if !kind.is_file() {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            tar.append(&header, data).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
    }
}

fn key(name: &str) -> Key {
    KeyBuilder::new(name).part("name", name).finish()
}

fn packed_as(kind: &str, key: &str) -> Packed {
    Packed { kind: kind.into(), key: key.into(), label: "label".into(), sha256: "0".into() }
}

const KEY: &str = "00112233445566778899aabbccddeeff";
const IN: &str = "kind/00112233445566778899aabbccddeeff";

#[test]
fn what_was_packed_is_the_same_in_another_cache() {
    let f = Fixture::new();
    let from = f.packed();
    let to = f.cache("to");
    assert_eq!(to.unpack(&f.file(), &f.cancel).unwrap(), Unpacked { new: 2, had: 0 });
    for name in ["a", "b"] {
        let entry = to.get("kind", &key(name)).unwrap().unwrap();
        let other = from.get("kind", &key(name)).unwrap().unwrap();
        let content = |entry: &Entry| tree::content(entry, &is_manifest).unwrap();
        assert_eq!(content(&entry), content(&other));
        assert_eq!(fs::read_to_string(entry.join("sub/program")).unwrap(), name);
        assert!(tree::disk_usage(&entry).unwrap() < HOLES / 16, "its holes are filled");
    }
    assert_eq!(to.unpack(&f.file(), &f.cancel).unwrap(), Unpacked { new: 0, had: 2 });
    let labels: Vec<_> = to.list().unwrap().into_iter().map(|listed| listed.label).collect();
    assert_eq!(labels, ["a", "b"]);
    assert!(fs::metadata(f.file()).unwrap().len() < 64 * 1024);
}

#[test]
fn what_is_used_is_recorded_and_stays() {
    let f = Fixture::new();
    let cache = f.cache("from");
    drop(f.entry(&cache, "before"));
    cache.record();
    drop((f.entry(&cache, "a"), f.entry(&cache, "a")));
    assert_eq!(cache.clean(None, std::time::Duration::ZERO).unwrap().in_use.len(), 1);
    let recorded: Vec<_> = cache.recorded().iter().map(|entry| entry.key().to_owned()).collect();
    assert_eq!(recorded, [key("a").as_str()]);
    assert!(cache.recorded().is_empty());
}

#[test]
fn a_file_that_was_cut_is_refused_wherever_it_was() {
    let f = Fixture::new();
    f.packed();
    let whole = fs::read(f.file()).unwrap();
    for part in [0, 1, 4, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        fs::write(f.file(), &whole[..part]).unwrap();
        let cache = f.cache("to");
        let error = cache.unpack(&f.file(), &f.cancel).unwrap_err();
        assert!(matches!(error, PackError::Bad { .. }), "{part}: {error:?}");
        assert_eq!(fs::read_dir(cache.root().join(TMP)).unwrap().count(), 0);
    }
}

#[test]
fn an_entry_with_another_content_is_refused() {
    let f = Fixture::new();
    f.archive(&packed_as("kind", KEY), &[(&format!("{IN}/file"), EntryType::Regular, "altered")]);
    assert!(f.refused().contains("`label` has another content"));
}

#[rstest]
#[case::up(&[("kind/00112233445566778899aabbccddeeff/../../../evil", EntryType::Regular, "x")], "leads out")]
#[case::absolute(&[("/evil", EntryType::Regular, "x")], "another content")]
#[case::elsewhere(&[("kind/other/file", EntryType::Regular, "x")], "another content")]
#[case::hard_link(&[("kind/00112233445566778899aabbccddeeff/l", EntryType::Link, "/etc/passwd")], "of the kind Link")]
#[case::device(&[("kind/00112233445566778899aabbccddeeff/d", EntryType::Char, "")], "of the kind Char")]
#[case::fifo(&[("kind/00112233445566778899aabbccddeeff/d", EntryType::Fifo, "")], "of the kind Fifo")]
#[case::manifest(&[("kind/00112233445566778899aabbccddeeff/.manifest.json", EntryType::Regular, "{}")], "not for an archive")]
#[case::itself(&[("kind/00112233445566778899aabbccddeeff", EntryType::Symlink, "/")], "not for an archive")]
#[case::through_a_link(
    &[
        ("kind/00112233445566778899aabbccddeeff/l", EntryType::Symlink, "../.."),
        ("kind/00112233445566778899aabbccddeeff/l/evil", EntryType::Regular, "x"),
    ],
    "evil"
)]
#[case::twice(
    &[
        ("kind/00112233445566778899aabbccddeeff/f", EntryType::Regular, "x"),
        ("kind/00112233445566778899aabbccddeeff/f", EntryType::Regular, "y"),
    ],
    ""
)]
fn hostile_members_are_refused(#[case] members: &[(&str, EntryType, &str)], #[case] why: &str) {
    let f = Fixture::new();
    f.archive(&packed_as("kind", KEY), members);
    let error = f.refused();
    assert!(error.contains(why) && error.contains("make it anew with `kmodlab image pack`"), "{error}");
}

#[rstest]
#[case("..", KEY)]
#[case("tmp", KEY)]
#[case("", KEY)]
#[case("a/b", KEY)]
#[case("kind", "../../../../../../../../../../ev")]
#[case("kind", "short")]
fn hostile_names_of_entries_are_refused(#[case] kind: &str, #[case] key: &str) {
    let f = Fixture::new();
    f.archive(&packed_as(kind, key), &[]);
    assert!(f.refused().contains("is no entry of a cache"));
}

#[test]
fn no_bit_of_a_mode_gives_rights() {
    let f = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    fs::set_permissions(dir.path().join("file"), PermissionsExt::from_mode(0o755)).unwrap();
    let sha256 = tree::content(dir.path(), &is_manifest).unwrap();
    let members = [(format!("{IN}/file"), EntryType::Regular, "x")];
    let members: Vec<_> = members.iter().map(|(path, kind, text)| (path.as_str(), *kind, *text)).collect();
    f.archive(&Packed { sha256, ..packed_as("kind", KEY) }, &members);
    let cache = f.cache("to");
    assert_eq!(cache.unpack(&f.file(), &f.cancel).unwrap().new, 1);
    let mode = fs::metadata(cache.root().join(IN).join("file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn other_files_are_told_as_that() {
    let f = Fixture::new();
    fs::write(f.file(), "no archive").unwrap();
    f.refused();
    let zstd = zstd::Encoder::new(fs::File::create(f.file()).unwrap(), 0).unwrap();
    let mut tar = tar::Builder::new(zstd);
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    tar.append_data(&mut header, "other", io::empty()).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    let error = f.refused();
    assert!(error.contains("it was not made by `kmodlab image pack`"), "{error}");
}

#[test]
fn who_is_told_to_stop_leaves_nothing() {
    let f = Fixture::new();
    let from = f.packed();
    let (to, entry) = (f.cache("to"), f.entry(&from, "a"));
    f.cancel.cancel();
    assert!(matches!(to.unpack(&f.file(), &f.cancel), Err(PackError::Cache(Error::Cancelled))));
    let other = f.dir.path().join("other");
    assert!(from.pack(&[entry], &other, &f.cancel).is_err());
    assert!(!other.exists());
    assert_eq!(to.list().unwrap().len(), 0);
}
