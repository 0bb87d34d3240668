//! Bytes to replies.

use std::time::Duration;

use super::{Ending, Entry, FRAME_LIMIT, FileKind, Hello, Reply, VERSION};
use crate::guest::{Errno, Signal};

/// Kind and id, which every frame has.
const LEAST: usize = 5;

/// Bytes from the guest that are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame's length is out of bounds.
    #[error("frame of {0} bytes")]
    Length(u32),
    /// There is no reply of that number.
    #[error("unknown reply {0}")]
    Kind(u8),
    /// A field reaches over the frame's end.
    #[error("frame too short for reply {0}")]
    Short(u8),
    /// The frame goes on behind the last field.
    #[error("frame too long for reply {0}")]
    Long(u8),
    /// The agent speaks another version.
    #[error("agent speaks protocol version {0}, not {VERSION}")]
    Version(u32),
}

/// Takes the guest's bytes as they come and gives replies.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where in `bytes` the next frame begins.
    at: usize,
    failed: Option<Malformed>,
}

impl Decoder {
    /// A decoder at the start of the stream.
    pub fn new() -> Self {
        Decoder::default()
    }

    /// Adds bytes. Call [`Decoder::next`] until it has no more before adding others: what is buffered then is less than
    /// one frame.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.bytes.drain(..self.at);
            self.at = 0;
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The next whole reply with the id of its request, or `None` until there are more bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`], and ever after the same: there is no telling where the next frame begins.
    #[allow(clippy::should_implement_trait, reason = "an iterator's end is final, this one's is not")]
    pub fn next(&mut self) -> Result<Option<(u32, Reply)>, Malformed> {
        let result = match self.failed {
            Some(malformed) => Err(malformed),
            None => self.decode(),
        };
        if let Err(malformed) = result {
            *self = Decoder { failed: Some(malformed), ..Decoder::default() };
        }
        result
    }

    fn decode(&mut self) -> Result<Option<(u32, Reply)>, Malformed> {
        let bytes = self.bytes.get(self.at..).unwrap_or_default();
        let Some((field, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let field = u32::from_le_bytes(*field);
        let length = usize::try_from(field).unwrap_or(usize::MAX);
        if !(LEAST..=FRAME_LIMIT).contains(&length) {
            return Err(Malformed::Length(field));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let Some((&kind, rest)) = frame.split_first() else { return Err(Malformed::Length(field)) };
        let mut payload = Payload { kind, rest };
        let id = payload.u32()?;
        let reply = payload.reply()?;
        if !payload.rest.is_empty() {
            return Err(Malformed::Long(kind));
        }
        self.at += 4 + length;
        Ok(Some((id, reply)))
    }
}

/// What is left of a frame.
struct Payload<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl Payload<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short(self.kind))?;
        self.rest = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Any number but 0 is true.
    fn bool(&mut self) -> Result<bool, Malformed> {
        self.u8().map(|value| value != 0)
    }

    fn errno(&mut self) -> Result<Errno, Malformed> {
        self.u32().map(Errno)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Short(self.kind))?;
        self.rest = rest;
        Ok(bytes.to_vec())
    }

    fn text(&mut self) -> Result<String, Malformed> {
        self.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn reply(&mut self) -> Result<Reply, Malformed> {
        Ok(match self.kind {
            129 => Reply::Hello(self.hello()?),
            130 => Reply::Started { pid: self.u32()? },
            131 => Reply::Stdout(self.bytes()?),
            132 => Reply::Stderr(self.bytes()?),
            133 => Reply::Exit { ending: self.ending()?, timed_out: self.bool()? },
            134 => Reply::Data(self.bytes()?),
            135 => Reply::Entries(self.entries()?),
            136 => Reply::Done { errno: self.errno()?, count: self.u64()?, end: self.bool()? },
            137 => Reply::Waited { errno: self.errno()?, content: self.bytes()? },
            138 => Reply::Synced { bytes: self.u64()?, drained: self.bool()? },
            139 => Reply::Error(self.text()?),
            140 => Reply::Taken { bytes: self.u32()? },
            kind => return Err(Malformed::Kind(kind)),
        })
    }

    fn hello(&mut self) -> Result<Hello, Malformed> {
        let version = self.u32()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        Ok(Hello {
            release: self.text()?,
            machine: self.text()?,
            big_endian: self.bool()?,
            word_bits: self.u8()?,
            uptime: Duration::from_nanos(self.u64()?),
            tainted: self.u64()?,
            tracing: self.text()?,
            clock: self.errno()?,
            entropy: self.errno()?,
        })
    }

    fn ending(&mut self) -> Result<Ending, Malformed> {
        let signalled = self.bool()?;
        let number = self.u32()?;
        Ok(if signalled { Ending::Signalled(Signal(number)) } else { Ending::Exited(number) })
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Malformed> {
        // The count is only believed as far as the frame bears it out.
        (0..self.u32()?).map(|_| self.entry()).collect()
    }

    fn entry(&mut self) -> Result<Entry, Malformed> {
        Ok(Entry {
            name: self.bytes()?,
            kind: FileKind::from_letter(self.u8()?),
            size: self.u64()?,
            permissions: self.u32()?,
        })
    }
}

impl FileKind {
    /// The letters are those of `find -type`, and `f` for a regular file.
    fn from_letter(letter: u8) -> FileKind {
        match letter {
            b'f' => FileKind::File,
            b'd' => FileKind::Directory,
            b'l' => FileKind::Link,
            b'c' => FileKind::CharacterDevice,
            b'b' => FileKind::BlockDevice,
            b'p' => FileKind::Fifo,
            b's' => FileKind::Socket,
            _ => FileKind::Other,
        }
    }
}
