//! Text that came from a guest, made harmless for where it is shown.

/// The text with its control characters escaped, so that none reaches a terminal, and with a backslash before what GitHub's
/// runner would take for a command: `::` where a line begins, `##[` anywhere (actions/runner, `ActionCommand.cs`).
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let body = line.trim_start();
        let (blank, body) = line.split_at(line.len() - body.len());
        printable.push_str(&visible(blank));
        if body.starts_with("::") {
            printable.push('\\');
        }
        printable.push_str(&visible(&body.replace("##[", "#\\#[")));
    }
    printable
}

/// The text with its control characters escaped.
pub(super) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' => visible.push(c),
            c if c.is_control() => visible.extend(c.escape_default()),
            c => visible.push(c),
        }
    }
    visible
}

/// The text as HTML, without the control characters that HTML forbids.
pub(super) fn html(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\t' | '\n' => html.push(c),
            c if c.is_control() => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("plain\ttext\n", "plain\ttext\n")]
    #[case("\x1b[31mred\u{9b}", "\\u{1b}[31mred\\u{9b}")]
    #[case("::error::no\n  ::add-mask::x\na::b\n", "\\::error::no\n  \\::add-mask::x\na::b\n")]
    #[case("x ##[error]y", "x #\\#[error]y")]
    #[case("\r::set-env::\n\r\n", "\\r\\::set-env::\n\\r\n")]
    fn nothing_that_a_terminal_or_a_runner_would_obey_is_left(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(printable(text), shown);
    }

    #[test]
    fn html_has_no_markup_of_the_texts_own() {
        assert_eq!(html("<script>&'\"\x1b\0"), "&lt;script&gt;&amp;&#39;&quot;\u{fffd}\u{fffd}");
    }
}
