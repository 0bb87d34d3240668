//! Breakpoints, and the call chains that they are hit in.

use std::os::fd::AsFd as _;
use std::time::Instant;

use super::execute::{Executor, StepError};
use super::session::kernel_name;
use crate::gdb::{self, Breakpoint, Debugger};
use crate::guest;
use crate::scenario::step::Break;

impl Executor<'_> {
    /// Puts a breakpoint in. One that was there before must have been hit by then.
    pub(super) fn set_breakpoint(&mut self, breakpoint: &Break) -> Result<(), StepError> {
        if self.debugger.is_some() {
            self.backtrace()?;
        }
        // Only the scenario is to hit it.
        self.session().hold_cover(true);
        let folder = self.session().debug()?;
        let argument = match &breakpoint.module {
            None => None,
            Some(name) => Some(folder.module(&kernel_name(name)).ok_or_else(|| {
                StepError::mismatch(&format!("module {}", name.value), "to be loaded", "it is not")
            })?),
        };
        let function = &breakpoint.function.value.0;
        let breakpoint = Breakpoint { function, argument };
        let debugger = Debugger::start(folder, &breakpoint)
            .map_err(|error| StepError::Host(crate::error::chain(&error)))?;
        self.debugger = Some(debugger);
        match self.hear_debugger(Debugger::is_ready, "gdb has not attached")? {
            true => Ok(()),
            false => Err(StepError::mismatch(&format!("break {function}"), "a breakpoint", self.gdb_said())),
        }
    }

    /// The call chain that the last breakpoint was hit in, which is waited for up to the end of the step.
    pub(super) fn backtrace(&mut self) -> Result<Vec<String>, StepError> {
        self.hear_debugger(|_| false, "no breakpoint was hit")?;
        let said = self.gdb_said();
        match gdb::frames(&said) {
            frames if frames.is_empty() => Err(StepError::mismatch("breakpoint", "to be hit", said)),
            frames => Ok(frames),
        }
    }

    fn gdb_said(&self) -> String {
        self.debugger.as_ref().map(Debugger::text).unwrap_or_default()
    }

    /// Takes what gdb says until `enough`, or else to its end; whether it was enough. `late` is what a timeout means.
    fn hear_debugger(&mut self, enough: fn(&Debugger) -> bool, late: &str) -> Result<bool, StepError> {
        let deadline = Instant::now() + self.left();
        let heard = loop {
            let Some(debugger) = &mut self.debugger else { return Ok(false) };
            debugger.read().map_err(|error| StepError::Host(error.to_string()))?;
            if enough(debugger) || debugger.is_over() {
                break Ok(enough(debugger));
            }
            let output = debugger.output().as_fd().try_clone_to_owned();
            let output = output.map_err(|error| StepError::Host(error.to_string()))?;
            let guest = self.session().guest();
            guest.vm().watch(Some(output));
            let pumped = guest.pump(deadline);
            guest.vm().watch(None);
            match pumped {
                Ok(()) => {}
                Err(guest::Error::Deadline) => break Err(StepError::Late(late.to_owned())),
                Err(error) => break Err(error.into()),
            }
        };
        self.transcript.gdb = self.gdb_said();
        heard
    }
}
