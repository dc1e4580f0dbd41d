//! Units: the smallest pieces that are exported, loaded and recorded as one. Pure.
//!
//! A unit's id is also its file name, so it must be readable, unique and safe in a path whatever a table is
//! called. What identifies a unit everywhere is its source and its id together ([`UnitKey`]).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Span;
use jiff::civil::{Date, DateTime};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::inventory::{TableEntry, WindowRule};
use crate::names::TableName;
use crate::window::Window;

/// Everything but `[A-Za-z0-9_.-]` is encoded in ids and paths.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-');

/// Longest id: a file name takes 255 bytes, and a `.part` name adds run, attempt and two endings.
const LONGEST_ID: usize = 200;

/// What identifies a unit in ledger, load log and locks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitKey {
    /// The source's name.
    pub source: String,
    /// `<database>^<schema>^<table>^<start>^<end>[^<slice>]`, or `…^all`.
    pub id: String,
}

impl fmt::Display for UnitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.id)
    }
}

/// The smallest piece that is exported, loaded and recorded as one: job × table × window × slice.
#[derive(Debug, Clone)]
pub struct Unit {
    /// What identifies it.
    pub key: UnitKey,
    /// The job it belongs to.
    pub job: String,
    /// The table in the source.
    pub table: TableName,
    /// The table in the target.
    pub target: TableName,
    /// The interval of the window column; `None`: the whole table.
    pub window: Option<Window>,
    /// The rules of its entry in the inventory, shared by all units of that entry.
    pub entry: Arc<TableEntry>,
}

impl Unit {
    /// The window column, where the unit has a window.
    pub fn window_column(&self) -> Option<&str> {
        match (&self.entry.window, self.window) {
            (WindowRule::By { column, .. }, Some(_)) => Some(column),
            (WindowRule::By { .. }, None) | (WindowRule::None { .. }, _) => None,
        }
    }

    /// Where its file stands below the mount's subdirectory: `<source>/<YYYYMM>/<DD>/<table>/<id>.csv.gz`.
    /// The day is that of the window's start; without a window, `today`.
    pub fn relative_path(&self, today: Date) -> PathBuf {
        let day = self.window.map_or(today, |window| window.start().date());
        day_path(&self.key.source, day)
            .join(encode(self.table.table()))
            .join(format!("{}.csv.gz", self.key.id))
    }
}

/// Where a source's files of one day stand below the mount's subdirectory: `<source>/<YYYYMM>/<DD>`.
pub fn day_path(source: &str, day: Date) -> PathBuf {
    [encode(source), format!("{:04}{:02}", day.year(), day.month()), format!("{:02}", day.day())]
        .iter()
        .collect()
}

/// The id of a unit. `variant` ([`variant()`]) tells entries apart that move one table by different conditions
/// or to different targets.
pub fn unit_id(database: &str, table: &TableName, window: Option<&Window>, variant: Option<&str>) -> String {
    let times = match window {
        Some(window) => format!("{}^{}", stamp(window.start()), stamp(window.end())),
        None => "all".to_owned(),
    };
    let names = [database, table.schema(), table.table()].map(encode);
    let tail = variant.map(|variant| format!("^{variant}")).unwrap_or_default();
    let id = format!("{}^{times}{tail}", names.join("^"));
    if id.len() <= LONGEST_ID {
        return id;
    }
    format!("{}^{times}{tail}", names.map(|name| shorten(&name)).join("^"))
}

/// What an id says of the rows that it stands for: which rows they are but for the window (database, table,
/// condition, target), and the window. `None` for a whole table.
pub fn series(id: &str) -> Option<(String, Window)> {
    let mut fields: Vec<&str> = id.split('^').collect();
    if fields.len() < 5 {
        return None;
    }
    let window = Window::new(time_of(fields[3])?, time_of(fields[4])?)?;
    fields.drain(3..5);
    Some((fields.join("^"), window))
}

/// Reads what [`stamp`] wrote.
fn time_of(stamp: &str) -> Option<DateTime> {
    if !stamp.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(stamp.len(), 14 | 20) {
        return None;
    }
    let whole = DateTime::strptime("%Y%m%d%H%M%S", &stamp[..14]).ok()?;
    let micros: i64 = if stamp.len() == 20 { stamp[14..].parse().ok()? } else { 0 };
    whole.checked_add(Span::new().microseconds(micros)).ok()
}

/// A short stable word for what an entry moves of a table, from its condition and its target; `None` for an entry
/// that moves all of it to a table of the same name.
///
/// It depends on nothing but the entry itself: were it to depend on other entries, adding one would give units
/// that are loaded another id, and they would be loaded again.
pub fn variant(entry: &TableEntry, table: &TableName) -> Option<String> {
    let target = entry.target.as_ref().filter(|target| *target != table);
    if entry.filter.is_none() && target.is_none() {
        return None;
    }
    let filter = entry.filter.as_ref().map(ToString::to_string).unwrap_or_default();
    let target = target.map(ToString::to_string).unwrap_or_default();
    Some(format!("v{}", &sha256(&format!("{filter}\n{target}"))[..8]))
}

/// `YYYYMMDDhhmmss`, plus `ffffff` where it is not on a whole second.
fn stamp(time: DateTime) -> String {
    let micros = time.subsec_nanosecond() / 1000;
    let fraction = if micros == 0 { String::new() } else { format!("{micros:06}") };
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}{fraction}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// A name as it stands in ids and paths: never `.`, `..` or hidden.
fn encode(name: &str) -> String {
    let encoded = utf8_percent_encode(name, ENCODED).to_string();
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

/// A name too long for a file name: its beginning, `~` (which no encoded name holds), and a digest of it all.
fn shorten(encoded: &str) -> String {
    if encoded.len() <= 42 {
        return encoded.to_owned();
    }
    format!("{}~{}", &encoded[..29], &sha256(encoded)[..12])
}

fn sha256(text: &str) -> String {
    openssl::sha::sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    fn name(schema: &str, table: &str) -> TableName {
        TableName::new(schema, table).unwrap()
    }

    #[test]
    fn an_id_reads_as_the_design_says() {
        let day = date(2021, 8, 10);
        let window = Window::new(day.at(0, 0, 0, 0), day.at(4, 0, 0, 500_000_000)).unwrap();
        assert_eq!(
            unit_id("qmsprd", &name("sor", "wpp_f"), Some(&window), None),
            "qmsprd^sor^wpp_f^20210810000000^20210810040000500000"
        );
        assert_eq!(unit_id("a b\"c", &name("S", "x^y"), None, None), "a%20b%22c^S^x%5Ey^all");
    }

    #[test]
    fn an_id_gives_its_window_back() {
        let day = date(2021, 8, 10);
        for micros in [0, 500_000] {
            let window = Window::new(day.at(0, 0, 0, 0), day.at(4, 0, 0, micros * 1000)).unwrap();
            let table = name("a^b", "t");
            assert_eq!(
                series(&unit_id("x", &table, Some(&window), Some("v1"))),
                Some(("x^a%5Eb^t^v1".into(), window))
            );
            assert_eq!(
                series(&unit_id("x", &table, Some(&window), None)),
                Some(("x^a%5Eb^t".into(), window))
            );
        }
        assert_eq!(series(&unit_id("x", &name("a", "t"), None, Some("v1"))), None);
    }

    #[test]
    fn no_name_leads_out_of_its_directory() {
        for (text, encoded) in [
            ("..", "%2E."),
            (".", "%2E"),
            ("../../x", "%2E.%2F..%2Fx"),
            ("-rf", "-rf"),
            ("$(x)", "%24%28x%29"),
        ] {
            assert_eq!(encode(text), encoded);
        }
    }

    #[test]
    fn long_names_still_fit_a_file_name_and_stay_apart() {
        let long = "表".repeat(21);
        let one = unit_id(&long, &name(&long, &format!("{long}a")), None, None);
        let two = unit_id(&long, &name(&long, &format!("{long}b")), None, None);
        assert!(one.len() <= LONGEST_ID, "{one} has {} bytes", one.len());
        assert_ne!(one, two);
    }

    proptest! {
        #[test]
        fn different_tables_have_different_ids(a in "[a^%.~ 表]{1,30}", b in "[a^%.~ 表]{1,30}", c in "[a^%.~ 表]{1,30}", d in "[a^%.~ 表]{1,30}") {
            let same = (&a, &b) == (&c, &d);
            prop_assert_eq!(unit_id("x", &name(&a, &b), None, None) == unit_id("x", &name(&c, &d), None, None), same);
        }
    }
}
