//! A folder of scenarios as tests of cargo's, each case a test of its own.
//!
//! A crate has a target with a harness of its own in `Cargo.toml`,
//!
//! ```toml
//! [dev-dependencies]
//! kmodlab = "0.1"
//!
//! [[test]]
//! name = "scenarios"
//! harness = false
//! ```
//!
//! and that target, `tests/scenarios.rs`, is the line [`kmodlab::harness!();`](crate::harness). Beside `Cargo.toml` it
//! has the folders `scenarios` and `test-modules`, and `images` if those that kmodlab comes with are not what it wants.
//!
//! `cargo test --test scenarios refcount` then runs the cases with `refcount` in their names, `-- --list` boots nothing,
//! and nextest, which runs each case in a process of its own, shards and retries them. The environment says the rest:
//!
//! | variable | |
//! |---|---|
//! | `KMODLAB_IMAGES` | the images to run on, with commas between them, in place of the default ones |
//! | `KMODLAB_KERNEL_TREE` | a kernel tree to run on, in place of the default images: its image is called `tree` |
//! | `KMODLAB_ROOT` | the project's folder |
//! | `KMODLAB_CACHE` | the cache's folder |
//! | `KMODLAB_ARTIFACTS` | where cases that do not pass leave their artifacts |
//! | `KMODLAB_REPORTS` | where each case leaves its report, `<scenario>@<image>.json`: `kmodlab report` makes one of all |
//! | `KMODLAB_TIMEOUT_SCALE` | what every time limit is multiplied by, for slow machines |
//! | `KMODLAB_REQUIRE_VM` | with `1`, a machine that lacks QEMU or a compiler fails the cases, which it ignores otherwise |

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::image::own::OwnKernel;
use crate::image::spec::ImageSpec;
use crate::lab::{self, Lab};
use crate::needs::{REQUIRE_VM, missing_for, missing_for_image};
use crate::report::{Files, Output, Sink, printable};
use crate::run::{CaseReport, Event, Limits, Options, Outcome, Reporter, Runner, Totals};
use crate::scenario::expand::Case;
use crate::work::{Cancel, Unwatched, Watch, WorkEvent};

/// The environment variable that names the images to run on, with commas between them.
pub const IMAGES: &str = "KMODLAB_IMAGES";
/// The environment variable that names the folder for the artifacts of cases that do not pass.
pub const ARTIFACTS: &str = "KMODLAB_ARTIFACTS";
/// The environment variable that names the folder for each case's report.
pub const REPORTS: &str = "KMODLAB_REPORTS";
/// The environment variable that says what every time limit is multiplied by.
pub const TIMEOUT_SCALE: &str = "KMODLAB_TIMEOUT_SCALE";

/// Makes `main` of a test target with `harness = false`: every scenario of the project on every image is a test.
///
/// The project is the crate's own folder, or that at a path from there. See [`testing`](crate::testing).
///
/// ```no_run
/// kmodlab::harness!();
/// ```
///
/// ```no_run
/// kmodlab::harness!("../kernel-tests");
/// ```
#[macro_export]
macro_rules! harness {
    () => {
        $crate::harness!(".");
    };
    ($path:expr) => {
        fn main() -> ::std::process::ExitCode {
            $crate::testing::main(::core::env!("CARGO_MANIFEST_DIR"), $path)
        }
    };
}

/// Why there are no tests to run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Lab(#[from] lab::Error),
    #[error(transparent)]
    Image(#[from] crate::image::spec::Error),
    #[error("`{TIMEOUT_SCALE}` is `{0}`: it must be a number above 0")]
    Scale(String),
}

/// What [`harness!`](crate::harness) runs: the cases of the project at `path`, seen from the crate's folder
/// `manifest_dir`, as the process's arguments choose them. The tests may have moved since they were built: where cargo or
/// nextest says the crate's folder at run time, that counts.
pub fn main(manifest_dir: &str, path: &str) -> ExitCode {
    let dir = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| manifest_dir.into(), PathBuf::from);
    let root = variable("KMODLAB_ROOT").map_or_else(|| dir.join(path), PathBuf::from);
    // A folder that is not there is for the project's opening to tell.
    let root = fs_err::canonicalize(&root).unwrap_or(root);
    let args = Arguments::from_args();
    match trials(&root, &args) {
        Ok(trials) => libtest_mimic::run(&args, trials).exit_code(),
        Err(error) => {
            say(&crate::error::chain(&error));
            ExitCode::from(2)
        }
    }
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[expect(clippy::print_stderr, reason = "tests print")]
fn say(text: &str) {
    eprintln!("kmodlab: {}", printable(text));
}

/// Says warnings, and nothing else: a test that waits has its name beside it.
struct Warnings;

impl Watch for Warnings {
    fn work(&self, event: WorkEvent) {
        if let WorkEvent::Warning(text) = event {
            say(&format!("warning: {text}"));
        }
    }
}

/// The cases of a project, as tests.
fn trials(root: &Path, args: &Arguments) -> Result<Vec<Trial>, Error> {
    let mut lab = Lab::open(Some(root), None, Arc::new(Warnings), Cancel::new()?)?;
    let named = variable(IMAGES);
    if let Some(own) = OwnKernel::from_env().filter(|own| is_wanted(own, named.as_deref())) {
        lab.add_kernel(own)?;
    }
    let mut images = images(&lab, named.as_deref())?;
    let wanted = only(args, &lab.scenarios(), &mut images);
    let cases = lab.cases(&wanted, &images)?;
    let lacks = Lacks::of(&images, lab.cancel());
    let limits = Limits::default().scaled(scale(variable(TIMEOUT_SCALE))?);
    let folder = |name| variable(name).map(std::path::absolute).transpose();
    let (artifacts, reports) = (folder(ARTIFACTS)?, folder(REPORTS)?);
    // Tests live as long as the program, and so does what they use.
    let lab: &'static Lab = Box::leak(Box::new(lab));
    let options = Options { artifacts, limits, ..Options::default() };
    let runner: &'static Runner<'_> = Box::leak(Box::new(Runner::new(lab, options, &Unwatched)));
    Ok(cases.into_iter().map(|case| trial(runner, case, &lacks, reports.clone())).collect())
}

/// Where the arguments ask for one case by its whole name, as nextest does in a process for each, its file, and of
/// `images` only its own: reading all the others takes longer than a short case.
fn only(args: &Arguments, scenarios: &Path, images: &mut Vec<ImageSpec>) -> Vec<String> {
    let name = args.filter.as_deref().filter(|_| args.exact).and_then(|name| name.rsplit_once('@'));
    let Some((id, image)) = name else { return Vec::new() };
    let file = scenarios.join(format!("{id}.yaml"));
    if !file.is_file() || images.iter().all(|known| known.name != image) {
        return Vec::new();
    }
    images.retain(|known| known.name == image);
    vec![file.display().to_string()]
}

/// Whether a kernel of the user's own is among the images of those names, or no image is named.
fn is_wanted(own: &OwnKernel, names: Option<&str>) -> bool {
    names.is_none_or(|names| names.split(',').any(|name| name.trim() == own.image_name()))
}

/// The images of those names, else the default ones.
fn images(lab: &Lab, names: Option<&str>) -> Result<Vec<ImageSpec>, Error> {
    match names {
        None => Ok(lab.images().iter().filter(|image| image.default).cloned().collect()),
        Some(names) => Ok(names.split(',').map(|name| lab.image(name.trim())).collect::<Result<_, _>>()?),
    }
}

fn scale(factor: Option<String>) -> Result<f64, Error> {
    let Some(text) = factor else { return Ok(1.0) };
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
    factor.ok_or(Error::Scale(text))
}

/// What this machine lacks for guests, where cases may be ignored for that.
struct Lacks {
    required: bool,
    of_image: HashMap<String, String>,
}

impl Lacks {
    fn of(images: &[ImageSpec], cancel: &Cancel) -> Self {
        let required = variable(REQUIRE_VM).is_some_and(|value| value == "1");
        let lack =
            |image: &ImageSpec| Some((image.name.clone(), missing_for_image(image, cancel)?.to_string()));
        let of_image = images.iter().filter(|_| !required).filter_map(lack).collect();
        Lacks { required, of_image }
    }

    /// Why a case cannot be run.
    fn for_case(&self, case: &Case) -> Option<String> {
        let own = || missing_for(&case.scenario).filter(|_| !self.required).map(|lack| lack.to_string());
        self.of_image.get(&case.image).cloned().or_else(own)
    }
}

fn trial(runner: &'static Runner<'_>, case: Case, lacks: &Lacks, reports: Option<PathBuf>) -> Trial {
    let lack = lacks.for_case(&case);
    let ignored = lack.is_some();
    let trial = Trial::ignorable_test(case.id.clone(), move || {
        let report = runner.run(&case).ok_or("interrupted")?;
        if let Some(dir) = &reports {
            write(&report, dir).map_err(|error| format!("its report cannot be written: {error}"))?;
        }
        match &report.outcome {
            Outcome::Pass => Ok(Completion::Completed),
            Outcome::Skip(reason) => Ok(Completion::ignored_with(reason)),
            outcome => Err(failed(&report, outcome)),
        }
    });
    trial.with_ignored_flag(ignored).with_kind(lack.unwrap_or_default().replace('\n', "; "))
}

/// Writes the report of a case, as a run of its own; one that is there, of an earlier try, is replaced.
fn write(report: &CaseReport, dir: &Path) -> std::io::Result<()> {
    let file = dir.join(format!("{}.json", report.id));
    let folder = file.parent().unwrap_or(dir);
    fs_err::create_dir_all(folder)?;
    let temp = tempfile::Builder::new().prefix(".report-").tempfile_in(folder)?;
    let files = Files::new(vec![Output::Json(Sink::File(temp.path().to_owned()))]);
    files.event(&Event::CaseFinished(report));
    let mut totals = Totals::default();
    totals.add(report.outcome.kind());
    files.event(&Event::RunFinished { totals, time: report.time, interrupted: false });
    files.finish()?;
    temp.persist(file).map(drop).map_err(|error| error.error)
}

/// What a case that did not pass has to say. Its first line is that of a compiler: where, and what.
fn failed(report: &CaseReport, outcome: &Outcome) -> Failed {
    let place = report.place().map_or_else(|| report.file.display().to_string(), ToString::to_string);
    let reason = outcome.reason().unwrap_or_default();
    let mut lines = vec![format!("{place}: {}: {}", outcome.kind(), report.title), reason];
    if !report.log_tail.is_empty() {
        lines.push("the end of the log:".to_owned());
        lines.extend(report.log_tail.iter().map(|line| format!("  {line}")));
    }
    lines.extend(report.artifacts.iter().map(|dir| format!("artifacts: {}", dir.display())));
    lines.push(format!("run it again: kmodlab {} -v", report.again));
    Failed::from(printable(&lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, Some(1.0))]
    #[case(Some("2.5"), Some(2.5))]
    #[case(Some("0"), None)]
    #[case(Some("-1"), None)]
    #[case(Some("inf"), None)]
    #[case(Some("fast"), None)]
    fn a_scale_is_a_number_above_0(#[case] text: Option<&str>, #[case] expected: Option<f64>) {
        let scale = scale(text.map(str::to_owned));
        assert_eq!(scale.as_ref().ok().copied(), expected);
        if let (Err(error), Some(text)) = (scale, text) {
            assert_eq!(
                error.to_string(),
                format!("`KMODLAB_TIMEOUT_SCALE` is `{text}`: it must be a number above 0")
            );
        }
    }
}
