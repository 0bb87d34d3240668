//! What is wrong with a text, and how it is shown.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::Position;

/// One thing that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Where.
    pub at: Position,
    /// What, as a lowercase fragment with values in backticks.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A diagnostic from a message whose second line, if it has one, is the hint.
    pub fn new(at: Position, message: impl AsRef<str>) -> Self {
        let (message, hint) = match message.as_ref().split_once('\n') {
            Some((message, hint)) => (message, Some(hint.to_owned())),
            None => (message.as_ref(), None),
        };
        Diagnostic { at, message: message.to_owned(), hint }
    }
}

/// The order of the text, each only once.
pub(super) fn sorted(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort();
    diagnostics.dedup();
    diagnostics
}

/// The one of `known` that `name` was most likely meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody misspells a name into a page of text, and comparing it would take long.
    if name.len() > 64 {
        return None;
    }
    // One slip in a short name, one in three characters of a long one, counted as typists make them.
    let limit = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| {
            (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Shows the diagnostics of the file `path`, whose text is `text`, with the lines they are about.
///
/// The result ends with a newline unless it is empty, and has no colours.
pub fn render(path: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let renderer = Renderer::plain().decor_style(DecorStyle::Ascii);
    let lines: Vec<&str> = text.split('\n').collect();
    let mut out = String::new();
    for diagnostic in diagnostics {
        let mut group = Group::with_title(Level::ERROR.primary_title(&diagnostic.message));
        let row = diagnostic.at.line.saturating_sub(1) as usize;
        // Only the line itself is handed over: a file that is not UTF-8, or a value from no text, has none.
        if let Some(line) = lines.get(row).filter(|_| diagnostic.at.line > 0) {
            let line = line.trim_end_matches('\r').trim_start_matches('\u{feff}');
            group = group.element(
                Snippet::source(line)
                    .path(path)
                    .line_start(row + 1)
                    .annotation(AnnotationKind::Primary.span(columns(line, diagnostic.at))),
            );
        } else {
            group = group.element(annotate_snippets::Origin::path(path));
        }
        if let Some(hint) = &diagnostic.hint {
            group = group.element(Level::HELP.message(hint));
        }
        out += &renderer.render(&[group]);
        out += "\n\n";
    }
    out.pop();
    out
}

/// The bytes of `line` that `at` covers, at least one character where there is one.
fn columns(line: &str, at: Position) -> std::ops::Range<usize> {
    let offset = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(offset, _)| offset);
    let start = at.column.saturating_sub(1) as usize;
    offset(start)..offset(start + at.length.max(1) as usize)
}
