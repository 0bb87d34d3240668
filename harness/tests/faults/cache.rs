//! A cache that is damaged, full, or wanted by two.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use kmodlab::process::Command;
use kmodlab::work::Cancel;
use libtest_mimic::Trial;

use crate::project::{Ended, Project, link_prepared};
use crate::signals::leftovers;
use crate::{IMAGE, common, trial};

const LOAD: &str = "steps:\n  - load: fault\n";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("cache::two_runs_at_once_do_the_work_once", two_runs),
        on_a_small_disk(
            "cache::no_room_for_a_snapshot_is_warned_of_and_every_case_boots",
            no_room_for_a_snapshot,
        ),
        on_a_small_disk("cache::no_room_for_a_module_is_an_error", no_room_for_a_module),
    ];
    let fetch: &[&str] = &["image", "fetch", IMAGE];
    for (kind, file) in [("kernels", "kernel"), ("initramfs", "initramfs"), ("agents", "agent")] {
        trials.push(trial(&format!("cache::a_damaged_entry_of_{kind}_is_remade"), move || {
            damage(kind, &[file], |project| project.kmodlab(fetch).cache(&project.path("cache")).finish());
        }));
    }
    trials.push(trial("cache::a_damaged_module_is_remade", || {
        let build: &[&str] = &["module", "build", "fault", "--image", IMAGE];
        damage("module", &["fault.ko"], |project| {
            project.kmodlab(build).cache(&project.path("cache")).finish()
        });
    }));
    trials.push(trial("cache::a_damaged_snapshot_is_remade", || {
        damage("snapshot", &["memory", "state"], |project| {
            let ended = project.run(&[]).cache(&project.path("cache")).finish();
            assert_eq!(ended.expect_pass().start(), Some("warm"), "{ended:#?}");
            ended
        });
    }));
    trials
}

/// Has an entry of a cache made, damages each of its files in every way, and has it made again each time.
fn damage(kind: &str, files: &[&str], make: impl Fn(&Project) -> Ended) {
    let project = Project::new().scenario("case", LOAD);
    let cache = project.cache(&[kind]);
    let expect_made = |warnings: usize| {
        let ended = make(&project);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        assert_eq!(ended.says("warning:"), warnings, "{ended:#?}");
        assert_eq!(ended.says("was altered: it is discarded and made anew"), warnings, "{ended:#?}");
        assert_eq!(leftovers(&cache), Vec::<String>::new());
    };
    expect_made(0);
    for file in files {
        let path = only(&cache.join(kind), file);
        for damage in [truncate, alter] {
            damage(&path);
            let damaged = fs::read(&path).unwrap();
            expect_made(1);
            assert!(fs::read(&path).unwrap() != damaged, "{} is as it was", path.display());
        }
    }
    // What was good all along is not remade.
    expect_made(0);
}

fn truncate(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

fn alter(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(b"altered", file.metadata().unwrap().len() / 3).unwrap();
}

/// The file of that name in the only entry of a kind.
fn only(kind: &Path, file: &str) -> PathBuf {
    let entries = fs::read_dir(kind).unwrap().map(|entry| entry.unwrap().path().join(file));
    let found: Vec<PathBuf> = entries.filter(|path| path.exists()).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn two_runs() {
    let project = Project::new().scenario("case", LOAD);
    let cache = project.cache(&["initramfs"]);
    let runs = [0, 1].map(|_| project.run(&[]).cache(&cache).start());
    let ended = runs.map(|run| run.finish());
    for ended in &ended {
        assert_eq!(ended.expect_pass().start(), Some("warm"), "{ended:#?}");
        assert_eq!(ended.says("warning"), 0, "{ended:#?}");
    }
    for work in ["build fault for x86_64 ...", "boot x86_64 and save a snapshot ..."] {
        let times: usize = ended.iter().map(|ended| ended.says(work)).sum();
        assert_eq!(times, 1, "{work}: {ended:#?}");
    }
    only(&cache.join("snapshot"), "memory");
    only(&cache.join("initramfs"), "initramfs");
}

fn no_room_for_a_snapshot() {
    let disk = Disk::new("16m");
    let project = Project::new().scenario("case", LOAD);
    let ended = project.run(&[]).cache(disk.cache()).finish();
    assert_eq!(ended.expect_pass().start(), Some("cold"), "{ended:#?}");
    ended.expect_words(&["every case boots, since no space left for ", "run `kmodlab image clean`"]);
    assert_eq!(leftovers(disk.cache()), Vec::<String>::new());
}

fn no_room_for_a_module() {
    let disk = Disk::new("200k");
    let project = Project::new().scenario("case", LOAD);
    let ended = project.run(&[]).cache(disk.cache()).finish();
    let case = ended.case();
    assert_eq!((ended.code, case.outcome()), (Some(125), "error"), "{ended:#?}");
    assert!(case.reason().starts_with("no space left for `fault for x86_64` in the cache"), "{ended:#?}");
    assert_eq!(leftovers(disk.cache()), Vec::<String>::new());
}

/// A test that mounts a file system, as only root may.
fn on_a_small_disk(name: &str, run: fn()) -> Trial {
    match rustix::process::geteuid().is_root() {
        true => trial(name, run),
        false => trial(name, run).with_kind("needs root").with_ignored_flag(true),
    }
}

/// A small file system with a cache on it.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new(size: &str) -> Self {
        let disk = Disk { dir: tempfile::tempdir_in(common::kept()).unwrap() };
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(disk.cache());
        mount.check(&Cancel::new().unwrap()).unwrap();
        link_prepared(disk.cache(), &[]);
        disk
    }

    fn cache(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg("--lazy").arg(self.cache());
        // Nothing is there to unmount if mounting failed.
        let _ = unmount.check(&Cancel::new().unwrap());
    }
}
