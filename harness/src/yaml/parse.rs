//! From text to tree: serde-saphyr's parser with its limits, and the positions it gives.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{
    Budget, DuplicateKeyPolicy, Error, Location, NonFiniteFloatPolicy, Options, Spanned as Located,
};

use super::{Diagnostic, Entry, Kind, Node, Position, Scalar, diagnostic};

/// The largest text that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// How deep maps and lists may nest. The decoder recurses, so this bounds its stack.
const MAX_DEPTH: usize = 32;
/// How many scalars, lists and maps there may be, aliases expanded.
const MAX_NODES: usize = 50_000;

/// Reads a file's bytes as text.
///
/// # Errors
///
/// The place of the first byte that is not UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str, Diagnostic> {
    str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let before = String::from_utf8_lossy(valid);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        let at = Position { line: clamp(line as u64), column: clamp(column as u64), length: 0 };
        Diagnostic::new(at, "not UTF-8\nsave the file as UTF-8")
    })
}

/// Parses a text that holds one document.
///
/// There is no tree where the text is no YAML, or is too large, too deep, or expands to too much. Repeated keys and
/// keys that are not scalars are reported and left out, so that what follows them is still looked at.
pub fn parse(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let start = Position { line: 1, column: 1, length: 0 };
    if text.len() > MAX_BYTES {
        return (
            None,
            vec![Diagnostic::new(start, format!("the file is larger than {} KiB", MAX_BYTES / 1024))],
        );
    }
    match serde_yaml::from_str_with_options::<Located<Raw>>(text, options()) {
        Ok(Located { value: Raw::Null, .. }) if text.len() < MAX_BYTES && is_blank(text) => {
            (None, vec![Diagnostic::new(start, "the file is empty")])
        }
        Ok(raw) => {
            let mut builder = Builder { text, next_id: 0, diagnostics: Vec::new() };
            let node = builder.node(raw);
            (Some(node), diagnostic::sorted(builder.diagnostics))
        }
        Err(error) => (None, vec![syntax_error(&error)]),
    }
}

/// Whether there is nothing but comments and white space.
fn is_blank(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

fn options() -> Options {
    let mut budget = Budget::default();
    budget.max_depth = MAX_DEPTH;
    budget.max_nodes = MAX_NODES;
    budget.max_events = 4 * MAX_NODES;
    budget.max_recorded_anchor_events = MAX_NODES;
    budget.max_recorded_anchor_bytes = MAX_BYTES;
    budget.max_total_scalar_bytes = 4 * MAX_BYTES;
    budget.max_aliases = 1_000;
    budget.max_anchors = 1_000;
    budget.max_merge_keys = 1_000;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = MAX_NODES;
    // Repeated keys are ours to report: all of them, and the rest of the file as well.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    // `on`, `0755` and `1_000` are text; a type that wants a number says so.
    options.strict_booleans = true;
    options.leading_zero_numbers_as_strings = true;
    options.underscored_numbers_as_strings = true;
    options.non_finite_float_policy = NonFiniteFloatPolicy::AsString;
    options.reject_unsupported_tags = true;
    options.with_snippet = false;
    options
}

fn syntax_error(error: &Error) -> Diagnostic {
    let at = error
        .location()
        .map_or(Position { line: 1, column: 1, length: 0 }, |location| position(location, ""));
    let text = error.to_string();
    // Without snippets the place is appended to the message; it is shown on its own here.
    let message = text.lines().next().unwrap_or_default();
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    match error {
        Error::MultipleDocuments { .. } => {
            Diagnostic::new(at, "a second document begins here\na file holds one; remove the `---`")
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            Diagnostic::new(at, "the file is too deep or too large here, with its aliases expanded")
        }
        Error::AliasError { error, .. } => syntax_error(error),
        _ => Diagnostic::new(at, message),
    }
}

fn clamp(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// `raw` is the source text, of which only the first line is counted.
fn position(location: Location, raw: &str) -> Position {
    let length = raw.lines().next().unwrap_or_default().trim_end().chars().count();
    Position { line: clamp(location.line()), column: clamp(location.column()), length: clamp(length as u64) }
}

/// What serde-saphyr gives, before keys are looked at.
enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Seq(Vec<Located<Raw>>),
    Map(Vec<(Located<Raw>, Located<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Raw::Seq(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

/// Numbers the nodes and checks the keys.
struct Builder<'t> {
    text: &'t str,
    next_id: u32,
    diagnostics: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn node(&mut self, raw: Located<Raw>) -> Node {
        let id = self.next_id;
        self.next_id += 1;
        let source = self.source(raw.defined);
        let at = position(raw.defined, &source);
        let kind = match raw.value {
            Raw::Null => Kind::Null,
            Raw::Bool(value) => Kind::Scalar(Scalar::Bool(value, source)),
            Raw::Int(value) => Kind::Scalar(Scalar::Int(value, source)),
            Raw::Float(value) => Kind::Scalar(Scalar::Float(value, source)),
            Raw::Text(text) => Kind::Scalar(Scalar::Text(text)),
            Raw::Seq(nodes) => Kind::Seq(nodes.into_iter().map(|node| self.node(node)).collect()),
            Raw::Map(entries) => Kind::Map(self.entries(entries)),
        };
        Node { id, at, kind }
    }

    fn source(&self, location: Location) -> String {
        let span = location.span();
        let range = span.byte_offset().zip(span.byte_len()).and_then(|(start, length)| {
            Some(usize::try_from(start).ok()?..usize::try_from(start.checked_add(length)?).ok()?)
        });
        range.and_then(|range| self.text.get(range)).unwrap_or_default().to_owned()
    }

    fn entries(&mut self, raw: Vec<(Located<Raw>, Located<Raw>)>) -> Vec<Entry> {
        let mut first = std::collections::HashMap::<String, u32>::new();
        let mut entries = Vec::new();
        for (key, value) in raw {
            let key = self.node(key);
            let Some(name) = key.text() else {
                self.diagnostics
                    .push(Diagnostic::new(key.at, "a key must be a word, not a list, a map or nothing"));
                continue;
            };
            if let Some(line) = first.get(name) {
                let message = format!("the key `{name}` is there twice\nit is on line {line} already");
                self.diagnostics.push(Diagnostic::new(key.at, message));
                continue;
            }
            first.insert(name.to_owned(), key.at.line);
            let mut value = self.node(value);
            if value.kind == Kind::Null {
                // Nothing has no place of its own.
                value.at = key.at;
            }
            entries.push(Entry { key, value });
        }
        entries
    }
}
