//! Streams and their synchronisation.

use std::fs;
use std::io::Write;

use kmodlab::guest::Errno;
use kmodlab::guest::proto::{Port, Reply, Request};
use rstest::rstest;
use tempfile::TempDir;

use crate::client::{Agent, read_until};
use crate::{done, hold_fifo, make_fifo, path};

#[rstest]
#[case(Port::Log)]
#[case(Port::Trace)]
fn a_stream_follows_its_source_and_sync_counts_it(#[case] port: Port) {
    let dir = TempDir::new().unwrap();
    let fifo = path(&dir, "fifo");
    make_fifo(&fifo);
    let mut held = hold_fifo(&fifo);
    let mut agent = Agent::start();
    agent.hello();
    held.write_all(b"before").unwrap();
    let id = agent.send(&Request::Stream { path: fifo, port });
    assert_eq!(agent.reply(id), Reply::Started { pid: 0 });
    held.write_all(b"after").unwrap();
    assert_eq!(agent.ask(&Request::Sync { port }), Reply::Synced { bytes: 11, drained: true });
    held.write_all(b"unasked").unwrap();
    let stream = if port == Port::Log { &agent.log } else { &agent.trace };
    assert_eq!(read_until(stream, b"unasked"), b"beforeafter");

    // What is there when it is to stop still comes.
    held.write_all(b"last").unwrap();
    assert_eq!(agent.ask(&Request::StopStream { stream: id }), done(Errno::OK, 0, true));
    assert_eq!(agent.reply(id), done(Errno::OK, 0, true));
    assert_eq!(agent.ask(&Request::Sync { port }), Reply::Synced { bytes: 22, drained: true });
    assert_eq!(agent.ask(&Request::StopStream { stream: id }), done(Errno::ESRCH, 0, true));
    agent.hello();
    assert_eq!(agent.ask(&Request::Sync { port }), Reply::Synced { bytes: 0, drained: true });
}

#[test]
fn a_file_is_followed_as_it_grows() {
    let dir = TempDir::new().unwrap();
    let file = path(&dir, "file");
    fs::write(&file, "one ").unwrap();
    let mut agent = Agent::start();
    agent.hello();
    agent.send(&Request::Stream { path: file.clone(), port: Port::Trace });
    assert_eq!(read_until(&agent.trace, b"one "), b"");
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"two ").unwrap();
    assert_eq!(read_until(&agent.trace, b"two "), b"");
}

#[test]
fn a_source_that_never_runs_dry_does_not_hold_up_a_sync() {
    let mut agent = Agent::start();
    agent.hello();
    agent.send(&Request::Stream { path: "/dev/zero".into(), port: Port::Trace });
    // Whoever asks must read on meanwhile.
    let mut trace = agent.trace.try_clone().unwrap();
    std::thread::spawn(move || std::io::copy(&mut trace, &mut std::io::sink()));
    let sync = agent.send(&Request::Sync { port: Port::Trace });
    assert!(matches!(agent.reply(sync), Reply::Synced { drained: false, .. }));
    agent.process.kill().unwrap();
}

#[test]
fn a_stream_that_cannot_be_started_or_read_says_why() {
    let mut agent = Agent::start();
    let stream = |path: &str| Request::Stream { path: path.into(), port: Port::Trace };
    assert_eq!(agent.ask(&stream("/no/such/file")), done(Errno::ENOENT, 0, true));
    let id = agent.send(&stream("/"));
    assert_eq!(agent.reply(id), Reply::Started { pid: 0 });
    assert_eq!(agent.reply(id), done(Errno::EISDIR, 0, true));
}
