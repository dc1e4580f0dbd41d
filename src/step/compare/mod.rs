//! Is the target what the source is? Counts, then digests, then keys, and no deeper than the sides differ.
//!
//! Everything is reckoned inside the databases: rows come out as counts, as sums of digests, and, of buckets that differ
//! alone, as digests row by row. What is held here is bounded by the number of buckets, not by the size of a table. Both
//! sides go on living meanwhile: what a first look finds to differ counts only if a look at its rows finds it again.

use serde::Serialize;

mod buckets;
mod chunks;
mod look;
mod refine;
mod subject;

pub use look::{Depth, look};
pub use subject::{Known, Skipped};

use crate::step::load::Proof;
use crate::unit::Extent;

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where rows come from.
    Source,
    /// Where they go.
    Target,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Source, Side::Target];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

/// Why a table could not be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Which side it was.
    pub side: Side,
    /// What failed, on what. Never with cell values.
    pub error: String,
    /// What to try.
    pub remedy: String,
    /// Is the session of that side of no more use?
    pub lost: bool,
    /// Could that side not be reached at all?
    pub unreachable: bool,
}

impl Unread {
    /// A fault of the table, not of a session.
    pub fn new(side: Side, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { side, error: error.into(), remedy: remedy.into(), lost: false, unreachable: false }
    }
}

/// Both databases, to be asked the same at once.
pub trait Both {
    /// Asks each side its question, at the same time, and hands on the rows of the answers in COPY's text form.
    ///
    /// # Errors
    /// [`Unread`] where one of them has none.
    fn ask(
        &mut self,
        questions: [String; 2],
        doing: &str,
        rows: [&mut (dyn FnMut(&str) + Send); 2],
    ) -> Result<(), Unread>;
}

/// How many rows differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Rows of the source that the target lacks.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows of one key whose other columns differ.
    pub changed: u64,
    /// Were all buckets that differ looked at row by row? Else it is so many at least.
    pub exact: bool,
}

impl Difference {
    /// None at all.
    pub const NONE: Difference = Difference { missing: 0, extra: 0, changed: 0, exact: true };

    /// Is it none?
    pub fn is_none(&self) -> bool {
        self.missing == 0 && self.extra == 0 && self.changed == 0 && self.exact
    }

    /// Adds another one.
    pub fn add(&mut self, other: Difference) {
        self.missing += other.missing;
        self.extra += other.extra;
        self.changed += other.changed;
        self.exact &= other.exact;
    }
}

/// A window, as the two sides have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Which.
    pub extent: Extent,
    /// Rows of the source and of the target.
    pub rows: [u64; 2],
    /// Were their digests compared? Else only their numbers.
    pub digested: bool,
    /// How they differ.
    pub difference: Difference,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The target lacks it.
    Missing,
    /// Only the target has it.
    Extra,
    /// Both have its key.
    Changed,
}

impl Kind {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Missing => "missing",
            Kind::Extra => "extra",
            Kind::Changed => "changed",
        }
    }
}

/// A row that differs, by its key: cell values, so shown to whoever asked, and written down nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its window, among those of the table.
    pub window: usize,
    /// How it differs.
    pub kind: Kind,
    /// How many rows of this key do.
    pub rows: u64,
    /// The key's columns.
    pub values: Vec<Option<String>>,
    /// Columns that differ, with what they are in the source and in the target: where that was asked for.
    pub columns: Vec<(String, Option<String>, Option<String>)>,
}

/// What came of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Its windows, in order.
    pub windows: Vec<Window>,
    /// Differences by the value of the group's column, in that order.
    pub groups: Vec<(Option<String>, Difference)>,
    /// The same by window and group.
    pub parts: Vec<(usize, Option<String>, Difference)>,
    /// Names of the columns by which rows are told.
    pub key_columns: Vec<String>,
    /// Is that a key that was named, or else all that is compared?
    pub keyed: bool,
    /// The first rows that differ.
    pub keys: Vec<Key>,
    /// Rows with NULL in their key, among those that were looked at one by one.
    pub null_keys: u64,
    /// Keys that several rows of one side share, among them.
    pub shared_keys: u64,
    /// Columns that were not compared.
    pub skipped: Vec<Skipped>,
    /// How columns were compared, where that is worth a word.
    pub notes: Vec<String>,
    /// What the target held of windows that differ, where that was asked for.
    pub proofs: Vec<(usize, Proof)>,
}

impl Told {
    /// All its differences together.
    pub fn difference(&self) -> Difference {
        let mut sum = Difference::NONE;
        self.windows.iter().for_each(|window| sum.add(window.difference));
        sum
    }

    /// Columns that could not be compared, and nobody said that they need not.
    pub fn has_gaps(&self) -> bool {
        self.skipped.iter().any(|skipped| !skipped.meant)
    }
}
