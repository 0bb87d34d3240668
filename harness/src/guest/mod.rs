//! The guest's userland: its initramfs, and the protocol that its agent speaks.

pub mod agent;
mod capture;
pub mod errno;
pub mod initramfs;
mod ops;
mod outbox;
pub mod proto;
mod session;
pub mod signal;
mod streams;

pub use capture::Capture;
pub use errno::Errno;
pub use ops::{Answer, Covered};
pub use session::{Error, Finished, Guest, RequestId};
pub use signal::Signal;
pub use streams::Streams;

/// A name that stands for no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{name}`{}", nearest.map_or_else(String::new, |near| format!("\ndid you mean `{near}`?")))]
pub struct UnknownName {
    /// What it was to be the name of.
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// The known name most like it, if any is much like it.
    pub nearest: Option<&'static str>,
}

fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    known
        .map(|known| (strsim::damerau_levenshtein(&name, known), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}
