//! Replies are encoded here as the agent does it, field by field.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::guest::{Errno, Signal};

fn frame(kind: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 5).unwrap();
    [&length.to_le_bytes()[..], &[kind], &id.to_le_bytes(), payload].concat()
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat()
}

fn letter(kind: FileKind) -> u8 {
    match kind {
        FileKind::File => b'f',
        FileKind::Directory => b'd',
        FileKind::Link => b'l',
        FileKind::CharacterDevice => b'c',
        FileKind::BlockDevice => b'b',
        FileKind::Fifo => b'p',
        FileKind::Socket => b's',
        FileKind::Other => b'?',
    }
}

fn encode(id: u32, reply: &Reply) -> Vec<u8> {
    let (kind, payload) = match reply {
        Reply::Hello(hello) => (
            129,
            [
                &VERSION.to_le_bytes()[..],
                &bytes(hello.release.as_bytes()),
                &bytes(hello.machine.as_bytes()),
                &[u8::from(hello.big_endian), hello.word_bits],
                &u64::try_from(hello.uptime.as_nanos()).unwrap().to_le_bytes(),
                &hello.tainted.to_le_bytes(),
                &bytes(hello.tracing.as_bytes()),
                &hello.clock.0.to_le_bytes(),
                &hello.entropy.0.to_le_bytes(),
            ]
            .concat(),
        ),
        Reply::Started { pid } => (130, pid.to_le_bytes().to_vec()),
        Reply::Stdout(data) => (131, bytes(data)),
        Reply::Stderr(data) => (132, bytes(data)),
        Reply::Exit { ending, timed_out } => {
            let (signalled, number) = match ending {
                Ending::Exited(status) => (0, *status),
                Ending::Signalled(signal) => (1, signal.0),
            };
            (133, [&[signalled][..], &number.to_le_bytes(), &[u8::from(*timed_out)]].concat())
        }
        Reply::Data(data) => (134, bytes(data)),
        Reply::Entries(entries) => {
            let mut payload = u32::try_from(entries.len()).unwrap().to_le_bytes().to_vec();
            for entry in entries {
                payload.extend(bytes(&entry.name));
                payload.push(letter(entry.kind));
                payload.extend(entry.size.to_le_bytes());
                payload.extend(entry.permissions.to_le_bytes());
            }
            (135, payload)
        }
        Reply::Done { errno, count, end } => {
            (136, [&errno.0.to_le_bytes()[..], &count.to_le_bytes(), &[u8::from(*end)]].concat())
        }
        Reply::Waited { errno, content } => (137, [&errno.0.to_le_bytes()[..], &bytes(content)].concat()),
        Reply::Synced { bytes, drained } => (138, [&bytes.to_le_bytes()[..], &[u8::from(*drained)]].concat()),
        Reply::Error(message) => (139, bytes(message.as_bytes())),
        Reply::Taken { bytes } => (140, bytes.to_le_bytes().to_vec()),
    };
    frame(kind, id, &payload)
}

fn replies() -> impl Strategy<Value = Reply> {
    let data = || prop::collection::vec(any::<u8>(), 0..200);
    let errno = || any::<u32>().prop_map(Errno);
    let kinds = prop::sample::select(vec![
        FileKind::File,
        FileKind::Directory,
        FileKind::Link,
        FileKind::CharacterDevice,
        FileKind::BlockDevice,
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::Other,
    ]);
    let entry = (data(), kinds, any::<u64>(), any::<u32>())
        .prop_map(|(name, kind, size, permissions)| Entry { name, kind, size, permissions });
    let hello =
        ((".*", ".*", any::<bool>(), any::<u8>()), (any::<u64>(), any::<u64>(), ".*", errno(), errno()))
            .prop_map(|((release, machine, big_endian, word_bits), rest)| {
                let (uptime, tainted, tracing, clock, entropy) = rest;
                let uptime = Duration::from_nanos(uptime);
                Hello { release, machine, big_endian, word_bits, uptime, tainted, tracing, clock, entropy }
            });
    prop_oneof![
        hello.prop_map(Reply::Hello),
        any::<u32>().prop_map(|pid| Reply::Started { pid }),
        data().prop_map(Reply::Stdout),
        data().prop_map(Reply::Stderr),
        (any::<bool>(), any::<u32>(), any::<bool>()).prop_map(|(exited, number, timed_out)| {
            let signalled = Ending::Signalled(Signal(number));
            Reply::Exit { ending: if exited { Ending::Exited(number) } else { signalled }, timed_out }
        }),
        data().prop_map(Reply::Data),
        prop::collection::vec(entry, 0..8).prop_map(Reply::Entries),
        (errno(), any::<u64>(), any::<bool>()).prop_map(|(errno, count, end)| Reply::Done {
            errno,
            count,
            end
        }),
        (errno(), data()).prop_map(|(errno, content)| Reply::Waited { errno, content }),
        (any::<u64>(), any::<bool>()).prop_map(|(bytes, drained)| Reply::Synced { bytes, drained }),
        ".*".prop_map(Reply::Error),
        any::<u32>().prop_map(|bytes| Reply::Taken { bytes }),
    ]
}

fn decode_one(frame: &[u8]) -> Result<Option<(u32, Reply)>, Malformed> {
    let mut decoder = Decoder::new();
    decoder.push(frame);
    decoder.next()
}

proptest! {
    #[test]
    fn replies_survive_the_wire_however_it_cuts_them(
        sent in prop::collection::vec((any::<u32>(), replies()), 0..6),
        cut in 1_usize..40,
    ) {
        let stream: Vec<u8> = sent.iter().flat_map(|(id, reply)| encode(*id, reply)).collect();
        let mut decoder = Decoder::new();
        let mut received = Vec::new();
        for part in stream.chunks(cut) {
            decoder.push(part);
            while let Some(reply) = decoder.next().unwrap() {
                received.push(reply);
            }
        }
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
        let mut decoder = Decoder::new();
        for part in parts {
            decoder.push(&part);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn any_payload_is_decoded_or_refused(kind in 125_u8..145, payload in prop::collection::vec(any::<u8>(), 0..100)) {
        let result = decode_one(&frame(kind, 1, &payload));
        prop_assert!(!matches!(result, Ok(None)));
        if !(129..=140).contains(&kind) {
            prop_assert_eq!(result, Err(Malformed::Kind(kind)));
        }
    }

    #[test]
    fn a_reply_cut_short_or_drawn_out_is_refused(reply in replies()) {
        let good = encode(1, &reply);
        let (kind, payload) = (good[4], &good[9..]);
        prop_assert_eq!(decode_one(&frame(kind, 1, &[payload, &[0]].concat())), Err(Malformed::Long(kind)));
        let short = decode_one(&frame(kind, 1, &payload[..payload.len() - 1]));
        prop_assert_eq!(short, Err(Malformed::Short(kind)));
    }
}

#[test]
fn lengths_out_of_bounds_are_refused_before_anything_is_kept() {
    for length in [0, 4, 1 + (1 << 20), u32::MAX] {
        assert_eq!(decode_one(&length.to_le_bytes()), Err(Malformed::Length(length)));
    }
    let length: u32 = 1 << 20;
    assert_eq!(decode_one(&length.to_le_bytes()), Ok(None));
}

#[test]
fn a_count_is_not_believed() {
    assert_eq!(decode_one(&frame(135, 1, &u32::MAX.to_le_bytes())), Err(Malformed::Short(135)));
    assert_eq!(decode_one(&frame(134, 1, &u32::MAX.to_le_bytes())), Err(Malformed::Short(134)));
}

#[test]
fn an_error_is_for_good() {
    let mut decoder = Decoder::new();
    decoder.push(&frame(200, 1, &[]));
    assert_eq!(decoder.next(), Err(Malformed::Kind(200)));
    decoder.push(&encode(1, &Reply::Started { pid: 1 }));
    assert_eq!(decoder.next(), Err(Malformed::Kind(200)));
}

#[test]
fn another_version_is_named_whatever_follows() {
    assert_eq!(decode_one(&frame(129, 1, &[7, 0, 0, 0, 99])), Err(Malformed::Version(7)));
}

#[test]
fn text_need_not_be_utf8() {
    let reply = decode_one(&frame(139, 3, &bytes(b"\xff!"))).unwrap();
    assert_eq!(reply, Some((3, Reply::Error("\u{fffd}!".into()))));
}

#[test]
fn a_request_is_laid_out_as_documented() {
    let mut out = vec![0xaa];
    let request = Request::WriteFile {
        path: "/x".into(),
        mode: WriteMode::Append,
        permissions: 0o644,
        data: b"hi".to_vec(),
    };
    request.encode(0x0102_0304, &mut out).unwrap();
    #[rustfmt::skip]
    let expected = [
        0xaa,
        22, 0, 0, 0, 7, 4, 3, 2, 1,
        2, 0, 0, 0, b'/', b'x', 1, 0xa4, 1, 0, 0, 2, 0, 0, 0, b'h', b'i',
    ];
    assert_eq!(out, expected);
}

#[test]
fn the_requests_for_what_is_executed_have_no_payload() {
    for (request, kind) in [(Request::StartCover, 16), (Request::Cover, 17)] {
        let mut out = Vec::new();
        request.encode(7, &mut out).unwrap();
        assert_eq!(out, [5, 0, 0, 0, kind, 7, 0, 0, 0]);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_no_trace() {
    let write = |size| {
        let data = vec![0; size];
        Request::WriteFile { path: "/x".into(), mode: WriteMode::Truncate, permissions: 0, data }
    };
    let mut out = Vec::new();
    write(DATA_LIMIT).encode(1, &mut out).unwrap();
    let before = out.len();
    assert_eq!(write(FRAME_LIMIT).encode(2, &mut out), Err(TooLong(FRAME_LIMIT + 20)));
    assert_eq!(out.len(), before);
}
