//! What an inventory means: every name checked, every default filled.
//!
//! Nothing here knows how YAML looks; nothing downstream asks again what a key meant or what its default
//! was. Values of these types are made by [`super::load`] alone, and by tests.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use super::catalog::JobCatalog;
use crate::file_pattern::FilePattern;
use crate::names::TableName;
use crate::sql::Condition;

mod alarms;
mod compare;
mod gpfdist;
mod load;
mod rights;
mod windows;

pub use alarms::*;
pub use compare::*;
pub use gpfdist::*;
pub use load::*;
pub use rights::{Changes, Rights};
pub use windows::*;

/// A whole inventory.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The file it was read from, for messages.
    pub path: PathBuf,
    /// The zone of every timestamp without one: `from`, `until`, `hours`, window bounds.
    pub timezone: TimeZone,
    /// The shared directory.
    pub mount: Mount,
    /// The database that is loaded.
    pub target: Target,
    /// The databases that are exported, by name, in the order written.
    pub sources: Vec<Source>,
    /// Databases that hold more jobs. [`super::load`] leaves those out; [`super::Draft::complete`] adds them.
    pub catalogs: Vec<JobCatalog>,
    /// What is moved, in the order written.
    pub jobs: Vec<Job>,
    /// For how long what is done is kept.
    pub keep: Keep,
    /// Who is told when something is wrong.
    pub alarms: Alarms,
}

/// For how long things are kept once they are of no more use; `None`: for ever. A day has 24 hours here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Published files of units whose rows are in the target, from when they were loaded.
    pub files: Option<Duration>,
    /// Files below `rejects/`, from when they were written.
    pub rejects: Option<Duration>,
    /// Attempts, runs, manifests, and the single windows of what is loaded: what is loaded is never forgotten.
    pub history: Option<Duration>,
}

impl Keep {
    /// The shortest of them; `None` where everything is kept.
    pub fn shortest(&self) -> Option<Duration> {
        [self.files, self.rejects, self.history].into_iter().flatten().min()
    }
}

impl Inventory {
    /// The source of this name. The reader has checked that every job's source exists.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name == name)
    }
}

/// The directory that source hosts and runner share, as the runner sees it.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Absolute path on the runner.
    pub path: PathBuf,
    /// The directory below it that gpferry writes to; one path component, `file2GP` by default.
    pub subdir: String,
    /// Who should own it, by name: `user:group`. Checked by number on every host.
    pub owner: Option<Owner>,
    /// While more than this waits there for its load, a run begins no further export. Bytes of files.
    pub waiting: u64,
}

/// `user:group`, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// User name.
    pub user: String,
    /// Group name.
    pub group: String,
}

/// The database that is loaded.
#[derive(Debug, Clone)]
pub struct Target {
    /// `postgresql://…`, never with a password in it.
    pub url: String,
    /// How files get into it.
    pub loader: Loader,
    /// The mount as the hosts of its segments see it, where that is not [`Mount::path`].
    pub mount: Option<PathBuf>,
    /// Parallel loads, each one database session. At least 1.
    pub sessions: usize,
    /// Schema of the load log; `gpferry` by default.
    pub log_schema: String,
    /// Does anybody say where gpfdist is to be had? Then `auto` may use it.
    pub gpfdist_written: bool,
    /// Where the loader `gpfdist` finds one.
    pub gpfdist: Gpfdist,
    /// How the loader `gpload` runs it.
    pub gpload: ProgramRule,
}

/// How files get into the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// Whatever is fastest there.
    Auto,
    /// COPY through the coordinator.
    Copy,
    /// Segments read the mount themselves.
    Segments,
    /// gpfdist serves the mount.
    Gpfdist,
    /// The site's own gpload.
    Gpload,
}

/// A database cluster, reached over SSH on its source host.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in the inventory: `[A-Za-z0-9_.-]+`, not starting with `-` or `.`.
    pub name: String,
    /// `user@host:port`, `host`, or an alias of `~/.ssh/config`, as written.
    pub host: String,
    /// Which kind of database it is.
    pub engine: Engine,
    /// The mount as that host sees it: absolute.
    pub mount: PathBuf,
    /// The database to export from.
    pub database: String,
    /// How the host reaches that database.
    pub connection: Connection,
    /// Parallel exports, each one database session. At least 1.
    pub sessions: usize,
    /// A script of the user's own that exports instead of the bundled one.
    pub script: Option<CustomScript>,
    /// The mount as the hosts of its segments see it: absolute. Only [`Engine::Greenplum`].
    pub segments_mount: PathBuf,
}

impl Source {
    /// The script that is called by arguments, where this source has one.
    pub fn argv(&self) -> Option<&CustomScript> {
        self.script.as_ref().filter(|script| script.call == Call::Argv)
    }
}

/// Which kind of database a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Greenplum 5 to 7, Cloudberry.
    Greenplum,
    /// PostgreSQL 12 to 17.
    Postgres,
    /// MySQL, MariaDB.
    Mysql,
    /// TDengine.
    Tdengine,
}

/// How the source host reaches its database; what is absent is left to psql there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// Host name, address or socket directory, as seen from the source host.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Database user.
    pub user: Option<String>,
    /// The client program, where it is not on the PATH of a non-interactive login.
    pub psql: Option<PathBuf>,
}

/// A script of the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomScript {
    /// Absolute path on the source host.
    pub path: PathBuf,
    /// How it is called.
    pub call: Call,
    /// Exit codes that mean success; `[0]` by default. Only [`Call::Argv`].
    pub ok: Vec<u8>,
    /// Where it writes, below the mount's subdirectory: `{yyyymm}/{dd}/{table}/{unit}.csv.gz` by default. Only
    /// [`Call::Argv`].
    pub file: FilePattern,
}

/// How a script is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// The line protocol of `scripts/README.md`.
    Protocol,
    /// One command per unit: `sh SCRIPT START END TABLE SCHEMA DATABASE START^END COLUMN`.
    Argv,
}

/// Tables of one source that are moved together.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name in the inventory: the same alphabet as a source's.
    pub name: String,
    /// The source's name; it exists.
    pub source: String,
    /// Start of the first window, in the inventory's zone.
    pub from: Option<DateTime>,
    /// The final end; absent: goes on for ever. After `from`.
    pub until: Option<DateTime>,
    /// When new units may start; absent: always.
    pub hours: Option<Hours>,
    /// A run of the job is expected at least so often; absent: nobody waits for one.
    pub expect_every: Option<Duration>,
    /// What is moved, defaults filled in. Plans share them.
    pub tables: Vec<Arc<TableEntry>>,
}

/// A time of day range, `[from, until)`; across midnight where `until <= from`. `24:00` is midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// First minute.
    pub from: Time,
    /// First minute no more; `00:00` means midnight.
    pub until: Time,
}

impl Hours {
    /// Is this time of day inside? `00:00-24:00` is the whole day.
    pub fn contain(&self, time: Time) -> bool {
        if self.from < self.until {
            self.from <= time && time < self.until
        } else {
            self.from <= time || time < self.until
        }
    }
}

/// `22:00-04:00`.
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.until.strftime("%H:%M"))
    }
}

/// One entry under `tables:`.
#[derive(Debug, Clone)]
pub struct TableEntry {
    /// One table, or a pattern over the source's catalog.
    pub what: TableSelector,
    /// Its name in the target, where that differs. Only for [`TableSelector::One`].
    pub target: Option<TableName>,
    /// How it is cut in windows.
    pub window: WindowRule,
    /// Only rows that meet this are moved.
    pub filter: Option<Condition>,
    /// How it is loaded: shared with neighbours of which the same holds.
    pub load: Arc<LoadRule>,
    /// How it is exported.
    pub export: ExportRule,
    /// A window that has been due for longer is an alarm; absent: none is.
    pub late_after: Option<Duration>,
    /// How it is compared: shared in the same way.
    pub compare: Arc<CompareRule>,
}

/// Which tables an entry means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableSelector {
    /// This one.
    One(TableName),
    /// Every table of the source's catalog that matches, and that no entry names.
    Glob {
        /// What matches.
        pattern: Pattern,
        /// What is left out all the same.
        except: Vec<Pattern>,
    },
}

/// A glob over schemas and one over tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Glob over the schema's name.
    pub schema: String,
    /// Glob over the table's name.
    pub table: String,
}

/// `tiny.d*`.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// How a unit is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRule {
    /// Longest time one unit may take.
    pub timeout: Duration,
    /// How often what can help by itself is tried again.
    pub retries: u32,
    /// A window larger than this is cut in slices. Bytes of CSV.
    pub slice_bytes: u64,
    /// Which compressor the host uses.
    pub compressor: Compressor,
    /// Who writes its files.
    pub method: ExportMethod,
}

/// Who writes a unit's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportMethod {
    /// Whatever is faster there.
    Auto,
    /// One COPY through the coordinator, compressed on the source host.
    Copy,
    /// Each segment of a Greenplum its own part.
    Segments,
}

/// Which compressor the source host uses, always at level 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressor {
    /// The fastest that is there.
    Auto,
    /// ISA-L's.
    Igzip,
    /// The parallel one.
    Pigz,
    /// The one that is always there.
    Gzip,
}

impl Compressor {
    /// The word of the inventory and of the script protocol.
    pub fn word(self) -> &'static str {
        match self {
            Compressor::Auto => "auto",
            Compressor::Igzip => "igzip",
            Compressor::Pigz => "pigz",
            Compressor::Gzip => "gzip",
        }
    }
}
