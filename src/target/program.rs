//! What goes wrong with the programs of Greenplum that stand beside the database.

use thiserror::Error;

use crate::source::SourceError;

/// Why gpfdist or gpload did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct ProgramError {
    pub(super) what: String,
    pub(super) remedy: String,
    pub(super) can_retry: bool,
    /// Is it that rows do not fit?
    pub(super) misfit: bool,
}

impl ProgramError {
    pub(super) fn of(error: &SourceError) -> Self {
        let known = match error {
            SourceError::Failed { message, .. } => known(message),
            SourceError::Remote(_)
            | SourceError::Command(_)
            | SourceError::Protocol { .. }
            | SourceError::Silent { .. }
            | SourceError::GivenUp { .. } => None,
        };
        let (remedy, can_retry) = match known {
            Some((remedy, can_retry)) => (remedy.to_owned(), can_retry),
            None => (error.remedy(), error.can_retry()),
        };
        Self { what: error.to_string(), remedy, can_retry, misfit: false }
    }

    /// Can the same thing succeed a moment later?
    pub fn can_retry(&self) -> bool {
        self.can_retry
    }

    /// May the file be to blame, that gpload could not bring in?
    pub fn may_be_the_file(&self) -> bool {
        self.misfit || self.what.contains("gpfdist error")
    }

    /// Is it that rows do not fit?
    pub fn is_misfit(&self) -> bool {
        self.misfit
    }

    /// What to try.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

/// What to try where the script's words say what is wrong, and whether another try may help by itself.
fn known(message: &str) -> Option<(&'static str, bool)> {
    let says = |words: &str| message.contains(words);
    if says("command not found") || says("not a program") {
        return Some((
            "install it there, or say where it is: target.gpfdist.path, or target.gpload.path",
            false,
        ));
    }
    if says("error while loading shared libraries") {
        let remedy = "name the program of a whole installation: its libraries are looked for in ../lib";
        return Some((remedy, false));
    }
    if says("cannot create socket") {
        return Some(("let it have more ports: target.gpfdist.ports", true));
    }
    None
}
