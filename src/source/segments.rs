//! Export by the segments of a Greenplum: the SQL by which each of them compresses its own part of a unit and writes it
//! onto the mount, what a source has to be for that, and the choice between this way and COPY. Pure.
//!
//! A writable external web table runs a command on each segment that has rows, and a readable one, behind it in the
//! same transaction, on every segment. The second makes the empty part of a segment that had none, and tells size and
//! trailer of each part as the segment sees it: so every segment is accounted for, and one that wrote to another place
//! than the mount is found out. Both tables are temporary, and the transaction is rolled back: nothing stays in the
//! catalog. Source: Greenplum 6, CREATE EXTERNAL TABLE; GREENPLUM's `url_execute.c` (a command's exit code other than
//! 0 is an error of the statement).

use std::fmt::Write as _;
use std::path::Path;

use super::postgres::{self, SourceColumn};
use crate::gzip::Trailer;
use crate::inventory::Compressor;
use crate::names::TableName;
use crate::sql;

mod choice;

pub use choice::{Choice, Seen, Wanted, choose};

/// Asks what a server is and may do: one row.
pub const FACTS: &str = "SELECT current_setting('server_version_num'), version(), \
     (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), current_user, \
     current_setting('gp_external_enable_exec'), \
     (SELECT count(*) FROM gp_segment_configuration WHERE role = 'p' AND content >= 0)";

/// What a source is, as far as this way of exporting goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `server_version_num`.
    pub version: u32,
    /// Is it Greenplum, or Cloudberry?
    pub greenplum: bool,
    /// Who is asked to export.
    pub user: String,
    /// Is that a superuser? Nobody else may make a table that runs commands.
    pub superuser: bool,
    /// Does the server allow such tables at all (`gp_external_enable_exec`)?
    pub may_execute: bool,
    /// Primary segments.
    pub primaries: u32,
}

/// Reads the answer to [`FACTS`].
pub fn read_facts(row: &str) -> Option<Facts> {
    let fields = postgres::fields(row);
    let field = |n: usize| fields.get(n).cloned().flatten();
    let server = postgres::read_facts(row);
    Some(Facts {
        version: server.version,
        greenplum: server.greenplum,
        superuser: field(2)? == "t",
        user: field(3)?,
        may_execute: field(4)? == "on",
        primaries: field(5)?.parse().ok()?,
    })
}

/// Asks which of these tables are spread over the segments by columns: the others have no key that the external table
/// could share, and their rows are sent around between the segments.
pub fn list_spread(tables: &[&TableName]) -> String {
    format!(
        "SELECT w.s, w.t FROM (VALUES {}) w (s, t) JOIN pg_namespace n ON n.nspname = w.s \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p') \
         JOIN gp_distribution_policy p ON p.localoid = c.oid AND p.policytype = 'p'",
        postgres::values(tables)
    )
}

/// The columns of the external table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// Those of the source table, with its distribution: no row leaves its segment.
    Like,
    /// These, as SQL, with rows sent to any segment.
    Listed(Box<str>),
}

/// How the external table for a unit's columns is made; `None` where a type cannot stand in a statement.
pub fn columns(exported: &[String], described: &[SourceColumn], spread: bool) -> Option<Columns> {
    let all = described.len() == exported.len()
        && described.iter().zip(exported).all(|(column, name)| column.name == *name && !column.generated);
    if all && spread {
        return Some(Columns::Like);
    }
    let mut list = String::new();
    for name in exported {
        let column = described.iter().find(|column| column.name == *name)?;
        let comma = if list.is_empty() { "" } else { ", " };
        write!(list, "{comma}{} {}", sql::ident(name), sql::type_name(&column.type_name)?).ok()?;
    }
    Some(Columns::Listed(list.into()))
}

/// A unit's parts as the segments write them.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The unit's file, as the segment hosts see it; the parts' names are made of it.
    pub file: &'a Path,
    /// `<run>.<attempt>`, which unfinished files are named by.
    pub tag: &'a str,
    /// Which compressor they use.
    pub compressor: Compressor,
}

/// What the segments cannot be told: a path that no shell can be given safely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path {0:?} of the mount on the segment hosts cannot be quoted for a shell")]
pub struct Unquotable(String);

/// The three statements that export a unit, in one transaction. Each on one line, without a semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statements {
    /// Makes the table that is written to.
    pub create: String,
    /// Makes the table that tells of the parts; its column is `line`.
    pub look: String,
    /// Writes the rows.
    pub insert: String,
}

/// What exports the rows of a query over a table.
///
/// # Errors
/// [`Unquotable`].
pub fn statements(
    parts: Parts<'_>,
    table: &TableName,
    columns: &Columns,
    query: &str,
) -> Result<Statements, Unquotable> {
    let (list, spread) = match columns {
        Columns::Like => (format!("LIKE {}", sql::table(table)), ""),
        Columns::Listed(list) => (list.to_string(), " DISTRIBUTED RANDOMLY"),
    };
    let write = sql::literal(&write_command(parts)?);
    Ok(Statements {
        create: format!(
            "CREATE WRITABLE EXTERNAL WEB TEMP TABLE gpferry_out ({list}) EXECUTE {write} \
             FORMAT 'csv' ENCODING 'UTF8'{spread}"
        ),
        look: reads(&look_command(parts)?),
        insert: format!("INSERT INTO pg_temp.gpferry_out {query}"),
    })
}

/// Makes a table whose rows a command writes, one on each segment.
fn reads(command: &str) -> String {
    format!(
        "CREATE READABLE EXTERNAL WEB TEMP TABLE gpferry_seen (line text) EXECUTE {} ON ALL \
         FORMAT 'text' (DELIMITER 'off') ENCODING 'UTF8'",
        sql::literal(command)
    )
}

/// Sets `f` to a segment's own part and `c` to its compressor. The shell is the segment's `sh`, which knows no `pipefail`;
/// so nothing here is a pipe whose first end could fail unseen.
fn begin(parts: Parts<'_>) -> Result<String, Unquotable> {
    let refused = || Unquotable(parts.file.display().to_string());
    let name = parts.file.file_name().and_then(|name| name.to_str()).ok_or_else(refused)?;
    let directory = parts.file.parent().and_then(Path::to_str).ok_or_else(refused)?;
    let stem = name.strip_suffix(".csv.gz").unwrap_or(name);
    let head = sql::shell_word(&format!("{directory}/.{stem}^seg")).ok_or_else(refused)?;
    let tail = sql::shell_word(&format!(".csv.gz.{}.part", parts.tag)).ok_or_else(refused)?;
    let candidates = match parts.compressor {
        Compressor::Auto => "igzip pigz gzip",
        Compressor::Igzip | Compressor::Pigz | Compressor::Gzip => parts.compressor.word(),
    };
    // More segments than one share a host: pigz takes one core of it for each.
    Ok(format!(
        "export LC_ALL=C; umask 027; set -C; f={head}\"$GP_SEGMENT_ID\"{tail}; for c in {candidates}; do \
         command -v $c >/dev/null 2>&1 && break; done; z=\"$c -1 -c\"; [ $c != pigz ] || z=\"pigz -1 -p 1 -c\"; \
         flush() {{ w=$(dd if=/dev/null of=\"$f\" conv=notrunc,fsync 2>&1) || {{ echo \"$w\" >&2; return 1; }}; }}; \
         why() {{ dd if=/dev/zero bs=64k count=1 >>\"$f\"; return 1; }}; "
    ))
}

/// Reads rows in large pieces and hands them to the compressor that its arguments name, whose end is its own.
///
/// A segment writes every row into the pipe by itself, and each write wakes a reader that waits: with one at each end of
/// the pipe, half of the export is switching between the two. So this one lets rows gather for as long as some 350 MB/s
/// would need to fill the pipe, which it makes as large as it may (fcntl's F_SETPIPE_SZ is 1031, F_GETPIPE_SZ 1032).
const GATHER: &str = "fcntl(STDIN,1031,1048576);my $s=fcntl(STDIN,1032,0)||65536;open(my $o,\"|-\",@ARGV) or exit 1;\
     for(;;){my $n=sysread(STDIN,my $b,$s);exit 1 unless defined $n;last unless $n;my $at=0;\
     while($at<$n){my $w=syswrite($o,$b,$n-$at,$at);exit 1 unless defined $w;$at+=$w}\
     select(undef,undef,undef,$s/3.5e8) if $n<$s/4}close($o) or exit 1";

/// What each segment pipes its rows into. `set -C` opens exclusively: what another attempt writes is not written over,
/// and no link is followed. The flush tells of a full disk or quota that no compressor asks for, and `why` has the system
/// say in its own words what a compressor that failed had met.
fn write_command(parts: Parts<'_>) -> Result<String, Unquotable> {
    Ok(format!(
        "{}{{ if command -v perl >/dev/null 2>&1; then perl -e '{GATHER}' $z; else $z; fi >\"$f\" || why; }} && flush",
        begin(parts)?
    ))
}

/// What each segment says of its part: id, segments, bytes, the last eight bytes, compressor.
fn look_command(parts: Parts<'_>) -> Result<String, Unquotable> {
    Ok(format!(
        "{}[ -e \"$f\" ] || {{ {{ $z </dev/null >\"$f\" || why; }} && flush; }} || exit 1; b=$(wc -c <\"$f\") && \
         set -- $(tail -c 8 \"$f\" | od -A n -t x1) && \
         echo \"$GP_SEGMENT_ID $GP_SEGMENT_COUNT $((b)) $1$2$3$4$5$6$7$8 $c\"",
        begin(parts)?
    ))
}

/// Asks each segment for what stands in a file of the mount, which ends in `.part`, and whether it may write beside it: the
/// statement for the script's `look`.
///
/// # Errors
/// [`Unquotable`].
pub fn ask_who_sees(file: &Path) -> Result<String, Unquotable> {
    let refused = || Unquotable(file.display().to_string());
    let stem = file.to_str().and_then(|file| file.strip_suffix(".part")).ok_or_else(refused)?;
    let word = sql::shell_word(stem).ok_or_else(refused)?;
    Ok(reads(&format!(
        "umask 077; f={word}; n=$(cat \"$f.part\" 2>/dev/null) || n=-; [ -n \"$n\" ] || n=-; w=-; \
         t=\"$f.$GP_SEGMENT_ID.part\"; if (set -C; : >\"$t\") 2>/dev/null; then rm -f \"$t\" && w=w; fi; \
         for c in igzip pigz gzip -; do command -v $c >/dev/null 2>&1 && break; done; \
         echo \"$GP_SEGMENT_ID $GP_SEGMENT_COUNT $n $w $c $(uname -n)\""
    )))
}

/// What the answers to [`ask_who_sees`] come to, where the file holds `nonce`.
pub fn read_who_sees<'a>(rows: impl IntoIterator<Item = &'a str>, nonce: &str, primaries: u32) -> Seen {
    let (mut heard, mut blind) = (std::collections::BTreeSet::new(), Vec::new());
    for row in rows {
        let fields: Vec<&str> = row.split(' ').collect();
        let [segment, count, read, writes, compressor, host @ ..] = fields.as_slice() else { continue };
        let (Ok(segment), Ok(count)) = (segment.parse::<u32>(), count.parse::<u32>()) else { continue };
        let host = host.first().copied().unwrap_or("?");
        let lacks = match (*read == nonce, *writes == "w", *compressor != "-") {
            (false, ..) => "does not see the mount there",
            (_, false, _) => "may not write there",
            (_, _, false) => "has no igzip, pigz or gzip on its PATH",
            (true, true, true) => "",
        };
        if count == primaries {
            heard.insert(segment);
        }
        if !lacks.is_empty() {
            blind.push(format!("segment {segment} on {host} {lacks}"));
        }
    }
    let all = heard.len() == primaries as usize && heard.iter().all(|segment| *segment < primaries);
    match blind.first() {
        Some(first) if blind.len() > 1 => Seen::Not(format!("{first}, nor do {} more", blind.len() - 1)),
        Some(first) => Seen::Not(first.clone()),
        None if all => Seen::ByAll,
        None => Seen::Not(format!("{} of {primaries} segments answered", heard.len())),
    }
}

/// The last eight bytes of a gzip file, as 16 hex digits, with its size.
pub fn read_trailer(bytes: u64, tail: &str) -> Option<Trailer> {
    if tail.len() != 16 || !tail.is_ascii() {
        return None;
    }
    // Each number stands there with its lowest byte first.
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    Some(Trailer { bytes, crc32: number(&tail[..8])?, isize: number(&tail[8..])? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &Path, compressor: Compressor) -> Parts<'_> {
        Parts { file: path, tag: "20210810T000000Z-00aa.1", compressor }
    }

    fn column(name: &str, type_name: &str) -> SourceColumn {
        let (name, type_name) = (name.to_owned(), type_name.to_owned());
        SourceColumn { name, type_name, generated: false, not_null: false }
    }

    #[test]
    fn the_sql_of_a_unit_s_parts() {
        let table = TableName::new("sor", "wpp \"f").unwrap();
        let path = Path::new("/mnt/it's here/file2GP/s/202108/10/t/d^sor^t^all.csv.gz");
        let listed = columns(&["a".into()], &[column("a", "numeric(10,2)"), column("b", "text")], true);
        let query = "SELECT \"a\" FROM \"sor\".\"t\"";
        let mut shown = String::new();
        for (columns, compressor) in [(Columns::Like, Compressor::Auto), (listed.unwrap(), Compressor::Pigz)]
        {
            let Statements { create, look, insert } =
                statements(parts(path, compressor), &table, &columns, query).unwrap();
            assert!([&create, &look, &insert].iter().all(|one| !one.contains(['\n', '\t'])));
            write!(shown, "{create}\n\n{insert}\n\n{look}\n\n").unwrap();
        }
        writeln!(shown, "{}", ask_who_sees(Path::new("/mnt/.see.r.1.ab.part")).unwrap()).unwrap();
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_table_is_like_the_source_s_only_where_all_of_it_is_exported_and_it_is_spread() {
        let described = [column("a", "integer"), column("b", "\"My Types\".mood")];
        let both = ["a".to_owned(), "b".to_owned()];
        assert_eq!(columns(&both, &described, true), Some(Columns::Like));
        let listed = Columns::Listed("\"a\" integer, \"b\" \"My Types\".mood".into());
        assert_eq!(columns(&both, &described, false), Some(listed));
        let listed = Columns::Listed("\"b\" \"My Types\".mood".into());
        assert_eq!(columns(&both[1..], &described, true), Some(listed));
        let generated = [described[0].clone(), SourceColumn { generated: true, ..described[1].clone() }];
        assert!(matches!(columns(&both, &generated, true), Some(Columns::Listed(_))));
        assert_eq!(columns(&both, &[described[0].clone(), column("b", "x); drop")], false), None);
    }

    #[test]
    fn a_path_that_no_shell_can_be_given_is_refused() {
        let table = TableName::new("a", "t").unwrap();
        for path in ["/mnt/a\nb/x.csv.gz", "/mnt/a\u{7}/x.csv.gz"] {
            let made =
                statements(parts(Path::new(path), Compressor::Auto), &table, &Columns::Like, "SELECT 1");
            assert!(made.is_err(), "{path:?}");
            assert!(ask_who_sees(Path::new(path)).is_err());
        }
    }

    #[test]
    fn the_mount_is_seen_only_where_every_segment_says_so() {
        let seen = |rows: &[&str]| read_who_sees(rows.iter().copied(), "abc", 2);
        assert_eq!(seen(&["0 2 abc w igzip h1", "1 2 abc w gzip h2"]), Seen::ByAll);
        for (rows, why) in [
            (&["0 2 abc w igzip h1"][..], "1 of 2 segments answered"),
            (&["0 2 abc w igzip h1", "0 2 abc w igzip h1"], "1 of 2"),
            (&["0 3 abc w igzip h1", "1 3 abc w igzip h1"], "0 of 2"),
            (&["0 2 abc w igzip h1", "1 2 - - igzip h2"], "segment 1 on h2 does not see"),
            (&["0 2 abc w igzip h1", "1 2 abd w igzip h2"], "segment 1 on h2 does not see"),
            (&["0 2 abc - igzip h1", "1 2 abc w igzip h2"], "segment 0 on h1 may not write"),
            (&["0 2 abc w - h1", "1 2 abc w - h2"], "PATH, nor do 1 more"),
            (&[], "0 of 2"),
        ] {
            assert!(
                matches!(seen(rows), Seen::Not(said) if said.contains(why)),
                "{rows:?}: {:?}",
                seen(rows)
            );
        }
    }

    #[test]
    fn facts_and_trailers_are_read_as_they_are_written() {
        let row = "90426\tPostgreSQL 9.4.26 (Greenplum Database 6.24.3)\tt\tgpadmin\ton\t16";
        let facts = read_facts(row).unwrap();
        assert!(facts.greenplum && facts.superuser && facts.may_execute);
        assert_eq!((facts.version, facts.primaries, facts.user.as_str()), (90_426, 16, "gpadmin"));
        let trailer = Trailer { bytes: 30, crc32: 0x9b2e_f5a1, isize: 3 };
        assert_eq!(read_trailer(30, "a1f52e9b03000000"), Some(trailer));
        for odd in ["", "a1f52e9b0300000", "a1f52e9b0300000g", "a1f52e9b030000000"] {
            assert_eq!(read_trailer(30, odd), None, "{odd}");
        }
    }
}
