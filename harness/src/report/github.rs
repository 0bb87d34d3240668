//! For GitHub Actions: annotations at the scenarios' lines, and a summary of the job in the HTML that its Markdown allows.
//!
//! What the runner takes for a command, and how values in it are escaped: actions/toolkit, `docs/commands.md` and
//! `packages/core/src/command.ts`.

use std::fmt::Write as _;
use std::path::Path;

use super::document::{Case, Document, Outcome};
use super::escape::{html, printable};
use crate::run::Excerpt;

/// Characters of a reason in an annotation, of a text in the summary, and failures there: a summary may have 1 MiB.
const MESSAGE: usize = 1000;
const TEXT: usize = 4000;
const FAILURES: usize = 50;

/// Whether GitHub's runner reads what is printed.
pub(super) fn is_there() -> bool {
    std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

/// A command for the runner, which stands on a line of its own.
pub(super) fn command(name: &str, properties: &[(&str, &str)], message: &str) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let properties: Vec<_> = properties
        .iter()
        .map(|(key, value)| format!("{key}={}", data(value).replace(':', "%3A").replace(',', "%2C")))
        .collect();
    let blank = if properties.is_empty() { "" } else { " " };
    format!("::{name}{blank}{}::{}\n", properties.join(","), data(message))
}

/// An annotation for each case that went wrong.
pub(super) fn annotations(document: &Document, workspace: Option<&Path>) -> String {
    let bad = document.cases.iter().filter(|case| case.outcome.is_bad());
    bad.map(|case| annotation(case, workspace)).collect()
}

fn annotation(case: &Case, workspace: Option<&Path>) -> String {
    // The runner finds files by their paths in the repository.
    let absolute = std::path::absolute(&case.file).unwrap_or_else(|_| case.file.clone().into());
    let file = workspace.and_then(|root| absolute.strip_prefix(root).ok()).unwrap_or(Path::new(&case.file));
    let file = file.to_string_lossy();
    let (line, column) = case.place.map_or((1, 1), |place| (place.line, place.column));
    let (line, column) = (line.to_string(), column.to_string());
    let title = format!("{} {}", case.outcome.name(), case.id());
    let reason = cut(case.reason.as_deref().unwrap_or_default(), MESSAGE);
    let message = printable(&format!("{}\n{reason}\nrun it again: {}", case.title, case.again));
    command("error", &[("file", &file), ("line", &line), ("col", &column), ("title", &title)], &message)
}

/// The summary of the job. Blank lines end HTML in Markdown, so that there are none but between its parts.
pub(super) fn summary(document: &Document) -> String {
    let mut out = format!("<h2>kmodlab: {}</h2>\n\n<table><tr>", verdict(document));
    for outcome in Outcome::ALL {
        let _ = write!(out, "<th>{}</th>", outcome.past());
    }
    out.push_str("</tr><tr>");
    for outcome in Outcome::ALL {
        let _ = write!(out, "<td>{}</td>", document.totals.of(outcome));
    }
    let _ =
        write!(out, "</tr></table>\n\n<p>{} cases in {:.1} s", document.totals.all, document.ms as f64 / 1e3);
    out.push_str(if document.interrupted { "; interrupted</p>\n" } else { "</p>\n" });
    for group in document.crashes.iter().filter(|group| group.cases.len() > 1) {
        let _ =
            write!(out, "\n<p>{} cases met: <code>{}</code></p>\n", group.cases.len(), inline(&group.title));
    }
    let bad: Vec<&Case> = document.cases.iter().filter(|case| case.outcome.is_bad()).collect();
    bad.iter().take(FAILURES).for_each(|case| failure(&mut out, case));
    if bad.len() > FAILURES {
        let _ = write!(out, "\n<p>and {} more that went wrong</p>\n", bad.len() - FAILURES);
    }
    out
}

fn verdict(document: &Document) -> &'static str {
    match document.cases.iter().any(|case| case.outcome.is_bad()) {
        true => "some cases went wrong",
        false => "no case went wrong",
    }
}

fn failure(out: &mut String, case: &Case) {
    let place = case.place.map(|place| format!(":{}", place.line)).unwrap_or_default();
    let _ = write!(
        out,
        "\n<details><summary><b>{}</b> {}: {}</summary>\n\n<p>{}{place}</p>\n\n<pre>{}</pre>\n",
        case.outcome.name(),
        inline(&case.id()),
        inline(&case.title),
        inline(&case.file),
        html(&cut(case.reason.as_deref().unwrap_or_default(), TEXT)),
    );
    if let Some(crash) = case.crash.as_ref().filter(|crash| !crash.lines.is_empty()) {
        let _ = write!(out, "\n<pre>{}</pre>\n", html(&cut(&crash.lines.join("\n"), TEXT)));
    }
    let _ = write!(out, "\n<p>run it again:</p>\n\n<pre>{}</pre>\n\n</details>\n", html(&case.again));
}

/// Text within a line of HTML.
fn inline(text: &str) -> String {
    html(&text.replace(['\n', '\r'], " "))
}

fn cut(text: &str, most: usize) -> String {
    Excerpt::of(text, most).text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::tests::recorded;

    #[test]
    fn an_annotation_names_the_file_in_the_repository_and_the_line() {
        let mut document = recorded();
        document.cases.retain(|case| case.id() == "topic/open-file-wrong@arm");
        let here = std::env::current_dir().unwrap();
        document.cases[0].file = here.join("scenarios/a,b.yaml").display().to_string();
        document.cases[0].again = "kmodlab run x".into();
        assert_eq!(
            annotations(&document, Some(&here)),
            "::error file=scenarios/a%2Cb.yaml,line=11,col=5,title=fail topic/open-file-wrong@arm::an open device keeps \
             its module in use, and nothing says who has it open%0Astep 6 (assert): module refmod use-count: expected \
             2%0Afound 1%0Arun it again: kmodlab run x\n"
        );
        assert_eq!(command("group", &[], "50% \r\n::x"), "::group::50%25 %0D%0A::x\n");
    }

    #[test]
    fn a_summary_has_each_failure_and_no_markup_of_a_guests() {
        let document = recorded();
        let text = summary(&document);
        let bad = document.cases.iter().filter(|case| case.outcome.is_bad());
        assert_eq!(text.matches("<details>").count(), bad.count());
        assert!(text.contains("<p>4 cases met: <code>WARNING in fault_init</code></p>"), "{text}");
        assert!(!text.contains("<script") && text.contains("&lt;script&gt;document.title="), "{text}");
        assert!(text.len() < 1 << 20, "{}", text.len());
    }
}
