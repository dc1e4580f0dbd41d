//! Large units move in slices: each row in one of them, all of them of one state, and one that fails is made up for.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Case, Side, ran};

/// A table of so many rows, with this key, and numbers of how they are spread.
fn fill(case: &mut Case, key: &str, rows: usize) {
    case.both(&format!("CREATE TABLE t (id int, code text, at timestamp, v text, PRIMARY KEY ({key}))"));
    case.source
        .batch_execute(&format!(
            "INSERT INTO t SELECT i, md5(i::text), timestamp '2021-08-10' + i * interval '1 second', repeat('x', i % 90) \
             FROM generate_series(1, {rows}) i; ANALYZE t"
        ))
        .unwrap();
}

const LOG: &str = "SELECT count(*) FROM gpferry.load_log WHERE rows_loaded > 0";

#[test]
fn a_whole_table_moves_in_slices_of_its_key() {
    for (key, measure) in
        [("id", "slice:number:id"), ("code", "slice:hash:code"), ("at, code", "slice:time:at")]
    {
        let mut case = Case::new("slices");
        fill(&mut case, key, 20_000);
        case.inventory(&["{ table: public.t, window: none, export: { slice_bytes: 512KiB } }"]);
        case.gpferry(&["plan"]).expect(0).says("1 unit to move");
        case.gpferry(&["plan", "--slices"]).expect(0).says("slice …");
        case.gpferry(&["run"]).expect(0).says("20000 rows");
        case.assert_same("SELECT * FROM t ORDER BY id");
        let measures = format!("SELECT count(*) FROM gpferry.load_log WHERE measure = '{measure}'");
        let slices = case.count(&measures);
        assert!((5..=8).contains(&slices), "{slices} slices by {key}");
        assert_eq!(case.count(LOG), slices);
        assert_eq!(case.count("SELECT sum(rows_loaded)::bigint FROM gpferry.load_log"), 20_000);
        // Then it was moved whole, whoever asks: the ledger, or one that has to read the load log.
        case.gpferry(&["run"]).expect(0).says("left alone: 1 unit of public.t (j): already loaded");
        std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
        case.gpferry(&["run"]).expect(0).says("already loaded");
        assert_eq!(case.count("SELECT count(*) FROM t"), 20_000);
    }
}

#[test]
fn a_window_moves_in_shorter_ones_and_its_nulls_beside_it() {
    let mut case = Case::new("sliced_window");
    case.both("CREATE TABLE t (id int PRIMARY KEY, at timestamp)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, timestamp '2021-08-10' + i * interval '4 seconds' FROM generate_series(0, 21599) i; \
             INSERT INTO t SELECT i, NULL FROM generate_series(30000, 30009) i; \
             INSERT INTO t SELECT i, timestamp '2021-08-11' FROM generate_series(40000, 40009) i; ANALYZE t",
        )
        .unwrap();
    let window = "{ table: public.t, window: { column: at, length: 1d, null_window: include }, export: { slice_bytes: 256KiB } }";
    case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n", &[window]);
    // Beside a window that is cut, what holds no time is no large unit that could not be.
    case.gpferry(&["run"]).expect(0).says("21610 rows").silent_about("large");
    case.assert_same("SELECT * FROM t WHERE at < '2021-08-11' OR at IS NULL ORDER BY id");
    assert_eq!(case.count("SELECT count(*) FROM t"), 21_610);
    assert!(case.count(LOG) >= 4, "{}", case.count(LOG));
    case.gpferry(&["run"]).expect(0).says("already loaded");
}

#[test]
fn a_slice_that_fails_is_made_up_for_by_the_next_run() {
    for lost in [false, true] {
        let mut case = Case::new("slice_fails");
        fill(&mut case, "id", 20_000);
        case.target.batch_execute("INSERT INTO t (id) VALUES (7000)").unwrap();
        case.inventory(&["{ table: public.t, window: none, export: { slice_bytes: 512KiB, retries: 5 } }"]);
        case.gpferry(&["run"]).expect(3).says("t_pkey");
        let there = case.count("SELECT count(*) FROM t");
        assert!((10_000..20_000).contains(&there), "{there} rows of the other slices");
        case.target.batch_execute("DELETE FROM t WHERE code IS NULL").unwrap();
        if lost {
            std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
        }
        // What the catalog says of the table by now changes nothing of what is missing.
        case.source.batch_execute("DELETE FROM pg_statistic WHERE starelid = 't'::regclass").unwrap();
        case.gpferry(&["run"]).expect(0);
        case.assert_same("SELECT * FROM t ORDER BY id");
        case.gpferry(&["run"]).expect(0).says("already loaded");
    }
}

#[test]
fn all_slices_are_of_one_state() {
    let mut case = Case::new("one_state");
    fill(&mut case, "id", 20_000);
    // Each row waits for whoever holds this lock.
    case.source
        .batch_execute(
            "CREATE FUNCTION waited() RETURNS boolean LANGUAGE plpgsql VOLATILE AS \
             'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN true; END'; \
             SELECT pg_advisory_lock(7)",
        )
        .unwrap();
    let entry = "{ table: public.t, window: none, where: \"waited()\", export: { slice_bytes: 384KiB } }";
    case.inventory_with("    sessions: 2\n", "", &[entry]);
    let run = case
        .command(&["run", "--no-progress"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut other = Side::Source.connect(case.database());
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let until = Instant::now() + Duration::from_secs(60);
    while other.query_one(waiting, &[]).unwrap().get::<_, i64>(0) < 2 {
        assert!(Instant::now() < until, "two sessions were to wait");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Two slices are being read; the others come after this.
    other
        .batch_execute(
            "INSERT INTO t SELECT i, 'new', now(), 'new' FROM generate_series(-500, -1) i; \
                        INSERT INTO t SELECT i, 'new', now(), 'new' FROM generate_series(30000, 30500) i; \
                        UPDATE t SET v = 'changed'",
        )
        .unwrap();
    case.source.batch_execute("SELECT pg_advisory_unlock(7)").unwrap();
    ran(run.wait_with_output().unwrap()).expect(0).says("20000 rows").silent_about("different moments");
    assert!(case.count(LOG) >= 4, "{}", case.count(LOG));
    assert_eq!(case.count("SELECT count(*) FROM t WHERE v IN ('new', 'changed')"), 0);
    let left = case.source.query_one(
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = current_database()",
        &[],
    );
    assert_eq!(left.unwrap().get::<_, i64>(0), 0);
}

#[test]
fn what_is_not_cut_says_why() {
    let mut case = Case::new("uncut");
    case.both("CREATE TABLE t (id int, v text)");
    case.source
        .batch_execute("INSERT INTO t SELECT i, repeat('x', 90) FROM generate_series(1, 5000) i; ANALYZE t")
        .unwrap();
    case.inventory(&["{ table: public.t, window: none, export: { slice_bytes: 64KiB } }"]);
    case.gpferry(&["plan", "--slices"]).expect(0).says("no primary key by whose values it could be cut");
    case.gpferry(&["run"]).expect(0).says("no primary key by whose values it could be cut").says("5000 rows");
    assert_eq!(case.count(LOG), 1);
    case.assert_same("SELECT * FROM t ORDER BY id");
}

/// A day of ten, of a column that an index leads to, or partitions do, or nothing.
#[test]
fn a_small_part_of_a_large_table_is_cut_where_something_leads_to_it() {
    let mut case = Case::new("led");
    case.both("CREATE TABLE t (id int PRIMARY KEY, at timestamp); CREATE TABLE p (id int, at timestamp)");
    case.source
        .batch_execute(
            "DROP TABLE p; CREATE TABLE p (id int, at timestamp) PARTITION BY RANGE (at); \
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2021-08-01') TO ('2021-08-10'); \
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2021-08-10') TO ('2021-09-01'); \
             INSERT INTO t SELECT i, timestamp '2021-08-01' + i * interval '20 seconds' FROM generate_series(0, 43199) i; \
             INSERT INTO p SELECT * FROM t; ANALYZE t, p",
        )
        .unwrap();
    let window = |table| {
        format!(
            "{{ table: public.{table}, window: {{ column: at, length: 1d }}, export: {{ slice_bytes: 32KiB }} }}"
        )
    };
    let only = "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n";
    case.inventory_with("", only, &[&window("t"), &window("p")]);
    let reads_all = "each slice would read all of it";
    let pieces = |case: &Case, table: &str| {
        let plan = case.gpferry(&["plan", "--slices", "--table", table, "--format", "json"]).expect(0).json();
        plan["units"].as_array().unwrap().len()
    };
    assert_eq!(pieces(&case, "public.t"), 1);
    assert!(pieces(&case, "public.p") > 3);
    case.gpferry(&["plan", "--slices"]).expect(0).says(reads_all);
    case.source.batch_execute("CREATE INDEX ON t (at)").unwrap();
    assert!(pieces(&case, "public.t") > 3);
    case.gpferry(&["run"]).expect(0).says("8640 rows").silent_about(reads_all);
    for table in ["t", "p"] {
        let of_the_day = "at >= '2021-08-10' AND at < '2021-08-11'";
        case.assert_same(&format!("SELECT * FROM {table} WHERE {of_the_day} ORDER BY id"));
        assert_eq!(case.count(&format!("SELECT count(*) FROM {table}")), 4320);
    }
}

#[test]
fn rows_of_an_inherited_table_that_leave_the_key_empty_are_in_the_first_slice() {
    let mut case = Case::new("empty_key");
    case.source
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE child () INHERITS (t); \
             CREATE TABLE grandchild () INHERITS (child); CREATE TABLE fourth () INHERITS (grandchild); \
             ALTER TABLE fourth ALTER id DROP NOT NULL; \
             INSERT INTO t SELECT i, repeat('x', 90) FROM generate_series(1, 5000) i; \
             INSERT INTO fourth VALUES (NULL, 'in no interval'); ANALYZE t",
        )
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id int, v text)").unwrap();
    case.inventory(&["{ table: public.t, window: none, export: { slice_bytes: 64KiB } }"]);
    case.gpferry(&["run"]).expect(0).says("5001 rows");
    assert!(case.count(LOG) > 3, "{}", case.count(LOG));
    case.assert_same("SELECT * FROM t ORDER BY id");
    case.gpferry(&["run"]).expect(0).says("already loaded");
}

#[test]
fn a_small_slice_whose_query_fails_fails_alone() {
    for sessions in ["", "    sessions: 1\n"] {
        let mut case = Case::new("slice_refused");
        fill(&mut case, "id", 6000);
        let entry = "{ table: public.t, window: none, where: \"1 / (id - 1) IS NOT NULL\", export: { slice_bytes: 16KiB } }";
        case.inventory_with(sessions, "", &[entry]);
        case.gpferry(&["run"]).expect(3).says("division by zero").silent_about("aborted").says("1 failed");
        assert!(case.count("SELECT count(*) FROM t") > 5000);
        case.source.batch_execute("DELETE FROM t WHERE id = 1").unwrap();
        case.gpferry(&["run"]).expect(0);
        case.assert_same("SELECT * FROM t ORDER BY id");
    }
}

#[test]
fn exports_do_not_run_ahead_of_loads_for_ever() {
    let mut case = Case::new("waiting");
    case.both("CREATE TABLE t (id int PRIMARY KEY, at timestamp, v text)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, timestamp '2021-08-10' + i * interval '5 seconds', repeat('x', 50) \
             FROM generate_series(0, 17279) i",
        )
        .unwrap();
    let window = "{ table: public.t, window: { column: at, length: 1h } }";
    case.inventory_with("    sessions: 1\n", "    from: 2021-08-10\n    until: 2021-08-11\n", &[window]);
    let mount = format!("path: {}", case.mount().display());
    case.edit_inventory(&mount, &format!("{mount}, waiting: 1B"));
    case.target.batch_execute("BEGIN; LOCK t IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut run = case.command(&["run", "-v", "--no-progress"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(run.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("exports wait for loads")));
    assert_eq!(case.files().len(), 8, "the first batch, and no more");
    case.target.batch_execute("COMMIT").unwrap();
    lines.for_each(drop);
    assert!(run.wait().unwrap().success());
    case.assert_same("SELECT * FROM t ORDER BY id");
}
