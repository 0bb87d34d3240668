//! Recordings of `trace-cmd record`: files `trace.dat` of the versions 6 and 7, of any byte order and size of `long`.
//!
//! The format is that of trace-cmd.dat.v6(5) and trace-cmd.dat.v7(5), the pages are those of the kernel's
//! `kernel/trace/ring_buffer.c`. Only what a ledger needs is read: the events of the group `module` and the kernel's
//! stacks, with the tasks' names and the functions' that the file has. Memory is bounded: the lists of those, and for each
//! cpu 64 KiB, or a page or a chunk if that is larger.

mod bytes;
mod event;
mod meta;
mod ring;
mod symbols;
mod unpack;

use std::fmt::Write as _;
use std::io;

pub use bytes::ReadAt;

use self::bytes::Order;
use self::event::Shape;
use self::meta::{Content, Meta};
use self::ring::{Place, Ring};
use self::symbols::Functions;
use self::unpack::Algorithm;
use super::event::ModuleEvent;
use super::text::{Context, Lost};

/// What a recording begins with.
pub const MAGIC: &[u8] = b"\x17\x08\x44tracing";

/// The most that all cpus' pages take in memory at a time, in bytes.
const MEMORY: usize = 1 << 30;

/// Why a recording is not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is no recording of trace-cmd")]
    NoRecording,
    /// It is of a version that is not known.
    #[error("it is of version `{0}` of trace-cmd's files; 6 and 7 are known")]
    Version(String),
    /// It is compressed in a way that is not known.
    #[error("it is compressed with `{0}`; zstd and zlib are known")]
    Compression(String),
    /// It ends too early.
    #[error("it is cut short: more should follow at byte {at}")]
    Cut {
        /// Where.
        at: u64,
    },
    /// It says that something is longer than that can be.
    #[error("it is damaged: {length} is no length, at byte {at}")]
    TooLong {
        /// Where, or in which section.
        at: u64,
        /// The length.
        length: u64,
    },
    /// Something else is wrong with it.
    #[error("it is damaged: {what} cannot be read, at byte {at}")]
    Malformed {
        /// What.
        what: &'static str,
        /// Where, or in which section.
        at: u64,
    },
}

/// A recording.
#[derive(Debug)]
pub struct Recording<S> {
    source: S,
    meta: Meta,
}

/// One thing that was recorded.
#[derive(Debug)]
pub enum Record<'a> {
    /// An event of the group `module`. The context has no flags.
    Module(Context<'a>, ModuleEvent<'a>),
    /// A stack, which belongs to the last event of the same task and cpu.
    Stack {
        /// The cpu.
        cpu: u32,
        /// The task's (thread's) id.
        pid: i32,
        /// Its functions.
        frames: Frames<'a>,
    },
    /// Another event.
    Other {
        /// The cpu.
        cpu: u32,
        /// The task's (thread's) id.
        pid: i32,
    },
    /// Events were lost here.
    Lost(Lost),
    /// A part of a trace that was recorded as text (`trace-cmd` with a latency tracer).
    Text(&'a [u8]),
}

/// The functions of a stack.
#[derive(Debug, Clone, Copy)]
pub struct Frames<'a> {
    addresses: &'a [u8],
    order: Order,
    functions: &'a Functions,
}

impl Frames<'_> {
    /// Hands out the functions, innermost first, as `function` or `function [module]`; one that the file does not know is an
    /// address.
    pub fn each(&self, mut take: impl FnMut(&str)) {
        let mut unknown = String::new();
        for bytes in self.addresses.chunks_exact(self.order.long) {
            match self.order.number(bytes, 0, self.order.long) {
                // A short stack may be filled up.
                None | Some(0) => {}
                Some(u64::MAX) => break,
                Some(end) if self.order.long == 4 && end == u64::from(u32::MAX) => break,
                Some(address) => take(name(self.functions, address, &mut unknown)),
            }
        }
    }
}

fn name<'n>(functions: &'n Functions, address: u64, unknown: &'n mut String) -> &'n str {
    functions.name(address).unwrap_or_else(|| {
        unknown.clear();
        let _ = write!(unknown, "{address:#x}");
        unknown
    })
}

impl<S: ReadAt> Recording<S> {
    /// Reads a recording up to its events.
    ///
    /// # Errors
    ///
    /// It is none, or damaged, or cannot be read.
    pub fn open(mut source: S) -> Result<Self, Error> {
        let meta = meta::read(&mut source)?;
        Ok(Recording { source, meta })
    }

    /// The names of the tracefs instances that were recorded; that of the topmost is empty.
    pub fn buffers(&self) -> impl Iterator<Item = &str> {
        self.meta.buffers.iter().map(|buffer| buffer.name.as_str())
    }

    /// Hands out what was recorded of an instance, which is given by its place among [`Recording::buffers`], in the order
    /// of time. `take` says whether to go on.
    ///
    /// # Errors
    ///
    /// The recording is damaged, or cannot be read. What was handed out before that stands.
    pub fn read(&mut self, buffer: usize, mut take: impl FnMut(Record<'_>) -> bool) -> Result<(), Error> {
        let Recording { source, meta } = self;
        let Some(buffer) = meta.buffers.get(buffer) else { return Ok(()) };
        let places = match &buffer.content {
            Content::Text(place) => return text(source, *place, meta.order, &mut take),
            Content::Rings(places) => places,
        };
        let filled: Vec<_> = places.iter().filter(|place| place.size > 0).collect();
        let limit = MEMORY / filled.len().max(1);
        let mut rings = Vec::new();
        for place in filled {
            rings.push(Ring::open(source, *place, buffer.layout, meta.order, limit)?);
        }
        let mut decoder = Decoder {
            meta,
            counts_time: counts_time(&buffer.clock),
            time: String::new(),
            site: String::new(),
        };
        while let Some((first, until)) = next(&rings) {
            let Some(ring) = rings.get_mut(first) else { break };
            while let Some(head) = ring.head.clone()
                && until.is_none_or(|until| (head.time, first) < until)
            {
                if let Some(count) = ring.lost.take()
                    && !take(Record::Lost(Lost { cpu: ring.cpu, count }))
                {
                    return Ok(());
                }
                if !decoder.decode(ring.cpu, head.time, ring.record(&head), &mut take) {
                    return Ok(());
                }
                ring.advance(source)?;
            }
        }
        // What was lost behind the last event of a cpu.
        for ring in rings {
            if let Some(count) = ring.lost
                && !take(Record::Lost(Lost { cpu: ring.cpu, count }))
            {
                break;
            }
        }
        Ok(())
    }
}

/// The ring whose event is next, and up to when it stays that one.
fn next(rings: &[Ring]) -> Option<(usize, Option<(u64, usize)>)> {
    let (mut first, mut second) = (None, None);
    for (index, ring) in rings.iter().enumerate() {
        let Some(head) = &ring.head else { continue };
        let key = (head.time, index);
        if first.is_none_or(|first| key < first) {
            second = first;
            first = Some(key);
        } else if second.is_none_or(|second| key < second) {
            second = Some(key);
        }
    }
    first.map(|(_, index)| (index, second))
}

/// Whether a trace clock counts nanoseconds; the others count whatever they do (`tracecmd_set_ts_…` leaves them as they are).
fn counts_time(clock: &str) -> bool {
    matches!(clock, "" | "local" | "global" | "uptime" | "perf" | "boot" | "tai") || clock.starts_with("mono")
}

/// Makes records of bytes.
struct Decoder<'m> {
    meta: &'m Meta,
    counts_time: bool,
    time: String,
    site: String,
}

impl Decoder<'_> {
    fn decode(
        &mut self,
        cpu: u32,
        time: u64,
        record: &[u8],
        take: &mut impl FnMut(Record<'_>) -> bool,
    ) -> bool {
        let Decoder { meta, counts_time, time: time_text, site } = self;
        let order = meta.order;
        let Some((pid, shape)) = meta.shapes.of(record, order) else { return true };
        let other = Record::Other { cpu, pid };
        let event = match shape {
            Some(Shape::UserStack) => return true,
            Some(Shape::Stack { size, callers }) => {
                let all = record.get(callers.at()..).unwrap_or_default();
                let count = size.as_ref().and_then(|size| size.number(record, order));
                let length = count.and_then(|count| usize::try_from(count).ok()?.checked_mul(order.long));
                let addresses = length.and_then(|length| all.get(..length)).unwrap_or(all);
                let frames = Frames { addresses, order, functions: &meta.functions };
                return take(Record::Stack { cpu, pid, frames });
            }
            Some(shape) => module_event(shape, record, meta, site),
            None => return take(other),
        };
        // One that cannot be read is still an event of its task's.
        let Some(event) = event else { return take(other) };
        time_text.clear();
        let _ = if *counts_time {
            let micros = time.saturating_add(500) / 1000;
            write!(time_text, "{}.{:06}", micros / 1_000_000, micros % 1_000_000)
        } else {
            write!(time_text, "{time}")
        };
        let comm = if pid == 0 { Some("<idle>") } else { meta.comms.get(&pid).map(|comm| &**comm) };
        take(Record::Module(Context { comm, pid, cpu, flags: "", time: time_text }, event))
    }
}

fn module_event<'r>(
    shape: &Shape,
    record: &'r [u8],
    meta: &'r Meta,
    site: &'r mut String,
) -> Option<ModuleEvent<'r>> {
    let order = meta.order;
    let call_site = match shape {
        Shape::Get { ip, .. } | Shape::Put { ip, .. } | Shape::Request { ip, .. } => {
            name(&meta.functions, ip.number(record, order)?, site)
        }
        _ => "",
    };
    Some(match shape {
        // What taints it is of no interest to a ledger.
        Shape::Load { name } => ModuleEvent::Load { module: name.text(record, order)?, taints: "" },
        Shape::Free { name } => ModuleEvent::Free { module: name.text(record, order)? },
        Shape::Get { name, refcnt, .. } => ModuleEvent::Get {
            module: name.text(record, order)?,
            refcnt: refcnt.int(record, order)?.into(),
            call_site,
        },
        Shape::Put { name, refcnt, .. } => ModuleEvent::Put {
            module: name.text(record, order)?,
            refcnt: refcnt.int(record, order)?.into(),
            call_site,
        },
        Shape::Request { name, wait, .. } => ModuleEvent::Request {
            module: name.text(record, order)?,
            wait: wait.number(record, order)? != 0,
            call_site,
        },
        Shape::Stack { .. } | Shape::UserStack => return None,
    })
}

/// Hands out text, decompressed if need be.
fn text(
    source: &mut impl ReadAt,
    place: Place,
    order: Order,
    take: &mut impl FnMut(Record<'_>) -> bool,
) -> Result<(), Error> {
    let mut cursor = bytes::Cursor::new(source, place.offset, order);
    if place.algorithm == Algorithm::None {
        let (mut at, mut left) = (place.offset, place.size);
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            let some = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = source.read_at(at, buffer.get_mut(..some).unwrap_or_default())?;
            if read == 0 || !take(Record::Text(buffer.get(..read).unwrap_or_default())) {
                break;
            }
            at += read as u64;
            left = left.saturating_sub(read as u64);
        }
        return Ok(());
    }
    for _ in 0..cursor.u32()? {
        let (packed, length) = (cursor.u32()?, cursor.u32()?);
        let at = cursor.at;
        let length = usize::try_from(length).ok().filter(|length| *length <= MEMORY / 16);
        let length = length.ok_or(Error::Malformed { what: "the size of a chunk", at })?;
        let bytes = cursor.take(packed.into(), MEMORY / 16)?;
        if !take(Record::Text(&place.algorithm.unpack(&bytes, length, at)?)) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
