//! Greeting, many requests at once, and what is no request.

use std::io::Write;

use kmodlab::guest::proto::{Condition, Port, Reply, Request, Run, VERSION, WriteMode};
use kmodlab::guest::{Errno, Signal};
use rstest::rstest;
use tempfile::TempDir;

use crate::client::{Agent, sh};
use crate::{done, path, write};

#[test]
fn hello_describes_the_machine_and_marks_the_ports() {
    let mut agent = Agent::start();
    let Reply::Hello(hello) = agent.hello() else { panic!("no hello") };
    let uname = rustix::system::uname();
    assert_eq!(hello.release.as_bytes(), uname.release().to_bytes());
    assert_eq!(hello.machine.as_bytes(), uname.machine().to_bytes());
    assert_eq!((hello.big_endian, u32::from(hello.word_bits)), (cfg!(target_endian = "big"), usize::BITS));
    assert!(hello.uptime.as_secs() > 0);
    // This machine is not the agent's to change.
    assert_eq!((hello.clock, hello.entropy), (Errno::EPERM, Errno::EPERM));
}

#[test]
fn another_version_is_answered_with_ours() {
    let mut agent = Agent::start();
    agent.control.write_all(&[10, 0, 0, 0, 1, 5, 0, 0, 0, 99, 0, 0, 0, 42]).unwrap();
    let (id, Reply::Hello(_)) = agent.any_reply() else { panic!("no hello") };
    assert_eq!((id, VERSION), (5, 1));
}

#[test]
fn a_hundred_requests_at_once_are_each_answered() {
    let dir = TempDir::new().unwrap();
    let mut agent = Agent::start();
    let mut runs = Vec::new();
    let mut writes = Vec::new();
    for number in 0..50 {
        let argv = sh(&format!("echo {number}"));
        runs.push(agent.send(&Request::Run(Run { argv, ..Run::default() })));
        writes.push(agent.send(&write(&path(&dir, &format!("{number}")), WriteMode::Create, b"x")));
    }
    for (number, id) in runs.into_iter().enumerate() {
        assert!(matches!(agent.reply(id), Reply::Started { .. }));
        assert_eq!(agent.finish(id).stdout, format!("{number}\n").into_bytes());
    }
    for id in writes {
        assert_eq!(agent.reply(id), done(Errno::OK, 1, true));
    }
}

#[test]
fn requests_beyond_what_can_be_under_way_are_refused() {
    let mut agent = Agent::start();
    let condition = Condition::Exists;
    let wait = Request::WaitFor { path: "/no/such".into(), condition, deadline_ms: u32::MAX };
    for _ in 0..256 {
        agent.send(&wait);
    }
    let last = agent.send(&wait);
    assert_eq!(agent.reply(last), Reply::Error("too many requests under way".into()));
    assert!(matches!(agent.hello(), Reply::Hello(_)));
}

/// A frame of any kind and payload.
fn frame(kind: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 5).unwrap();
    [&length.to_le_bytes()[..], &[kind], &id.to_le_bytes(), payload].concat()
}

fn one_of_each() -> Vec<Request> {
    let path = || "/no/such".to_owned();
    vec![
        Request::Hello { time: std::time::Duration::ZERO, entropy: vec![7; 32] },
        Request::Run(Run { argv: sh("true"), env: vec!["A=b".into()], ..Run::default() }),
        Request::Signal { run: 1, signal: Signal::KILL },
        Request::LoadModule { path: path(), params: "a=b".into(), flags: 0 },
        Request::UnloadModule { name: "none".into(), force: false },
        Request::ReadFile { path: path(), limit: 1 },
        write("/no/such", WriteMode::Append, b"x"),
        Request::MakeDir { path: path(), permissions: 0 },
        Request::Remove { path: path() },
        Request::List { path: path() },
        Request::Stream { path: path(), port: Port::Log },
        Request::StopStream { stream: 1 },
        Request::Sync { port: Port::Log },
        Request::WaitFor { path: path(), condition: Condition::Exists, deadline_ms: 0 },
        Request::PowerOff,
        Request::StartCover,
        Request::Cover,
    ]
}

#[test]
fn requests_cut_short_or_drawn_out_are_refused() {
    let mut agent = Agent::start();
    let malformed = Reply::Error("malformed request".into());
    for request in one_of_each() {
        let mut bytes = Vec::new();
        request.encode(9, &mut bytes).unwrap();
        let (kind, payload) = (bytes[4], &bytes[9..]);
        for end in 0..payload.len() {
            agent.control.write_all(&frame(kind, 9, &payload[..end])).unwrap();
            assert_eq!(agent.any_reply(), (9, malformed.clone()), "{request:?} cut to {end}");
        }
        agent.control.write_all(&frame(kind, 9, &[payload, &[0]].concat())).unwrap();
        assert_eq!(agent.any_reply(), (9, malformed.clone()), "{request:?} with a byte more");
    }
    assert!(matches!(agent.hello(), Reply::Hello(_)));
}

#[rstest]
#[case::unknown(frame(18, 3, b"payload"), 3, "unknown request")]
#[case::a_reply(frame(129, 3, b""), 3, "unknown request")]
#[case::too_short(vec![4, 0, 0, 0, 1, 2, 3, 4], 0, "frame too short")]
#[case::too_long(frame(7, 3, &vec![0; 3 << 20]), 3, "frame too long")]
#[case::nul_in_text(frame(9, 3, b"\x03\0\0\0/a\0"), 3, "malformed request")]
#[case::no_program(frame(2, 3, &[0; 20]), 3, "malformed request")]
#[case::endless_text(frame(9, 3, b"\xff\xff\xff\xff"), 3, "malformed request")]
#[case::endless_vector(frame(2, 3, b"\xff\xff\xff\xff"), 3, "malformed request")]
#[case::no_such_port(frame(13, 3, b"\x02"), 3, "malformed request")]
#[case::no_such_condition(frame(14, 3, b"\x01\0\0\0/\x05\0\0\0\0\0\0\0\0"), 3, "malformed request")]
#[case::no_such_mode(frame(7, 3, b"\x01\0\0\0/\x03\0\0\0\0\0\0\0\0"), 3, "malformed request")]
fn nonsense_is_refused_and_the_next_request_served(
    #[case] bytes: Vec<u8>,
    #[case] id: u32,
    #[case] message: &str,
) {
    let mut agent = Agent::start();
    agent.control.write_all(&bytes).unwrap();
    assert_eq!(agent.any_reply(), (id, Reply::Error(message.into())));
    assert!(matches!(agent.hello(), Reply::Hello(_)));
}

#[test]
fn a_kernel_without_kcov_is_told_and_nothing_is_collected() {
    let mut agent = Agent::start();
    assert_eq!(agent.ask(&Request::Cover), done(Errno::OK, 0, true));
    let there = std::path::Path::new("/sys/kernel/debug/kcov").exists();
    let errno = if there { Errno::OK } else { Errno::ENOENT };
    assert_eq!(agent.ask(&Request::StartCover), done(errno, 0, true));
    assert_eq!(agent.shell("echo on").stdout, b"on\n");
    if !there {
        assert_eq!(agent.ask(&Request::Cover), done(Errno::OK, 0, true));
    }
}

#[test]
fn it_ends_when_switched_off_or_left_alone() {
    let mut agent = Agent::start();
    assert_eq!(agent.ask(&Request::PowerOff), done(Errno::OK, 0, true));
    assert!(agent.process.wait().unwrap().success());
    let Agent { mut process, control, .. } = Agent::start();
    drop(control);
    assert!(process.wait().unwrap().success());
}
