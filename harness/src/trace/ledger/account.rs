//! One module's account: its references, and which of them a put gives back.

use compact_str::CompactString;

use super::Move;
use super::class::Class;
use super::report::{Certainty, CountAt, Note, Returned};
use super::symbols::Symbols;
use super::timeline::Timeline;

/// A module that holds nothing has this raw count (MODULE_REF_BASE in the kernel's `kernel/module/main.c`).
const BASE: i64 = 1;
/// A count is read a moment after it changed, when each other cpu may have changed it once more. What differs from the
/// account by more, or for so many events on end, is no such race.
const RACE: u32 = 16;
/// References beyond this many are counted only.
const MAX_REFERENCES: usize = 1 << 16;
/// Puts without a get beyond this many are counted only.
const MAX_EXCESS: usize = 16;

/// What concerns all modules.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    /// Whether its counts are those of single cpus.
    pub(super) per_cpu: bool,
    /// The gaps in the trace so far.
    pub(super) gaps: u64,
    /// How many cpus there are, at least.
    pub(super) cpus: u32,
}

/// A reference that is out.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) taken: Move,
    pub(super) certainty: Certainty,
    pub(super) dependent: Option<CompactString>,
}

/// One module's account.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) loaded: Option<bool>,
    pub(super) loads: u64,
    /// Whether the reference that loading takes, untraced, is out.
    pub(super) initial: bool,
    pub(super) held: Vec<Held>,
    pub(super) unseen: i64,
    pub(super) returned: Returned,
    pub(super) notes: Vec<Note>,
    pub(super) excess: usize,
    /// Whether the account was brought in line with a count at least once, or began with the load.
    anchored: bool,
    /// The last count less what the account says; and since when it is off to one side.
    drift: Drift,
    /// How many of the trace's gaps the account knows of.
    gaps: u64,
    /// Whether a gap may hide what became of references that were out then; until the module is free of all.
    blurred: bool,
    timeline: Timeline,
}

#[derive(Debug, Default)]
struct Drift {
    last: i64,
    /// The least that it was off by, in so many events on end.
    least: i64,
    events: u32,
}

/// How well a reference fits a put. The order is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The chains say otherwise.
    Not,
    /// Nothing speaks against it.
    Possible,
    /// The same task took it, in a way that is not known.
    SameTask,
    /// The chains match.
    SameClass,
    /// The chains match, and the same task took it.
    Both,
    /// It was taken for the very module that gives it back.
    SameDependent,
}

impl Account {
    /// The module was loaded: its account begins anew.
    pub(super) fn load(&mut self, kernel: &Kernel) {
        self.clear();
        *self = Account {
            loaded: Some(true),
            loads: self.loads + 1,
            initial: true,
            anchored: true,
            gaps: kernel.gaps,
            returned: self.returned,
            notes: std::mem::take(&mut self.notes),
            timeline: std::mem::take(&mut self.timeline),
            ..Account::default()
        };
    }

    /// The module is gone.
    pub(super) fn free(&mut self, kernel: &Kernel, time: &str) {
        self.catch_up(kernel);
        self.clear();
        self.initial = false;
        self.unseen = 0;
        self.loaded = Some(false);
        self.anchored = true;
        self.drift = Drift::default();
        self.timeline.push(time, 0);
    }

    /// Something goes on with the module. If it was gone, its load was not seen, and its count begins anew.
    fn touch(&mut self, kernel: &Kernel) {
        self.catch_up(kernel);
        if self.loaded == Some(false) {
            self.loaded = Some(true);
            self.anchored = false;
        }
    }

    /// A reference was taken; `refcnt` is the raw count after it.
    pub(super) fn get(&mut self, taken: Move, refcnt: i64, kernel: &mut Kernel) {
        self.touch(kernel);
        // The base and this very reference would make more.
        kernel.per_cpu |= refcnt < 0 || refcnt <= BASE && self.unseen >= 0 && !self.blurred;
        self.mark(&taken.time, refcnt, 1, kernel);
        if self.held.len() < MAX_REFERENCES {
            self.held.push(Held { taken, certainty: Certainty::Exact, dependent: None });
        } else {
            self.unseen += 1;
            self.note(Note::TooMany);
        }
        self.observe(refcnt, kernel);
    }

    /// A reference was given back; `refcnt` is the raw count after it. `freed` is the module on whose removal it was, if
    /// that is known.
    pub(super) fn put(
        &mut self,
        given: Move,
        refcnt: i64,
        freed: Option<&str>,
        kernel: &mut Kernel,
        symbols: &Symbols,
    ) {
        self.touch(kernel);
        self.mark(&given.time, refcnt, -1, kernel);
        if self.initial && given.frames.first().is_some_and(|site| symbols.is_module_init(*site)) {
            self.initial = false;
            self.returned.unseen += 1;
            // Where this was the only one, old kernels, which count from 0, are at 0 now.
            kernel.per_cpu |= refcnt == 0 && self.expected() == BASE && !self.blurred;
        } else {
            self.give_back(given, refcnt, freed, kernel, symbols);
        }
        kernel.per_cpu |= refcnt < 0;
        self.observe(refcnt, kernel);
    }

    /// Notes for every outstanding dependency that `pid` took that it was for `module`.
    pub(super) fn name_dependent(&mut self, pid: i32, module: &str) {
        let nameless = self.held.iter_mut().filter(|held| {
            held.taken.class == Class::Dependency && held.taken.pid == pid && held.dependent.is_none()
        });
        nameless.for_each(|held| held.dependent = Some(module.into()));
    }

    /// Ends the account: what the last count says beyond what was seen is taken for what it is. Gives the use count and
    /// the timeline.
    pub(super) fn close(&mut self, kernel: &Kernel) -> (Option<i64>, Vec<CountAt>) {
        self.catch_up(kernel);
        if !kernel.per_cpu {
            self.correct(self.drift.last);
        }
        let known = self.anchored && !(kernel.per_cpu && self.loads == 0);
        let use_count = (known && self.loaded != Some(false)).then(|| self.expected() - BASE);
        (use_count, std::mem::take(&mut self.timeline).finish())
    }

    /// The raw count that the account amounts to.
    fn expected(&self) -> i64 {
        let held = i64::try_from(self.held.len()).unwrap_or(i64::MAX / 2);
        BASE + i64::from(self.initial) + held + self.unseen
    }

    fn give_back(
        &mut self,
        given: Move,
        refcnt: i64,
        freed: Option<&str>,
        kernel: &Kernel,
        symbols: &Symbols,
    ) {
        let (mut best, mut possible, mut alike) = (None, 0_i64, true);
        for (index, held) in self.held.iter().enumerate() {
            let fit = held.fit(&given, freed);
            possible += i64::from(fit > Fit::Not);
            // What takes and gives back in one function, as can_create() does beside the socket's own reference, means its own.
            let fit = (fit, held.taken.frames.first() == given.frames.first());
            if best.is_none_or(|(best, _)| fit >= best) {
                best = Some((fit, index));
            }
        }
        let best = best.map(|((fit, _), index)| (fit, index));
        if let Some((_, index)) = best
            && let Some(best) = self.held.get(index)
        {
            alike = self
                .held
                .iter()
                .filter(|held| held.fit(&given, freed) > Fit::Not)
                .all(|held| held.is_like(best));
        }
        let fit = best.map_or(Fit::Not, |(fit, _)| fit);
        if self.unseen > 0 && fit < Fit::Both {
            self.unseen -= 1;
            self.returned.unseen += 1;
            self.doubt(&given, freed, Certainty::Likely);
            return;
        }
        let Some((fit, index)) = best else {
            self.excess(given, refcnt, kernel, symbols);
            return;
        };
        let certainty = match fit {
            _ if self.unseen < 0 => Certainty::Unknown,
            Fit::Not => Certainty::Unknown,
            _ if self.unseen == 0 && !self.blurred && (possible == 1 || alike) => Certainty::Exact,
            Fit::Both | Fit::SameDependent => Certainty::Likely,
            Fit::Possible | Fit::SameTask | Fit::SameClass => Certainty::Unknown,
        };
        let taken = self.held.remove(index);
        // A doubtful reference stays in doubt.
        let certainty = certainty.min(taken.certainty);
        match certainty {
            Certainty::Exact => self.returned.exact += 1,
            Certainty::Likely => self.returned.likely += 1,
            Certainty::Unknown => self.returned.unknown += 1,
        }
        if fit == Fit::Not {
            self.held.iter_mut().for_each(|held| held.certainty = certainty);
        } else if certainty < Certainty::Exact {
            self.doubt(&given, freed, certainty);
        }
    }

    /// What could have been given back in place of what was chosen is no surer than the choice.
    fn doubt(&mut self, given: &Move, freed: Option<&str>, certainty: Certainty) {
        for held in &mut self.held {
            if held.fit(given, freed) > Fit::Not {
                held.certainty = held.certainty.min(certainty);
            }
        }
    }

    /// A put with nothing to give back.
    fn excess(&mut self, given: Move, refcnt: i64, kernel: &Kernel, symbols: &Symbols) {
        if !self.anchored || kernel.per_cpu && self.loads == 0 {
            // Taken before the trace.
            self.returned.unseen += 1;
            return;
        }
        if !kernel.per_cpu && refcnt > 0 && refcnt >= self.expected() {
            // The count knows of a reference that the account does not.
            self.returned.unseen += 1;
            self.note(Note::TakenUnseen { references: 1 });
            return;
        }
        self.unseen -= 1;
        self.excess += 1;
        if self.excess <= MAX_EXCESS {
            self.notes.push(Note::PutWithoutGet {
                task: given.task(),
                time: given.timestamp(),
                chain: symbols.chain(&given.frames),
            });
        }
    }

    /// Compares the account with the count.
    fn observe(&mut self, refcnt: i64, kernel: &Kernel) {
        if kernel.per_cpu {
            self.drift = Drift::default();
            return;
        }
        let off = refcnt.saturating_sub(self.expected());
        if !self.anchored {
            self.anchored = true;
            self.unseen = self.unseen.saturating_add(off);
            if off > 0 {
                self.note(Note::StartedLate { references: off });
            }
            return;
        }
        if refcnt == 0 && off > 0 {
            // The kernel does not count below zero.
            self.unseen += off;
            self.put_below_zero();
            self.drift = Drift::default();
            return;
        }
        if refcnt == BASE && off == 0 && !self.initial {
            self.blurred = false;
        }
        self.drift.observe(off);
        if self.drift.events >= RACE {
            self.correct(self.drift.least);
        } else if off.unsigned_abs() >= u64::from(kernel.cpus) {
            self.correct(off);
        }
    }

    /// Takes it that the account is off by so much.
    fn correct(&mut self, off: i64) {
        self.drift = Drift::default();
        if off == 0 {
            return;
        }
        self.unseen = self.unseen.saturating_add(off);
        if off > 0 {
            self.note(Note::TakenUnseen { references: off });
        } else {
            self.note(Note::ReturnedUnseen { references: -off });
        }
        if self.expected() == BASE && !self.held.is_empty() {
            self.returned.unknown += self.held.len() as u64;
            self.held.clear();
            self.unseen = 0;
        } else if self.unseen < 0 {
            self.held.iter_mut().for_each(|held| held.certainty = Certainty::Unknown);
        }
    }

    /// Learns of gaps in the trace since the last event. Whatever is out may have been given back there, and another
    /// taken.
    fn catch_up(&mut self, kernel: &Kernel) {
        if self.gaps != kernel.gaps {
            self.gaps = kernel.gaps;
            self.held.iter_mut().for_each(|held| held.certainty = held.certainty.min(Certainty::Likely));
            self.blurred = true;
            // The next count that differs does so for good.
            self.drift.events = RACE;
        }
    }

    /// The module is gone or anew, and with it all references.
    fn clear(&mut self) {
        let left = self.expected() - BASE - i64::from(self.initial);
        if left != 0 && self.drift.last != -left {
            self.note(Note::RemovedWhileHeld { references: left });
        }
        self.held.clear();
    }

    fn put_below_zero(&mut self) {
        for note in &mut self.notes {
            if let Note::PutBelowZero { times } = note {
                *times += 1;
                return;
            }
        }
        self.notes.push(Note::PutBelowZero { times: 1 });
    }

    /// Adds to a note of the same kind, if there is one.
    fn note(&mut self, new: Note) {
        for note in &mut self.notes {
            match (note, &new) {
                (Note::TakenUnseen { references }, Note::TakenUnseen { references: more })
                | (Note::ReturnedUnseen { references }, Note::ReturnedUnseen { references: more })
                | (Note::RemovedWhileHeld { references }, Note::RemovedWhileHeld { references: more })
                | (Note::StartedLate { references }, Note::StartedLate { references: more }) => {
                    *references = references.saturating_add(*more);
                    return;
                }
                (Note::TooMany, Note::TooMany) => return,
                _ => {}
            }
        }
        self.notes.push(new);
    }

    fn mark(&mut self, time: &str, refcnt: i64, change: i64, kernel: &Kernel) {
        let count = if kernel.per_cpu { self.expected() + change } else { refcnt };
        self.timeline.push(time, count.saturating_sub(BASE));
    }
}

impl Drift {
    fn observe(&mut self, off: i64) {
        let same_side = off.signum() == self.last.signum();
        self.last = off;
        if off == 0 {
            self.events = 0;
        } else if self.events >= RACE {
            self.least = off;
        } else if same_side {
            self.events += 1;
            self.least = if off > 0 { self.least.min(off) } else { self.least.max(off) };
        } else {
            self.events = 1;
            self.least = off;
        }
    }
}

impl Held {
    fn fit(&self, given: &Move, freed: Option<&str>) -> Fit {
        let taken = &self.taken;
        if !taken.class.may_pair(given.class) {
            return Fit::Not;
        }
        if let (Class::Dependency, Some(freed), Some(dependent)) = (taken.class, freed, &self.dependent) {
            return if **dependent == *freed { Fit::SameDependent } else { Fit::Not };
        }
        match (taken.class == given.class, taken.pid == given.pid) {
            (true, true) => Fit::Both,
            (true, false) => Fit::SameClass,
            (false, true) => Fit::SameTask,
            (false, false) => Fit::Possible,
        }
    }

    /// Whether it makes no difference which of the two is out.
    fn is_like(&self, other: &Held) -> bool {
        self.taken.pid == other.taken.pid
            && self.taken.frames == other.taken.frames
            && self.dependent == other.dependent
            && self.certainty == other.certainty
    }
}
