//! Tables that are not plain, and names that are not: every way of loading them, and what collides there.

use super::{case, logged, rejects, rows};
use crate::greenplum;
use crate::support::{Case, Ran};

/// A table that the target has in another form than the source: `source` and `target` make and fill them.
fn differing(name: &str, source: &str, target: &str, load: &str) -> Case {
    let mut case = Case::new(name);
    case.source.batch_execute(source).unwrap();
    case.target.batch_execute(target).unwrap();
    case.inventory(&[&format!("{{ table: public.t, window: none, load: {load} }}")]);
    case
}

fn again(case: &mut Case, load: &str) -> Ran {
    case.target.batch_execute("DROP SCHEMA IF EXISTS gpferry CASCADE").unwrap();
    let _ = std::fs::remove_file(case.path("inventory.ledger.sqlite"));
    case.inventory(&[&format!("{{ table: public.t, window: none, load: {load} }}")]);
    case.gpferry(&["run"])
}

fn reject_file(case: &Case) -> std::path::PathBuf {
    case.mount().join(format!("file2GP/rejects/s/{}^public^t^all.csv.gz", case.database()))
}

#[test]
fn a_deferred_unique_constraint_is_the_fault_of_its_unit_alone() {
    if greenplum::leaves_out("deferred constraints", "it has none") {
        return;
    }
    let mut case = Case::new("deferred");
    case.source
        .batch_execute(
            "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, 'new' FROM generate_series(1, 5) i; \
             CREATE TABLE fine (id int); INSERT INTO fine VALUES (1)",
        )
        .unwrap();
    case.target
        .batch_execute(
            "CREATE TABLE t (id int, v text, CONSTRAINT late UNIQUE (id) DEFERRABLE INITIALLY DEFERRED); \
             INSERT INTO t VALUES (3, 'old'); CREATE TABLE fine (id int)",
        )
        .unwrap();
    let tables = |load: &str| {
        [
            format!("{{ table: public.t, window: none, load: {load} }}"),
            "{ table: public.fine, window: none }".into(),
        ]
    };
    case.inventory(&tables("{}").each_ref().map(String::as_str));
    case.gpferry(&["run"])
        .expect(3)
        .says("1 of 5 rows collides with the unique constraint \"late\"")
        .says("1 of 2 units loaded");
    assert_eq!((case.count("SELECT count(*) FROM t"), case.count("SELECT count(*) FROM fine")), (1, 1));
    case.inventory(&tables("{ on_pk_violation: quarantine }").each_ref().map(String::as_str));
    case.gpferry(&["run"]).expect(3).says("1 row kept out");
    assert_eq!(rows(&mut case), ["(1,new)", "(2,new)", "(3,old)", "(4,new)", "(5,new)"]);
}

#[test]
fn a_row_and_what_it_refers_to_come_together_and_one_without_fails_alone() {
    if greenplum::leaves_out("deferred constraints", "it has none") {
        return;
    }
    let mut case = Case::new("refers");
    case.source
        .batch_execute(
            "CREATE TABLE a (id int); INSERT INTO a VALUES (1); CREATE TABLE b (id int); INSERT INTO b VALUES (1)",
        )
        .unwrap();
    let refers = "REFERENCES b DEFERRABLE INITIALLY DEFERRED";
    case.target
        .batch_execute(&format!(
            "CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE a (id int {refers}); CREATE TABLE c (id int)"
        ))
        .unwrap();
    case.source.batch_execute("CREATE TABLE c (id int); INSERT INTO c VALUES (1)").unwrap();
    let tables = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("{{ table: public.{name}, window: none }}")).collect()
    };
    let inventory = |case: &Case, names: &[&str]| {
        case.inventory(&tables(names).iter().map(String::as_str).collect::<Vec<_>>());
    };
    inventory(&case, &["a", "c"]);
    case.gpferry(&["run"]).expect(3).says("SQLSTATE 23503").says("1 of 2 units loaded");
    assert_eq!(case.count("SELECT count(*) FROM c"), 1);
    inventory(&case, &["a", "b", "c"]);
    let (mut seen, mut code) = (0, 3);
    // In one group or in two, whichever session is free.
    while seen < 3 && code != 0 {
        (code, seen) = (case.gpferry(&["run"]).code, seen + 1);
    }
    assert_eq!((code, case.count("SELECT count(*) FROM a")), (0, 1));
}

#[test]
fn columns_that_the_server_numbers_keep_the_source_s_numbers() {
    if greenplum::leaves_out("identities", "version 7 has them") {
        return;
    }
    let source = "CREATE TABLE t (id int, k text, v text); INSERT INTO t VALUES (71, 'a', 'new'), (72, 'b', 'new'), (73, 'c', 'new')";
    let target = "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k text UNIQUE, v text); \
                  INSERT INTO t OVERRIDING SYSTEM VALUE VALUES (72, 'b', 'old'), (99, 'c', 'old')";
    for (name, load, code, expected) in [
        ("numbered_merge", "{ mode: merge, match: [k] }", 0, ["(71,a,new)", "(72,b,new)", "(73,c,new)"]),
        ("numbered_sorted", "{ on_pk_violation: quarantine }", 3, ["(71,a,new)", "(72,b,old)", "(99,c,old)"]),
        (
            "numbered_mapped",
            "{ mode: replace, mapping: { v: \"upper(v)\" } }",
            0,
            ["(71,a,NEW)", "(72,b,NEW)", "(73,c,NEW)"],
        ),
    ] {
        let mut case = differing(name, source, target, load);
        case.gpferry(&["run"]).expect(code);
        assert_eq!(rows(&mut case), expected, "{name}");
    }
}

#[test]
fn nulls_that_collide_are_found() {
    if greenplum::leaves_out("NULLS NOT DISTINCT", "PostgreSQL 15 has it") {
        return;
    }
    let source = "CREATE TABLE t (a int, b text, v text); INSERT INTO t VALUES (1, NULL, 'x'), (NULL, NULL, 'same'), \
                  (2, NULL, 'y'), (3, 'b', 'z'), (4, NULL, 'p'), (4, NULL, 'q')";
    let target = "CREATE TABLE t (a int, b text, v text, CONSTRAINT alike UNIQUE NULLS NOT DISTINCT (a, b)); \
                  INSERT INTO t VALUES (1, NULL, 'other'), (NULL, NULL, 'same')";
    let mut case = differing("nulls_alike", source, target, "{}");
    case.gpferry(&["run", "--show-keys"])
        .expect(3)
        .says(
            "4 of 6 rows collide with the unique constraint \"alike\": 2 whose keys stand twice in the file",
        )
        .says("(a, b)=(1, NULL)");
    again(&mut case, "{ on_pk_violation: quarantine }").expect(3).says("4 rows kept out");
    assert_eq!(rows(&mut case), ["(,,same)", "(1,,other)", "(2,,y)", "(3,b,z)"]);
}

#[test]
fn an_index_that_keys_cannot_be_sorted_by_is_named_as_such() {
    if greenplum::leaves_out("unique indexes over expressions", "they need the distribution key") {
        return;
    }
    for (name, index) in [("by_expression", "(lower(v))"), ("by_part", "(v) WHERE id > 0")] {
        let mut case = case(
            name,
            "id int PRIMARY KEY, v text",
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
            &format!("CREATE UNIQUE INDEX odd ON t {index}; INSERT INTO t VALUES (9, 'b')"),
            "{}",
        );
        for policy in ["rollback", "quarantine", "skip_identical"] {
            again(&mut case, &format!("{{ on_pk_violation: {policy} }}"))
                .expect(3)
                .says("gpferry cannot sort rows by it")
                .says("\"odd\"")
                .silent_about("none of them collides any more");
            assert_eq!(rows(&mut case), ["(9,b)"], "{name} {policy}");
        }
    }
}

#[test]
fn what_is_equal_and_not_the_same_is_not_skipped() {
    for (name, column, new, old) in [
        ("same_numeric", "numeric", "1.00", "1.0"),
        ("same_interval", "interval", "1 mon", "30 days"),
        ("same_float", "double precision", "-0", "0"),
        ("same_char", "text", "a ", "a"),
    ] {
        let mut case = case(
            name,
            &format!("id int PRIMARY KEY, v {column}"),
            &format!("INSERT INTO t VALUES (1, '{new}'), (2, '{new}')"),
            &format!("INSERT INTO t VALUES (1, '{old}')"),
            "{ on_pk_violation: skip_identical }",
        );
        case.gpferry(&["run"])
            .expect(3)
            .says("1 of 2 rows collides")
            .says("1 whose key another row in the target has")
            .silent_about("having no equality");
        case.target.batch_execute(&format!("UPDATE t SET v = '{new}'")).unwrap();
        case.gpferry(&["run"]).expect(0);
        assert_eq!(logged(&mut case).0, [2, 1, 0, 1, 0], "{name}");
    }
}

#[test]
fn rows_that_cannot_be_computed_are_kept_out_too() {
    let source = "CREATE TABLE t (id int, amount text, note text); \
                  INSERT INTO t SELECT i, CASE WHEN i IN (1, 700, 2000) THEN 'cell-value' ELSE i || '.5' END, \
                  CASE i WHEN 3 THEN 'much too long' WHEN 4 THEN NULL WHEN 5 THEN E'a\\nb' ELSE 'n' || i END \
                  FROM generate_series(1, 2000) i ORDER BY i";
    let target = "CREATE TABLE t (id int PRIMARY KEY, cents int, note varchar(5) NOT NULL)";
    let load = |mode: &str, limit: u32| {
        format!(
            "{{ mode: {mode}, mapping: {{ cents: \"CAST(amount AS numeric) * 100\" }}, reject_limit: {limit} rows }}"
        )
    };
    let mut case = differing("computed", source, target, &load("insert", 4));
    case.gpferry(&["run", "-vv"])
        .expect(3)
        .says("more rows do not fit than `reject_limit` allows (4 rows)")
        .silent_about("cell-value");
    assert_eq!((case.count("SELECT count(*) FROM t"), rejects(&case).len()), (0, 5));
    for mode in ["insert", "merge", "replace"] {
        case.target.batch_execute("TRUNCATE t").unwrap();
        again(&mut case, &load(mode, 5)).expect(3).says("1 of 1 unit loaded, 1995 rows");
        assert_eq!(logged(&mut case).0, [2000, 1995, 0, 0, 5], "{mode}");
        assert_eq!(case.count("SELECT count(*) FROM t WHERE cents = id * 100 + 50"), 1995, "{mode}");
        let kept = rejects(&case);
        for start in ["1,", "3,", "4,", "701,", "2001,"] {
            // Row 5 has two lines.
            assert!(kept.iter().any(|line| line.starts_with(start)), "{mode} {start}: {kept:?}");
        }
    }
}

#[test]
fn rejects_of_an_earlier_try_go_once_all_rows_are_in() {
    let source = "CREATE TABLE t (id text); INSERT INTO t VALUES ('1'), ('x'), ('y')";
    let mut case =
        differing("stale", source, "CREATE TABLE t (id int PRIMARY KEY)", "{ reject_limit: 1 rows }");
    case.gpferry(&["run"]).expect(3).says("rolled back");
    assert_eq!(rejects(&case).len(), 2);
    case.source.batch_execute("UPDATE t SET id = length(id) + ascii(id)").unwrap();
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 3 rows");
    assert!(!reject_file(&case).exists());
}

#[test]
fn rows_that_do_not_fit_and_rows_that_collide_are_counted_together() {
    let source = "CREATE TABLE t (id text, v text); INSERT INTO t VALUES ('bad', 'first'); \
                  INSERT INTO t SELECT i, E'a\\nb' FROM generate_series(1, 400) i; \
                  INSERT INTO t VALUES ('7', 'again'), ('bad', 'last')";
    let target =
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (9, 'other'), (10, E'a\\nb')";
    let load = "on_pk_violation: quarantine, reject_limit";
    let mut case = differing("both", source, target, &format!("{{ {load}: 1 rows }}"));
    case.gpferry(&["run"]).expect(3).says("0 of 1 unit");
    assert_eq!(case.count("SELECT count(*) FROM t"), 2);
    again(&mut case, &format!("{{ {load}: 2 rows }}")).expect(3).says("1 of 1 unit loaded, 397 rows");
    assert_eq!(logged(&mut case).0, [403, 397, 0, 0, 6]);
    let kept = rejects(&case);
    for start in ["1,\"22P02", "803,\"22P02", ",\"another row", ",\"the same row", ",\"its key stands"] {
        assert!(kept.iter().any(|line| line.starts_with(start)), "{start}: {kept:?}");
    }
}

#[test]
fn the_first_keys_are_the_first_by_value() {
    let mut case = Case::new("first_keys");
    case.both("CREATE TABLE t (id int, v text)");
    case.source
        .batch_execute("INSERT INTO t SELECT i, 'x' FROM generate_series(8, 12) i, generate_series(1, 2)")
        .unwrap();
    case.inventory(&["{ table: public.t, window: none, load: { mode: merge, match: [id] } }"]);
    case.gpferry(&["run", "--show-keys"]).expect(3).says("(id)=(8), (id)=(9), (id)=(10)");
}

#[test]
fn a_view_is_merged_into() {
    let source = "CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'new'), (2, 'new')";
    let target = "CREATE TABLE beneath (id int, v text); INSERT INTO beneath VALUES (1, 'old'); \
                  CREATE VIEW t AS SELECT * FROM beneath";
    let mut case = differing("view", source, target, "{ mode: merge, match: [id] }");
    case.gpferry(&["run"]).expect(0);
    assert_eq!(rows(&mut case), ["(1,new)", "(2,new)"]);
}

#[test]
fn a_domain_is_a_key_as_its_type_is() {
    let columns = "k small, w word, v text";
    let mut case = Case::new("domain");
    case.both("CREATE DOMAIN small AS int CHECK (VALUE < 100); CREATE DOMAIN word AS varchar(3)");
    case.both(&format!("CREATE TABLE t ({columns})"));
    case.source
        .batch_execute("INSERT INTO t VALUES (1, 'a', 'new'), (NULL, NULL, 'new'), (NULL, 'b', 'new')")
        .unwrap();
    case.target.batch_execute("INSERT INTO t VALUES (1, 'a', 'old'), (NULL, NULL, 'old')").unwrap();
    case.inventory(&["{ table: public.t, window: none, load: { mode: merge, match: [k, w] } }"]);
    case.gpferry(&["run"]).expect(0);
    assert_eq!(rows(&mut case), ["(,,new)", "(,b,new)", "(1,a,new)"]);
}

#[test]
fn status_and_a_rebuilt_ledger_know_of_rows_that_were_kept_out() {
    let mut case = case(
        "kept",
        "id int PRIMARY KEY, v text",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "INSERT INTO t VALUES (1, 'x'), (2, 'b')",
        "{ on_pk_violation: quarantine }",
    );
    case.gpferry(&["run"]).expect(3);
    for _ in 0..2 {
        case.gpferry(&["status"]).expect(0).says("ROWS KEPT OUT").says("public.t - - 1 1 2 1");
        let status = case.gpferry(&["status", "--format", "json"]).expect(0).json();
        assert_eq!(status["tables"][0]["rejected"], 2, "{status}");
        let history = case.gpferry(&["history", "--format", "json"]).expect(0).json();
        assert_eq!(history["units"][0]["rows_rejected"], 2, "{history}");
        case.gpferry(&["rebuild-ledger"]).expect(0);
    }
    assert_eq!(rows(&mut case).len(), 3);
}

/// Each name is a table's, a column's and a constraint's.
#[test]
fn names_of_every_kind_are_loaded_in_every_way() {
    let long = "n".repeat(63);
    let names =
        ["Two Words", "q\"u'o", "select", "größe", "100%", "a$b", "gpferry_stage", "gpferry_clash", &long];
    let ways = [
        "{ mode: update }",
        "{ mode: merge }",
        "{ mode: replace }",
        "{ on_pk_violation: quarantine, rejects: allow }",
        "{ on_pk_violation: skip_identical }",
        "{ on_pk_violation: merge, duplicates: last by v }",
    ];
    for (n, way) in ways.iter().enumerate() {
        let mut case = Case::new(&format!("names{n}"));
        let mut tables = Vec::new();
        for name in names {
            let quoted = format!("\"{}\"", name.replace('"', "\"\""));
            case.both(&format!("CREATE TABLE {quoted} ({quoted} int PRIMARY KEY, v text)"));
            case.source.batch_execute(&format!("INSERT INTO {quoted} VALUES (1, 'same'), (2, 'b')")).unwrap();
            case.target.batch_execute(&format!("INSERT INTO {quoted} VALUES (1, 'same')")).unwrap();
            let text = serde_json::Value::from(format!("public.{quoted}"));
            tables.push(format!("{{ table: {text}, window: none, load: {way} }}"));
        }
        case.inventory(&tables.iter().map(String::as_str).collect::<Vec<_>>());
        case.gpferry(&["run"]).expect(0).says(&format!("{0} of {0} units loaded", names.len()));
        for name in names {
            let quoted = format!("\"{}\"", name.replace('"', "\"\""));
            let there = if way.contains("update") { 1 } else { 2 };
            assert_eq!(case.count(&format!("SELECT count(*) FROM {quoted}")), there, "{name} {way}");
        }
    }
}

#[test]
fn statements_are_run_whole_and_one_that_fails_takes_all_back() {
    let mut case = case(
        "statements",
        "id int PRIMARY KEY, v text",
        "INSERT INTO t VALUES (1, 'a;b'), (2, 'c')",
        "CREATE TABLE trail (step text)",
        "{}",
    );
    let load = |after: &str| {
        format!(
            "{{ before: [ \"INSERT INTO trail VALUES ('a;b')\", \"INSERT INTO trail VALUES ('it''s; -- no');\" ], after: {after} }}"
        )
    };
    again(&mut case, &load("[ INSERT INTO trail SELECT v FROM t, INSERT INTO nowhere VALUES (1) ]"))
        .expect(3)
        .says("refused to run statement 2 of `load.after`");
    assert_eq!(case.count("SELECT (SELECT count(*) FROM trail) + (SELECT count(*) FROM t)"), 0);
    // Two at once are refused, not half run.
    again(&mut case, &load("\"DELETE FROM trail; DELETE FROM t\"")).expect(3);
    assert_eq!(case.count("SELECT (SELECT count(*) FROM trail) + (SELECT count(*) FROM t)"), 0);
    again(&mut case, &load("INSERT INTO trail SELECT v FROM t")).expect(0);
    assert_eq!(case.count("SELECT count(*) FROM trail WHERE step LIKE '%;%'"), 3);
    assert_eq!(case.count("SELECT count(*) FROM trail"), 4);
}

#[test]
fn a_partitioned_table_is_loaded_in_every_way() {
    if greenplum::leaves_out("declarative partitions", "version 7 has them") {
        return;
    }
    let source =
        "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, 'new' FROM generate_series(1, 20) i";
    let target = "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
                  CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10); \
                  CREATE TABLE high PARTITION OF t FOR VALUES FROM (10) TO (100); \
                  INSERT INTO t VALUES (5, 'new'), (15, 'old')";
    for (name, load, code, new) in [
        ("parts_merge", "{ mode: merge }", 0, 20),
        ("parts_sort", "{ on_pk_violation: quarantine }", 3, 19),
        ("parts_replace", "{ mode: replace, truncate: true }", 0, 20),
    ] {
        let mut case = differing(name, source, target, load);
        case.gpferry(&["run"]).expect(code);
        assert_eq!(case.count("SELECT count(*) FROM t"), 20, "{name}");
        assert_eq!(case.count("SELECT count(*) FROM t WHERE v = 'new'"), new, "{name}");
    }
    let case = differing("parts_tell", source, target, "{}");
    case.gpferry(&["run"]).expect(3).says("2 of 20 rows collide").says("1 which is in the target as it is");
}

#[test]
fn a_row_that_a_trigger_swallows_is_noticed() {
    let mut case = case(
        "trigger",
        "id int PRIMARY KEY, v text",
        "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 9) i",
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 5 THEN RETURN NULL; END IF; \
         RETURN NEW; END $$; CREATE TRIGGER swallow BEFORE INSERT ON t FOR EACH ROW EXECUTE PROCEDURE swallow()",
        "{}",
    );
    for load in ["{}", "{ mode: merge }", "{ mode: replace }", "{ mapping: { v: \"upper(v)\" } }"] {
        again(&mut case, load).expect(3).says("0 of 1 unit");
        assert_eq!(case.count("SELECT count(*) FROM t"), 0, "{load}");
    }
}

#[test]
fn preflight_says_who_could_not_be_told_which_keys_collide() {
    if greenplum::loads_as_superuser("who may not SELECT") {
        return;
    }
    let mut case = case("warned", "id int PRIMARY KEY", "INSERT INTO t VALUES (1)", "", "{}");
    case.gpferry(&["preflight"]).silent_about("should keys collide");
    case.target.batch_execute("REVOKE ALL ON t FROM loader; GRANT INSERT ON t TO loader").unwrap();
    case.gpferry(&["preflight"])
        .says("should keys collide")
        .says("GRANT SELECT ON \"public\".\"t\" TO \"loader\"");
}

#[test]
fn preflight_asks_for_what_an_update_needs_that_moves_rows() {
    if greenplum::loads_as_superuser("who may not INSERT and DELETE") {
        return;
    }
    let (distributed, moved) = if greenplum::is_target() {
        ("CREATE TABLE t (id int, v int) DISTRIBUTED BY (v)", "v")
    } else {
        ("CREATE TABLE t (id int, v int GENERATED ALWAYS AS IDENTITY, w int)", "v")
    };
    let source = "CREATE TABLE t (id int, v int, w int); INSERT INTO t VALUES (1, 5, 6)";
    let target = format!(
        "{distributed}; {} REVOKE ALL ON t FROM loader; GRANT SELECT, UPDATE ON t TO loader",
        if greenplum::is_target() { "ALTER TABLE t ADD w int;" } else { "" }
    );
    let mut case = differing("moves", source, &target, "{ mode: update, match: [id] }");
    let asked = "lacks INSERT, DELETE on it";
    case.gpferry(&["preflight"]).says(asked);
    case.inventory(&[&format!(
        "{{ table: public.t, window: none, load: {{ mode: update, match: [{moved}] }} }}"
    )]);
    case.gpferry(&["preflight"]).silent_about(asked);
    case.inventory(&[
        "{ table: public.t, window: none, load: { mode: update, match: [id], update_columns: [w] } }",
    ]);
    case.gpferry(&["preflight"]).silent_about(asked);
    case.inventory(&["{ table: public.t, window: none, load: { mode: update, match: [id] } }"]);
    case.target.batch_execute("GRANT INSERT, DELETE ON t TO loader").unwrap();
    case.gpferry(&["preflight"]).silent_about("target.rights");
    case.gpferry(&["run"]).expect(0);
}
