//! What kcov says was executed, as lines.
//!
//! A kernel with `CONFIG_KCOV` notes a program counter for each block of code that a task executes
//! (`Documentation/dev-tools/kcov.rst`): the return address of a call that the compiler put there, less the offset of the
//! kernel's random base, of modules' code, too (`kernel/kcov.c`, `canonicalize_ip`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use lcov::Report;
use lcov::report::section::{Key, Value, function, line};

use super::Coverage;
use crate::module::Place;

/// Where the code of modules is in a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout(BTreeMap<u64, Loaded>);

/// A section of a loaded module.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Loaded {
    module: String,
    section: String,
    size: u64,
}

impl Layout {
    /// Adds a section of a module's code.
    pub fn add(&mut self, module: &str, section: &str, start: u64, size: u64) {
        let loaded = Loaded { module: module.to_owned(), section: section.to_owned(), size };
        self.0.insert(start, loaded);
    }

    /// The code of one module.
    pub fn of(&self, module: &str) -> Layout {
        let own = self.0.iter().filter(|(_, loaded)| loaded.module == module);
        Layout(own.map(|(start, loaded)| (*start, loaded.clone())).collect())
    }

    /// Where a module's section begins; `None` where it is not loaded.
    pub fn start(&self, module: &str, section: &str) -> Option<u64> {
        let is = |loaded: &Loaded| loaded.module == module && loaded.section == section;
        self.0.iter().find(|(_, loaded)| is(loaded)).map(|(start, _)| *start)
    }

    /// Takes over another's sections.
    pub fn extend(&mut self, other: Layout) {
        self.0.extend(other.0);
    }

    /// Forgets the code that the kernel throws away once a module is loaded (`kernel/module/main.c`, `do_init_module`).
    pub fn without_init(mut self) -> Self {
        self.0.retain(|_, loaded| !loaded.section.starts_with(".init"));
        self
    }

    fn find(&self, address: u64) -> Option<(&str, Place)> {
        let (start, loaded) = self.0.range(..=address).next_back()?;
        let offset = address - start;
        let place = Place { section: loaded.section.clone(), offset };
        (offset < loaded.size).then_some((loaded.module.as_str(), place))
    }
}

/// What was executed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executed {
    /// Places in modules, by the modules' names.
    modules: BTreeMap<String, BTreeSet<Place>>,
    /// Addresses of what may be the kernel's own code, as it was linked.
    kernel: BTreeSet<u64>,
}

impl Executed {
    /// Adds program counters. `base` is the offset of the kernel's random base; of the layouts the first that has an
    /// address counts.
    pub fn add(&mut self, counters: &[u64], base: u64, layouts: &[&Layout]) {
        for counter in counters {
            // The call is before its return address.
            let linked = counter.wrapping_sub(1);
            let address = linked.wrapping_add(base);
            match layouts.iter().find_map(|layout| layout.find(address)) {
                Some((module, place)) => {
                    self.modules.entry(module.to_owned()).or_default().insert(place);
                }
                None => {
                    self.kernel.insert(linked);
                }
            }
        }
    }

    /// The places of a module.
    pub fn of(&self, module: &str) -> impl Iterator<Item = &Place> {
        self.modules.get(module).into_iter().flatten()
    }

    /// The addresses that are in no module that was known.
    pub fn kernel(&self) -> impl Iterator<Item = u64> {
        self.kernel.iter().copied()
    }
}

/// Lines and functions as they are found.
#[derive(Debug, Default)]
pub struct Lines(BTreeMap<PathBuf, Value>);

impl Lines {
    /// Adds a line of a file. It was executed if any of its code was, and how often is not known.
    pub fn line(&mut self, file: PathBuf, line: u32, executed: bool) {
        let count = &mut self.0.entry(file).or_default().lines.entry(line::Key { line }).or_default().count;
        *count = (*count).max(executed.into());
    }

    /// Adds a function that begins in a line of a file.
    pub fn function(&mut self, file: PathBuf, name: &str, start: u32, executed: bool) {
        let functions = &mut self.0.entry(file).or_default().functions;
        let of = functions.entry(function::Key { name: name.to_owned() }).or_default();
        // A part that was moved out of a function begins within it.
        of.start_line = Some(of.start_line.map_or(start, |line| line.min(start)));
        of.count = of.count.max(executed.into());
    }

    /// What a case executed.
    pub fn of_case(self, case: &str) -> Coverage {
        let mut report = Report::new();
        for (source_file, value) in self.0 {
            report.sections.insert(Key { test_name: String::new(), source_file }, value);
        }
        Coverage::of_case(case, report)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn layout() -> Layout {
        let mut layout = Layout::default();
        layout.add("one", ".text", 0x1000, 0x100);
        layout.add("two", ".text", 0x1100, 0x80);
        layout.add("two", ".init.text", 0x2000, 0x10);
        layout
    }

    fn places(executed: &Executed, module: &str) -> Vec<(String, u64)> {
        executed.of(module).map(|place| (place.section.clone(), place.offset)).collect()
    }

    #[rstest]
    #[case::first(0x1001, "one", Some((".text", 0)))]
    #[case::behind_the_last_call(0x1100, "one", Some((".text", 0xff)))]
    #[case::of_the_next(0x1101, "two", Some((".text", 0)))]
    #[case::behind_the_end(0x1181, "two", None)]
    #[case::init(0x2010, "two", Some((".init.text", 0xf)))]
    #[case::before_all(0x1000, "one", None)]
    #[case::least(0, "one", None)]
    fn a_counter_is_behind_its_place(
        #[case] counter: u64,
        #[case] module: &str,
        #[case] expected: Option<(&str, u64)>,
    ) {
        for base in [0, 0x3500_0000] {
            let mut moved = Layout::default();
            for (start, of) in layout().0 {
                moved.add(&of.module, &of.section, start.wrapping_add(base), of.size);
            }
            let mut executed = Executed::default();
            executed.add(&[counter], base, &[&moved]);
            let expected = expected.map(|(section, offset)| (section.to_owned(), offset));
            assert_eq!(places(&executed, module), Vec::from_iter(expected.clone()));
            let kernel: Vec<u64> = executed.kernel().collect();
            assert_eq!(kernel.is_empty(), expected.is_some(), "{kernel:x?}");
        }
    }

    #[test]
    fn a_module_that_has_come_counts_before_one_that_has_gone() {
        let mut now = Layout::default();
        now.add("three", ".text", 0x1080, 0x40);
        let mut executed = Executed::default();
        executed.add(&[0x1041, 0x1091], 0, &[&now, &layout()]);
        assert_eq!(places(&executed, "one"), [(".text".to_owned(), 0x40)]);
        assert_eq!(places(&executed, "three"), [(".text".to_owned(), 0x10)]);
    }

    #[test]
    fn a_layout_tells_and_forgets_its_parts() {
        let layout = layout();
        assert_eq!(layout.start("two", ".init.text"), Some(0x2000));
        assert_eq!(layout.start("one", ".init.text"), None);
        assert_eq!(layout.of("two").without_init().0.len(), 1);
        let mut both = layout.of("one");
        both.extend(layout.of("two"));
        assert_eq!(both, layout);
    }

    #[test]
    fn a_line_is_executed_once_if_any_of_its_code_was() {
        let mut lines = Lines::default();
        for (line, executed) in [(3, true), (3, false), (4, false), (9, false), (9, true)] {
            lines.line("/mod/mod.c".into(), line, executed);
        }
        lines.line("/mod/idle.h".into(), 1, false);
        lines.function("/mod/mod.c".into(), "called", 3, false);
        lines.function("/mod/mod.c".into(), "called", 2, true);
        lines.function("/mod/mod.c".into(), "idle", 8, false);
        let mut text = Vec::new();
        lines.of_case("a/b").write(&mut text).unwrap();
        let idle = "TN:\nSF:/mod/idle.h\nDA:1,0\nLF:1\nLH:0\nend_of_record\n";
        let touched = "TN:a_b\nSF:/mod/mod.c\nFN:2,called\nFN:8,idle\nFNDA:1,called\nFNDA:0,idle\nFNF:2\nFNH:1\n\
                       DA:3,1\nDA:4,0\nDA:9,1\nLF:3\nLH:2\nend_of_record\n";
        assert_eq!(String::from_utf8(text).unwrap(), format!("{idle}{touched}"));
    }

    proptest! {
        #[test]
        fn each_counter_is_somewhere(
            counters in prop::collection::vec(any::<u64>(), 0..50),
            base in any::<u64>(),
            sections in prop::collection::vec((any::<u64>(), any::<u64>()), 0..8),
        ) {
            let mut layout = Layout::default();
            for (start, size) in sections {
                layout.add("m", ".text", start, size);
            }
            let mut executed = Executed::default();
            executed.add(&counters, base, &[&layout]);
            for counter in counters {
                let in_kernel = executed.kernel().any(|address| address == counter.wrapping_sub(1));
                let in_module = layout.find(counter.wrapping_sub(1).wrapping_add(base)).is_some();
                prop_assert!(in_kernel != in_module);
            }
        }
    }
}
