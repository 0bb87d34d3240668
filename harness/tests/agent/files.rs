//! Files, directories, modules and waiting.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kmodlab::guest::Errno;
use kmodlab::guest::proto::{Condition, DATA_LIMIT, Entry, FileKind, Reply, Request, WriteMode};
use rstest::rstest;
use tempfile::TempDir;

use crate::client::Agent;
use crate::{done, hold_fifo, make_fifo, path, write};

fn read(agent: &mut Agent, path: &str, limit: u64) -> (Vec<u8>, Reply) {
    let id = agent.send(&Request::ReadFile { path: path.to_owned(), limit });
    let mut content = Vec::new();
    loop {
        match agent.reply(id) {
            Reply::Data(bytes) => content.extend(bytes),
            last => return (content, last),
        }
    }
}

#[test]
fn files_are_written_in_every_mode_and_read_back() {
    let dir = TempDir::new().unwrap();
    let file = path(&dir, "file");
    let mut agent = Agent::start();
    let binary: Vec<u8> = (0..DATA_LIMIT).map(|i| (i % 253) as u8).collect();
    let size = binary.len() as u64;

    assert_eq!(agent.ask(&write(&file, WriteMode::Create, &binary)), done(Errno::OK, size, true));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(read(&mut agent, &file, u64::MAX), (binary.clone(), done(Errno::OK, size, true)));
    assert_eq!(agent.ask(&write(&file, WriteMode::Create, b"x")), done(Errno::EEXIST, 0, false));
    assert_eq!(agent.ask(&write(&file, WriteMode::Append, b"more")), done(Errno::OK, 4, true));
    assert_eq!(fs::read(&file).unwrap(), [&binary[..], b"more"].concat());
    assert_eq!(agent.ask(&write(&file, WriteMode::Truncate, b"short")), done(Errno::OK, 5, true));
    assert_eq!(read(&mut agent, &file, 3), (b"sho".to_vec(), done(Errno::OK, 3, false)));
    assert_eq!(agent.ask(&write(&file, WriteMode::Truncate, b"")), done(Errno::OK, 0, true));
    assert_eq!(read(&mut agent, &file, 3), (vec![], done(Errno::OK, 0, true)));
}

#[test]
fn files_without_a_size_are_read_whole() {
    let mut agent = Agent::start();
    let (content, last) = read(&mut agent, "/proc/self/status", u64::MAX);
    assert!(content.starts_with(b"Name:") && content.ends_with(b"\n"));
    assert_eq!(last, done(Errno::OK, content.len() as u64, true));
}

#[test]
fn errors_of_files_are_told() {
    let dir = TempDir::new().unwrap();
    let directory = path(&dir, "");
    let mut agent = Agent::start();
    assert_eq!(read(&mut agent, "/no/such/file", 9).1, done(Errno::ENOENT, 0, false));
    assert_eq!(read(&mut agent, &directory, 9).1, done(Errno::EISDIR, 0, false));
    let no_parent = path(&dir, "no/such/file");
    assert_eq!(agent.ask(&write(&no_parent, WriteMode::Append, b"x")), done(Errno::ENOENT, 0, false));
    assert_eq!(agent.ask(&write("/dev/full", WriteMode::Append, b"x")), done(Errno::ENOSPC, 0, false));
    // procfs makes no files.
    let misspelt = write("/proc/sys/kernel/no-such", WriteMode::Truncate, b"1");
    assert_eq!(agent.ask(&misspelt), done(Errno::ENOENT, 0, false));
}

#[test]
fn reading_waits_for_nobody() {
    let dir = TempDir::new().unwrap();
    let fifo = path(&dir, "fifo");
    make_fifo(&fifo);
    let mut agent = Agent::start();
    assert_eq!(read(&mut agent, &fifo, 100), (vec![], done(Errno::OK, 0, true)));
    let mut held = hold_fifo(&fifo);
    held.write_all(b"now").unwrap();
    assert_eq!(read(&mut agent, &fifo, 100), (b"now".to_vec(), done(Errno::EAGAIN, 3, false)));
}

#[test]
fn directories_are_made_listed_and_removed() {
    let dir = TempDir::new().unwrap();
    let mut agent = Agent::start();
    let sub = path(&dir, "sub");
    let make = Request::MakeDir { path: sub.clone(), permissions: 0o750 };
    assert_eq!(agent.ask(&make), done(Errno::OK, 0, true));
    assert_eq!(agent.ask(&make), done(Errno::EEXIST, 0, true));
    fs::write(path(&dir, "file"), "12345").unwrap();
    fs::set_permissions(path(&dir, "file"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("nowhere", path(&dir, "link")).unwrap();

    let (entries, last) = list(&mut agent, dir.path());
    let brief: Vec<_> = entries.iter().map(|e| (e.name.as_slice(), e.kind, e.permissions)).collect();
    let expected = [
        (&b"file"[..], FileKind::File, 0o600),
        (b"link", FileKind::Link, 0o777),
        (b"sub", FileKind::Directory, 0o750),
    ];
    assert_eq!((brief.as_slice(), entries[0].size, last), (&expected[..], 5, done(Errno::OK, 3, true)));

    fs::write(path(&dir, "sub/file"), "").unwrap();
    let mut remove = |name| agent.ask(&Request::Remove { path: path(&dir, name) });
    assert_eq!(remove("sub"), done(Errno::ENOTEMPTY, 0, true));
    for name in ["sub/file", "sub", "link", "file"] {
        assert_eq!(remove(name), done(Errno::OK, 0, true));
    }
    assert_eq!(remove("file"), done(Errno::ENOENT, 0, true));
}

fn list(agent: &mut Agent, path: &Path) -> (Vec<Entry>, Reply) {
    let id = agent.send(&Request::List { path: path.to_str().unwrap().to_owned() });
    let mut entries = Vec::new();
    loop {
        match agent.reply(id) {
            Reply::Entries(some) => entries.extend(some),
            last => {
                entries.sort_by(|one, other| one.name.cmp(&other.name));
                return (entries, last);
            }
        }
    }
}

#[test]
fn a_large_directory_is_listed_in_parts() {
    let dir = TempDir::new().unwrap();
    for number in 0..400 {
        fs::write(path(&dir, &format!("{number:0>200}")), "").unwrap();
    }
    let (entries, last) = list(&mut Agent::start(), dir.path());
    assert_eq!((entries.len(), last), (400, done(Errno::OK, 400, true)));
    assert!(entries.iter().enumerate().all(|(i, e)| e.name == format!("{i:0>200}").into_bytes()));
}

#[test]
fn modules_are_left_to_the_kernel() {
    let mut agent = Agent::start();
    let load = |path: &str| Request::LoadModule { path: path.into(), params: "a=1".into(), flags: 0 };
    assert_eq!(agent.ask(&load("/no/such.ko")), done(Errno::ENOENT, 0, true));
    // What the kernel says depends on whether it has modules, and on whether this process may load them.
    let Reply::Done { errno, .. } = agent.ask(&load("/etc/passwd")) else { panic!() };
    assert!([Errno::EPERM, Errno::ENOEXEC, Errno::ENOSYS].contains(&errno), "{errno}");
    let unload = Request::UnloadModule { name: "no_such_module".into(), force: false };
    let Reply::Done { errno, .. } = agent.ask(&unload) else { panic!() };
    assert!([Errno::EPERM, Errno::ENOENT, Errno::ENOSYS].contains(&errno), "{errno}");
}

#[rstest]
#[case::exists(Condition::Exists, Ok(""))]
#[case::absent(Condition::Absent, Err(""))]
#[case::equals(Condition::Equals(b"one\ntwo".to_vec()), Ok("one\ntwo"))]
#[case::equals_but_for_space(Condition::Equals(b"one\ntwo \n".to_vec()), Ok("one\ntwo"))]
#[case::not_equal_at_the_start(Condition::Equals(b" one\ntwo".to_vec()), Err("one\ntwo"))]
#[case::contains(Condition::Contains(b"e\nt".to_vec()), Ok("one\ntwo"))]
#[case::contains_nothing(Condition::Contains(vec![]), Ok("one\ntwo"))]
#[case::does_not_contain(Condition::Contains(b"three".to_vec()), Err("one\ntwo"))]
#[case::not_equals(Condition::NotEquals(b"one".to_vec()), Ok("one\ntwo"))]
#[case::not_not_equals(Condition::NotEquals(b"one\ntwo".to_vec()), Err("one\ntwo"))]
fn conditions_hold_or_time_out(#[case] condition: Condition, #[case] expected: Result<&str, &str>) {
    let dir = TempDir::new().unwrap();
    let file = path(&dir, "file");
    fs::write(&file, "one\ntwo\t\n\n").unwrap();
    let (errno, content) = match expected {
        Ok(content) => (Errno::OK, content),
        Err(content) => (Errno::ETIMEDOUT, content),
    };
    let waited = Agent::start().ask(&Request::WaitFor { path: file, condition, deadline_ms: 0 });
    assert_eq!(waited, Reply::Waited { errno, content: content.into() });
}

#[rstest]
#[case(Condition::Exists)]
#[case(Condition::Equals(vec![]))]
#[case(Condition::Contains(vec![]))]
#[case(Condition::NotEquals(b"x".to_vec()))]
fn nothing_but_absence_holds_of_a_missing_file(#[case] condition: Condition) {
    let mut agent = Agent::start();
    let wait = |condition| Request::WaitFor { path: "/no/such".into(), condition, deadline_ms: 20 };
    let (errno, content) = (Errno::ETIMEDOUT, vec![]);
    assert_eq!(agent.ask(&wait(condition)), Reply::Waited { errno, content });
    let (errno, content) = (Errno::OK, vec![]);
    assert_eq!(agent.ask(&wait(Condition::Absent)), Reply::Waited { errno, content });
}

#[test]
fn waiting_ends_when_the_file_changes_and_holds_nothing_else_up() {
    let dir = TempDir::new().unwrap();
    let file = path(&dir, "file");
    let mut agent = Agent::start();
    let condition = Condition::Contains(b"ready".to_vec());
    let id = agent.send(&Request::WaitFor { path: file.clone(), condition, deadline_ms: u32::MAX });
    let content = [b"ready ".repeat(1000), vec![b'x'; 100]].concat();
    assert!(matches!(agent.ask(&write(&file, WriteMode::Create, b"not yet")), Reply::Done { .. }));
    assert!(matches!(agent.ask(&write(&file, WriteMode::Truncate, &content)), Reply::Done { .. }));
    assert_eq!(agent.reply(id), Reply::Waited { errno: Errno::OK, content: content[..4096].to_vec() });
}
