//! What kernels print: `/dev/kmsg`, the console, KTAP, and lists in `/proc` and debugfs.
#![no_main]

use kmodlab::console::{KmsgReader, KtapReader, SplatReader};
use kmodlab::holders::Scan;
use kmodlab::trace::{EventFormat, ListedModule, ListedProbe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut log, mut splats) = (KmsgReader::default(), SplatReader::default());
    log.push(bytes);
    log.finish();
    log.by_ref().for_each(|record| splats.push_record(&record));
    let text = String::from_utf8_lossy(bytes);
    let mut ktap = KtapReader::default();
    for line in text.lines() {
        splats.push_line(line);
        ktap.push_line(line);
    }
    splats.finish();
    let _ = splats.count();
    let _ = ktap.finish();
    let _ = ListedProbe::parse_list(&text);
    let _ = ListedModule::parse_list(&text);
    let _ = EventFormat::parse(&text);
    let _ = Scan::parse(&text);
});
