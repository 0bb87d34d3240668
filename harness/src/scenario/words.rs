//! Small types of which steps and expectations are made.

use std::fmt;

use regex::RegexBuilder;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

use crate::guest;

/// A regular expression; `^` and `$` match at each line.
#[derive(Debug, Clone)]
pub struct Regex(regex::Regex);

impl Regex {
    /// Compiles it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, on one line.
    pub fn new(pattern: &str) -> Result<Self, String> {
        RegexBuilder::new(pattern).multi_line(true).size_limit(1 << 20).build().map(Regex).map_err(|error| {
            // The last line of the crate's report says what is wrong; those before it draw the place.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim();
            let reason = reason.trim_start_matches("error: ");
            format!("`{pattern}` is no regular expression: {reason}")
        })
    }
}

impl std::ops::Deref for Regex {
    type Target = regex::Regex;

    fn deref(&self) -> &regex::Regex {
        &self.0
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl<'de> Deserialize<'de> for Regex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Regex::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Regex {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Regex".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Text, or a regular expression between slashes: `do_init_module`, `/^do_.*_module$/`.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// Text, taken literally.
    Text(String),
    /// A regular expression, which may match anywhere.
    Regex(Regex),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What is wrong with the regular expression.
    pub fn new(text: &str) -> Result<Self, String> {
        match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Some(inner) if !inner.is_empty() => Regex::new(inner).map(Pattern::Regex),
            _ => Ok(Pattern::Text(text.to_owned())),
        }
    }

    /// Whether the whole of `text` is meant: equal, or matched by the expression.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Pattern::Text(wanted) => wanted == text,
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }

    /// The bytes of the first place in `text`, not before the byte `start`, that is meant.
    pub fn find_from(&self, text: &str, start: usize) -> Option<std::ops::Range<usize>> {
        let rest = text.get(start..)?;
        match self {
            Pattern::Text(wanted) => rest.find(wanted).map(|at| start + at..start + at + wanted.len()),
            // Not in `rest` alone, where `^` would match at its start.
            Pattern::Regex(regex) => regex.find_at(text, start).map(|found| found.range()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Text(text) => write!(f, "{text}"),
            Pattern::Regex(regex) => write!(f, "/{}/", regex.as_str()),
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.is_empty() {
            true => Err(D::Error::custom("an empty pattern")),
            false => Pattern::new(&text).map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean"],
            "description": "Text, or a regular expression between slashes: `do_init_module`, `/^do_.*_module$/`.",
        })
    }
}

/// Text that may be written as a number or a word that YAML reads as something else: `1`, `true`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Scalar)
    }
}

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// A signal by its name, with or without `SIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub guest::Signal);

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Signal).map_err(D::Error::custom)
    }
}

impl JsonSchema for Signal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Signal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": guest::signal::names().flat_map(|name| [name, name.trim_start_matches("SIG")]).collect::<Vec<_>>(), "description": "A signal's name, with or without `SIG`." })
    }
}
