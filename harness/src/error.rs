//! Errors for people.

use std::error::Error;

/// An error with its causes, a line each. A cause that its error has named already is not named again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str("\n  because: ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}
