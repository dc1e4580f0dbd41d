//! What a remote exit code means.

use serde_json::{Value, json};

use super::{JSON_VERSION, block};
use crate::remote::Explanation;

/// For people.
pub fn text(explained: &Explanation, width: u16) -> String {
    let mut text = format!("{}\n", explained.title);
    text.push_str(&block("", &explained.meaning, width));
    for (head, lines) in [("  often: ", &explained.causes), ("  try: ", &explained.remedies)] {
        text.extend(lines.iter().map(|line| block(head, line, width)));
    }
    text
}

/// For programs.
pub fn json(code: u32, explained: &Explanation) -> Value {
    json!({
        "version": JSON_VERSION,
        "code": code,
        "title": explained.title,
        "meaning": explained.meaning,
        "causes": explained.causes,
        "remedies": explained.remedies,
    })
}
