//! How fast traces are read, on one core.
//!
//! First, where trace-cmd is installed, against what people do otherwise: `trace-cmd report` with an awk script behind it
//! that keeps each module's references with their chains, on the same recording. The time of both is divided by that of
//! reading the recording here. Then bytes of text a second.
//!
//! `unfiltered`: what a kernel traces when somebody enables more than the module events; one event in a hundred is a
//! module's. `module_events`: module events with their stacks and nothing else. Both are made of recorded lines.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and has nobody to report to"
)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use kmodlab::trace::dat::Recording;
use kmodlab::trace::ledger::{Ledger, ModuleLedger};
use kmodlab::trace::{Assembler, parse_line};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The size of each input, in bytes.
const SIZE: usize = 32 << 20;

const OTHERS: &str = include_str!("../tests/data/trace/x86_64-overrun.txt");
const MODULES: &str = include_str!("../tests/data/trace/x86_64-smp.txt");

/// A recording of two cpus, of which pages can be repeated.
const RECORDING: &[u8] = include_bytes!("../tests/data/trace/x86_64-six.dat");
/// How large the recording is made, in bytes.
const RECORDED: u64 = 24 << 20;
const RUNS: usize = 5;

/// Keeps the chain of each reference that is out, by module, and gives back the last one of the same task, else the last.
const AWK: &str = r#"
function settle() { if (!pending) return; n = ++held[module]; who[module, n] = task; chain[module, n] = stack; pending = 0 }
/: module_get: / { settle(); module = $4; task = $1; stack = $5; pending = 1; gets++; next }
/: module_put: / { settle(); m = $4; puts++; n = held[m]; if (n < 1) next
    for (i = n; i > 0 && who[m, i] != $1; i--); if (i == 0) i = n
    for (; i < n; i++) { who[m, i] = who[m, i + 1]; chain[m, i] = chain[m, i + 1] } held[m]--; next }
/: module_/ { settle(); next }
/^=>/ { if (pending) stack = stack " < " $2; next }
END { settle(); for (m in held) for (i = 1; i <= held[m]; i++) print m, who[m, i], chain[m, i]; print gets, puts }
"#;

fn main() {
    if std::env::args().skip(1).all(|arg| arg.starts_with('-')) {
        compare();
    }
    divan::main();
}

/// Prints how this compares with trace-cmd and awk.
fn compare() {
    let installed = Command::new("trace-cmd").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !installed {
        println!("no comparison with trace-cmd: it is not installed (apt-get install trace-cmd)\n");
        return;
    }
    let one = pin();
    let dir = tempfile::tempdir().unwrap();
    let (dat, text) = (dir.path().join("trace.dat"), dir.path().join("trace.txt"));
    std::fs::write(&dat, recording()).unwrap();
    let report = |out: Stdio| {
        let mut report = Command::new("trace-cmd");
        report.args(["report", "-i"]).arg(&dat).stdout(out).stderr(Stdio::null());
        report
    };
    assert!(report(File::create(&text).unwrap().into()).status().unwrap().success());
    let awk = |input: Stdio| {
        let mut awk = Command::new("awk");
        assert!(awk.arg(AWK).stdin(input).stdout(Stdio::null()).status().unwrap().success());
    };
    let printed = std::fs::read(&text).unwrap();
    assert_eq!(counts(&from_recording(&dat)), counts(&from_text(&printed)));
    let pipeline = time(|| {
        let mut report = report(Stdio::piped()).spawn().unwrap();
        awk(report.stdout.take().unwrap().into());
        assert!(report.wait().unwrap().success());
    });
    let awk_alone = time(|| awk(File::open(&text).unwrap().into()));
    let ours = time(|| drop(black_box(from_recording(&dat))));
    let ours_of_text = time(|| drop(black_box(from_text(&std::fs::read(&text).unwrap()))));
    let mib = |path: &Path| std::fs::metadata(path).unwrap().len() as f64 / f64::from(1 << 20);
    let row = |what: &str, took: Duration, than: Duration| {
        println!(
            "{what:<46} {:>9.1} ms {:>8.1}",
            took.as_secs_f64() * 1e3,
            than.as_secs_f64() / took.as_secs_f64()
        );
    };
    println!(
        "a recording of {:.0} MiB, {:.0} MiB as text; medians of {RUNS} on {one}; how many times the first's speed",
        mib(&dat),
        mib(&text)
    );
    row("trace-cmd report | awk", pipeline, pipeline);
    row("awk, the report's text being there", awk_alone, pipeline);
    row("kmodlab, the recording", ours, pipeline);
    row("kmodlab, the report's text being there", ours_of_text, pipeline);
    println!();
}

/// Keeps this process, and those that it starts, on one cpu.
fn pin() -> &'static str {
    let allowed = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).rfind(|cpu| allowed.is_set(*cpu)).unwrap());
    sched_setaffinity(None, &one).unwrap();
    "one core"
}

/// The recording with its pages repeated, at later times.
fn recording() -> Vec<u8> {
    let heading = b"flyrecord\0";
    let table = RECORDING.windows(heading.len()).rposition(|bytes| bytes == heading).unwrap() + heading.len();
    let number = |at: usize| u64::from_le_bytes(RECORDING[at..at + 8].try_into().unwrap());
    let mut file = RECORDING[..number(table) as usize].to_vec();
    for cpu in 0..2 {
        let entry = table + 16 * cpu;
        let pages = &RECORDING[number(entry) as usize..][..number(entry + 8) as usize];
        let (start, repeats) = (file.len() as u64, RECORDED / 2 / pages.len() as u64);
        for repeat in 0..repeats {
            for page in pages.chunks(4096) {
                let time = u64::from_le_bytes(page[..8].try_into().unwrap()) + repeat * 1_000_000_000;
                file.extend(time.to_le_bytes());
                file.extend(&page[8..]);
            }
        }
        let size = file.len() as u64 - start;
        file[entry..entry + 8].copy_from_slice(&start.to_le_bytes());
        file[entry + 8..entry + 16].copy_from_slice(&size.to_le_bytes());
    }
    file
}

fn from_recording(path: &Path) -> Vec<ModuleLedger> {
    let bytes = std::fs::read(path).unwrap();
    let mut ledger = Ledger::new(None);
    let mut recording = Recording::open(bytes.as_slice()).unwrap();
    recording
        .read(0, |record| {
            ledger.push_record(&record);
            true
        })
        .unwrap();
    ledger.finish()
}

fn from_text(text: &[u8]) -> Vec<ModuleLedger> {
    let mut ledger = Ledger::new(None);
    text.chunks(1 << 16).for_each(|chunk| ledger.push_bytes(chunk));
    ledger.finish()
}

/// What both ways must agree on.
fn counts(ledgers: &[ModuleLedger]) -> Vec<(&str, Option<i64>, usize, u64)> {
    ledgers
        .iter()
        .map(|ledger| (ledger.name.as_str(), ledger.use_count, ledger.outstanding.len(), ledger.loads))
        .collect()
}

/// The median time.
fn time(mut what: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            what();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[RUNS / 2]
}

fn events(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect()
}

fn module_events() -> String {
    let once = events(MODULES);
    once.repeat(SIZE / once.len() + 1)
}

fn unfiltered() -> String {
    let (others, modules) = (events(OTHERS), events(MODULES));
    let once = others.repeat(100 * modules.len() / others.len()) + &modules;
    once.repeat(SIZE / once.len() + 1)
}

#[divan::bench(args = ["unfiltered", "module_events"], sample_count = 10)]
fn lines(bencher: Bencher<'_, '_>, input: &str) {
    let text = make(input);
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        for line in text.lines() {
            black_box(parse_line(line));
        }
    });
}

#[divan::bench(args = ["unfiltered", "module_events"], sample_count = 10)]
fn ledger(bencher: Bencher<'_, '_>, input: &str) {
    let text = make(input);
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        let mut ledger = Ledger::new(None);
        for chunk in text.as_bytes().chunks(1 << 16) {
            ledger.push_bytes(chunk);
        }
        ledger.finish()
    });
}

#[divan::bench(args = ["unfiltered", "module_events"], sample_count = 10)]
fn assembler(bencher: Bencher<'_, '_>, input: &str) {
    let text = make(input);
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        let mut assembler = Assembler::new();
        for chunk in text.as_bytes().chunks(1 << 16) {
            assembler.push(chunk);
            for item in assembler.by_ref() {
                black_box(item);
            }
        }
        assembler.finish();
        assembler.count()
    });
}

fn make(input: &str) -> String {
    if input == "unfiltered" { unfiltered() } else { module_events() }
}
