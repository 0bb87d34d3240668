//! Answers from recorded traces.

use rstest::rstest;

use super::*;
use crate::trace::ledger::Ledger;

fn answer(trace: &str, module: &str) -> Answer {
    let mut ledger = Ledger::new(Some(module));
    ledger.push_bytes(trace.as_bytes());
    Answer::new(ledger.finish().remove(0))
}

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../tests/data/trace/", $name, ".txt"))
    };
}

#[rstest]
#[case::open(recorded!("arm-held"), "hold", Verdict::Held, "`hold` is held once: init[1] took it in misc_open")]
#[case::leak(recorded!("arm-leak"), "boom", Verdict::Held, "`boom` is held once: insmod[124] took it in boom_leak [boom]")]
#[case::leak(recorded!("x86_64-leak"), "boom", Verdict::Held, "`boom` is held once: insmod[")]
#[case::leak(recorded!("ppc64le-leak"), "boom", Verdict::Held, "`boom` is held once: insmod[")]
#[case::probed(recorded!("arm-leak"), "hold", Verdict::Free, "nothing holds `hold`")]
#[case::gone(recorded!("x86_64-default"), "hold", Verdict::Unloaded, "`hold` is not loaded")]
#[case::overdrawn(recorded!("x86_64-double-put"), "boom", Verdict::Overdrawn, "`boom` was given back more often")]
fn recordings(#[case] trace: &str, #[case] module: &str, #[case] verdict: Verdict, #[case] sentence: &str) {
    let answer = answer(trace, module);
    assert_eq!(answer.verdict, verdict, "{}", answer.sentence);
    assert!(answer.sentence.starts_with(sentence), "{}", answer.sentence);
}

fn listed(line: &str) -> Option<ListedModule> {
    ListedModule::parse_list(line).unwrap().pop()
}

#[rstest]
#[case::count(
    Errno::EAGAIN,
    "hold 16384 1 - Live 0x0",
    "refused with EWOULDBLOCK: its use count is 1, and no module uses it"
)]
#[case::dependents(Errno::EAGAIN, "hold 16384 2 a,b, Live 0x0", "refused with EWOULDBLOCK: in use by a, b")]
#[case::no_exit(
    Errno::EBUSY,
    "hold 16384 0 [permanent], Live 0x0",
    "refused with EBUSY: it has no exit function"
)]
#[case::comes(Errno::EBUSY, "hold 16384 1 - Loading 0x0", "refused with EBUSY: its init function still runs")]
#[case::goes(
    Errno::EBUSY,
    "hold 16384 -1 - Unloading 0x0",
    "refused with EBUSY: it is being removed already"
)]
fn a_refusal_is_explained(#[case] errno: Errno, #[case] line: &str, #[case] removal: &str) {
    let removal_of = Removal { answer: Err(errno), listed: listed(line) };
    let held = answer(recorded!("arm-held"), "hold").after(&removal_of);
    assert_eq!((held.verdict, held.removal.as_str()), (Verdict::Held, removal));
    assert!(held.sentence.contains("init[1]"), "{}", held.sentence);
    let free = answer(recorded!("arm-leak"), "hold").after(&removal_of);
    assert_eq!(free.verdict, Verdict::Held);
    assert!(free.sentence.starts_with("`hold` cannot be removed: "), "{}", free.sentence);
}

#[test]
fn the_present_holder_is_joined_with_who_took_it() {
    let scan = |holders: &str, refs| {
        let text =
            format!("refscan 1 module=hold state=live use=1\n{holders}end shown=1 cut=0 refs={refs} use=1\n");
        Scan::parse(&text).unwrap()
    };
    let file = "holder kind=file via=operations refs=1 pid=97 tid=97 comm=sleep fd=3 file=1 path=/dev/hold\n";
    let open = answer(recorded!("arm-held"), "hold").with_scan(&scan(file, 1));
    assert_eq!(
        open.sentence,
        "`hold` is held once: init[1] took it in misc_open and has not given it back; now `sleep[97]` has `/dev/hold` open as fd 3"
    );
    assert_eq!(open.advice, ["have sleep[97] let go, or end it: kill 97"]);
    let leak = answer(recorded!("arm-held"), "hold").with_scan(&scan("", 0));
    assert!(leak.sentence.ends_with("; nothing that is there now has it"), "{}", leak.sentence);
    assert_eq!(leak.present.unwrap().left_over, Some(1));
}

#[test]
fn what_a_kernel_thread_took_it_has() {
    let trace = "  insmod-5  [000] .....  1.0: module_load: m OE\n  \
                   worker-6  [000] .....  1.1: module_get: m call_site=worker refcnt=3\n  \
                   insmod-5  [000] .....  1.2: module_put: m call_site=do_init_module refcnt=2\n  \
                   worker-6  [000] .....  1.3: module_get: m call_site=worker refcnt=3\n";
    let thread = |pid, left| {
        format!(
            "refscan 1 module=m state=live use=3\nholder kind=thread via=function refs=0 pid={pid} tid={pid} comm=worker \
             function=worker [m]\nend shown=1 cut=0 refs=0 use={left}\n"
        )
    };
    let own = answer(trace, "m").with_scan(&Scan::parse(&thread(6, 3)).unwrap());
    let present = own.present.unwrap();
    assert_eq!((present.holders[0].references, present.left_over), (Some(2), Some(1)));
    assert!(own.sentence.contains("now `worker[6]` runs `worker"), "{}", own.sentence);
    let other = answer(trace, "m").with_scan(&Scan::parse(&thread(7, 2)).unwrap()).present.unwrap();
    assert_eq!((other.holders[0].references, other.left_over), (Some(0), Some(2)));
    let fewer = answer(trace, "m").with_scan(&Scan::parse(&thread(6, 1)).unwrap()).present.unwrap();
    assert_eq!((fewer.holders[0].references, fewer.left_over), (Some(1), Some(0)));
}

#[test]
fn what_was_removed_was_held_by_nothing() {
    let gone = Removal { answer: Ok(()), listed: None };
    let answer = answer(recorded!("x86_64-default"), "hold").after(&gone);
    assert_eq!((answer.verdict, answer.advice.len()), (Verdict::Free, 0));
}

#[test]
fn a_dependent_is_named_with_the_order_of_removal() {
    let trace = "  insmod-5  [000] .....  1.0: module_load: low OE\n  \
                   insmod-5  [000] .....  1.1: module_put: low call_site=do_init_module refcnt=1\n  \
                   insmod-6  [000] .....  1.2: module_get: low call_site=resolve_symbol refcnt=2\n  \
                   insmod-6  [000] .....  1.3: module_load: high OE\n  \
                   insmod-6  [000] .....  1.4: module_put: high call_site=do_init_module refcnt=1\n";
    let answer = answer(trace, "low");
    assert_eq!(answer.sentence, "`low` is held once: module `high` uses its symbols");
    assert_eq!(answer.removal, "refused with EWOULDBLOCK: in use by high");
    assert_eq!(answer.advice[0], "remove what depends on it first: modprobe -r high");
}
