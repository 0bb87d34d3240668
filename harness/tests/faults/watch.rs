//! Runs that wait for changes.

use fs_err as fs;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::project::Project;
use crate::{common, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("watch::what_a_change_touches_is_run_again_until_interrupted", touched)]
}

const WAITING: &str = "waiting for changes";

fn touched() {
    let load = "steps:\n  - load: fault\n";
    let project = Project::new().scenario("one", "steps:\n  - run: 'true'\n").scenario("two", load);
    // A copy, which can be changed.
    let module = project.path("test-modules/fault");
    fs::remove_file(&module).unwrap();
    fs::create_dir(&module).unwrap();
    for file in ["Kbuild", "fault.c"] {
        let source = common::repository().join("harness/tests/faults/modules/fault").join(file);
        fs::copy(source, module.join(file)).unwrap();
    }
    let run = project.run(&["--watch"]).start();
    run.wait_for_times(WAITING, 1);
    run.wait_for_times("2 cases, ", 1);

    let scenario = project.path("scenarios/one.yaml");
    fs::write(&scenario, "name: one\nsteps:\n  - run: 'false'\n").unwrap();
    run.wait_for_times("FAIL one@x86_64: one", 1);
    run.wait_for_times(WAITING, 2);

    let source = module.join("fault.c");
    let text = fs::read_to_string(&source).unwrap().replace("\"loaded\\n\"", "\"loaded anew\\n\"");
    fs::write(&source, text).unwrap();
    run.wait_for_times(WAITING, 3);

    fs::write(&scenario, "name: one\nstep: []\n").unwrap();
    run.wait_for_times("unknown key `step`", 1);
    run.wait_for_times(WAITING, 4);
    fs::write(&scenario, "name: one\nsteps:\n  - run: 'true'\n").unwrap();
    run.wait_for_times(WAITING, 5);

    fs::write(project.path("images/notes.txt"), "no image").unwrap();
    run.signal(Signal::INT);
    let ended = run.finish();
    assert_eq!(ended.code, Some(130), "{ended:#?}");
    let count = |words: &str| ended.stderr.matches(words).count();
    let passed = (count("PASS ["), count("] one@x86_64\n"), count("] two@x86_64\n"));
    // Of the scenario: passed, failed, passed. Of the other, with the module as it was and changed.
    assert_eq!(passed, (4, 3, 2), "{ended:#?}");
    assert_eq!(count(WAITING), 5, "{ended:#?}");
}
