//! What kernels cannot do: `limits.yaml`.

use fs_err as fs;
use libtest_mimic::Trial;

use crate::project::Project;
use crate::trial;

fn with_limits(project: Project, ends: &str) -> Project {
    let on = "on: { kernel: \">=3.0\", reason: no such thing (kernel/thing.c) }";
    let text = format!("- scenario: case\n  {on}\n  ends: {ends}\n");
    fs::write(project.path("scenarios/limits.yaml"), text).unwrap();
    project
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("limits::a_case_that_ends_as_its_limit_says_is_skipped", || {
            let project = Project::new().scenario("case", "steps:\n  - run: 'false'\n");
            let ended = with_limits(project, "fail").run(&[]).finish();
            assert_eq!(ended.code, Some(0), "{ended:#?}");
            ended.expect_words(&["1 skipped", "no such thing (kernel/thing.c)"]);
        }),
        trial("limits::one_that_ends_otherwise_is_not", || {
            let project = Project::new().scenario("case", "steps:\n  - run: 'false'\n");
            let ended = with_limits(project, "timeout").run(&[]).finish();
            assert_eq!(ended.code, Some(1), "{ended:#?}");
            ended.expect_words(&["1 failed"]);
        }),
        trial("limits::one_that_passes_puts_its_limit_out_of_date", || {
            let project = Project::new().scenario("case", "steps:\n  - run: 'true'\n");
            let ended = with_limits(project, "fail").run(&[]).finish();
            assert_eq!(ended.code, Some(0), "{ended:#?}");
            ended.expect_words(&["1 passed", "passes: its entry in limits.yaml, line 1, is out of date"]);
        }),
    ]
}
