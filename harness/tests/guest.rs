//! A booted guest in a test written in Rust: the library as its users see it.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "fixtures are test code")]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kmodlab::blame::{Answer, Verdict};
use kmodlab::guest::Errno;
use kmodlab::guest::proto::{Condition, Run};
use kmodlab::holders::SCANNER;
use kmodlab::lab::Lab;
use kmodlab::module::Builder;
use kmodlab::module::callers::{Callers, Direction};
use kmodlab::needs::{REQUIRE_VM, missing};
use kmodlab::process;
use kmodlab::run::{Options, Outcome, Runner, Session, StartKind, headers};
use kmodlab::trace::dat::Recording;
use kmodlab::trace::ledger::Ledger;
use kmodlab::work::{Cancel, Unwatched};
use rstest::{fixture, rstest};

static LAB: LazyLock<Lab> = LazyLock::new(|| {
    Lab::open(None, None, Arc::new(Unwatched), Cancel::new().expect("a pipe")).expect("the project opens")
});
static RUNNER: LazyLock<Runner> = LazyLock::new(|| Runner::new(&LAB, Options::default(), &Unwatched));

/// A guest, or `None`, having said why, where this machine cannot have one and need not.
#[fixture]
fn session(#[default("x86_64")] image: &str, #[default(&["refmod"])] modules: &[&str]) -> Option<Session> {
    let arch = LAB.image(image).expect("a known image").image.arch;
    if let Some(missing) = missing(arch, LAB.cancel()) {
        assert!(std::env::var_os(REQUIRE_VM).is_none_or(|value| value != "1"), "{missing}");
        eprintln!("skipped: {missing}");
        return None;
    }
    Some(RUNNER.session(image, modules).unwrap_or_else(|error| panic!("{error}")))
}

#[rstest]
fn a_process_with_the_device_open_keeps_the_module(session: Option<Session>) {
    let Some(mut session) = session else { return };
    assert_eq!(session.start().kind, StartKind::Warm);
    assert_eq!(session.load("refmod", false, "", false).unwrap().answer, Ok(()));
    let guest = session.guest();
    guest.set_limit(Duration::from_secs(20));
    let hold = Run {
        argv: ["/bin/sh", "-c", "exec sleep 1000 </dev/refmod"].map(str::to_owned).to_vec(),
        ..Run::default()
    };
    let (holder, _) = guest.spawn(hold).unwrap().unwrap();
    let (held, _) = guest.wait_for("/sys/module/refmod/refcnt", Condition::Equals(b"1".to_vec())).unwrap();
    assert!(held);
    assert_eq!(session.unload("refmod", false).unwrap(), Err(Errno::EAGAIN));
    session.guest().signal(holder, kmodlab::guest::Signal::KILL).unwrap().unwrap();
    session.guest().wait_exit(holder).unwrap().unwrap();
    assert_eq!(session.unload("refmod", false).unwrap(), Ok(()));
}

#[rstest]
#[case::x86_64("x86_64")]
#[case::arm("arm")]
#[case::ppc64le("ppc64le")]
fn a_restored_guest_has_the_time_its_timers_and_entropy_of_its_own(#[case] image: &str) {
    let mut uuids = Vec::new();
    for _ in 0..2 {
        let Some(mut session) = session(image, &[]) else { return };
        let guest = session.guest();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let argv = ["/bin/sh", "-c", "sleep 0.1; date +%s; cat /proc/sys/kernel/random/uuid"];
        let run = Run { argv: argv.map(str::to_owned).to_vec(), ..Run::default() };
        let output = guest.run(run).unwrap().unwrap().stdout.text();
        let (time, uuid) = output.trim().split_once('\n').unwrap();
        assert!(time.parse::<u64>().unwrap().abs_diff(now) < 60, "{time} is not {now}");
        uuids.push(uuid.to_owned());
    }
    assert_ne!(uuids[0], uuids[1]);
}

#[rstest]
#[case::x86_64("x86_64")]
#[case::arm("arm")]
#[case::ppc64le("ppc64le")]
fn a_recording_that_a_step_keeps_is_read_on_the_host(#[case] image: &str) {
    if session(image, &[]).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options { artifacts: Some(dir.path().to_owned()), keep: true, ..Options::default() };
    let cases = LAB.cases(&["trace/trace-cmd".to_owned()], &[LAB.image(image).unwrap()]).unwrap();
    let report = Runner::new(&LAB, options, &Unwatched).run(&cases[0]).unwrap();
    assert_eq!(report.outcome, Outcome::Pass);
    let file = report.artifacts.unwrap().join("files/trace.dat");
    let bytes = std::fs::read(&file).unwrap();
    let mut recording = Recording::open(bytes.as_slice()).unwrap();
    let mut ledger = Ledger::new(Some("refmod"));
    recording
        .read(0, |record| {
            ledger.push_record(&record);
            true
        })
        .unwrap();
    let ledger = ledger.finish().remove(0);
    assert_eq!((ledger.loads, ledger.loaded, ledger.outstanding.len()), (1, Some(false), 0));
    assert_eq!((ledger.returned.exact, ledger.returned.unseen), (1, 1));
    if process::find("trace-cmd").is_none() {
        eprintln!("not read by trace-cmd: it is not installed");
        return;
    }
    let mut command = process::Command::new("trace-cmd");
    command.args(["report", "-i"]).arg(&file);
    let text = String::from_utf8(command.check(LAB.cancel()).unwrap().stdout).unwrap();
    assert!(text.contains("refmod call_site=misc_open refcnt=2"), "{text}");
}

#[rstest]
#[case::open("x86_64", &["refmod"], "exec 3< /dev/refmod; sleep 300 &", Verdict::Held, "has `/dev/refmod` open as fd 3")]
#[case::open("ppc64le", &["refmod"], "exec 3< /dev/refmod; sleep 300 &", Verdict::Held, "has `/dev/refmod` open as fd 3")]
#[case::leak("arm", &["leakmod"], "echo leakmod > /sys/module/leakmod/parameters/get", Verdict::Held, "[leakmod] and has not given it back; nothing that is there now has it")]
#[case::overdrawn("x86_64", &["leakmod"], "echo leakmod > /sys/module/leakmod/parameters/put", Verdict::Overdrawn, "more often")]
#[case::used_and_left("x86_64", &["refmod"], "cat /dev/refmod", Verdict::Free, "it was removed")]
fn what_holds_a_module_is_found(
    #[case] image: &str,
    #[case] modules: &[&str],
    #[case] commands: &str,
    #[case] verdict: Verdict,
    #[case] words: &str,
) {
    let Some(mut session) = session(image, &[modules, &[SCANNER]].concat()) else { return };
    let name = modules[0];
    session.watch_module(name).unwrap();
    assert_eq!(session.load(name, false, "", false).unwrap().answer, Ok(()));
    session.shell(commands).unwrap();
    let (ledger, removal) = session.account_for(name).unwrap();
    let mut answer = Answer::new(ledger);
    if answer.verdict == Verdict::Held {
        answer = answer.with_scan(&session.scan(name).unwrap().unwrap());
    }
    let answer = removal.iter().fold(answer, Answer::after);
    assert_eq!(answer.verdict, verdict, "{answer:?}");
    assert!(answer.sentence.contains(words), "{}", answer.sentence);
    // Where another reference would be no harm, one at the base would be the kernel's end.
    assert_eq!(removal.is_none(), verdict == Verdict::Overdrawn);
}

#[rstest]
#[case::x86_64("x86_64")]
#[case::arm("arm")]
#[case::ppc64le("ppc64le")]
fn the_calls_and_tables_of_a_module_are_found(#[case] image: &str) {
    // Also asks whether what builds modules is there.
    if session(image, &["leakmod"]).is_none() {
        return;
    }
    let image = LAB.store().prepare(&LAB.image(image).unwrap(), &Unwatched, LAB.cancel()).unwrap();
    let builder = Builder::new(LAB.cache(), headers(&image).unwrap(), &Unwatched, LAB.cancel()).unwrap();
    let callers = |name| {
        let built = builder.build(LAB.sources(), name).unwrap();
        Callers::of(&std::fs::read(built.last().unwrap().ko()).unwrap()).unwrap()
    };
    let calls = callers("leakmod").calls;
    let calls: Vec<_> =
        calls.iter().map(|call| (call.function.as_str(), call.callee.as_str(), call.direction)).collect();
    assert_eq!(
        calls,
        [("leakmod_get", "try_module_get", Direction::Take), ("leakmod_put", "module_put", Direction::Give)]
    );
    let refmod = callers("refmod");
    assert_eq!((refmod.calls.len(), refmod.owners.len()), (0, 1));
    assert_eq!((refmod.owners[0].table.as_str(), refmod.owners[0].offset), ("refmod_ops", 0));
    assert_eq!(callers("refdep_b"), Callers::default());
    // On ppc64 code finds its own module through a table of addresses.
    assert_eq!(callers("held_kthread").users, ["held_kthread"]);
}
