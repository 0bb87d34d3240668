//! What was packed on one machine, on another.

use std::os::unix::fs::PermissionsExt;

use fs_err as fs;
use kmodlab::process;
use libtest_mimic::Trial;

use crate::project::{Ended, Project};
use crate::signals::leftovers;
use crate::{IMAGE, common, trial};

const CASES: &str = "steps:\n  - load: fault\n";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("pack::what_was_packed_is_all_that_another_cache_needs", all_that_is_needed),
        trial("pack::a_file_that_is_damaged_is_refused", damaged),
        trial("pack::a_snapshot_of_another_qemu_is_made_anew_with_one_line", another_qemu),
    ]
}

/// Packs what the project's cases start from.
fn packed() -> (Project, std::path::PathBuf) {
    let project = Project::new().scenario("case", CASES);
    let cache = project.cache(&["snapshot", "module"]);
    let file = project.path("images.tar.zst");
    let ended = project.kmodlab(&["image", "pack", file.to_str().unwrap(), IMAGE]).cache(&cache).finish();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("1 module") && ended.stdout.contains("1 snapshot"), "{ended:#?}");
    fs::rename(&cache, project.path("packed")).unwrap();
    (project, file)
}

fn all_that_is_needed() {
    let (project, file) = packed();
    let cache = project.path("elsewhere/cache");
    let unpack = || {
        let args = ["image", "unpack", file.to_str().unwrap()];
        let ended = project.kmodlab(&args).cache(&cache).finish();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        ended.stdout
    };
    assert!(unpack().ends_with(" entries unpacked, 0 were there\n"));
    assert!(unpack().starts_with("0 entries unpacked, "));
    // Nothing listens there.
    let run = project.run(&[]).cache(&cache).env("KMODLAB_DEBIAN_MIRROR", "http://127.0.0.1:9/debian");
    let ended = run.finish();
    assert_eq!(ended.expect_pass().start(), Some("warm"), "{ended:#?}");
    for work in ["warning", "build ", "compile ", "save a snapshot", "download "] {
        assert_eq!(ended.says(work), 0, "{work}: {ended:#?}");
    }
    assert_eq!(leftovers(&cache), Vec::<String>::new());
}

fn damaged() {
    let (project, file) = packed();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let cache = project.path("elsewhere");
    let ended = project.kmodlab(&["image", "unpack", file.to_str().unwrap()]).cache(&cache).finish();
    assert_eq!(ended.code, Some(125), "{ended:#?}");
    ended.expect_words(&["cannot be unpacked", "make it anew with `kmodlab image pack`"]);
    assert_eq!(leftovers(&cache), Vec::<String>::new());
}

fn another_qemu() {
    let project = Project::new()
        .scenario("case", CASES)
        .scenario("two-cpus", "machine: { smp: 2 }\nsteps:\n  - load: fault\n");
    let cache = project.cache(&["snapshot"]);
    // The same program by other means is another build to whoever looks at its content.
    let arch = common::arch(IMAGE);
    let other = project.path("bin");
    fs::create_dir(&other).unwrap();
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", process::find(arch.qemu).unwrap().display());
    fs::write(other.join(arch.qemu), script).unwrap();
    fs::set_permissions(other.join(arch.qemu), PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", other.display(), std::env::var("PATH").unwrap());
    let expect = |ended: Ended, made: usize, lines: usize| {
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        assert_eq!(ended.says("boot x86_64 and save a snapshot"), made, "{ended:#?}");
        assert_eq!(ended.says("warning"), lines, "{ended:#?}");
        let line = "x86_64: the snapshot at hand is of another build of QEMU emulator version ";
        assert_eq!(ended.says(line), lines, "{ended:#?}");
    };
    expect(project.run(&[]).cache(&cache).finish(), 2, 0);
    expect(project.run(&[]).cache(&cache).env("PATH", &path).finish(), 2, 1);
    // Both are there now.
    expect(project.run(&[]).cache(&cache).env("PATH", &path).finish(), 0, 0);
    expect(project.run(&[]).cache(&cache).finish(), 0, 0);
}
