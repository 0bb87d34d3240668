//! `kmodlab list`

use std::collections::{BTreeMap, BTreeSet};

use super::args::List;
use super::{Context, Stop, say, select};
use crate::scenario::Row;

/// Lists cases, or what the scenarios cover.
pub(super) fn list(context: &Context, args: &List) -> Result<u8, Stop> {
    let lab = context.lab_for(&args.selection.targets)?;
    let cases = select::cases(&lab, &args.selection)?;
    if !args.coverage {
        for case in &cases {
            say(format_args!("{:<44} {}", case.id, case.scenario.name.value));
        }
        return Ok(0);
    }
    let mut covered: BTreeMap<Row, BTreeSet<&str>> = BTreeMap::new();
    for case in &cases {
        for row in &case.scenario.covers {
            covered.entry(row.value).or_default().insert(&case.scenario_id);
        }
    }
    for row in Row::all() {
        match covered.get(&row) {
            Some(scenarios) => {
                say(format_args!("{row:<4} {}", scenarios.iter().copied().collect::<Vec<_>>().join(" ")));
            }
            None => say(format_args!("{row:<4} -")),
        }
    }
    let missing: Vec<_> =
        Row::all().filter(|row| !covered.contains_key(row)).map(|row| row.to_string()).collect();
    match missing.as_slice() {
        [] => say("every row is covered"),
        rows => say(format_args!("not covered: {}", rows.join(" "))),
    }
    Ok(0)
}
