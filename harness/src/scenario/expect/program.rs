//! Expectations of a program that has ended.

use super::text::excerpt;
use super::{Expect, Mismatch};
use crate::guest::Signal;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exit(i64),
    /// By this signal.
    Signal(Signal),
}

/// A program that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program<'a> {
    /// How.
    pub end: End,
    /// What it wrote to its standard output.
    pub stdout: &'a str,
    /// What it wrote to its standard error.
    pub stderr: &'a str,
}

impl Program<'_> {
    /// What the program does not meet. If it `must_succeed`, as those of `run` and `wait-exit`, it must have exited
    /// with 0 unless the expectations have another end.
    pub fn check(&self, expect: Option<&Expect>, must_succeed: bool) -> Vec<Mismatch> {
        let mut mismatches: Vec<_> = self.check_end(expect, must_succeed).into_iter().collect();
        let streams = expect.map(|expect| {
            [("stdout", expect.stdout.as_ref(), self.stdout), ("stderr", expect.stderr.as_ref(), self.stderr)]
        });
        for (name, wanted, text) in streams.into_iter().flatten() {
            let mismatch = wanted.and_then(|wanted| wanted.check(text).err());
            mismatches.extend(mismatch.map(|mismatch| mismatch.within(name)));
        }
        mismatches
    }

    fn check_end(&self, expect: Option<&Expect>, must_succeed: bool) -> Option<Mismatch> {
        let exit = expect.and_then(|expect| expect.exit.as_ref());
        let signal = expect.and_then(|expect| expect.signal.as_ref());
        let (what, expected, met) = match (exit, signal, &self.end) {
            (Some(exit), _, End::Exit(status)) => ("exit", exit.to_string(), exit.matches(*status)),
            (Some(exit), _, End::Signal(_)) => ("exit", exit.to_string(), false),
            (None, Some(signal), End::Signal(found)) => ("signal", signal.to_string(), signal.0 == *found),
            (None, Some(signal), End::Exit(_)) => ("signal", signal.to_string(), false),
            (None, None, end) => ("exit", "0".to_owned(), !must_succeed || *end == End::Exit(0)),
        };
        if met {
            return None;
        }
        let found = match &self.end {
            End::Exit(status) => format!("exit status {status}"),
            End::Signal(signal) => format!("the end by {signal}"),
        };
        // Why it failed is mostly there.
        let found = match self.stderr.trim().is_empty() {
            true => found,
            false => format!("{found}, and on stderr\n{}", excerpt(self.stderr)),
        };
        Some(Mismatch::new(what, expected, found))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", End::Exit(0), "")]
    #[case("", End::Exit(2), "exit: expected 0\nfound:\n  exit status 2, and on stderr\n  `oh`")]
    #[case("exit: 1..3", End::Exit(2), "")]
    #[case(
        "exit: 0",
        End::Signal(Signal::KILL),
        "exit: expected 0\nfound:\n  the end by SIGKILL, and on stderr\n  `oh`"
    )]
    #[case("signal: KILL", End::Signal(Signal::KILL), "")]
    #[case(
        "signal: KILL",
        End::Exit(137),
        "signal: expected SIGKILL\nfound:\n  exit status 137, and on stderr\n  `oh`"
    )]
    #[case("stdout: { contains: ou }\nstderr: no", End::Exit(0), "stderr: expected `no`\nfound `oh`")]
    fn programs_are_checked(#[case] expect: &str, #[case] end: End, #[case] expected: &str) {
        let expect: Option<Expect> = (!expect.is_empty()).then(|| crate::yaml::from_str(expect).unwrap());
        let program = Program { end, stdout: "out\n", stderr: "oh\n" };
        let mismatches: Vec<_> =
            program.check(expect.as_ref(), true).iter().map(ToString::to_string).collect();
        assert_eq!(mismatches.join("\n"), expected);
    }

    #[test]
    fn a_program_that_was_stopped_may_end_as_it_likes() {
        let program = Program { end: End::Signal(Signal::TERM), stdout: "", stderr: "" };
        assert_eq!(program.check(None, false), []);
    }
}
