//! Numbers and strings out of bytes whose order and sizes the file says.

use std::io;

use super::Error;

/// A file, or bytes that were one, to be read at any place.
pub trait ReadAt {
    /// Reads some bytes at an offset; 0 at the end.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(length)
    }
}

/// The order of bytes in numbers, and the size of the kernel's `long`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) big: bool,
    pub(super) long: usize,
}

impl Order {
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    pub(super) fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    pub(super) fn u64(self, bytes: &[u8], at: usize) -> Option<u64> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if self.big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    /// A number of 1, 2, 4 or 8 bytes.
    pub(super) fn number(self, bytes: &[u8], at: usize, size: usize) -> Option<u64> {
        match size {
            1 => bytes.get(at).copied().map(u64::from),
            2 => self.u16(bytes, at).map(u64::from),
            4 => self.u32(bytes, at).map(u64::from),
            8 => self.u64(bytes, at),
            _ => None,
        }
    }
}

/// How many bytes are asked for at a time, so that a length which the file does not have takes no memory.
const STEP: usize = 1 << 16;

/// Reads on from a place.
pub(super) struct Cursor<'s> {
    source: &'s mut dyn ReadAt,
    pub(super) at: u64,
    order: Order,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(source: &'s mut dyn ReadAt, at: u64, order: Order) -> Self {
        Cursor { source, at, order }
    }

    /// The next `length` bytes, of which there may be `limit`.
    pub(super) fn take(&mut self, length: u64, limit: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.take_into(&mut bytes, length, limit)?;
        Ok(bytes)
    }

    /// The same, in place of what `bytes` had.
    pub(super) fn take_into(&mut self, bytes: &mut Vec<u8>, length: u64, limit: usize) -> Result<(), Error> {
        let wanted = usize::try_from(length).ok().filter(|length| *length <= limit);
        let wanted = wanted.ok_or(Error::TooLong { at: self.at, length })?;
        bytes.truncate(wanted);
        let mut known = 0;
        while known < wanted {
            let end = (known + STEP).min(wanted);
            bytes.resize(end.max(bytes.len()), 0);
            let read = self.source.read_at(self.at, bytes.get_mut(known..end).unwrap_or_default())?;
            if read == 0 {
                return Err(Error::Cut { at: self.at });
            }
            known += read;
            self.at += read as u64;
        }
        Ok(())
    }

    pub(super) fn u16(&mut self) -> Result<u16, Error> {
        let bytes = self.take(2, 2)?;
        self.order.u16(&bytes, 0).ok_or(Error::Cut { at: self.at })
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        let bytes = self.take(4, 4)?;
        self.order.u32(&bytes, 0).ok_or(Error::Cut { at: self.at })
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        let bytes = self.take(8, 8)?;
        self.order.u64(&bytes, 0).ok_or(Error::Cut { at: self.at })
    }

    /// A string up to its NUL, which is passed over.
    pub(super) fn string(&mut self) -> Result<String, Error> {
        const LONGEST: usize = 256;
        let mut bytes = [0; LONGEST];
        let mut known = 0;
        loop {
            let read =
                self.source.read_at(self.at + known as u64, bytes.get_mut(known..).unwrap_or_default())?;
            known += read;
            let seen = bytes.get(..known).unwrap_or_default();
            if let Some(end) = memchr::memchr(0, seen) {
                self.at += end as u64 + 1;
                return Ok(String::from_utf8_lossy(seen.get(..end).unwrap_or_default()).into_owned());
            }
            if known == LONGEST {
                return Err(Error::TooLong { at: self.at, length: LONGEST as u64 });
            }
            if read == 0 {
                return Err(Error::Cut { at: self.at });
            }
        }
    }

    /// Passes over what must be there.
    pub(super) fn expect(&mut self, what: &str) -> Result<(), Error> {
        let at = self.at;
        let found = self.take(what.len() as u64, what.len())?;
        if found == what.as_bytes() { Ok(()) } else { Err(Error::Malformed { what: "a heading", at }) }
    }
}
