//! YAML files with every error at once, each with its line and column.
//!
//! A text becomes a tree of [`Node`]s that know their positions ([`parse`]), and a tree becomes a typed value
//! ([`decode`]). What is wrong with the text is a list of [`Diagnostic`]s, in the order of the text; [`render`] shows
//! them as a compiler would. Types may use [`Spanned`] for checks that come later and need the position,
//! [`OneOrMany`] for lists that may be written as a single element, and [`short_form`] for maps that may be written
//! as the value of their most important key.

mod de;
mod decode;
mod diagnostic;
mod forms;
mod node;
mod parse;

pub use decode::{Decoded, decode};
pub use diagnostic::{Diagnostic, nearest, render};
pub use forms::{OneOrMany, ShortForm, Spanned, short_form};
pub use node::{Entry, Kind, Node, Position, Scalar};
pub use parse::{MAX_BYTES, parse, utf8};

/// Reads a value from a text.
///
/// # Errors
///
/// All that is wrong with the text, in its order.
pub fn from_str<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Vec<Diagnostic>> {
    let (node, mut diagnostics) = parse(text);
    let value = node.and_then(|node| {
        let decoded = decode(&node);
        diagnostics.extend(decoded.diagnostics);
        decoded.value
    });
    match value {
        Some(value) if diagnostics.is_empty() => Ok(value),
        _ => Err(diagnostic::sorted(diagnostics)),
    }
}

#[cfg(test)]
mod tests;
