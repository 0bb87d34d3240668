//! Doing a scenario's steps in a guest.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::check::Output;
use super::event::{CaseId, Event, Reporter, StepReport};
use super::evidence::StepOutput;
use super::figures::Figure;
use super::outcome::{Crash, Failure, Outcome, Phase, Place, Timeout};
use super::transcript::Transcript;
use super::{Limits, Session, SessionError};
use crate::console::{ConsoleLine, KtapReader, KtapReport, Subtests, TaintSet};
use crate::gdb::Debugger;
use crate::guest::proto::Port;
use crate::guest::{self, Errno, Guest, RequestId};
use crate::scenario::Scenario;
use crate::scenario::expect::{Expect, Mismatch, all_skipped, check_subtests, check_trouble};
use crate::scenario::step::Step;
use crate::yaml::{Position, Spanned};

/// Why a step did not succeed.
#[derive(Debug)]
pub(super) enum StepError {
    /// Something expected did not come.
    Mismatch(Vec<Mismatch>),
    /// The guest or its agent failed.
    Guest(guest::Error),
    /// A program outlived the step's limit, or a condition did not come to hold within it; what was there instead.
    Late(String),
    /// The host failed.
    Host(String),
}

impl From<SessionError> for StepError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Guest(error) => StepError::Guest(error),
            SessionError::Module(reason) => StepError::Host(reason),
            SessionError::Gdb(error) => StepError::Host(crate::error::chain(&error)),
        }
    }
}

impl From<guest::Error> for StepError {
    fn from(error: guest::Error) -> Self {
        StepError::Guest(error)
    }
}

impl StepError {
    pub(super) fn mismatch(what: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        StepError::Mismatch(vec![Mismatch {
            what: what.into(),
            expected: expected.into(),
            found: found.into(),
        }])
    }
}

/// A scenario and its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) file: &'a Path,
}

impl Steps<'_> {
    pub(super) fn place(&self, at: Position) -> Place {
        Place { file: self.file.to_owned(), line: at.line, column: at.column }
    }
}

/// A program started by `spawn`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Background {
    pub(super) id: RequestId,
    pub(super) pid: u32,
}

/// The longest delay before a step while programs run beside it: starting a program in an emulated guest takes about as
/// long.
const LONGEST_DELAY: Duration = Duration::from_millis(100);

/// A case under way.
pub(super) struct Executor<'a> {
    session: Session,
    id: &'a CaseId,
    steps: Steps<'a>,
    pub(super) limits: Limits,
    reporter: &'a dyn Reporter,
    /// Draws delays, where the case has some.
    delays: Option<fastrand::Rng>,
    deadline: Instant,
    step_deadline: Instant,
    pub(super) background: HashMap<String, Background>,
    pub(super) tracing: Option<RequestId>,
    /// The gdb that waits for the last breakpoint, or has had it.
    pub(super) debugger: Option<Debugger>,
    pub(super) transcript: Transcript,
    reports: Vec<StepReport>,
    subtests: Subtests,
    pub(super) figures: Vec<Figure>,
}

/// What remains of a case that was executed.
pub(super) struct Executed {
    /// How it ended; `None` where the run was told to stop.
    pub(super) outcome: Option<Outcome>,
    pub(super) session: Session,
    pub(super) transcript: Transcript,
    pub(super) reports: Vec<StepReport>,
    pub(super) subtests: Subtests,
    pub(super) figures: Vec<Figure>,
}

impl<'a> Executor<'a> {
    pub(super) fn new(
        session: Session,
        id: &'a CaseId,
        steps: Steps<'a>,
        limits: Limits,
        reporter: &'a dyn Reporter,
        seed: Option<u64>,
    ) -> Self {
        let limit = limits.case(steps.scenario.timeout.map(|timeout| timeout.0));
        let deadline = Instant::now() + limit;
        Executor {
            session,
            id,
            steps,
            limits,
            reporter,
            delays: seed.map(fastrand::Rng::with_seed),
            deadline,
            step_deadline: deadline,
            background: HashMap::new(),
            tracing: None,
            debugger: None,
            transcript: Transcript::default(),
            reports: Vec::new(),
            subtests: Subtests::default(),
            figures: Vec::new(),
        }
    }

    /// The guest and its modules; whatever is asked of them has until the end of the step.
    pub(super) fn session(&mut self) -> &mut Session {
        let left = self.left().max(Duration::from_millis(1));
        self.session.guest().set_limit(left);
        &mut self.session
    }

    /// The guest, likewise.
    pub(super) fn guest(&mut self) -> &mut Guest {
        self.session().guest()
    }

    /// Time until the end of the step.
    pub(super) fn left(&self) -> Duration {
        self.step_deadline.saturating_duration_since(Instant::now())
    }

    /// Does every step, and then holds everything captured against what is expected.
    pub(super) fn run(mut self) -> Executed {
        let ended = self.do_steps();
        self.begin_step(None);
        if ended.is_ok() {
            // What goes wrong here goes wrong again, and is told, when the kernel's trouble is looked for.
            let _ = self.guest().sync(Port::Log);
        }
        let mut reader = KtapReader::default();
        let records = self.session.guest().streams().records();
        records.iter().flat_map(|record| record.text.lines()).for_each(|line| reader.push_line(line));
        self.subtests.add(reader.finish());
        let outcome = match ended {
            Ok(()) => self.outcome(),
            Err(outcome) => outcome.map(|outcome| *outcome),
        };
        let Executor { session, transcript, reports, subtests, figures, .. } = self;
        Executed { outcome, session, transcript, reports, subtests, figures }
    }

    /// Lets programs that run beside the steps go on for a time that is drawn: what races comes out one way or the other.
    fn delay(&mut self) -> Result<(), StepError> {
        match &mut self.delays {
            Some(delays) if !self.background.is_empty() => {
                let delay = LONGEST_DELAY.mul_f64(delays.f64());
                Ok(self.session.guest().idle(Instant::now() + delay)?)
            }
            _ => Ok(()),
        }
    }

    /// Does the steps up to one that ends the case.
    fn do_steps(&mut self) -> Result<(), Option<Box<Outcome>>> {
        for (index, step) in self.steps.scenario.steps.value.iter().enumerate() {
            let name = step_name(index, &step.value);
            if let Err(error) = self.delay().and_then(|()| self.step(&name, step)) {
                return Err(self.ended(Some(&name), self.steps.place(step.at), error).map(Box::new));
            }
        }
        Ok(())
    }

    fn outcome(&mut self) -> Option<Outcome> {
        let expect = self.steps.scenario.expect.as_deref();
        let at = self.steps.scenario.expect.as_ref().map_or(self.steps.scenario.name.at, |expect| expect.at);
        let place = self.steps.place(at);
        let mut mismatches =
            match expect.map_or(Ok(Vec::new()), |expect| self.check(expect, &Output::Nothing)) {
                Ok(mismatches) => mismatches,
                Err(error) => return self.ended(None, place, error),
            };
        match self.trouble() {
            Err(error) => return self.ended(None, place, error),
            Ok((_, Some(crash))) => return Some(Outcome::Crash(crash)),
            Ok((missing, None)) => mismatches.extend(missing),
        }
        mismatches.extend(check_subtests(expect, &self.subtests));
        if mismatches.is_empty() {
            return Some(all_skipped(expect, &self.subtests).map_or(Outcome::Pass, Outcome::Skip));
        }
        Some(Outcome::Fail(Failure { place, step: None, mismatches }))
    }

    fn begin_step(&mut self, own: Option<Duration>) {
        self.step_deadline = (Instant::now() + self.limits.step(own)).min(self.deadline);
    }

    fn step(&mut self, name: &str, step: &Spanned<Step>) -> Result<(), StepError> {
        self.reporter.event(&Event::StepStarted { id: self.id, step: name });
        let begun = Instant::now();
        self.begin_step(step.value.timeout.map(|timeout| timeout.0));
        let subtests = self.subtests.tests.len();
        let mut given = None;
        let result = self.act(&step.value.action).and_then(|output| {
            self.transcript.add(name, &output);
            given = Some(StepOutput::new(&output));
            if let Output::Program(finished) | Output::Stopped(finished) = &output {
                self.subtests.add(printed(&finished.stdout.text()));
            }
            let nothing = Expect::default();
            let expect = step.value.expect.as_ref().unwrap_or(&nothing);
            match self.check(expect, &output)? {
                mismatches if mismatches.is_empty() => Ok(()),
                mismatches => Err(StepError::Mismatch(mismatches)),
            }
        });
        if result.is_ok() {
            self.take_cover();
        }
        self.reports.push(StepReport {
            name: name.to_owned(),
            place: self.steps.place(step.at),
            time: begun.elapsed(),
            passed: result.is_ok(),
            output: given,
            subtests: subtests..self.subtests.tests.len(),
        });
        result
    }

    /// Takes over what was executed, since the step may have loaded and removed modules by way of programs. A guest that does
    /// not answer any more is for the next step to meet.
    fn take_cover(&mut self) {
        let waits = self.debugger.as_ref().is_some_and(|debugger| !debugger.is_over());
        self.session().hold_cover(waits);
        let _ = self.session().take_cover();
    }

    /// The outcome of a case that ended early. What the kernel said of itself comes before what followed from it.
    fn ended(&mut self, step: Option<&str>, place: Place, error: StepError) -> Option<Outcome> {
        let step_name = step.map(str::to_owned);
        if !matches!(error, StepError::Guest(guest::Error::Crashed(_) | guest::Error::Cancelled)) {
            // The guest may be unable to say more; then what it has said must do.
            self.step_deadline = Instant::now() + Duration::from_secs(2);
            let silent = self.guest().sync(Port::Log).is_err();
            let expect = self.steps.scenario.expect.as_deref();
            let guest = self.session.guest();
            let splats = if silent { guest.last_words() } else { guest.streams().splats() };
            let trouble = check_trouble(expect, splats, TaintSet::default());
            if let Some(splat) = trouble.unexpected_splats.first().and_then(|&index| splats.get(index)) {
                return Some(Outcome::Crash(Crash::of(step_name, splat)));
            }
        }
        Some(match error {
            StepError::Mismatch(mismatches) => Outcome::Fail(Failure { place, step: step_name, mismatches }),
            StepError::Late(found) => Outcome::Timeout(self.timeout(step, found)),
            StepError::Host(reason) => Outcome::Error(reason),
            StepError::Guest(error) => match error {
                guest::Error::Cancelled => return None,
                guest::Error::Deadline => {
                    Outcome::Timeout(self.timeout(step, "the guest does not answer".into()))
                }
                guest::Error::Crashed(splat) => Outcome::Crash(Crash::of(step_name, &splat)),
                guest::Error::Exited(exit) if exit.by_guest() => {
                    let title = format!("the guest went away: {}", exit.reason.unwrap_or_default());
                    Outcome::Crash(Crash { step: step_name, title, splat: None, code: Vec::new() })
                }
                error => Outcome::Error(format!(
                    "{}{error}",
                    step.map(|step| format!("{step}: ")).unwrap_or_default()
                )),
            },
        })
    }

    fn timeout(&self, step: Option<&str>, found: String) -> Timeout {
        let case = self.limits.case(self.steps.scenario.timeout.map(|timeout| timeout.0));
        match step.filter(|_| self.step_deadline < self.deadline) {
            Some(step) => {
                let own = self.steps.scenario.steps.value.iter().enumerate();
                let own =
                    own.map(|(index, of)| (step_name(index, &of.value), of)).find(|(name, _)| name == step);
                let limit =
                    self.limits.step(own.and_then(|(_, of)| of.value.timeout.map(|timeout| timeout.0)));
                Timeout { phase: Phase::Step(step.to_owned()), limit, found }
            }
            None => Timeout { phase: Phase::Case, limit: case, found },
        }
    }

    /// What the kernel says is wrong with itself: what was expected of it and did not come, and what nobody expected.
    fn trouble(&mut self) -> Result<(Vec<Mismatch>, Option<Crash>), StepError> {
        self.guest().sync(Port::Log)?;
        let before = self.guest().hello().map_or(0, |hello| hello.tainted);
        // Without CONFIG_PROC_SYSCTL there is nothing to read, and nothing to hold against the kernel.
        let after = match self.read_text("/proc/sys/kernel/tainted")? {
            Ok(text) => {
                text.trim().parse().map_err(|_| StepError::Host(format!("no taint: `{}`", text.trim())))?
            }
            Err(_) => before,
        };
        let expect = self.steps.scenario.expect.as_deref();
        let splats = self.session.guest().streams().splats();
        let trouble = check_trouble(expect, splats, TaintSet::from_bits(after & !before));
        let splat = trouble.unexpected_splats.first().and_then(|&index| splats.get(index));
        let crash = match splat {
            Some(splat) => Some(Crash::of(None, splat)),
            None if trouble.unexpected_taints.is_empty() => None,
            None => {
                let taints = trouble.unexpected_taints.iter();
                let words: Vec<_> =
                    taints.map(|taint| format!("{} ({})", taint.letter(), taint.meaning())).collect();
                let title = format!("the kernel got tainted: {}", words.join(", "));
                Some(Crash { step: None, title, splat: None, code: Vec::new() })
            }
        };
        Ok((trouble.missing, crash))
    }

    /// Reads a file of the guest as text, or gives the errno.
    pub(super) fn read_text(&mut self, path: &str) -> Result<Result<String, Errno>, StepError> {
        let bytes = self.guest().read_file(path, super::check::FILE_LIMIT)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// The results that a program printed. What it quotes of the kernel log, timestamps and all, is none of its own.
fn printed(stdout: &str) -> KtapReport {
    let mut reader = KtapReader::default();
    let own = stdout.lines().filter(|line| ConsoleLine::parse(line).time.is_none());
    own.for_each(|line| reader.push_line(line));
    reader.finish()
}

/// What reports call a step.
pub(super) fn step_name(index: usize, step: &Step) -> String {
    let what = step.name.clone().unwrap_or_else(|| step.action.to_string());
    format!("step {} ({what})", index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_log_in_a_programs_output_is_no_result_of_the_program() {
        let names = |report: KtapReport| report.tests.into_iter().map(|test| test.name).collect::<Vec<_>>();
        let dmesg = "[    1.000000] KTAP version 1\n[    1.000000] 1..1\n[    1.000000] not ok 1 boot\n";
        assert_eq!(names(printed(dmesg)), [""; 0]);
        assert_eq!(names(printed(&format!("TAP version 13\n1..1\n{dmesg}ok 1 own\n"))), ["own"]);
    }
}
