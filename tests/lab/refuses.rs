//! What must not get in: damaged files, counts that differ, colliding keys. Each rolls its unit back whole and
//! is named as what it is.

use std::fs;
use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::greenplum;
use crate::support::{Case, Ran};

/// A case with one exported file of two gzip members' worth of rows, and what happens when it is damaged.
fn damaged(name: &str, damage: impl Fn(&mut Vec<u8>)) -> (Case, Ran) {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int PRIMARY KEY, v text)");
    case.source
        .batch_execute("INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
        .unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["export"]).expect(0);
    let path = case.only_file();
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let ran = case.gpferry(&["load"]);
    assert_eq!(case.count("SELECT count(*) FROM t"), 0, "something stayed: {}", ran.stdout);
    assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log"), 0);
    (case, ran)
}

#[test]
fn a_truncated_file_is_rolled_back_and_named() {
    let (mut case, ran) = damaged("truncated", |bytes| bytes.truncate(bytes.len() / 2));
    ran.expect(3).says("truncated");
    // The same command mends it: the unit is exported afresh.
    case.gpferry(&["run"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 20_000);
}

#[test]
fn a_flipped_byte_is_rolled_back_and_named() {
    let (_case, ran) = damaged("flipped", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
    });
    ran.expect(3).says("is damaged");
}

#[test]
fn a_file_replaced_by_another_of_the_same_size_is_named() {
    let (_case, ran) = damaged("replaced", |bytes| {
        let last = bytes.len() - 5;
        bytes[last] ^= 1;
    });
    ran.expect(3).says("changed after it was published");
}

#[test]
fn a_missing_last_member_is_named_where_the_ledger_was_fooled_too() {
    // A ledger that holds the size and trailer of the shorter file: only the row count can tell.
    let mut case = Case::new("member");
    case.both("CREATE TABLE t (id int PRIMARY KEY)");
    case.source.batch_execute("INSERT INTO t SELECT generate_series(1, 100)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["export"]).expect(0);
    let path = case.only_file();
    let rows = |from: i32, to: i32| {
        let mut member = GzEncoder::new(Vec::new(), Compression::fast());
        (from..=to).for_each(|row| writeln!(member, "{row}").unwrap());
        member.finish().unwrap()
    };
    let (first, second) = (rows(1, 60), rows(61, 100));
    let publish = |case: &Case, bytes: &[u8], rows: u64| {
        fs::write(&path, bytes).unwrap();
        let tail = &bytes[bytes.len() - 8..];
        let word = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().unwrap());
        let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
        let trailer =
            serde_json::json!({ "bytes": bytes.len(), "crc32": word(0), "isize": word(4) }).to_string();
        ledger
            .execute(
                "UPDATE unit SET exported = json_set(exported, '$.trailer', json(?), '$.rows', ?)",
                rusqlite::params![trailer, rows],
            )
            .unwrap();
    };
    publish(&case, &first, 100);
    case.gpferry(&["load"]).expect(3).says("the source reported 100 rows, the target 60");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    // Both members, as pigz or a concatenation would leave them, are read to the end.
    case.gpferry(&["export"]).expect(0);
    publish(&case, &[first, second].concat(), 100);
    case.gpferry(&["load"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 100);
}

#[test]
fn a_missing_last_member_is_named_by_size() {
    let (_case, ran) = damaged("member_size", |bytes| {
        let mut more = GzEncoder::new(Vec::new(), Compression::fast());
        more.write_all(b"20001,x\n").unwrap();
        bytes.extend(more.finish().unwrap());
    });
    ran.expect(3).says("is not the file that was published");
}

#[test]
fn a_vanished_file_is_named_and_exported_again() {
    let mut case = Case::new("vanished");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["export"]).expect(0);
    fs::remove_file(case.only_file()).unwrap();
    case.gpferry(&["load"]).expect(3).says("is not there for the runner");
    case.gpferry(&["run"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 1);
}

#[test]
fn a_primary_key_violation_takes_the_whole_unit_back_and_says_which_keys() {
    let mut case = Case::new("pk");
    case.both("CREATE TABLE t (a int, b text, v text, CONSTRAINT t_key PRIMARY KEY (a, b))");
    case.both("CREATE TABLE fine (a int PRIMARY KEY)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, 'x', 'secret-cell' FROM generate_series(1, 5000) i; INSERT INTO fine VALUES (1)",
        )
        .unwrap();
    case.target.batch_execute("INSERT INTO t VALUES (4321, 'x', 'there')").unwrap();
    case.inventory(&["{ table: public.t, window: none }", "{ table: public.fine, window: none }"]);
    case.gpferry(&["run", "-vv"])
        .expect(3)
        .says("1 of 5000 rows collides with the unique constraint \"t_key\"")
        .says("1 whose key another row in the target has")
        .says("SQLSTATE 23505")
        .says("another program writes into the table")
        .silent_about("4321")
        .says("1 of 2 units loaded")
        .silent_about("secret-cell");
    assert_eq!(case.count("SELECT count(*) FROM t"), 1);
    // Its sibling in the same transaction stayed.
    assert_eq!(case.count("SELECT count(*) FROM fine"), 1);
    case.gpferry(&["status"]).expect(0).says("t_key").silent_about("4321");
    case.gpferry(&["run", "--show-keys"])
        .expect(3)
        .says("first keys already in the target, another row: (a, b)=(4321, x)")
        .silent_about("secret-cell");
    case.gpferry(&["status"]).expect(0).silent_about("4321");
    case.target.batch_execute("DELETE FROM t").unwrap();
    case.gpferry(&["run"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY a");
}

#[test]
fn keys_that_stand_twice_in_the_source_are_told_apart_from_keys_in_the_target() {
    let mut case = Case::new("twice");
    case.source.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2), (2), (3)").unwrap();
    case.target.batch_execute("CREATE TABLE t (a int PRIMARY KEY)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run"])
        .expect(3)
        .says("2 whose keys stand twice in the file")
        .says("the source has no such key");
    case.gpferry(&["run", "--show-keys"]).expect(3).says("first keys twice in the file: (a)=(2)");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_value_that_does_not_fit_is_placed_and_not_shown() {
    let mut case = Case::new("fit");
    case.source
        .batch_execute("CREATE TABLE t (a text); INSERT INTO t VALUES ('1'), ('cell-value'), ('3')")
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (a int)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run", "-vv"]).expect(3).says("line 2, column a").silent_about("cell-value");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    // gpload tells no SQLSTATE.
    if greenplum::forced_loader().as_deref() != Some("gpload") {
        case.gpferry(&["run"]).expect(3).says("22P02");
    }
}

#[test]
fn a_table_the_loader_may_not_write_fails_alone() {
    if greenplum::loads_as_superuser("who may not INSERT") {
        return;
    }
    let mut case = Case::new("grant");
    case.both("CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE TABLE c (id int)");
    case.source
        .batch_execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1)")
        .unwrap();
    case.target.batch_execute("REVOKE ALL ON b FROM loader").unwrap();
    case.inventory(
        &["public.a", "public.b", "public.c"]
            .map(|table| format!("{{ table: {table}, window: none }}"))
            .each_ref()
            .map(String::as_str),
    );
    case.gpferry(&["run"]).expect(3).says("2 of 3 units loaded").says("42501");
    assert_eq!(case.count("SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM c)"), 2);
}
