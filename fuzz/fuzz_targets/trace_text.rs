//! Text of a trace: events with their stacks, and ledgers. Chunks must not matter.
#![no_main]

use kmodlab::blame::Answer;
use kmodlab::trace::Assembler;
use kmodlab::trace::ledger::{Ledger, ModuleLedger};
use libfuzzer_sys::fuzz_target;

fn ledgers<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<ModuleLedger> {
    let mut ledger = Ledger::new(None);
    chunks.into_iter().for_each(|chunk| ledger.push_bytes(chunk));
    ledger.finish()
}

fuzz_target!(|bytes: &[u8]| {
    let whole = ledgers([bytes]);
    let (head, tail) = bytes.split_at(bytes.len() / 3);
    assert_eq!(ledgers([head, tail]), whole);
    for ledger in whole {
        let answer = Answer::new(ledger);
        let _ = kmodlab::report::blame(&answer);
    }
    let mut assembler = Assembler::new();
    assembler.push(bytes);
    assembler.finish();
    let _ = assembler.count();
});
