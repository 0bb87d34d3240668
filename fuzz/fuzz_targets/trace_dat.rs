//! Recordings of trace-cmd.
#![no_main]

use kmodlab::trace::dat::Recording;
use kmodlab::trace::ledger::Ledger;
use libfuzzer_sys::fuzz_target;

/// So many records show all that there is to see; a file of nothing but pages may be read many times.
const RECORDS: u32 = 10_000;
const BUFFERS: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut recording) = Recording::open(bytes) else { return };
    for buffer in 0..recording.buffers().count().min(BUFFERS) {
        let mut ledger = Ledger::new(None);
        let mut records = 0;
        let _ = recording.read(buffer, |record| {
            ledger.push_record(&record);
            records += 1;
            records < RECORDS
        });
        let _ = ledger.finish();
    }
});
