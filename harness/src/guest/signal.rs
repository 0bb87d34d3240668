//! Signals by name and number.
//!
//! The numbers are those of most architectures (`include/uapi/asm-generic/signal.h`); the agent translates where the
//! guest's differ (alpha, mips, parisc, sparc).

use std::fmt;
use std::str::FromStr;

use super::{UnknownName, nearest};

/// A signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(
    /// The generic number.
    pub u32,
);

impl Signal {
    /// Asks a process to end.
    pub const TERM: Signal = Signal(15);
    /// Ends a process.
    pub const KILL: Signal = Signal(9);
}

/// Every name there is.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.pad(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl FromStr for Signal {
    type Err = UnknownName;

    /// Takes `TERM`, `SIGTERM` or `15`; numbers reach to the last real-time signal, 64.
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let unknown = |nearest| UnknownName { what: "signal", name: name.to_owned(), nearest };
        if let Ok(number) = name.parse() {
            return if (1..=64).contains(&number) { Ok(Signal(number)) } else { Err(unknown(None)) };
        }
        let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
        match NAMES.iter().find(|(known, _)| *known == full) {
            Some((_, number)) => Ok(Signal(*number)),
            None => Err(unknown(nearest(&full, names()))),
        }
    }
}

const NAMES: &[(&str, u32)] = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGCHLD", 17),
    ("SIGCONT", 18),
    ("SIGSTOP", 19),
    ("SIGTSTP", 20),
    ("SIGTTIN", 21),
    ("SIGTTOU", 22),
    ("SIGURG", 23),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGWINCH", 28),
    ("SIGIO", 29),
    ("SIGPWR", 30),
    ("SIGSYS", 31),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_taken() {
        for spelling in ["TERM", "SIGTERM", "15"] {
            assert_eq!(spelling.parse::<Signal>().unwrap(), Signal::TERM);
        }
        assert_eq!(
            (Signal::KILL.to_string(), Signal(40).to_string()),
            ("SIGKILL".into(), "signal 40".into())
        );
    }

    #[test]
    fn others_are_refused_with_the_nearest() {
        assert_eq!("TREM".parse::<Signal>().unwrap_err().nearest, Some("SIGTERM"));
        for wrong in ["0", "65", "-9", "", "SIG"] {
            assert!(wrong.parse::<Signal>().is_err(), "{wrong}");
        }
    }
}
