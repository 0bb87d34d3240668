//! `kmodlab check`

use std::collections::BTreeSet;

use super::args::Check;
use super::{Context, Stop, say, select};

/// Validates the selected scenarios as every image sees them.
pub(super) fn check(context: &Context, args: &Check) -> Result<u8, Stop> {
    let lab = context.lab_for(&args.selection.targets)?;
    let cases = select::cases(&lab, &args.selection)?;
    let count =
        |of: fn(&crate::scenario::expand::Case) -> &str| cases.iter().map(of).collect::<BTreeSet<_>>().len();
    say(format_args!(
        "{} scenarios on {} images: nothing is wrong",
        count(|case| &case.scenario_id),
        count(|case| &case.image)
    ));
    Ok(0)
}
