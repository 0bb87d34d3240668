//! `kmodlab schema`

use super::{Stop, say};

/// Prints the JSON Schema of scenario files.
pub(super) fn schema() -> Result<u8, Stop> {
    let text =
        serde_json::to_string_pretty(&crate::scenario::schema()).map_err(|error| Stop::error(&error))?;
    say(text);
    Ok(0)
}
