//! `kmodlab run`

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use etcetera::BaseStrategy;
use fs_err as fs;

use super::args::{self, AccelChoice, Format};
use super::{Context, Stop, complain, exit, report, select, watch};
use crate::lab::Lab;
use crate::report::{Files, Output, Sink, Tracefiles};
use crate::run::{self, Event, Limits, Options, Reporter, Until, default_jobs, run_all};
use crate::scenario::expand::Case;

/// Runs the selected cases; the exit code says how they ended.
pub(super) fn run(context: &Context, args: &args::Run) -> Result<u8, Stop> {
    let until = match (args.until_fail, args.flaky_repeat) {
        (true, _) => Until::Fail,
        (false, Some(_)) => Until::NoPass,
        (false, None) => Until::End,
    };
    let run = |lab: &Lab, cases: &[Case]| run_cases(context, lab, cases, &args.running, until);
    if args.watch {
        return watch::watch(context, || cases(context, args), run);
    }
    let (lab, cases) = cases(context, args)?;
    run(&lab, &cases)
}

/// The project and its selected cases.
fn cases(context: &Context, args: &args::Run) -> Result<(Lab, Vec<Case>), Stop> {
    let lab = context.lab_for(&args.selection.targets)?;
    let cases = select::cases(&lab, &args.selection)?;
    let cases = match (args.repeat.or(args.flaky_repeat), args.seed) {
        (None, None) => cases,
        (None, Some(seed)) => cases.iter().map(|case| case.seeded(seed, None)).collect(),
        (Some(times), seed) => repeated(&cases, times, seed.unwrap_or_else(|| fastrand::u64(..1 << 32))),
    };
    Ok((lab, cases))
}

/// Every case so many times; the delays of each repeat are drawn from a number of its own.
fn repeated(cases: &[Case], times: u32, seed: u64) -> Vec<Case> {
    (1..=times)
        .flat_map(|number| {
            let seed = seed.wrapping_add(u64::from(number - 1));
            cases.iter().map(move |case| case.seeded(seed, Some(number)))
        })
        .collect()
}

/// Runs cases and reports on them; the exit code says how they ended.
pub(super) fn run_cases(
    context: &Context,
    lab: &Lab,
    cases: &[Case],
    args: &args::Running,
    until: Until,
) -> Result<u8, Stop> {
    let most = lab.images().iter().map(|image| image.memory.mib()).max().unwrap_or(256);
    let jobs = args.jobs.map_or_else(|| default_jobs(most), usize::from);
    let artifacts = match &args.artifacts {
        Some(dir) => Some(std::path::absolute(dir).map_err(|error| Stop::error(&error))?),
        None => default_artifacts(),
    };
    let traces = args.coverage_dir.clone().map(Tracefiles::new).transpose().map_err(Stop::usage)?;
    let coverage = traces.is_some();
    let options = Options { artifacts, keep: args.keep, until, coverage, ..options(&args.machine) };
    let print_json = args.format == Format::Json;
    let mut outputs = report::outputs(&args.reports, print_json)?;
    outputs.extend(print_json.then_some(Output::Json(Sink::Stdout)));
    outputs.extend(Output::github());
    context.human.name_slow_cases(args.slow_after);
    let files = Files::new(outputs);
    let mut each: Vec<&dyn Reporter> = vec![&*context.human, &files];
    each.extend(traces.iter().map(|traces| traces as &dyn Reporter));
    let summary = run_all(lab, cases, jobs, options, &Each(each));
    files.finish().map_err(report::unwritten)?;
    let said = traces.map(Tracefiles::finish).transpose().map_err(report::unwritten)?;
    said.into_iter().flatten().for_each(|line| complain(&line));
    match summary.interrupted {
        true => Ok(exit::INTERRUPTED),
        false => Ok(summary.totals.exit_code()),
    }
}

/// What the arguments on machines mean for a run.
pub(super) fn options(args: &args::Machine) -> Options {
    Options {
        cold: args.cold,
        accel: match args.accel {
            AccelChoice::Auto => run::AccelChoice::Auto,
            AccelChoice::Kvm => run::AccelChoice::Kvm,
            AccelChoice::Tcg => run::AccelChoice::Tcg,
        },
        limits: Limits::default().scaled(args.timeout_scale),
        ..Options::default()
    }
}

/// Tells every reporter.
struct Each<'a>(Vec<&'a dyn Reporter>);

impl Reporter for Each<'_> {
    fn event(&self, event: &Event<'_>) {
        self.0.iter().for_each(|reporter| reporter.event(event));
    }
}

/// How many runs' artifacts are kept where no folder is named.
const KEPT_RUNS: usize = 10;

/// A folder of this run's own in the user's state directory (XDG); the oldest runs' are removed.
fn default_artifacts() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    let runs = base.state_dir().unwrap_or_else(|| base.cache_dir()).join("kmodlab").join("runs");
    let mut old: Vec<_> =
        fs::read_dir(&runs).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    old.sort();
    for dir in old.iter().rev().skip(KEPT_RUNS - 1) {
        // What cannot be removed now is tried again by the next run.
        let _ = fs::remove_dir_all(dir);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(runs.join(format!("{:012}-{}", now.as_secs(), std::process::id())))
}
