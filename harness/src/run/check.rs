//! Holding what was captured against what was expected.

use std::collections::HashMap;

use super::execute::{Executor, StepError};
use crate::guest::proto::{Ending, Port};
use crate::guest::{Capture, Finished};
use crate::scenario::expect::{End, Expect, Mismatch, Program};
use crate::trace::{Assembler, Event, Item, ListedModule, ListedProbe};

/// The most that is read of a file that an expectation names, in bytes.
pub(super) const FILE_LIMIT: u64 = 16 << 20;

/// What a step itself gave.
#[derive(Debug)]
pub(super) enum Output {
    /// Nothing to look at.
    Nothing,
    /// A program has ended by itself.
    Program(Finished),
    /// A program was made to end.
    Stopped(Finished),
    /// A file was read.
    Content(Capture),
    /// A file was read, and is an artifact of that name.
    Kept(String, Capture),
}

impl Executor<'_> {
    /// Everything of `expect` that does not hold now.
    pub(super) fn check(&mut self, expect: &Expect, output: &Output) -> Result<Vec<Mismatch>, StepError> {
        let mut mismatches = own(expect, output);
        if let Some(log) = &expect.log {
            mismatches.extend(log.check(&self.log_text()?).err().map(|mismatch| mismatch.within("log")));
        }
        if let Some(trace) = &expect.trace {
            let events = self.events()?;
            mismatches.extend(trace.check(&events));
        }
        if expect.backtrace.is_some() {
            mismatches.extend(expect.check_backtrace(&self.backtrace()?));
        }
        for (path, wanted) in &expect.files {
            let text = self.read_text(&path.0)?;
            let found = text.map_err(|errno| Mismatch::new("", "a readable file", errno.to_string()));
            let checked = found.and_then(|text| wanted.check(&text));
            mismatches.extend(checked.err().map(|mismatch| mismatch.within(&path.0)));
        }
        if let Some(kprobes) = &expect.kprobes {
            mismatches.extend(kprobes.check(&self.kprobes()?));
        }
        if !expect.modules.is_empty() {
            let listed = self.modules()?;
            for (name, wanted) in &expect.modules {
                // The kernel lists a module under its name with underscores, whatever its file is called.
                let kernel_name = name.value.replace('-', "_");
                let found = listed.iter().find(|module| module.name == kernel_name);
                mismatches.extend(wanted.check(&name.value, found));
            }
        }
        Ok(mismatches)
    }

    /// The kernel log of the case, without its timestamps.
    pub(super) fn log_text(&mut self) -> Result<String, StepError> {
        self.guest().sync(Port::Log)?;
        let records = self.guest().streams().records();
        Ok(records.iter().fold(String::new(), |text, record| text + &record.text + "\n"))
    }

    /// The events traced since tracing began or was cleared.
    fn events(&mut self) -> Result<Vec<Event>, StepError> {
        self.guest().sync(Port::Trace)?;
        let mut assembler = Assembler::new();
        assembler.push(&self.guest().streams().trace_bytes());
        assembler.finish();
        let events = assembler.filter_map(|item| match item {
            Item::Event(event) => Some(event),
            Item::Lost(_) => None,
        });
        Ok(name_tasks(events.collect()))
    }

    fn kprobes(&mut self) -> Result<Vec<ListedProbe>, StepError> {
        let text = self.read_or_fail("/sys/kernel/debug/kprobes/list")?;
        ListedProbe::parse_list(&text).map_err(|error| StepError::Host(error.to_string()))
    }

    fn modules(&mut self) -> Result<Vec<ListedModule>, StepError> {
        let text = self.read_or_fail("/proc/modules")?;
        ListedModule::parse_list(&text).map_err(|error| StepError::Host(error.to_string()))
    }

    fn read_or_fail(&mut self, path: &str) -> Result<String, StepError> {
        let text = self.read_text(path)?;
        text.map_err(|errno| {
            StepError::Mismatch(vec![Mismatch::new(path, "a readable file", errno.to_string())])
        })
    }
}

/// The kernel prints `<...>` for a task whose name it has forgotten; where the same task has a name elsewhere in the trace,
/// it gets that.
fn name_tasks(mut events: Vec<Event>) -> Vec<Event> {
    let mut known = HashMap::new();
    for event in &events {
        if let Some(comm) = &event.comm {
            known.entry(event.pid).or_insert_with(|| comm.clone());
        }
    }
    for event in events.iter_mut().filter(|event| event.comm.is_none()) {
        event.comm = known.get(&event.pid).cloned();
    }
    events
}

/// The expectations of what the step itself gave.
fn own(expect: &Expect, output: &Output) -> Vec<Mismatch> {
    match output {
        Output::Nothing => Vec::new(),
        Output::Program(finished) => program(finished, expect, true),
        Output::Stopped(finished) => program(finished, expect, false),
        Output::Content(content) | Output::Kept(_, content) => {
            let checked =
                expect.content.as_ref().and_then(|wanted| wanted.value.check(&content.text()).err());
            checked.map(|mismatch| mismatch.within("content")).into_iter().collect()
        }
    }
}

fn program(finished: &Finished, expect: &Expect, must_succeed: bool) -> Vec<Mismatch> {
    let (stdout, stderr) = (finished.stdout.text(), finished.stderr.text());
    let end = match finished.ending {
        Ending::Exited(status) => End::Exit(status.into()),
        Ending::Signalled(signal) => End::Signal(signal),
    };
    Program { end, stdout: &stdout, stderr: &stderr }.check(Some(expect), must_succeed)
}
