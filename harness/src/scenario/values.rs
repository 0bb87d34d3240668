//! Values that differ between images: `$<insn-offset>` in a scenario is what the image's file has under `values`.
//!
//! The syntax is one that neither YAML nor a POSIX shell gives a meaning: `$<` starts a plain scalar, and in a shell
//! it is a lone dollar before a redirection. `$$<name>` stands for the text `$<name>`; anything that is no name is left
//! alone.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::arch::Arch;
use crate::yaml::{Diagnostic, Node, Scalar, nearest};

/// The directory of the tracefs instance that each case has for itself; `$<tracing>` in a scenario.
pub const TRACING: &str = "/sys/kernel/tracing/instances/kmodlab";

/// A value of an image.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// Text.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(number) => write!(f, "{number}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl Visitor<'_> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a whole number, `true` or `false`")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Int(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
                i64::try_from(number).map(Value::Int).map_err(|_| E::custom("the number is too large"))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

/// The values that scenarios find on one image: its own, and `image`, `arch`, `text` and `tracing`.
#[derive(Debug, Clone, Default)]
pub struct Values(BTreeMap<String, Value>);

impl Values {
    /// The values of an image. Its own must not have the names of the others.
    pub fn new(image: &str, arch: Arch, own: BTreeMap<String, Value>) -> Self {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut values = own;
        values.insert("image".to_owned(), text(image));
        values.insert("arch".to_owned(), text(arch.name));
        values.insert("text".to_owned(), text(arch.text_prefix));
        values.insert("tracing".to_owned(), text(TRACING));
        Values(values)
    }

    /// Puts the values where a tree refers to them.
    ///
    /// A scalar that is nothing but a reference gets the value's type; within text, the value is text.
    pub fn substitute(&self, tree: &mut Node) -> Vec<Diagnostic> {
        let mut diagnostics = Vec::new();
        tree.scalars_mut(&mut |at, scalar| {
            let Scalar::Text(text) = &*scalar else { return };
            if !text.contains("$<") {
                return;
            }
            match self.expand(text) {
                Ok(value) => *scalar = value,
                Err(unknown) => diagnostics.extend(unknown.iter().map(|name| self.unknown(name, at))),
            }
        });
        diagnostics
    }

    fn unknown(&self, name: &str, at: crate::yaml::Position) -> Diagnostic {
        let hint = match nearest(name, self.0.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let image = self.0.get("image").map(|image| format!(" `{image}`")).unwrap_or_default();
                format!("the image{image} has none of that name under `values`")
            }
        };
        Diagnostic::new(at, format!("unknown value `{name}`\n{hint}"))
    }

    /// The text with its references resolved, or the names that are unknown.
    fn expand(&self, text: &str) -> Result<Scalar, Vec<String>> {
        if let Some(name) =
            text.strip_prefix("$<").and_then(|rest| rest.strip_suffix('>')).filter(|name| is_name(name))
        {
            let value = self.0.get(name).ok_or_else(|| vec![name.to_owned()])?;
            return Ok(match value {
                Value::Int(number) => Scalar::Int((*number).into(), number.to_string()),
                Value::Bool(value) => Scalar::Bool(*value, value.to_string()),
                Value::Text(text) => Scalar::Text(text.clone()),
            });
        }
        let mut out = String::with_capacity(text.len());
        let mut unknown = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("$<") {
            let reference = after.split_once('>').filter(|(name, _)| is_name(name));
            match (before.strip_suffix('$'), reference) {
                (_, None) => {
                    out += before;
                    out += "$<";
                    rest = after;
                }
                // `$$<name>`: one dollar goes.
                (Some(before), Some((name, after))) => {
                    out += &format!("{before}$<{name}>");
                    rest = after;
                }
                (None, Some((name, after))) => {
                    out += before;
                    match self.0.get(name) {
                        Some(value) => out += &value.to_string(),
                        None => unknown.push(name.to_owned()),
                    }
                    rest = after;
                }
            }
        }
        out += rest;
        if unknown.is_empty() { Ok(Scalar::Text(out)) } else { Err(unknown) }
    }
}

/// `[a-z][a-z0-9.-]*`
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn values() -> Values {
        let own = [
            ("insn-offset", Value::Int(5)),
            ("smp", Value::Bool(true)),
            ("clone", Value::Text("_do_fork".into())),
        ];
        let arch = Arch::all().next().unwrap();
        Values::new("small", arch, own.map(|(name, value)| (name.to_owned(), value)).into())
    }

    #[rstest]
    #[case("$<insn-offset>", Scalar::Int(5, "5".into()))]
    #[case("$<smp>", Scalar::Bool(true, "true".into()))]
    #[case("$<clone>", Scalar::Text("_do_fork".into()))]
    #[case("$<clone>+$<insn-offset>", Scalar::Text("_do_fork+5".into()))]
    #[case("on $<image>", Scalar::Text("on small".into()))]
    #[case("$<tracing>/trace", Scalar::Text(format!("{TRACING}/trace")))]
    #[case("$$<clone> $<clone>", Scalar::Text("$<clone> _do_fork".into()))]
    #[case("echo ${x} $(y) $1 $$ $<", Scalar::Text("echo ${x} $(y) $1 $$ $<".into()))]
    #[case("cat $</dev/null >x $<A> $<1>", Scalar::Text("cat $</dev/null >x $<A> $<1>".into()))]
    fn references_are_resolved(#[case] text: &str, #[case] expected: Scalar) {
        assert_eq!(values().expand(text), Ok(expected));
    }

    #[test]
    fn unknown_names_are_placed_and_the_nearest_is_told() {
        let (tree, _) = crate::yaml::parse("a: { b: $<insn-ofset> }\nc: x $<lorem> y $<ipsum>\n");
        let diagnostics = values().substitute(&mut tree.unwrap());
        let told: Vec<_> = diagnostics.iter().map(|d| (d.at.line, d.at.column, d.message.as_str())).collect();
        let expected = [
            (1, 9, "unknown value `insn-ofset`"),
            (2, 4, "unknown value `lorem`"),
            (2, 4, "unknown value `ipsum`"),
        ];
        assert_eq!(told, expected);
        assert_eq!(diagnostics[0].hint.as_deref(), Some("did you mean `insn-offset`?"));
        assert_eq!(
            diagnostics[1].hint.as_deref(),
            Some("the image `small` has none of that name under `values`")
        );
    }

    proptest! {
        #[test]
        fn text_without_references_stays(text in "[^<]{0,40}") {
            prop_assert_eq!(values().expand(&text), Ok(Scalar::Text(text)));
        }

        #[test]
        fn nothing_panics(text in "[$<>a-z. \u{e4}-]{0,40}") {
            let _ = values().expand(&text);
        }
    }
}
