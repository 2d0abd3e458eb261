//! An error with everything that caused it, in one line: rendered once, at the edge where a person reads it.

use std::error::Error;

/// An error and all its sources, each after a colon.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
