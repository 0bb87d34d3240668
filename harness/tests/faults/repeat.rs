//! A case run many times, to find a race.

use libtest_mimic::Trial;

use crate::project::Project;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("repeat::each_repeat_has_a_guest_of_its_own", || {
            // A second one in the same guest would find the file.
            let text = "steps:\n  - spawn: { name: a, run: sleep 100 }\n  - run: test ! -e /tmp/x\n  - run: touch /tmp/x\n";
            let ended = Project::new().scenario("case", text).run(&["--repeat", "3"]).finish();
            assert_eq!(ended.code, Some(0), "{ended:#?}");
            ended.expect_words(&["case#1@", "case#3@", "3 passed"]);
        }),
        trial("repeat::the_first_failure_ends_it_and_says_its_seed", || {
            let project = Project::new().scenario("case", "steps:\n  - run: 'false'\n");
            let ended = project.run(&["--repeat", "9", "--until-fail", "--seed", "41", "-j", "1"]).finish();
            assert_eq!(ended.code, Some(1), "{ended:#?}");
            ended.expect_words(&["case#1@", "--seed 41", "1 case in", "1 failed"]);
            assert!(!ended.stderr.contains("case#2@"), "{ended:#?}");
        }),
        trial("repeat::only_what_passes_is_repeated_before_it_is_believed", || {
            let project = Project::new().scenario("bad", "steps:\n  - run: 'false'\n");
            let project = project.scenario("good", "steps:\n  - run: 'true'\n");
            let ended = project.run(&["--flaky-repeat", "3", "-j", "1"]).finish();
            assert_eq!(ended.code, Some(1), "{ended:#?}");
            ended.expect_words(&["bad#1@", "good#1@", "good#3@", "3 passed", "1 failed"]);
            assert!(!ended.stderr.contains("bad#2@"), "{ended:#?}");
        }),
    ]
}
