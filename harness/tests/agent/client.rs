//! The agent, compiled for this machine and serving on socket pairs, and a client for it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use kmodlab::guest::agent::{SOURCES, compiler_args};
use kmodlab::guest::proto::{Decoder, Ending, Reply, Request, Run, mark};
use kmodlab::process::{Command, Process};
use kmodlab::work::Cancel;

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Compiles the agent, unless a run before this one has compiled the same sources.
fn program() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (SOURCES, compiler_args("").collect::<Vec<_>>()).hash(&mut hasher);
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = kept.join(format!("agent-{:016x}", hasher.finish()));
    if !program.exists() {
        let dir = tempfile::tempdir_in(kept).unwrap();
        for (name, text) in SOURCES {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut cc = Command::new("cc");
        cc.arg("-Werror").args(compiler_args("agent")).dir(dir.path());
        cc.check(&Cancel::new().unwrap()).unwrap();
        std::fs::rename(dir.path().join("agent"), &program).unwrap();
    }
    program
}

/// A running agent. Dropping it ends it.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) control: UnixStream,
    pub(crate) log: UnixStream,
    pub(crate) trace: UnixStream,
    decoder: Decoder,
    /// Replies to other requests than the one asked about.
    waiting: VecDeque<(u32, Reply)>,
    last_id: u32,
}

/// What a program did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) ending: Ending,
    pub(crate) timed_out: bool,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let pair = || UnixStream::pair().unwrap();
        let (control, log, trace) = (pair(), pair(), pair());
        let mut command = Command::new(program());
        command.arg("--serve");
        for theirs in [control.1, log.1, trace.1] {
            let number = command.inherit(theirs.into());
            command.arg(number.to_string());
        }
        let process = command.spawn(Stdio::null(), Stdio::inherit()).unwrap();
        for ours in [&control.0, &log.0, &trace.0] {
            ours.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Agent {
            process,
            control: control.0,
            log: log.0,
            trace: trace.0,
            decoder: Decoder::new(),
            waiting: VecDeque::new(),
            last_id: 0,
        }
    }

    pub(crate) fn send(&mut self, request: &Request) -> u32 {
        self.last_id += 1;
        let mut bytes = Vec::new();
        request.encode(self.last_id, &mut bytes).unwrap();
        self.control.write_all(&bytes).unwrap();
        self.last_id
    }

    /// The next reply to any request.
    pub(crate) fn any_reply(&mut self) -> (u32, Reply) {
        if let Some(reply) = self.waiting.pop_front() {
            return reply;
        }
        loop {
            if let Some(reply) = self.decoder.next().unwrap() {
                return reply;
            }
            let mut bytes = [0; 8192];
            let count = self.control.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "the agent has closed its port");
            self.decoder.push(&bytes[..count]);
        }
    }

    /// The next reply to this request.
    pub(crate) fn reply(&mut self, id: u32) -> Reply {
        if let Some(at) = self.waiting.iter().position(|(other, _)| *other == id) {
            return self.waiting.remove(at).unwrap().1;
        }
        let mut others = VecDeque::new();
        let reply = loop {
            match self.any_reply() {
                (reply_id, reply) if reply_id == id => break reply,
                other => others.push_back(other),
            }
        };
        self.waiting.append(&mut others);
        reply
    }

    /// Sends a request and gives the first reply.
    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        let id = self.send(request);
        self.reply(id)
    }

    /// Greets the agent, and skips what the log and trace ports carry before that.
    pub(crate) fn hello(&mut self) -> Reply {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let reply = self.ask(&Request::Hello { time, entropy: vec![1; 32] });
        let mark = mark(self.last_id);
        for port in [&self.log, &self.trace] {
            read_until(port, &mark);
        }
        reply
    }

    /// Runs a shell command to its end.
    pub(crate) fn shell(&mut self, command: &str) -> Finished {
        self.run(Run { argv: sh(command), ..Run::default() })
    }

    pub(crate) fn run(&mut self, run: Run) -> Finished {
        let id = self.send(&Request::Run(run));
        assert!(matches!(self.reply(id), Reply::Started { pid } if pid > 1));
        self.finish(id)
    }

    /// Waits for the end of a program whose start has been seen.
    pub(crate) fn finish(&mut self, id: u32) -> Finished {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.reply(id) {
                Reply::Stdout(bytes) => stdout.extend(bytes),
                Reply::Stderr(bytes) => stderr.extend(bytes),
                Reply::Exit { ending, timed_out } => return Finished { stdout, stderr, ending, timed_out },
                other => panic!("{other:?} while a program runs"),
            }
        }
    }
}

/// Reads up to and with `end`; what came before it.
pub(crate) fn read_until(mut port: &UnixStream, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        port.read_exact(&mut byte).unwrap();
        bytes.extend(byte);
    }
    bytes.truncate(bytes.len() - end.len());
    bytes
}

pub(crate) fn sh(command: &str) -> Vec<String> {
    ["sh", "-c", command].map(str::to_owned).to_vec()
}
