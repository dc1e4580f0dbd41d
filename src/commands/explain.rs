//! `explain N`: what a remote exit code means and what to try.

use super::{print, print_json, width};
use crate::cli::{Common, Format};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::remote;
use crate::report::explain::{json, text};

/// Explains a code.
///
/// # Errors
/// [`Failure::Unforeseen`] where stdout cannot be written.
pub(super) fn explain(common: &Common, code: u32) -> Result<Exit, Failure> {
    let explained = remote::explain(code);
    match common.format {
        Format::Text => print(&text(&explained, width()))?,
        Format::Json => print_json(&json(code, &explained))?,
    }
    Ok(Exit::Done)
}
