//! What was gathered: one visit to each host, each source database and the target.

use std::collections::HashMap;
use std::sync::Arc;

use globset::Glob;

use super::access::Entry;
use super::facts::{HostFacts, Proof};
use crate::inventory::{Changes, Engine, Loader, Rights, TableEntry};
use crate::measure::Scale;
use crate::names::TableName;
use crate::remote::Identity;
use crate::source::SourceError;
use crate::source::nulls::Nulls;
use crate::source::ready::{ReadyTable as SourceTable, SourceServer};
use crate::step::load::inlet::{Choice, Impossible};
use crate::target::ready::{Readiness, ReadyTable as TargetTable};
use crate::target::{Facts, TargetError};

/// A host, and the mount as it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host as the inventory writes it; `runner` for this machine.
    pub host: String,
    /// Names of the sources there; empty for the runner.
    pub sources: Vec<String>,
    /// The mount's path there.
    pub mount: String,
    /// Most sessions that the inventory wants there at once.
    pub sessions: usize,
    /// A client program that the inventory names.
    pub psql: Option<String>,
    /// Is psql needed there?
    pub needs_psql: bool,
    /// Compressors that its tables ask for by name.
    pub compressors: Vec<&'static str>,
}

impl Place {
    /// Is it this machine?
    pub fn is_runner(&self) -> bool {
        self.sources.is_empty()
    }
}

/// What a host said of itself.
#[derive(Debug)]
pub struct Visit {
    /// Where.
    pub place: Place,
    /// What it said, or why it did not.
    pub found: Result<HostFacts, SourceError>,
    /// What came of the proofs; `None` where there were none.
    pub proof: Option<Proof>,
    /// Why there was no proof.
    pub unproven: Option<String>,
}

impl Visit {
    /// Whom commands run as there.
    pub fn identity(&self) -> Option<&Identity> {
        self.found.as_ref().ok()?.identity.as_ref()
    }

    /// The subdirectory as it is seen there, or else the mount itself.
    pub fn directory(&self) -> Option<&Entry> {
        if let Some(entry) = self.proof.as_ref().and_then(|proof| proof.refused_by.as_ref()) {
            return Some(entry);
        }
        let mount = &self.found.as_ref().ok()?.mount;
        let there = |entry: &'_ Option<Result<Entry, String>>| matches!(entry, Some(Ok(_)));
        let entry = if there(&mount.subdir) { &mount.subdir } else { &mount.root };
        entry.as_ref()?.as_ref().ok()
    }
}

/// A table that a job moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The table in the source.
    pub table: TableName,
    /// The table in the target.
    pub target: TableName,
    /// How its windows are cut; `None` where it is moved whole.
    pub window: Option<WantedWindow>,
    /// What the loading user must be allowed.
    pub rights: Rights,
    /// What is changed of rows that are there.
    pub changes: Option<Changes>,
    /// Columns of the target that expressions fill; the source may have others then.
    pub computed: Vec<String>,
}

/// The column that windows are cut by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedWindow {
    /// Its name.
    pub column: String,
    /// How its values are read.
    pub scale: Scale,
    /// Are rows without a value moved as a unit of their own?
    pub includes_nulls: bool,
}

/// What a source's database said.
#[derive(Debug)]
pub struct SourceVisit {
    /// The source's name.
    pub name: String,
    /// Its database.
    pub database: String,
    /// Which kind it is.
    pub engine: Engine,
    /// Entries of the selected jobs.
    pub entries: Vec<Arc<TableEntry>>,
    /// Globs over tables that the operator gave.
    pub tables: Vec<Glob>,
    /// What is moved from it. Globs are among them only where the catalog could be read.
    pub wanted: Vec<Wanted>,
    /// Globs that matched nothing.
    pub unmatched: Vec<String>,
    /// What it said; `None` where it was not asked.
    pub found: Option<Result<SourceFound, SourceError>>,
}

/// A source database.
#[derive(Debug)]
pub struct SourceFound {
    /// What it is.
    pub server: SourceServer,
    /// The wanted tables that are there.
    pub tables: HashMap<TableName, SourceTable>,
    /// Rows without a value in a window column, where that can be.
    pub nulls: HashMap<(TableName, String), Nulls>,
}

/// What the target said.
#[derive(Debug)]
pub struct TargetVisit {
    /// Its URL without parameters.
    pub shown: String,
    /// The load log's schema.
    pub log_schema: String,
    /// How files are to get into it.
    pub loader: Loader,
    /// What it said.
    pub found: Result<TargetFound, TargetError>,
}

/// The target.
#[derive(Debug)]
pub struct TargetFound {
    /// What the server is.
    pub facts: Facts,
    /// By what way large files get in, and whether segments see the mount where they are to read it.
    pub loading: Loading,
    /// What it is.
    pub readiness: Readiness,
    /// The wanted tables that are there.
    pub tables: HashMap<TableName, TargetTable>,
}

/// How files would get into the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loading {
    /// Nobody looked.
    NotAsked,
    /// By this way.
    Chosen(Choice),
    /// By segments, if they see the mount: there is nothing below it yet by which they could prove it.
    NotYet(String),
    /// By segments, if only they saw the mount.
    Blind(Impossible),
    /// Not in the way that the inventory demands.
    Impossible(Impossible),
}

/// Everything.
#[derive(Debug)]
pub struct Gathered {
    /// The directory below the mount.
    pub subdir: String,
    /// This machine.
    pub runner: Visit,
    /// Could the runner make or use the subdirectory? Its own words where not.
    pub made: Result<Made, String>,
    /// The source hosts.
    pub hosts: Vec<Visit>,
    /// The source databases.
    pub sources: Vec<SourceVisit>,
    /// The target, where it was asked.
    pub target: Option<TargetVisit>,
}

/// How the subdirectory came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was there.
    There,
    /// Preflight made it, as the run would, and removed it again.
    ByUs,
    /// Nobody looked.
    NotAsked,
}

impl Gathered {
    /// Every host, the runner first.
    pub fn visits(&self) -> impl Iterator<Item = &Visit> {
        std::iter::once(&self.runner).chain(&self.hosts)
    }
}
