//! Counting the rows of CSV as PostgreSQL reads them, in pieces of any size, and a look at one of its columns.
//!
//! The `csv` crate is not used for it: its reader skips empty lines, and the row of a table with one column that is
//! NULL is an empty line. The rules are those of `CopyReadLineText` (PostgreSQL, `copyfromparse.c`): a quote toggles
//! wherever it stands, a doubled one thereby not at all; line ends within quotes belong to the row; the first line end
//! outside of them says which kind the file has.

use thiserror::Error;

/// A file that ends within quotes: something other than CSV, or not its whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it ends within a quoted field, which begins in or after row {row}")]
pub struct OpenQuote {
    /// The row, counted from 1.
    pub row: u64,
}

/// What ends a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    /// No line has ended yet.
    Unknown,
    /// A carriage return that may be followed by a line feed.
    MaybeReturn,
    /// A line feed, whatever stands before it.
    Feed,
    /// A carriage return alone.
    Return,
}

/// How much of a watched field is kept. Bytes; times are shorter.
const KEPT: usize = 64;

/// Counts rows.
#[derive(Debug)]
pub struct RowCounter<F> {
    rows: u64,
    quoted: bool,
    /// The row that has begun holds something.
    begun: bool,
    end: LineEnd,
    /// Number of the field within its row, from 0.
    field: usize,
    watched: Option<usize>,
    kept: Vec<u8>,
    seen: F,
}

impl<F: FnMut(&[u8])> RowCounter<F> {
    /// A counter that hands out the beginning of one field of each row, without its quotes: the field of this number,
    /// from 0.
    pub fn watching(field: Option<usize>, seen: F) -> Self {
        Self {
            rows: 0,
            quoted: false,
            begun: false,
            end: LineEnd::Unknown,
            field: 0,
            watched: field,
            kept: Vec::with_capacity(KEPT),
            seen,
        }
    }

    /// Takes the next bytes in.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'"' => {
                    self.settle();
                    self.quoted = !self.quoted;
                    self.begun = true;
                }
                b'\n' if !self.quoted && self.end != LineEnd::Return => {
                    self.end = LineEnd::Feed;
                    self.end_row();
                }
                b'\r' if !self.quoted && self.end != LineEnd::Feed => {
                    self.settle();
                    match self.end {
                        LineEnd::Return => self.end_row(),
                        _ => self.end = LineEnd::MaybeReturn,
                    }
                }
                b',' if !self.quoted => {
                    self.settle();
                    self.begun = true;
                    self.field += 1;
                }
                _ => {
                    self.settle();
                    self.begun = true;
                    if self.watched == Some(self.field) && self.kept.len() < KEPT {
                        self.kept.push(byte);
                    }
                }
            }
        }
    }

    /// How many rows there were. The last line may lack its end; no bytes are no rows.
    ///
    /// # Errors
    /// [`OpenQuote`].
    pub fn finish(mut self) -> Result<u64, OpenQuote> {
        self.settle();
        if self.quoted {
            return Err(OpenQuote { row: self.rows + 1 });
        }
        if self.begun {
            self.end_row();
        }
        Ok(self.rows)
    }

    /// A carriage return that no line feed followed was a whole line end.
    fn settle(&mut self) {
        if self.end == LineEnd::MaybeReturn {
            self.end = LineEnd::Return;
            self.end_row();
        }
    }

    fn end_row(&mut self) {
        self.rows += 1;
        self.begun = false;
        self.field = 0;
        if self.watched.is_some() {
            (self.seen)(&self.kept);
            self.kept.clear();
        }
    }
}

/// Some whole rows of a file, as they stand there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The bytes of all of them, line ends included.
    pub bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    pub ends: Vec<usize>,
}

/// Cuts CSV between its rows.
#[derive(Debug)]
pub struct Cutter {
    counter: RowCounter<fn(&[u8])>,
    rows: Rows,
}

impl Default for Cutter {
    fn default() -> Self {
        Self { counter: RowCounter::watching(None, |_| ()), rows: Rows::default() }
    }
}

impl Cutter {
    /// Takes the next bytes in.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let before = self.counter.rows;
            self.counter.feed(&[byte]);
            let ended = self.counter.rows - before;
            let returned = byte == b'\r' && self.counter.end == LineEnd::Return;
            let at_byte = ended > 0 && (byte == b'\n' || returned);
            if ended > u64::from(at_byte) {
                self.rows.ends.push(self.rows.bytes.len());
            }
            self.rows.bytes.push(byte);
            if at_byte {
                self.rows.ends.push(self.rows.bytes.len());
            }
        }
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.rows.bytes.len()
    }

    /// Does it hold nothing?
    pub fn is_empty(&self) -> bool {
        self.rows.bytes.is_empty()
    }

    /// The rows that are whole; the beginning of the next one stays.
    pub fn take(&mut self) -> Rows {
        let whole = self.rows.ends.last().copied().unwrap_or(0);
        let rest = self.rows.bytes.split_off(whole);
        std::mem::replace(&mut self.rows, Rows { bytes: rest, ends: Vec::new() })
    }

    /// The last rows. The last line may lack its end.
    ///
    /// # Errors
    /// [`OpenQuote`].
    pub fn finish(mut self) -> Result<Rows, OpenQuote> {
        let counted = self.counter.rows;
        let all = self.counter.finish()?;
        if all > counted {
            self.rows.ends.push(self.rows.bytes.len());
        }
        Ok(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(text: &str) -> Result<u64, OpenQuote> {
        let mut counter = RowCounter::watching(None, |_| ());
        counter.feed(text.as_bytes());
        counter.finish()
    }

    #[test]
    fn rows_are_counted_as_copy_counts_them() {
        for (text, rows) in [
            ("", 0),
            ("\n", 1),
            ("\n\n", 2),
            ("a,b\n", 1),
            ("a,b\nc,d", 2),
            ("a,\"b\nc\r\nd\"\ne,f\n", 2),
            ("\"a \"\"quoted\"\"\n word\"\n", 1),
            ("\"\"\n", 1),
            ("\"\"", 1),
            ("a\r\nb\r\n", 2),
            ("\r\n\r\n", 2),
            ("a\rb\rc", 3),
            ("a\r", 1),
            ("\r\r", 2),
            ("a\r\"b\rc\"\r", 2),
        ] {
            assert_eq!(count(text), Ok(rows), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_ends_within_quotes_is_none() {
        assert_eq!(count("a\nb,\"c\nd\n"), Err(OpenQuote { row: 2 }));
    }

    #[test]
    fn a_column_is_handed_out_row_by_row() {
        let mut found = Vec::new();
        let mut counter =
            RowCounter::watching(Some(1), |field| found.push(String::from_utf8_lossy(field).into_owned()));
        for piece in ["a,2021-", "08-10 00:00:00,\"x,", "y\n\",z\n\"b,c\",\"quoted\"\n", "\nonly\nd,last"] {
            counter.feed(piece.as_bytes());
        }
        assert_eq!(counter.finish(), Ok(5));
        assert_eq!(found, ["2021-08-10 00:00:00", "quoted", "", "", "last"]);
    }

    /// A field as PostgreSQL writes it: NULL is empty, what could be misread is quoted.
    fn written(field: Option<&String>) -> String {
        match field {
            None => String::new(),
            Some(text) if text.is_empty() || text.contains(['"', ',', '\n', '\r']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Some(text) => text.clone(),
        }
    }

    proptest! {
        #[test]
        fn as_many_rows_as_were_written(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of("[a\",\n\r 表]{0,6}"), 1..4), 0..12),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            last_line_ends in any::<bool>(),
            piece in 1usize..9,
        ) {
            let lines: Vec<String> = rows
                .iter()
                .map(|row| row.iter().map(|field| written(field.as_ref())).collect::<Vec<_>>().join(","))
                .collect();
            let mut text: String = lines.iter().map(|line| format!("{line}{end}")).collect();
            // An empty last line is a row only by its end.
            if !last_line_ends && lines.last().is_some_and(|line| !line.is_empty()) {
                text.truncate(text.len() - end.len());
            }
            let mut counter = RowCounter::watching(None, |_| ());
            for bytes in text.as_bytes().chunks(piece) {
                counter.feed(bytes);
            }
            prop_assert_eq!(counter.finish(), Ok(rows.len() as u64), "{:?}", text);
            let mut cutter = Cutter::default();
            let mut cut = Vec::new();
            let mut keep = |rows: Rows| {
                let starts = std::iter::once(0).chain(rows.ends.iter().copied());
                cut.extend(starts.zip(&rows.ends).map(|(from, &to)| rows.bytes[from..to].to_vec()));
            };
            for bytes in text.as_bytes().chunks(piece) {
                cutter.feed(bytes);
                keep(cutter.take());
            }
            keep(cutter.finish().unwrap());
            let shown: Vec<&str> = cut.iter().map(|row| std::str::from_utf8(row).unwrap()).collect();
            let whole: Vec<&str> = shown.iter().map(|row| row.strip_suffix(end).unwrap_or(row)).collect();
            prop_assert_eq!(whole, lines.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(shown.concat(), text);
        }
    }
}
