//! Is every host, path, user, script and database ready? Answered before anything moves, and nothing is left.
//!
//! Gathering talks to hosts and databases and judges nothing; the checks are pure functions over what was
//! gathered. So every verdict has a test that needs no host, and the lab proves that the facts are the right ones.

use std::fmt;

use serde::Serialize;

pub mod access;
pub mod cheap;
mod choose;
mod database;
pub mod facts;
mod gather;
mod host;
mod identity;
mod mount;
pub mod mountinfo;
mod reach;
mod runner;
mod source;
mod tables;
mod target;
#[cfg(test)]
mod tests;
pub mod types;
mod visit;

pub use gather::{Ground, gather};
pub use mount::size;
pub use visit::{Gathered, Place, SourceVisit, TargetVisit, Visit, Wanted, WantedWindow};

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but somebody should look at it.
    Warn,
    /// Must be mended first.
    Fail,
    /// Not looked at.
    Skipped {
        /// Why.
        why: String,
    },
}

impl Verdict {
    /// The word in reports.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skipped { .. } => "skipped",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at: `reach.hostkey`, `mount.nonce`, `target.key`, … An interface: never renamed.
    pub id: &'static str,
    /// On what: a host, a table.
    pub subject: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do; a command where there is one.
    pub remedy: Option<String>,
}

impl Check {
    /// As it should be.
    pub fn ok(id: &'static str, subject: impl fmt::Display, seen: impl Into<String>) -> Self {
        Self { id, subject: subject.to_string(), verdict: Verdict::Ok, seen: seen.into(), remedy: None }
    }

    /// Somebody should look at it.
    pub fn warn(
        id: &'static str,
        subject: impl fmt::Display,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Warn, remedy: Some(remedy.into()), ..Self::ok(id, subject, seen) }
    }

    /// Must be mended first.
    pub fn fail(
        id: &'static str,
        subject: impl fmt::Display,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, remedy: Some(remedy.into()), ..Self::ok(id, subject, seen) }
    }

    /// Not looked at.
    pub fn skipped(id: &'static str, subject: impl fmt::Display, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped { why: why.into() }, ..Self::ok(id, subject, "") }
    }

    /// The part before the point.
    pub fn area(&self) -> &'static str {
        self.id.split('.').next().unwrap_or(self.id)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.id, self.subject, self.seen)
    }
}

/// Which areas are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// Reaching hosts.
    Reach,
    /// What is on them.
    Host,
    /// The shared directory.
    Mount,
    /// Scripts that people have already.
    Script,
    /// Source databases.
    Source,
    /// The target.
    Target,
}

impl Area {
    /// Every one.
    pub const ALL: [Area; 6] =
        [Area::Reach, Area::Host, Area::Mount, Area::Script, Area::Source, Area::Target];

    /// The first part of the ids of its checks.
    pub fn word(self) -> &'static str {
        match self {
            Area::Reach => "reach",
            Area::Host => "host",
            Area::Mount => "mount",
            Area::Script => "script",
            Area::Source => "source",
            Area::Target => "target",
        }
    }
}

/// What preflight found.
#[derive(Debug)]
pub struct Preflight {
    /// What the checks were made of.
    pub gathered: Gathered,
    /// The checks, area by area.
    pub checks: Vec<Check>,
}

impl Preflight {
    /// Judges what was gathered; only checks of `areas` are kept.
    pub fn judge(gathered: Gathered, areas: &[Area]) -> Self {
        let mut checks = Vec::new();
        for visit in std::iter::once(&gathered.runner).chain(&gathered.hosts) {
            checks.extend(reach::checks(visit));
            checks.extend(host::checks(visit));
            checks.extend(mount::checks(visit, &gathered));
        }
        let numbers = identity::checks(&gathered);
        // One user with several numbers is one thing to mend, not one on each host.
        let explained: Vec<&str> = identity::explained(&gathered, &numbers);
        checks.retain(|check| check.id != "mount.write" || !explained.contains(&check.subject.as_str()));
        checks.extend(numbers);
        for source in &gathered.sources {
            checks.extend(source::checks(source));
        }
        if let Some(target) = &gathered.target {
            checks.extend(tables::target(target, &gathered.sources));
        }
        checks.retain(|check| areas.iter().any(|area| area.word() == check.area()));
        Self { gathered, checks }
    }

    /// Must something be mended first?
    pub fn failed(&self) -> bool {
        self.checks.iter().any(|check| check.verdict == Verdict::Fail)
    }
}
