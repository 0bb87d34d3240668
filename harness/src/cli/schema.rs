//! `kmodlab schema`

use super::args::Schema;
use super::{Stop, say};
use crate::report::{diff, document};
use crate::scenario;

/// Prints a JSON Schema.
pub(super) fn schema(of: Schema) -> Result<u8, Stop> {
    let schema = match of {
        Schema::Scenario => scenario::schema(),
        Schema::Report => document::schema(),
        Schema::Diff => diff::schema(),
    };
    say(serde_json::to_string_pretty(&schema).map_err(|error| Stop::error(&error))?);
    Ok(0)
}
