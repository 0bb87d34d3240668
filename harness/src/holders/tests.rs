use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Recorded on x86_64 (Linux 6.1), shortened.
const SCAN: &str = "\
refscan 1 module=refmod state=live use=1
holder kind=file via=operations refs=1 pid=93 tid=93 comm=sh fd=3 file=1 path=/dev/refmod
holder kind=file via=operations refs=0 pid=94 tid=94 comm=cat fd=3 file=1 path=/dev/refmod
end shown=2 cut=0 refs=1 use=1
";

#[test]
fn a_scan_is_read() {
    let scan = Scan::parse(SCAN).unwrap();
    assert_eq!((scan.module.as_str(), scan.use_count, scan.left_over()), ("refmod", 1, Some(0)));
    let [first, second] = &scan.holders[..] else { panic!("{scan:?}") };
    assert_eq!(first.to_string(), "`sh[93]` has `/dev/refmod` open as fd 3");
    assert_eq!((first.references, second.references), (Some(1), Some(0)));
    assert_eq!((first.file, second.file), (Some(1), Some(1)));
}

#[test]
fn a_scan_names_the_protocol_of_a_socket() {
    // Recorded on x86_64 (Linux 6.1).
    let scan = Scan::parse(
        "refscan 1 module=can_raw state=live use=2\n\
         holder kind=file via=socket refs=1 pid=97 tid=97 comm=candump fd=3 file=1 path=socket:[1093] family=29 \
         protocol=CAN_RAW\n\
         holder kind=file via=protocol refs=1 pid=97 tid=97 comm=candump fd=3 file=1 path=socket:[1093] family=29 \
         protocol=CAN_RAW\n\
         end shown=2 cut=0 refs=2 use=2\n",
    )
    .unwrap();
    let [first, second] = &scan.holders[..] else { panic!("{scan:?}") };
    assert_eq!((first.kind, first.via.as_str(), second.via.as_str()), (Kind::Socket, "socket", "protocol"));
    assert_eq!(first.to_string(), "`candump[97]` has a socket of protocol `CAN_RAW` open as fd 3");
    assert_eq!(scan.left_over(), Some(0));
}

#[test]
fn a_scan_says_what_it_lacks() {
    let scan = Scan::parse(
        "refscan 1 module=m state=live use=700\nunknown kind=thread why=kernel\nholder kind=comet via=tail\n\
         holder kind=mount via=filesystem refs=1 type=vfat source=a\\040b\nend shown=2 cut=5 refs=1 use=700\n",
    )
    .unwrap();
    assert_eq!(scan.unknown, [("thread".to_owned(), "kernel".to_owned())]);
    assert_eq!((scan.holders[0].kind, scan.holders[0].references), (Kind::Other, None));
    assert_eq!(scan.holders[1].to_string(), "`a b` is mounted");
    assert_eq!((scan.cut, scan.left_over()), (5, None));
}

#[test]
fn no_scan() {
    assert_eq!(Scan::parse("hello\n"), Err(Unreadable::Head("hello".into())));
    assert_eq!(Scan::parse(SCAN.split_once("end").unwrap().0), Err(Unreadable::NoEnd));
}

/// Files and links by their paths; what is below a path is in its directory.
#[derive(Default)]
struct Record(BTreeMap<String, String>);

impl Record {
    fn new(files: &[(&str, &str)]) -> Self {
        Record(files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect())
    }
}

impl Files for Record {
    fn read(&mut self, path: &str) -> Option<String> {
        self.0.get(path).cloned()
    }

    fn list(&mut self, path: &str) -> Vec<String> {
        let below = self.0.keys().filter_map(|file| file.strip_prefix(path)?.strip_prefix('/'));
        let mut names: Vec<String> =
            below.filter_map(|rest| Some(rest.split('/').next()?.to_owned())).collect();
        names.dedup();
        names
    }

    fn link(&mut self, path: &str) -> Option<String> {
        self.0.get(path).cloned()
    }

    fn protocol(&mut self, path: &str) -> Option<String> {
        self.0.get(&format!("{path} protocol")).cloned()
    }
}

fn found(module: &str, files: &[(&str, &str)]) -> Vec<String> {
    collect(module, &mut Record::new(files)).iter().map(ToString::to_string).collect()
}

const DEVICES: &str = "\
Character devices:
  1 mem
 10 misc
116 alsa

Block devices:
  7 loop
259 blkext
";

#[test]
fn a_device_by_its_name() {
    let files = [
        ("/proc/devices", DEVICES),
        ("/proc/misc", "237 loop-control\n124 refmod\n  1 psaux\n"),
        ("/sys/dev/char/10:1/uevent", "MAJOR=10\nMINOR=1\nDEVNAME=psaux\n"),
        ("/sys/dev/char/10:124/uevent", "MAJOR=10\nMINOR=124\nDEVNAME=refmod\nDEVMODE=0444\n"),
        ("/proc/93/comm", "tail\n"),
        ("/proc/93/fd/0", "/dev/null"),
        ("/proc/93/fd/3", "/dev/refmod"),
        ("/proc/93/maps", "b6f00000-b6f01000 r--s 00000000 00:05 124        /dev/refmod\n"),
        ("/proc/94/fd/1", "/dev/psaux"),
        ("/proc/self/fd/3", "/dev/refmod"),
    ];
    assert_eq!(
        found("refmod", &files),
        [
            "`tail[93]` has `/dev/refmod` open as fd 3",
            "`tail[93]` has `/dev/refmod` mapped at `b6f00000-b6f01000`"
        ]
    );
}

#[test]
fn a_mapping_whose_descriptor_is_closed() {
    let files = [
        ("/proc/devices", DEVICES),
        ("/proc/misc", "124 refmod\n"),
        ("/sys/dev/char/10:124/uevent", "MAJOR=10\nMINOR=124\nDEVNAME=refmod\n"),
        ("/proc/93/comm", "sh\n"),
        ("/proc/93/fd/0", "/dev/null"),
        (
            "/proc/93/maps",
            "00400000-005c0000 r-xp 00000000 00:02 8          /bin/busybox\n\
             7f02c4b5c000-7f02c4b5d000 r--s 00000000 00:05 124 /dev/refmod\n\
             7f02c4b5d000-7f02c4b5e000 r--s 00000000 00:05 125 /dev/refmod2\n\
             7ffd5f1a0000-7ffd5f1c1000 rw-p 00000000 00:00 0  [stack]\n",
        ),
    ];
    let holders = collect("refmod", &mut Record::new(&files));
    let [mapping] = &holders[..] else { panic!("{holders:?}") };
    assert_eq!((mapping.kind, mapping.fd, mapping.via.as_str()), (Kind::Mapping, None, "name"));
    assert_eq!(mapping.to_string(), "`sh[93]` has `/dev/refmod` mapped at `7f02c4b5c000-7f02c4b5d000`");
}

#[test]
fn a_device_and_an_interface_by_their_driver() {
    let files = [
        ("/sys/module/snd_usb_audio/drivers/usb:snd-usb-audio", ""),
        ("/sys/module/snd_usb_audio/holders/snd_other", ""),
        ("/sys/dev/char/116:3/uevent", "MAJOR=116\nMINOR=3\nDEVNAME=snd/pcmC1D0p\n"),
        ("/sys/dev/char/116:3/device/uevent", "DEVTYPE=usb_interface\nDRIVER=snd-usb-audio\n"),
        ("/proc/812/comm", "pulseaudio\n"),
        ("/proc/812/fd/14", "/dev/snd/pcmC1D0p"),
        ("/sys/class/net/lo/uevent", ""),
        ("/sys/class/net/usb0/device/uevent", "DRIVER=snd-usb-audio\n"),
    ];
    assert_eq!(
        found("snd-usb-audio", &files),
        [
            "module `snd_other` uses its symbols",
            "`pulseaudio[812]` has `/dev/snd/pcmC1D0p` open as fd 14",
            "network interface `usb0` is the module's by its driver"
        ]
    );
}

#[test]
fn a_mount_by_file_system_and_by_disk() {
    let mounts = "/dev/loop0 /tmp/my\\040mount vfat rw,relatime 0 0\nproc /proc proc rw 0 0\n";
    let files = [
        ("/proc/devices", DEVICES),
        ("/sys/dev/block/7:0/uevent", "MAJOR=7\nMINOR=0\nDEVNAME=loop0\nDEVTYPE=disk\n"),
        ("/proc/mounts", mounts),
    ];
    assert_eq!(found("vfat", &files), ["`/dev/loop0` is mounted at `/tmp/my mount`"]);
    assert_eq!(found("loop", &files), ["`/dev/loop0` is mounted at `/tmp/my mount`"]);
    assert!(found("fat", &files).is_empty());
}

/// `/proc/net/protocols`; CAN does not count its sockets on every kernel.
const PROTOCOLS: &str = "\
protocol  size sockets  memory press maxhdr  slab module     cl co di ac
CAN_RAW   1024     -1      -1   NI       0   no   can_raw     y  n  n  n
SCTP      1736      2       1   no       0   yes  sctp        y  y  y  y
SCTPv6    1888      0       1   no       0   yes  sctp        y  y  y  y
UNIX-STREAM 1088   21      -1   NI       0   yes  kernel      y  n  n  n
MY PROTO  1600      1      -1   NI       0   no   my_proto    n  n  n  n
";

#[test]
fn a_socket_by_its_protocol() {
    let files = [
        ("/proc/net/protocols", PROTOCOLS),
        ("/proc/93/comm", "candump\n"),
        ("/proc/93/fd/3", "socket:[1093]"),
        ("/proc/93/fd/3 protocol", "CAN_RAW"),
        ("/proc/93/fd/4", "socket:[1094]"),
        ("/proc/93/fd/4 protocol", "UNIX-STREAM"),
        ("/proc/94/fd/5", "socket:[1095]"),
        ("/proc/95/comm", "daemon\n"),
        ("/proc/95/fd/6", "socket:[1096]"),
        ("/proc/95/fd/6 protocol", "MY PROTO"),
        ("/proc/95/fd/7", "/tmp/socket:[1096]"),
        ("/proc/95/fd/7 protocol", "MY PROTO"),
    ];
    assert_eq!(found("can-raw", &files), ["`candump[93]` has a socket of protocol `CAN_RAW` open as fd 3"]);
    assert_eq!(found("my_proto", &files), ["`daemon[95]` has a socket of protocol `MY PROTO` open as fd 6"]);
    assert!(found("kernel_", &files).is_empty());
}

#[test]
fn sockets_that_no_process_has() {
    assert_eq!(found("sctp", &[("/proc/net/protocols", PROTOCOLS)]), ["sockets of protocol `SCTP` are open"]);
    assert!(found("can_raw", &[("/proc/net/protocols", PROTOCOLS)]).is_empty());
}

#[test]
fn this_machine_tells_the_protocol_of_a_socket() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&socket));
    assert_eq!(Host.protocol(&path).as_deref(), Some("TCP"));
    assert_eq!(Host.protocol("/proc/self/comm"), None);
}

proptest! {
    #[test]
    fn nothing_a_guest_says_is_too_odd(text in "(refscan 1 module=m state=live use=1\n)?(\\PC|[\n= \\\\])*") {
        let _ = Scan::parse(&text);
        let mut record = Record::new(&[("/sys/dev/char/10:1/uevent", "DEVNAME=m\n"), ("/proc/1/fd/0", "/dev/m")]);
        for path in ["/proc/devices", "/proc/misc", "/proc/mounts", "/proc/net/protocols", "/proc/1/maps"] {
            record.0.insert(path.to_owned(), text.clone());
        }
        collect("m", &mut record);
    }
}
