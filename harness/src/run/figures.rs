//! What a case measured.

use crate::guest::Finished;

/// The most figures that a step may give; whatever prints more does not mean figures.
const MOST: usize = 64;

/// Something measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Of what.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit; empty where it has none.
    pub unit: String,
}

/// The figures in a program's output, a line each: `NAME: NUMBER UNIT`.
///
/// # Errors
///
/// The first line that is none.
pub(super) fn parse(finished: &Finished) -> Result<Vec<Figure>, String> {
    let text = finished.stdout.text();
    let lines = text.lines().enumerate();
    let figures =
        lines.map(|(index, line)| figure(line).filter(|_| index < MOST).ok_or_else(|| line.to_owned()));
    figures.collect()
}

fn figure(line: &str) -> Option<Figure> {
    let (name, rest) = line.rsplit_once(": ")?;
    let (number, unit) = rest.split_once(' ').unwrap_or((rest, ""));
    let value = number.parse().ok().filter(|value: &f64| value.is_finite())?;
    (!name.trim().is_empty()).then(|| Figure { name: name.to_owned(), value, unit: unit.to_owned() })
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.value)?;
        if self.unit.is_empty() { Ok(()) } else { write!(f, " {}", self.unit) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("time: 12 us", Some("time: 12 us"))]
    #[case("log, a day: in all: 1.50 MB a day", Some("log, a day: in all: 1.5 MB a day"))]
    #[case("events: -3", Some("events: -3"))]
    #[case("time: 12us", None)]
    #[case("time: NaN us", None)]
    #[case(": 12 us", None)]
    #[case("12 us", None)]
    #[case("", None)]
    fn a_figure_is_a_name_a_number_and_a_unit(#[case] line: &str, #[case] shown: Option<&str>) {
        assert_eq!(figure(line).map(|figure| figure.to_string()).as_deref(), shown);
    }
}
