//! The codec of the agent's protocol; `images/agent/PROTOCOL.md` describes it.
//!
//! Pure: values to bytes, bytes to values. What comes from the guest is hostile: every length is bounded before
//! anything is allocated for it, and whatever is wrong is a [`Malformed`].

mod decode;
mod encode;
mod reply;
mod request;

pub use decode::{Decoder, Malformed};
pub use encode::TooLong;
pub use reply::{Ending, Entry, FileKind, Hello, Reply};
pub use request::{Condition, Request, Run, WriteMode};

/// The version spoken here.
pub const VERSION: u32 = 1;

/// The greatest length of a frame, as its first field says it: kind, id and payload.
pub const FRAME_LIMIT: usize = 1 << 20;

/// The most bytes of [`Request::WriteFile`]'s `data` and of [`Run::stdin`] that surely fit, with 64 KiB for the rest.
pub const DATA_LIMIT: usize = FRAME_LIMIT - 64 * 1024;

/// One of the agent's output ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Port {
    /// `kmodlab.log`
    Log = 0,
    /// `kmodlab.trace`
    Trace = 1,
}

/// The line that each Hello leaves in the log and trace ports, right after its reply. [`Reply::Synced`] counts from
/// behind it, and what a restored guest's ports carry before it is from before the snapshot. No record of `/dev/kmsg` can begin like it.
pub fn mark(hello: u32) -> Vec<u8> {
    format!("\x1ekmodlab-agent: hello {hello}\n").into_bytes()
}

#[cfg(test)]
mod tests;
