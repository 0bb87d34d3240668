//! Ledgers of recorded traces.

use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::trace::stream::{Assembler, Item};

/// A ledger in lines, for the `.ledger` files.
fn summary(ledgers: &[ModuleLedger]) -> String {
    let mut out = String::new();
    for ledger in ledgers {
        let Returned { exact, likely, unknown, unseen } = ledger.returned;
        let count = ledger.use_count.map_or("?".to_owned(), |count| count.to_string());
        writeln!(
            out,
            "{}: loaded {:?}, use count {count}, unseen {}",
            ledger.name, ledger.loaded, ledger.unseen
        )
        .unwrap();
        if let Some(task) = &ledger.loaded_by {
            writeln!(out, "  loaded by {}", name(task)).unwrap();
        }
        for request in &ledger.requested_by {
            writeln!(out, "  requested by {} in {}", name(&request.task), request.call_site).unwrap();
        }
        for held in &ledger.outstanding {
            let dependent =
                held.dependent.as_ref().map(|dependent| format!(" for {dependent}")).unwrap_or_default();
            let chain = held.chain.iter().take(6).map(String::as_str).collect::<Vec<_>>().join(" < ");
            writeln!(
                out,
                "  {:?}: {}{dependent} at {}: {chain}",
                held.certainty,
                name(&held.taken_by),
                held.time.0
            )
            .unwrap();
        }
        writeln!(out, "  returned: {exact} exact, {likely} likely, {unknown} unknown, {unseen} unseen")
            .unwrap();
        let counts: Vec<_> = ledger.timeline.iter().map(|point| point.use_count.to_string()).collect();
        writeln!(out, "  count: {}", counts.join(" ")).unwrap();
        for note in &ledger.notes {
            writeln!(out, "  {}", serde_json::to_string(note).unwrap()).unwrap();
        }
    }
    out
}

fn name(task: &Task) -> String {
    format!("{}[{}]", task.comm.as_deref().unwrap_or("<...>"), task.pid)
}

fn ledgers(trace: &str) -> Vec<ModuleLedger> {
    let mut ledger = Ledger::new(None);
    ledger.push_bytes(trace.as_bytes());
    ledger.finish()
}

/// Every recorded trace against what is expected beside it; `KMODLAB_BLESS=1` writes the expectations anew.
#[test]
fn corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/trace");
    let bless = std::env::var_os("KMODLAB_BLESS").is_some_and(|value| value == "1");
    let (mut traces, mut wrong) = (0, Vec::new());
    for entry in fs_err::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        traces += 1;
        let found = summary(&ledgers(&fs_err::read_to_string(&path).unwrap()));
        let expectation = path.with_extension("ledger");
        if bless {
            fs_err::write(&expectation, found).unwrap();
        } else {
            let expected = fs_err::read_to_string(&expectation).unwrap();
            if expected != found {
                wrong.push(format!("{}\nexpected:\n{expected}found:\n{found}", path.display()));
            }
        }
    }
    assert!(traces > 0, "no traces in {}", folder.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A put of a module's whole life, one event a line: `task event module call_site count`.
fn trace(events: &[(&str, &str, &str)]) -> String {
    let line = |(at, (task, name, text)): (usize, &(&str, &str, &str))| {
        let (comm, pid) = task.rsplit_once('-').unwrap();
        format!("{comm:>16}-{pid:<7} [000] .....     1.{at:06}: {name}: {text}\n")
    };
    events.iter().enumerate().map(line).collect()
}

fn one(events: &[(&str, &str, &str)]) -> ModuleLedger {
    let mut all = ledgers(&trace(events));
    assert_eq!(all.len(), 1);
    all.remove(0)
}

const LOAD: &[(&str, &str, &str)] =
    &[("insmod-5", "module_load", "m OE"), ("insmod-5", "module_put", "m call_site=do_init_module refcnt=1")];

fn loaded_and(events: &[(&'static str, &'static str, &'static str)]) -> ModuleLedger {
    one(&[LOAD, events].concat())
}

#[test]
fn loading_is_no_leak() {
    let ledger = loaded_and(&[]);
    assert_eq!((ledger.use_count, ledger.unseen, ledger.outstanding.len()), (Some(0), 0, 0));
    assert_eq!(ledger.notes, []);
    let during = one(&LOAD[..1]);
    assert_eq!((during.use_count, during.unseen, during.outstanding.len()), (Some(1), 1, 0));
}

#[test]
fn a_leak_behind_the_reference_of_loading_is_seen() {
    let ledger = one(&[
        ("insmod-5", "module_load", "m OE"),
        ("insmod-5", "module_get", "m call_site=m_init [m] refcnt=3"),
        ("insmod-5", "module_put", "m call_site=do_init_module refcnt=2"),
    ]);
    assert_eq!((ledger.use_count, ledger.unseen), (Some(1), 0));
    assert_eq!(ledger.outstanding[0].chain, ["m_init [m]"]);
    assert_eq!(ledger.outstanding[0].certainty, Certainty::Exact);
    assert_eq!(ledger.notes, [Note::NoStacks]);
}

#[test]
fn two_tasks_and_one_that_closes() {
    let get = |task, count| (task, "module_get", count);
    let ledger = loaded_and(&[
        get("a-10", "m call_site=misc_open refcnt=2"),
        get("b-11", "m call_site=misc_open refcnt=3"),
        ("b-11", "module_put", "m call_site=__fput refcnt=2"),
    ]);
    let held = &ledger.outstanding[0];
    assert_eq!((held.taken_by.pid, held.certainty), (10, Certainty::Likely));
    let stranger = loaded_and(&[
        get("a-10", "m call_site=misc_open refcnt=2"),
        get("b-11", "m call_site=misc_open refcnt=3"),
        ("c-12", "module_put", "m call_site=__fput refcnt=2"),
    ]);
    assert_eq!(stranger.outstanding[0].certainty, Certainty::Unknown);
    assert_eq!(stranger.returned.unknown, 1);
}

#[test]
fn chains_of_another_kind_are_told_apart() {
    let ledger = loaded_and(&[
        ("a-10", "module_get", "m call_site=misc_open refcnt=2"),
        ("modprobe-11", "module_get", "m call_site=resolve_symbol refcnt=3"),
        ("modprobe-11", "module_put", "m call_site=__fput refcnt=2"),
    ]);
    let held = &ledger.outstanding[0];
    assert_eq!((held.chain[0].as_str(), held.certainty), ("resolve_symbol", Certainty::Exact));
    assert_eq!(ledger.returned.exact, 1);
}

#[test]
fn a_dependent_is_named_and_given_back_by_name() {
    let dependents = [
        ("modprobe-10", "module_get", "m call_site=resolve_symbol refcnt=2"),
        ("modprobe-10", "module_load", "x "),
        ("modprobe-11", "module_get", "m call_site=resolve_symbol refcnt=3"),
        ("modprobe-11", "module_load", "y "),
        ("rmmod-12", "module_free", "x"),
        ("rmmod-12", "module_put", "m call_site=module_unload_free refcnt=2"),
    ];
    let mut ledger = Ledger::new(Some("m"));
    ledger.push_bytes(trace(&[LOAD, &dependents].concat()).as_bytes());
    let all = ledger.finish();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].returned, Returned { exact: 1, likely: 0, unknown: 0, unseen: 1 });
    let held = &all[0].outstanding[0];
    assert_eq!((held.dependent.as_deref(), held.certainty), (Some("y"), Certainty::Exact));
}

#[test]
fn a_put_of_nothing_is_told() {
    let ledger = loaded_and(&[
        ("a-10", "module_put", "m call_site=m_stop [m] refcnt=0"),
        ("a-10", "module_put", "m call_site=m_stop [m] refcnt=0"),
    ]);
    assert_eq!((ledger.use_count, ledger.unseen), (Some(-1), -1));
    assert!(
        matches!(&ledger.notes[0], Note::PutWithoutGet { task, chain, .. } if task.pid == 10 && chain[0] == "m_stop [m]")
    );
    assert!(ledger.notes.contains(&Note::PutBelowZero { times: 1 }), "{:?}", ledger.notes);
}

#[test]
fn a_late_start_knows_of_the_references_before() {
    let ledger = one(&[("a-10", "module_get", "m call_site=misc_open refcnt=4")]);
    assert_eq!((ledger.loaded, ledger.use_count, ledger.unseen), (None, Some(3), 2));
    assert_eq!(ledger.notes[0], Note::StartedLate { references: 2 });
}

#[test]
fn counts_of_single_cpus_are_recognised() {
    let old = [
        ("insmod-5", "module_load", "m O"),
        ("insmod-5", "module_put", "m call_site=sys_init_module refcnt=0"),
        ("a-10", "module_get", "m call_site=chrdev_open refcnt=1"),
        ("a-10", "module_put", "m call_site=__fput refcnt=-1"),
        ("a-10", "module_get", "m call_site=chrdev_open refcnt=1"),
    ];
    let ledger = one(&old);
    assert_eq!((ledger.use_count, ledger.unseen, ledger.outstanding.len()), (Some(1), 0, 1));
    assert_eq!(ledger.outstanding[0].certainty, Certainty::Exact);
    assert!(ledger.notes.contains(&Note::PerCpuCounts));
    let late = one(&old[3..]);
    assert_eq!((late.use_count, late.outstanding.len()), (None, 1));
}

#[test]
fn removal_by_force_is_told() {
    let ledger = loaded_and(&[
        ("a-10", "module_get", "m call_site=misc_open refcnt=2"),
        ("rmmod-11", "module_free", "m"),
    ]);
    assert_eq!((ledger.loaded, ledger.outstanding.len()), (Some(false), 0));
    assert_eq!(ledger.notes, [Note::RemovedWhileHeld { references: 1 }]);
}

/// can_create() holds the protocol's module while the socket takes its own reference (net/can/af_can.c).
#[test]
fn what_a_function_gives_back_is_what_it_took() {
    let line = |name: &str, site: &str, count: i64, inner: &[&str]| {
        let stack: String = inner
            .iter()
            .chain(&["__sock_create", "__sys_socket"])
            .map(|frame| format!(" => {frame}\n"))
            .collect();
        trace(&[("candump-9", name, &format!("m call_site={site} refcnt={count}"))])
            + &trace(&[("candump-9", "", "")]).replace(": : \n", ": <stack trace>\n")
            + &stack
    };
    let text = trace(LOAD)
        + &line("module_get", "can_create [can]", 2, &["can_create [can]"])
        + &line("module_get", "sk_prot_alloc", 3, &["sk_prot_alloc", "sk_alloc", "can_create [can]"])
        + &line("module_put", "can_create [can]", 2, &["can_create [can]"]);
    let ledger = &ledgers(&text)[0];
    let chains: Vec<_> = ledger.outstanding.iter().map(|reference| reference.chain[..2].to_vec()).collect();
    assert_eq!(chains, [["sk_prot_alloc", "sk_alloc"]], "{text}");
}

#[test]
fn requests_are_joined_to_the_load() {
    let ledger = one(&[
        ("mount-9", "module_request", "my-fs wait=1 call_site=__get_fs_type"),
        ("modprobe-10", "module_load", "my_fs "),
    ]);
    assert_eq!(ledger.requested_by[0].task.pid, 9);
    assert_eq!(ledger.requested_by[0].call_site, "__get_fs_type");
    assert_eq!(ledger.loaded_by.as_ref().map(|task| task.pid), Some(10));
}

#[test]
fn cut_lines_and_overwritten_events_are_told() {
    let cut = format!(
        "# entries-in-buffer/entries-written: 63/430   #P:1\n{}               a-10      [000] ..... 2.0: module_get: m call_si\n",
        trace(LOAD)
    );
    let notes = &ledgers(&cut)[0].notes;
    assert_eq!(notes[..], [Note::Overwritten { events: 367 }, Note::Unreadable { lines: 1 }]);
}

#[test]
fn events_and_text_make_the_same_ledger() {
    let text = include_str!("../../../tests/data/linux-4.14-x86_64.log");
    let mut assembler = Assembler::new();
    assembler.push(text.as_bytes());
    assembler.finish();
    let mut ledger = Ledger::new(None);
    for item in assembler {
        match item {
            Item::Event(event) => ledger.push(&event),
            Item::Lost(lost) => ledger.push_lost(lost),
        }
    }
    assert_eq!(ledger.finish(), ledgers(text));
    let hold = &ledgers(text)[0];
    assert_eq!((hold.loaded, hold.returned.exact, hold.notes.len()), (Some(false), 1, 0));
}

#[test]
fn memory_is_bounded_by_what_is_out() {
    let mut ledger = Ledger::new(None);
    let mut lines = Vec::new();
    for pid in 1..70_000 {
        lines.push((
            "a".to_owned() + "-" + &pid.to_string(),
            format!("m call_site=misc_open refcnt={}", pid + 1),
        ));
    }
    for (task, text) in &lines {
        trace(&[(task, "module_get", text)]).lines().for_each(|line| ledger.push_line(line));
    }
    let m = &ledger.finish()[0];
    assert_eq!((m.use_count, m.outstanding.len(), m.unseen), (Some(69_999), 1 << 16, 69_999 - (1 << 16)));
    assert!(m.notes.contains(&Note::TooMany));
}
