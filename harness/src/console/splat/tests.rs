use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn splats(log: &str) -> Vec<Splat> {
    let mut reader = SplatReader::default();
    log.lines().for_each(|line| reader.push_line(line));
    reader.finish();
    reader.collect()
}

fn one(log: &str) -> Splat {
    let mut all = splats(log);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[rstest]
#[case(
    "WARNING: CPU: 1 PID: 86 at kernel/module/main.c:1127 module_put.part.0+0x4a/0x60",
    "WARNING in module_put"
)]
#[case(
    "WARNING: kernel/module/main.c:1127 at module_put+0x4a/0x60, CPU#1: insmod/86",
    "WARNING in module_put"
)]
#[case("WARNING: at kernel/module.c:976 module_put+0x4a/0x60()", "WARNING in module_put")]
#[case("WARNING: CPU: 1 PID: 86 at kernel/module/main.c:1127", "WARNING at kernel/module/main.c")]
#[case("WARNING: CPU: 0 PID: 35 at register_kprobe+0xf2/0x590", "WARNING in register_kprobe")]
#[case("WARNING: at register_kprobe+0xf2/0x590, CPU#0: sh/35", "WARNING in register_kprobe")]
#[case("Break instruction in kernel code[#1]:", "Break instruction in kernel code")]
#[case("Oops[#1]:", "oops")]
#[case(
    "CPU 0 Unable to handle kernel paging request at virtual address 0000000000000008, epc == ffffffffc0040010, ra == 0",
    "page fault"
)]
#[case("Kernel bug detected[#12]:", "kernel BUG")]
#[case("illegal operation: 0001 ilc:1 [#1] SMP", "illegal operation")]
#[case("insmod(86): Kernel bad sw trap 5 [#1]", "Kernel bad sw trap 5")]
#[case("kernel BUG at /build/x/refmod.c:12!", "kernel BUG at /build/x/refmod.c")]
#[case("BUG: kernel NULL pointer dereference, address: 0000000000000008", "NULL pointer dereference")]
#[case(
    "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
    "general protection fault"
)]
#[case("Kernel panic - not syncing: sysrq triggered crash", "kernel panic: sysrq triggered crash")]
#[case(
    "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009",
    "kernel panic: Attempted to kill init! exitcode=N"
)]
#[case("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [insmod:86]", "soft lockup")]
#[case("watchdog: Watchdog detected hard LOCKUP on cpu 1", "hard lockup")]
#[case("watchdog: CPU 1 Hard LOCKUP", "hard lockup")]
#[case("INFO: task insmod:86 blocked for more than 120 seconds.", "hung task")]
#[case("rcu: INFO: rcu_preempt self-detected stall on CPU", "RCU stall")]
#[case("INFO: rcu_sched detected stalls on CPUs/tasks:", "RCU stall")]
#[case("WARNING: possible circular locking dependency detected", "possible circular locking dependency")]
#[case("[ INFO: possible recursive locking detected ]", "possible recursive locking")]
#[case("WARNING: suspicious RCU usage", "suspicious RCU usage")]
#[case(
    "BUG: KASAN: use-after-free in refmod_read+0x12/0x80 [refmod]",
    "KASAN: use-after-free in refmod_read"
)]
#[case(
    "BUG: KFENCE: out-of-bounds read in refmod_read+0x12/0x80",
    "KFENCE: out-of-bounds read in refmod_read"
)]
#[case("BUG: KCSAN: data-race in f / g", "KCSAN: data-race in f")]
#[case(
    "UBSAN: shift-out-of-bounds in drivers/x/refmod.c:12:3",
    "UBSAN: shift-out-of-bounds in drivers/x/refmod.c"
)]
#[case("BUG: scheduling while atomic: insmod/86/0x00000002", "scheduling while atomic")]
#[case(
    "BUG: sleeping function called from invalid context at mm/slab.h:512",
    "sleeping function called from invalid context at mm/slab.h"
)]
#[case("BUG: Bad page state in process insmod  pfn:12345", "bad page state")]
#[case("BUG: spinlock bad magic on CPU#0, insmod/86", "spinlock bad magic")]
fn titles(#[case] line: &str, #[case] title: &str) {
    let splat = one(&format!("[    1.000000] {line}"));
    assert_eq!(splat.title, title);
    assert_eq!(splat.lines, [line]);
}

#[rstest]
#[case("Kernel command line: console=ttyS0 oops=panic panic=-1")]
#[case("refmod: BUG: unable to handle kernel NULL pointer dereference")]
#[case("refmod: Oops: 0002 [#1] would be bad")]
#[case("refmod: 3 of [#1]")]
#[case("refmod: message[#1]: more")]
#[case("BUG: my own message")]
#[case("WARNING: the module is tainted")]
#[case("WARNING: look at main.c:12 please")]
#[case("INFO: task manager started")]
#[case("DMA: Kernel panic - not syncing: no")]
#[case("watchdog: CPU 1 became unstuck")]
#[case("rcu: INFO: rcu is fine")]
#[case("systemd[1]: Kernel panic - not syncing")]
#[case("general: protection fault")]
fn harmless_lines(#[case] line: &str) {
    assert_eq!(splats(&format!("[    1.000000] {line}\n{line}")), []);
}

const WARN: &str = "\
[    3.000000] refmod: loaded
[    3.100000] ------------[ cut here ]------------
[    3.100001] refcount_t: underflow; use-after-free.
[    3.100002] WARNING: CPU: 1 PID: 86 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110
[    3.100003] Modules linked in: refmod(OE)
[    3.100004] CPU: 1 PID: 86 Comm: my prog Tainted: G           OE      6.1.0 #1
[    3.100005] RIP: 0010:refcount_warn_saturate+0xba/0x110
[    3.100006] Call Trace:
[    3.100007]  <TASK>
[    3.100008]  refmod_exit+0x12/0x20 [refmod]
[    3.100009]  </TASK>
[    3.100010] ---[ end trace 0000000000000000 ]---
[    3.200000] refmod: gone
";

#[test]
fn a_warning_from_its_head_to_its_end() {
    let splat = one(WARN);
    assert_eq!((splat.kind, splat.title.as_str()), (SplatKind::Warn, "WARNING in refcount_warn_saturate"));
    assert_eq!((splat.cpu, splat.pid, splat.comm.as_deref()), (Some(1), Some(86), Some("my prog")));
    assert!(splat.complete);
    assert_eq!(splat.lines.len(), 11);
    assert_eq!(splat.lines.first().map(String::as_str), Some("------------[ cut here ]------------"));
    assert_eq!(splat.lines.last().map(String::as_str), Some("---[ end trace 0000000000000000 ]---"));
}

#[test]
fn a_report_can_be_watched_as_it_comes() {
    let mut reader = SplatReader::default();
    for line in WARN.lines().take(8) {
        reader.push_line(line);
    }
    assert_eq!(reader.next(), None);
    assert_eq!(reader.current().map(|splat| splat.title.as_str()), Some("WARNING in refcount_warn_saturate"));
    reader.finish();
    assert_eq!(reader.next().map(|splat| splat.complete), Some(false));
}

#[test]
fn an_oops_is_one_report_and_the_panic_after_it_another() {
    let all = splats(
        "Kernel attempted to read user page (8) - exploit attempt? (uid: 0)\n\
         BUG: Kernel NULL pointer dereference on read at 0x00000008\n\
         Faulting instruction address: 0xc008000000f40050\n\
         Oops: Kernel access of bad area, sig: 11 [#1]\n\
         CPU: 0 PID: 86 Comm: insmod Not tainted 6.1.0 #1\n\
         NIP:  c008000000f40050 LR: c008000000f4004c CTR: c0000000001f2af0\n\
         NIP [c008000000f40050] .boom_init+0x50/0x80 [boom]\n\
         ---[ end trace 0000000000000000 ]---\n\
         \n\
         Kernel panic - not syncing: Fatal exception\n\
         Rebooting in 1 seconds..\n",
    );
    let titles: Vec<_> = all.iter().map(|splat| (splat.title.as_str(), splat.complete)).collect();
    assert_eq!(
        titles,
        [("NULL pointer dereference in boom_init", true), ("kernel panic: Fatal exception", true)]
    );
    assert_eq!((all[0].kind, all[1].kind), (SplatKind::Oops, SplatKind::Panic));
}

#[test]
fn a_report_without_a_marker_ends_after_its_trace() {
    let all = splats(
        "INFO: task insmod:86 blocked for more than 10 seconds.\n\
         \x20     Tainted: G           OE      6.1.0 #1\n\
         task:insmod          state:D stack:    0 pid:   86 ppid:     1 flags:0x00000000\n\
         \x20__schedule from schedule+0x60/0xf0\n\
         \x20schedule from boom_wait+0x10/0x20 [boom]\n\
         \x20boom_wait from do_one_initcall+0x50/0x200\n\
         Exception stack(0xe0a35fa8 to 0xe0a35ff0)\n\
         5fa0:                   00000000 00000001 00000003 00000000\n\
         refmod: still here\n\
         BUG: my own message\n",
    );
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].title.as_str(), all[0].complete), ("hung task in boom_wait", true));
    assert_eq!((all[0].lines.len(), all[0].comm.as_deref(), all[0].pid), (8, Some("insmod"), Some(86)));
}

#[test]
fn two_reports_on_end() {
    let all = splats(&format!("{WARN}{}", WARN.replace("PID: 86", "PID: 87")));
    assert_eq!(all.iter().map(|splat| splat.pid).collect::<Vec<_>>(), [Some(86), Some(87)]);
    let cut: String = WARN.lines().take(6).map(|line| format!("{line}\n")).collect();
    let all = splats(&format!("{cut}{WARN}"));
    assert_eq!(all.iter().map(|splat| splat.complete).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_user_space_logs_is_no_report() {
    let mut record = LogRecord {
        level: 2,
        facility: 1,
        seq: 1,
        time: std::time::Duration::ZERO,
        caller: None,
        text: "Kernel panic - not syncing: not really".to_owned(),
        dict: Vec::new(),
    };
    let mut reader = SplatReader::default();
    reader.push_record(&record);
    assert_eq!(reader.current(), None);
    record.facility = 0;
    reader.push_record(&record);
    assert_eq!(reader.current().map(|splat| splat.kind), Some(SplatKind::Panic));
}

#[test]
fn an_endless_report_is_cut() {
    let log: String = std::iter::repeat_n("x\n", 5 * MAX_LINES).collect();
    let splat = one(&format!("Internal error: Oops: 5 [#1]\n{log}"));
    assert_eq!((splat.lines.len(), splat.complete), (MAX_LINES, false));
}

proptest! {
    #[test]
    fn any_lines_are_read(lines in proptest::collection::vec("\\PC{0,60}|(BUG|WARNING|INFO|Oops|watchdog|rcu|CPU)[: ]{0,2}(at|CPU|task|KASAN|PID|INFO)?[: #]{0,2}\\PC{0,30}", 0..30)) {
        for splat in splats(&lines.join("\n")) {
            prop_assert!(!splat.lines.is_empty());
        }
    }
}

/// A report in a line of an `.expect` file.
fn summary(splat: &Splat) -> String {
    let kind = serde_json::to_value(splat.kind).unwrap();
    let whereabouts = [
        splat.cpu.map(|cpu| format!("cpu {cpu}")),
        splat.pid.map(|pid| format!("pid {pid}")),
        splat.comm.clone(),
        (!splat.complete).then(|| "incomplete".to_owned()),
    ];
    let whereabouts: Vec<_> = whereabouts.into_iter().flatten().collect();
    let (title, lines) = (&splat.title, splat.lines.len());
    format!("{}: {title} [{}; {lines} lines]\n", kind.as_str().unwrap(), whereabouts.join(", "))
}

/// Every log of the corpus against what is expected beside it; `KMODLAB_BLESS=1` writes the expectations anew.
#[test]
fn corpus() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/console");
    let bless = std::env::var_os("KMODLAB_BLESS").is_some_and(|value| value == "1");
    let (mut logs, mut wrong) = (0, Vec::new());
    for entry in fs_err::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        logs += 1;
        let log = fs_err::read_to_string(&path).unwrap();
        let found: String = splats(&log).iter().map(summary).collect();
        let expectation = path.with_extension("expect");
        if bless {
            fs_err::write(&expectation, found).unwrap();
        } else {
            let expected = fs_err::read_to_string(&expectation).unwrap();
            if expected != found {
                wrong.push(format!("{}\nexpected:\n{expected}found:\n{found}", path.display()));
            }
        }
    }
    assert!(logs > 0, "no logs in {}", folder.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
