//! The functions that chains consist of, each kept once.

use std::collections::HashMap;

use super::class::{self, Class};

/// No kernel has more functions. What comes beyond is one function without a name.
const MAX_SYMBOLS: usize = 1 << 19;

/// How many entries are looked for before the table of all.
const RECENT: usize = 1024;

/// A function by its number.
pub(super) type Symbol = u32;

/// The functions that were met.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    numbers: HashMap<Box<str>, Symbol>,
    known: Vec<Known>,
    /// Entries met lately, as they stood, each where [`slot`] says: most stacks have been seen before.
    recent: Vec<Option<(Box<str>, Symbol)>>,
}

#[derive(Debug)]
struct Known {
    name: Box<str>,
    class: Option<Class>,
    is_machinery: bool,
    is_module_init: bool,
}

impl Symbols {
    /// The number of a function, named as in a stack or a call site: with an offset, an address or a module after it, which
    /// but for the module are left out.
    pub(super) fn number(&mut self, entry: &str) -> Symbol {
        let slot = slot(entry);
        if let Some(Some((known, number))) = self.recent.get(slot)
            && **known == *entry
        {
            return *number;
        }
        let number = self.look_up(name(entry));
        self.recent.resize_with(RECENT, || None);
        if let Some(place) = self.recent.get_mut(slot) {
            *place = Some((entry.into(), number));
        }
        number
    }

    fn look_up(&mut self, name: &str) -> Symbol {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name = if self.known.len() < MAX_SYMBOLS { name } else { "" };
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = Symbol::try_from(self.known.len()).unwrap_or(Symbol::MAX);
        let function = class::plain(name.split(' ').next().unwrap_or(name));
        self.known.push(Known {
            name: name.into(),
            class: class::of_function(function),
            is_machinery: class::is_machinery(function),
            is_module_init: class::is_module_init(function),
        });
        self.numbers.insert(name.into(), number);
        number
    }

    /// Whether the function's put ends the reference that loading takes.
    pub(super) fn is_module_init(&self, symbol: Symbol) -> bool {
        self.get(symbol).is_some_and(|known| known.is_module_init)
    }

    /// Whether it is part of the tracing or of the counting.
    pub(super) fn is_machinery(&self, symbol: Symbol) -> bool {
        self.get(symbol).is_some_and(|known| known.is_machinery)
    }

    /// Whether both name the same function, one perhaps with its module.
    pub(super) fn is_same_function(&self, one: Symbol, other: Symbol) -> bool {
        let function = |symbol| Some(class::plain(self.get(symbol)?.name.split(' ').next()?));
        one == other || function(one) == function(other)
    }

    /// The class of a chain: that of its first function that has one, else its first function itself.
    pub(super) fn class(&self, frames: &[Symbol]) -> Class {
        let known = frames.iter().find_map(|symbol| self.get(*symbol)?.class);
        known.unwrap_or_else(|| Class::Function(frames.first().copied().unwrap_or(Symbol::MAX)))
    }

    /// The names of a chain.
    pub(super) fn chain(&self, frames: &[Symbol]) -> Vec<String> {
        frames.iter().filter_map(|symbol| Some(self.get(*symbol)?.name.to_string())).collect()
    }

    fn get(&self, symbol: Symbol) -> Option<&Known> {
        self.known.get(symbol as usize)
    }
}

/// A place among the recent entries, by the entry's length and its last bytes.
fn slot(entry: &str) -> usize {
    let end = entry.as_bytes().last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    // Fibonacci hashing: the highest bits depend on all.
    let mixed = (end ^ entry.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - RECENT.ilog2())) as usize
}

/// `func+0x1/0x2 [mod] <ffffffff81000000>` is `func [mod]`; trace-cmd writes `func (ffffffff81000000)`.
fn name(entry: &str) -> &str {
    let end = entry.find(['+', '<', '(']).unwrap_or(entry.len());
    entry.get(..end).unwrap_or(entry).trim_ascii_end()
}
