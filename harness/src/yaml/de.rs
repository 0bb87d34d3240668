//! Typed values from nodes, with errors that know their node.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::diagnostic::{Diagnostic, nearest};
use super::forms::{ONE_OR_MANY, SHORT_FORM, SPANNED};
use super::{Entry, Kind, Node, Position, Scalar};

/// Why a node is not what its type wants.
#[derive(Debug)]
pub(super) struct Error {
    /// The innermost node that was being read.
    pub(super) node: Option<(u32, Position)>,
    pub(super) problem: Problem,
}

#[derive(Debug)]
pub(super) enum Problem {
    UnknownKey { name: String, known: &'static [&'static str] },
    UnknownWord { name: String, known: &'static [&'static str] },
    MissingKey(&'static str),
    Other(String),
}

impl Error {
    fn new(problem: Problem) -> Self {
        Error { node: None, problem }
    }

    fn at(mut self, node: &Node) -> Self {
        self.node.get_or_insert((node.id, node.at));
        self
    }

    pub(super) fn diagnostic(&self) -> Diagnostic {
        let at = self.node.map(|(_, at)| at).unwrap_or_default();
        Diagnostic::new(at, self.to_string())
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::UnknownKey { name, known } => {
                write!(f, "unknown key `{name}`{}", suggestion(name, known))
            }
            Problem::UnknownWord { name, known } => {
                write!(f, "unknown word `{name}`{}", suggestion(name, known))
            }
            Problem::MissingKey(name) => write!(f, "the key `{name}` is missing"),
            Problem::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

fn suggestion(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("\ndid you mean `{near}`?"),
        None => format!(
            "\nknown are {}",
            known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}

impl serde::de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Error::new(Problem::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Error::custom(format_args!("expected {}, found {}", wanted(expected), plain(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Error::invalid_type(found, expected)
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Error::new(Problem::UnknownWord { name: name.to_owned(), known })
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Error::new(Problem::UnknownKey { name: name.to_owned(), known })
    }

    fn missing_field(name: &'static str) -> Self {
        Error::new(Problem::MissingKey(name))
    }
}

/// What serde's generated code expects, in words of YAML and not of Rust.
fn wanted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.split_whitespace().next() {
        _ if text == "a boolean" => "`true` or `false`".to_owned(),
        Some("struct") => "a map".to_owned(),
        Some("tuple" | "sequence") => "a list".to_owned(),
        Some("enum") => "one of its known words".to_owned(),
        Some("u8" | "u16" | "u32" | "u64" | "usize") => "a whole number, not negative".to_owned(),
        Some("i8" | "i16" | "i32" | "i64" | "isize") => "a whole number".to_owned(),
        Some("f32" | "f64") => "a number".to_owned(),
        _ => text.replace("a sequence", "a list").replace("a string", "text"),
    }
}

fn plain(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number `{value}`"),
        Unexpected::Signed(value) => format!("the number `{value}`"),
        Unexpected::Float(value) => format!("the number `{value}`"),
        Unexpected::Str(text) => match text.lines().next() {
            Some(first) if first.len() < text.len() => format!("the text `{first}…`"),
            _ => format!("the text `{text}`"),
        },
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'n>(pub(super) &'n Node);

impl<'n> NodeDeserializer<'n> {
    fn visit<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Scalar(Scalar::Text(text)) => visitor.visit_borrowed_str(text),
            Kind::Scalar(Scalar::Bool(value, _)) => visitor.visit_bool(*value),
            Kind::Scalar(Scalar::Float(value, _)) => visitor.visit_f64(*value),
            Kind::Scalar(Scalar::Int(value, _)) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Kind::Seq(nodes) => visitor.visit_seq(Elements(nodes.iter())),
            Kind::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        }
    }

    fn visit_text<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Scalar(scalar) => visitor.visit_borrowed_str(scalar.text()),
            _ => self.visit(visitor),
        }
    }

    fn visit_enum<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Scalar(Scalar::Text(_)) => visitor.visit_enum(Variant { name: self.0, content: None }),
            Kind::Map(entries) => match entries.as_slice() {
                [Entry { key, value }] => visitor.visit_enum(Variant { name: key, content: Some(value) }),
                _ => Err(Error::custom(format_args!(
                    "expected a map with one key, found {} keys",
                    entries.len()
                ))),
            },
            _ => self.visit(visitor),
        }
    }

    fn visit_newtype<V: Visitor<'n>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        match (name, &self.0.kind) {
            (SPANNED, _) => visitor.visit_seq(SpannedParts { node: self.0, next: 0 }),
            (ONE_OR_MANY, Kind::Seq(_)) => self.visit(visitor),
            (ONE_OR_MANY, _) => visitor.visit_seq(Elements(std::slice::from_ref(self.0).iter())),
            _ => match (name.strip_prefix(SHORT_FORM), &self.0.kind) {
                (Some(_), Kind::Map(_)) => self.visit(visitor),
                (Some(_), Kind::Null) => self.visit(visitor),
                (Some(key), _) => visitor.visit_map(ShortForm { key: Some(key), value: self.0 }),
                (None, _) => visitor.visit_newtype_struct(self),
            },
        }
    }
}

macro_rules! placed {
    ($($method:ident($($arg:ident: $type:ty),*) => $visit:ident($($pass:ident),*);)*) => {
        $(fn $method<V: Visitor<'n>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, Error> {
            self.$visit($($pass,)* visitor).map_err(|error| error.at(self.0))
        })*
    };
}

impl<'n> Deserializer<'n> for NodeDeserializer<'n> {
    type Error = Error;

    placed! {
        deserialize_any() => visit();
        deserialize_str() => visit_text();
        deserialize_string() => visit_text();
        deserialize_identifier() => visit_text();
        deserialize_newtype_struct(name: &'static str) => visit_newtype(name);
        deserialize_enum(_name: &'static str, _variants: &'static [&'static str]) => visit_enum();
    }

    /// A key without a value is a mistake, not an absent key.
    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <W: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct
    }
}

struct Elements<'n>(std::slice::Iter<'n, Node>);

impl<'n> SeqAccess<'n> for Elements<'n> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.0.next() else { return Ok(None) };
        seed.deserialize(NodeDeserializer(node)).map(Some).map_err(|error| error.at(node))
    }
}

struct Entries<'n> {
    rest: std::slice::Iter<'n, Entry>,
    value: Option<&'n Node>,
}

impl<'n> MapAccess<'n> for Entries<'n> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(Entry { key, value }) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(NodeDeserializer(key)).map(Some).map_err(|error| error.at(key))
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let node = self.value.take().ok_or_else(|| Error::custom("a value before its key"))?;
        seed.deserialize(NodeDeserializer(node)).map_err(|error| error.at(node))
    }
}

/// A value in place of the map that has it at `key`.
struct ShortForm<'n> {
    key: Option<&'static str>,
    value: &'n Node,
}

impl<'n> MapAccess<'n> for ShortForm<'n> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.key.take().map(|key| seed.deserialize(StrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(NodeDeserializer(self.value)).map_err(|error| error.at(self.value))
    }
}

/// Line, column, length, value: what [`super::Spanned`] is made from.
struct SpannedParts<'n> {
    node: &'n Node,
    next: usize,
}

impl<'n> SeqAccess<'n> for SpannedParts<'n> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Position { line, column, length } = self.node.at;
        let part = [line, column, length].get(self.next).copied();
        self.next += 1;
        match part {
            Some(number) => seed.deserialize(serde::de::value::U32Deserializer::new(number)).map(Some),
            None => seed.deserialize(NodeDeserializer(self.node)).map(Some),
        }
    }
}

struct Variant<'n> {
    name: &'n Node,
    content: Option<&'n Node>,
}

impl<'n> EnumAccess<'n> for Variant<'n> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'n>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = seed.deserialize(NodeDeserializer(self.name)).map_err(|mut error| {
            if let (Some(_), Problem::UnknownWord { name, known }) = (self.content, &error.problem) {
                error.problem = Problem::UnknownKey { name: name.clone(), known };
            }
            error.at(self.name)
        })?;
        Ok((name, self))
    }
}

impl<'n> Variant<'n> {
    fn content(&self) -> Result<NodeDeserializer<'n>, Error> {
        let missing =
            || Error::custom(format_args!("`{}` needs a value", self.name.text().unwrap_or_default()));
        self.content.map(NodeDeserializer).ok_or_else(missing)
    }
}

impl<'n> VariantAccess<'n> for Variant<'n> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            None => Ok(()),
            Some(node) => Err(Error::custom("this word takes no value").at(node)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<T::Value, Error> {
        let content = self.content()?;
        seed.deserialize(content).map_err(|error| error.at(content.0))
    }

    fn tuple_variant<V: Visitor<'n>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.content()?.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'n>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.content()?.deserialize_map(visitor)
    }
}
