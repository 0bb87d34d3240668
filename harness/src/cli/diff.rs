//! `kmodlab diff`

use super::args::{self, Format};
use super::report::read;
use super::{Stop, say};
use crate::report::Diff;

/// Says what changed from one run to another; the exit code says whether something newly went wrong.
pub(super) fn diff(args: &args::Diff) -> Result<u8, Stop> {
    let diff = Diff::of(&read(&args.old)?, &read(&args.new)?, args.slower);
    match args.format {
        Format::Human => say(&diff),
        Format::Json => say(serde_json::to_string_pretty(&diff).map_err(|error| Stop::error(&error))?),
    }
    Ok(diff.exit_code())
}
