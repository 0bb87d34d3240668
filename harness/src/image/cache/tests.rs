use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::process::Command;
use crate::work::Unwatched;

/// Names the cache that a child process of the tests is to fill.
const CHILD: &str = "KMODLAB_TEST_CACHE";

#[derive(Default)]
struct Seen(Mutex<Vec<WorkEvent>>);

impl Watch for Seen {
    fn work(&self, event: WorkEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Seen {
    fn warnings(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events
            .iter()
            .filter_map(|event| if let WorkEvent::Warning(text) = event { Some(text.clone()) } else { None })
            .collect()
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    cache: Cache,
    seen: Arc<Seen>,
    cancel: Cancel,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Seen::default());
    let cache = Cache::open(Some(&dir.path().join("cache")), seen.clone()).unwrap();
    Fixture { _dir: dir, cache, seen, cancel: Cancel::new().unwrap() }
}

fn key(name: &str) -> Key {
    KeyBuilder::new(name).part("name", name).finish()
}

impl Fixture {
    /// The entry `a`, and whether it was made now.
    fn have(&self) -> (Entry, bool) {
        let mut made = false;
        let entry = self
            .cache
            .entry("kind", &key("a"), &self.cancel, |dir| {
                made = true;
                fs::create_dir(dir.join("sub"))?;
                fs::write(dir.join("sub/file"), "content")
            })
            .unwrap();
        (entry, made)
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.cache.root.join(TMP)).unwrap().count()
    }
}

/// Gives a file other content under another inode: a write in place may fall into the tick of its making.
fn replace(file: &Path, content: &str) {
    let new = file.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn an_entry_is_made_once_and_found_again() {
    let f = fixture();
    assert!(f.cache.get("kind", &key("a")).unwrap().is_none());
    let (entry, made) = f.have();
    assert!(made);
    assert_eq!(fs::read_to_string(entry.join("sub/file")).unwrap(), "content");
    assert!(!f.have().1);
    let again = Cache::open(Some(f.cache.root()), Arc::new(Unwatched)).unwrap();
    assert_eq!(&*again.get("kind", &key("a")).unwrap().unwrap(), &*entry);
    assert_eq!(f.leftovers(), 0);
    assert_eq!(f.seen.warnings(), [""; 0]);
}

#[test]
fn a_maker_that_fails_leaves_nothing() {
    let f = fixture();
    let error = f
        .cache
        .entry("kind", &key("a"), &f.cancel, |dir| {
            fs::write(dir.join("half"), "x")?;
            Err(io::Error::other("no luck"))
        })
        .unwrap_err();
    assert!(error.to_string() == "no luck", "{error}");
    assert_eq!(f.leftovers(), 0);
    let (entry, made) = f.have();
    assert!(made && !entry.join("half").exists());
}

#[test]
fn an_altered_truncated_missing_or_added_file_is_found_out() {
    type Damage = fn(&Path);
    let damages: [Damage; 5] = [
        |entry| replace(&entry.join("sub/file"), "c0ntent"),
        |entry| fs::File::options().write(true).open(entry.join("sub/file")).unwrap().set_len(3).unwrap(),
        |entry| fs::remove_file(entry.join("sub/file")).unwrap(),
        |entry| fs::write(entry.join("sub/more"), "").unwrap(),
        |entry| fs::write(entry.join(MANIFEST), "{").unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        let f = fixture();
        let (entry, _) = f.have();
        damage(&entry);
        assert!(f.cache.get("kind", &key("a")).unwrap().is_none(), "damage {number}");
        assert_eq!(f.seen.warnings().len(), 1, "damage {number}");
        let (entry, made) = f.have();
        assert!(made, "damage {number}");
        assert_eq!(fs::read_to_string(entry.join("sub/file")).unwrap(), "content");
        assert_eq!(f.leftovers(), 0);
    }
}

#[test]
fn an_alteration_behind_the_same_size_and_mtime_is_found_out() {
    let f = fixture();
    let (entry, _) = f.have();
    let file = entry.join("sub/file");
    let mtime = fs::metadata(&file).unwrap().modified().unwrap();
    replace(&file, "c0ntent");
    fs::File::options().write(true).open(&file).unwrap().file().set_modified(mtime).unwrap();
    assert!(f.have().1);
    assert!(f.seen.warnings()[0].contains("cached `a` was altered"));
}

#[test]
fn the_same_content_under_a_new_stamp_is_kept() {
    let f = fixture();
    let (entry, _) = f.have();
    replace(&entry.join("sub/file"), "content");
    let manifest = fs::read(entry.join(MANIFEST)).unwrap();
    assert!(!f.have().1);
    assert_ne!(manifest, fs::read(entry.join(MANIFEST)).unwrap(), "it was stamped again");
    assert!(!f.have().1);
    assert_eq!(f.seen.warnings(), [""; 0]);
    assert_eq!(f.seen.0.lock().unwrap().len(), 2, "checked once");
}

#[test]
fn a_sparse_file_stays_sparse() {
    let f = fixture();
    let entry = f
        .cache
        .entry("kind", &key("a"), &f.cancel, |dir| fs::File::create(dir.join("ram"))?.set_len(1 << 30))
        .unwrap();
    assert_eq!(fs::metadata(entry.join("ram")).unwrap().len(), 1 << 30);
    assert!(f.cache.list().unwrap()[0].disk_bytes < 1 << 20);
}

#[test]
fn threads_that_race_do_the_work_once() {
    let f = fixture();
    let made = AtomicUsize::new(0);
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // As other processes do, each sweeps.
                let cache = Cache::open(Some(f.cache.root()), f.seen.clone()).unwrap();
                start.wait();
                let entry = cache
                    .entry("kind", &key("a"), &f.cancel, |dir| {
                        made.fetch_add(1, Ordering::Relaxed);
                        fs::write(dir.join("file"), "content")
                    })
                    .unwrap();
                assert_eq!(fs::read_to_string(entry.join("file")).unwrap(), "content");
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
    assert_eq!(f.leftovers(), 0);
}

/// What the child processes of the tests below do: make the entry, and say so; where told to hang, do so in the middle.
/// Run by the test harness itself, it has nothing to do.
#[test]
fn child() {
    let Ok(root) = std::env::var(CHILD) else { return };
    let cache = Cache::open(Some(Path::new(&root)), Arc::new(Unwatched)).unwrap();
    let hang = std::env::var_os("KMODLAB_TEST_HANG").is_some();
    let made = cache.entry("kind", &key("a"), &Cancel::new().unwrap(), |dir| {
        fs::create_dir(dir.join("sub"))?;
        fs::write(dir.join("sub/file"), if hang { "half" } else { "content" })?;
        // Past the test harness's capture.
        io::Write::write_all(&mut io::stdout(), b"making\n")?;
        io::Write::flush(&mut io::stdout())?;
        if hang {
            std::thread::park();
        }
        Ok::<(), io::Error>(())
    });
    made.unwrap();
}

fn spawn_child(cache: &Cache, hang: bool) -> crate::process::Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "image::cache::tests::child", "--nocapture"]).env(CHILD, cache.root());
    if hang {
        command.env("KMODLAB_TEST_HANG", "1");
    }
    command.spawn(Stdio::piped(), Stdio::null()).unwrap()
}

fn wait_for_marker(out: OwnedFd) {
    let mut text = String::new();
    let mut out = std::io::BufReader::new(std::fs::File::from(out));
    while !text.contains("making") {
        assert!(std::io::BufRead::read_line(&mut out, &mut text).unwrap() > 0, "the child ended: {text}");
    }
}

#[test]
fn a_killed_maker_leaves_nothing_that_is_used_and_is_swept() {
    let f = fixture();
    let mut child = spawn_child(&f.cache, true);
    wait_for_marker(child.take_stdout().unwrap());
    assert_eq!(f.leftovers(), 1);
    Cache::open(Some(f.cache.root()), Arc::new(Unwatched)).unwrap();
    assert_eq!(f.leftovers(), 1, "one at work is not swept");
    child.kill().unwrap();
    assert!(f.cache.get("kind", &key("a")).unwrap().is_none());
    Cache::open(Some(f.cache.root()), Arc::new(Unwatched)).unwrap();
    assert_eq!(f.leftovers(), 0);
    let (entry, made) = f.have();
    assert!(made);
    assert_eq!(fs::read_to_string(entry.join("sub/file")).unwrap(), "content");
}

#[test]
fn waiting_for_another_process_can_be_cancelled_and_is_told() {
    let f = fixture();
    let mut child = spawn_child(&f.cache, true);
    wait_for_marker(child.take_stdout().unwrap());
    f.cancel.cancel();
    let result = f.cache.entry("kind", &key("a"), &f.cancel, |_| Ok::<(), Error>(()));
    assert!(matches!(result, Err(Error::Cancelled)));
    let events = f.seen.0.lock().unwrap();
    assert!(
        matches!(&events[..], [WorkEvent::Begin { what, .. }, WorkEvent::End { .. }] if what.contains("wait for `a`"))
    );
}

#[test]
fn processes_that_race_all_have_the_entry() {
    let f = fixture();
    let mut children: Vec<_> = (0..4).map(|_| spawn_child(&f.cache, false)).collect();
    let mut makers = 0;
    for child in &mut children {
        let mut text = String::new();
        let mut out = std::fs::File::from(child.take_stdout().unwrap());
        io::Read::read_to_string(&mut out, &mut text).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
        makers += usize::from(text.contains("making"));
    }
    assert_eq!(makers, 1);
    assert!(!f.have().1);
}

#[test]
fn cleaning_spares_what_is_in_use() {
    let f = fixture();
    let (entry, _) = f.have();
    let other =
        f.cache.entry("kind", &key("b"), &f.cancel, |dir| fs::write(dir.join("f"), vec![1; 50_000])).unwrap();
    let labels = |list: &[Listed]| list.iter().map(|entry| entry.label.clone()).collect::<Vec<_>>();
    let list = f.cache.list().unwrap();
    assert_eq!(labels(&list), ["a", "b"]);
    assert!(list[1].disk_bytes >= 50_000 && list[1].kind == "kind" && list[1].key == key("b").as_str());
    drop(other);
    let cleaned = f.cache.clean(None, Duration::ZERO).unwrap();
    assert_eq!(
        (labels(&cleaned.removed), labels(&cleaned.in_use)),
        (vec!["b".to_owned()], vec!["a".to_owned()])
    );
    assert!(entry.join("sub/file").exists());
    drop(entry);
    assert!(f.cache.remove("kind", key("a").as_str()).unwrap());
    assert_eq!(f.cache.list().unwrap(), []);
    assert_eq!(fs::read_dir(f.cache.root().join("kind")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_says_where_and_what_to_do() {
    let f = fixture();
    let full = |dir: &Path| {
        fs::write(dir.join("some"), vec![1; 3 << 20])?;
        Ok::<(), Error>(std::fs::write("/dev/full", "x")?)
    };
    let error = f.cache.entry("kind", &key("a"), &f.cancel, full).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    let text = error.to_string();
    let start = format!(
        "no space left for `a` in the cache `{}`: it takes 3 MiB or more, ",
        f.cache.root().display()
    );
    assert!(text.starts_with(&start) && text.contains("`kmodlab image clean`"), "{text}");
    assert_eq!(f.leftovers(), 0);
}

#[test]
fn room_that_is_not_there_is_told_beforehand() {
    let f = fixture();
    f.cache.require("something", 1).unwrap();
    let error = f.cache.require("something", u64::MAX).unwrap_err().to_string();
    assert!(error.starts_with("no space left for `something`"), "{error}");
}
