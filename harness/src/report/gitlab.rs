//! For GitLab: what went wrong as a report of code quality, which it shows at the scenarios' lines.
//!
//! The form: GitLab, `doc/ci/testing/code_quality.md`, "Code Quality report format".

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::document::{Case, Document};
use crate::image::cache::KeyBuilder;

/// Writes the report of a run. `project` is the repository's folder, from which GitLab counts paths.
pub(super) fn write(document: &Document, project: Option<&Path>, out: &mut dyn Write) -> io::Result<()> {
    let bad = document.cases.iter().filter(|case| case.outcome.is_bad());
    let issues: Vec<_> = bad.map(|case| issue(case, project)).collect();
    serde_json::to_writer_pretty(&mut *out, &issues)?;
    out.write_all(b"\n")
}

fn issue(case: &Case, project: Option<&Path>) -> serde_json::Value {
    let absolute = std::path::absolute(&case.file).unwrap_or_else(|_| case.file.clone().into());
    let path = project.and_then(|root| absolute.strip_prefix(root).ok()).unwrap_or(Path::new(&case.file));
    let reason = case.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default();
    let fingerprint =
        KeyBuilder::new("").part("case", case.id()).part("outcome", case.outcome.name()).finish();
    json!({
        "description": format!("{} {}: {}: {reason}", case.outcome.name(), case.id(), case.title),
        "check_name": case.id(),
        "fingerprint": fingerprint.as_str(),
        "severity": "major",
        "location": { "path": path, "lines": { "begin": case.place.map_or(1, |place| place.line) } },
    })
}
