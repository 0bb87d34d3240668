//! Comparisons of numbers.

use std::fmt;
use std::ops::RangeInclusive;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

/// A number, or a comparison with one: `2`, `0x10`, `>= 1`, `1..3` (both ends belong to it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Num {
    text: String,
    range: RangeInclusive<i64>,
}

impl Num {
    /// Exactly this number.
    pub fn exactly(number: i64) -> Self {
        Num { text: number.to_string(), range: number..=number }
    }

    /// Reads a comparison.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let after = |operator: &str| text.strip_prefix(operator).map(|rest| number(rest.trim()));
        let range = if let Some((low, high)) = text.split_once("..") {
            number(low.trim())?..=number(high.trim())?
        } else if let Some(low) = after(">=") {
            low?..=i64::MAX
        } else if let Some(high) = after("<=") {
            i64::MIN..=high?
        } else if let Some(low) = after(">") {
            low?.checked_add(1)?..=i64::MAX
        } else if let Some(high) = after("<") {
            i64::MIN..=high?.checked_sub(1)?
        } else {
            let exact = number(text)?;
            exact..=exact
        };
        (!range.is_empty()).then(|| Num { text: text.to_owned(), range })
    }

    /// Whether `number` is meant.
    pub fn matches(&self, number: i64) -> bool {
        self.range.contains(&number)
    }

    /// The numbers that are meant.
    pub fn range(&self) -> RangeInclusive<i64> {
        self.range.clone()
    }
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            i64::from_str_radix(digits, 16).ok()
        }
        _ => text.parse().ok(),
    }
}

impl fmt::Display for Num {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Num::parse(&text).ok_or_else(|| {
            D::Error::custom(format_args!(
                "`{text}` is no comparison of numbers\nwrite `2`, `>= 1`, `< 3` or `1..3`"
            ))
        })
    }
}

impl JsonSchema for Num {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Num".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = "-?(0x[0-9A-Fa-f]+|[0-9]+)";
        json_schema!({
            "description": "A number, or a comparison with one: `2`, `>= 1`, `< 3`, `1..3` (both ends belong to it).",
            "anyOf": [
                { "type": "integer" },
                { "type": "string", "pattern": format!(r"^\s*((>=|<=|>|<)?\s*{number}|{number}\s*\.\.\s*{number})\s*$") },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2", &[2], &[1, 3, -2])]
    #[case("0x10", &[16], &[10])]
    #[case("-1", &[-1], &[1, 0])]
    #[case(">= 1", &[1, 2, i64::MAX], &[0, i64::MIN])]
    #[case(">1", &[2], &[1])]
    #[case("<= 1", &[1, i64::MIN], &[2])]
    #[case("< 0x2", &[1, -5], &[2])]
    #[case("1..3", &[1, 2, 3], &[0, 4])]
    #[case(" -2 .. -1 ", &[-2, -1], &[0, -3])]
    fn numbers_are_compared(#[case] text: &str, #[case] yes: &[i64], #[case] no: &[i64]) {
        let num = Num::parse(text).unwrap();
        assert!(yes.iter().all(|&number| num.matches(number)), "{text}");
        assert!(!no.iter().any(|&number| num.matches(number)), "{text}");
    }

    #[rstest]
    fn nonsense_is_refused(
        #[values(
            "",
            "x",
            ">=",
            "3..1",
            "1..",
            "..",
            "> 9223372036854775807",
            "1.5",
            "0x",
            "0x-1",
            "!= 2",
            "> = 1"
        )]
        text: &str,
    ) {
        assert_eq!(Num::parse(text), None);
    }
}
