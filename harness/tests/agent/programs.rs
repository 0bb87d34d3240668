//! Running programs and signalling them.

use std::fs;
use std::io::Read;

use kmodlab::guest::proto::{DATA_LIMIT, Ending, Reply, Request, Run};
use kmodlab::guest::{Errno, Signal};
use rstest::rstest;
use tempfile::TempDir;

use crate::client::{Agent, Finished, sh};
use crate::{done, make_fifo, path};

#[test]
fn a_program_gets_its_input_environment_and_directory() {
    let dir = TempDir::new().unwrap();
    let directory = dir.path().canonicalize().unwrap().to_str().unwrap().to_owned();
    let finished = Agent::start().run(Run {
        argv: sh(r#"cat; pwd; echo "$HOME $COLOUR $PATH" >&2; exit 3"#),
        env: vec!["COLOUR=blue".into(), "PATH=/usr/bin:/bin".into()],
        cwd: directory.clone(),
        stdin: b"in\0\xff\n".to_vec(),
        deadline_ms: 0,
    });
    let expected = Finished {
        stdout: [b"in\0\xff\n", directory.as_bytes(), b"\n"].concat(),
        stderr: b"/ blue /usr/bin:/bin\n".to_vec(),
        ending: Ending::Exited(3),
        timed_out: false,
    };
    assert_eq!(finished, expected);
}

#[test]
fn a_program_starts_with_signals_at_their_defaults() {
    let finished = Agent::start().shell("grep -E 'Sig(Blk|Ign)' /proc/self/status");
    let text = String::from_utf8(finished.stdout).unwrap();
    // The C library keeps 32 and 33 to itself, and leaves them ignored.
    let own = 0b11 << 31;
    for line in text.lines() {
        let mask = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(mask & !own, 0, "{line}");
    }
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn a_program_does_not_hold_the_ports() {
    let mut agent = Agent::start();
    let id = agent.send(&Request::Run(Run { argv: sh("exec sleep 1000"), ..Run::default() }));
    let Reply::Started { pid } = agent.reply(id) else { panic!("not started") };
    agent.process.kill().unwrap();
    for mut port in [&agent.control, &agent.log, &agent.trace] {
        assert_eq!(port.read(&mut [0]).unwrap(), 0);
    }
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[rstest]
#[case::program("/no/such/program", "/", Errno::ENOENT)]
#[case::not_in_the_path("no-such-program", "/", Errno::ENOENT)]
#[case::directory("true", "/no/such/directory", Errno::ENOENT)]
#[case::not_a_program("/etc/passwd", "/", Errno::EACCES)]
fn what_cannot_be_started_says_why(#[case] program: &str, #[case] cwd: &str, #[case] errno: Errno) {
    let run = Run { argv: vec![program.into()], cwd: cwd.into(), ..Run::default() };
    assert_eq!(Agent::start().ask(&Request::Run(run)), done(errno, 0, true));
}

#[test]
fn death_by_a_signal_is_no_exit_status() {
    let finished = Agent::start().shell("kill -SEGV $$");
    assert_eq!((finished.ending, finished.timed_out), (Ending::Signalled(Signal(11)), false));
}

#[test]
fn at_its_deadline_a_program_is_asked_to_end_and_then_killed() {
    let mut agent = Agent::start();
    let mut run = |command: &str| {
        let run = Run { argv: sh(command), deadline_ms: 200, ..Run::default() };
        let Finished { stdout, ending, timed_out, .. } = agent.run(run);
        (stdout, ending, timed_out)
    };
    assert_eq!(run("exec sleep 1000"), (vec![], Ending::Signalled(Signal::TERM), true));
    assert_eq!(run("trap 'echo bye; exit 4' TERM; sleep 1000"), (b"bye\n".to_vec(), Ending::Exited(4), true));
    assert_eq!(
        run("trap '' TERM; while :; do sleep 1000; done"),
        (vec![], Ending::Signalled(Signal::KILL), true)
    );
    assert_eq!(run("true"), (vec![], Ending::Exited(0), false));
}

#[rstest]
#[case::at_the_deadline("trap '' TERM; exec 9>$FIFO; sleep 1000 & wait", 200)]
#[case::when_the_program_ends_at_the_deadline("exec 9>$FIFO; (trap '' TERM; sleep 1000) & wait", 200)]
#[case::by_a_signal("exec 9>$FIFO; sleep 1000 & wait", 0)]
fn a_whole_group_is_killed(#[case] command: &str, #[case] deadline_ms: u32) {
    let dir = TempDir::new().unwrap();
    let fifo = path(&dir, "fifo");
    make_fifo(&fifo);
    let mut agent = Agent::start();
    let env = vec![format!("FIFO={fifo}")];
    let id = agent.send(&Request::Run(Run { argv: sh(command), env, deadline_ms, ..Run::default() }));
    assert!(matches!(agent.reply(id), Reply::Started { .. }));
    // Opens once the program has opened it, and ends when nobody has it any more.
    let mut reader = fs::File::open(&fifo).unwrap();
    if deadline_ms == 0 {
        let signal = Request::Signal { run: id, signal: Signal::KILL };
        assert_eq!(agent.ask(&signal), done(Errno::OK, 0, true));
    }
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    let finished = agent.finish(id);
    assert_eq!(finished.timed_out, deadline_ms != 0);
    assert_eq!(agent.ask(&Request::Signal { run: id, signal: Signal::KILL }), done(Errno::ESRCH, 0, true));
}

#[test]
fn signals_have_generic_numbers_and_others_are_refused() {
    let mut agent = Agent::start();
    let id = agent.send(&Request::Run(Run { argv: sh("exec sleep 1000"), ..Run::default() }));
    assert!(matches!(agent.reply(id), Reply::Started { .. }));
    let mut signal = |number| agent.ask(&Request::Signal { run: id, signal: Signal(number) });
    assert_eq!(signal(0), done(Errno::OK, 0, true));
    assert_eq!(signal(16), done(Errno::EINVAL, 0, true));
    assert_eq!(signal(1000), done(Errno::EINVAL, 0, true));
    assert_eq!(signal(10), done(Errno::OK, 0, true));
    assert_eq!(agent.finish(id).ending, Ending::Signalled(Signal(10)));
}

#[test]
fn large_output_comes_whole() {
    let finished = Agent::start().shell("head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2");
    assert_eq!((finished.stdout.len(), finished.stderr.len()), (5_000_000, 3_000_000));
    assert_eq!(finished.ending, Ending::Exited(0));
}

#[test]
fn large_input_goes_in_whole_and_may_be_left_unread() {
    let mut agent = Agent::start();
    let stdin: Vec<u8> = (0..DATA_LIMIT).map(|i| (i % 251) as u8).collect();
    let run = |argv| Run { argv, stdin: stdin.clone(), ..Run::default() };
    assert_eq!(agent.run(run(vec!["cat".into()])).stdout, stdin);
    assert_eq!(agent.run(run(vec!["true".into()])).ending, Ending::Exited(0));
}

#[test]
fn a_program_ends_though_its_child_keeps_its_output_open() {
    let finished = Agent::start().shell("sleep 1000 & echo $!");
    let pid = String::from_utf8(finished.stdout).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(finished.ending, Ending::Exited(0));
}
