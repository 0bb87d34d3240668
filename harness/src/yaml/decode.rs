//! All errors of a tree at once: decode, note the error, cut out what it is about, decode again.

use std::collections::HashMap;

use serde::de::DeserializeOwned;

use super::de::{Error, NodeDeserializer, Problem};
use super::diagnostic::{Diagnostic, nearest, sorted};
use super::{Kind, Node};

/// A file with more errors than this is not looked at further.
const MAX_DIAGNOSTICS: usize = 100;

/// What became of a tree.
#[derive(Debug)]
pub struct Decoded<T> {
    /// The value; with errors, what is left of it without the parts that they are about, if that is a value.
    pub value: Option<T>,
    /// The errors, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a value from a tree.
pub fn decode<T: DeserializeOwned>(root: &Node) -> Decoded<T> {
    let mut tree = root.clone();
    let mut cut = Cut::default();
    let mut diagnostics = Vec::new();
    let value = loop {
        match T::deserialize(NodeDeserializer(&tree)) {
            Ok(value) => break Some(value),
            Err(error) => {
                if !cut.explains(&error) {
                    diagnostics.push(error.diagnostic());
                }
                let id = error.node.map_or(root.id, |(id, _)| id);
                if diagnostics.len() >= MAX_DIAGNOSTICS || !cut.cut(&mut tree, id) {
                    break None;
                }
            }
        }
    };
    Decoded { value, diagnostics: sorted(diagnostics) }
}

/// The keys cut out of each map, and an empty name for each element cut out of a list.
#[derive(Default)]
struct Cut(HashMap<u32, Vec<String>>);

impl Cut {
    /// Whether an error comes from what was cut, and not from the text. A misspelt key is missing, too.
    fn explains(&self, error: &Error) -> bool {
        let Some(names) = error.node.and_then(|(id, _)| self.0.get(&id)) else { return false };
        match &error.problem {
            Problem::MissingKey(key) => nearest(key, names.iter().map(String::as_str)).is_some(),
            Problem::UnknownKey { .. } | Problem::UnknownWord { .. } => false,
            // A check over the whole map or list cannot be told from one that missed what was cut.
            Problem::Other(_) => true,
        }
    }

    /// Cuts the map entry or list element out that has `id` for its key or its value.
    fn cut(&mut self, tree: &mut Node, id: u32) -> bool {
        let name = match &mut tree.kind {
            Kind::Null | Kind::Scalar(_) => None,
            Kind::Seq(nodes) => {
                let found = nodes.iter().position(|node| node.id == id);
                found.map(|index| nodes.remove(index)).map(|_| String::new())
            }
            Kind::Map(entries) => {
                let found = entries.iter().position(|entry| entry.key.id == id || entry.value.id == id);
                found.map(|index| entries.remove(index).key.text().unwrap_or_default().to_owned())
            }
        };
        if let Some(name) = name {
            self.0.entry(tree.id).or_default().push(name);
            return true;
        }
        match &mut tree.kind {
            Kind::Null | Kind::Scalar(_) => false,
            Kind::Seq(nodes) => nodes.iter_mut().any(|node| self.cut(node, id)),
            Kind::Map(entries) => entries.iter_mut().any(|entry| self.cut(&mut entry.value, id)),
        }
    }
}
