//! The kernel's functions by their addresses, as `/proc/kallsyms` lists them.

use std::cell::Cell;

/// How many addresses are remembered with what they are in.
const RECENT: usize = 1024;

/// Functions, sorted by where they begin.
#[derive(Debug)]
pub(super) struct Functions {
    /// Where each begins, and where its name does in `names`.
    starts: Vec<(u64, u32)>,
    /// `function`, or `function [module]`, each ended by a newline.
    names: String,
    /// Addresses that were asked for lately, each at a place of its lowest bits: most have been asked for before.
    recent: Vec<Cell<(u64, u32)>>,
}

impl Default for Functions {
    fn default() -> Self {
        Functions::parse(b"")
    }
}

impl Functions {
    /// Reads the list. Absolute symbols are no functions (`A` and `a`: offsets of per-cpu variables).
    pub(super) fn parse(list: &[u8]) -> Self {
        let mut names = String::new();
        let mut starts = Vec::new();
        for line in String::from_utf8_lossy(list).lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            // A name with a dollar is the assembler's mark of what follows: `$a`, `$d`.
            if kind.eq_ignore_ascii_case("a") || name.starts_with('$') {
                continue;
            }
            let Ok(at) = u32::try_from(names.len()) else { break };
            starts.push((address, at));
            names.push_str(name);
            if let Some(module) = words.next() {
                names.push(' ');
                names.push_str(module);
            }
            names.push('\n');
        }
        // Of several names for one place the first in the list stays the first.
        starts.sort_by_key(|(address, _)| *address);
        starts.dedup_by_key(|(address, _)| *address);
        Functions { starts, names, recent: vec![Cell::new((0, u32::MAX)); RECENT] }
    }

    /// The function that an address is in: the last that begins before it or there. Where the last of all ends nobody knows, so
    /// that what is behind its beginning has no name.
    pub(super) fn name(&self, address: u64) -> Option<&str> {
        let slot = self.recent.get((address ^ (address >> 10)) as usize % RECENT)?;
        let (known, at) = slot.get();
        let at = if known == address && at != u32::MAX {
            at
        } else {
            let after = self.starts.partition_point(|(start, _)| *start <= address);
            let (start, at) = *self.starts.get(after.checked_sub(1)?)?;
            if after == self.starts.len() && start != address {
                return None;
            }
            slot.set((address, at));
            at
        };
        let name = self.names.get(at as usize..)?;
        name.get(..memchr::memchr(b'\n', name.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_function_before_it() {
        let list = b"0000000000000100 A per_cpu\nc0000200 t second\nc0000100 T first\nc0000100 T alias\n\
                     c0000180 t $d\nbroken\nc0000300 t mine\t[mod]\n";
        let functions = Functions::parse(list);
        for _ in 0..2 {
            assert_eq!(functions.name(0xc000_0100), Some("first"));
            assert_eq!(functions.name(0xc000_01ff), Some("first"));
            assert_eq!(functions.name(0xc000_0200), Some("second"));
            assert_eq!(functions.name(0xc000_0300), Some("mine [mod]"));
            assert_eq!(functions.name(0xc000_0301), None);
            assert_eq!(functions.name(0xc000_00ff), None);
        }
        assert_eq!(Functions::default().name(1), None);
    }
}
