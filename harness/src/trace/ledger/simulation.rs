//! A kernel that counts references and traces them, with the truth beside it.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;

use super::*;

/// What the simulated tasks do.
#[derive(Debug, Clone)]
enum Op {
    Load {
        module: usize,
        task: usize,
        on: Option<usize>,
    },
    InitDone {
        module: usize,
    },
    Open {
        module: usize,
        task: usize,
    },
    /// Closes the file that was opened `which`-th; `by` another task, perhaps.
    Close {
        module: usize,
        which: usize,
        by: Option<usize>,
    },
    /// Takes a reference in a function of its own.
    Take {
        module: usize,
        task: usize,
        function: usize,
    },
    Drop {
        module: usize,
        which: usize,
        by: Option<usize>,
    },
    /// Takes one and gives it back at once.
    Probe {
        module: usize,
        task: usize,
    },
    Unload {
        module: usize,
        task: usize,
    },
    /// Something else is traced.
    Other {
        task: usize,
    },
}

const MODULES: usize = 3;
const TASKS: usize = 4;

fn op() -> impl Strategy<Value = Op> {
    let (module, task) = (0..MODULES, 0..TASKS);
    let by = || prop_oneof![3 => Just(None), 1 => (0..TASKS).prop_map(Some)];
    let m = || module.clone();
    let t = || task.clone();
    prop_oneof![
        2 => (m(), t(), proptest::option::of(m())).prop_map(|(module, task, on)| Op::Load { module, task, on }),
        3 => m().prop_map(|module| Op::InitDone { module }),
        6 => (m(), t()).prop_map(|(module, task)| Op::Open { module, task }),
        6 => (m(), 0..4_usize, by()).prop_map(|(module, which, by)| Op::Close { module, which, by }),
        2 => (m(), t(), 0..2_usize).prop_map(|(module, task, function)| Op::Take { module, task, function }),
        2 => (m(), 0..4_usize, by()).prop_map(|(module, which, by)| Op::Drop { module, which, by }),
        1 => (m(), t()).prop_map(|(module, task)| Op::Probe { module, task }),
        2 => (m(), t()).prop_map(|(module, task)| Op::Unload { module, task }),
        2 => t().prop_map(|task| Op::Other { task }),
    ]
}

/// A reference that is out in truth: who took it, through what.
type True = (i32, Vec<String>);

#[derive(Debug, Default, Clone)]
struct Module {
    loaded: bool,
    initializing: Option<i32>,
    /// With the kind: file, function, dependency of.
    refs: Vec<(Kind, True)>,
    /// The trace's line of its last event, and whether any came.
    last_event: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Function,
    For(usize),
}

impl Module {
    fn raw(&self) -> i64 {
        1 + i64::from(self.initializing.is_some()) + i64::try_from(self.refs.len()).unwrap()
    }
}

/// An event as it will be printed.
#[derive(Debug, Clone)]
struct Line {
    cpu: usize,
    pid: i32,
    module: Option<usize>,
    name: &'static str,
    text: String,
    /// The count, where the event shows it.
    raw: Option<i64>,
    chain: Vec<String>,
}

#[derive(Debug, Default)]
struct Simulation {
    modules: Vec<Module>,
    lines: Vec<Line>,
}

const OPEN: &[&str] = &["misc_open", "chrdev_open", "do_dentry_open", "path_openat"];
const CLOSE: &[&str] = &["__fput", "task_work_run", "exit_to_user_mode_prepare"];

fn strings(chain: &[&str]) -> Vec<String> {
    chain.iter().map(|&function| function.to_owned()).collect()
}

fn pid(task: usize) -> i32 {
    100 + i32::try_from(task).unwrap()
}

impl Simulation {
    fn run(ops: &[Op]) -> Self {
        let mut simulation = Simulation { modules: vec![Module::default(); MODULES], lines: Vec::new() };
        ops.iter().for_each(|op| simulation.step(op));
        simulation
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Load { module, task, on } => self.load(module, pid(task), on),
            Op::InitDone { module } => {
                if let Some(loader) = self.modules[module].initializing.take() {
                    self.counted(module, loader, "module_put", &["do_init_module", "__do_sys_finit_module"]);
                }
            }
            Op::Open { module, task } => self.take(module, pid(task), Kind::File, OPEN),
            Op::Close { module, which, by } => self.give(module, which, by, Kind::File, CLOSE),
            Op::Take { module, task, function } => {
                self.take(
                    module,
                    pid(task),
                    Kind::Function,
                    &[["start_a", "start_b"][function], "do_one_initcall"],
                );
            }
            Op::Drop { module, which, by } => {
                self.give(module, which, by, Kind::Function, &["stop", "ksys_write"])
            }
            Op::Probe { module, task } => {
                let chain = &["register_kprobe", "vfs_write"];
                self.take(module, pid(task), Kind::Function, chain);
                let last = self.modules[module].refs.len().saturating_sub(1);
                if self.modules[module].loaded {
                    self.modules[module].refs.remove(last);
                    self.counted(module, pid(task), "module_put", chain);
                }
            }
            Op::Unload { module, task } => self.unload(module, pid(task)),
            Op::Other { task } => {
                self.line(pid(task), None, "sched_wakeup", "comm=x pid=1".into(), None, &[])
            }
        }
    }

    fn load(&mut self, module: usize, pid: i32, on: Option<usize>) {
        if self.modules[module].loaded {
            return;
        }
        if let Some(on) = on.filter(|on| *on != module && self.modules[*on].loaded) {
            self.take(on, pid, Kind::For(module), &["resolve_symbol", "load_module"]);
        }
        self.modules[module] = Module { loaded: true, initializing: Some(pid), ..Module::default() };
        self.line(pid, Some(module), "module_load", format!("m{module} OE"), None, &[]);
    }

    fn unload(&mut self, module: usize, pid: i32) {
        let it = &mut self.modules[module];
        if !it.loaded || it.initializing.is_some() || !it.refs.is_empty() {
            return;
        }
        it.loaded = false;
        self.line(pid, Some(module), "module_free", format!("m{module}"), None, &[]);
        for on in 0..MODULES {
            while let Some(at) = self.modules[on].refs.iter().position(|(kind, _)| *kind == Kind::For(module))
            {
                self.modules[on].refs.remove(at);
                self.counted(on, pid, "module_put", &["module_unload_free", "free_module"]);
            }
        }
    }

    fn take(&mut self, module: usize, pid: i32, kind: Kind, chain: &[&str]) {
        if self.modules[module].loaded {
            self.modules[module].refs.push((kind, (pid, strings(chain))));
            self.counted(module, pid, "module_get", chain);
        }
    }

    fn give(&mut self, module: usize, which: usize, by: Option<usize>, kind: Kind, chain: &[&str]) {
        let refs = &mut self.modules[module].refs;
        let at = refs.iter().enumerate().filter(|(_, (is, _))| *is == kind).map(|(at, _)| at).nth(which);
        if let Some(at) = at {
            let (_, (taker, _)) = refs.remove(at);
            self.counted(module, by.map_or(taker, pid), "module_put", chain);
        }
    }

    fn counted(&mut self, module: usize, pid: i32, name: &'static str, chain: &[&str]) {
        let raw = self.modules[module].raw();
        let text = format!("m{module} call_site={} refcnt=", chain[0]);
        self.line(pid, Some(module), name, text, Some(raw), chain);
    }

    fn line(
        &mut self,
        pid: i32,
        module: Option<usize>,
        name: &'static str,
        text: String,
        raw: Option<i64>,
        chain: &[&str],
    ) {
        if let Some(module) = module {
            self.modules[module].last_event = Some(self.lines.len());
        }
        let cpu = usize::try_from(pid).unwrap() % 2;
        self.lines.push(Line { cpu, pid, module, name, text, raw, chain: strings(chain) });
    }

    /// Counts are read after the change: where the next change is another cpu's, it may be in the count already. Only what a
    /// get has just taken is not given back before its count is read.
    fn with_races(mut self, races: &[bool]) -> Self {
        for at in 0..self.lines.len().saturating_sub(1) {
            let (now, next) = (&self.lines[at], &self.lines[at + 1]);
            let races = races.get(at % races.len().max(1)).copied().unwrap_or(false);
            if races
                && now.module == next.module
                && now.cpu != next.cpu
                && now.raw.is_some()
                && next.raw.is_some()
            {
                self.lines[at].raw = next.raw;
            }
        }
        self
    }

    /// The trace as the kernel prints it, without the lines that are lost; `stacks` says whose stacks are there.
    fn print(&self, lost: std::ops::Range<usize>, stacks: bool) -> String {
        let mut out = String::from("# tracer: nop\n");
        for (at, line) in self.lines.iter().enumerate() {
            if lost.contains(&at) {
                if at == lost.start && at > 0 {
                    writeln!(out, "CPU:0 [LOST {} EVENTS]", lost.len()).unwrap();
                }
                continue;
            }
            let Line { cpu, pid, name, text, .. } = line;
            let raw = line.raw.map(|raw| raw.to_string()).unwrap_or_default();
            writeln!(
                out,
                "{:>16}-{pid:<7} [{cpu:03}] ..... {:>5}.{:06}: {name}: {text}{raw}",
                "t",
                at / 1000,
                at % 1000
            )
            .unwrap();
            if stacks && line.raw.is_some() {
                writeln!(
                    out,
                    "{:>16}-{pid:<7} [{cpu:03}] ..... {:>5}.{:06}: <stack trace>",
                    "t",
                    at / 1000,
                    at % 1000
                )
                .unwrap();
                writeln!(out, " => trace_event_raw_event_module_refcnt\n => {}", line.chain.join("\n => "))
                    .unwrap();
            }
        }
        out
    }

    /// Whether the ledgers agree with the truth, for the modules whose every event from `from` on is in the trace.
    fn check(&self, ledgers: &[ModuleLedger], from: usize) -> Result<(), TestCaseError> {
        for (number, truth) in self.modules.iter().enumerate() {
            if truth.last_event.is_none_or(|last| last < from) {
                continue;
            }
            let ledger = ledgers.iter().find(|ledger| ledger.name == format!("m{number}"));
            let ledger = ledger.ok_or_else(|| TestCaseError::fail(format!("no ledger of m{number}")))?;
            let held = i64::try_from(ledger.outstanding.len()).unwrap();
            if truth.loaded {
                prop_assert_ne!(ledger.loaded, Some(false));
                if let Some(use_count) = ledger.use_count {
                    prop_assert_eq!(use_count, truth.raw() - 1, "count of m{}: {:#?}", number, ledger);
                    prop_assert_eq!(held + ledger.unseen, use_count, "sum of m{}: {:#?}", number, ledger);
                }
            } else {
                prop_assert_eq!((ledger.loaded, held, ledger.unseen), (Some(false), 0, 0));
            }
            let mut out: BTreeMap<&True, i64> = BTreeMap::new();
            truth.refs.iter().for_each(|(_, reference)| *out.entry(reference).or_default() += 1);
            for reference in
                ledger.outstanding.iter().filter(|reference| reference.certainty == Certainty::Exact)
            {
                // Without stacks a chain is its first function.
                let found = out.iter_mut().find(|((pid, chain), left)| {
                    **left > 0 && *pid == reference.taken_by.pid && chain.starts_with(&reference.chain)
                });
                let found = found
                    .ok_or_else(|| TestCaseError::fail(format!("not out in m{number}: {reference:#?}")))?;
                *found.1 -= 1;
            }
        }
        Ok(())
    }
}

fn read(trace: &str) -> Vec<ModuleLedger> {
    let mut ledger = Ledger::new(None);
    trace.lines().for_each(|line| ledger.push_line(line));
    ledger.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_whole_trace_leaves_nothing_out(
        ops in proptest::collection::vec(op(), 0..120),
        races in proptest::collection::vec(any::<bool>(), 1..40),
        stacks in any::<bool>(),
    ) {
        let simulation = Simulation::run(&ops).with_races(&races);
        let ledgers = read(&simulation.print(0..0, stacks));
        simulation.check(&ledgers, 0)?;
        for (number, truth) in simulation.modules.iter().enumerate() {
            if let Some(ledger) = ledgers.iter().find(|ledger| ledger.name == format!("m{number}")) {
                // Every get and every load was seen.
                prop_assert_eq!(ledger.outstanding.len(), truth.refs.len(), "m{}: {:#?}", number, ledger);
            }
        }
    }

    #[test]
    fn a_late_start_shows_in_the_count(
        ops in proptest::collection::vec(op(), 20..120),
        late in 0.0..1.0_f64,
        stacks in any::<bool>(),
    ) {
        let simulation = Simulation::run(&ops);
        let start = (simulation.lines.len() as f64 * late) as usize;
        simulation.check(&read(&simulation.print(0..start, stacks)), start)?;
    }

    #[test]
    fn lost_events_show_in_the_count(
        ops in proptest::collection::vec(op(), 20..120),
        start in 0.0..1.0_f64,
        length in 0_usize..40,
        stacks in any::<bool>(),
    ) {
        let simulation = Simulation::run(&ops);
        let start = (simulation.lines.len() as f64 * start) as usize;
        let end = (start + length).min(simulation.lines.len());
        simulation.check(&read(&simulation.print(start..end, stacks)), end)?;
    }

    #[test]
    fn any_module_events_are_read(
        lines in proptest::collection::vec((0..5_usize, 0..3_usize, -3_i64..5, 0..3_i32), 0..80),
    ) {
        let mut trace = String::new();
        for (kind, module, refcnt, pid) in lines {
            let name = ["module_load", "module_free", "module_get", "module_put", "module_request"][kind];
            let site = ["do_init_module", "misc_open", "__fput", "resolve_symbol", "module_unload_free"][(kind + module) % 5];
            writeln!(trace, "{:>16}-{pid:<7} [000] .....     1.000000: {name}: m{module} wait=1 call_site={site} refcnt={refcnt}", "t").unwrap();
        }
        for ledger in read(&trace) {
            if let Some(count) = ledger.use_count {
                prop_assert_eq!(i64::try_from(ledger.outstanding.len()).unwrap() + ledger.unseen, count);
            }
        }
    }
}
