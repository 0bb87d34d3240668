//! What stands before the events in a file: trace-cmd.dat.v6(5) and trace-cmd.dat.v7(5).

use std::collections::HashMap;

use super::bytes::{Cursor, Order, ReadAt};
use super::event::Shapes;
use super::ring::{Layout, Place};
use super::symbols::Functions;
use super::unpack::Algorithm;
use super::{Error, MAGIC};
use crate::trace::format::FormatField;

/// The most that a section may have, in bytes; the largest is the list of functions, some 10 MB.
const SECTION: usize = 256 << 20;
/// The most that a format file may have, and other short texts.
const TEXT: usize = 4 << 20;
/// The largest page of a ring buffer (`buffer_subbuf_size_kb`; a page of the kernel's before Linux 6.8).
const PAGE: usize = 16 << 20;
/// NR_CPUS is 8192 at most.
const CPUS: usize = 8192;
/// A file has one or two sections of options.
const OPTION_SECTIONS: usize = 64;
/// Tracefs instances.
const BUFFERS: usize = 1024;

/// What the file says before its events.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) order: Order,
    pub(super) shapes: Shapes,
    pub(super) functions: Functions,
    pub(super) comms: HashMap<i32, Box<str>>,
    pub(super) buffers: Vec<Buffer>,
}

/// The events of one tracefs instance.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Its name; empty for the topmost.
    pub(super) name: String,
    /// The trace clock.
    pub(super) clock: String,
    pub(super) layout: Layout,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Rings(Vec<Place>),
    /// Text of the latency format.
    Text(Place),
}

/// What is known once all sections have been read.
struct Reader<'s> {
    source: &'s mut dyn ReadAt,
    algorithm: Algorithm,
    page: usize,
    header: Option<[usize; 3]>,
    clock: Option<String>,
    cpus: usize,
    meta: Meta,
    /// The buffers of the older version, whose clock and cpus an option may say later: names and places.
    instances: Vec<(String, u64)>,
}

/// Reads a file up to its events.
pub(super) fn read(source: &mut dyn ReadAt) -> Result<Meta, Error> {
    let unknown = Order { big: false, long: 8 };
    let mut cursor = Cursor::new(source, 0, unknown);
    match cursor.take(MAGIC.len() as u64, MAGIC.len()) {
        Ok(magic) if magic == MAGIC => {}
        Err(Error::Io(error)) => return Err(Error::Io(error)),
        _ => return Err(Error::NoRecording),
    }
    let version = cursor.string()?;
    let sizes = cursor.take(2, 2)?;
    let (big, long) = (sizes.first() == Some(&1), sizes.get(1).copied().unwrap_or(0));
    let order = Order { big, long: long.into() };
    let at = cursor.at;
    let mut cursor = Cursor::new(source, at, order);
    let page = size(cursor.u32()?.into(), PAGE, at)?;
    let mut at = cursor.at;
    let mut algorithm = Algorithm::None;
    if version == "7" {
        algorithm = Algorithm::named(&cursor.string()?)?;
        let _version = cursor.string()?;
        at = cursor.u64()?;
    } else if version != "6" {
        return Err(Error::Version(version.chars().take(20).collect()));
    }
    let meta = Meta {
        order,
        shapes: Shapes::default(),
        functions: Functions::default(),
        comms: HashMap::new(),
        buffers: Vec::new(),
    };
    let mut reader =
        Reader { source, algorithm, page, header: None, clock: None, cpus: 0, meta, instances: Vec::new() };
    if version == "7" {
        reader.sections(at)?
    } else {
        reader.version_6(at)?
    }
    Ok(reader.meta)
}

impl Reader<'_> {
    fn cursor(&mut self, at: u64) -> Cursor<'_> {
        let order = self.meta.order;
        Cursor::new(self.source, at, order)
    }

    fn version_6(&mut self, at: u64) -> Result<(), Error> {
        let order = self.meta.order;
        let mut cursor = Cursor::new(self.source, at, order);
        self.header = Some(header(&mut cursor, &mut self.meta.order)?);
        ftrace_formats(&mut cursor, &mut self.meta.shapes)?;
        event_formats(&mut cursor, &mut self.meta.shapes)?;
        self.meta.functions = functions(&mut cursor)?;
        let length = cursor.u32()?;
        cursor.at = cursor.at.saturating_add(length.into());
        self.meta.comms = comms(&mut cursor)?;
        self.cpus = size(cursor.u32()?.into(), CPUS, cursor.at)?;
        let at = cursor.at;
        self.kind_of_data(at, "")?;
        for (name, at) in std::mem::take(&mut self.instances) {
            self.kind_of_data(at, &name)?;
        }
        let clock = self.clock.take().unwrap_or_default();
        self.meta.buffers.iter_mut().for_each(|buffer| buffer.clock.clone_from(&clock));
        Ok(())
    }

    /// `options  `, `latency  ` or `flyrecord`, and what follows that.
    fn kind_of_data(&mut self, at: u64, name: &str) -> Result<(), Error> {
        let mut cursor = self.cursor(at);
        let mut kind = cursor.take(10, 10)?;
        let mut at = cursor.at;
        if kind == b"options  \0" {
            at = self.options_6(at)?;
            let mut cursor = self.cursor(at);
            kind = cursor.take(10, 10)?;
            at = cursor.at;
        }
        let content = match kind.as_slice() {
            b"flyrecord\0" => {
                let cpus = u32::try_from(self.cpus).unwrap_or(0);
                let mut cursor = self.cursor(at);
                let mut places = Vec::new();
                for cpu in 0..cpus {
                    let (offset, size) = (cursor.u64()?, cursor.u64()?);
                    places.push(Place { cpu, offset, size, algorithm: Algorithm::None });
                }
                Content::Rings(places)
            }
            b"latency  \0" => {
                Content::Text(Place { cpu: 0, offset: at, size: u64::MAX, algorithm: Algorithm::None })
            }
            _ => return Err(Error::Malformed { what: "the kind of data", at }),
        };
        let page = self.page;
        self.buffer(name.to_owned(), String::new(), page, content, at)
    }

    /// The options of the older version, up to their end.
    fn options_6(&mut self, mut at: u64) -> Result<u64, Error> {
        loop {
            let mut cursor = self.cursor(at);
            let id = cursor.u16()?;
            if id == 0 {
                return Ok(cursor.at);
            }
            let length = cursor.u32()?;
            let data = cursor.take(length.into(), TEXT)?;
            at = cursor.at;
            let order = self.meta.order;
            let mut bytes = data.as_slice();
            let mut option = Cursor::new(&mut bytes, 0, order);
            match id {
                option::BUFFER if self.instances.len() < BUFFERS => {
                    let place = option.u64()?;
                    let name = option.string()?;
                    self.instances.push((name, place));
                }
                option::TRACECLOCK => self.clock = selected_clock(&data),
                option::CPUCOUNT => self.cpus = size(option.u32()?.into(), CPUS, at)?,
                _ => {}
            }
        }
    }

    /// The sections that the options of version 7 lead to.
    fn sections(&mut self, mut at: u64) -> Result<(), Error> {
        let mut options = Vec::new();
        for _ in 0..OPTION_SECTIONS {
            let data = self.section(at)?;
            let order = self.meta.order;
            let mut bytes = data.as_slice();
            let mut cursor = Cursor::new(&mut bytes, 0, order);
            at = loop {
                let id = cursor.u16()?;
                let length = cursor.u32()?;
                let option = cursor.take(length.into(), TEXT)?;
                if id == option::DONE {
                    break order.u64(&option, 0).unwrap_or(0);
                }
                options.push((id, option));
            };
            if at == 0 {
                break;
            }
        }
        // The header says how long the kernel's numbers are.
        options.sort_by_key(|(id, _)| *id != option::HEADER_INFO);
        for (id, data) in options {
            self.option_7(id, &data)?;
        }
        Ok(())
    }

    fn option_7(&mut self, id: u16, data: &[u8]) -> Result<(), Error> {
        let order = self.meta.order;
        let is_section = matches!(
            id,
            option::HEADER_INFO
                | option::FTRACE_EVENTS
                | option::EVENT_FORMATS
                | option::KALLSYMS
                | option::CMDLINES
        );
        let section = if is_section {
            let at = order.u64(data, 0).ok_or(Error::Malformed { what: "an option", at: 0 })?;
            self.section(at)?
        } else {
            Vec::new()
        };
        let mut bytes = section.as_slice();
        let mut cursor = Cursor::new(&mut bytes, 0, order);
        match id {
            option::HEADER_INFO => self.header = Some(header(&mut cursor, &mut self.meta.order)?),
            option::FTRACE_EVENTS => ftrace_formats(&mut cursor, &mut self.meta.shapes)?,
            option::EVENT_FORMATS => event_formats(&mut cursor, &mut self.meta.shapes)?,
            option::KALLSYMS => self.meta.functions = functions(&mut cursor)?,
            option::CMDLINES => self.meta.comms = comms(&mut cursor)?,
            option::BUFFER | option::BUFFER_TEXT => self.buffer_option(id, data)?,
            _ => {}
        }
        Ok(())
    }

    fn buffer_option(&mut self, id: u16, data: &[u8]) -> Result<(), Error> {
        let order = self.meta.order;
        let mut bytes = data;
        let mut option = Cursor::new(&mut bytes, 0, order);
        let (at, name, clock) = (option.u64()?, option.string()?, option.string()?);
        let mut section = Cursor::new(self.source, at, order);
        let (_id, flags, _name, size_here) = (section.u16()?, section.u16()?, section.u32()?, section.u64()?);
        let algorithm = if flags & COMPRESSED != 0 { self.algorithm } else { Algorithm::None };
        if id == option::BUFFER_TEXT {
            let place = Place { cpu: 0, offset: section.at, size: size_here, algorithm };
            let page = self.page;
            return self.buffer(name, clock, page, Content::Text(place), at);
        }
        let page = size(option.u32()?.into(), PAGE, at)?;
        let cpus = size(option.u32()?.into(), CPUS, at)?;
        let mut places = Vec::new();
        for _ in 0..cpus {
            let (cpu, offset, size) = (option.u32()?, option.u64()?, option.u64()?);
            places.push(Place { cpu, offset, size, algorithm });
        }
        self.buffer(name, clock, page, Content::Rings(places), at)
    }

    fn buffer(
        &mut self,
        name: String,
        clock: String,
        page: usize,
        content: Content,
        at: u64,
    ) -> Result<(), Error> {
        let [commit, commit_size, data] =
            self.header.ok_or(Error::Malformed { what: "the header of pages", at })?;
        if page < data || data < 8 || self.meta.buffers.len() >= BUFFERS {
            return Err(Error::Malformed { what: "the size of a page", at });
        }
        let layout = Layout { page, commit, commit_size, data };
        self.meta.buffers.push(Buffer { name, clock, layout, content });
        Ok(())
    }

    /// A section's content, decompressed.
    fn section(&mut self, at: u64) -> Result<Vec<u8>, Error> {
        let algorithm = self.algorithm;
        let mut cursor = self.cursor(at);
        let (_id, flags, _name, size) = (cursor.u16()?, cursor.u16()?, cursor.u32()?, cursor.u64()?);
        if flags & COMPRESSED == 0 {
            return cursor.take(size, SECTION);
        }
        let (packed, length) = (cursor.u32()?, cursor.u32()?);
        let bytes = cursor.take(packed.into(), SECTION)?;
        let length = self::size(length.into(), SECTION, at)?;
        algorithm.unpack(&bytes, length, at)
    }
}

/// A section's flag.
const COMPRESSED: u16 = 1;

/// Numbers of options.
mod option {
    pub(super) const DONE: u16 = 0;
    pub(super) const BUFFER: u16 = 3;
    pub(super) const TRACECLOCK: u16 = 4;
    pub(super) const CPUCOUNT: u16 = 8;
    pub(super) const HEADER_INFO: u16 = 16;
    pub(super) const FTRACE_EVENTS: u16 = 17;
    pub(super) const EVENT_FORMATS: u16 = 18;
    pub(super) const KALLSYMS: u16 = 19;
    pub(super) const CMDLINES: u16 = 21;
    pub(super) const BUFFER_TEXT: u16 = 22;
}

fn size(number: u64, limit: usize, at: u64) -> Result<usize, Error> {
    let size = usize::try_from(number).ok().filter(|size| *size <= limit);
    size.ok_or(Error::TooLong { at, length: number })
}

/// Where a page has its commit, how many bytes that has, and where its data begin. The commit is a `long` of the kernel's,
/// which need not be that of user space.
fn header(cursor: &mut Cursor<'_>, order: &mut Order) -> Result<[usize; 3], Error> {
    cursor.expect("header_page\0")?;
    let at = cursor.at;
    let length = cursor.u64()?;
    let page = cursor.take(length, TEXT)?;
    cursor.expect("header_event\0")?;
    let length = cursor.u64()?;
    cursor.at = cursor.at.saturating_add(length);
    let text = String::from_utf8_lossy(&page);
    let fields: Vec<FormatField> = text.lines().filter_map(|line| FormatField::parse(line.trim())).collect();
    let field = |name: &str| fields.iter().find(|field| field.name == name);
    let (Some(commit), Some(data)) = (field("commit"), field("data")) else {
        return Err(Error::Malformed { what: "the header of pages", at });
    };
    if !matches!(commit.size, 4 | 8) {
        return Err(Error::Malformed { what: "the size of a long", at });
    }
    order.long = commit.size as usize;
    Ok([commit.offset as usize, commit.size as usize, data.offset as usize])
}

fn ftrace_formats(cursor: &mut Cursor<'_>, shapes: &mut Shapes) -> Result<(), Error> {
    for _ in 0..cursor.u32()? {
        let length = cursor.u64()?;
        shapes.add("ftrace", &cursor.take(length, TEXT)?);
    }
    Ok(())
}

fn event_formats(cursor: &mut Cursor<'_>, shapes: &mut Shapes) -> Result<(), Error> {
    for _ in 0..cursor.u32()? {
        let group = cursor.string()?;
        for _ in 0..cursor.u32()? {
            let length = cursor.u64()?;
            shapes.add(&group, &cursor.take(length, TEXT)?);
        }
    }
    Ok(())
}

fn functions(cursor: &mut Cursor<'_>) -> Result<Functions, Error> {
    let length = cursor.u32()?;
    Ok(Functions::parse(&cursor.take(length.into(), SECTION)?))
}

/// Lines of a task's id and name (`saved_cmdlines`).
fn comms(cursor: &mut Cursor<'_>) -> Result<HashMap<i32, Box<str>>, Error> {
    let length = cursor.u64()?;
    let list = cursor.take(length, SECTION)?;
    let list = String::from_utf8_lossy(&list);
    let pairs = list.lines().filter_map(|line| {
        let (pid, comm) = line.split_once(' ')?;
        Some((pid.parse().ok()?, comm.into()))
    });
    Ok(pairs.filter(|(_, comm): &(_, Box<str>)| &**comm != "<...>").collect())
}

/// The clock in brackets in `local [global] counter`.
fn selected_clock(data: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(data);
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}
