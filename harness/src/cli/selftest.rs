//! `kmodlab selftest`

use super::args::{Ftrace, Selftest};
use super::{Context, Stop, run, select};
use crate::run::Until;
use crate::selftest::ftrace::Suite;

/// Runs tests of the kernel's own.
pub(super) fn selftest(context: &Context, command: &Selftest) -> Result<u8, Stop> {
    match command {
        Selftest::Ftrace(args) => ftrace(context, args),
    }
}

fn ftrace(context: &Context, args: &Ftrace) -> Result<u8, Stop> {
    let lab = context.lab_for(&args.targets)?;
    let mut cases = Vec::new();
    for spec in select::images(&lab, &args.targets.images, &args.targets.archs)? {
        let image =
            lab.store().prepare(&spec, lab.watch(), lab.cancel()).map_err(|error| Stop::error(&error))?;
        let sources =
            lab.store().sources(&image, lab.watch(), lab.cancel()).map_err(|error| Stop::error(&error))?;
        let suite = Suite::read(&sources).map_err(|error| Stop::error(&error))?;
        cases.extend(suite.cases(&args.patterns, &spec.name, &spec.arguments()));
    }
    if cases.is_empty() {
        return Err(Stop::usage(format!("no test's path has `{}` in it", args.patterns.join("` or `"))));
    }
    run::run_cases(context, &lab, &cases, &args.running, Until::End)
}
