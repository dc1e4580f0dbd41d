//! Where a script that people already have puts a unit's file: a path with placeholders, below the mount's
//! subdirectory. Pure.
//!
//! Names stand in it as they stand in ids, so no table leads out of its directory whatever it is called; and a pattern
//! must give each unit a file of its own, or one unit's rows would be taken for another's.

use std::path::PathBuf;

use jiff::civil::{Date, DateTime};
use thiserror::Error;

use crate::unit::{Unit, encode, stamp};

/// What may stand in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Month,
    Day,
    Source,
    Database,
    Schema,
    Table,
    Start,
    End,
    StartText,
    EndText,
    Unit,
}

const PLACEHOLDERS: [(&str, Placeholder); 11] = [
    ("yyyymm", Placeholder::Month),
    ("dd", Placeholder::Day),
    ("source", Placeholder::Source),
    ("database", Placeholder::Database),
    ("schema", Placeholder::Schema),
    ("table", Placeholder::Table),
    ("start", Placeholder::Start),
    ("end", Placeholder::End),
    ("start_text", Placeholder::StartText),
    ("end_text", Placeholder::EndText),
    ("unit", Placeholder::Unit),
];

/// Directories below the mount's subdirectory that are gpferry's own.
const OWN: [&str; 2] = ["manifest", "rejects"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Placeholder),
}

/// A pattern that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePattern {
    pieces: Vec<Piece>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Something in braces that is not known.
    #[error("`{{{0}}}` is not known; these are: {known}", known = known())]
    Unknown(String),
    /// A brace without its partner.
    #[error("a `{{` or `}}` stands alone")]
    Brace,
    /// Absolute, or with `.`, `..` or an empty part.
    #[error("it does not stay below the mount's subdirectory, or is not written plainly")]
    Outside,
    /// A part that begins with a dot, or `manifest`, `rejects`, `….part`, `…^seg…`.
    #[error("`{0}` is a name that gpferry keeps for itself")]
    Reserved(String),
    /// Two units would have one file.
    #[error(
        "it does not name each unit's own file: it needs {{unit}}, or {{schema}}, {{table}}, {{start}} and {{end}}"
    )]
    Ambiguous,
}

impl Default for FilePattern {
    /// `{yyyymm}/{dd}/{table}/{unit}.csv.gz`.
    fn default() -> Self {
        let text = |text: &str| Piece::Text(text.into());
        let pieces = vec![
            Piece::Place(Placeholder::Month),
            text("/"),
            Piece::Place(Placeholder::Day),
            text("/"),
            Piece::Place(Placeholder::Table),
            text("/"),
            Piece::Place(Placeholder::Unit),
            text(".csv.gz"),
        ];
        Self { pieces }
    }
}

impl FilePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let pattern = Self { pieces: pieces(text)? };
        for part in text.split('/') {
            if matches!(part, "" | "." | "..") || text.contains(char::is_control) {
                return Err(PatternError::Outside);
            }
            // `^seg` marks one of several files of a unit.
            if part.starts_with('.') || part.ends_with(".part") || part.contains("^seg") {
                return Err(PatternError::Reserved(part.into()));
            }
        }
        if let Some(own) = text.split('/').next().filter(|first| OWN.contains(first)) {
            return Err(PatternError::Reserved(own.into()));
        }
        let has = |place| pattern.pieces.contains(&Piece::Place(place));
        let window = (has(Placeholder::Start) || has(Placeholder::StartText))
            && (has(Placeholder::End) || has(Placeholder::EndText));
        if !(has(Placeholder::Unit) || has(Placeholder::Schema) && has(Placeholder::Table) && window) {
            return Err(PatternError::Ambiguous);
        }
        Ok(pattern)
    }

    /// Where a unit's file stands below the mount's subdirectory; the day is that of the window's start, or `today`.
    pub fn path(&self, unit: &Unit, database: &str, today: Date) -> PathBuf {
        let window = unit.extent.window();
        let day = window.map_or(today, |window| window.start().date());
        let (start, end) = window.map(|window| (window.start(), window.end())).unzip();
        let time =
            |time: Option<DateTime>, write: fn(DateTime) -> String| time.map(write).unwrap_or_default();
        let text: String = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Place(Placeholder::Month) => format!("{:04}{:02}", day.year(), day.month()),
                Piece::Place(Placeholder::Day) => format!("{:02}", day.day()),
                Piece::Place(Placeholder::Source) => encode(&unit.key.source),
                Piece::Place(Placeholder::Database) => encode(database),
                Piece::Place(Placeholder::Schema) => encode(unit.table.schema()),
                Piece::Place(Placeholder::Table) => encode(unit.table.table()),
                Piece::Place(Placeholder::Start) => time(start, stamp),
                Piece::Place(Placeholder::End) => time(end, stamp),
                Piece::Place(Placeholder::StartText) => time(start, time_text),
                Piece::Place(Placeholder::EndText) => time(end, time_text),
                Piece::Place(Placeholder::Unit) => unit.key.id.clone(),
            })
            .collect();
        PathBuf::from(text)
    }

    /// The same text for two sources whose units could have one file.
    pub fn shape(&self, source: &str, database: &str) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Place(Placeholder::Source) => encode(source),
                Piece::Place(Placeholder::Database) => encode(database),
                Piece::Place(Placeholder::Unit) => format!("{{unit}}{}", encode(database)),
                Piece::Place(place) => format!("{{{place:?}}}"),
            })
            .collect()
    }
}

/// A window's bound as older scripts take it: `YYYY-MM-DD hh:mm:ss`. The bound must be on a whole second.
pub fn time_text(time: DateTime) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn known() -> String {
    PLACEHOLDERS.map(|(name, _)| format!("{{{name}}}")).join(" ")
}

fn pieces(text: &str) -> Result<Vec<Piece>, PatternError> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let at = rest.find(['{', '}']).unwrap_or(rest.len());
        if at > 0 {
            pieces.push(Piece::Text(rest[..at].into()));
        }
        rest = &rest[at..];
        let Some(inside) = rest.strip_prefix('{') else {
            if rest.is_empty() {
                break;
            }
            return Err(PatternError::Brace);
        };
        let (name, after) = inside.split_once('}').ok_or(PatternError::Brace)?;
        let place = PLACEHOLDERS.iter().find(|(known, _)| *known == name).map(|(_, place)| *place);
        pieces.push(Piece::Place(place.ok_or_else(|| PatternError::Unknown(name.into()))?));
        rest = after;
    }
    Ok(pieces)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::inventory::{Compressor, Cut, ExportMethod, ExportRule, NullWindow};
    use crate::inventory::{TableEntry, TableSelector, WindowBy, WindowRule};
    use crate::measure::{Measure, Scale};
    use crate::names::TableName;
    use crate::unit::{Extent, Rows, UnitKey, series_of, unit_id};
    use crate::window::Window;
    use jiff::civil::date;
    use std::path::Component;
    use std::sync::Arc;
    use std::time::Duration;

    /// A unit of column `c ol`, from 2021-08-09 22:00 on.
    pub(crate) fn unit(table: &str, end: Option<DateTime>) -> Unit {
        let table = TableName::new("s.x", table).unwrap();
        let window = |end| Window::new(date(2021, 8, 9).at(22, 0, 0, 0), end).unwrap();
        let extent = end.map_or(Extent::Whole, |end| Extent::Times(window(end)));
        let (lag, column) = (Duration::ZERO, "c ol".to_owned());
        let cut = Cut::Time { scale: Scale::Time, length: None };
        let measure = Measure::By(Scale::Time, column.clone());
        let entry = TableEntry {
            what: TableSelector::One(table.clone()),
            target: None,
            window: WindowRule::By(WindowBy { column, cut, lag, null_window: NullWindow::Skip }),
            filter: None,
            load: Arc::default(),
            late_after: None,
            export: ExportRule {
                timeout: lag,
                retries: 0,
                slice_bytes: 0,
                compressor: Compressor::Auto,
                method: ExportMethod::Auto,
            },
            compare: Default::default(),
        };
        let series = series_of("d", &table, None);
        Unit {
            key: UnitKey { source: "fab1".into(), id: unit_id(&series, &extent, None) },
            job: "j".into(),
            target: table.clone(),
            table,
            extent,
            waits: false,
            rows: Arc::new(Rows { series, measure, tag: None, without: vec![] }),
            entry: Arc::new(entry),
        }
    }

    fn path(pattern: &str, table: &str) -> String {
        let path = FilePattern::parse(pattern).unwrap().path(
            &unit(table, Some(date(2021, 8, 10).at(2, 0, 0, 0))),
            "d",
            date(2030, 1, 1),
        );
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_pattern_becomes_a_unit_s_path() {
        assert_eq!(
            path("{yyyymm}/{dd}/{table}/{unit}.csv.gz", "t"),
            "202108/09/t/d^s.x^t^20210809220000^20210810020000.csv.gz"
        );
        assert_eq!(
            path("{source}/{database}.{schema}.{table}^{start_text}^{end_text}.gz", "t"),
            "fab1/d.s.x.t^2021-08-09 22:00:00^2021-08-10 02:00:00.gz"
        );
        assert_eq!(path("x{schema}-{table}-{start}-{end}", "t"), "xs.x-t-20210809220000-20210810020000");
    }

    #[test]
    fn the_default_is_what_it_says() {
        assert_eq!(FilePattern::parse("{yyyymm}/{dd}/{table}/{unit}.csv.gz"), Ok(FilePattern::default()));
    }

    #[test]
    fn no_table_leads_out_of_the_directory() {
        for table in ["..", "../../etc", "/x", ".", ".hidden", "a\"; rm -rf"] {
            let path = PathBuf::from(path("{table}/{unit}.csv.gz", table));
            assert_eq!(path.components().count(), 2, "{}", path.display());
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{}", path.display());
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        use PatternError::{Ambiguous, Brace, Outside, Reserved, Unknown};
        for (text, error) in [
            ("{unit", Brace),
            ("unit}", Brace),
            ("{yyyy}/{unit}.gz", Unknown("yyyy".into())),
            ("{}/{unit}", Unknown(String::new())),
            ("/{unit}.gz", Outside),
            ("../{unit}.gz", Outside),
            ("a/../{unit}.gz", Outside),
            ("a//{unit}.gz", Outside),
            ("./{unit}.gz", Outside),
            ("{unit}.gz/", Outside),
            ("", Outside),
            (".{unit}.gz", Reserved(".{unit}.gz".into())),
            ("{unit}.part", Reserved("{unit}.part".into())),
            ("{unit}^seg{dd}.csv.gz", Reserved("{unit}^seg{dd}.csv.gz".into())),
            ("manifest/{unit}.gz", Reserved("manifest".into())),
            ("all.csv.gz", Ambiguous),
            ("{table}.csv.gz", Ambiguous),
            ("{table}^{start}^{end}.csv.gz", Ambiguous),
            ("{schema}.{table}^{start}.csv.gz", Ambiguous),
        ] {
            assert_eq!(FilePattern::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sources_whose_units_could_have_one_file_have_one_shape() {
        let shape = |text: &str, source, database| FilePattern::parse(text).unwrap().shape(source, database);
        assert_eq!(shape("{unit}.gz", "a", "d"), shape("{unit}.gz", "b", "d"));
        assert_ne!(shape("{unit}.gz", "a", "d"), shape("{unit}.gz", "b", "e"));
        assert_ne!(shape("{source}/{unit}.gz", "a", "d"), shape("{source}/{unit}.gz", "b", "d"));
    }
}
