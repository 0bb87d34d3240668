//! Recordings, and files that are made here in both byte orders and with both sizes of `long`.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::trace::ledger::{Ledger, ModuleLedger, Note};

fn ledgers(bytes: &[u8]) -> Result<Vec<ModuleLedger>, Error> {
    let mut recording = Recording::open(bytes)?;
    let mut all = Vec::new();
    for buffer in 0..recording.buffers().count() {
        let mut ledger = Ledger::new(None);
        recording.read(buffer, |record| {
            ledger.push_record(&record);
            true
        })?;
        all.extend(ledger.finish());
    }
    Ok(all)
}

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/trace");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "dat")).collect();
    files.sort();
    files
}

fn functions(ledger: &ModuleLedger) -> impl Iterator<Item = &String> {
    ledger.outstanding.iter().flat_map(|held| &held.chain)
}

/// What `trace-cmd report` printed of a recording is beside it. It leaves the functions' modules out.
#[test]
fn a_recording_has_the_ledger_of_its_report() {
    let files = recordings();
    assert!(files.len() >= 6, "{files:?}");
    for path in files {
        let report = fs::read_to_string(path.with_extension("report")).unwrap();
        let mut ledger = Ledger::new(None);
        ledger.push_bytes(report.as_bytes());
        let expected = ledger.finish();
        assert!(!expected.is_empty(), "{}", path.display());
        let mut found = ledgers(&fs::read(&path).unwrap()).unwrap();
        let modules: Vec<_> =
            found.iter().flat_map(functions).filter(|function| function.contains(" [")).collect();
        assert!(!modules.is_empty(), "{}", path.display());
        for function in
            found.iter_mut().flat_map(|module| &mut module.outstanding).flat_map(|held| &mut held.chain)
        {
            let plain = function.split(" [").next().unwrap();
            // It prints a bare address where it knows no function.
            *function = plain.strip_prefix("0x").unwrap_or(plain).to_owned();
        }
        assert_eq!(found, expected, "{}", path.display());
    }
}

/// Makes files.
#[derive(Debug, Clone, Copy)]
struct Maker {
    big: bool,
    long: usize,
}

impl Maker {
    fn number(self, number: u64, size: usize) -> Vec<u8> {
        if self.big {
            number.to_be_bytes()[8 - size..].to_vec()
        } else {
            number.to_le_bytes()[..size].to_vec()
        }
    }

    fn sized(self, text: &str, size: usize) -> Vec<u8> {
        [self.number(text.len() as u64, size), text.as_bytes().to_vec()].concat()
    }

    fn header(self) -> Vec<u8> {
        let Maker { long, .. } = self;
        let page = format!(
            "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
             \tfield: local_t commit;\toffset:8;\tsize:{long};\tsigned:1;\n\
             \tfield: char data;\toffset:{};\tsize:4080;\tsigned:1;\n",
            8 + long
        );
        [b"header_page\0".to_vec(), self.sized(&page, 8), b"header_event\0".to_vec(), self.sized("x", 8)]
            .concat()
    }

    fn ftrace_formats(self) -> Vec<u8> {
        let long = self.long;
        let stack = format!(
            "name: kernel_stack\nID: 4\nformat:\n{COMMON}\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;\n\
             \tfield:unsigned long caller[8];\toffset:{};\tsize:{};\tsigned:0;\n\nprint fmt: \"\"\n",
            8 + long,
            8 * long
        );
        [self.number(1, 4), self.sized(&stack, 8)].concat()
    }

    fn event_formats(self) -> Vec<u8> {
        let long = self.long;
        let format = |name: &str, id: u32, fields: &str| {
            self.sized(&format!("name: {name}\nID: {id}\nformat:\n{COMMON}\n{fields}\nprint fmt: \"\"\n"), 8)
        };
        let counting = format!(
            "\tfield:unsigned long ip;\toffset:8;\tsize:{long};\tsigned:0;\n\
             \tfield:int refcnt;\toffset:{};\tsize:4;\tsigned:1;\n\
             \tfield:__data_loc char[] name;\toffset:{};\tsize:4;\tsigned:1;\n",
            8 + long,
            12 + long
        );
        let name = "\tfield:__rel_loc char[] name;\toffset:8;\tsize:4;\tsigned:1;\n";
        [
            self.number(2, 4),
            b"sched\0".to_vec(),
            self.number(1, 4),
            format("sched_switch", 30, ""),
            b"module\0".to_vec(),
            self.number(3, 4),
            format("module_free", 20, name),
            format("module_get", 21, &counting),
            format("module_put", 22, &counting),
        ]
        .concat()
    }

    fn functions(self) -> Vec<u8> {
        self.sized("1000 T misc_open\n1100 T do_open\n1200 t fput\n2000 t own\t[mod]\n3000 D end\n", 4)
    }

    fn comms(self) -> Vec<u8> {
        self.sized("7 cat\n8 two words\n9 <...>\n", 8)
    }

    /// The record of `module_get` (21) or `module_put` (22) of a module `m`.
    fn counting(self, id: u64, pid: u64, ip: u64, refcnt: u64) -> Vec<u8> {
        let at = 16 + self.long as u64;
        [
            self.number(id, 2),
            vec![0, 0],
            self.number(pid, 4),
            self.number(ip, self.long),
            self.number(refcnt, 4),
            self.number(2 << 16 | at, 4),
            b"m\0\0\0".to_vec(),
        ]
        .concat()
    }

    fn stack(self, pid: u64, addresses: &[u64]) -> Vec<u8> {
        let mut bytes = [self.number(4, 2), vec![0, 0], self.number(pid, 4)].concat();
        bytes.extend(self.number(addresses.len() as u64, 4));
        bytes.resize(8 + self.long, 0);
        addresses.iter().for_each(|address| bytes.extend(self.number(*address, self.long)));
        bytes
    }

    fn head(self, kind: u64, delta: u64) -> Vec<u8> {
        self.number(if self.big { kind << 27 | delta } else { delta << 5 | kind }, 4)
    }

    /// An event, its length in its head, or, where it is long, behind that.
    fn event(self, delta: u64, record: &[u8]) -> Vec<u8> {
        let mut record = record.to_vec();
        record.resize(record.len().next_multiple_of(4), 0);
        let words = record.len() as u64 / 4;
        if words <= 28 && words.is_multiple_of(2) {
            [self.head(words, delta), record].concat()
        } else {
            [self.head(0, delta), self.number(record.len() as u64 + 4, 4), record].concat()
        }
    }

    fn page(self, time: u64, flags: u64, events: &[Vec<u8>]) -> Vec<u8> {
        let events = events.concat();
        let mut page =
            [self.number(time, 8), self.number(flags | events.len() as u64, self.long), events].concat();
        if flags & 1 << 30 != 0 {
            page.extend(self.number(12, self.long));
        }
        page.resize(4096, 0);
        page
    }

    /// A file of version 6 whose topmost instance has these cpus.
    fn version_6(self, cpus: &[Vec<u8>]) -> Vec<u8> {
        let mut file = [MAGIC, b"6\0", &[u8::from(self.big), 8]].concat();
        for part in [
            self.number(4096, 4),
            self.header(),
            self.ftrace_formats(),
            self.event_formats(),
            self.functions(),
            self.sized("", 4),
            self.comms(),
            self.number(cpus.len() as u64, 4),
            b"options  \0".to_vec(),
            [self.number(4, 2), self.sized("[local] global", 4)].concat(),
            self.number(0, 2),
            b"flyrecord\0".to_vec(),
        ] {
            file.extend(part);
        }
        let mut at = file.len() + 16 * cpus.len();
        for cpu in cpus {
            file.extend([self.number(at as u64, 8), self.number(cpu.len() as u64, 8)].concat());
            at += cpu.len();
        }
        cpus.iter().for_each(|cpu| file.extend(cpu));
        file
    }

    /// The same of version 7, each page a chunk; the trace clock counts something.
    fn version_7(self, algorithm: &str, cpus: &[Vec<u8>]) -> Vec<u8> {
        let pack = |bytes: &[u8]| match algorithm {
            "zlib" => {
                let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut packed, bytes).unwrap();
                packed.finish().unwrap()
            }
            "zstd without magic" => zstd::encode_all(bytes, 1).unwrap()[4..].to_vec(),
            _ => zstd::encode_all(bytes, 1).unwrap(),
        };
        let packed = |bytes: &[u8]| {
            let packed = pack(bytes);
            [self.number(packed.len() as u64, 4), self.number(bytes.len() as u64, 4), packed].concat()
        };
        let section = |id: u64, content: &[u8]| {
            let content = packed(content);
            let size = self.number(content.len() as u64, 8);
            [self.number(id, 2), self.number(1, 2), self.number(0, 4), size, content].concat()
        };
        let mut file = [MAGIC, b"7\0", &[u8::from(self.big), 8]].concat();
        file.extend(self.number(4096, 4));
        file.extend(algorithm.split(' ').next().unwrap().bytes());
        file.extend(b"\x001\0");
        let start = file.len();
        file.extend([0; 8]);
        let mut options = Vec::new();
        for (id, content) in [
            (19, self.functions()),
            (17, self.ftrace_formats()),
            (18, self.event_formats()),
            (21, self.comms()),
            (16, self.header()),
        ] {
            options
                .extend([self.number(id, 2), self.number(8, 4), self.number(file.len() as u64, 8)].concat());
            file.extend(section(id, &content));
        }
        let mut buffer = self.number(file.len() as u64, 8);
        buffer.extend(b"own\0counter\0");
        buffer.extend([self.number(4096, 4), self.number(cpus.len() as u64, 4)].concat());
        file.extend([self.number(3, 2), self.number(1, 2), self.number(0, 4), self.number(0, 8)].concat());
        for (number, cpu) in cpus.iter().enumerate() {
            let chunks: Vec<u8> = cpu.chunks(4096).flat_map(packed).collect();
            let chunks = [self.number(cpu.len() as u64 / 4096, 4), chunks].concat();
            buffer.extend(self.number(number as u64, 4));
            buffer.extend([self.number(file.len() as u64, 8), self.number(chunks.len() as u64, 8)].concat());
            file.extend(chunks);
        }
        options.extend([self.number(3, 2), self.number(buffer.len() as u64, 4), buffer].concat());
        options.extend([self.number(0, 2), self.number(8, 4), self.number(0, 8)].concat());
        let at = self.number(file.len() as u64, 8);
        file[start..start + 8].copy_from_slice(&at);
        file.extend(section(0, &options));
        file
    }

    /// A module that is taken on cpu 0, then on cpu 1, and given back by a task that the file does not know.
    fn two_cpus(self) -> [Vec<u8>; 2] {
        let get = |pid, count| self.counting(21, pid, 0x1010, count);
        let stack = self.stack(7, &[0x1010, 0x1180, 0]);
        let first = [
            self.event(1_000_000, &get(7, 2)),
            self.event(10, &stack),
            // So long ago that it does not fit into an event's head.
            [self.head(30, 5), self.number(1, 4)].concat(),
            self.event(0, &self.counting(22, 9, 0x1204, 2)),
        ];
        // One that was discarded, a time, and one that is no event of a module.
        let discarded = [self.head(29, 1), self.number(12, 4), vec![0xff; 8]].concat();
        let second = [
            discarded,
            [self.head(31, 1_500_000), self.number(0, 4)].concat(),
            self.event(0, &[self.number(30, 2), vec![0, 0], self.number(8, 4)].concat()),
            self.event(1, &get(8, 3)),
            self.head(29, 0),
        ];
        [self.page(0, 0, &first), self.page(4, 0, &second)]
    }
}

const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
                      \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n";

#[rstest]
fn files_of_every_kind_are_read(
    #[values(false, true)] big: bool,
    #[values(4, 8)] long: usize,
    #[values("6", "zlib", "zstd", "zstd without magic")] kind: &str,
) {
    let maker = Maker { big, long };
    let cpus = maker.two_cpus();
    let file = if kind == "6" { maker.version_6(&cpus) } else { maker.version_7(kind, &cpus) };
    let name = if kind == "6" { "" } else { "own" };
    assert_eq!(Recording::open(file.as_slice()).unwrap().buffers().collect::<Vec<_>>(), [name]);
    let mut all = ledgers(&file).unwrap();
    assert_eq!(all.len(), 1);
    let ledger = all.remove(0);
    assert_eq!((ledger.name.as_str(), ledger.use_count), ("m", Some(1)));
    let points: Vec<_> =
        ledger.timeline.iter().map(|point| (point.time.0.as_str(), point.use_count)).collect();
    let times =
        if kind == "6" { ["0.001000", "0.001500", "0.135218"] } else { ["1000000", "1500001", "135217743"] };
    assert_eq!(points, [(times[0], 1), (times[1], 2), (times[2], 1)]);
    let left: Vec<_> =
        ledger.outstanding.iter().map(|held| (held.taken_by.comm.as_deref(), &held.chain)).collect();
    assert_eq!(left.len(), 1);
    let returned = ledger.returned;
    assert_eq!(returned.exact + returned.likely + returned.unknown, 1);
    assert_eq!(ledger.notes.contains(&Note::NoStacks), left[0].1.len() < 2);
}

#[test]
fn what_was_lost_is_a_gap() {
    let maker = Maker { big: true, long: 8 };
    let get = maker.event(1, &maker.counting(21, 7, 0x2001, 2));
    // A number that is stored, none, and an event that reaches beyond its page.
    let broken = [maker.head(0, 1), maker.number(1 << 20, 4)].concat();
    let pages = [
        maker.page(1, 1 << 31 | 1 << 30, std::slice::from_ref(&get)),
        maker.page(2, 1 << 31, std::slice::from_ref(&get)),
        maker.page(3, 0, &[get, broken]),
    ];
    let mut seen = Vec::new();
    let file = maker.version_6(&[pages.concat(), Vec::new()]);
    let mut recording = Recording::open(file.as_slice()).unwrap();
    let mut note = |record: Record<'_>| {
        seen.push(match record {
            Record::Module(context, ModuleEvent::Get { call_site, .. }) => {
                format!("{:?} {call_site}", context.comm)
            }
            other => format!("{other:?}"),
        });
        true
    };
    recording.read(0, &mut note).unwrap();
    let get = "Some(\"cat\") own [mod]";
    let lost = |count: &str| format!("Lost(Lost {{ cpu: 0, count: {count} }})");
    assert_eq!(seen, [&lost("Some(12)"), get, &lost("None"), get, get, &lost("None")]);
}

#[test]
fn a_trace_that_was_recorded_as_text_is_read_as_that() {
    let maker = Maker { big: false, long: 8 };
    let mut file = maker.version_6(&[]);
    let text = "  insmod-86        0...1.   12us : module_get: m call_site=f refcnt=2\n";
    file.truncate(file.len() - 10);
    file.extend(b"latency  \0");
    file.extend(text.bytes());
    let found = ledgers(&file).unwrap();
    assert_eq!(found[0].outstanding[0].taken_by.comm.as_deref(), Some("insmod"));
}

#[rstest]
#[case::text(b"# tracer: nop\n".to_vec(), "it is no recording of trace-cmd")]
#[case::nothing(Vec::new(), "it is no recording of trace-cmd")]
#[case::version([MAGIC, b"5\0"].concat(), "it is cut short")]
#[case::versions([MAGIC, b"8\0\0\x08\0\x10\0\0"].concat(), "it is of version `8` of trace-cmd's files; 6 and 7 are known")]
#[case::algorithm([MAGIC, b"7\0\0\x08\0\x10\0\0lzma\x001\0"].concat(), "it is compressed with `lzma`; zstd and zlib are known")]
#[case::length([MAGIC, b"6\0\0\x08\0\x10\0\0header_page\0\xff\xff\xff\xff\xff\xff\0\0"].concat(), "it is damaged: 281474976710655 is no length")]
fn what_cannot_be_read_is_told(#[case] file: Vec<u8>, #[case] message: &str) {
    let error = ledgers(&file).unwrap_err().to_string();
    assert!(error.starts_with(message), "{error}");
}

#[test]
fn a_recording_that_is_cut_short_says_so() {
    for path in recordings() {
        let file = fs::read(&path).unwrap();
        for end in [file.len() / 2, file.len() / 3, 40, 11] {
            assert!(ledgers(&file[..end]).is_err(), "{} up to {end}", path.display());
        }
    }
}

proptest! {
    #[test]
    fn damaged_files_are_read(
        big in any::<bool>(),
        version in 0_usize..2,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let maker = Maker { big, long: 8 };
        let cpus = maker.two_cpus();
        let mut file = if version == 0 { maker.version_6(&cpus) } else { maker.version_7("zlib", &cpus) };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = ledgers(&file);
    }

    #[test]
    fn damaged_pages_are_read(bytes in proptest::collection::vec(any::<u8>(), 16..4096), big in any::<bool>()) {
        let maker = Maker { big, long: 4 };
        let _ = ledgers(&maker.version_6(&[bytes.clone(), bytes])).unwrap();
    }
}
