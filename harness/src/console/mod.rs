//! The kernel's log.
pub(crate) mod lines;
