//! Tables whose rows the segments of a Greenplum read by themselves: made, read and dropped within a unit's
//! transaction, so that nothing of them outlives it, whatever dies.
//!
//! The columns have the types of the table that is filled, so the same text means the same as in a COPY, and what
//! does not fit is refused as there. The number of rows is that of the INSERT.

use std::path::Path;

use super::{Session, TargetError};
use crate::gzip::Trailer;
use crate::sql;

/// Files of a unit, and who hands them to the segments.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// Each segment inflates its share of the files itself, out of the mount.
    Mount(&'a [ServedFile]),
    /// gpfdist serves them under these URLs, no more than there are segments.
    Gpfdist(&'a [String]),
}

/// A published file, as segments see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedFile {
    /// Where it stands on the segments' hosts, as a word of a shell.
    word: String,
    /// Its size in bytes.
    bytes: u64,
    /// Its last eight bytes, in hexadecimal digits: checksum and length of the last gzip member.
    tail: String,
}

impl ServedFile {
    /// A file that was published with this trailer; `None` where no shell can be told its path.
    pub fn new(path: &Path, trailer: &Trailer) -> Option<Self> {
        let tail = [trailer.crc32.to_le_bytes(), trailer.isize.to_le_bytes()].concat();
        let tail = tail.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { word: sql::shell_word(path.to_str()?)?, bytes: trailer.bytes, tail })
    }
}

/// A column of an external table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_name: String,
    /// GENERATED ALWAYS AS IDENTITY: takes the file's number only where it is told to.
    pub(super) numbered: bool,
}

impl Session {
    /// Has the segments read files into a table, given as quoted SQL, and returns the rows that went in. `run` and
    /// `lot` are part of the external table's name, and choose who reads a single file.
    ///
    /// # Errors
    /// [`TargetError`]; the caller rolls back.
    pub fn read_in(
        &mut self,
        table: &str,
        columns: &[String],
        origin: Origin<'_>,
        run: &str,
        lot: usize,
    ) -> Result<u64, TargetError> {
        let columns = self.external_columns(table, columns)?;
        let name = external_name(run);
        let segments = self.facts.cluster.as_ref().map_or(1, |cluster| cluster.segments);
        let from = match origin {
            Origin::Mount(files) => execute(files, segments, lot),
            Origin::Gpfdist(urls) => location(urls),
        };
        self.touch(&create(&name, &columns, &from), "make an external table")?;
        let rows =
            self.touch(&insert(table, &columns, &names(&columns), &sql::ident(&name)), "take the rows")?;
        self.touch(&format!("DROP EXTERNAL TABLE {}", sql::ident(&name)), "drop the external table")?;
        Ok(rows)
    }

    /// Has a table, given as quoted SQL, rules for INSERT? They are followed by what reads an external table, and not by COPY.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn has_insert_rules(&mut self, table: &str) -> Result<bool, TargetError> {
        let sql = format!(
            "SELECT count(*) FROM pg_rewrite WHERE ev_class = CAST({} AS regclass) AND ev_type = '3'",
            sql::literal(table)
        );
        Ok(self.count(&sql, "look for rules")? > 0)
    }

    /// What each segment reads in a small file, by the segment's number: nothing is changed, and the caller rolls back.
    ///
    /// # Errors
    /// [`TargetError`], of a segment that cannot read it first of all.
    pub fn segments_read(&mut self, file: &ServedFile, run: &str) -> Result<Vec<(i32, String)>, TargetError> {
        let name = external_name(run);
        self.touch(&ask_segments(&name, file), "make an external table")?;
        let doing = "have every segment read a file on the mount";
        let sql = format!("SELECT segment, word FROM {}", sql::ident(&name));
        let rows = self.client.query(sql.as_str(), &[]).map_err(|error| TargetError::of(&error, doing))?;
        self.touch(&format!("DROP EXTERNAL TABLE {}", sql::ident(&name)), "drop the external table")?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// What gpfdist serves under a URL, by lines: nothing is changed, and the caller rolls back. Every segment has to reach
    /// it for that.
    ///
    /// # Errors
    /// [`TargetError`], of a segment that does not reach it, or the coordinator.
    pub fn gpfdist_serves(&mut self, url: &str, run: &str) -> Result<Vec<String>, TargetError> {
        let name = external_name(run);
        let columns = [Column { name: "word".into(), type_name: "text".into(), numbered: false }];
        self.touch(&create(&name, &columns, &location(&[url.to_owned()])), "make an external table")?;
        let sql = format!("SELECT word FROM {}", sql::ident(&name));
        let doing = "have the segments read from gpfdist";
        let rows = self.client.query(sql.as_str(), &[]).map_err(|error| TargetError::of(&error, doing))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The columns that a file fills, in its order.
    pub(super) fn external_columns(
        &mut self,
        table: &str,
        wanted: &[String],
    ) -> Result<Vec<Column>, TargetError> {
        let numbered = if self.facts.has_identities() { "a.attidentity = 'a'" } else { "false" };
        let sql = format!(
            "SELECT CAST(a.attname AS text), format_type(a.atttypid, a.atttypmod), {numbered} FROM pg_attribute a \
             WHERE a.attrelid = CAST({} AS regclass) AND a.attnum > 0 AND NOT a.attisdropped",
            sql::literal(table)
        );
        let of = |error: postgres::Error| TargetError::of(&error, "read its catalog");
        let known = self.client.query(sql.as_str(), &[]).map_err(of)?;
        let column = |name: &String| {
            let row = known.iter().find(|row| row.get::<_, &str>(0) == name);
            let refused = |sqlstate: &str, message| TargetError::Refused {
                doing: "make an external table".into(),
                sqlstate: sqlstate.into(),
                message,
                constraint: None,
                line: None,
            };
            let row =
                row.ok_or_else(|| refused("42703", format!("column \"{name}\" of {table} does not exist")))?;
            let type_name = sql::type_name(row.get(1)).ok_or_else(|| {
                refused("42704", format!("column \"{name}\" of {table} has a type that cannot be written"))
            })?;
            Ok(Column { name: name.clone(), type_name: type_name.to_owned(), numbered: row.get(2) })
        };
        wanted.iter().map(column).collect()
    }
}

fn external_name(run: &str) -> String {
    format!("gpferry_read_{run}")
}

/// The table that stands for the files. Temporary: its name is nobody else's, and no right on any schema is needed.
fn create(name: &str, columns: &[Column], from: &str) -> String {
    let columns: Vec<String> =
        columns.iter().map(|column| format!("{} {}", sql::ident(&column.name), column.type_name)).collect();
    let web = if from.starts_with("EXECUTE") { "WEB " } else { "" };
    format!(
        "CREATE READABLE EXTERNAL {web}TEMP TABLE {} ({}) {from} FORMAT 'csv' ENCODING 'UTF8'",
        sql::ident(name),
        columns.join(", ")
    )
}

/// Appends rows to a table's columns: `from` is what stands for them in `rows`, as SQL.
pub(super) fn insert(table: &str, columns: &[Column], from: &str, rows: &str) -> String {
    let overriding =
        if columns.iter().any(|column| column.numbered) { " OVERRIDING SYSTEM VALUE" } else { "" };
    format!("INSERT INTO {table} ({}){overriding} SELECT {from} FROM {rows}", names(columns))
}

fn names(columns: &[Column]) -> String {
    sql::idents(columns.iter().map(|column| column.name.as_str()))
}

/// The files are dealt out to the segments; one alone goes to one of them, so that units beside each other are read
/// by different ones, and no process is started for nothing.
fn execute(files: &[ServedFile], segments: usize, lot: usize) -> String {
    let segments = segments.max(1);
    if let [file] = files {
        let command = inflate(&arguments([file].into_iter()));
        return format!("EXECUTE {} ON SEGMENT {}", sql::literal(&command), lot % segments);
    }
    let mut shares = String::new();
    for segment in 0..segments.min(files.len()) {
        let share = files.iter().skip(segment).step_by(segments);
        shares += &format!("{segment}) {};; ", arguments(share));
    }
    let command = inflate(&format!("case \"$GP_SEGMENT_ID\" in {shares}*) exit 0;; esac"));
    format!("EXECUTE {} ON ALL", sql::literal(&command))
}

/// `set -- PATH BYTES TAIL PATH BYTES TAIL`.
fn arguments<'f>(files: impl Iterator<Item = &'f ServedFile>) -> String {
    let words = files.map(|file| format!(" {} {} {}", file.word, file.bytes, file.tail));
    format!("set --{}", words.collect::<String>())
}

/// A command for `sh` that writes the data of the files that `set` names, with their size and end held against what was
/// published: what a segment's host still shows of an older file is not taken for it. Each inflater checks the
/// checksum and length of every member, and says so by its exit code, which fails the statement.
fn inflate(set: &str) -> String {
    format!(
        "{set}; for z in igzip pigz gzip; do command -v $z >/dev/null 2>&1 && break; done; \
         while [ $# -gt 0 ]; do n=$(wc -c < \"$1\") || exit 1; \
         [ \"$n\" -eq \"$2\" ] || {{ echo \"$1: $n bytes here, $2 were published\" >&2; exit 1; }}; \
         [ \"$(tail -c 8 \"$1\" | od -A n -t x1 | tr -d ' ')\" = \"$3\" ] || \
         {{ echo \"$1: its end is not the one that was published\" >&2; exit 1; }}; \
         $z -dc \"$1\" || exit 1; shift 3; done"
    )
}

/// URLs of gpfdist.
fn location(urls: &[String]) -> String {
    let urls: Vec<String> = urls.iter().map(|url| sql::literal(url)).collect();
    format!("LOCATION ({})", urls.join(", "))
}

/// Every segment says its number and what it reads.
fn ask_segments(name: &str, file: &ServedFile) -> String {
    let command = format!("w=$(cat {}) || exit 1; echo \"$GP_SEGMENT_ID,$w\"", file.word);
    format!(
        "CREATE READABLE EXTERNAL WEB TEMP TABLE {} (segment integer, word text) EXECUTE {} ON ALL FORMAT 'csv' \
         ENCODING 'UTF8'",
        sql::ident(name),
        sql::literal(&command)
    )
}

/// Did a segment's reading process not see yet what its writing process had just made in the same transaction? On a busy
/// Greenplum 6 it happens to the first statement of a session now and then; the next try finds it.
pub(super) fn is_unseen(message: &str) -> bool {
    let by_number =
        message.strip_prefix("relation with OID ").is_some_and(|rest| rest.ends_with("does not exist"));
    by_number || message.starts_with("missing pg_exttable entry for relation \"gpferry_read_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64) -> ServedFile {
        ServedFile::new(Path::new(path), &Trailer { bytes, crc32: 0x0403_0201, isize: 7 }).unwrap()
    }

    #[test]
    fn what_a_reader_did_not_see_yet_is_told_from_what_is_not_there() {
        assert!(is_unseen("relation with OID 89466 does not exist"));
        assert!(is_unseen("missing pg_exttable entry for relation \"gpferry_read_20261121T210731Z-ac2f\""));
        assert!(!is_unseen("relation \"public.t\" does not exist"));
    }

    #[test]
    fn one_file_is_read_by_one_segment_and_several_are_dealt_out() {
        let one = execute(&[file("/m/it's", 7)], 4, 6);
        assert!(one.ends_with(" ON SEGMENT 2"), "{one}");
        assert!(
            one.starts_with("EXECUTE 'set -- ''/m/it''\"''\"''s'' 7 0102030407000000; for z in igzip"),
            "{one}"
        );
        let three = execute(&[file("/a", 1), file("/b", 2), file("/c", 3)], 2, 6);
        assert!(three.contains("0) set -- ''/a'' 1 0102030407000000 ''/c'' 3 0102030407000000;; 1) set -- ''/b'' 2 0102030407000000;; *) exit 0;;"), "{three}");
        assert!(three.ends_with(" ON ALL"), "{three}");
        let two = execute(&[file("/a", 1), file("/b", 2)], 8, 0);
        assert!(two.contains("1) set -- ''/b'' 2 0102030407000000;; *)") && !two.contains("2) set"), "{two}");
    }

    #[test]
    fn the_statements_name_the_columns_of_the_file_alone() {
        let column =
            |name: &str, numbered| Column { name: name.into(), type_name: "integer".into(), numbered };
        let columns = [column("b\"", false), column("a", false)];
        insta::assert_snapshot!(
            [
                create("gpferry_read_r", &columns, "EXECUTE 'c' ON ALL"),
                insert("\"s\".\"t\"", &columns, &names(&columns), "\"gpferry_read_r\""),
                insert("\"s\".\"t\"", &[column("a", true)], "c0", "gpferry.x"),
                ask_segments("gpferry_read_r", &file("/m n/x", 1)),
            ]
            .join("\n"),
            @r#"
            CREATE READABLE EXTERNAL WEB TEMP TABLE "gpferry_read_r" ("b""" integer, "a" integer) EXECUTE 'c' ON ALL FORMAT 'csv' ENCODING 'UTF8'
            INSERT INTO "s"."t" ("b""", "a") SELECT "b""", "a" FROM "gpferry_read_r"
            INSERT INTO "s"."t" ("a") OVERRIDING SYSTEM VALUE SELECT c0 FROM gpferry.x
            CREATE READABLE EXTERNAL WEB TEMP TABLE "gpferry_read_r" (segment integer, word text) EXECUTE 'w=$(cat ''/m n/x'') || exit 1; echo "$GP_SEGMENT_ID,$w"' ON ALL FORMAT 'csv' ENCODING 'UTF8'
            "#
        );
    }
}
