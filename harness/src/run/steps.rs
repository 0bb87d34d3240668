//! What each kind of step does.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::{FILE_LIMIT, Output};
use super::execute::{Background, Executor, StepError};
use super::figures;
use super::session::kernel_name;
use crate::guest::proto::{Condition, Ending, Port, Run, WriteMode};
use crate::guest::{Answer, Capture, Errno, Finished, UnknownName};
use crate::scenario::Scalar;
use crate::scenario::step::{
    self, Action, Command, FileCondition, FileState, Load, ModuleRef, Origin, Spawn, Stop, Trace, TraceStart,
    Unload, WaitFor,
};
use crate::scenario::values::TRACING;
use crate::yaml::Spanned;

impl Executor<'_> {
    /// Does what a step asks for.
    pub(super) fn act(&mut self, action: &Action) -> Result<Output, StepError> {
        match action {
            Action::Trace(Trace::Start(start)) => self.trace(start)?,
            Action::Trace(Trace::Stop) => self.tell(&format!("{TRACING}/tracing_on"), "0")?,
            Action::Trace(Trace::Clear) => self.clear_trace()?,
            Action::Load(load) => self.load(load)?,
            Action::Unload(unload) => self.unload(unload)?,
            Action::Push(modules) => {
                for module in modules.iter() {
                    self.session().push(&module.name.value, module.origin == Origin::InTree)?;
                }
            }
            Action::Run(run) => return self.run_program(run),
            Action::Spawn(spawn) => self.spawn(spawn)?,
            Action::Stop(stop) => return self.stop(stop),
            Action::WaitExit(name) => return self.wait_exit(name).map(Output::Program),
            Action::Write(write) => self.write(write)?,
            Action::Read(read) => return self.read(read),
            Action::WaitFor(wait) => self.wait_for(wait)?,
            Action::Break(breakpoint) => self.set_breakpoint(breakpoint)?,
            Action::Plug(plug) => self.plug(plug)?,
            Action::Unplug(name) => {
                let unplugged = self.guest().unplug(&name.value);
                plugged(&format!("unplug {}", name.value), unplugged)?;
            }
            Action::Assert(expect) => match self.check(expect, &Output::Nothing)? {
                mismatches if mismatches.is_empty() => {}
                mismatches => return Err(StepError::Mismatch(mismatches)),
            },
        }
        Ok(Output::Nothing)
    }

    /// Writes a short text to a file of the kernel's, which must take it.
    fn tell(&mut self, path: &str, text: &str) -> Result<(), StepError> {
        self.tell_as(path, text, WriteMode::Truncate)
    }

    fn tell_as(&mut self, path: &str, text: &str, mode: WriteMode) -> Result<(), StepError> {
        let answer = self.guest().write_file(path, mode, 0o644, text.as_bytes())?;
        answer.map_err(|errno| StepError::mismatch(path, format!("to take `{text}`"), errno.to_string()))
    }

    fn trace(&mut self, start: &TraceStart) -> Result<(), StepError> {
        match self.guest().make_dir(TRACING)? {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(StepError::mismatch(TRACING, "a tracefs instance", errno.to_string())),
        }
        if let Some(kb) = start.buffer_kb {
            self.tell(&format!("{TRACING}/buffer_size_kb"), &kb.to_string())?;
        }
        if let Some(clock) = &start.clock {
            self.tell(&format!("{TRACING}/trace_clock"), clock)?;
        }
        for (option, on) in &start.options {
            self.tell(&format!("{TRACING}/options/{option}"), if *on { "1" } else { "0" })?;
        }
        if let Some(filter) = &start.filter {
            for event in start.events.iter() {
                self.tell(&format!("{TRACING}/events/{event}/filter"), filter)?;
            }
        }
        for (event, filter) in &start.event_filters {
            self.tell(&format!("{TRACING}/events/{event}/filter"), filter)?;
        }
        for (event, triggers) in &start.triggers {
            for trigger in triggers.iter() {
                // Opening the file to truncate it would remove the triggers before.
                self.tell_as(&format!("{TRACING}/events/{event}/trigger"), trigger, WriteMode::Append)?;
            }
        }
        for event in start.events.iter() {
            self.tell(&format!("{TRACING}/events/{event}/enable"), "1")?;
        }
        self.tell(&format!("{TRACING}/tracing_on"), "1")?;
        if self.tracing.is_none() {
            let pipe = format!("{TRACING}/trace_pipe");
            let stream = self.guest().stream(&pipe, Port::Trace)?;
            self.tracing = Some(
                stream.map_err(|errno| StepError::mismatch(&pipe, "a readable file", errno.to_string()))?,
            );
        }
        Ok(())
    }

    fn clear_trace(&mut self) -> Result<(), StepError> {
        self.guest().sync(Port::Trace)?;
        self.tell(&format!("{TRACING}/trace"), "")?;
        self.guest().clear_trace();
        Ok(())
    }

    fn load(&mut self, load: &Load) -> Result<(), StepError> {
        let ModuleRef { name, origin } = &load.module;
        let in_tree = *origin == Origin::InTree;
        let loaded = self.session().load(&name.value, in_tree, &parameters(&load.params), load.force)?;
        // An errno is expected of the module itself, not of what it needs.
        let wanted = load.errno.as_ref().filter(|_| loaded.module == kernel_name(&name.value));
        self.expect_errno(&format!("load {}", loaded.module), wanted, loaded.answer)
    }

    fn unload(&mut self, unload: &Unload) -> Result<(), StepError> {
        let name = &unload.module.name.value;
        let answer = self.session().unload(name, unload.force)?;
        self.expect_errno(&format!("unload {name}"), unload.errno.as_ref(), answer)
    }

    /// Holds what a system call answered against the expected errno.
    fn expect_errno(
        &self,
        what: &str,
        wanted: Option<&Spanned<String>>,
        answer: Answer<()>,
    ) -> Result<(), StepError> {
        // Names were checked when the file was read, and one number may have several: the scenario's is shown.
        let (wanted, name) = match wanted {
            Some(name) => (
                name.value.parse().map_err(|error: UnknownName| StepError::Host(error.to_string()))?,
                name.value.clone(),
            ),
            None => (Errno::OK, Errno::OK.to_string()),
        };
        let found = answer.err().unwrap_or(Errno::OK);
        if found == wanted {
            return Ok(());
        }
        Err(StepError::mismatch(what, name, found.to_string()))
    }

    fn run_program(&mut self, run: &step::Run) -> Result<Output, StepError> {
        let limit = self.left();
        let mut program = program(&run.command, &run.env, run.stdin.as_deref(), run.cwd.as_deref());
        program.deadline_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1);
        match self.guest().run(program)? {
            Ok(finished) if finished.timed_out => {
                Err(StepError::Late(format!("it still ran\n{}", said(&finished)).trim_end().to_owned()))
            }
            Ok(finished) => {
                // Of a program that failed, that comes first.
                if run.figures && finished.ending == Ending::Exited(0) {
                    let figures = figures::parse(&finished).map_err(|line| {
                        StepError::mismatch("stdout", "figures such as `time: 12 us`", format!("`{line}`"))
                    })?;
                    self.figures.extend(figures);
                }
                Ok(Output::Program(finished))
            }
            Err(errno) => Err(StepError::mismatch("the program", "to start", errno.to_string())),
        }
    }

    fn spawn(&mut self, spawn: &Spawn) -> Result<(), StepError> {
        let program = program(&spawn.run, &spawn.env, spawn.stdin.as_deref(), spawn.cwd.as_deref());
        match self.guest().spawn(program)? {
            Ok((id, pid)) => {
                self.background.insert(spawn.name.value.clone(), Background { id, pid });
                Ok(())
            }
            Err(errno) => Err(StepError::mismatch("the program", "to start", errno.to_string())),
        }
    }

    fn stop(&mut self, stop: &Stop) -> Result<Output, StepError> {
        let Some(&Background { id, .. }) = self.background.get(&stop.name.value) else {
            return Err(StepError::Host(format!("nothing was spawned as `{}`", stop.name.value)));
        };
        match self.guest().signal(id, stop.signal.0)? {
            // It has ended by itself, which its exit says.
            Ok(()) | Err(Errno::ESRCH) => self.wait_exit(&stop.name).map(Output::Stopped),
            Err(errno) => Err(StepError::mismatch("kill", "success", errno.to_string())),
        }
    }

    fn wait_exit(&mut self, name: &Spanned<String>) -> Result<Finished, StepError> {
        let Some(Background { id, pid }) = self.background.remove(&name.value) else {
            return Err(StepError::Host(format!("nothing was spawned as `{}`", name.value)));
        };
        match self.guest().wait_exit(id) {
            Ok(Ok(finished)) => Ok(finished),
            Ok(Err(errno)) => Err(StepError::mismatch("the program", "to run", errno.to_string())),
            Err(crate::guest::Error::Deadline) => {
                Err(StepError::Late(format!("`{}` (process {pid}) still ran", name.value)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn plug(&mut self, plug: &step::Plug) -> Result<(), StepError> {
        let option = |(key, value): (&String, &Scalar)| (key.clone(), json(&value.0));
        let options = plug.options.iter().map(option).collect();
        let answer = self.guest().plug(&plug.device, &plug.name.value, &options);
        plugged(&format!("plug {}", plug.device), answer)
    }

    fn write(&mut self, write: &step::Write) -> Result<(), StepError> {
        let mode = if write.append { WriteMode::Append } else { WriteMode::Truncate };
        let answer = self.guest().write_file(&write.path.0, mode, 0o644, write.text.as_bytes())?;
        self.expect_errno(&format!("write {}", write.path.0), write.errno.as_ref(), answer)
    }

    fn read(&mut self, read: &step::Read) -> Result<Output, StepError> {
        let answer = self.guest().read_file(&read.path.0, FILE_LIMIT)?;
        let bytes = answer.clone().unwrap_or_default();
        self.expect_errno(&format!("read {}", read.path.0), read.errno.as_ref(), answer.map(drop))?;
        let mut content = Capture::new(bytes.len());
        content.push(&bytes);
        let Some(name) = &read.keep else { return Ok(Output::Content(content)) };
        match bytes.len() as u64 >= FILE_LIMIT {
            true => Err(StepError::mismatch(&read.path.0, "less than 16 MiB, to be kept", "more")),
            false => Ok(Output::Kept(name.0.clone(), content)),
        }
    }

    fn wait_for(&mut self, wait: &WaitFor) -> Result<(), StepError> {
        match wait {
            WaitFor::File(FileCondition { path, state }) => {
                let condition = match state {
                    FileState::Exists => Condition::Exists,
                    FileState::Absent => Condition::Absent,
                    FileState::Equals(text) => Condition::Equals(text.clone().into_bytes()),
                    FileState::Contains(text) => Condition::Contains(text.clone().into_bytes()),
                };
                self.wait_file(&path.0, condition)
            }
            WaitFor::Refcount { module, is } => {
                let path = format!("/sys/module/{}/refcnt", kernel_name(&module.value));
                self.wait_until(&path, |content| content.trim().parse().is_ok_and(|count| is.matches(count)))
            }
            WaitFor::Loaded(module) => {
                let path = format!("/sys/module/{}/initstate", kernel_name(&module.value));
                self.wait_file(&path, Condition::Equals(b"live".to_vec()))
            }
            WaitFor::Gone(module) => {
                self.wait_file(&format!("/sys/module/{}", kernel_name(&module.value)), Condition::Absent)
            }
            WaitFor::Log(pattern) => self.wait_log(|line| pattern.find_from(line, 0).is_some()),
        }
    }

    fn wait_file(&mut self, path: &str, condition: Condition) -> Result<(), StepError> {
        match self.guest().wait_for(path, condition)? {
            (true, _) => Ok(()),
            (false, content) => Err(StepError::Late(held(path, &content))),
        }
    }

    /// Waits until a file's content is as wanted: in the guest, for it to change, as often as it does.
    fn wait_until(&mut self, path: &str, wanted: impl Fn(&str) -> bool) -> Result<(), StepError> {
        let mut seen = Vec::new();
        loop {
            let (changed, content) = self.guest().wait_for(path, Condition::NotEquals(seen))?;
            if !changed {
                return Err(StepError::Late(held(path, &content)));
            }
            if wanted(&String::from_utf8_lossy(&content)) {
                return Ok(());
            }
            seen = content;
        }
    }

    /// Waits for the kernel log, which comes by itself.
    fn wait_log(&mut self, wanted: impl Fn(&str) -> bool) -> Result<(), StepError> {
        let deadline = std::time::Instant::now() + self.left();
        while !self.log_text()?.lines().any(&wanted) {
            match self.guest().pump(deadline) {
                Err(crate::guest::Error::Deadline) => {
                    return Err(StepError::Late("no line of the kernel log is like that".into()));
                }
                result => result?,
            }
        }
        Ok(())
    }
}

/// What QEMU refuses, or the guest does not let go of, did not come as expected.
fn plugged(what: &str, answer: Result<(), crate::guest::Error>) -> Result<(), StepError> {
    use crate::guest::Error as Guest;
    use crate::vm::Error;
    match answer {
        Err(Guest::Vm(Error::Refused { reason, .. })) => Err(StepError::mismatch(what, "success", reason)),
        Err(Guest::Vm(Error::Deadline(_))) => Err(StepError::Late("the device was still there".to_owned())),
        answer => Ok(answer?),
    }
}

/// A property's value, as QMP takes it: it tells numbers and truth values from text.
fn json(value: &str) -> Value {
    match serde_json::from_str(value) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        _ => Value::String(value.to_owned()),
    }
}

fn held(path: &str, content: &[u8]) -> String {
    match String::from_utf8_lossy(content).trim() {
        "" => format!("`{path}` was empty or not there"),
        content => format!("`{path}` held `{content}`"),
    }
}

fn said(finished: &Finished) -> String {
    let text = format!("{}{}", finished.stdout.text(), finished.stderr.text());
    crate::process::tail(&text, 10)
}

fn program(command: &Command, env: &BTreeMap<String, Scalar>, stdin: Option<&str>, cwd: Option<&str>) -> Run {
    let argv = match command {
        Command::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        Command::Argv(argv) => argv.clone(),
    };
    Run {
        argv,
        env: env.iter().map(|(name, value)| format!("{name}={}", value.0)).collect(),
        cwd: cwd.unwrap_or_default().to_owned(),
        stdin: stdin.unwrap_or_default().as_bytes().to_vec(),
        deadline_ms: 0,
    }
}

/// Parameters as the kernel takes them; it undoes the quotes around a value with white space
/// (`kernel/params.c`, `next_arg`).
fn parameters(params: &BTreeMap<String, Scalar>) -> String {
    let one = |(name, value): (&String, &Scalar)| match value.0.contains(char::is_whitespace) {
        true => format!("{name}=\"{}\"", value.0),
        false => format!("{name}={}", value.0),
    };
    params.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_numbers_truth_values_or_text() {
        assert_eq!(json("none"), Value::from("none"));
        assert_eq!(json("2"), Value::from(2));
        assert_eq!(json("true"), Value::from(true));
        assert_eq!(json("null"), Value::from("null"));
    }

    #[test]
    fn parameters_with_spaces_are_quoted() {
        let params = [("symbol", "do_exit"), ("text", "a b")];
        let params = params.map(|(name, value)| (name.to_owned(), Scalar(value.to_owned())));
        assert_eq!(parameters(&params.into()), "symbol=do_exit text=\"a b\"");
    }
}
