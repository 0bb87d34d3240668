//! Holding what was captured against what was expected.

use std::collections::HashMap;

use super::execute::{Executor, StepError};
use super::session::kernel_name;
use crate::blame::Answer;
use crate::guest::proto::{Ending, Port};
use crate::guest::{Capture, Finished};
use crate::scenario::expect::{End, Expect, Mismatch, Program};
use crate::trace::ledger::Ledger;
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
        if !expect.blame.is_empty() {
            mismatches.extend(self.check_blame(expect)?);
        }
        Ok(mismatches)
    }

    /// Holds what was traced of modules, and what a scan finds, against what should hold them.
    fn check_blame(&mut self, expect: &Expect) -> Result<Vec<Mismatch>, StepError> {
        let mut ledger = Ledger::new(None);
        for item in self.traced()? {
            match item {
                Item::Event(event) => ledger.push(&event),
                Item::Lost(lost) => ledger.push_lost(lost),
            }
        }
        let answers: Vec<Answer> = ledger.finish().into_iter().map(Answer::new).collect();
        let mut mismatches = Vec::new();
        for (name, wanted) in &expect.blame {
            let scan = if wanted.needs_scan() { Some(self.session().scan(&name.value)?) } else { None };
            let scan = scan.as_ref().map(|scan| scan.as_ref().map_err(|errno| *errno));
            let answer = answers.iter().find(|answer| answer.ledger.name == kernel_name(&name.value));
            mismatches.extend(wanted.check(&name.value, answer, scan));
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
        let events = self.traced()?.into_iter().filter_map(|item| match item {
            Item::Event(event) => Some(event),
            Item::Lost(_) => None,
        });
        Ok(events.collect())
    }

    /// The same, with the gaps where events were lost.
    fn traced(&mut self) -> Result<Vec<Item>, StepError> {
        self.guest().sync(Port::Trace)?;
        let mut assembler = Assembler::new();
        assembler.push(&self.guest().streams().trace_bytes());
        assembler.finish();
        Ok(name_tasks(assembler.collect()))
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
fn name_tasks(mut items: Vec<Item>) -> Vec<Item> {
    let mut known = HashMap::new();
    for item in &items {
        if let Item::Event(Event { comm: Some(comm), pid, .. }) = item {
            known.entry(*pid).or_insert_with(|| comm.clone());
        }
    }
    for item in &mut items {
        if let Item::Event(event) = item
            && event.comm.is_none()
        {
            event.comm = known.get(&event.pid).cloned();
        }
    }
    items
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
