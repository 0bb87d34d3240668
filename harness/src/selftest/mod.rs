//! The kernel's own tests, as cases.

pub mod ftrace;
