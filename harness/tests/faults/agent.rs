//! Agents that do not keep to the protocol: a real guest in which, in place of the agent, a program runs that says what it
//! is told to.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fs_err as fs;
use kmodlab::guest::agent::Transport;
use kmodlab::guest::proto::{FRAME_LIMIT, Malformed, Port, Run, VERSION};
use kmodlab::guest::{self, Errno, Guest, agent, initramfs};
use kmodlab::image::cache::{self, Cache, Entry, KeyBuilder, sha256_file};
use kmodlab::image::compiler::Compiler;
use kmodlab::lab::Lab;
use kmodlab::process::{self, Command};
use kmodlab::run::bootable;
use kmodlab::vm::{Accel, Boot, Channel, Machine, Memory, Snapshot, Start, Vm};
use kmodlab::work::{Cancel, Unwatched};
use libtest_mimic::Trial;

use crate::project::prepared_cache;
use crate::{IMAGE, common, trial};

/// Long enough for any guest that answers.
const LONG: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut greeted_by = |name: &str, bytes: Vec<u8>, expected: fn(&Malformed) -> bool| {
        trials.push(trial(&format!("agent::{name}_is_malformed"), move || {
            let error = meet(Script::default().take_request().say(&bytes), LONG).unwrap_err();
            assert!(matches!(&error, guest::Error::Malformed(malformed) if expected(malformed)), "{error:?}");
        }));
    };
    greeted_by("garbage", vec![0xff; 100], |m| *m == Malformed::Length(u32::MAX));
    greeted_by("an_empty_frame", vec![0; 4], |m| *m == Malformed::Length(0));
    let oversized = u32::try_from(FRAME_LIMIT + 1).unwrap();
    greeted_by("an_oversized_frame", oversized.to_le_bytes().to_vec(), |m| matches!(m, Malformed::Length(_)));
    greeted_by("an_unknown_reply", frame(200, 1, &[]), |m| *m == Malformed::Kind(200));
    greeted_by("a_request", frame(1, 1, &[]), |m| *m == Malformed::Kind(1));
    greeted_by("a_short_reply", frame(HELLO, 1, &[1, 0]), |m| *m == Malformed::Short(HELLO));
    greeted_by("a_long_reply", frame(DONE, 1, &[0; 14]), |m| *m == Malformed::Long(DONE));
    let endless = [VERSION.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
    greeted_by("a_text_longer_than_its_frame", frame(HELLO, 1, &endless), |m| *m == Malformed::Short(HELLO));
    let entries = u32::MAX.to_le_bytes();
    greeted_by("a_list_longer_than_its_frame", frame(ENTRIES, 1, &entries), |m| {
        *m == Malformed::Short(ENTRIES)
    });
    greeted_by("another_version", hello(1, VERSION + 1), |m| *m == Malformed::Version(VERSION + 1));

    let mut out_of_order = |name: &str, script: Script| {
        trials.push(trial(&format!("agent::{name}_is_out_of_order"), move || {
            let error = meet(script, LONG).and_then(|mut guest| guest.run(program())).unwrap_err();
            assert!(matches!(error, guest::Error::OutOfOrder), "{error:?}");
        }));
    };
    out_of_order("another_answer_to_the_greeting", Script::default().take_request().say(&done(1)));
    out_of_order("an_answer_to_nothing", greeted().say(&done(77)));
    out_of_order("a_second_end", greeted().say(&[exit(2), exit(2)].concat()));
    out_of_order("output_behind_the_end", greeted().say(&[exit(2), frame(STDOUT, 2, &sized(b"x"))].concat()));
    out_of_order("a_file_that_nobody_asked_for", greeted().say(&frame(DATA, 2, &sized(b"x"))));
    out_of_order("an_end_that_is_none_of_a_program", greeted().say(&frame(SYNCED, 2, &[0; 9])));

    trials.extend([
        trial("agent::half_a_frame_is_waited_for_no_longer_than_allowed", || {
            let script = Script::default().take_request().say(&hello(1, VERSION)[..20]);
            let error = meet(script, Duration::from_secs(2)).unwrap_err();
            assert!(matches!(error, guest::Error::Deadline), "{error:?}");
        }),
        trial("agent::bytes_that_never_come_are_waited_for_no_longer_than_allowed", || {
            let synced = [u64::MAX.to_le_bytes().as_slice(), &[1]].concat();
            let script = Script::default().take_request().say(&hello(1, VERSION)).take_request();
            let mut guest = meet(script.say(&frame(SYNCED, 2, &synced)), LONG).unwrap();
            guest.set_limit(Duration::from_secs(1));
            let error = guest.sync(Port::Log).unwrap_err();
            assert!(matches!(error, guest::Error::Deadline), "{error:?}");
        }),
        trial("agent::answers_from_before_the_greeting_are_passed_over", || {
            let script = Script::default().take_request();
            let guest = meet(script.say(&[done(9), hello(1, VERSION)].concat()), LONG).unwrap();
            assert_eq!(guest.hello().unwrap().release, "\u{1b}[2J\u{fffd}");
        }),
        trial("agent::floods_are_cut", floods),
        trial("agent::a_refusal_is_told", || {
            let refusal = greeted().say(&frame(ERROR, 2, &sized(b"no")));
            let error = meet(refusal, LONG).and_then(|mut guest| guest.run(program())).unwrap_err();
            assert_eq!(error.to_string(), "the agent refused: no");
        }),
        trial("agent::an_errno_that_nobody_knows_is_told_as_its_number", || {
            let answer = [u32::MAX.to_le_bytes().as_slice(), &[0; 9]].concat();
            let mut guest = meet(greeted().say(&frame(DONE, 2, &answer)), LONG).unwrap();
            assert_eq!(guest.remove("/x").unwrap(), Err(Errno(u32::MAX)));
        }),
    ]);
    trials
}

/// Answers the greeting and takes the request after it.
fn greeted() -> Script {
    Script::default().take_request().say(&hello(1, VERSION)).take_request()
}

fn floods() {
    const MIB: usize = 1 << 20;
    let half = vec![0xff; MIB / 2];
    let script = Script::default()
        .act(LOG_PORT, 24, &half)
        .act(TRACE_PORT, 4, &half)
        .take_request()
        .say(&hello(1, VERSION))
        .take_request()
        .act(CONTROL_PORT, 16, &frame(STDOUT, 2, &sized(&half)))
        .say(&exit(2));
    let mut guest = meet(script, LONG).unwrap();
    let finished = guest.run(program()).unwrap().unwrap();
    assert_eq!(finished.stdout.total(), 8 * MIB as u64);
    assert!(finished.stdout.bytes().len() <= 4 * MIB + 100);
    // There was no mark of a greeting in them.
    assert_eq!((guest.streams().log_bytes(), guest.streams().trace_bytes()), (Vec::new(), Vec::new()));
    let boot_log = guest.streams().boot_log().len();
    assert!((7 * MIB..8 * MIB + 100).contains(&boot_log), "{boot_log}");
}

const HELLO: u8 = 129;
const STDOUT: u8 = 131;
const EXIT: u8 = 133;
const DATA: u8 = 134;
const ENTRIES: u8 = 135;
const DONE: u8 = 136;
const SYNCED: u8 = 138;
const ERROR: u8 = 139;

fn frame(kind: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    sized(&[&[kind], id.to_le_bytes().as_slice(), payload].concat())
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [u32::try_from(bytes.len()).unwrap().to_le_bytes().as_slice(), bytes].concat()
}

/// A greeting whose release is what no terminal should see.
fn hello(id: u32, version: u32) -> Vec<u8> {
    let texts = [sized(b"\x1b[2J\xff"), sized(b"x86_64")].concat();
    // Byte order, word size, uptime, taint, tracefs, and two errnos.
    let rest = [[0, 64].as_slice(), &[0; 16], &sized(b""), &[0; 8]].concat();
    frame(HELLO, id, &[version.to_le_bytes().as_slice(), &texts, &rest].concat())
}

fn done(id: u32) -> Vec<u8> {
    frame(DONE, id, &[0; 13])
}

fn exit(id: u32) -> Vec<u8> {
    frame(EXIT, id, &[0; 6])
}

fn program() -> Run {
    Run { argv: vec!["/bin/true".into()], ..Run::default() }
}

const CONTROL_PORT: u8 = 0;
const LOG_PORT: u8 = 1;
const TRACE_PORT: u8 = 2;
const TAKE_REQUEST: u8 = 3;

/// What the agent does; `parrot.c` says how it is written.
#[derive(Debug, Default)]
struct Script(Vec<u8>);

impl Script {
    fn act(mut self, what: u8, times: u32, bytes: &[u8]) -> Self {
        self.0.push(what);
        self.0.extend(times.to_le_bytes());
        self.0.extend(sized(bytes));
        self
    }

    fn take_request(self) -> Self {
        self.act(TAKE_REQUEST, 1, &[])
    }

    fn say(self, bytes: &[u8]) -> Self {
        self.act(CONTROL_PORT, 1, bytes)
    }
}

/// Starts a guest with that agent and greets it.
fn meet(script: Script, limit: Duration) -> Result<Guest, guest::Error> {
    let (machine, snapshot) = parrot();
    let mut vm = Snapshot::at(snapshot).restore(machine).unwrap();
    vm.write(Channel::Control, &sized(&script.0));
    Guest::greet(vm, Instant::now() + limit, &Cancel::new().unwrap()).map_err(|(_, error)| error)
}

/// A guest that waits for its script. It is booted and saved once, and kept for the next time.
fn parrot() -> &'static (Machine, Entry) {
    static PARROT: OnceLock<(Machine, Entry)> = OnceLock::new();
    PARROT.get_or_init(|| {
        prepared_cache();
        let cancel = Cancel::new().unwrap();
        let lab = Lab::open(Some(common::repository()), None, Arc::new(Unwatched), cancel.clone()).unwrap();
        let spec = lab.image(IMAGE).unwrap();
        let prepared = lab.store().prepare(&spec, &Unwatched, &cancel).unwrap();
        let (arch, memory_mib) = (spec.arch, spec.memory.mib());
        let machine = Machine {
            arch,
            memory_mib,
            smp: 1,
            accel: Accel::Tcg,
            fast_firmware: true,
            transport: Transport::Virtio,
            devices: Vec::new(),
        };
        let source = common::repository().join("harness/tests/faults/parrot.c");
        let qemu = process::find(arch.qemu).unwrap();
        let key =
            KeyBuilder::new("parrot").part("image", prepared.key.as_str()).file("source", &source).unwrap();
        let key = key.part("qemu", sha256_file(&qemu).unwrap()).finish();
        let cache = Cache::open(Some(&common::kept().join("parrots")), Arc::new(Unwatched)).unwrap();
        let entry = cache.entry("parrot", &key, &cancel, |dir| -> Result<(), cache::Error> {
            let program = compile(arch, &source, &cache, &cancel)?;
            let archive = initramfs::Builder::new(fs::read(&prepared.initramfs)?);
            let mut archive = archive;
            archive.file("init", 0o755, &program)?;
            let file = dir.join("initramfs");
            fs::write(&file, archive.finish()?)?;
            let boot = Boot { initramfs: file, ..bootable(&prepared).boot };
            save(&machine, &boot, &Snapshot::at(dir), &cancel);
            Ok(())
        });
        (machine, entry.unwrap())
    })
}

fn compile(
    arch: kmodlab::arch::Arch,
    source: &std::path::Path,
    cache: &Cache,
    cancel: &Cancel,
) -> std::io::Result<Vec<u8>> {
    let dir = cache.scratch()?;
    for (name, text) in agent::SOURCES {
        fs::write(dir.join(name), text)?;
    }
    fs::copy(source, dir.join("parrot.c"))?;
    let mut compiler = Command::new(Compiler::find(arch, cancel).unwrap().program);
    let program: PathBuf = dir.join("parrot");
    // Of two programs in one, this one begins.
    compiler.args(["-Dmain=agent_main", "parrot.c"]).args(agent::compiler_args("parrot")).dir(&*dir);
    compiler.check(cancel).unwrap_or_else(|error| panic!("{error}"));
    fs::read(program)
}

/// Boots, waits until the agent waits, and saves.
fn save(machine: &Machine, boot: &Boot, snapshot: &Snapshot, cancel: &Cancel) {
    let mut vm = Vm::start(machine, Start::Kernel(boot), Memory::Shared(snapshot.memory())).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut console = String::new();
    while !console.contains("parrot is ready") {
        vm.pump(deadline, cancel).unwrap();
        console.push_str(&String::from_utf8_lossy(&vm.take(Channel::Console)));
        assert!(vm.exit().is_none() && Instant::now() < deadline, "{console}");
        drop((vm.take(Channel::Control), vm.take(Channel::Log), vm.take(Channel::Trace)));
    }
    snapshot.save(&mut vm, machine, deadline, cancel).unwrap();
}
