//! Who is told when something is wrong, and of what.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::names::TableName;

/// Who is told, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarms {
    /// A condition that goes on is told again after this; `None`: never.
    pub remind: Option<Duration>,
    /// Everybody who is told, in the order written.
    pub sinks: Vec<Sink>,
}

impl Default for Alarms {
    /// Nobody is told.
    fn default() -> Self {
        Self { remind: Some(Duration::from_secs(24 * 60 * 60)), sinks: Vec::new() }
    }
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionKind {
    /// Both sides were compared, and they differ.
    Difference,
    /// A unit failed, and has not been loaded since.
    Failed,
    /// The oldest missing window of a table has been due for longer than `late_after`.
    Late,
    /// No run of a job came to its end for longer than `expect_every`.
    NotRun,
}

impl ConditionKind {
    /// Every one.
    pub const ALL: [ConditionKind; 4] = [Self::Difference, Self::Failed, Self::Late, Self::NotRun];

    /// The word of the inventory, the ledger and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Difference => "difference",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::NotRun => "not_run",
        }
    }

    /// The one of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Does it come and go with the clock alone?
    pub fn is_by_clock(self) -> bool {
        match self {
            Self::Late | Self::NotRun => true,
            Self::Difference | Self::Failed => false,
        }
    }
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Its name in the inventory, like a source's.
    pub name: String,
    /// What it is told of. Never empty.
    pub conditions: BTreeSet<ConditionKind>,
    /// Longest time that telling it may take, with everything that is tried again.
    pub timeout: Duration,
    /// How it is told.
    pub way: Way,
}

/// How a sink is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Rows of a table.
    Table(TableSink),
    /// A program, which reads JSON from its stdin. Its arguments, the program first; never empty.
    Command(Vec<String>),
    /// A POST of JSON.
    Webhook(Webhook),
    /// Lines of JSON at the end of a file; absolute.
    File(PathBuf),
}

/// Rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSink {
    /// Where the table is; absent: in the target. Never with a password in it.
    pub url: Option<String>,
    /// The table.
    pub table: TableName,
    /// What goes into each column. One of them takes [`AlarmField::Id`].
    pub columns: Vec<(String, ColumnValue)>,
}

/// What goes into a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnValue {
    /// A field of the message.
    Field(AlarmField),
    /// Always this text.
    Constant(String),
}

/// What a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmField {
    /// The message's own number, as digits: the same when it is told again because nobody knows whether it arrived.
    Id,
    /// The alarm's number, as digits: the same in every message about it.
    Alarm,
    /// `raised`, `reminded`, `over`; `test`.
    Phase,
    /// A word of [`ConditionKind`].
    Condition,
    /// The job.
    Job,
    /// The source.
    Source,
    /// The table in the source.
    Table,
    /// The unit's id.
    Unit,
    /// Start of the window.
    WindowStart,
    /// End of the window.
    WindowEnd,
    /// The group, where differences are told by group.
    Group,
    /// What is wrong.
    Text,
    /// The phase, the condition and what is wrong, in one line.
    Summary,
    /// What to try.
    Remedy,
    /// When it is told.
    At,
    /// When the alarm was raised.
    RaisedAt,
    /// The machine that tells.
    Host,
}

impl AlarmField {
    /// Every one, by the word of the inventory.
    pub const ALL: [(&'static str, AlarmField); 17] = [
        ("id", Self::Id),
        ("alarm", Self::Alarm),
        ("phase", Self::Phase),
        ("condition", Self::Condition),
        ("job", Self::Job),
        ("source", Self::Source),
        ("table", Self::Table),
        ("unit", Self::Unit),
        ("window_start", Self::WindowStart),
        ("window_end", Self::WindowEnd),
        ("group", Self::Group),
        ("text", Self::Text),
        ("summary", Self::Summary),
        ("remedy", Self::Remedy),
        ("at", Self::At),
        ("raised_at", Self::RaisedAt),
        ("host", Self::Host),
    ];
}

/// A POST of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to, `https://…` or `http://…`.
    pub url: Given,
    /// What is sent in `header`; [`Given::Written`] never.
    pub token: Option<Given>,
    /// The header that the token is sent in. `Authorization` sends `Bearer` before it.
    pub header: String,
    /// Certificates to trust, instead of the machine's own. PEM.
    pub ca: Option<PathBuf>,
    /// How often it is tried again at once.
    pub retries: u32,
}

/// A text, or where it is kept, since it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// In the inventory.
    Written(String),
    /// In this environment variable.
    Variable(String),
    /// In this file, which others may not read.
    File(PathBuf),
}
