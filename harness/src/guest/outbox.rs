//! Requests on their way to the agent.
//!
//! A port of virtio-serial takes bytes when the guest does. A serial line does not: what the kernel cannot buffer is lost,
//! and some drivers drop certain bytes. There the agent says how many bytes it has taken, the host has no more than a
//! window of them under way, and some bytes are written as two.

use super::agent::Transport;

/// Announces a byte that is written with [`FLIP`] turned over.
const ESCAPE: u8 = 0x1b;
/// What is turned over.
const FLIP: u8 = 0x40;

/// Whether a byte cannot be written as it is: a NUL that follows a carriage return is dropped by the driver of pseries'
/// terminals (the kernel's `drivers/tty/hvc/hvc_vio.c`, `hvterm_raw_get_chars`).
fn is_special(byte: u8) -> bool {
    byte == ESCAPE || byte == b'\r'
}

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// How many may be sent; `None` where nobody counts.
    credit: Option<u32>,
}

impl Outbox {
    /// An empty one. Over a serial line nothing is sent before the agent asks for it.
    pub(super) fn new(transport: Transport) -> Self {
        Outbox { bytes: Vec::new(), credit: (transport == Transport::Serial).then_some(0) }
    }

    /// Adds a frame.
    pub(super) fn push(&mut self, frame: &[u8]) {
        if self.credit.is_none() {
            self.bytes.extend_from_slice(frame);
            return;
        }
        for &byte in frame {
            match is_special(byte) {
                true => self.bytes.extend([ESCAPE, byte ^ FLIP]),
                false => self.bytes.push(byte),
            }
        }
    }

    /// The agent has taken so many bytes.
    pub(super) fn taken(&mut self, count: u32) {
        // A guest's number: it can only allow too much, to its own loss.
        self.credit = self.credit.map(|credit| credit.saturating_add(count));
    }

    /// What can be sent now.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let Some(credit) = &mut self.credit else { return std::mem::take(&mut self.bytes) };
        let count = self.bytes.len().min(usize::try_from(*credit).unwrap_or(usize::MAX));
        *credit -= u32::try_from(count).unwrap_or(*credit);
        self.bytes.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_sent_than_the_agent_has_asked_for() {
        let mut outbox = Outbox::new(Transport::Serial);
        outbox.push(b"abcdef");
        assert_eq!(outbox.take(), b"");
        outbox.taken(4);
        assert_eq!((outbox.take(), outbox.take()), (b"abcd".to_vec(), Vec::new()));
        outbox.taken(u32::MAX);
        outbox.taken(u32::MAX);
        assert_eq!(outbox.take(), b"ef");
    }

    #[test]
    fn special_bytes_are_written_as_two_on_lines_only() {
        let mut line = Outbox::new(Transport::Serial);
        line.taken(100);
        line.push(b"\r\0a\x1b\n");
        assert_eq!(line.take(), [ESCAPE, b'\r' ^ FLIP, 0, b'a', ESCAPE, ESCAPE ^ FLIP, b'\n']);
        let mut port = Outbox::new(Transport::Virtio);
        port.push(b"\r\0\x1b");
        assert_eq!(port.take(), b"\r\0\x1b");
    }
}
