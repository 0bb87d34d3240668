//! The tree between the text and the types.

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Counted from 1; 0 for a value that came from no text.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
    /// How many characters of the line it covers; 0 where only the start is known.
    pub length: u32,
}

/// One value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Names the node within its tree.
    pub(super) id: u32,
    /// Where it is written; for an alias, where the anchor is.
    pub at: Position,
    /// The value.
    pub kind: Kind,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing, or `null`.
    Null,
    /// A single value.
    Scalar(Scalar),
    /// A list.
    Seq(Vec<Node>),
    /// A map; keys are scalars and differ.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key, a scalar.
    pub key: Node,
    /// The value.
    pub value: Node,
}

/// A single value. Every scalar has a text, so that a version such as `5.10` stays what was written when a type
/// wants text.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Text, or a quoted anything.
    Text(String),
    /// `true` or `false`, with the spelling.
    Bool(bool, String),
    /// An integer, with the spelling.
    Int(i128, String),
    /// A number with a fraction or an exponent, with the spelling.
    Float(f64, String),
}

impl Scalar {
    /// The text as it was written, without quotes.
    pub fn text(&self) -> &str {
        match self {
            Scalar::Text(text) | Scalar::Bool(_, text) | Scalar::Int(_, text) | Scalar::Float(_, text) => {
                text
            }
        }
    }
}

impl Node {
    /// The text, if the node is a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar.text()),
            _ => None,
        }
    }

    /// The value at `key`, if the node is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => {
                entries.iter().find(|entry| entry.key.text() == Some(key)).map(|entry| &entry.value)
            }
            _ => None,
        }
    }

    /// Calls `visit` on every scalar, keys included.
    pub fn scalars_mut(&mut self, visit: &mut dyn FnMut(Position, &mut Scalar)) {
        match &mut self.kind {
            Kind::Null => {}
            Kind::Scalar(scalar) => visit(self.at, scalar),
            Kind::Seq(nodes) => nodes.iter_mut().for_each(|node| node.scalars_mut(visit)),
            Kind::Map(entries) => entries.iter_mut().for_each(|Entry { key, value }| {
                key.scalars_mut(visit);
                value.scalars_mut(visit);
            }),
        }
    }
}
