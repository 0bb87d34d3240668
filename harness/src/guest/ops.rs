//! What the agent does for the host, one call for each of its verbs.

use std::time::{Duration, Instant};

use super::proto::{Condition, DATA_LIMIT, Entry, Port, Reply, Request, Run, WriteMode};
use super::session::{Error, Finished, Guest, RequestId};
use super::{Errno, Signal};

/// How much longer than its deadline a program, or a wait, may take to be over: the agent gives a program half a
/// second to go by itself, and an emulated guest may be slow to say so.
const GRACE: Duration = Duration::from_secs(10);

/// What a guest's own kernel answered: a value, or an errno.
pub type Answer<T> = Result<T, Errno>;

/// Which code of the kernel was executed (`Documentation/dev-tools/kcov.rst`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Covered {
    /// Program counters, each once: return addresses of the calls that the compiler put into the code, less the offset of
    /// the kernel's random base.
    pub counters: Vec<u64>,
    /// Whether there are no others.
    pub complete: bool,
}

impl Guest {
    fn done(&mut self, request: &Request) -> Result<Answer<u64>, Error> {
        let id = self.post(request)?;
        done(self.last(id, self.deadline())?)
    }

    /// Runs a program to its end; the errno where it could not be started. Unless it has a deadline of its own, it gets
    /// the guest's limit, at which the agent kills it.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn run(&mut self, mut run: Run) -> Result<Answer<Finished>, Error> {
        if run.deadline_ms == 0 {
            run.deadline_ms = millis(self.limit());
        }
        let deadline = Instant::now() + Duration::from_millis(run.deadline_ms.into()) + GRACE;
        let id = self.post(&Request::Run(run))?;
        self.exit_by(id, deadline)
    }

    /// Starts a program and lets it run; gives its request and its process id.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn spawn(&mut self, run: Run) -> Result<Answer<(RequestId, u32)>, Error> {
        let id = self.post(&Request::Run(run))?;
        match self.started(id, self.deadline())? {
            Ok(pid) => Ok(Ok((id, pid))),
            Err(reply) => Ok(Err(refusal(reply)?)),
        }
    }

    /// Waits for a program's end.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn wait_exit(&mut self, id: RequestId) -> Result<Answer<Finished>, Error> {
        self.exit_by(id, self.deadline())
    }

    fn exit_by(&mut self, id: RequestId, deadline: Instant) -> Result<Answer<Finished>, Error> {
        match self.finished(id, deadline)? {
            Ok(finished) => Ok(Ok(finished)),
            Err(reply) => Ok(Err(refusal(reply)?)),
        }
    }

    /// Sends a signal to a program's process group.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn signal(&mut self, id: RequestId, signal: Signal) -> Result<Answer<()>, Error> {
        Ok(self.done(&Request::Signal { run: id.0, signal })?.map(drop))
    }

    /// Loads the module in the guest's file `path` (`finit_module`).
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn load_module(&mut self, path: &str, params: &str, flags: u32) -> Result<Answer<()>, Error> {
        let request = Request::LoadModule { path: path.to_owned(), params: params.to_owned(), flags };
        Ok(self.done(&request)?.map(drop))
    }

    /// Removes a module (`delete_module`).
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn unload_module(&mut self, name: &str, force: bool) -> Result<Answer<()>, Error> {
        Ok(self.done(&Request::UnloadModule { name: name.to_owned(), force })?.map(drop))
    }

    /// Reads at most `limit` bytes of a file.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn read_file(&mut self, path: &str, limit: u64) -> Result<Answer<Vec<u8>>, Error> {
        let id = self.post(&Request::ReadFile { path: path.to_owned(), limit })?;
        let (data, reply) = self.data(id, self.deadline())?;
        Ok(done(reply)?.map(|_| data))
    }

    /// Reads files whole, many at a time; `limit` is the most bytes of each.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn read_files(&mut self, paths: &[String], limit: u64) -> Result<Vec<Answer<Vec<u8>>>, Error> {
        /// Well below what the agent has under way at once.
        const AT_ONCE: usize = 64;
        let mut read = Vec::new();
        for some in paths.chunks(AT_ONCE) {
            let post = |path: &String| self.post(&Request::ReadFile { path: path.clone(), limit });
            let ids = some.iter().map(post).collect::<Result<Vec<_>, _>>()?;
            for id in ids {
                let (data, reply) = self.data(id, self.deadline())?;
                read.push(done(reply)?.map(|_| data));
            }
        }
        Ok(read)
    }

    /// Writes a file, in as few calls of write(2) as the protocol allows.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn write_file(
        &mut self,
        path: &str,
        mode: WriteMode,
        permissions: u32,
        data: &[u8],
    ) -> Result<Answer<()>, Error> {
        let (first, rest) = data.split_at(data.len().min(DATA_LIMIT));
        let write = |mode, data: &[u8]| Request::WriteFile {
            path: path.to_owned(),
            mode,
            permissions,
            data: data.to_vec(),
        };
        let mut ids = vec![(self.post(&write(mode, first))?, first.len())];
        // The parts of a big file must come in order, so that each waits for the one before it.
        for part in rest.chunks(DATA_LIMIT) {
            if let Some(&(id, sent)) = ids.last()
                && let Err(errno) = self.written(id, sent)?
            {
                return Ok(Err(errno));
            }
            ids = vec![(self.post(&write(WriteMode::Append, part))?, part.len())];
        }
        match ids.last() {
            Some(&(id, sent)) => self.written(id, sent),
            None => Ok(Ok(())),
        }
    }

    /// A write that came short has met an end of space that write(2) would name next time.
    fn written(&mut self, id: RequestId, sent: usize) -> Result<Answer<()>, Error> {
        match done(self.last(id, self.deadline())?)? {
            Ok(count) if count < sent as u64 => Ok(Err(Errno::ENOSPC)),
            answer => Ok(answer.map(drop)),
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn make_dir(&mut self, path: &str) -> Result<Answer<()>, Error> {
        Ok(self.done(&Request::MakeDir { path: path.to_owned(), permissions: 0o755 })?.map(drop))
    }

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn remove(&mut self, path: &str) -> Result<Answer<()>, Error> {
        Ok(self.done(&Request::Remove { path: path.to_owned() })?.map(drop))
    }

    /// Lists a directory.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn list(&mut self, path: &str) -> Result<Answer<Vec<Entry>>, Error> {
        let id = self.post(&Request::List { path: path.to_owned() })?;
        let (entries, reply) = self.entries(id, self.deadline())?;
        Ok(done(reply)?.map(|_| entries))
    }

    /// Waits, in the guest and up to its limit, for a file's state. Gives whether the state came to be, and the beginning
    /// of the file as last read.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn wait_for(&mut self, path: &str, condition: Condition) -> Result<(bool, Vec<u8>), Error> {
        let deadline_ms = millis(self.limit());
        let id = self.post(&Request::WaitFor { path: path.to_owned(), condition, deadline_ms })?;
        match self.last(id, self.deadline() + GRACE)? {
            Reply::Waited { errno, content } => Ok((errno.is_ok(), content)),
            _ => Err(Error::OutOfOrder),
        }
    }

    /// Streams a file to a port from now on.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn stream(&mut self, path: &str, port: Port) -> Result<Answer<RequestId>, Error> {
        let id = self.post(&Request::Stream { path: path.to_owned(), port })?;
        match self.started(id, self.deadline())? {
            Ok(_) => Ok(Ok(id)),
            Err(reply) => Ok(Err(refusal(reply)?)),
        }
    }

    /// Has the agent collect which code of the kernel is executed for it from now on; `ENOENT` where the kernel has no kcov.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn start_cover(&mut self) -> Result<Answer<()>, Error> {
        Ok(self.done(&Request::StartCover)?.map(drop))
    }

    /// What the agent has collected since this was last asked.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn cover(&mut self) -> Result<Answer<Covered>, Error> {
        let id = self.post(&Request::Cover)?;
        let (data, reply) = self.data(id, self.deadline())?;
        let Reply::Done { errno, end, .. } = reply else { return Err(Error::OutOfOrder) };
        if !errno.is_ok() {
            return Ok(Err(errno));
        }
        let (counters, rest) = data.as_chunks();
        if !rest.is_empty() {
            return Err(Error::OutOfOrder);
        }
        let counters = counters.iter().map(|counter| u64::from_le_bytes(*counter)).collect();
        Ok(Ok(Covered { counters, complete: end }))
    }

    /// Ends a stream.
    ///
    /// # Errors
    ///
    /// As [`Guest::pump`].
    pub fn stop_stream(&mut self, stream: RequestId) -> Result<Answer<()>, Error> {
        Ok(self.done(&Request::StopStream { stream: stream.0 })?.map(drop))
    }
}

/// Milliseconds as the protocol has them, where 0 would be no limit.
fn millis(limit: Duration) -> u32 {
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn done(reply: Reply) -> Result<Answer<u64>, Error> {
    match reply {
        Reply::Done { errno: Errno(0), count, .. } => Ok(Ok(count)),
        Reply::Done { errno, .. } => Ok(Err(errno)),
        _ => Err(Error::OutOfOrder),
    }
}

fn refusal(reply: Reply) -> Result<Errno, Error> {
    match done(reply)? {
        Err(errno) => Ok(errno),
        Ok(_) => Err(Error::OutOfOrder),
    }
}
