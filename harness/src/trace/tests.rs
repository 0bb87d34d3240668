//! The recorded lists and formats.

use super::*;

/// The sections of a recording: what stands between lines that begin with `==`.
fn section<'a>(recording: &'a str, name: &str) -> &'a str {
    let (_, rest) = recording.split_once(&format!("== {name}\n")).unwrap();
    rest.split("== ").next().unwrap()
}

fn probes(recording: &str, name: &str) -> Vec<ListedProbe> {
    ListedProbe::parse_list(section(recording, name)).unwrap()
}

const KPROBES: [(&str, &str); 3] = [
    ("x86_64", include_str!("../../tests/data/trace/x86_64-kprobes.lists")),
    ("arm", include_str!("../../tests/data/trace/arm-kprobes.lists")),
    ("ppc64le", include_str!("../../tests/data/trace/ppc64le-kprobes.lists")),
];

#[test]
fn kprobes_through_their_lives() {
    for (arch, recording) in KPROBES {
        let find = |list: &str, symbol: &str| {
            probes(recording, list)
                .into_iter()
                .find(|probe| probe.symbol == symbol)
                .unwrap_or_else(|| panic!("{arch} {symbol}"))
        };
        let defined = find("defined", "hold_read");
        assert_eq!(
            (defined.probe_type, defined.module.as_deref()),
            (ProbeType::Kprobe, Some("hold")),
            "{arch}"
        );
        assert!(defined.flags.contains(&ProbeFlag::Disabled), "{arch}");
        assert!(!find("enabled", "hold_read").flags.contains(&ProbeFlag::Disabled), "{arch}");
        assert!(find("one-off", "hold_read").flags.contains(&ProbeFlag::Disabled), "{arch}");
        assert_eq!(find("enabled", "hold_open").probe_type, ProbeType::Kretprobe, "{arch}");
        assert_eq!(find("enabled", "do_sys_openat2").offset, 16, "{arch}");
        let gone = probes(recording, "gone");
        let gone: Vec<_> = gone.iter().filter(|probe| probe.flags.contains(&ProbeFlag::Gone)).collect();
        assert_eq!(gone.len(), 2, "{arch}");
        assert!(
            gone.iter()
                .all(|probe| probe.module.is_none() && probe.symbol == format!("{:#x}", probe.address)),
            "{arch}"
        );
        let module = &ListedModule::parse_list(section(recording, "modules")).unwrap()[0];
        assert_eq!(
            (module.name.as_str(), module.use_count, module.taints.as_str()),
            ("hold", Some(0), "OE"),
            "{arch}"
        );
    }
}

#[test]
fn the_list_of_powerpc_is_never_empty() {
    assert!(probes(KPROBES[0].1, "empty").is_empty());
    assert!(probes(KPROBES[1].1, "empty").is_empty());
    let trampoline = &probes(KPROBES[2].1, "empty")[0];
    assert_eq!(trampoline.symbol, "__kretprobe_trampoline");
    assert!(trampoline.flags.contains(&ProbeFlag::Optimized));
}

#[test]
fn probe_events_name_their_probes() {
    for (arch, recording) in KPROBES {
        let lines = section(recording, "events").lines();
        let events: Vec<_> = lines
            .filter_map(|line| match parse_line(line) {
                Line::Event(event) => Some(event),
                _ => None,
            })
            .collect();
        let one = events.iter().find(|event| event.name == "one").unwrap();
        assert_eq!(one.context.comm, Some("head"), "{arch}");
        assert!(one.text.starts_with("(hold_read+0x"), "{arch}: {}", one.text);
        assert!(
            events.iter().any(|event| event.name == "two" && event.text.contains("<- hold_open")),
            "{arch}"
        );
    }
}

#[test]
fn formats_of_powerpc() {
    let put = EventFormat::parse(include_str!("../../tests/data/trace/ppc64le-put.format")).unwrap();
    assert_eq!(put.name, "module_put");
    let own: Vec<_> =
        put.fields.iter().skip(4).map(|field| (field.name.as_str(), field.offset, field.size)).collect();
    assert_eq!(own, [("ip", 8, 8), ("refcnt", 16, 4), ("name", 20, 4)]);
    let load = EventFormat::parse(include_str!("../../tests/data/trace/ppc64le-load.format")).unwrap();
    assert!(load.print_format.contains("__print_flags"));
    let request = EventFormat::parse(include_str!("../../tests/data/trace/ppc64le-request.format")).unwrap();
    assert_eq!(
        request.fields.iter().find(|field| field.name == "wait").map(|field| field.type_name.as_str()),
        Some("bool")
    );
}

#[test]
fn the_recording_of_linux_4_14_has_the_three_types_and_a_format() {
    let recording = include_str!("../../tests/data/linux-4.14-x86_64.log");
    let types: Vec<_> = probes(recording, "kprobes list").iter().map(|probe| probe.probe_type).collect();
    assert_eq!(types, [ProbeType::Kretprobe, ProbeType::Kprobe, ProbeType::Jprobe]);
    assert_eq!(EventFormat::parse(section(recording, "format")).unwrap().id, 138);
}

/// Every layout of the same events: each line of an event is read, and they tell the same.
#[test]
fn every_layout_tells_the_same() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/trace");
    let layouts = [
        "x86_64-default",
        "x86_64-tgid",
        "x86_64-no-irq-info",
        "x86_64-sym-offset",
        "x86_64-userstack",
        "x86_64-latency",
        "x86_64-latency-verbose",
        "x86_64-latency-counter",
        "x86_64-latency-verbose-counter",
        "x86_64-clock-counter",
        "x86_64-clock-uptime",
        "x86_64-clock-x86-tsc",
        "x86_64-clock-mono",
        "arm-default",
        "arm-latency",
        "arm-clock-counter",
        "ppc64le-default",
        "ppc64le-latency",
        "ppc64le-userstack",
        "ppc64le-clock-counter",
    ];
    for layout in layouts {
        let text = fs_err::read_to_string(folder.join(layout).with_extension("txt")).unwrap();
        let mut assembler = Assembler::new();
        assembler.push(text.as_bytes());
        assembler.finish();
        let mut told = Vec::new();
        for item in assembler {
            let Item::Event(event) = item else { panic!("{layout}: {item:?}") };
            let is_time =
                !layout.contains("counter") && !layout.contains("uptime") && !layout.contains("tsc");
            assert_eq!(event.time.nanos().is_some(), is_time, "{layout}: {event:?}");
            let refcnt = event.field("refcnt").map(str::to_owned);
            told.push((event.comm.unwrap(), event.name, refcnt));
        }
        let told: Vec<_> = told
            .iter()
            .map(|(comm, name, refcnt)| (comm.as_str(), name.as_str(), refcnt.as_deref()))
            .collect();
        let expected = [
            ("insmod", "module_load", None),
            ("insmod", "module_put", Some("1")),
            ("insmod", "module_get", Some("2")),
            ("insmod", "module_load", None),
            ("insmod", "module_put", Some("1")),
            ("sleep", "module_get", Some("3")),
            ("init", "module_get", Some("4")),
            ("init", "module_put", Some("3")),
            ("sleep", "module_put", Some("2")),
            ("rmmod", "module_free", None),
            ("rmmod", "module_put", Some("1")),
            ("rmmod", "module_free", None),
        ];
        assert_eq!(told, expected, "{layout}");
    }
}
