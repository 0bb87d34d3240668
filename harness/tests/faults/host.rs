//! A host that lacks something, or takes it away.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fs_err as fs;
use kmodlab::gdb::GDB;
use kmodlab::lab::Lab;
use kmodlab::run::{Event, Options, Outcome, Reporter, run_all};
use kmodlab::work::{Cancel, Unwatched};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::processes::Found;
use crate::project::Project;
use crate::{IMAGE, common, trial};

const LOAD: &str = "steps:\n  - load: fault\n";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("host::a_killed_qemu_is_an_error_of_the_step", || {
            let reason = kill_qemu(Signal::KILL);
            assert!(
                reason.starts_with("step 1 (run sleep 1000): QEMU ended: killed by signal 9"),
                "{reason}"
            );
        }),
        trial("host::a_qemu_that_is_told_to_end_is_an_error_too", || {
            let reason = kill_qemu(Signal::TERM);
            let said = "step 1 (run sleep 1000): QEMU ended: exit status 0, host-signal";
            assert!(reason.starts_with(said), "{reason}");
        }),
        trial("host::a_missing_qemu_is_named_with_its_package", || {
            let project = Project::new().scenario("case", LOAD);
            let arch = common::arch(IMAGE);
            for args in [&[][..], &["--cold"], &["--accel", "kvm"]] {
                let path = path_without(&project, &[arch.qemu]);
                let ended = project.run(args).env("PATH", path).finish();
                assert_eq!((ended.code, ended.case().outcome()), (Some(125), "error"), "{ended:#?}");
                let words = format!(
                    "`{}` is not installed or not in PATH\n  install the package `{}`",
                    arch.qemu, arch.qemu_package
                );
                ended.expect_words(&[&words]);
            }
        }),
        trial("host::a_missing_compiler_is_named_with_its_packages", || {
            let project = Project::new().scenario("case", LOAD);
            let cross = format!("{}gcc", common::arch(IMAGE).cross);
            let path = path_without(&project, &["gcc", &cross]);
            let ended = project.run(&[]).env("PATH", path).finish();
            assert_eq!((ended.code, ended.case().outcome()), (Some(125), "error"), "{ended:#?}");
            let words = format!("no C compiler for {IMAGE}: `{cross}` is not installed");
            let [gcc, libc] = kmodlab::image::compiler::packages(common::arch(IMAGE));
            ended.expect_words(&[&words, &format!("install the packages `{gcc}` and `{libc}`")]);
        }),
        trial("host::a_missing_make_is_named", || {
            let project = Project::new().scenario("case", LOAD);
            let path = path_without(&project, &["make"]);
            // Nothing is built yet in a cache of its own.
            let ended = project.run(&[]).cache(&project.cache(&[])).env("PATH", path).finish();
            assert_eq!((ended.code, ended.case().outcome()), (Some(125), "error"), "{ended:#?}");
            ended.expect_words(&["`make` is not installed or not in PATH"]);
        }),
        trial("host::a_missing_gdb_is_named_with_its_package", || {
            let project = Project::new().scenario("case", "steps:\n  - break: do_exit\n");
            let path = path_without(&project, &[GDB]);
            let ended = project.run(&[]).env("PATH", path).finish();
            assert_eq!((ended.code, ended.case().outcome()), (Some(125), "error"), "{ended:#?}");
            ended.expect_words(&[&format!("`{GDB}` is not installed\n  install the package `{GDB}`")]);
        }),
        trial("host::a_breakpoint_on_what_there_is_not_is_a_failure_in_gdbs_words", || {
            let project = Project::new().scenario("case", "steps:\n  - break: no_such_function\n");
            let ended = project.run(&[]).finish();
            assert_eq!((ended.code, ended.case().outcome()), (Some(1), "fail"), "{ended:#?}");
            ended.expect_words(&[
                "step 1 (break no_such_function): break no_such_function: expected a breakpoint",
                "Function \"no_such_function\" not defined.",
            ]);
        }),
        trial("host::a_breakpoint_that_is_not_hit_is_waited_for_up_to_the_steps_limit", || {
            let steps = "steps:\n  - break: kernel_restart\n  - run: 'true'\n    timeout: 2s\n    \
                         expect: { backtrace: kernel_restart }\n";
            let ended = Project::new().scenario("case", steps).run(&[]).finish();
            assert_eq!((ended.code, ended.case().outcome()), (Some(1), "timeout"), "{ended:#?}");
            ended.expect_words(&["step 2 (run true) did not end within 2s: no breakpoint was hit"]);
        }),
        trial("host::a_device_that_fits_nowhere_is_a_failure_in_qemus_words", || {
            let steps = "steps:\n  - plug: { name: disk, device: usb-storage }\n";
            let ended = Project::new().scenario("case", steps).run(&[]).finish();
            assert_eq!((ended.code, ended.case().outcome()), (Some(1), "fail"), "{ended:#?}");
            ended.expect_words(&["plug usb-storage: expected success", "No 'usb-bus' bus found"]);
        }),
        trial("host::kvm_that_opens_and_fails_is_an_error_where_it_was_asked_for", || {
            let ended = broken_kvm(&["--accel", "kvm"]);
            assert_eq!((ended.code, ended.case().outcome()), (Some(125), "error"), "{ended:#?}");
            ended.expect_words(&["KVM does not serve: ", "leave out `--accel kvm` to use TCG"]);
        }),
        trial("host::kvm_that_opens_and_fails_is_not_used_where_it_was_not", || {
            let ended = broken_kvm(&[]);
            assert_eq!(ended.expect_pass().start(), Some("cold"));
        }),
        trial("host::kvm_that_runs_a_cpu_and_boots_no_kernel_is_not_used", || {
            let ended = kvm_without_kernels(&[]);
            assert_eq!(ended.expect_pass().start(), Some("cold"));
            let ended = kvm_without_kernels(&["--accel", "kvm"]);
            assert_eq!((ended.code, ended.case().outcome()), (Some(125), "error"), "{ended:#?}");
            ended.expect_words(&["KVM does not serve: a virtual cpu runs, but ", " does not boot: "]);
        }),
        trial("host::kvm_as_it_is_here_serves_or_is_said_not_to", || {
            let project = Project::new().scenario("case", "steps:\n  - run: 'true'\n");
            let ended = project.run(&["--accel", "kvm"]).finish();
            match ended.case().outcome() {
                "pass" => assert_eq!(ended.code, Some(0)),
                outcome => {
                    assert_eq!((ended.code, outcome), (Some(125), "error"), "{ended:#?}");
                    ended.expect_words(&["KVM does not serve: "]);
                }
            }
            project.run(&["--accel", "auto"]).finish().expect_pass();
        }),
        trial("host::a_cache_that_cannot_be_made_is_an_error", || {
            let project = Project::new().scenario("case", LOAD);
            let ended = project.run(&[]).cache("/dev/null/cache".as_ref()).finish();
            assert_eq!(ended.code, Some(125), "{ended:#?}");
            ended.expect_words(&["/dev/null/cache"]);
        }),
    ]
}

/// Kills QEMU when a case begins its only step, and gives the reason of the error that this is.
fn kill_qemu(signal: Signal) -> String {
    let project = Project::new().scenario("case", "steps:\n  - run: sleep 1000\n");
    let cancel = Cancel::new().unwrap();
    let lab = Lab::open(Some(&project.path("")), None, Arc::new(Unwatched), cancel).unwrap();
    let cases = lab.cases(&[], lab.images()).unwrap();
    let killer = Killer { signal, outcome: Mutex::new(None) };
    let summary = run_all(&lab, &cases, 1, Options::default(), &killer);
    assert_eq!((summary.totals.exit_code(), summary.interrupted), (125, false));
    match killer.outcome.into_inner().unwrap() {
        Some(Outcome::Error(reason)) => reason,
        outcome => panic!("{outcome:?}"),
    }
}

struct Killer {
    signal: Signal,
    outcome: Mutex<Option<Outcome>>,
}

impl Reporter for Killer {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::StepStarted { .. } => {
                // A case stays on one thread, whose only child its QEMU is (proc(5)).
                let children = fs::read_to_string("/proc/thread-self/children").unwrap();
                let children: Vec<_> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
                assert_eq!(children.len(), 1);
                let qemu = Found::of(children[0]).unwrap();
                assert!(qemu.command.contains("-incoming"), "{qemu:?}");
                qemu.kill(self.signal);
            }
            Event::CaseFinished(report) => *self.outcome.lock().unwrap() = Some(report.outcome.clone()),
            _ => {}
        }
    }
}

/// Runs a case with a QEMU whose KVM fails as it does where a hypervisor offers KVM and not all that it takes.
fn broken_kvm(args: &[&str]) -> crate::project::Ended {
    with_kvm("*' -accel kvm '*)\n    echo 'failed to set an MSR' >&2\n    kill -ABRT $$", args)
}

/// Runs a case with a QEMU whose KVM runs a firmware, and ends at a kernel, as it does where a hypervisor's KVM cannot
/// run all instructions.
fn kvm_without_kernels(args: &[&str]) -> crate::project::Ended {
    let arms = "*' -accel kvm '*' -kernel '*)\n    exit 1 ;;\n*' -accel kvm '*)\n    \
                set -- $(echo \"$*\" | sed 's/-accel kvm/-accel tcg/; s/-cpu host/-cpu max/')";
    with_kvm(arms, args)
}

/// Runs a case with a QEMU in whose stead a shell's `case` decides, given arms on the arguments.
fn with_kvm(arms: &str, args: &[&str]) -> crate::project::Ended {
    let project = Project::new().scenario("case", "steps:\n  - run: 'true'\n");
    let qemu = common::arch(IMAGE).qemu;
    let real = kmodlab::process::find(qemu).unwrap();
    let path = path_without(&project, &[qemu]);
    let script = format!("#!/bin/sh\ncase \" $* \" in\n{arms}\nesac\nexec {} \"$@\"\n", real.display());
    let file = path.join(qemu);
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Another QEMU has other snapshots and another trial of KVM, which are of no use to others.
    let cache = project.cache(&["kvm"]);
    project.run(&[&["--cold"], args].concat()).cache(&cache).env("PATH", path).finish()
}

/// A folder with everything that `PATH` leads to, but for some programs.
fn path_without(project: &Project, programs: &[&str]) -> PathBuf {
    let folder = project.path("bin");
    fs::remove_dir_all(&folder)
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
        .unwrap();
    fs::create_dir(&folder).unwrap();
    for dir in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        // PATH may name folders that are not there.
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let link = folder.join(entry.file_name());
            let wanted = !programs.iter().any(|program| entry.file_name() == *program);
            // The first folder of PATH wins.
            if wanted && !link.exists() {
                symlink(entry.path(), link).unwrap();
            }
        }
    }
    folder
}
