//! How fast trace text is read, in bytes a second on one core.
//!
//! `unfiltered`: what a kernel traces when somebody enables more than the module events; one event in a hundred is a
//! module's. `module_events`: module events with their stacks and nothing else. Both are made of recorded lines.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use kmodlab::trace::ledger::Ledger;
use kmodlab::trace::{Assembler, parse_line};

/// The size of each input, in bytes.
const SIZE: usize = 32 << 20;

const OTHERS: &str = include_str!("../tests/data/trace/x86_64-overrun.txt");
const MODULES: &str = include_str!("../tests/data/trace/x86_64-smp.txt");

fn main() {
    divan::main();
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
