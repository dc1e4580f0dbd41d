//! What is secret is read when it is needed, from where it is kept.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use super::SinkError;
use crate::inventory::Given;

/// A longer one is no token and no URL.
const MOST: u64 = 16 * 1024;

/// What is given, without the line break at its end. No message shows it.
pub(super) fn read(given: &Given) -> Result<String, SinkError> {
    let text = match given {
        Given::Written(text) => text.clone(),
        Given::Variable(name) => std::env::var(name).map_err(|_| {
            let what = format!("the variable {name} is not set, or is no text");
            SinkError::new(what, format!("set {name} for gpferry (in the crontab, or in the unit's file)"))
        })?,
        Given::File(path) => {
            let shown = path.display();
            let wrong = |why: String| {
                let remedy = format!("make it readable by the user of gpferry alone: chmod 600 {shown}");
                SinkError::new(format!("{shown} cannot be used: {why}"), remedy)
            };
            let mut file = File::open(path).map_err(|error| wrong(error.to_string()))?;
            // Of the open file: what is looked at is what is read.
            let mode = file.metadata().map_err(|error| wrong(error.to_string()))?.mode();
            if mode & 0o077 != 0 {
                return Err(wrong(format!("others can read it (mode {:o})", mode & 0o777)));
            }
            let mut text = String::new();
            file.by_ref().take(MOST).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
            text
        }
    };
    let text = text.trim_end_matches(['\n', '\r']).to_owned();
    if text.is_empty() || text.chars().any(char::is_control) {
        let what = match given {
            Given::Written(_) => "what is written".into(),
            Given::Variable(name) => format!("the variable {name}"),
            Given::File(path) => path.display().to_string(),
        };
        let what = format!("{what} holds nothing, or more than one line");
        return Err(SinkError::new(what, "let it hold the one value and nothing else"));
    }
    Ok(text)
}
