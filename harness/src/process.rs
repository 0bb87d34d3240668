//! The one place that starts processes.
//!
//! Every child is the leader of a process group of its own and dies with the thread that started it
//! (`PR_SET_PDEATHSIG`, prctl(2)), so that nothing outlives the harness, however it ends. Start a child from a thread
//! that lives as long as the child should.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};

use crate::work::Cancel;

/// How a process could not be run, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there.
    #[error("`{program}` is not installed or not in PATH")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be started or read from.
    #[error("cannot run `{program}`")]
    Io {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{program}` failed: {status}\n{output}")]
    Failed {
        /// The whole command line.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// The run was told to stop.
    #[error("interrupted")]
    Cancelled,
}

/// A command to run: a thin layer over [`std::process::Command`] that fixes how children are started.
#[derive(Debug)]
pub struct Command {
    inner: std::process::Command,
    /// Descriptors the child inherits under the same numbers.
    inherit: Vec<OwnedFd>,
}

/// What a finished process printed.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Command {
    /// A command that runs `program`, with the messages of the C locale and no standard input.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut inner = std::process::Command::new(program);
        inner.env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
        Command { inner, inherit: Vec::new() }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.inner.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env(key, value);
        self
    }

    /// Sets the working directory.
    pub fn dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.inner.current_dir(dir);
        self
    }

    /// Lets the child inherit `fd` under its present number, which is returned.
    pub fn inherit(&mut self, fd: OwnedFd) -> i32 {
        let number = fd.as_raw_fd();
        self.inherit.push(fd);
        number
    }

    /// The command line, for messages.
    pub fn line(&self) -> String {
        std::iter::once(self.inner.get_program())
            .chain(self.inner.get_args())
            .map(|arg| shell_quote(&arg.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn program(&self) -> String {
        self.inner.get_program().to_string_lossy().into_owned()
    }

    /// Starts the process, with its output as given.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] where there is no such program, [`Error::Io`] where it cannot be started.
    pub fn spawn(mut self, stdout: Stdio, stderr: Stdio) -> Result<Process, Error> {
        let program = self.program();
        let parent = rustix::process::getpid();
        let inherit: Vec<i32> = self.inherit.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: the closure makes system calls only, neither allocates nor takes locks, and the descriptors it
        // touches are kept open by `self.inherit` until the child has been started.
        unsafe {
            self.inner.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died between the fork and the call above.
                if rustix::process::getppid() != Some(parent) {
                    return Err(io::Error::from(io::ErrorKind::Interrupted));
                }
                for &fd in &inherit {
                    rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(fd), rustix::io::FdFlags::empty())?;
                }
                Ok(())
            });
        }
        let child =
            self.inner.stdout(stdout).stderr(stderr).spawn().map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::Missing { program: program.clone() },
                _ => Error::Io { program: program.clone(), source },
            })?;
        Ok(Process { child, program })
    }

    /// Runs the process to its end and collects what it prints.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`]; [`Error::Cancelled`] when `cancel` came first. A bad exit status is not an error here.
    pub fn output(self, cancel: &Cancel) -> Result<Output, Error> {
        let program = self.program();
        let mut process = self.spawn(Stdio::piped(), Stdio::piped())?;
        let io = |source| Error::Io { program: program.clone(), source };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut out = process.child.stdout.take();
        let mut err = process.child.stderr.take();
        while out.is_some() || err.is_some() {
            let (mut cancelled, mut ready) = (false, [false; 2]);
            {
                let mut fds = vec![PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN)];
                fds.extend(out.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
                fds.extend(err.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
                match poll(&mut fds, None) {
                    Err(rustix::io::Errno::INTR) => continue,
                    result => result.map_err(|errno| io(errno.into()))?,
                };
                let mut fds = fds.iter().map(|fd| !fd.revents().is_empty());
                cancelled |= fds.next() == Some(true);
                for (open, ready) in [out.is_some(), err.is_some()].into_iter().zip(&mut ready) {
                    *ready = open && fds.next() == Some(true);
                }
            }
            if cancelled {
                return Err(Error::Cancelled);
            }
            if ready[0] && read_some(&mut out, &mut stdout).map_err(&io)? {
                out = None;
            }
            if ready[1] && read_some(&mut err, &mut stderr).map_err(&io)? {
                err = None;
            }
        }
        let status = process.wait().map_err(io)?;
        Ok(Output { status, stdout, stderr })
    }

    /// Runs the process and expects it to end with status 0.
    ///
    /// # Errors
    ///
    /// As [`Command::output`], and [`Error::Failed`] with the end of what it printed.
    pub fn check(self, cancel: &Cancel) -> Result<Output, Error> {
        let program = self.line();
        let output = self.output(cancel)?;
        if output.status.success() {
            return Ok(output);
        }
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Err(Error::Failed { program, status: output.status, output: tail(&text, 40) })
    }

    /// Runs the process and expects it to end with status 0. `is_progress` is called with each line that it prints, to either
    /// stream, and says whether the line tells only of its progress: such lines do not belong to what an error shows.
    ///
    /// # Errors
    ///
    /// As [`Command::check`].
    pub fn check_lines(
        self,
        cancel: &Cancel,
        is_progress: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), Error> {
        /// How many lines an error shows: with several compilers at once the first error may be far up.
        const LINES: usize = 60;
        let (program, line) = (self.program(), self.line());
        let io = |source| Error::Io { program: program.clone(), source };
        let (reader, writer) = io::pipe().map_err(io)?;
        let errors = writer.try_clone().map_err(io)?;
        let mut process = self.spawn(writer.into(), errors.into())?;
        let (mut stream, mut pending) = (Some(reader), Vec::new());
        let mut said = std::collections::VecDeque::new();
        let mut take = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            if !is_progress(text.trim_end()) {
                said.push_back(text.trim_end().to_owned());
                said.drain(..said.len().saturating_sub(LINES));
            }
        };
        while let Some(reader) = &stream {
            let mut fds =
                [PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN), PollFd::new(reader, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.map_err(|errno| io(errno.into()))?,
            };
            let [cancelled, ready] = fds.map(|fd| !fd.revents().is_empty());
            if cancelled {
                return Err(Error::Cancelled);
            }
            if ready && read_some(&mut stream, &mut pending).map_err(io)? {
                stream = None;
            }
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                take(&pending.drain(..=end).collect::<Vec<_>>());
            }
        }
        if !pending.is_empty() {
            take(&pending);
        }
        let status = process.wait().map_err(io)?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Failed { program: line, status, output: Vec::from(said).join("\n") }),
        }
    }
}

/// Reads what is there; true at the end of the stream.
fn read_some(stream: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<bool> {
    let Some(stream) = stream else { return Ok(true) };
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(0) => Ok(true),
        Ok(count) => {
            into.extend_from_slice(&buffer[..count]);
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Quotes an argument for a POSIX shell where it needs that.
pub fn shell_quote(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.to_owned();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

/// A process under way; dropping it kills its whole group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    program: String,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its program's name.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Its standard error, where it was piped; once.
    pub fn take_stderr(&mut self) -> Option<OwnedFd> {
        self.child.stderr.take().map(OwnedFd::from)
    }

    /// Its standard output, where it was piped; once.
    pub fn take_stdout(&mut self) -> Option<OwnedFd> {
        self.child.stdout.take().map(OwnedFd::from)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // The group may be gone already.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    /// Kills its process group and reaps it.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            self.signal(Signal::KILL);
        }
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Says how a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The full path of a program in `PATH`.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_both_streams_and_the_status() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let output = command.output(&Cancel::new().unwrap()).unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(describe(output.status), "exit status 3");
    }

    #[test]
    fn a_missing_program_and_a_failed_one_are_told_apart() {
        let cancel = Cancel::new().unwrap();
        let missing = Command::new("no-such-program-anywhere").check(&cancel).unwrap_err();
        assert!(matches!(missing, Error::Missing { .. }));
        let mut command = Command::new("sh");
        command.args(["-c", "echo why; exit 1"]);
        let failed = command.check(&cancel).unwrap_err().to_string();
        assert!(failed.contains("sh -c 'echo why; exit 1'") && failed.ends_with("why"), "{failed}");
    }

    #[test]
    fn lines_come_one_by_one_and_an_error_has_those_that_are_no_progress() {
        let cancel = Cancel::new().unwrap();
        let run = |script: &str| {
            let mut lines = Vec::new();
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let result = command.check_lines(&cancel, &mut |line| {
                lines.push(line.to_owned());
                line.starts_with("  ")
            });
            (result, lines)
        };
        let (result, lines) = run("echo '  CC a'; echo why >&2; printf end; exit 2");
        assert_eq!(lines, ["  CC a", "why", "end"]);
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with("exit status: 2\nwhy\nend"), "{error}");
        let (result, lines) = run("seq 5000");
        assert!(result.is_ok() && lines.len() == 5000 && lines[4999] == "5000");
        cancel.cancel();
        assert!(matches!(run("sleep 1000").0, Err(Error::Cancelled)));
    }

    #[test]
    fn cancelling_ends_the_wait_and_the_process() {
        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        let mut command = Command::new("sleep");
        command.arg("1000");
        assert!(matches!(command.output(&cancel).unwrap_err(), Error::Cancelled));
    }
}
