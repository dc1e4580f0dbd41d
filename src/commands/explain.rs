//! `explain N`: what a remote exit code means and what to try.

use serde_json::json;

use super::{print, print_json};
use crate::cli::{Common, Format};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::remote;

/// Explains a code.
///
/// # Errors
/// [`Failure::Io`] where stdout cannot be written.
pub(super) fn explain(common: &Common, code: u32) -> Result<Exit, Failure> {
    let explained = remote::explain(code);
    match common.format {
        Format::Json => print_json(&json!({
            "version": crate::report::JSON_VERSION,
            "code": code,
            "title": explained.title,
            "meaning": explained.meaning,
            "causes": explained.causes,
            "remedies": explained.remedies,
        }))?,
        Format::Text => {
            let mut text = format!("{code}: {}\n{}\n", explained.title, explained.meaning);
            for (head, lines) in [("often", &explained.causes), ("try", &explained.remedies)] {
                for line in lines {
                    text.push_str(&format!("  {head}: {line}\n"));
                }
            }
            print(&text)?;
        }
    }
    Ok(Exit::Done)
}
