//! Every scenario on every default image, each a test of its own: `cargo test --test scenarios kprobe` runs some of them,
//! `-- --list` boots nothing.
//!
//! The cases are known only when the scenario files have been read, so that this target builds its list itself
//! (`libtest-mimic`); `rstest` serves where tests are written in Rust.

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use kmodlab::lab::Lab;
use kmodlab::needs::{REQUIRE_VM, missing, missing_for};
use kmodlab::run::{Options, Outcome, Runner};
use kmodlab::work::{Cancel, Unwatched};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Arguments::from_args();
    let lab = Lab::open(None, None, Arc::new(Unwatched), Cancel::new()?)?;
    let images: Vec<_> = lab.images().iter().filter(|image| image.default).cloned().collect();
    // Displayed and not debugged, so that the errors in scenario files can be read.
    let cases = lab.cases(&[], &images).map_err(|error| error.to_string())?;
    let required = std::env::var_os(REQUIRE_VM).is_some_and(|value| value == "1");
    let mut lacks = HashMap::new();
    for image in images {
        lacks.insert(image.name, missing(image.image.arch, lab.cancel()).filter(|_| !required));
    }
    // Trials live as long as the program, and so does what they use.
    let lab: &'static Lab = Box::leak(Box::new(lab));
    let runner: &'static Runner = Box::leak(Box::new(Runner::new(lab, Options::default(), &Unwatched)));
    let trials = cases.into_iter().map(|case| {
        let own = missing_for(&case.scenario).filter(|_| !required);
        let lack = lacks.get(&case.image).and_then(Option::as_ref).or(own.as_ref());
        let kind = lack.map(|lack| lack.to_string().replace('\n', "; ")).unwrap_or_default();
        let ignored = lack.is_some();
        let trial = Trial::test(case.id.clone(), move || {
            let report = runner.run(&case).ok_or("interrupted")?;
            match &report.outcome {
                Outcome::Pass | Outcome::Skip(_) => Ok(()),
                outcome => Err(Failed::from(format!(
                    "{}: {}\n{}",
                    outcome.kind(),
                    outcome.reason().unwrap_or_default(),
                    report.log_tail.join("\n")
                ))),
            }
        });
        trial.with_ignored_flag(ignored).with_kind(kind)
    });
    Ok(libtest_mimic::run(&args, trials.collect()).exit_code())
}
