//! A running QEMU: its process and the sockets to it.
//!
//! Nothing here has a thread: whoever waits for something calls [`Vm::pump`], which moves bytes between the sockets and
//! the buffers until there is news, a deadline, a request to stop, or QEMU's end.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    send, sendmsg, shutdown, socketpair,
};
use serde_json::Value;

use super::qmp::{self, Message, Version};
use super::{Error, Machine, Memory, Start, Wiring};
use crate::guest::agent::Transport;
use crate::process::{self, Command, Process};
use crate::work::Cancel;

/// A byte stream between the host and QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// QEMU's monitor.
    Qmp = 0,
    /// The guest's first serial port.
    Console = 1,
    /// The agent's control port.
    Control = 2,
    /// The kernel log.
    Log = 3,
    /// The trace stream.
    Trace = 4,
    /// QEMU's standard error.
    Stderr = 5,
    /// The state of the guest's devices, when it is saved or restored.
    State = 6,
}

const CHANNELS: [Channel; 7] = [
    Channel::Qmp,
    Channel::Console,
    Channel::Control,
    Channel::Log,
    Channel::Trace,
    Channel::Stderr,
    Channel::State,
];

/// A channel that nobody takes from is not read beyond this, in bytes: the guest then has to wait.
const INCOMING_LIMIT: usize = 4 << 20;

/// What ended a call of [`Vm::pump`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    /// Bytes came or went.
    Progress,
    /// The deadline passed.
    Deadline,
    /// The run was told to stop.
    Cancelled,
    /// QEMU has ended; [`Vm::exit`] says how.
    Exited,
    /// What [`Vm::watch`] was given can be read.
    Watched,
}

/// How QEMU ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// The reason in its last `SHUTDOWN` event, such as `guest-shutdown` or `guest-reset` (QEMU: `qapi/run-state.json`).
    pub reason: Option<String>,
}

impl Exit {
    /// Whether the guest ended it, and not the host: by a shutdown, a reset or a panic.
    pub fn by_guest(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        self.status.success() && reason.starts_with("guest-")
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&process::describe(self.status))?;
        if let Some(reason) = &self.reason {
            write!(f, ", {reason}")?;
        }
        match self.stderr.trim() {
            "" => Ok(()),
            stderr => write!(f, "\n{stderr}"),
        }
    }
}

#[derive(Debug, Default)]
struct Port {
    fd: Option<OwnedFd>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

/// A running QEMU. Dropping it kills it.
#[derive(Debug)]
pub struct Vm {
    process: Process,
    command: String,
    ports: [Port; CHANNELS.len()],
    version: Option<Version>,
    /// The number of QEMU's end of [`Channel::State`].
    state: i32,
    next_id: u64,
    answers: Vec<(u64, Result<Value, String>)>,
    events: Vec<(String, Value)>,
    shutdown_reason: Option<String>,
    exit: Option<Exit>,
    started: Instant,
    /// Whether the guest waits to be restored.
    incoming: bool,
    /// What the agent's channels go over.
    transport: Transport,
    watched: Option<OwnedFd>,
    watched_ready: bool,
}

impl Vm {
    /// Starts QEMU.
    ///
    /// # Errors
    ///
    /// Where QEMU is missing or cannot be started. What is wrong with its arguments shows later, as its end.
    pub fn start(machine: &Machine, start: Start<'_>, memory: Memory<'_>) -> Result<Self, Error> {
        let mut command = Command::new(machine.arch.qemu);
        let mut ports: [Port; CHANNELS.len()] = Default::default();
        let mut wire = |channel: Channel| -> Result<i32, Error> {
            let (ours, theirs) = pair()?;
            ports[channel as usize].fd = Some(ours);
            Ok(command.inherit(theirs))
        };
        let wiring = Wiring::Sockets {
            qmp: wire(Channel::Qmp)?,
            console: wire(Channel::Console)?,
            control: wire(Channel::Control)?,
            log: wire(Channel::Log)?,
            trace: wire(Channel::Trace)?,
        };
        let state = wire(Channel::State)?;
        let args: Vec<OsString> = machine.args(start, memory, wiring);
        command.args(args);
        let line = command.line();
        let started = Instant::now();
        let mut process = command.spawn(Stdio::null(), Stdio::piped()).map_err(|error| match error {
            process::Error::Missing { .. } => Error::NoQemu { arch: machine.arch },
            error => Error::Process(error),
        })?;
        if let Some(stderr) = process.take_stderr() {
            set_nonblocking(&stderr)?;
            ports[Channel::Stderr as usize].fd = Some(stderr);
        }
        let mut vm = Vm {
            process,
            command: line,
            ports,
            version: None,
            state,
            next_id: 0,
            answers: Vec::new(),
            events: Vec::new(),
            shutdown_reason: None,
            exit: None,
            started,
            incoming: matches!(start, Start::Incoming),
            transport: machine.transport,
            watched: None,
            watched_ready: false,
        };
        vm.post("qmp_capabilities", serde_json::json!({}));
        Ok(vm)
    }

    /// When QEMU was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What the agent's channels go over.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether the guest's devices are not yet those of its snapshot: a serial port would take what it is sent now, and
    /// lose it.
    pub fn is_incoming(&self) -> bool {
        self.incoming
    }

    /// QEMU's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// QEMU's version, once it has answered a command.
    pub fn version(&self) -> Option<(u64, u64)> {
        self.version
    }

    /// Where a QEMU that waits for a snapshot can read it, as `migrate-incoming` names it.
    pub(super) fn state_uri(&self) -> String {
        format!("fd:{}", self.state)
    }

    /// QEMU's command line.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// How QEMU ended, if it has.
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// Takes what has come in on a channel.
    pub fn take(&mut self, channel: Channel) -> Vec<u8> {
        std::mem::take(&mut self.ports[channel as usize].incoming)
    }

    /// Queues bytes for a channel; [`Vm::pump`] sends them.
    pub fn write(&mut self, channel: Channel, bytes: &[u8]) {
        self.ports[channel as usize].outgoing.extend_from_slice(bytes);
    }

    /// Bytes queued for a channel and not sent yet.
    pub fn unsent(&self, channel: Channel) -> usize {
        self.ports[channel as usize].outgoing.len()
    }

    /// Has [`Vm::pump`] return, too, when `fd` can be read; nothing any more with `None`.
    pub fn watch(&mut self, fd: Option<OwnedFd>) {
        self.watched = fd;
        self.watched_ready = false;
    }

    /// Whether that made it return since this was last asked.
    pub fn take_watched(&mut self) -> bool {
        std::mem::take(&mut self.watched_ready)
    }

    /// Moves bytes until something has moved, or nothing more can.
    ///
    /// # Errors
    ///
    /// Where polling or reading fails in a way that a closed peer does not explain.
    pub fn pump(&mut self, deadline: Instant, cancel: &Cancel) -> Result<Pumped, Error> {
        if self.exit.is_some() {
            return Ok(Pumped::Exited);
        }
        let ready = match self.wait_ready(deadline, cancel)? {
            Ok(ready) => ready,
            Err(pumped) => {
                self.watched_ready |= pumped == Pumped::Watched;
                return Ok(pumped);
            }
        };
        for channel in ready {
            self.send(channel);
            self.receive(channel)?;
        }
        self.read_monitor()?;
        if self.ports[Channel::Stderr as usize].fd.is_none() {
            self.reap()?;
            return Ok(Pumped::Exited);
        }
        Ok(Pumped::Progress)
    }

    /// Waits until channels are ready to be read or written.
    fn wait_ready(&self, deadline: Instant, cancel: &Cancel) -> Result<Result<Vec<Channel>, Pumped>, Error> {
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN)];
            let mut polled = Vec::with_capacity(CHANNELS.len());
            for channel in CHANNELS {
                let port = &self.ports[channel as usize];
                let Some(fd) = &port.fd else { continue };
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, port.incoming.len() < INCOMING_LIMIT);
                flags.set(PollFlags::OUT, !port.outgoing.is_empty());
                fds.push(PollFd::new(fd, flags));
                polled.push(channel);
            }
            let channels = fds.len();
            fds.extend(self.watched.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Ok(Err(Pumped::Deadline)),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Err(Pumped::Cancelled)),
                Ok(_) => {
                    let ready = polled.into_iter().zip(&fds[1..]).filter(|(_, fd)| !fd.revents().is_empty());
                    let ready: Vec<_> = ready.map(|(channel, _)| channel).collect();
                    let watched = fds[channels..].iter().any(|fd| !fd.revents().is_empty());
                    return Ok(if ready.is_empty() && watched { Err(Pumped::Watched) } else { Ok(ready) });
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait for QEMU")(errno.into())),
            }
        }
    }

    fn send(&mut self, channel: Channel) {
        let port = &mut self.ports[channel as usize];
        let Some(fd) = &port.fd else { return };
        if port.outgoing.is_empty() {
            return;
        }
        while !port.outgoing.is_empty() {
            match send(fd, &port.outgoing, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(port.outgoing.drain(..sent)),
                // A peer that is gone shows when the channel is read.
                Err(_) => return,
            }
        }
        if channel == Channel::State {
            // A state that was cut short must fail, not keep QEMU waiting for the rest.
            let _ = shutdown(fd, Shutdown::Write);
        }
    }

    fn receive(&mut self, channel: Channel) -> Result<(), Error> {
        let port = &mut self.ports[channel as usize];
        let mut buffer = [0; 64 * 1024];
        while let Some(fd) = &port.fd {
            if port.incoming.len() >= INCOMING_LIMIT && self.exit.is_none() {
                break;
            }
            match rustix::io::read(fd, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::CONNRESET) => port.fd = None,
                Ok(count) => {
                    port.incoming.extend_from_slice(&buffer[..count]);
                    // A guest that writes without end must not keep the others waiting.
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("read from QEMU")(errno.into())),
            }
        }
        Ok(())
    }

    /// QEMU is gone: takes the rest of what it wrote, and its exit status.
    fn reap(&mut self) -> Result<(), Error> {
        for channel in CHANNELS {
            self.receive(channel)?;
        }
        self.read_monitor()?;
        let status = self.process.wait().map_err(Error::io("wait for QEMU"))?;
        let stderr = String::from_utf8_lossy(&self.take(Channel::Stderr)).into_owned();
        self.exit =
            Some(Exit { status, stderr: process::tail(&stderr, 20), reason: self.shutdown_reason.take() });
        Ok(())
    }

    fn read_monitor(&mut self) -> Result<(), Error> {
        let incoming = &mut self.ports[Channel::Qmp as usize].incoming;
        let Some(end) = incoming.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        let lines: Vec<u8> = incoming.drain(..=end).collect();
        for line in lines.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
        {
            match qmp::decode(line) {
                Some(Message::Greeting(version)) => self.version = Some(version),
                Some(Message::Answer(id, answer)) => self.answers.push((id, answer)),
                Some(Message::Event(event, data)) => {
                    self.incoming &= event != "RESUME";
                    if event == "SHUTDOWN" {
                        self.shutdown_reason = data["reason"].as_str().map(str::to_owned);
                    }
                    self.events.push((event, data));
                }
                None => {
                    return Err(Error::Protocol(String::from_utf8_lossy(line).chars().take(200).collect()));
                }
            }
        }
        Ok(())
    }

    /// Queues a QMP command; the answer is had by [`Vm::answer`].
    pub(super) fn post(&mut self, command: &str, arguments: Value) -> u64 {
        self.next_id += 1;
        let bytes = qmp::encode(self.next_id, command, arguments);
        self.write(Channel::Qmp, &bytes);
        self.next_id
    }

    /// Waits for the answer to a command.
    pub(super) fn answer(
        &mut self,
        id: u64,
        name: &str,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Value, Error> {
        loop {
            if let Some(index) = self.answers.iter().position(|(of, _)| *of == id) {
                let (_, answer) = self.answers.swap_remove(index);
                return answer.map_err(|reason| Error::Refused { command: name.to_owned(), reason });
            }
            self.pump_on(deadline, cancel, "QMP")?;
        }
    }

    /// Sends a QMP command and waits for its answer.
    ///
    /// # Errors
    ///
    /// Where QEMU refuses, ends, or does not answer by the deadline.
    pub fn qmp(
        &mut self,
        command: &str,
        arguments: Value,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Value, Error> {
        let id = self.post(command, arguments);
        self.answer(id, command, deadline, cancel)
    }

    /// Waits for a QMP event that `wanted` accepts.
    pub(super) fn event<T>(
        &mut self,
        deadline: Instant,
        cancel: &Cancel,
        mut wanted: impl FnMut(&str, &Value) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            if let Some(found) = self.past_event(&mut wanted) {
                return Ok(found);
            }
            self.pump_on(deadline, cancel, "event")?;
        }
    }

    /// Takes the events that have come, up to the one that `wanted` accepts.
    pub(super) fn past_event<T>(&mut self, mut wanted: impl FnMut(&str, &Value) -> Option<T>) -> Option<T> {
        self.events.drain(..).find_map(|(event, data)| wanted(&event, &data))
    }

    /// As [`Vm::pump`]; a deadline, a request to stop and QEMU's end are errors.
    pub(super) fn pump_on(
        &mut self,
        deadline: Instant,
        cancel: &Cancel,
        what: &'static str,
    ) -> Result<(), Error> {
        match self.pump(deadline, cancel)? {
            Pumped::Progress | Pumped::Watched => Ok(()),
            Pumped::Deadline => Err(Error::Deadline(what)),
            Pumped::Cancelled => Err(Error::Cancelled),
            Pumped::Exited => match &self.exit {
                Some(exit) => Err(Error::Exited(exit.clone())),
                None => Err(Error::Deadline(what)),
            },
        }
    }

    /// Connects [`Channel::State`] anew and hands QEMU its end under a name (QMP `getfd`): `migrate`, other than
    /// `migrate-incoming`, takes no number (QEMU: `migration/fd.c`).
    pub(super) fn name_state(&mut self, name: &str, deadline: Instant, cancel: &Cancel) -> Result<(), Error> {
        while self.unsent(Channel::Qmp) > 0 {
            self.pump_on(deadline, cancel, "QMP")?;
        }
        let (ours, theirs) = pair()?;
        self.ports[Channel::State as usize].fd = Some(ours);
        self.next_id += 1;
        let line = qmp::encode(self.next_id, "getfd", serde_json::json!({ "fdname": name }));
        let Some(socket) = &self.ports[Channel::Qmp as usize].fd else {
            return Err(Error::Deadline("QMP"));
        };
        let descriptors = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(socket, &[io::IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)
            .map_err(|errno| Error::io("hand a socket to QEMU")(errno.into()))?;
        self.answer(self.next_id, "getfd", deadline, cancel).map(drop)
    }

    /// Kills QEMU and takes the rest of what it wrote.
    pub fn kill(&mut self) -> Result<&Exit, Error> {
        if self.exit.is_none() {
            self.process.kill().map_err(Error::io("end QEMU"))?;
            self.reap()?;
        }
        self.exit.as_ref().ok_or(Error::Deadline("the end of QEMU"))
    }
}

/// Two connected sockets: ours, which does not block, and QEMU's.
fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::io("make a socket")(errno.into()))?;
    set_nonblocking(&ours)?;
    Ok((ours, theirs))
}

fn set_nonblocking(fd: &impl AsFd) -> Result<(), Error> {
    rustix::io::ioctl_fionbio(fd, true).map_err(|errno| Error::io("set up a socket")(errno.into()))
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}
