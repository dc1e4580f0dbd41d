//! What is due, by every kind of column; what failed, and for how often; what changes in an inventory, and what that
//! must not lead to.

use crate::greenplum;
use crate::support::Case;

/// From when and until when, for jobs of one day.
const DAY: &str = "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n";

#[test]
fn numbers_that_hold_a_time_are_cut_like_times() {
    let mut case = Case::new("epochs");
    case.both(
        "CREATE TABLE s (at bigint, t timestamp); CREATE TABLE ms (at numeric(20,0), t timestamp); \
         CREATE TABLE us (at bigint, t timestamp); CREATE TABLE i (at integer, t timestamp)",
    );
    case.source
        .batch_execute(
            "INSERT INTO s SELECT extract(epoch FROM t), t FROM \
             generate_series(timestamp '2021-08-09 20:00', '2021-08-11 04:00', '10 minutes') t; \
             INSERT INTO ms SELECT at * 1000 + 999, t FROM s; INSERT INTO us SELECT at * 1000000 + 999999, t FROM s; \
             INSERT INTO i SELECT at, t FROM s",
        )
        .unwrap();
    let table = |name: &str, scale: &str| {
        format!("{{ table: public.{name}, window: {{ column: at, type: {scale}, length: 5h }} }}")
    };
    let tables = [("s", "epoch_s"), ("ms", "epoch_ms"), ("us", "epoch_us"), ("i", "epoch_s")];
    let tables = tables.map(|(name, scale)| table(name, scale));
    case.inventory_with("", DAY, &tables.each_ref().map(String::as_str));
    case.gpferry(&["run"]).expect(0).says("20 of 20 units loaded");
    for name in ["s", "ms", "us", "i"] {
        let day = "t >= '2021-08-10' AND t < '2021-08-11'";
        assert_eq!(case.count(&format!("SELECT count(*) FROM {name} WHERE {day}")), 144, "{name}");
        assert_eq!(case.count(&format!("SELECT count(*) FROM {name}")), 144, "{name}");
    }
    case.inventory_with("", DAY, &["{ table: public.s, window: { column: at, length: 5h } }"]);
    case.gpferry(&["run"]).expect(3).says("has type bigint").says("write `type: epoch_s`");
}

#[test]
fn growing_ids_are_moved_as_they_come_and_no_sooner_than_the_lag() {
    let mut case = Case::new("ids");
    case.both("CREATE TABLE t (id bigint, v text)");
    case.source.batch_execute("INSERT INTO t SELECT i, 'x' FROM generate_series(1001, 1250) i").unwrap();
    let inventory = |lag: &str| {
        let table =
            format!("{{ table: public.t, window: {{ column: id, type: id, step: 100, lag: {lag} }} }}");
        case.inventory_with("", "", &[&table]);
    };
    inventory("1h");
    case.gpferry(&["run"]).expect(0).says("not due yet").says("0 of 0 units");
    inventory("0s");
    case.gpferry(&["plan"]).expect(0).says("ids 1001 … 1101").says("ids 1201 … 1251").says("3 units to move");
    case.gpferry(&["run"]).expect(0).says("3 of 3 units loaded, 250 rows");
    case.source.batch_execute("INSERT INTO t SELECT i, 'y' FROM generate_series(1251, 1420) i").unwrap();
    case.gpferry(&["run"]).expect(0).says("170 rows");
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    // Neither a lost ledger nor another step moves anything twice.
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.edit_inventory("step: 100", "step: 37");
    case.source.batch_execute("INSERT INTO t VALUES (1421, 'z')").unwrap();
    case.gpferry(&["plan"]).expect(0).says("ids 1421 … 1422").says("1 unit to move");
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1 row");
    case.assert_same("SELECT * FROM t ORDER BY id");
    let log = "SELECT count(*) FROM gpferry.load_log WHERE first_id IS NOT NULL AND measure = 'id:id'";
    assert_eq!(case.count(log), 7);
}

#[test]
fn rows_without_a_time_are_moved_once_where_that_is_wanted() {
    let mut case = Case::new("nulls");
    case.both("CREATE TABLE t (at timestamp, v int)");
    case.source.batch_execute("INSERT INTO t VALUES ('2021-08-10 01:00', 1), (NULL, 2), (NULL, 3)").unwrap();
    case.inventory_with("", DAY, &["{ table: public.t, window: { column: at, length: 1d } }"]);
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1 row");
    case.edit_inventory("length: 1d", "length: 1d, null_window: include");
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 2 rows");
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    case.assert_same("SELECT * FROM t ORDER BY v");
}

#[test]
fn another_window_column_leaves_no_gap_and_moves_nothing_twice() {
    let mut case = Case::new("column");
    // No key: what is moved twice is there twice. Every row has its two times in other windows.
    case.both("CREATE TABLE t (made timestamp, changed timestamp, v int)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT timestamp '2021-08-10' + i * interval '7 minutes', \
             timestamp '2021-08-10' + ((i * 37) % 200) * interval '7 minutes', i FROM generate_series(0, 199) i; \
             INSERT INTO t VALUES (NULL, '2021-08-10 01:00', 500), ('2021-08-10 23:59', '2021-08-10 00:00', 501)",
        )
        .unwrap();
    let inventory = |column: &str| {
        let table = format!("{{ table: public.t, window: {{ column: {column}, length: 4h }} }}");
        case.inventory_with("", DAY, &[&table]);
    };
    inventory("made");
    case.gpferry(&["run", "--until", "2021-08-10 12:00"]).expect(0);
    inventory("changed");
    case.gpferry(&["plan"]).expect(0).says("rows that were loaded by time:made are left out");
    // A ledger that is lost in between changes nothing.
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["run", "--until", "2021-08-10 16:00"]).expect(0).says("4 of 4 units");
    inventory("made");
    case.gpferry(&["run", "--until", "2021-08-10 20:00"]).expect(0).says("2 of 2 units");
    inventory("changed");
    case.gpferry(&["run"]).expect(0).says("2 of 2 units");
    case.assert_same("SELECT * FROM t ORDER BY v");
}

#[test]
fn a_file_that_waits_is_not_loaded_by_another_column() {
    let mut case = Case::new("waits");
    case.both("CREATE TABLE t (made timestamp, changed timestamp, v int)");
    case.source
        .batch_execute(
            "INSERT INTO t VALUES ('2021-08-10 01:00', '2021-08-10 13:00', 1), ('2021-08-10 13:00', '2021-08-10 01:00', 2)",
        )
        .unwrap();
    let half = ["--until", "2021-08-10 12:00"];
    case.inventory_with("", DAY, &["{ table: public.t, window: { column: made, length: 12h } }"]);
    case.gpferry(&[&["export"][..], &half].concat()).expect(0);
    case.edit_inventory("made", "changed");
    case.gpferry(&["load"]).expect(0).says("0 of 0 units");
    case.gpferry(&[&["run"][..], &half].concat()).expect(0).says("1 row");
    assert_eq!(case.count("SELECT v::bigint FROM t"), 2);
    case.gpferry(&["run"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY v");
}

#[test]
fn a_file_that_waits_is_exported_anew_when_more_of_its_rows_are_loaded_by_now() {
    let mut case = Case::new("stale_file");
    case.both("CREATE TABLE t (made timestamp, changed timestamp, v int)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT timestamp '2021-08-10' + i * interval '1 hour', \
             timestamp '2021-08-10' + ((i * 7) % 24) * interval '1 hour', i FROM generate_series(0, 23) i",
        )
        .unwrap();
    let by = |column: &str, args: &[&str]| {
        let table = format!("{{ table: public.t, window: {{ column: {column}, length: 6h }} }}");
        case.inventory_with("", DAY, &[&table]);
        case.gpferry(args).expect(0)
    };
    by("made", &["run", "--until", "2021-08-10 06:00"]);
    by("changed", &["export", "--until", "2021-08-10 12:00"]).says("2 of 2 units exported");
    by("made", &["run", "--until", "2021-08-10 12:00"]);
    by("changed", &["run"]);
    case.assert_same("SELECT * FROM t ORDER BY v");
}

#[test]
fn a_ledger_that_lags_behind_moves_nothing_twice_whatever_the_window_is_now() {
    let windows = [
        ("{ column: b, length: 12h }", true),
        ("{ column: n, type: id, step: 50, lag: 0s }", true),
        ("none", true),
        // Nobody can tell which windows of a table that was moved whole are there: it is left alone.
        ("whole, then by windows", false),
    ];
    for (window, mends) in windows {
        let mut case = Case::new("lags");
        case.both("CREATE TABLE t (a timestamp, b timestamp, n int)");
        case.source
            .batch_execute(
                "INSERT INTO t SELECT '2021-08-10'::timestamp + i * interval '10 min', \
                 '2021-08-10 05:00'::timestamp + i * interval '10 min', i FROM generate_series(0, 150) i",
            )
            .unwrap();
        let by = |case: &Case, window: &str| {
            let table = format!("{{ table: public.t, window: {window} }}");
            case.inventory_with("", "    from: 2021-08-10\n    until: 2021-08-13\n", &[&table]);
        };
        let a = "{ column: a, length: 12h }";
        by(&case, if mends { a } else { "none" });
        let first: &[&str] = if mends { &["run", "--until", "2021-08-11"] } else { &["run"] };
        case.gpferry(first).expect(0);
        let loaded = case.count("SELECT count(*) FROM t");
        // As a process leaves it that died between COMMIT and the note of it.
        let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
        ledger
            .execute_batch("UPDATE unit SET state = 'loading', exported = NULL; DELETE FROM covered")
            .unwrap();
        drop(ledger);
        by(&case, if mends { window } else { a });
        case.gpferry(&["run"]).expect(3).says("it overlaps what is loaded already");
        assert!(case.count("SELECT count(*) FROM t") >= loaded, "{window}");
        case.gpferry(&["run"]).expect(if mends { 0 } else { 3 });
        assert_eq!(case.count("SELECT count(*) FROM t"), 151, "{window}");
        assert_eq!(case.count("SELECT count(DISTINCT n) FROM t"), 151, "{window}");
    }
}

#[test]
fn what_an_older_gpferry_moved_is_of_the_column_that_it_was_moved_by() {
    let mut case = Case::new("unmeasured");
    case.both("CREATE TABLE t (a timestamp, b timestamp, n int)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT '2021-08-10'::timestamp + i * interval '10 min', \
             '2021-08-09 19:00'::timestamp + i * interval '10 min', i FROM generate_series(0, 280) i",
        )
        .unwrap();
    let by = |case: &Case, window: &str| {
        let table = format!("{{ table: public.t, window: {window} }}");
        case.inventory_with("", "    from: 2021-08-09\n    until: 2021-08-13\n", &[&table]);
    };
    by(&case, "{ column: a, length: 12h }");
    case.gpferry(&["run", "--until", "2021-08-11"]).expect(0);
    // As an older version left both.
    let old = "DROP INDEX gpferry.load_log_by_table; \
               ALTER TABLE gpferry.load_log DROP COLUMN measure, DROP COLUMN first_id, DROP COLUMN last_id";
    case.target.batch_execute(old).unwrap();
    let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
    ledger.execute_batch("UPDATE covered SET measure = ''; UPDATE unit SET measure = NULL").unwrap();
    drop(ledger);
    by(&case, "{ column: n, type: id, step: 100, lag: 0s }");
    case.gpferry(&["run"]).expect(3).says("did not write down by which column");
    // Nothing is due: the run says by which column it was, all the same.
    by(&case, "{ column: a, length: 12h }");
    case.gpferry(&["run", "--until", "2021-08-11"]).expect(0).says("0 of 0 units");
    by(&case, "{ column: b, length: 12h }");
    case.gpferry(&["run", "--until", "2021-08-11"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 174);
    let index = "SELECT count(*) FROM pg_indexes WHERE indexname = 'load_log_by_table'";
    assert_eq!(case.count(index), 1);
    by(&case, "none");
    case.gpferry(&["run"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 281);
    assert_eq!(case.count("SELECT count(DISTINCT n) FROM t"), 281);
    case.both("CREATE TABLE u (a timestamp, b timestamp)");
    let by = |case: &Case, column: &str| {
        let table = format!("{{ table: public.u, window: {{ column: {column} }} }}");
        case.inventory_with("", "    from: 2021-08-09\n    until: 2021-08-10\n", &[&table]);
    };
    by(&case, "a");
    case.gpferry(&["run"]).expect(0);
    case.both("ALTER TABLE u RENAME a TO c");
    by(&case, "b");
    case.gpferry(&["run"])
        .expect(3)
        .says("moved by the column \"a\" before")
        .says("give the table that column back");
}

#[test]
fn a_window_that_keeps_failing_is_given_up_and_the_others_go_on() {
    let mut case = Case::new("given_up");
    case.both("CREATE TABLE t (at timestamp, v int)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT timestamp '2021-08-10' + i * interval '1 hour', i FROM generate_series(0, 23) i",
        )
        .unwrap();
    case.target.batch_execute("ALTER TABLE t ADD CONSTRAINT no_five CHECK (v <> 5)").unwrap();
    let table = "{ table: public.t, window: { column: at, length: 4h }, export: { retries: 1 } }";
    case.inventory_with("", DAY, &[table]);
    case.gpferry(&["run"]).expect(3).says("5 of 6 units loaded").says("no_five");
    case.gpferry(&["run"]).expect(3).says("0 of 1 unit loaded");
    // Twice is what `retries: 1` allows.
    let left = "failed in as many runs as `retries` allows";
    case.gpferry(&["run"]).expect(3).says("0 of 0 units").says(left);
    case.gpferry(&["plan"]).expect(0).says("0 units to move").says(left);
    case.gpferry(&["plan", "--retry-failed"]).expect(0).says("1 unit to move");
    case.gpferry(&["run", "--retry-failed"]).expect(3).says("0 of 1 unit loaded");
    case.target.batch_execute("ALTER TABLE t DROP CONSTRAINT no_five").unwrap();
    case.gpferry(&["run"]).expect(3).says(left);
    case.gpferry(&["run", "--retry-failed"]).expect(0).says("1 of 1 unit loaded, 4 rows");
    case.gpferry(&["run"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY v");
}

#[test]
fn what_a_host_that_is_down_did_does_not_count_as_a_try() {
    let mut case = Case::new("down");
    case.both("CREATE TABLE t (v int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&["{ table: public.t, window: none, export: { retries: 0 } }"]);
    case.edit_inventory("host: gp-a", "host: gpadmin@127.0.0.1:1");
    for _ in 0..3 {
        case.gpferry(&["run"]).expect(12);
    }
    case.edit_inventory("host: gpadmin@127.0.0.1:1", "host: gp-a");
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded");
}

#[test]
fn units_start_only_in_their_hours() {
    let mut case = Case::new("hours");
    case.both("CREATE TABLE t (v int)");
    // Two hours that began an hour ago, and the rest of the day.
    let now = jiff::Timestamp::now();
    let hour = |by: i64| {
        let time = now + jiff::Span::new().hours(by);
        time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%H:%M").to_string()
    };
    let hours = |from: i64, until: i64| format!("    hours: {}-{}\n", hour(from), hour(until));
    case.inventory_with("", &hours(1, -1), &["{ table: public.t, window: none }"]);
    case.gpferry(&["plan"]).expect(0).says("0 units to move").says("outside the job's `hours`");
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    case.inventory_with("", &hours(-1, 1), &["{ table: public.t, window: none }"]);
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded");
}

#[test]
fn an_old_range_is_moved_beside_what_is_due() {
    let mut case = Case::new("backfill");
    case.both("CREATE TABLE t (at timestamp, v int)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT timestamp '2021-08-08' + i * interval '1 hour', i FROM generate_series(0, 71) i",
        )
        .unwrap();
    case.inventory_with("", DAY, &["{ table: public.t, window: { column: at, length: 6h } }"]);
    let old = ["--from", "2021-08-08", "--until", "2021-08-10"];
    case.gpferry(&[&["run", "--max-units", "3"][..], &old].concat()).expect(0).says("3 of 3 units");
    case.gpferry(&["run"]).expect(0).says("4 of 4 units loaded, 24 rows");
    case.gpferry(&[&["run"][..], &old].concat()).expect(0).says("5 of 5 units loaded, 30 rows");
    case.assert_same("SELECT * FROM t ORDER BY v");
    case.edit_inventory("from: 2021-08-10", "from: 2021-08-07");
    case.gpferry(&["plan"]).expect(0).says("4 units to move").says("`from` was moved back");
}

#[test]
fn a_schema_but_for_some_tables_and_a_partitioned_one_once() {
    if greenplum::leaves_out("partitions by two statements", "it has words of its own for them") {
        return;
    }
    let mut case = Case::new("globs");
    case.both(
        "CREATE SCHEMA w; CREATE TABLE w.a (v int); CREATE TABLE w.b (v int); CREATE TABLE w.tmp_1 (v int); \
         CREATE TABLE w.p (at date, v int) PARTITION BY RANGE (at); \
         CREATE TABLE w.p_1 PARTITION OF w.p FOR VALUES FROM ('2021-01-01') TO ('2021-02-01'); \
         CREATE TABLE w.p_2 PARTITION OF w.p FOR VALUES FROM ('2021-02-01') TO ('2021-03-01')",
    );
    case.source
        .batch_execute(
            "INSERT INTO w.a VALUES (1); INSERT INTO w.b VALUES (2); INSERT INTO w.tmp_1 VALUES (3); \
             INSERT INTO w.p VALUES ('2021-01-05', 4), ('2021-02-05', 5)",
        )
        .unwrap();
    case.both("GRANT USAGE ON SCHEMA w TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA w TO PUBLIC");
    case.inventory(&[
        "{ tables: \"w.*\", except: \"w.tmp*\", window: none }",
        "{ table: w.b, window: none, where: \"v = 2\" }",
    ]);
    // The entry that names a table moves it, under its own condition, and no pattern does.
    case.gpferry(&["run"]).expect(0).says("3 of 3 units loaded, 4 rows").says("moved by another entry");
    for table in ["a", "b", "p"] {
        case.assert_same(&format!("SELECT v FROM w.{table} ORDER BY v"));
    }
    assert_eq!(case.count("SELECT count(*) FROM w.tmp_1"), 0);
    case.inventory(&["{ table: w.p, window: none }", "{ table: w.p_1, window: none }"]);
    case.gpferry(&["run"]).expect(3).says("its rows move with w.p");
    case.edit_inventory("table: w.p_1", "table: w.p_1, target: w.p");
    case.gpferry(&["run"]).expect(3).says("its rows move with w.p");
}

#[test]
fn a_month_of_windows_with_a_table_that_fails_for_a_while_ends_complete() {
    let mut case = Case::new("month");
    for name in ["a", "b"] {
        case.both(&format!("CREATE TABLE {name} (at timestamptz, v int, PRIMARY KEY (at, v))"));
        case.source
            .batch_execute(&format!(
                "INSERT INTO {name} SELECT timestamptz '2021-08-01 00:00+08' + i * interval '11 minutes 13 seconds', i \
                 FROM generate_series(0, 3800) i"
            ))
            .unwrap();
    }
    let job = "    from: 2021-08-01 00:00:00\n    until: 2021-08-31 00:00:00\n    window: { column: at, length: 4h }\n    \
               export: { retries: 9 }\n";
    case.inventory_with("", job, &["public.a", "public.b"]);
    case.edit_inventory("version: 1\n", "version: 1\ntimezone: Asia/Shanghai\n");
    case.gpferry(&["run", "--until", "2021-08-09 10:00"]).expect(0);
    case.target.batch_execute("ALTER TABLE b ADD CHECK (at > '2021-09-01') NOT VALID").unwrap();
    case.gpferry(&["run", "--until", "2021-08-15 16:00"]).expect(3);
    case.gpferry(&["run", "--until", "2021-08-21 01:00"]).expect(3);
    case.target.batch_execute("ALTER TABLE b DROP CONSTRAINT b_at_check").unwrap();
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    for name in ["a", "b"] {
        let both = format!("SELECT * FROM {name} WHERE at < '2021-08-31 00:00+08' ORDER BY at, v");
        case.assert_same(&both);
    }
}

#[test]
fn many_units_that_fail_for_one_reason_are_told_once() {
    let mut case = Case::new("one_reason");
    case.source.batch_execute("CREATE TABLE t (at timestamp)").unwrap();
    case.inventory_with("", DAY, &["{ table: public.t, window: { column: at, length: 4h } }"]);
    let ran = case.gpferry(&["run"]).expect(3).says("and 3 more units for the same reason");
    assert_eq!(ran.stdout.matches("is not in the target database").count(), 1, "{}", ran.stdout);
}
