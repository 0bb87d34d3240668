//! A harness that is told to end, or killed.

use std::path::{Path, PathBuf};

use fs_err as fs;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::project::{Ended, Kmodlab, Project};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let interrupted = |name: &str, signal, moment| {
        trial(&format!("signals::{name}_ends_everything"), move || expect_interrupted(moment, signal))
    };
    let killed = |name: &str, moment| {
        trial(&format!("signals::sigkill_{name}_leaves_nothing"), move || expect_recovery(moment))
    };
    vec![
        interrupted("sigint_in_a_step", Signal::INT, STEP),
        interrupted("sigterm_in_a_step", Signal::TERM, STEP),
        interrupted("sigint_in_a_boot", Signal::INT, BOOT),
        interrupted("sigterm_in_a_build", Signal::TERM, BUILD),
        killed("in_a_step", STEP),
        trial("signals::sigkill_at_a_breakpoint_leaves_nothing", || {
            let project = Project::new()
                .scenario(
                    "waits",
                    "steps:\n  - load: fault\n  - break: vfs_statx\n  - run: sleep 1000\n    timeout: 50m\n",
                )
                .scenario("passes", "steps:\n  - load: fault\n");
            let temporary = tempfile::tempdir().unwrap();
            let run = project.run(&["waits"]).env("TMPDIR", temporary.path()).start();
            run.wait_for_process("attach.gdb");
            run.end_by(Signal::KILL);
            let left = || fs::read_dir(temporary.path()).unwrap().count();
            assert_eq!(left(), 1);
            project.run(&["passes"]).env("TMPDIR", temporary.path()).finish().expect_pass();
            assert_eq!(left(), 0);
        }),
        killed("while_a_snapshot_is_made", BOOT),
        killed("while_a_module_is_built", BUILD),
    ]
}

/// A moment in a run.
#[derive(Clone, Copy)]
struct Moment {
    /// What is in the command line of a process that runs then.
    process: &'static str,
    /// Whether it comes only where nothing was built or booted yet.
    empty: bool,
}

const STEP: Moment = Moment { process: "-incoming defer", empty: false };
const BOOT: Moment = Moment { process: "share=on", empty: true };
const BUILD: Moment = Moment { process: "/fault/fault.c", empty: true };

/// A run that waits in a step, should it come to that, and the means for another that does not.
struct Victim {
    project: Project,
    cache: Option<PathBuf>,
}

impl Victim {
    fn new(moment: Moment) -> Self {
        let project = Project::new()
            .scenario("waits", "steps:\n  - load: fault\n  - run: sleep 1000\n    timeout: 50m\n")
            .scenario("passes", "steps:\n  - load: fault\n");
        let cache = moment.empty.then(|| project.cache(&[]));
        Victim { project, cache }
    }

    fn run(&self, scenario: &str) -> Kmodlab {
        let run = self.project.run(&[scenario]);
        match &self.cache {
            Some(cache) => run.cache(cache),
            None => run,
        }
    }

    /// Sends it a signal at the moment, and sees that nothing that it had started goes on.
    fn signal(&self, moment: Moment, signal: Signal) -> Ended {
        let run = self.run("waits").start();
        run.wait_for_process(moment.process);
        run.end_by(signal)
    }

    /// In a cache of its own no temporary file is left. In the shared one others may be at work.
    fn expect_no_leftovers(&self) {
        if let Some(cache) = &self.cache {
            assert_eq!(leftovers(cache), Vec::<String>::new());
        }
    }
}

fn expect_interrupted(moment: Moment, signal: Signal) {
    let victim = Victim::new(moment);
    let ended = victim.signal(moment, signal);
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    ended.expect_words(&["0 cases in ", "; interrupted"]);
    let report = ended.report();
    assert_eq!(report["interrupted"], true, "{ended:#?}");
    assert_eq!(report["cases"].as_array().map(Vec::len), Some(0), "{ended:#?}");
    victim.expect_no_leftovers();
}

/// After a harness that was killed, the next one runs as if there had been none, and sweeps what it left.
fn expect_recovery(moment: Moment) {
    let victim = Victim::new(moment);
    let ended = victim.signal(moment, Signal::KILL);
    assert_eq!(ended.code, None, "{ended:#?}");
    let ended = victim.run("passes").finish();
    assert_eq!(ended.expect_pass().start(), Some("warm"), "{ended:#?}");
    assert_eq!(ended.says("warning"), 0, "{ended:#?}");
    victim.expect_no_leftovers();
}

/// What is left in a cache's folder for temporary files.
pub(crate) fn leftovers(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(cache.join("tmp")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
