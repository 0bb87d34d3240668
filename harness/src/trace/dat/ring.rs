//! The pages of a cpu's ring buffer, as the kernel's `kernel/trace/ring_buffer.c` fills them.

use std::ops::Range;

use super::Error;
use super::bytes::{Cursor, Order, ReadAt};
use super::unpack::Algorithm;

/// RINGBUF_TYPE_PADDING, RINGBUF_TYPE_TIME_EXTEND, RINGBUF_TYPE_TIME_STAMP (`include/linux/ring_buffer.h`).
const PADDING: u32 = 29;
const TIME_EXTEND: u32 = 30;
const TIME_STAMP: u32 = 31;
/// The bits of an event's head that are its time since the one before.
const TIME_BITS: u32 = 27;
/// RB_MISSED_EVENTS, RB_MISSED_STORED: events were lost before the page; how many stands behind its data.
const MISSED: u64 = 1 << 31;
const MISSED_STORED: u64 = 1 << 30;
/// The rest of those bits is how much of the page is used.
const COMMIT: u64 = (1 << 27) - 1;
/// An absolute time has no more bits; the others are those of the time before (`TS_MSB`).
const TIME_MSB: u64 = 0xf8 << 56;

/// Where things are on a page (`events/header_page`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The size of a page, in bytes.
    pub(super) page: usize,
    pub(super) commit: usize,
    pub(super) commit_size: usize,
    pub(super) data: usize,
}

/// Where a cpu's pages are in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) cpu: u32,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) algorithm: Algorithm,
}

/// An event of a ring.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) time: u64,
    /// Its record, in [`Ring::record`]'s bytes.
    record: Range<usize>,
}

/// One cpu's events, the oldest first.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) cpu: u32,
    order: Order,
    layout: Layout,
    algorithm: Algorithm,
    /// What is still to be read of the file: from here, so many bytes, or so many chunks.
    next: u64,
    left: u64,
    limit: usize,
    block: Vec<u8>,
    /// Where in the block the next page begins.
    page: usize,
    /// The part of the page that has events not read yet.
    events: Range<usize>,
    time: u64,
    /// The event that is next.
    pub(super) head: Option<Head>,
    /// Events were lost before that, and how many.
    pub(super) lost: Option<Option<u64>>,
}

impl Ring {
    /// Starts to read; no block may take more than `limit` bytes.
    pub(super) fn open(
        source: &mut dyn ReadAt,
        place: Place,
        layout: Layout,
        order: Order,
        limit: usize,
    ) -> Result<Self, Error> {
        let (mut next, mut left) = (place.offset, place.size);
        if place.algorithm != Algorithm::None && left > 0 {
            let mut cursor = Cursor::new(source, next, order);
            left = cursor.u32()?.into();
            next = cursor.at;
        }
        let mut ring = Ring {
            cpu: place.cpu,
            order,
            layout,
            algorithm: place.algorithm,
            next,
            left,
            limit,
            block: Vec::new(),
            page: 0,
            events: 0..0,
            time: 0,
            head: None,
            lost: None,
        };
        ring.advance(source)?;
        Ok(ring)
    }

    /// The bytes of an event's record.
    pub(super) fn record(&self, head: &Head) -> &[u8] {
        self.block.get(head.record.clone()).unwrap_or_default()
    }

    /// Goes on to the next event.
    pub(super) fn advance(&mut self, source: &mut dyn ReadAt) -> Result<(), Error> {
        self.head = loop {
            if let Some(head) = self.event() {
                break Some(head);
            }
            if !self.turn(source)? {
                break None;
            }
        };
        Ok(())
    }

    /// The next event of the page. What is damaged ends the page, as a gap.
    fn event(&mut self) -> Option<Head> {
        loop {
            let at = self.events.start;
            if at >= self.events.end {
                return None;
            }
            let page = self.block.get(..self.events.end)?;
            let Some((length, data)) = head(page, at, self.order, &mut self.time) else {
                self.lost.get_or_insert(None);
                self.events = 0..0;
                return None;
            };
            self.events.start = length;
            if let Some(record) = data {
                return Some(Head { time: self.time, record });
            }
        }
    }

    /// Turns to the next page; false if there is none.
    fn turn(&mut self, source: &mut dyn ReadAt) -> Result<bool, Error> {
        if self.page >= self.block.len() && !self.fill(source)? {
            return Ok(false);
        }
        let start = self.page;
        let end = (start + self.layout.page).min(self.block.len());
        self.page = end;
        self.events = 0..0;
        let page = self.block.get(start..end).unwrap_or_default();
        let (Some(time), Some(commit)) =
            (self.order.u64(page, 0), self.order.number(page, self.layout.commit, self.layout.commit_size))
        else {
            return Ok(true);
        };
        let used = self.layout.data + (commit & COMMIT) as usize;
        if commit & MISSED != 0 {
            let stored =
                (commit & MISSED_STORED != 0).then(|| self.order.number(page, used, self.order.long));
            self.lost = Some(stored.flatten());
        }
        if used > page.len() {
            self.lost.get_or_insert(None);
        }
        self.time = time;
        self.events = start + self.layout.data..(start + used).min(end);
        Ok(true)
    }

    /// Reads some pages, or decompresses the next chunk of them; false at the end.
    fn fill(&mut self, source: &mut dyn ReadAt) -> Result<bool, Error> {
        if self.left == 0 {
            return Ok(false);
        }
        let mut cursor = Cursor::new(source, self.next, self.order);
        if self.algorithm == Algorithm::None {
            let some = self.layout.page.max((1 << 16) / self.layout.page * self.layout.page) as u64;
            cursor.take_into(&mut self.block, self.left.min(some), self.limit)?;
            self.left -= self.block.len() as u64;
        } else {
            let (packed, length) = (cursor.u32()?, cursor.u32()?);
            let at = cursor.at;
            let length = usize::try_from(length).ok().filter(|length| *length <= self.limit);
            let length = length.ok_or(Error::Malformed { what: "the size of a chunk", at })?;
            let bytes = cursor.take(packed.into(), self.limit)?;
            self.block = self.algorithm.unpack(&bytes, length, at)?;
            self.left -= 1;
        }
        self.next = cursor.at;
        self.page = 0;
        Ok(true)
    }
}

/// Reads the head of the event at `at`: where the next one begins, and this one's record, if it has one.
fn head(page: &[u8], at: usize, order: Order, time: &mut u64) -> Option<(usize, Option<Range<usize>>)> {
    let head = order.u32(page, at)?;
    let (kind, delta) =
        if order.big { (head >> TIME_BITS, head & ((1 << TIME_BITS) - 1)) } else { (head & 0x1f, head >> 5) };
    let after = at + 4;
    let delta = u64::from(delta);
    let (start, length) = match kind {
        // Nothing more on this page.
        PADDING if delta == 0 => return Some((page.len(), None)),
        PADDING => {
            let length = order.u32(page, after)? as usize;
            *time = time.wrapping_add(delta);
            return (length >= 4).then_some((after + length, None));
        }
        TIME_EXTEND | TIME_STAMP => {
            let value = (u64::from(order.u32(page, after)?) << TIME_BITS).wrapping_add(delta);
            *time = if kind == TIME_STAMP { value | *time & TIME_MSB } else { time.wrapping_add(value) };
            return Some((after + 4, None));
        }
        // The length stands behind the head, and counts itself.
        0 => (after + 4, (order.u32(page, after)? as usize).checked_sub(4)?),
        words => (after, words as usize * 4),
    };
    *time = time.wrapping_add(delta);
    let end = start.checked_add(length)?;
    let next = start.checked_add(length.checked_next_multiple_of(4)?)?;
    (end <= page.len()).then_some((next, Some(start..end)))
}
