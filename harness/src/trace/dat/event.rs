//! Records of the events that a ledger is made of, by the formats that the file has of them.

use super::bytes::Order;
use crate::trace::format::{EventFormat, FormatField};

/// Where a field is in a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    at: usize,
    size: usize,
    kind: FieldKind,
}

#[derive(Debug, Clone, Copy)]
enum FieldKind {
    /// A number, or text of a fixed length.
    Plain,
    /// Where text is in the record, and its length: 16 bits each, the length in the higher ones.
    Located,
    /// The same, counted from the end of the field (since Linux 5.17).
    LocatedBehind,
}

impl Field {
    fn new(field: &FormatField) -> Self {
        let kind = if field.type_name.starts_with("__data_loc") {
            FieldKind::Located
        } else if field.type_name.starts_with("__rel_loc") {
            FieldKind::LocatedBehind
        } else {
            FieldKind::Plain
        };
        Field { at: field.offset as usize, size: field.size as usize, kind }
    }

    pub(super) fn number(&self, record: &[u8], order: Order) -> Option<u64> {
        order.number(record, self.at, self.size)
    }

    pub(super) fn int(&self, record: &[u8], order: Order) -> Option<i32> {
        (self.size == 4).then(|| order.u32(record, self.at).map(u32::cast_signed))?
    }

    /// Text up to its NUL, as far as it is UTF-8.
    pub(super) fn text<'r>(&self, record: &'r [u8], order: Order) -> Option<&'r str> {
        let bytes = match self.kind {
            FieldKind::Plain => record.get(self.at..)?.get(..self.size)?,
            located => {
                let place = order.u32(record, self.at)?;
                let base = if matches!(located, FieldKind::LocatedBehind) { self.at + self.size } else { 0 };
                record.get(base + (place & 0xffff) as usize..)?.get(..(place >> 16) as usize)?
            }
        };
        let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
        let bytes = bytes.get(..end)?;
        Some(match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
        })
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }
}

/// What a record is.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// `module_load`
    Load { name: Field },
    /// `module_free`
    Free { name: Field },
    /// `module_get`
    Get { name: Field, ip: Field, refcnt: Field },
    /// `module_put`
    Put { name: Field, ip: Field, refcnt: Field },
    /// `module_request`
    Request { name: Field, ip: Field, wait: Field },
    /// `kernel_stack`: the functions' addresses, of which there are as many as `size` says, where it does.
    Stack { size: Option<Field>, callers: Field },
    /// `user_stack`, which stands between an event and its kernel stack.
    UserStack,
}

/// Shapes by the numbers of their events.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// For each number the place of its shape in `known`, from 1; 0 for all others.
    numbers: Vec<u8>,
    known: Vec<Shape>,
    common_type: Option<Field>,
    common_pid: Option<Field>,
}

impl Shapes {
    /// Takes a format file of a group. Those that are not needed, or cannot be read, are passed over: then their events are.
    pub(super) fn add(&mut self, group: &str, file: &[u8]) {
        let Ok(file) = std::str::from_utf8(file) else { return };
        // Most files are of other events; their names stand at the beginning.
        let name =
            file.lines().next().and_then(|line| line.strip_prefix("name: ")).unwrap_or("").trim_ascii();
        let wanted = matches!((group, name), ("module", _) | ("ftrace", "kernel_stack" | "user_stack"));
        if !wanted {
            return;
        }
        let Ok(format) = EventFormat::parse(file) else { return };
        let field = |name: &str| format.fields.iter().find(|field| field.name == name).map(Field::new);
        let shape = || {
            Some(match name {
                "module_load" => Shape::Load { name: field("name")? },
                "module_free" => Shape::Free { name: field("name")? },
                "module_get" => {
                    Shape::Get { name: field("name")?, ip: field("ip")?, refcnt: field("refcnt")? }
                }
                "module_put" => {
                    Shape::Put { name: field("name")?, ip: field("ip")?, refcnt: field("refcnt")? }
                }
                "module_request" => {
                    Shape::Request { name: field("name")?, ip: field("ip")?, wait: field("wait")? }
                }
                "kernel_stack" => Shape::Stack { size: field("size"), callers: field("caller")? },
                "user_stack" => Shape::UserStack,
                _ => return None,
            })
        };
        let (Some(shape), Ok(number)) = (shape(), usize::try_from(format.id)) else { return };
        if number > usize::from(u16::MAX) || self.known.len() >= usize::from(u8::MAX) {
            return;
        }
        self.common_type = self.common_type.or_else(|| field("common_type"));
        self.common_pid = self.common_pid.or_else(|| field("common_pid"));
        self.known.push(shape);
        self.numbers.resize(self.numbers.len().max(number + 1), 0);
        if let Some(place) = self.numbers.get_mut(number) {
            *place = u8::try_from(self.known.len()).unwrap_or(0);
        }
    }

    /// Whose record it is, and what it is, if that is of interest.
    pub(super) fn of(&self, record: &[u8], order: Order) -> Option<(i32, Option<&Shape>)> {
        let number = self.common_type.as_ref()?.number(record, order)?;
        let pid = self.common_pid.as_ref()?.int(record, order)?;
        let place = usize::try_from(number).ok().and_then(|number| self.numbers.get(number)).copied();
        let shape = place.and_then(|place| self.known.get(usize::from(place).checked_sub(1)?));
        Some((pid, shape))
    }
}
