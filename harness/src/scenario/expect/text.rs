//! Expectations of text.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Mismatch, Num};
use crate::scenario::words::{Pattern, Regex, Scalar};
use crate::yaml::{OneOrMany, ShortForm, short_form};

/// What a text should be like; all that is given must hold. Text alone stands for `equals`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(transform = ShortForm("equals"))]
pub struct TextMatch {
    /// The whole text, a final newline aside on either side.
    #[serde(default)]
    pub equals: Option<Scalar>,
    /// Text that is somewhere in it.
    #[serde(default)]
    pub contains: OneOrMany<Scalar>,
    /// Regular expressions that match somewhere; `^` and `$` match at each line.
    #[serde(default)]
    pub regex: OneOrMany<Regex>,
    /// Text, or regular expressions between slashes, that follow each other, with anything between them.
    #[serde(default)]
    pub in_order: OneOrMany<Pattern>,
    /// Text, or regular expressions between slashes, that are nowhere in it.
    #[serde(default)]
    pub none: OneOrMany<Pattern>,
    /// How often something is in it.
    #[serde(default)]
    pub count: OneOrMany<TextCount>,
    /// Whether it is empty, white space aside.
    #[serde(default)]
    pub empty: Option<bool>,
}

short_form!(TextMatch, "equals", "text or a map");

/// How often something is in a text.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextCount {
    /// A regular expression; matches that overlap count once.
    pub of: Regex,
    /// How often.
    pub is: Num,
}

impl TextMatch {
    /// Whether a text meets it.
    ///
    /// # Errors
    ///
    /// The first part that it does not meet.
    pub fn check(&self, text: &str) -> Result<(), Mismatch> {
        let text = trimmed(text);
        self.check_whole(text)?;
        for wanted in self.contains.iter() {
            if !text.contains(trimmed(&wanted.0)) {
                return Err(Mismatch::new("contains", quoted(&wanted.0), nearest_line(&wanted.0, text)));
            }
        }
        for regex in self.regex.iter() {
            if !regex.is_match(text) {
                return Err(Mismatch::new("regex", format!("/{}/", regex.as_str()), excerpt(text)));
            }
        }
        self.check_order(text)?;
        for unwanted in self.none.iter() {
            if let Some(found) = unwanted.find_from(text, 0) {
                return Err(Mismatch::new(
                    "none",
                    format!("no {}", shown(unwanted)),
                    line_at(text, found.start),
                ));
            }
        }
        for TextCount { of, is } in self.count.iter() {
            let found = i64::try_from(of.find_iter(text).count()).unwrap_or(i64::MAX);
            if !is.matches(found) {
                return Err(Mismatch::new(
                    "count",
                    format!("/{}/ {is} times", of.as_str()),
                    format!("it {found} times"),
                ));
            }
        }
        Ok(())
    }

    fn check_whole(&self, text: &str) -> Result<(), Mismatch> {
        if let Some(Scalar(wanted)) = &self.equals
            && trimmed(wanted) != text
        {
            return Err(Mismatch::new("", quoted(wanted), difference(trimmed(wanted), text)));
        }
        match (self.empty, text.trim().is_empty()) {
            (Some(true), false) => Err(Mismatch::new("", "nothing", excerpt(text))),
            (Some(false), true) => Err(Mismatch::new("", "some text", "nothing")),
            _ => Ok(()),
        }
    }

    fn check_order(&self, text: &str) -> Result<(), Mismatch> {
        let mut start = 0;
        let mut previous: Option<&Pattern> = None;
        for (index, wanted) in self.in_order.iter().enumerate() {
            match wanted.find_from(text, start) {
                Some(found) => start = found.end,
                None => {
                    let after =
                        previous.map(|previous| format!(" after {}", shown(previous))).unwrap_or_default();
                    let elsewhere = wanted
                        .find_from(text, 0)
                        .map(|found| format!("it before that, {}", line_at(text, found.start)));
                    let found = elsewhere.unwrap_or_else(|| {
                        nearest_line(&wanted.to_string(), text.get(start..).unwrap_or_default())
                    });
                    return Err(Mismatch::new(
                        format!("in-order[{index}]"),
                        format!("{}{after}", shown(wanted)),
                        found,
                    ));
                }
            }
            previous = Some(wanted);
        }
        Ok(())
    }
}

/// Without one final line end.
fn trimmed(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn shown(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Text(text) => quoted(text),
        Pattern::Regex(_) => pattern.to_string(),
    }
}

/// How much of a line is shown, in characters.
const WIDTH: usize = 160;
/// How many lines of a text are shown.
const HEIGHT: usize = 8;
/// How many lines are compared to find the one most alike.
const CANDIDATES: usize = 10_000;

/// A piece of text in backticks, on one line, with control characters spelt out.
pub(super) fn quoted(text: &str) -> String {
    let text = trimmed(text);
    let cut = if text.chars().count() > WIDTH { "…" } else { "" };
    let inner: String = text.chars().take(WIDTH).map(spelt).collect();
    format!("`{inner}{cut}`")
}

fn spelt(character: char) -> String {
    match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    }
}

/// The beginning of a text, as lines.
pub(super) fn excerpt(text: &str) -> String {
    if text.trim().is_empty() {
        return "nothing".to_owned();
    }
    let mut lines: Vec<_> = text.lines().take(HEIGHT).map(quoted).collect();
    let more = text.lines().count().saturating_sub(HEIGHT);
    if more > 0 {
        lines.push(format!("and {more} more lines"));
    }
    lines.join("\n")
}

/// The first line in which two texts differ, or the whole text if it is short.
fn difference(wanted: &str, text: &str) -> String {
    if text.is_empty() || text.lines().count() <= 1 && wanted.lines().count() <= 1 {
        return if text.is_empty() { "nothing".to_owned() } else { quoted(text) };
    }
    let mut wanted = wanted.lines();
    for (index, line) in text.lines().enumerate() {
        match wanted.next() {
            Some(same) if same == line => {}
            Some(other) => {
                return format!("{} in place of {} on line {}", quoted(line), quoted(other), index + 1);
            }
            None => return format!("a line more, {}", quoted(line)),
        }
    }
    match wanted.next() {
        Some(missing) => format!("the end, where {} should follow", quoted(missing)),
        None => "other line ends".to_owned(),
    }
}

/// The line that has the byte at `offset`.
fn line_at(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or_default();
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default();
    format!("{} on line {}", quoted(line), number + 1)
}

/// The line most like what was looked for.
fn nearest_line(wanted: &str, text: &str) -> String {
    let wanted = wanted.trim().lines().next().unwrap_or_default();
    let alike = |line: &str| strsim::sorensen_dice(wanted, &line.chars().take(4 * WIDTH).collect::<String>());
    let best = text
        .lines()
        .take(CANDIDATES)
        .enumerate()
        .map(|(index, line)| (alike(line), index, line))
        .filter(|(score, ..)| *score > 0.3)
        .max_by(|(a, ..), (b, ..)| a.total_cmp(b));
    match (best, text.lines().count()) {
        (Some((_, index, line)), lines) if lines > HEIGHT => {
            format!("nothing like it in {lines} lines but {} on line {}", quoted(line), index + 1)
        }
        (None, lines) if lines > HEIGHT => format!("nothing like it in {lines} lines"),
        _ => excerpt(text.trim_start_matches(['\r', '\n'])),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn check(pattern: &str, text: &str) -> String {
        let wanted: TextMatch = crate::yaml::from_str(pattern).unwrap();
        wanted.check(text).map_or_else(|mismatch| mismatch.within("stdout").to_string(), |()| "ok".to_owned())
    }

    #[rstest]
    #[case("one", "one\n")]
    #[case("5.10", "5.10")]
    #[case("\"\"", "")]
    #[case("|\n  a\n  b\n", "a\nb")]
    #[case("{ contains: b }", "abc")]
    #[case("{ contains: [a, c], regex: '^b$' }", "a\nb\nc\n")]
    #[case("{ in-order: [init, '/ex.t/'] }", "sample init\nsample exit")]
    #[case("{ none: [x, '/^b/'] }", "ab")]
    #[case("{ count: { of: a, is: '>= 2' } }", "aba")]
    #[case("{ empty: true }", " \n")]
    #[case("{ empty: false }", "x")]
    #[case("{ equals: /a/ }", "/a/")]
    fn texts_match(#[case] pattern: &str, #[case] text: &str) {
        assert_eq!(check(pattern, text), "ok");
    }

    #[rstest]
    #[case("one", "two", "stdout: expected `one`\nfound `two`")]
    #[case("one", "", "stdout: expected `one`\nfound nothing")]
    #[case("one", "o\u{1b}ne", "stdout: expected `one`\nfound `o\\u{1b}ne`")]
    #[case("|\n  a\n  b\n", "a\nc", "stdout: expected `a\\nb`\nfound `c` in place of `b` on line 2")]
    #[case("|\n  a\n  b\n", "a\nb\nc", "stdout: expected `a\\nb`\nfound a line more, `c`")]
    #[case("{ contains: x }", "a\nb", "stdout contains: expected `x`\nfound:\n  `a`\n  `b`")]
    #[case("{ regex: '^x' }", "ax", "stdout regex: expected /^x/\nfound `ax`")]
    #[case(
        "{ in-order: [b, a] }",
        "a\nb",
        "stdout in-order[1]: expected `a` after `b`\nfound it before that, `a` on line 1"
    )]
    #[case("{ in-order: [a, '/^b/'] }", "ab", "stdout in-order[1]: expected /^b/ after `a`\nfound `b`")]
    #[case("{ in-order: [a, '/c+/'] }", "a\nb", "stdout in-order[1]: expected /c+/ after `a`\nfound `b`")]
    #[case("{ none: b }", "a\nbc", "stdout none: expected no `b`\nfound `bc` on line 2")]
    #[case("{ count: { of: a, is: 2 } }", "a", "stdout count: expected /a/ 2 times\nfound it 1 times")]
    #[case("{ empty: true }", "x", "stdout: expected nothing\nfound `x`")]
    fn mismatches_are_told(#[case] pattern: &str, #[case] text: &str, #[case] expected: &str) {
        assert_eq!(check(pattern, text), expected);
    }

    #[test]
    fn in_a_long_text_the_nearest_line_is_shown() {
        let text: String = (0..50).map(|n| format!("noise {n}\n")).collect::<String>() + "sample inot\n";
        let expected = "stdout contains: expected `sample init`\nfound nothing like it in 51 lines but `sample inot` on line 51";
        assert_eq!(check("{ contains: sample init }", &text), expected);
        assert!(check("{ contains: zzzzz }", &text).ends_with("nothing like it in 51 lines"));
    }
}
