//! `kmodlab blame --live` in a guest: the command itself, copied in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "fixtures are test code"
)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kmodlab::guest::proto::{Condition, Ending, Run, WriteMode};
use kmodlab::guest::{Guest, Signal};
use kmodlab::holders::SCANNER;
use kmodlab::lab::Lab;
use kmodlab::needs::{REQUIRE_VM, missing};
use kmodlab::run::{Options, Runner, Session};
use kmodlab::work::{Cancel, Unwatched};

fn shell(line: &str) -> Run {
    Run { argv: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(), ..Run::default() }
}

/// The command without its symbols, and the libraries that it loads.
fn copy_command(guest: &mut Guest) {
    let temp = tempfile::tempdir().unwrap();
    let small = temp.path().join("kmodlab");
    let strip = Command::new("strip").arg("-o").arg(&small).arg(env!("CARGO_BIN_EXE_kmodlab")).status();
    assert!(strip.unwrap().success());
    copy(guest, &small, "/tmp/kmodlab");
    let libraries = Command::new("ldd").arg(&small).output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    for path in libraries.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
        let dir = Path::new(path).parent().unwrap().display();
        assert_eq!(guest.run(shell(&format!("mkdir -p {dir}"))).unwrap().unwrap().stderr.text(), "");
        copy(guest, Path::new(path), path);
    }
}

fn copy(guest: &mut Guest, from: &Path, to: &str) {
    let data = std::fs::read(from).unwrap();
    guest.write_file(to, WriteMode::Truncate, 0o755, &data).unwrap().unwrap();
}

/// `helper socket FAMILY TYPE PROTOCOL` has a socket until it is killed; `helper killed PROGRAM ARG…` runs a program that is
/// killed, as by SIGKILL without a word, at the moment when it would remove a module.
const HELPER: &str = r#"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_delete_module, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };

    if (argc == 5 && !strcmp(argv[1], "socket")) {
        if (socket(atoi(argv[2]), atoi(argv[3]), atoi(argv[4])) >= 0)
            pause();
        return 2;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 3;
    execv(argv[2], argv + 2);
    return 4;
}
"#;

fn copy_helper(guest: &mut Guest) {
    let temp = tempfile::tempdir().unwrap();
    let (source, program) = (temp.path().join("helper.c"), temp.path().join("helper"));
    std::fs::write(&source, HELPER).unwrap();
    assert!(Command::new("cc").arg("-o").arg(&program).arg(&source).status().unwrap().success());
    copy(guest, &program, "/tmp/helper");
}

/// What `blame --live` says of a module, on both outputs, when it is interrupted as soon as it watches.
fn look(guest: &mut Guest, arguments: &str) -> String {
    let line = format!("exec /tmp/kmodlab blame --live {arguments} >/tmp/look 2>&1");
    let (live, _) = guest.spawn(shell(&line)).unwrap().unwrap();
    let watching = Condition::Contains(b"watching until Ctrl-C\n".to_vec());
    let watches = guest.wait_for("/tmp/look", watching).unwrap().0;
    guest.signal(live, Signal(2)).unwrap().unwrap();
    guest.wait_exit(live).unwrap().unwrap();
    let out = guest.read_file("/tmp/look", 1 << 20).unwrap().unwrap();
    let out = String::from_utf8_lossy(&out).into_owned();
    assert!(watches, "{out}");
    // The next look must not find it there.
    guest.run(shell("rm /tmp/look")).unwrap().unwrap();
    out
}

/// Whether the module that scans is loaded.
fn scanner_is_loaded(guest: &mut Guest) -> bool {
    guest.run(shell("grep -c ^refscan /proc/modules")).unwrap().unwrap().stdout.text() == "1\n"
}

/// The project, with more memory for the guest: the command, unoptimized, lies in it together with its libraries.
fn roomy() -> tempfile::TempDir {
    let (ours, project) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(), tempfile::tempdir().unwrap());
    let link = |name: &str| symlink(ours.join(name), project.path().join(name)).unwrap();
    ["scenarios", "test-modules"].into_iter().for_each(link);
    std::fs::create_dir(project.path().join("images")).unwrap();
    for entry in std::fs::read_dir(ours.join("images")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "x86_64.yaml" {
            link(&format!("images/{name}"));
        }
    }
    let image = std::fs::read_to_string(ours.join("images/x86_64.yaml")).unwrap();
    let memory = image.lines().find(|line| line.starts_with("memory:")).unwrap();
    let image = image.replace(memory, "memory: 256M");
    std::fs::write(project.path().join("images/x86_64.yaml"), image).unwrap();
    project
}

/// A guest that runs this machine's code; `None`, having said why, where there is none and need not be.
fn session(modules: &[&str]) -> Option<Session> {
    let project = roomy();
    let lab = Lab::open(Some(project.path()), None, Arc::new(Unwatched), Cancel::new().unwrap()).unwrap();
    let arch = lab.image("x86_64").unwrap().image.arch;
    let other =
        (std::env::consts::ARCH != "x86_64").then(|| "the guest cannot run this machine's code".to_owned());
    if let Some(missing) = other.or_else(|| missing(arch, lab.cancel()).map(|missing| missing.to_string())) {
        assert!(std::env::var_os(REQUIRE_VM).is_none_or(|value| value != "1"), "{missing}");
        eprintln!("skipped: {missing}");
        return None;
    }
    Some(Runner::new(&lab, Options::default(), &Unwatched).session("x86_64", modules).unwrap())
}

#[test]
fn an_open_device_is_named_and_nothing_is_left_behind() {
    let Some(mut session) = session(&["refmod"]) else { return };
    assert_eq!(session.load("refmod", false, "", false).unwrap().answer, Ok(()));
    let guest = session.guest();
    guest.set_limit(Duration::from_secs(60));
    copy_command(guest);
    let (holder, pid) = guest.spawn(shell("exec /bin/sleep 1000 </dev/refmod")).unwrap().unwrap();
    assert!(guest.wait_for("/sys/module/refmod/refcnt", Condition::Equals(b"1".to_vec())).unwrap().0);

    let (live, _) = guest.spawn(shell("exec /tmp/kmodlab blame --live refmod >/tmp/out")).unwrap().unwrap();
    let watching = Condition::Contains(b"watching until Ctrl-C\n".to_vec());
    assert!(guest.wait_for("/tmp/out", watching).unwrap().0);
    guest.signal(holder, Signal::KILL).unwrap().unwrap();
    guest.wait_exit(holder).unwrap().unwrap();
    let put = Condition::Contains(b"module_put: refmod".to_vec());
    assert!(guest.wait_for("/tmp/out", put).unwrap().0);
    guest.signal(live, Signal(2)).unwrap().unwrap();
    let finished = guest.wait_exit(live).unwrap().unwrap();
    let out = guest.read_file("/tmp/out", 1 << 20).unwrap().unwrap();
    let out = String::from_utf8_lossy(&out).into_owned();
    assert!(
        out.starts_with(&format!(
            "use count of `refmod`: 1\n  `sleep[{pid}]` has `/dev/refmod` open as fd 0\n"
        )),
        "{out}"
    );
    assert_eq!(instances(guest), 0);
    assert_eq!(finished.ending, Ending::Exited(0), "{out}");
    // One that is killed leaves its instance, and the next one removes it.
    for (signal, out) in [(Signal::KILL, "/tmp/killed"), (Signal(2), "/tmp/next")] {
        let line = format!("exec /tmp/kmodlab blame --live refmod >{out}");
        let (live, _) = guest.spawn(shell(&line)).unwrap().unwrap();
        let watching = Condition::Contains(b"watching until Ctrl-C\n".to_vec());
        assert!(guest.wait_for(out, watching).unwrap().0);
        assert_eq!(instances(guest), 1);
        guest.signal(live, signal).unwrap().unwrap();
        guest.wait_exit(live).unwrap().unwrap();
    }
    assert_eq!(instances(guest), 0);
}

#[test]
fn who_takes_it_meanwhile_is_joined_with_what_a_scan_of_the_kernel_finds() {
    let Some(mut session) = session(&["refmod", SCANNER]) else { return };
    let guest = to_look_from(&mut session);
    let line =
        "exec /tmp/kmodlab blame --live refmod --format json --refscan /lib/modules/*/refscan.ko >/tmp/out";
    let (live, pid) = guest.spawn(shell(line)).unwrap().unwrap();
    let enabled = format!("/sys/kernel/tracing/instances/kmodlab-live-{pid}/events/module/enable");
    assert!(guest.wait_for(&enabled, Condition::Equals(b"1".to_vec())).unwrap().0);
    let (holder, pid) = guest.spawn(shell("exec 3</dev/refmod; exec /bin/sleep 1000")).unwrap().unwrap();
    assert!(guest.wait_for("/sys/module/refmod/refcnt", Condition::Equals(b"1".to_vec())).unwrap().0);
    guest.signal(live, Signal(2)).unwrap().unwrap();
    let finished = guest.wait_exit(live).unwrap().unwrap();
    let log: Vec<_> = guest.streams().records().into_iter().map(|record| record.text).collect();
    assert_eq!(finished.ending, Ending::Exited(1), "{}\n{}", finished.stderr.text(), log.join("\n"));
    let out = guest.read_file("/tmp/out", 1 << 20).unwrap().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&document["module"], &document["use_count"]), (&"refmod".into(), &1.into()), "{document}");
    assert_eq!(document["scan"]["module"], "refmod", "{document}");
    let traced = &document["traced"];
    assert_eq!(
        (&traced["verdict"], &traced["present"]["left_over"]),
        (&"held".into(), &0.into()),
        "{document}"
    );
    let reference = &traced["outstanding"][0];
    assert_eq!((&reference["taken_by"]["pid"], &reference["chain"][0]), (&pid.into(), &"misc_open".into()));
    let present = &traced["present"]["holders"][0];
    assert_eq!((&present["kind"], &present["task"]["pid"]), (&"file".into(), &pid.into()), "{document}");
    // Nothing is left behind: no module that scans, no instance.
    assert_eq!(instances(guest), 0);
    let listed = guest.run(shell("grep -c ^refscan /proc/modules")).unwrap().unwrap();
    assert_eq!(listed.stdout.text(), "0\n");
    guest.signal(holder, Signal::KILL).unwrap().unwrap();
    guest.wait_exit(holder).unwrap().unwrap();
    // What is no such module for this kernel is refused, before anything is watched for long.
    let line = "echo none >/tmp/none.ko; exec /tmp/kmodlab blame --live refmod --refscan /tmp/none.ko";
    let refused = guest.run(shell(line)).unwrap().unwrap();
    assert_eq!(refused.ending, Ending::Exited(2), "{}", refused.stdout.text());
    assert!(refused.stderr.text().contains("it must be `refscan`, built for the running kernel"));
    assert_eq!(instances(guest), 0);
}

#[test]
fn a_scanner_that_a_killed_look_left_is_removed_by_the_next() {
    const REMOVED: &str = "kmodlab: removed `refscan`, which a look that was killed had left loaded\n";
    let Some(mut session) = session(&["refmod", SCANNER]) else { return };
    let guest = to_look_from(&mut session);
    copy_helper(guest);
    let line = "exec /tmp/helper killed /tmp/kmodlab blame --live refmod --refscan /lib/modules/*/refscan.ko";
    let killed = guest.run(shell(line)).unwrap().unwrap();
    assert_eq!(killed.ending, Ending::Signalled(Signal(31)), "{}", killed.stderr.text());
    assert!(scanner_is_loaded(guest));
    assert_eq!(instances(guest), 1);

    let out = look(guest, "refmod");
    assert!(out.starts_with(&format!("{REMOVED}use count of `refmod`: 0\n")), "{out}");
    assert!(!scanner_is_loaded(guest));
    assert_eq!(instances(guest), 0);
    // One that somebody loaded to keep is used, and stays; so is one whose loader is still there.
    for params in ["", "loader=1"] {
        assert_eq!(session.load(SCANNER, false, params, false).unwrap().answer, Ok(()));
        let guest = session.guest();
        let out = look(guest, "refmod");
        assert!(out.starts_with("use count of `refmod`: 0\n"), "{out}");
        assert!(scanner_is_loaded(guest));
        assert_eq!(session.unload(SCANNER, false).unwrap(), Ok(()));
    }
}

#[test]
fn mappings_sockets_mounts_and_interfaces_are_named() {
    let Some(mut session) = session(&["refmod", SCANNER]) else { return };
    for name in ["can-raw", "loop", "vfat", "nls_cp437", "nls_ascii", "sch_sfq"] {
        assert_eq!(session.load(name, true, "", false).unwrap().answer, Ok(()), "{name}");
    }
    assert_eq!(session.load("ifb", true, "numifbs=1", false).unwrap().answer, Ok(()));
    let guest = to_look_from(&mut session);
    copy_helper(guest);
    let used = |guest: &mut Guest, module: &str| {
        let path = format!("/sys/module/{module}/refcnt");
        assert!(guest.wait_for(&path, Condition::Equals(b"1".to_vec())).unwrap().0, "{module}");
    };

    let line =
        "exec 3<>/dev/refmod; echo map it >&3; exec 3>&-; : >/tmp/mapped; mkfifo /tmp/end; read x </tmp/end";
    let (_, pid) = guest.spawn(shell(line)).unwrap().unwrap();
    assert!(guest.wait_for("/tmp/mapped", Condition::Exists).unwrap().0);
    let out = look(guest, "refmod");
    let mapped = format!("use count of `refmod`: 1\n  `sh[{pid}]` has `/dev/refmod` mapped at `");
    assert!(out.starts_with(&mapped) && !out.contains("open as fd"), "{out}");

    // PF_CAN, SOCK_RAW, CAN_RAW.
    let (_, pid) = guest.spawn(shell("exec /tmp/helper socket 29 3 1")).unwrap().unwrap();
    used(guest, "can_raw");
    let held = format!(
        "use count of `can_raw`: 1\n  `helper[{pid}]` has a socket of protocol `CAN_RAW` open as fd 3\n"
    );
    for scan in ["", " --refscan /lib/modules/*/refscan.ko"] {
        let out = look(guest, &format!("can-raw{scan}"));
        assert!(out.starts_with(&held), "{out}");
    }

    let line = "truncate -s 4M /tmp/disk && losetup /dev/loop0 /tmp/disk && mkdosfs /dev/loop0 && mkdir /tmp/mnt && \
                mount -t vfat -o iocharset=ascii /dev/loop0 /tmp/mnt";
    let mounted = guest.run(shell(line)).unwrap().unwrap();
    assert_eq!(mounted.ending, Ending::Exited(0), "{}", mounted.stderr.text());
    let out = look(guest, "vfat");
    assert!(
        out.starts_with("use count of `vfat`: 1\n  `/dev/loop0` is mounted at `/tmp/mnt`\nwatching"),
        "{out}"
    );

    let line =
        "cd /proc/sys/net/core; echo sfq >default_qdisc; ifconfig ifb0 up; echo pfifo_fast >default_qdisc";
    guest.run(shell(line)).unwrap().unwrap();
    used(guest, "sch_sfq");
    // No file shows a queueing discipline's interface; the kernel itself does.
    let out = look(guest, "sch_sfq --refscan /lib/modules/*/refscan.ko");
    let shaped =
        "use count of `sch_sfq`: 1\n  network interface `ifb0` is the module's by its qdisc\nwatching";
    assert!(out.starts_with(shaped), "{out}");
    assert!(!scanner_is_loaded(guest));
    assert_eq!(instances(guest), 0);
}

/// The guest with `refmod` loaded, and with the command and the scanner to load.
fn to_look_from(session: &mut Session) -> &mut Guest {
    assert_eq!(session.load("refmod", false, "", false).unwrap().answer, Ok(()));
    session.push(SCANNER, false).unwrap();
    let guest = session.guest();
    guest.set_limit(Duration::from_secs(60));
    copy_command(guest);
    guest
}

/// How many of the command's tracefs instances there are.
fn instances(guest: &mut Guest) -> usize {
    let list = guest.run(shell("ls /sys/kernel/tracing/instances")).unwrap().unwrap().stdout.text();
    list.lines().filter(|name| name.starts_with("kmodlab-live-")).count()
}
