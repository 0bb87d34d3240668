//! The accounts of all modules, and what goes on between them.

use std::collections::{BTreeMap, VecDeque};

use compact_str::CompactString;

use super::account::{Account, Kernel};
use super::class::Class;
use super::report::{ModuleLedger, Note, Reference, Request, Task};
use super::symbols::{Symbol, Symbols};
use super::{Folder, Kind, Move, Traced};
use crate::trace::text::Lost;

/// A kernel has some hundred modules; a log that names more than this is no kernel's.
const MAX_MODULES: usize = 1 << 14;
/// How many requests, removals and dependencies are remembered until an event takes them up.
const MAX_RECENT: usize = 64;

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// The module, if only one is of interest.
    filter: Option<String>,
    accounts: BTreeMap<CompactString, Entry>,
    kernel: Kernel,
    lost_events: u64,
    /// Requests that no load has followed yet, the oldest first.
    requests: VecDeque<(CompactString, Request)>,
    /// Who took a reference on which module for one that is being loaded.
    dependencies: VecDeque<(i32, CompactString)>,
    /// Who removed which module, the last last: its dependencies are given back next.
    removals: VecDeque<(i32, CompactString)>,
}

#[derive(Debug, Default)]
struct Entry {
    account: Account,
    loaded_by: Option<Task>,
    requested_by: Vec<Request>,
}

impl Books {
    pub(super) fn new(filter: Option<&str>) -> Self {
        Books { filter: filter.map(plain_name), ..Books::default() }
    }

    /// Enters an event.
    pub(super) fn enter(&mut self, traced: Traced, symbols: &mut Symbols) {
        let Traced { kind, step, cpus } = traced;
        self.kernel.cpus = self.kernel.cpus.max(cpus);
        match kind {
            Kind::Load { module } => self.load(&module, &step),
            Kind::Free { module } => self.free(&module, &step),
            Kind::Get { module, call_site, refcnt } => {
                let taken = settle(step, call_site, symbols);
                if taken.class == Class::Dependency {
                    remember(&mut self.dependencies, (taken.pid, module.clone()));
                }
                if let Some((entry, kernel)) = self.entry(&module) {
                    entry.account.get(taken, refcnt, kernel);
                }
            }
            Kind::Put { module, call_site, refcnt } => {
                let given = settle(step, call_site, symbols);
                let freed = (given.class == Class::Dependency).then(|| self.removed_by(given.pid)).flatten();
                if let Some((entry, kernel)) = self.entry(&module) {
                    entry.account.put(given, refcnt, freed.as_deref(), kernel, symbols);
                }
            }
            Kind::Request { module, call_site } => {
                let call_site = symbols.chain(&[call_site]).pop().unwrap_or_default();
                let request = Request { task: step.task(), time: step.timestamp(), call_site };
                remember(&mut self.requests, (plain_name(&module).into(), request));
            }
            Kind::Lost(lost) => self.lost(lost),
        }
    }

    /// Notes a gap.
    pub(super) fn lost(&mut self, lost: Lost) {
        self.kernel.gaps += 1;
        self.lost_events = self.lost_events.saturating_add(lost.count.unwrap_or(0));
    }

    /// Ends all accounts.
    pub(super) fn close(&mut self, folder: &Folder) -> Vec<ModuleLedger> {
        let mut trace_notes = Vec::new();
        if self.kernel.gaps > 0 {
            trace_notes.push(Note::Lost { events: self.lost_events, gaps: self.kernel.gaps });
        }
        if folder.overwritten > 0 {
            trace_notes.push(Note::Overwritten { events: folder.overwritten });
        }
        if folder.unreadable > 0 {
            trace_notes.push(Note::Unreadable { lines: folder.unreadable });
        }
        if self.kernel.per_cpu {
            trace_notes.push(Note::PerCpuCounts);
        }
        let accounts = std::mem::take(&mut self.accounts);
        let kernel = &self.kernel;
        accounts
            .into_iter()
            .map(|(name, entry)| close(&name, entry, kernel, &trace_notes, &folder.symbols))
            .collect()
    }

    fn load(&mut self, module: &str, step: &Move) {
        let mut dependencies = std::mem::take(&mut self.dependencies);
        dependencies.retain(|(pid, on)| {
            if *pid == step.pid
                && let Some((entry, _)) = self.entry(on)
            {
                entry.account.name_dependent(*pid, module);
            }
            *pid != step.pid
        });
        self.dependencies = dependencies;
        let name = plain_name(module);
        let (requested, others) =
            std::mem::take(&mut self.requests).into_iter().partition(|(asked, _)| **asked == *name);
        self.requests = others;
        if let Some((entry, kernel)) = self.entry(module) {
            entry.account.load(kernel);
            entry.loaded_by = Some(step.task());
            let requested: VecDeque<(CompactString, Request)> = requested;
            entry.requested_by = requested.into_iter().map(|(_, request)| request).collect();
        }
    }

    fn free(&mut self, module: &str, step: &Move) {
        remember(&mut self.removals, (step.pid, module.into()));
        if let Some((entry, kernel)) = self.entry(module) {
            entry.account.free(kernel, &step.time);
        }
    }

    fn removed_by(&self, pid: i32) -> Option<CompactString> {
        self.removals.iter().rev().find(|(by, _)| *by == pid).map(|(_, module)| module.clone())
    }

    /// The account of a module, if it is of interest.
    fn entry(&mut self, module: &str) -> Option<(&mut Entry, &mut Kernel)> {
        if self.filter.as_ref().is_some_and(|filter| filter != module) {
            return None;
        }
        if !self.accounts.contains_key(module) {
            if self.accounts.len() >= MAX_MODULES {
                return None;
            }
            self.accounts.insert(module.into(), Entry::default());
        }
        Some((self.accounts.get_mut(module)?, &mut self.kernel))
    }
}

/// Cuts the machinery of tracing and counting off a chain, puts the call site before it if the stack leaves it out (on arm
/// it begins some functions later), and finds its class.
fn settle(mut step: Move, call_site: Symbol, symbols: &Symbols) -> Move {
    let machinery = step.frames.iter().take_while(|frame| symbols.is_machinery(**frame)).count();
    step.frames.drain(..machinery);
    match step.frames.first_mut() {
        // The call site says the module as well.
        Some(first) if symbols.is_same_function(*first, call_site) => *first = call_site,
        Some(_) if symbols.is_machinery(call_site) => {}
        _ => step.frames.insert(0, call_site),
    }
    step.class = symbols.class(&step.frames);
    step
}

fn close(name: &str, entry: Entry, kernel: &Kernel, trace_notes: &[Note], symbols: &Symbols) -> ModuleLedger {
    let Entry { mut account, loaded_by, requested_by } = entry;
    let (use_count, timeline) = account.close(kernel);
    let outstanding: Vec<Reference> = std::mem::take(&mut account.held)
        .into_iter()
        .map(|held| Reference {
            taken_by: held.taken.task(),
            time: held.taken.timestamp(),
            chain: symbols.chain(&held.taken.frames),
            dependent: held.dependent.map(String::from),
            certainty: held.certainty,
        })
        .collect();
    let mut notes = std::mem::take(&mut account.notes);
    notes.extend_from_slice(trace_notes);
    if outstanding.iter().any(|reference| reference.chain.len() < 2) {
        notes.push(Note::NoStacks);
    }
    ModuleLedger {
        name: name.to_owned(),
        loaded: account.loaded,
        use_count,
        unseen: account.unseen + i64::from(account.initial),
        outstanding,
        returned: account.returned,
        loads: account.loads,
        loaded_by,
        requested_by,
        timeline,
        notes,
    }
}

/// The kernel takes `-` and `_` in modules' names for the same.
fn plain_name(name: &str) -> String {
    name.replace('-', "_")
}

fn remember<T>(recent: &mut VecDeque<T>, what: T) {
    if recent.len() >= MAX_RECENT {
        recent.pop_front();
    }
    recent.push_back(what);
}
