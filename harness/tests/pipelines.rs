//! The pipelines in `ci/`, run here step by step: their jobs in order, each once for each row of its matrix, on a copy of
//! the example crate. What runs elsewhere, the checkout and the passing on of artifacts, is the one folder they run in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests, their helpers too")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use kmodlab::process::{self, Command, Output};
use kmodlab::work::Cancel;
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

/// The image of the matrices that is run here.
const IMAGE: &str = "x86_64";
const CASES: [&str; 3] = ["hello/greets", "hello/in-use", "hello/refuses-no-name"];

fn main() {
    let trials = [
        pipeline("github_actions_runs_every_case_once_and_annotates_one_that_fails", github),
        pipeline("gitlab_runs_every_case_once", gitlab),
        pipeline("kubernetes_runs_every_case_once", kubernetes),
    ];
    // Each has as many guests at once as the machine bears.
    let args = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&args, trials.into()).exit();
}

/// A test that runs guests and needs nextest.
fn pipeline(name: &str, run: fn()) -> Trial {
    let trial = common::vm_trial(common::arch(IMAGE), name, run);
    let required = std::env::var_os(common::REQUIRE_VM).is_some_and(|value| value == "1");
    match process::find("cargo-nextest").is_none() && !required {
        true => trial.with_kind("needs cargo-nextest").with_ignored_flag(true),
        false => trial,
    }
}

/// What one run of a job does.
#[derive(Debug)]
struct Job {
    name: String,
    script: String,
    env: BTreeMap<String, String>,
}

/// A copy of the example crate, with the scripts.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Checkout(tempfile::tempdir_in(common::kept()).unwrap());
        let repository = common::repository();
        copy(&repository.join("examples/hello-module"), checkout.path());
        for folder in ["ci", ".config"] {
            copy(&repository.join(folder), &checkout.path().join(folder));
        }
        let manifest = checkout.path().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let harness = format!("path = \"{}\"", env!("CARGO_MANIFEST_DIR"));
        assert!(text.contains("path = \"../../harness\""));
        fs::write(&manifest, text.replace("path = \"../../harness\"", &harness)).unwrap();
        let lock = checkout.path().join("Cargo.lock");
        fs::copy(repository.join("Cargo.lock"), &lock).unwrap();
        // `--locked` is for a lock file that is the crate's own: that of the repository has too much.
        let mut command = checkout.command("cargo metadata --format-version 1 --offline >/dev/null");
        command.env("CARGO_NET_OFFLINE", "true");
        command.check(&Cancel::new().unwrap()).unwrap();
        checkout
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, script: &str) -> Command {
        // What says where this test's own crate and project are must not say it of that one.
        let mut command = Command::new("env");
        command.args([
            "-u",
            "KMODLAB_ROOT",
            "-u",
            "CARGO_MANIFEST_DIR",
            "-u",
            "GITHUB_ACTIONS",
            "-u",
            "KMODLAB_IMAGES",
        ]);
        command.args(["sh", "-ec", script]).dir(self.path());
        command.env("KMODLAB", env!("CARGO_BIN_EXE_kmodlab"));
        // What is compiled already serves here, too.
        command.env("CARGO_TARGET_DIR", common::repository().join("target"));
        command.env("NEXTEST_HIDE_PROGRESS_BAR", "1");
        command
    }

    fn run(&self, job: &Job) -> Output {
        let exports =
            job.env.iter().map(|(name, value)| format!("export {name}={}\n", process::shell_quote(value)));
        let mut command = self.command(&(exports.collect::<String>() + &job.script));
        // On a machine of its own.
        let cache = job.name.contains("shard").then(|| tempfile::tempdir_in(common::kept()).unwrap());
        if let Some(cache) = &cache {
            command.env("KMODLAB_CACHE", cache.path());
        }
        command.output(&Cancel::new().unwrap()).unwrap()
    }

    /// Sees that the one report has each case just once.
    fn expect_all(&self) {
        let xml = fs::read_to_string(self.path().join("report/junit.xml")).unwrap();
        assert_eq!(xml.matches("<testcase ").count(), CASES.len(), "{xml}");
        for case in CASES {
            assert_eq!(xml.matches(&format!("<testcase name=\"{case}\"")).count(), 1, "{xml}");
        }
        assert!(self.path().join("report/html/index.html").exists());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true if entry.file_name() == "target" => {}
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn read(file: &str) -> Vec<Value> {
    let path: PathBuf = common::repository().join("ci").join(file);
    let text = fs::read_to_string(path).unwrap();
    text.split("\n---\n").map(|document| serde_yaml::from_str(document).unwrap()).collect()
}

fn shown(job: &Job, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{job:?}\n{}\n--- stdout\n{}--- stderr\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Every row of a matrix, of which only one image is run here.
fn rows(matrix: &Value) -> Vec<BTreeMap<String, String>> {
    let mut rows = vec![BTreeMap::new()];
    for (name, values) in matrix.as_object().into_iter().flatten() {
        let values = values.as_array().unwrap().iter().map(|value| value.to_string().replace('"', ""));
        let values: Vec<_> =
            values.filter(|value| !name.eq_ignore_ascii_case("image") || value == IMAGE).collect();
        assert!(!values.is_empty(), "{matrix}");
        let with = |row: &BTreeMap<String, String>, value: &String| {
            let mut row = row.clone();
            row.insert(name.clone(), value.clone());
            row
        };
        rows = rows.iter().flat_map(|row| values.iter().map(move |value| with(row, value))).collect();
    }
    rows
}

fn expect_success(checkout: &Checkout, jobs: &[Job]) {
    for job in jobs {
        let output = checkout.run(job);
        assert!(output.status.success(), "{}", shown(job, &output));
    }
    checkout.expect_all();
}

fn github() {
    let workflow = read("github-actions.yml").remove(0);
    let mut jobs = Vec::new();
    for (name, job) in workflow["jobs"].as_object().unwrap() {
        for row in rows(&job["strategy"]["matrix"]) {
            let steps = job["steps"].as_array().unwrap().iter().filter_map(|step| step["run"].as_str());
            let mut script = steps.collect::<Vec<_>>().join("\n");
            for (key, value) in &row {
                script = script.replace(&format!("${{{{ matrix.{key} }}}}"), value);
            }
            assert!(!script.contains("${{"), "{script}");
            jobs.push(Job { name: name.clone(), script, env: BTreeMap::new() });
        }
    }
    // In the order in which they need each other.
    jobs.sort_by_key(|job| ["pack", "shard", "report"].iter().position(|name| job.name == *name));
    assert_eq!(jobs.len(), 4);

    let checkout = Checkout::new();
    let scenario = checkout.path().join("scenarios/hello/greets.yaml");
    let text = fs::read_to_string(&scenario).unwrap();
    fs::write(&scenario, text.replace("hello, kernel", "hello, nobody")).unwrap();
    let line = text.lines().position(|line| line.contains("read: /dev/hello")).unwrap() + 1;
    let mut failed = 0;
    for job in &mut jobs {
        if job.name == "report" {
            job.env.insert("GITHUB_ACTIONS".into(), "true".into());
            job.env.insert("GITHUB_WORKSPACE".into(), checkout.path().display().to_string());
            job.env
                .insert("GITHUB_STEP_SUMMARY".into(), checkout.path().join("summary").display().to_string());
        }
        let output = checkout.run(job);
        failed += usize::from(!output.status.success());
        assert!(output.status.success() || job.name == "shard", "{}", shown(job, &output));
        if job.name == "report" {
            let annotation = format!("::error file=scenarios/hello/greets.yaml,line={line},");
            assert!(shown(job, &output).contains(&annotation), "{}", shown(job, &output));
        }
    }
    assert_eq!(failed, 1);
    checkout.expect_all();
    assert!(fs::read_to_string(checkout.path().join("summary")).unwrap().contains("hello/greets"));
}

fn gitlab() {
    let pipeline = read("gitlab-ci.yml").remove(0);
    let stages: Vec<&str> =
        pipeline["stages"].as_array().unwrap().iter().map(|stage| stage.as_str().unwrap()).collect();
    let mut jobs = Vec::new();
    for stage in &stages {
        let of_stage = |(_, job): &(&String, &Value)| job["stage"] == *stage;
        for (name, job) in pipeline.as_object().unwrap().iter().filter(of_stage) {
            let lines = job["script"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
            let script = lines.collect::<Vec<_>>().join("\n");
            let matrix = job["parallel"]["matrix"].as_array().cloned().unwrap_or(vec![Value::Null]);
            for mut env in matrix.iter().flat_map(rows) {
                env.insert("CARGO_HOME".into(), std::env::var("CARGO_HOME").unwrap_or_default());
                env.retain(|_, value| !value.is_empty());
                jobs.push(Job { name: name.clone(), script: script.clone(), env });
            }
        }
    }
    assert_eq!(jobs.len(), 4);
    // Its own folder for crates is not that of this machine.
    jobs.iter_mut()
        .for_each(|job| job.script = job.script.replace("export PATH=\"$CARGO_HOME/bin:$PATH\"\n", ""));
    expect_success(&Checkout::new(), &jobs);
}

fn kubernetes() {
    let mut jobs = Vec::new();
    for job in read("kubernetes.yml") {
        let (name, spec) = (job["metadata"]["name"].as_str().unwrap().to_owned(), &job["spec"]);
        let container = &spec["template"]["spec"]["containers"][0];
        assert_eq!(container["command"], serde_json::json!(["/bin/sh", "-ec"]));
        let script = container["args"][0].as_str().unwrap().to_owned();
        for index in 0..spec["completions"].as_u64().unwrap_or(1) {
            let env = BTreeMap::from([("JOB_COMPLETION_INDEX".to_owned(), index.to_string())]);
            jobs.push(Job { name: name.clone(), script: script.clone(), env });
        }
    }
    assert_eq!(jobs.len(), 6);
    for job in &mut jobs {
        // The default images are more than this test needs.
        job.script = job.script.replace("ci/pack parts/pack", &format!("ci/pack parts/pack {IMAGE}"));
    }
    expect_success(&Checkout::new(), &jobs);
}
