//! The ways of loading: what is in the target after each is what the words say, and every row is accounted for.

mod odd;

use std::io::Read;

use crate::greenplum;
use crate::support::Case;

/// A table in both databases, with these rows in the source and those in the target, moved by `load`.
pub(crate) fn case(name: &str, columns: &str, source: &str, target: &str, load: &str) -> Case {
    let mut case = Case::new(name);
    case.both(&format!("CREATE TABLE t ({columns})"));
    case.source.batch_execute(source).unwrap();
    case.target.batch_execute(target).unwrap();
    case.inventory(&[&format!("{{ table: public.t, window: none, load: {load} }}")]);
    case
}

/// The target's rows as text, in order.
pub(crate) fn rows(case: &mut Case) -> Vec<String> {
    let rows = case.target.query("SELECT CAST(t AS text) FROM t ORDER BY 1", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// exported, loaded, updated, left, rejected and mode of the only row of the load log.
pub(crate) fn logged(case: &mut Case) -> (Vec<i64>, String) {
    let sql = "SELECT rows_exported, rows_loaded, rows_updated, rows_left, rows_rejected, mode FROM gpferry.load_log";
    let row = case.target.query_one(sql, &[]).unwrap();
    ((0..5).map(|n| row.get(n)).collect(), row.get(5))
}

/// The lines of the unit's rejects.
pub(crate) fn rejects(case: &Case) -> Vec<String> {
    let path = case.mount().join(format!("file2GP/rejects/s/{}^public^t^all.csv.gz", case.database()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn update_changes_what_matches_and_inserts_nothing() {
    let mut case = case(
        "update",
        "id int PRIMARY KEY, v text",
        "INSERT INTO t VALUES (1, 'new'), (2, NULL), (3, 'no such row')",
        "INSERT INTO t VALUES (1, 'old'), (2, 'old'), (4, 'old')",
        "{ mode: update }",
    );
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 2 rows");
    assert_eq!(rows(&mut case), ["(1,new)", "(2,)", "(4,old)"]);
    assert_eq!(logged(&mut case), (vec![3, 2, 2, 1, 0], "update".into()));
}

#[test]
fn merge_updates_and_inserts_and_null_finds_null() {
    let mut case = case(
        "merge",
        "\"Key A\" int, \"select\" text, \"v\"\"q\" text, n int",
        "INSERT INTO t VALUES (1, NULL, 'new', 7), (NULL, NULL, 'new', 7), (NULL, 'x', 'fresh', 7), (0, '', 'fresh', 7)",
        "INSERT INTO t VALUES (1, NULL, 'old', 1), (NULL, NULL, 'old', 2), (5, 'x', 'old', 3)",
        "{ mode: merge, match: ['Key A', select], update_columns: ['v\"q'] }",
    );
    case.gpferry(&["run"]).expect(0).says("4 rows");
    assert_eq!(
        rows(&mut case),
        ["(,,new,2)", "(,x,fresh,7)", "(0,\"\",fresh,7)", "(1,,new,1)", "(5,x,old,3)"]
    );
    assert_eq!(logged(&mut case), (vec![4, 4, 2, 0, 0], "merge".into()));
}

#[test]
fn a_condition_says_which_rows_may_be_updated() {
    let mut case = case(
        "condition",
        "id int PRIMARY KEY, v int",
        "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)",
        "INSERT INTO t VALUES (1, 5), (2, 50)",
        "{ mode: merge, update_condition: 'from_table.v > into_table.v' }",
    );
    case.gpferry(&["run"]).expect(0);
    assert_eq!(rows(&mut case), ["(1,10)", "(2,50)", "(3,30)"]);
    assert_eq!(logged(&mut case), (vec![3, 2, 1, 1, 0], "merge".into()));
}

#[test]
fn equal_keys_in_one_file_are_an_error_unless_one_is_said_to_win() {
    let mut case = Case::new("duplicates");
    case.both("CREATE TABLE t (id int, at int, v text)");
    case.source
        .batch_execute(
            "INSERT INTO t VALUES (1, 1, 'a'), (1, 3, 'c'), (1, 2, 'b'), (1, NULL, 'n'), (2, 1, 'x')",
        )
        .unwrap();
    let load = |more: &str| {
        format!("{{ table: public.t, window: none, load: {{ mode: merge, match: [id]{more} }} }}")
    };
    case.inventory(&[&load("")]);
    case.gpferry(&["run"]).expect(3).says("4 rows of the file share 1 keys").silent_about("(id)=(1)");
    case.gpferry(&["run", "--show-keys"]).expect(3).says("first keys twice in the file: (id)=(1)");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    case.inventory(&[&load(", duplicates: last by at")]);
    case.gpferry(&["run"]).expect(0);
    assert_eq!(rows(&mut case), ["(1,3,c)", "(2,1,x)"]);
    assert_eq!(logged(&mut case), (vec![5, 2, 0, 3, 0], "merge".into()));
}

#[test]
fn two_rows_that_are_as_late_as_each_other_are_an_error() {
    let mut case = case(
        "ties",
        "id int, at int, v text",
        "INSERT INTO t VALUES (1, 1, 'a'), (1, 2, 'b'), (1, 2, 'c')",
        "",
        "{ mode: merge, match: [id], duplicates: last by at }",
    );
    case.gpferry(&["run"]).expect(3).says("1 are as late by \"at\" as the one that would win");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
}

#[test]
fn replace_takes_the_window_away_and_nothing_else() {
    let mut case = Case::new("replace");
    case.both("CREATE TABLE t (at timestamp, v text)");
    case.source.batch_execute("INSERT INTO t VALUES ('2021-08-10 01:00', 'new')").unwrap();
    case.target
        .batch_execute(
            "INSERT INTO t VALUES ('2021-08-09 23:59', 'kept'), ('2021-08-10', 'old'), ('2021-08-10 03:59:59.9', 'old'), \
             ('2021-08-10 04:00', 'kept'), (NULL, 'kept')",
        )
        .unwrap();
    let table = "{ table: public.t, window: { column: at, length: 4h }, load: { mode: replace } }";
    case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-10 04:00:00\n", &[table]);
    case.gpferry(&["run"]).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM t WHERE v = 'kept'"), 3);
    assert_eq!(case.count("SELECT count(*) FROM t WHERE v = 'old'"), 0);
    assert_eq!(case.count("SELECT count(*) FROM t"), 4);
}

#[test]
fn replace_notices_rows_outside_of_what_it_took_away() {
    let mut case = Case::new("replace_types");
    case.source
        .batch_execute("CREATE TABLE t (at timestamp); INSERT INTO t VALUES ('2021-08-10 00:30')")
        .unwrap();
    // The same digits are another instant there.
    case.target
        .batch_execute("CREATE TABLE t (at timestamptz); INSERT INTO t VALUES ('2021-08-09 17:00+00')")
        .unwrap();
    let table = "{ table: public.t, window: { column: at, length: 4h }, load: { mode: replace } }";
    case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-10 04:00:00\n", &[table]);
    case.edit_inventory("version: 1\n", "version: 1\ntimezone: Asia/Shanghai\n");
    case.gpferry(&["run"]).expect(3).says("the window column has another type there");
    assert_eq!(case.count("SELECT count(*) FROM t"), 1);
}

#[test]
fn a_whole_table_is_replaced_by_delete_or_by_truncate() {
    for (name, truncate) in [("whole", "false"), ("truncated", "true")] {
        let mut case = case(
            name,
            "id int PRIMARY KEY",
            "INSERT INTO t VALUES (1), (2)",
            "INSERT INTO t VALUES (2), (3)",
            &format!("{{ mode: replace, truncate: {truncate} }}"),
        );
        if truncate == "true" && !greenplum::loads_as_superuser("who may not TRUNCATE") {
            case.target.batch_execute("REVOKE TRUNCATE ON t FROM loader").unwrap();
            case.gpferry(&["run"]).expect(3).says("42501");
            case.target.batch_execute("GRANT TRUNCATE ON t TO loader").unwrap();
        }
        case.gpferry(&["run"]).expect(0);
        assert_eq!(rows(&mut case), ["(1)", "(2)"], "{name}");
    }
}

#[test]
fn columns_are_computed_and_statements_run_in_the_same_transaction() {
    let mut case = Case::new("mapping");
    case.source
        .batch_execute("CREATE TABLE t (id int, amount text, note text); INSERT INTO t VALUES (1, '12.50', 'x'), (2, NULL, 'y')")
        .unwrap();
    case.target
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, cents int, label varchar(3)); CREATE TABLE trail (step int)",
        )
        .unwrap();
    let load = |label: &str, after: &str| {
        format!(
            "{{ table: public.t, window: none, load: {{ mapping: {{ cents: \"CAST(amount AS numeric) * 100\", \
             label: \"{label}\" }}, before: [ INSERT INTO trail VALUES (1), INSERT INTO trail VALUES (2) ], \
             after: \"INSERT INTO trail {after}\" }} }}"
        )
    };
    case.inventory(&[&load("note || 'abc'", "SELECT 3")]);
    // What is too long is refused, not cut off.
    case.gpferry(&["run"]).expect(3).says("22001");
    case.inventory(&[&load("note || id", "SELECT 1 / 0")]);
    case.gpferry(&["run"]).expect(3).says("refused to run statement 1 of `load.after`");
    assert_eq!(case.count("SELECT (SELECT count(*) FROM trail) + (SELECT count(*) FROM t)"), 0);
    case.inventory(&[&load("note || id", "SELECT count(*) FROM t")]);
    case.gpferry(&["run"]).expect(0);
    assert_eq!(rows(&mut case), ["(1,1250,x1)", "(2,,y2)"]);
    assert_eq!(case.count("SELECT sum(step)::bigint FROM trail"), 5);
}

#[test]
fn identical_rows_are_skipped_and_others_are_not() {
    let mut case = case(
        "skip",
        "id int PRIMARY KEY, v text, j json",
        "INSERT INTO t VALUES (1, NULL, '{\"a\": 1}'), (2, 'b', NULL), (3, 'c', NULL)",
        "INSERT INTO t VALUES (1, NULL, '{\"a\": 1}'), (2, 'other', NULL)",
        "{ on_pk_violation: skip_identical }",
    );
    case.gpferry(&["run"])
        .expect(3)
        .says("1 which is in the target as it is, 1 whose key another row in the target has")
        .says("compared by their text, having no equality: j");
    assert_eq!(case.count("SELECT count(*) FROM t"), 2);
    case.target.batch_execute("UPDATE t SET v = 'b' WHERE id = 2").unwrap();
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1 row");
    assert_eq!(case.count("SELECT count(*) FROM t"), 3);
    assert_eq!(logged(&mut case), (vec![3, 1, 0, 2, 0], "insert".into()));
}

#[test]
fn what_collides_is_put_in_quarantine_with_its_reason() {
    let mut case = Case::new("quarantine");
    case.source
        .batch_execute("CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'a'), (1, E'b\\nb'), (2, 'c'), (3, 'd'), (4, 'e')")
        .unwrap();
    case.target
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (2, 'c'), (3, 'x')")
        .unwrap();
    let table = |more: &str| {
        format!("{{ table: public.t, window: none, load: {{ on_pk_violation: quarantine{more} }} }}")
    };
    case.inventory(&[&table("")]);
    case.gpferry(&["run"]).expect(3).says("1 of 1 unit loaded, 1 row").says("kept out: 4 rows of s:");
    assert_eq!(case.count("SELECT count(*) FROM t"), 3);
    assert_eq!(logged(&mut case), (vec![5, 1, 0, 0, 4], "insert".into()));
    let mut kept = rejects(&case);
    kept.sort();
    assert_eq!(
        kept,
        [
            ",\"another row with its key is in the target\",3,d",
            ",\"its key stands more than once in the file\",1,\"b",
            ",\"its key stands more than once in the file\",1,a",
            ",\"the same row is in the target\",2,c",
            "b\"",
        ]
    );
    let history = case.gpferry(&["history", "--format", "json"]).expect(0).json();
    let one = &history["units"][0];
    let counts = ["rows_exported", "rows_loaded", "rows_rejected"].map(|key| one[key].as_u64());
    assert_eq!(counts, [Some(5), Some(1), Some(4)], "{history}");
    case.gpferry(&["history"]).expect(0).says("LOADED KEPT OUT SIZE");
    // Loaded is loaded: the next run has nothing to do, and says no more of it.
    case.gpferry(&["run"]).expect(0);
    case.target.batch_execute("DROP SCHEMA gpferry CASCADE; DELETE FROM t WHERE id = 4").unwrap();
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.inventory(&[&table(", rejects: allow")]);
    case.gpferry(&["run"]).expect(0).says("kept out (allowed): 4 rows");
}

#[test]
fn a_violation_can_lead_to_a_merge() {
    let mut case = case(
        "then_merge",
        "id int PRIMARY KEY, v text",
        "INSERT INTO t VALUES (1, 'new'), (2, 'new')",
        "INSERT INTO t VALUES (1, 'old')",
        "{ on_pk_violation: merge }",
    );
    case.gpferry(&["run"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY id");
    assert_eq!(logged(&mut case), (vec![2, 2, 1, 0, 0], "merge".into()));
}

#[test]
fn boundary_rows_of_a_closed_window_are_told_as_such() {
    let mut case = Case::new("edge");
    case.both("CREATE TABLE t (at timestamp PRIMARY KEY)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT generate_series(timestamp '2021-08-10', '2021-08-10 03:00', '1 hour')",
        )
        .unwrap();
    case.target.batch_execute("INSERT INTO t VALUES ('2021-08-10')").unwrap();
    let table = "{ table: public.t, window: { column: at, length: 4h } }";
    case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-10 04:00:00\n", &[table]);
    case.gpferry(&["run"]).expect(3).says("closed it at both ends");
}

#[test]
fn rows_that_do_not_fit_are_kept_out_up_to_the_limit() {
    let mut case = Case::new("limit");
    case.source
        .batch_execute(
            "CREATE TABLE t (id text, v text); \
             INSERT INTO t SELECT i::text, 'row ' || i FROM generate_series(1, 30000) i; \
             UPDATE t SET id = 'cell-value' WHERE id IN ('777', '20000'); UPDATE t SET v = NULL WHERE id = '29999'; \
             UPDATE t SET v = repeat('x', 30) WHERE id = '5'",
        )
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id int, v varchar(20) NOT NULL)").unwrap();
    let table = |load: &str| format!("{{ table: public.t, window: none, load: {{ {load} }} }}");
    case.inventory(&[&table("reject_limit: 3 rows")]);
    case.gpferry(&["run", "-vv"])
        .expect(3)
        .says("more rows do not fit than `reject_limit` allows (3 rows)")
        .silent_about("cell-value");
    assert_eq!((case.count("SELECT count(*) FROM t"), rejects(&case).len()), (0, 4));
    for (mode, limit) in [("insert", "4 rows"), ("replace", "0.02 %"), ("merge, match: [id]", "1 %")] {
        case.target.batch_execute("TRUNCATE t; DROP SCHEMA gpferry CASCADE").unwrap();
        std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
        case.inventory(&[&table(&format!("mode: {mode}, reject_limit: {limit}"))]);
        case.gpferry(&["run", "-vv"])
            .expect(3)
            .says("1 of 1 unit loaded, 29996 rows")
            .silent_about("cell-value");
        assert_eq!(case.count("SELECT count(*) FROM t"), 29996, "{mode}");
        assert_eq!(logged(&mut case).0, [30000, 29996, 0, 0, 4], "{mode}");
        let kept = rejects(&case);
        let fits = |line: &String, sqlstate: &str, row: &str| line.contains(sqlstate) && line.ends_with(row);
        assert!(
            kept.iter().any(|line| fits(line, "\"22P02: ", ", column id\",cell-value,row 777")),
            "{kept:?}"
        );
        assert!(
            kept.iter().any(|line| line.contains("\"23502: "))
                && kept.iter().any(|line| line.contains("\"22001: "))
        );
    }
}

#[test]
fn a_whole_table_is_moved_again_after_its_time_whatever_becomes_of_the_ledger() {
    let mut case = Case::new("every");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&["{ table: public.t, window: none, every: 1h, load: { mode: replace } }"]);
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded");
    let forget = |case: &Case| std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    forget(&case);
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    case.target
        .batch_execute("UPDATE gpferry.load_log SET loaded_at = now() - interval '90 minutes'")
        .unwrap();
    forget(&case);
    case.source.batch_execute("UPDATE t SET id = 2").unwrap();
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded");
    assert_eq!(rows(&mut case), ["(2)"]);
    assert_eq!(
        case.count("SELECT count(*) FROM gpferry.load_log WHERE unit ~ '\\^all(\\^[0-9]{14,20})?$'"),
        2
    );
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
    forget(&case);
    case.gpferry(&["run"]).expect(0).says("0 of 0 units");
}

#[test]
fn a_backend_that_is_killed_in_the_middle_leaves_nothing_of_the_unit() {
    for mode in ["update", "merge", "replace"] {
        let mut case = case(
            &format!("killed_{mode}"),
            "id int PRIMARY KEY, v text",
            "INSERT INTO t VALUES (1, 'new'), (2, 'new')",
            "INSERT INTO t VALUES (1, 'old')",
            &format!("{{ mode: {mode}, before: \"CREATE TABLE public.trail AS SELECT 1 AS step\" }}"),
        );
        let mut other = crate::support::Side::Target.connect(case.database());
        // Readers and the unit's own statements before the lock go on; its writing waits.
        let mut hold = other.transaction().unwrap();
        hold.batch_execute("LOCK TABLE t IN SHARE MODE").unwrap();
        let mut killed = 0;
        let mut run = case
            .command(&["run"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // As often as it tries: then the unit has failed, whole.
        while run.try_wait().unwrap().is_none() {
            let kill = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                 WHERE NOT l.granted AND a.datname = current_database() AND a.application_name = 'gpferry'";
            killed += case.count(kill);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(killed > 0, "{mode}: nobody waited for the table");
        crate::support::ran(run.wait_with_output().unwrap()).expect(3).says("1 failed");
        hold.commit().unwrap();
        assert_eq!(rows(&mut case), ["(1,old)"], "{mode}");
        assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log"), 0, "{mode}");
        assert_eq!(case.count("SELECT count(*) FROM pg_class WHERE relname = 'trail'"), 0, "{mode}");
        case.gpferry(&["run"]).expect(0);
        assert_eq!(rows(&mut case)[0], "(1,new)", "{mode}");
    }
}

#[test]
fn a_million_staged_rows_are_joined_without_a_loop_over_them() {
    use gpferry::inventory::{Duplicates, LoadMode, LoadRule, OnPkViolation};
    use gpferry::names::TableName;
    use gpferry::target::modes::Way;
    use gpferry::target::{Clash, Facts, Kind, Shape, ShapeColumn, Unique};
    let mut case = Case::new("joins");
    case.target
        .batch_execute(
            "CREATE TABLE t (a int PRIMARY KEY, b text, c inet, d timestamp); INSERT INTO t \
             SELECT i, 'b' || i, '10.0.0.0'::inet + i, now() FROM generate_series(1, 1000000) i; ANALYZE t",
        )
        .unwrap();
    let column = |name: &str, type_name: &str, not_null| ShapeColumn {
        name: name.into(),
        type_name: type_name.into(),
        base_type: type_name.into(),
        not_null,
        generated: false,
        numbered: false,
    };
    let shape = Shape {
        columns: vec![
            column("a", "integer", true),
            column("b", "text", false),
            column("c", "inet", false),
            column("d", "timestamp without time zone", false),
        ],
        uniques: vec![Unique {
            name: "t_pkey".into(),
            primary: true,
            columns: vec!["a".into()],
            nulls_alike: false,
        }],
        lockable: true,
        ..Shape::default()
    };
    let facts = Facts::of("PostgreSQL".into(), 150_000);
    let table = TableName::new("public", "t").unwrap();
    let file: Vec<String> = ["a", "b", "c", "d"].map(String::from).into();
    let mut session = crate::support::Side::Target.connect(case.database());
    for key in [&["a"][..], &["b"], &["c"], &["d", "b", "c"]] {
        let rule = LoadRule {
            mode: LoadMode::Merge,
            match_columns: key.iter().map(ToString::to_string).collect(),
            duplicates: Duplicates::LastBy("a".into()),
            on_pk_violation: OnPkViolation::Quarantine,
            ..LoadRule::default()
        };
        let way = Way::new(&facts, &table, &shape, &rule, &file).unwrap();
        let mut transaction = session.transaction().unwrap();
        for sql in way.make_stage() {
            transaction.batch_execute(&sql).unwrap();
        }
        transaction.batch_execute("INSERT INTO gpferry_stage SELECT * FROM t").unwrap();
        let mut explained = vec![way.count_matched(), way.insert_rest()];
        explained.extend(way.update());
        transaction.batch_execute(&way.pick_last("a")).unwrap();
        explained.extend(way.count_latest("a"));
        let clash = Clash::new(&way, &shape.uniques[0]).unwrap();
        let find = clash.find();
        transaction.batch_execute(&find[0]).unwrap();
        explained.push(find[1].clone());
        explained.extend([clash.count(Kind::Twice), clash.leave_out()[0].clone()]);
        // Under another name, since it is there by then.
        let [remember, analyze] = clash.remember();
        explained.push(remember.replace("gpferry_fresh ON", "gpferry_then ON"));
        transaction.batch_execute("UPDATE gpferry_stage SET a = a + 2000000").unwrap();
        transaction.batch_execute(&format!("{remember}; {analyze}")).unwrap();
        explained.push(clash.pull_back()[0].clone());
        for sql in explained {
            let plan = transaction.query(&format!("EXPLAIN {sql}"), &[]).unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
            let plan = plan.join("\n");
            // A loop over the keys that collide, of which there are few, is none over the staged rows.
            let few = sql.contains("gpferry_clash") && plan.contains("Index");
            assert!(!plan.contains("Nested Loop") || few, "{sql}\n{plan}");
        }
        transaction.rollback().unwrap();
    }
}
