//! The host's side of a running guest: requests to its agent, and everything that comes out of it.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::agent::LINE_WINDOW;
use super::capture::Capture;
use super::outbox::Outbox;
use super::proto::{Decoder, Ending, Entry, Hello, Malformed, Port, Reply, Request, TooLong, mark};
use super::streams::Streams;
use crate::console::Splat;
use crate::vm::{self, Channel, Exit, Pumped, Vm};
use crate::work::Cancel;

/// Why the guest did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel died, or, before the agent answered for the first time, said that something is wrong.
    #[error("{}", .0.title)]
    Crashed(Box<Splat>),
    /// QEMU ended, and the kernel gave no reason.
    #[error("QEMU ended: {0}")]
    Exited(Exit),
    /// It took too long.
    #[error("the guest did not answer in time")]
    Deadline,
    /// The run was told to stop.
    #[error("interrupted")]
    Cancelled,
    /// The agent sent what is no reply.
    #[error("the agent sent a malformed reply: {0}")]
    Malformed(#[from] Malformed),
    /// The agent sent a reply that does not answer the request.
    #[error("the agent sent a reply that answers no request")]
    OutOfOrder,
    /// The agent would not serve the request.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// The request does not fit a frame.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// QEMU could not be reached.
    #[error(transparent)]
    Vm(vm::Error),
}

impl From<vm::Error> for Error {
    fn from(error: vm::Error) -> Self {
        match error {
            vm::Error::Exited(exit) => Error::Exited(exit),
            vm::Error::Cancelled => Error::Cancelled,
            other => Error::Vm(other),
        }
    }
}

/// How long a call may take, unless [`Guest::set_limit`] says otherwise. Generous: under emulation, with every core busy,
/// a fork alone takes a tenth of a second.
const LIMIT: Duration = Duration::from_secs(30);

/// Bytes kept of each output of a program.
const OUTPUT_LIMIT: usize = 4 << 20;

/// The reply to a request so far.
#[derive(Debug)]
struct Pending {
    pid: Option<u32>,
    stdout: Capture,
    stderr: Capture,
    data: Vec<u8>,
    data_limit: usize,
    entries: Vec<Entry>,
    last: Option<Reply>,
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// Whether its deadline had passed.
    pub timed_out: bool,
    /// Its process id.
    pub pid: u32,
    /// Its standard output.
    pub stdout: Capture,
    /// Its standard error.
    pub stderr: Capture,
}

/// Names a request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub(super) u32);

/// A running guest.
#[derive(Debug)]
pub struct Guest {
    pub(super) vm: Vm,
    outbox: Outbox,
    /// Whether it is being restored, and the agent must not be sent anything over a serial line.
    awaits_restore: bool,
    decoder: Decoder,
    pending: HashMap<u32, Pending>,
    next: u32,
    streams: Streams,
    hello: Option<Hello>,
    limit: Duration,
    cancel: Cancel,
}

impl Guest {
    /// Greets the guest that is coming up in `vm` and waits for its answer: it has booted, or has been restored.
    ///
    /// # Errors
    ///
    /// The machine with what it said so far, and what went wrong: the kernel's trouble at once, and not at the deadline.
    pub fn greet(vm: Vm, deadline: Instant, cancel: &Cancel) -> Result<Self, (Box<Self>, Error)> {
        let mut guest = Guest {
            outbox: Outbox::new(vm.transport()),
            awaits_restore: vm.is_incoming(),
            vm,
            decoder: Decoder::new(),
            pending: HashMap::new(),
            next: 0,
            streams: Streams::default(),
            hello: None,
            limit: LIMIT,
            cancel: cancel.clone(),
        };
        match guest.hello_again(deadline) {
            Ok(()) => Ok(guest),
            Err(error) => Err((Box::new(guest), error)),
        }
    }

    fn hello_again(&mut self, deadline: Instant) -> Result<(), Error> {
        // A clock before 1970 is as good as none.
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = self.post(&Request::Hello { time, entropy: entropy() })?;
        self.streams.expect_mark(mark(id.0));
        let reply = self.last(id, deadline)?;
        let Reply::Hello(hello) = reply else { return Err(Error::OutOfOrder) };
        self.hello = Some(hello);
        Ok(())
    }

    /// What the agent said of the guest.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// How long each call may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Says how long each call may take from now on.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// QEMU's version, `7.2`.
    pub fn qemu_version(&self) -> Option<String> {
        self.vm.version().map(|(major, minor)| format!("{major}.{minor}"))
    }

    /// The machine.
    pub fn vm(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// What the console has said since this was last asked, and what was there before.
    pub fn console_news(&mut self, seen: &mut u64) -> Vec<u8> {
        self.streams.console_after(seen)
    }

    /// Forgets the trace so far, which the guest has cleared.
    pub fn clear_trace(&mut self) {
        self.streams.clear_trace();
    }

    /// What has come out of the guest.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// The kernel's reports of trouble, of a guest from which nothing more is to be had.
    pub fn last_words(&mut self) -> &[Splat] {
        self.streams.last_words()
    }

    /// Sends a request without waiting for its end, which [`Guest::finish`] or the like must take.
    pub(super) fn post(&mut self, request: &Request) -> Result<RequestId, Error> {
        self.next += 1;
        let id = self.next;
        let mut frame = Vec::new();
        request.encode(id, &mut frame)?;
        self.outbox.push(&frame);
        self.send();
        let data_limit = match request {
            Request::ReadFile { limit, .. } => usize::try_from(*limit).unwrap_or(usize::MAX),
            Request::Cover => COVER_LIMIT,
            _ => 0,
        };
        let pending = Pending {
            pid: None,
            stdout: Capture::new(OUTPUT_LIMIT),
            stderr: Capture::new(OUTPUT_LIMIT),
            data: Vec::new(),
            data_limit,
            entries: Vec::new(),
            last: None,
        };
        self.pending.insert(id, pending);
        Ok(RequestId(id))
    }

    /// Hands on what the agent may be sent.
    fn send(&mut self) {
        let bytes = self.outbox.take();
        self.vm.write(Channel::Control, &bytes);
    }

    /// Waits for a request's last reply, and gives everything it was answered with.
    fn take(&mut self, id: RequestId, deadline: Instant) -> Result<Pending, Error> {
        loop {
            match self.pending.get(&id.0) {
                Some(pending) if pending.last.is_some() => {
                    let pending = self.pending.remove(&id.0).ok_or(Error::OutOfOrder)?;
                    if let Some(Reply::Error(reason)) = pending.last {
                        return Err(Error::Refused(reason));
                    }
                    return Ok(pending);
                }
                Some(_) => self.pump(deadline)?,
                None => return Err(Error::OutOfOrder),
            }
        }
    }

    pub(super) fn last(&mut self, id: RequestId, deadline: Instant) -> Result<Reply, Error> {
        self.take(id, deadline)?.last.ok_or(Error::OutOfOrder)
    }

    pub(super) fn data(&mut self, id: RequestId, deadline: Instant) -> Result<(Vec<u8>, Reply), Error> {
        let pending = self.take(id, deadline)?;
        Ok((pending.data, pending.last.ok_or(Error::OutOfOrder)?))
    }

    pub(super) fn entries(&mut self, id: RequestId, deadline: Instant) -> Result<(Vec<Entry>, Reply), Error> {
        let pending = self.take(id, deadline)?;
        Ok((pending.entries, pending.last.ok_or(Error::OutOfOrder)?))
    }

    /// Waits until the program has been started: its process id, or the reply that says why not.
    pub(super) fn started(&mut self, id: RequestId, deadline: Instant) -> Result<Result<u32, Reply>, Error> {
        loop {
            let pending = self.pending.get(&id.0).ok_or(Error::OutOfOrder)?;
            match (pending.pid, &pending.last) {
                (Some(pid), _) => return Ok(Ok(pid)),
                (None, Some(_)) => return self.last(id, deadline).map(Err),
                (None, None) => self.pump(deadline)?,
            }
        }
    }

    /// Waits for a program's end.
    pub(super) fn finished(
        &mut self,
        id: RequestId,
        deadline: Instant,
    ) -> Result<Result<Finished, Reply>, Error> {
        let pending = self.take(id, deadline)?;
        let (pid, stdout, stderr) = (pending.pid.unwrap_or_default(), pending.stdout, pending.stderr);
        match pending.last {
            Some(Reply::Exit { ending, timed_out }) => {
                Ok(Ok(Finished { ending, timed_out, pid, stdout, stderr }))
            }
            Some(reply) => Ok(Err(reply)),
            None => Err(Error::OutOfOrder),
        }
    }

    /// Whether the request's last reply has come.
    pub fn is_over(&self, id: RequestId) -> bool {
        self.pending.get(&id.0).is_none_or(|pending| pending.last.is_some())
    }

    /// Waits until something has come from the guest, and takes it.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`], [`Error::Cancelled`], or the guest's end.
    pub fn pump(&mut self, deadline: Instant) -> Result<(), Error> {
        // Trouble in a boot is shown once the kernel has had its say.
        let patience =
            self.hello.is_none().then(|| self.streams.trouble_since()).flatten().map(|at| at + SAY);
        let until = patience.map_or(deadline, |at| at.min(deadline));
        let cancel = self.cancel.clone();
        let pumped = self.vm.pump(until, &cancel)?;
        self.absorb()?;
        match pumped {
            Pumped::Progress if self.hello.is_none() => {
                self.streams.ended_trouble().map_or(Ok(()), |splat| Err(Error::Crashed(splat)))
            }
            Pumped::Progress | Pumped::Watched => {
                self.streams.agent_killed().map_or(Ok(()), |splat| Err(Error::Crashed(splat)))
            }
            Pumped::Cancelled => Err(Error::Cancelled),
            Pumped::Exited => Err(self.ended()),
            Pumped::Deadline => match patience.and_then(|_| self.streams.trouble()) {
                Some(splat) => Err(Error::Crashed(splat)),
                None => Err(Error::Deadline),
            },
        }
    }

    /// Takes what comes from the guest for some time.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`], but for the deadline.
    pub fn idle(&mut self, until: Instant) -> Result<(), Error> {
        loop {
            match self.pump(until) {
                Err(Error::Deadline) => return Ok(()),
                result => result?,
            }
        }
    }

    /// Takes what has come in on every channel.
    fn absorb(&mut self) -> Result<(), Error> {
        self.streams.console(&self.vm.take(Channel::Console));
        self.streams.log(&self.vm.take(Channel::Log));
        self.streams.trace(&self.vm.take(Channel::Trace));
        if self.awaits_restore && !self.vm.is_incoming() {
            self.awaits_restore = false;
            // Whoever saved the guest had all but less than half of the window taken.
            self.outbox.taken(LINE_WINDOW / 2);
            self.send();
        }
        self.decoder.push(&self.vm.take(Channel::Control));
        while let Some((id, reply)) = self.decoder.next()? {
            if let Reply::Taken { bytes } = reply {
                self.outbox.taken(bytes);
                self.send();
                continue;
            }
            match self.pending.get_mut(&id) {
                Some(pending) => pending.add(reply)?,
                // A snapshot may hold the end of a reply to whoever made it.
                None if self.hello.is_none() => {}
                None => return Err(Error::OutOfOrder),
            }
        }
        Ok(())
    }

    /// Why the guest has ended.
    fn ended(&mut self) -> Error {
        self.streams.finish();
        match (self.streams.panic(), self.vm.exit()) {
            (Some(splat), _) => Error::Crashed(splat),
            (None, Some(exit)) => Error::Exited(exit.clone()),
            (None, None) => Error::Deadline,
        }
    }

    /// Has QEMU serve gdb at a Unix socket that it makes.
    ///
    /// # Errors
    ///
    /// As [`Vm::serve_gdb`].
    pub fn serve_gdb(&mut self, socket: &Path) -> Result<(), Error> {
        let (deadline, cancel) = (self.deadline(), self.cancel.clone());
        Ok(self.vm.serve_gdb(socket, deadline, &cancel)?)
    }

    /// Plugs a device in.
    ///
    /// # Errors
    ///
    /// As [`Vm::plug`].
    pub fn plug(&mut self, driver: &str, id: &str, options: &Map<String, Value>) -> Result<(), Error> {
        let (deadline, cancel) = (self.deadline(), self.cancel.clone());
        Ok(self.vm.plug(driver, id, options, deadline, &cancel)?)
    }

    /// Pulls a device out, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// As [`Vm::unplug`].
    pub fn unplug(&mut self, id: &str) -> Result<(), Error> {
        let (deadline, cancel) = (self.deadline(), self.cancel.clone());
        Ok(self.vm.unplug(id, deadline, &cancel)?)
    }

    /// Waits until everything that the kernel had logged, or traced, by now has reached the host.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn sync(&mut self, port: Port) -> Result<(), Error> {
        let deadline = self.deadline();
        let id = self.post(&Request::Sync { port })?;
        let Reply::Synced { bytes, .. } = self.last(id, deadline)? else { return Err(Error::OutOfOrder) };
        while self.streams.received(port) < bytes {
            self.pump(deadline)?;
        }
        self.streams.idle(port);
        Ok(())
    }
}

/// How long a kernel in trouble may go on telling of it.
const SAY: Duration = Duration::from_secs(2);

impl Pending {
    fn add(&mut self, reply: Reply) -> Result<(), Error> {
        if self.last.is_some() {
            return Err(Error::OutOfOrder);
        }
        match reply {
            Reply::Started { pid } => self.pid = Some(pid),
            Reply::Stdout(bytes) => self.stdout.push(&bytes),
            Reply::Stderr(bytes) => self.stderr.push(&bytes),
            Reply::Data(bytes) if self.data.len() + bytes.len() <= self.data_limit => self.data.extend(bytes),
            Reply::Entries(entries) if self.entries.len() + entries.len() <= ENTRY_LIMIT => {
                self.entries.extend(entries)
            }
            Reply::Data(_) | Reply::Entries(_) => return Err(Error::OutOfOrder),
            last => self.last = Some(last),
        }
        Ok(())
    }
}

/// Files that a directory may list; the tracefs of a big kernel has a few thousand in its biggest.
const ENTRY_LIMIT: usize = 1 << 17;

/// Bytes of program counters that one [`Request::Cover`] may be answered with: a kernel of which everything is compiled for
/// kcov has a few million places.
const COVER_LIMIT: usize = 64 << 20;

/// Entropy for a guest: every restored one has the random state of its snapshot.
fn entropy() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    bytes
}
