//! `kmodlab blame --image`, the command itself, and each reason why a kernel refuses to let a module go.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "test code")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use kmodlab::blame::{Answer, Verdict};
use kmodlab::lab::Lab;
use kmodlab::needs::{REQUIRE_VM, missing};
use kmodlab::run::{Options, Runner, Session};
use kmodlab::work::{Cancel, Unwatched};
use rstest::rstest;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn lab() -> Lab {
    Lab::open(Some(root()), None, Arc::new(Unwatched), Cancel::new().unwrap()).unwrap()
}

/// Whether this machine can have a guest of the image; if not, it has been said why.
fn can_run(lab: &Lab, image: &str) -> bool {
    let missing = missing(lab.image(image).unwrap().image.arch, lab.cancel());
    if let Some(missing) = &missing {
        assert!(std::env::var_os(REQUIRE_VM).is_none_or(|value| value != "1"), "{missing}");
        eprintln!("skipped: {missing}");
    }
    missing.is_none()
}

fn kmodlab(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kmodlab"));
    command.args(args).current_dir(root()).env_remove("KMODLAB_ROOT").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The answer of the command, and its exit code.
fn blame(module: &str, commands: &str) -> (Value, Option<i32>) {
    let output = kmodlab(&[
        "blame",
        module,
        "--image",
        "x86_64",
        "--timeout-scale",
        "3",
        "--format",
        "json",
        "--",
        commands,
    ]);
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)));
    (document["modules"][0].clone(), output.status.code())
}

const HOLD: &str = "exec 3< /dev/refmod; sleep 300 &";

#[test]
fn the_holder_of_a_module_file_is_named() {
    if !can_run(&lab(), "x86_64") {
        return;
    }
    let built = kmodlab(&["module", "build", "refmod", "--image", "x86_64"]);
    let file = text(&built.stdout).trim().to_owned();
    assert!(file.ends_with("refmod.ko"), "{file}{}", text(&built.stderr));
    let (answer, code) = blame(&file, HOLD);
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!((&answer["name"], &answer["verdict"]), (&"refmod".into(), &"held".into()), "{answer}");
    assert_eq!((&answer["use_count"], &answer["unseen"]), (&1.into(), &0.into()), "{answer}");
    let reference = &answer["outstanding"][0];
    assert_eq!(
        (&reference["chain"][0], &reference["certainty"]),
        (&"misc_open".into(), &"exact".into()),
        "{answer}"
    );
    assert_eq!(answer["outstanding"].as_array().unwrap().len(), 1, "{answer}");
    let holder = &answer["present"]["holders"][0];
    assert_eq!((&holder["kind"], &holder["name"]), (&"file".into(), &"/dev/refmod".into()), "{answer}");
    assert_eq!((&holder["fd"], &answer["present"]["left_over"]), (&3.into(), &0.into()), "{answer}");
    assert_eq!(answer["removal"], "refused with EWOULDBLOCK: its use count is 1, and no module uses it");
    let kill = format!("kill {}", holder["task"]["pid"]);
    assert!(answer["advice"][0].as_str().unwrap().ends_with(&kill), "{answer}");
}

#[test]
fn a_module_that_is_built_from_a_folder_and_free_is_removed() {
    if !can_run(&lab(), "x86_64") {
        return;
    }
    let (answer, code) = blame("test-modules/refmod", "cat /dev/refmod");
    assert_eq!((code, &answer["verdict"]), (Some(0), &"free".into()), "{answer}");
    assert_eq!(answer["removal"], "allowed: the module is gone");
    assert_eq!((&answer["returned"]["exact"], &answer["loads"]), (&1.into(), &1.into()), "{answer}");
}

#[test]
fn a_module_of_the_kernels_own_without_an_exit_function_stays() {
    if !can_run(&lab(), "x86_64") {
        return;
    }
    let (answer, code) = blame("phylink", "true");
    assert_eq!(
        (code, &answer["verdict"], &answer["use_count"]),
        (Some(1), &"held".into(), &0.into()),
        "{answer}"
    );
    assert_eq!(answer["removal"], "refused with EBUSY: it has no exit function");
    assert_eq!(answer["sentence"], "`phylink` cannot be removed: it has no exit function");
}

/// What the kernel says of a module's removal, once a session has done something.
fn refusal(image: &str, modules: &[&str], module: &str, act: impl FnOnce(&mut Session)) -> Option<Answer> {
    let lab = lab();
    if !can_run(&lab, image) {
        return None;
    }
    let runner = Runner::new(&lab, Options::default(), &Unwatched);
    let mut session = runner.session(image, modules).unwrap_or_else(|error| panic!("{error}"));
    session.guest().set_limit(Duration::from_secs(60));
    session.watch_module(module).unwrap();
    act(&mut session);
    let (ledger, removal) = session.account_for(module).unwrap();
    Some(Answer::new(ledger).after(&removal.unwrap()))
}

#[rstest]
#[case("x86_64")]
#[case("arm")]
#[case("ppc64le")]
fn a_module_that_others_use_names_them(#[case] image: &str) {
    let answer = refusal(image, &["refdep_b"], "refdep_a", |session| {
        // The one it needs lies before it.
        session.push("refdep_b", false).unwrap();
        let loaded = session.shell("modprobe refdep_b").unwrap();
        assert_eq!(loaded.stderr.text(), "");
    });
    let Some(answer) = answer else { return };
    assert_eq!(answer.verdict, Verdict::Held, "{answer:?}");
    assert_eq!(answer.removal, "refused with EWOULDBLOCK: in use by refdep_b");
    assert!(answer.sentence.contains("module `refdep_b` uses its symbols"), "{}", answer.sentence);
    assert_eq!(answer.advice[0], "remove what depends on it first: modprobe -r refdep_b");
}

/// Its init function asks for a cipher, and waits until the program that the kernel runs to load one has ended.
const BLOCKED: &str = r#"
    mkfifo /tmp/line
    printf '#!/bin/sh\nread line < /tmp/line\n' > /tmp/wait
    chmod +x /tmp/wait
    echo /tmp/wait > /proc/sys/kernel/modprobe
    modprobe tcrypt alg=no-such-cipher &
    until grep -q coming /sys/module/tcrypt/initstate 2>/dev/null; do :; done
"#;

#[test]
fn a_module_that_is_being_loaded_is_told_as_that() {
    let answer = refusal("x86_64", &[], "tcrypt", |session| {
        session.push("tcrypt", true).unwrap();
        session.shell(BLOCKED).unwrap();
    });
    let Some(answer) = answer else { return };
    assert_eq!(answer.verdict, Verdict::Held, "{answer:?}");
    assert_eq!(answer.removal, "refused with EBUSY: its init function still runs");
}
