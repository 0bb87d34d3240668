//! Frames that a guest sends. Chunks must not matter.
#![no_main]

use kmodlab::guest::proto::Decoder;
use libfuzzer_sys::fuzz_target;

fn replies<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    let mut decoder = Decoder::new();
    let mut replies = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(reply)) => replies.push(format!("{reply:?}")),
                Ok(None) => break,
                Err(_) => return (replies, true),
            }
        }
    }
    (replies, false)
}

fuzz_target!(|bytes: &[u8]| {
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    assert_eq!(replies([bytes]), replies([head, tail]));
});
