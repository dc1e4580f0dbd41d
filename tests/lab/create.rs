//! Tables that the target lacks are made after the source's catalog, and those that are there are left alone.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ends::wait_for;
use crate::greenplum;
use crate::support::{Case, Ran, Side, ran};

/// Columns of every kind that a server of ours has, as they are declared and as `format_type` writes them.
const COLUMNS: &[&str] = &[
    "a smallint",
    "b numeric(12,3)",
    "c character varying(7)[]",
    "d character(3)",
    "e timestamp(2) without time zone",
    "f timestamp with time zone",
    "g interval day to second(3)",
    "h bit varying(5)",
    "i bytea",
    "j jsonb",
    "k uuid",
    "l inet",
    "m double precision[]",
    "n \"char\"",
    "o money",
    "p int4range",
    "q tsvector",
    "r point",
    "s xml",
    "t name",
    "u bpchar",
    "v numeric(3,-2)",
];

/// What a catalog holds of a table's columns, and of its key.
const CATALOG: &str = "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated, \
     co.collname, pg_get_expr(d.adbin, d.adrelid), \
     (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'p') \
     FROM pg_attribute a LEFT JOIN pg_collation co ON co.oid = a.attcollation \
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     WHERE a.attrelid = 'TABLE'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

fn catalog(table: &str) -> String {
    let catalog = CATALOG.replace("TABLE", &table.replace('\'', "''"));
    if !greenplum::is_target() {
        return catalog;
    }
    // Version 6 does not compute columns: they are ordinary ones there. Its `name` has no collation.
    let catalog = catalog.replace("a.attgenerated", "''").replace("pg_get_expr(d.adbin, d.adrelid)", "''");
    catalog.replace("co.collname", "CASE WHEN a.atttypid <> 'name'::regtype THEN co.collname END")
}

fn exists(case: &mut Case, table: &str) -> bool {
    case.count(&format!("SELECT count(*) FROM pg_class WHERE oid = to_regclass('{table}')")) == 1
}

#[test]
fn a_table_of_any_types_is_made_as_the_source_has_it_and_then_filled() {
    let mut case = Case::new("create");
    let older = greenplum::leaves_out("numeric(3,-2)", "it knows no scale below 0");
    let columns: Vec<_> =
        COLUMNS.iter().copied().filter(|column| !(older && column.contains(",-"))).collect();
    let columns = columns.join(", ");
    // The key's order is not the columns', its columns are not the first, one in the middle was dropped.
    case.source
        .batch_execute(&format!(
            "CREATE TABLE t (gone int, {columns}, id int NOT NULL, dropped text, \"Part\" text COLLATE \"C\", \
             twice bigint GENERATED ALWAYS AS (id * 2) STORED, note text NOT NULL, \
             CONSTRAINT \"odd name\" PRIMARY KEY (\"Part\", id)); \
             ALTER TABLE t DROP COLUMN gone; ALTER TABLE t DROP COLUMN dropped; \
             INSERT INTO t (id, \"Part\", note, a, b, c, e, j, o) SELECT i, 'p' || i % 7, '', i, i / 3.0, \
             ARRAY['x', NULL], now(), '{{\"a\": 1}}', 12.5 FROM generate_series(1, 500) i"
        ))
        .unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run"])
        .expect(3)
        .says("not in the target database")
        .says("--create-tables")
        .says("0/1 tables");
    case.gpferry(&["run", "--create-tables"])
        .expect(0)
        .says("1 of 1 unit loaded")
        .says("1/1 tables, 500 rows, 1 created, 0 failed");
    case.assert_same("SELECT * FROM t ORDER BY id");
    case.assert_same(&catalog("t"));
    let key = "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND conname = 't_pkey'";
    assert_eq!(case.count(key), 1, "the key's name is the target's own");
    let owner = "SELECT count(*) FROM pg_tables WHERE tablename = 't' AND tableowner = 'loader'";
    assert_eq!(case.count(owner), 1);
    case.gpferry(&["run", "--create-tables"]).expect(0).says("0/0 tables").says("0 created");
}

#[test]
fn names_of_every_kind_and_missing_schemas_are_no_hindrance() {
    let mut case = Case::new("create_names");
    let mut entries = Vec::new();
    let names = [
        ("New Schema", "select"),
        ("New Schema", "we^ird'; drop table x; --"),
        ("a\"b", "c\"\"d"),
        ("Ünï", "表"),
        ("public", "Capitals And Blanks"),
        ("public", "$$ ) to program 'x'"),
    ];
    for (schema, table) in names {
        let quoted = [schema, table].map(|name| format!("\"{}\"", name.replace('"', "\"\""))).join(".");
        let schema = quoted.split_once("\".\"").unwrap().0.to_owned() + "\"";
        case.source
            .batch_execute(&format!(
                "CREATE SCHEMA IF NOT EXISTS {schema}; GRANT USAGE ON SCHEMA {schema} TO gpadmin; \
                 CREATE TABLE {quoted} (\"from\" int, \"a \"\"q\"\" '\" text, \"$x$\" text, PRIMARY KEY (\"a \"\"q\"\" '\", \"from\")); \
                 INSERT INTO {quoted} VALUES (1, 'k', 'v')"
            ))
            .unwrap();
        entries.push((quoted.clone(), format!("{{ table: {}, window: none }}", serde_json::json!(quoted))));
    }
    case.inventory(&entries.iter().map(|(_, entry)| entry.as_str()).collect::<Vec<_>>());
    case.gpferry(&["run", "--create-tables"]).expect(0).says("6/6 tables").says("6 created");
    for (table, _) in entries {
        case.assert_same(&format!("SELECT * FROM {table}"));
        case.assert_same(&catalog(&table));
    }
}

#[test]
fn tables_only_moves_nothing_and_needs_nothing_due() {
    let mut case = Case::new("tables_only");
    case.source
        .batch_execute(
            "CREATE TABLE tiny1 (id int PRIMARY KEY); CREATE TABLE tiny2 (id int PRIMARY KEY); \
             CREATE TABLE there (id int); CREATE TABLE later (at timestamp); INSERT INTO tiny1 VALUES (1)",
        )
        .unwrap();
    case.target.batch_execute("CREATE TABLE there (id int, mine text DEFAULT 'x')").unwrap();
    case.inventory(&[
        "{ tables: 'public.tiny*', window: none }",
        "{ table: public.there, window: none }",
        // The job has no `from`, so nothing of it is ever due.
        "{ table: public.later, target: other.name, window: { column: at, length: 1d } }",
    ]);
    case.gpferry(&["run", "--tables-only"]).expect(0).says("4/4 tables, 3 created, 0 failed");
    assert_eq!(case.count("SELECT count(*) FROM tiny1"), 0);
    assert!(exists(&mut case, "other.name"));
    assert_eq!(case.count("SELECT count(mine) FROM there"), 0);
    assert!(!exists(&mut case, "gpferry.load_log"), "no unit was touched");
    assert!(case.files().is_empty() && !case.path("inventory.ledger.sqlite").exists());
    let again = case.gpferry(&["run", "--tables-only", "--format", "json"]).expect(0).json();
    assert_eq!(again["totals"]["created"], 0, "{again}");
    assert_eq!(again["totals"]["tables_done"], 4, "{again}");
    case.gpferry(&["run", "--tables-only", "--table", "public.tiny*"])
        .expect(0)
        .says("2/2 tables, 0 created");
    case.gpferry(&["run", "--tables-only", "--until", "2021-01-01"]).expect(2);
    case.gpferry(&["export", "--create-tables"]).expect(2);
}

#[test]
fn a_table_that_is_there_is_never_changed() {
    let mut case = Case::new("create_there");
    case.source
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, extra text); INSERT INTO t VALUES (1)")
        .unwrap();
    case.target.batch_execute("CREATE TABLE t (id bigint)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run", "--create-tables"]).expect(3).says("only in the source: extra").says("0 created");
    let columns =
        "SELECT count(*) FROM information_schema.columns WHERE table_name = 't' AND data_type = 'bigint'";
    assert_eq!(case.count(columns), 1);
    assert_eq!(case.count("SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass"), 0);
}

#[test]
fn whoever_may_not_create_is_told_what_to_grant_and_the_others_go_on() {
    let mut case = Case::new("create_grant");
    case.source
        .batch_execute(
            "CREATE TABLE t (id int); CREATE SCHEMA closed; CREATE TABLE closed.t (id int); \
             CREATE SCHEMA missing; CREATE TABLE missing.t (id int); GRANT USAGE ON SCHEMA closed, missing TO gpadmin",
        )
        .unwrap();
    let name = case.database().to_owned();
    case.target
        .batch_execute(&format!(
            "CREATE SCHEMA closed; CREATE SCHEMA gpferry AUTHORIZATION loader; REVOKE CREATE ON DATABASE {name} FROM loader"
        ))
        .unwrap();
    let entries =
        ["closed.t", "missing.t", "public.t"].map(|table| format!("{{ table: {table}, window: none }}"));
    case.inventory(&entries.each_ref().map(String::as_str));
    case.gpferry(&["run", "--create-tables"])
        .expect(3)
        .says("the target refused to create closed.t: permission denied for schema closed (SQLSTATE 42501)")
        .says("GRANT USAGE, CREATE ON SCHEMA \"closed\" TO \"loader\"")
        .says(&format!("the target refused to create missing.t: permission denied for database {name}"))
        .says("CREATE SCHEMA \"missing\" AUTHORIZATION \"loader\"")
        .says("1 of 3 units loaded")
        .says("1/3 tables, 0 rows, 1 created, 2 failed");
    assert!(case.files().len() == 1, "{:?}", case.files());
    case.gpferry(&["run", "--tables-only"])
        .expect(3)
        .says("NOT CREATED: closed.t")
        .says("1/3 tables, 0 created, 2 failed");
    case.target.batch_execute("GRANT CREATE, USAGE ON SCHEMA closed TO loader").unwrap();
    case.target.batch_execute("CREATE SCHEMA missing AUTHORIZATION loader").unwrap();
    case.gpferry(&["run", "--create-tables"]).expect(0).says("2/2 tables").says("2 created, 0 failed");
}

#[test]
fn a_type_that_the_target_does_not_know_fails_its_table_alone() {
    let mut case = Case::new("create_types");
    case.source
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE SCHEMA x; CREATE DOMAIN x.d AS int; GRANT USAGE ON SCHEMA x TO gpadmin; \
             CREATE TABLE m (id int, v mood[]); CREATE TABLE d (id x.d); CREATE TABLE fine (id int); \
             INSERT INTO m VALUES (1, '{a,b}'); INSERT INTO d VALUES (1); INSERT INTO fine VALUES (1)",
        )
        .unwrap();
    let entries = ["m", "d", "fine"].map(|table| format!("{{ table: public.{table}, window: none }}"));
    case.inventory(&entries.each_ref().map(String::as_str));
    case.gpferry(&["run", "--create-tables"])
        .expect(3)
        .says("the target refused to create public.m: type \"public.mood[]\" does not exist")
        .says("the target refused to create public.d: schema \"x\" does not exist")
        .says("CREATE TYPE, DOMAIN or EXTENSION")
        .says("1/3 tables");
    case.target
        .batch_execute("CREATE TYPE mood AS ENUM ('a', 'b'); CREATE SCHEMA x; CREATE DOMAIN x.d AS int; GRANT USAGE ON SCHEMA x TO loader")
        .unwrap();
    case.gpferry(&["run", "--create-tables"]).expect(0).says("2 created");
    case.assert_same("SELECT id, v::text FROM m");
    case.assert_same(&catalog("d"));
}

#[test]
fn what_is_left_out_is_said() {
    let mut case = Case::new("create_notes");
    case.source
        .batch_execute(
            "CREATE TABLE p (id int, at date, PRIMARY KEY (at, id)) PARTITION BY RANGE (at); \
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2021-01-01') TO ('2022-01-01'); \
             INSERT INTO p VALUES (1, '2021-08-10'); \
             CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent); \
             INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1); \
             CREATE VIEW v AS SELECT id, at FROM p; \
             CREATE COLLATION mine (provider = libc, locale = 'C'); CREATE TABLE c (x text COLLATE mine); \
             CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'; \
             CREATE TABLE g (id serial PRIMARY KEY, n int GENERATED ALWAYS AS (f(id)) STORED, \
             i int GENERATED ALWAYS AS IDENTITY, d int DEFAULT 7); INSERT INTO g DEFAULT VALUES",
        )
        .unwrap();
    let entries =
        ["p", "parent", "v", "c", "g"].map(|table| format!("{{ table: public.{table}, window: none }}"));
    case.inventory(&entries.each_ref().map(String::as_str));
    let ran = case.gpferry(&["run", "--create-tables"]).expect(0);
    ran.says("5/5 tables")
        .says("created public.p: the source partitions it by RANGE (at); created without partitions")
        .says("created public.parent: other tables inherit from it in the source, whose key does not hold")
        .says("created public.v: it is a view in the source")
        .says("created public.c: column \"x\" has collation public.mine in the source")
        .says("created public.g: column \"n\" is computed in the source");
    for table in ["p", "parent", "v", "g"] {
        case.assert_same(&format!("SELECT * FROM {table} ORDER BY id"));
    }
    assert_eq!(case.count("SELECT count(*) FROM pg_attrdef"), 2, "only the load log has defaults");
    assert_eq!(case.count("SELECT count(*) FROM pg_class WHERE relkind IN ('p', 'S')"), 0);
}

#[test]
fn a_table_dropped_behind_an_exported_file_is_made_again_or_waits_with_its_file() {
    let mut case = Case::new("create_resumed");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1), (2)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["export"]).expect(0).says("1 of 1 unit exported").says("1/1 tables, 2 rows, 0 failed");
    let file = case.only_file();
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    case.target.batch_execute("DROP TABLE t; REVOKE CREATE ON SCHEMA public FROM loader, public").unwrap();
    case.gpferry(&["run", "--create-tables"]).expect(3).says("refused to create public.t");
    case.target.batch_execute("GRANT CREATE ON SCHEMA public TO loader").unwrap();
    case.gpferry(&["run", "--create-tables"]).expect(0).says("1 of 1 unit loaded, 2 rows").says("1 created");
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before, "it was not exported again");
    case.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn two_that_create_at_once_make_one_table() {
    let mut case = Case::new("create_race");
    for n in 0..40 {
        let sql =
            format!("CREATE SCHEMA IF NOT EXISTS s{0}; CREATE TABLE s{0}.t{n} (id int PRIMARY KEY)", n / 4);
        case.source.batch_execute(&sql).unwrap();
    }
    case.inventory(&["{ tables: 's*.t*', window: none }"]);
    let spawn = || {
        let mut command = case.command(&["run", "--tables-only", "--format", "json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = [spawn(), spawn(), spawn()];
    let created: u64 = children
        .into_iter()
        .map(|child| {
            let document = end(child).expect(0).json();
            assert_eq!(document["totals"]["tables_done"], 40, "{document}");
            document["totals"]["created"].as_u64().unwrap()
        })
        .sum();
    assert_eq!(created, 40);
}

#[test]
fn a_name_that_is_taken_by_something_else_is_said() {
    let mut case = Case::new("create_taken");
    case.source.batch_execute("CREATE TABLE t (id int); CREATE TABLE fine (id int)").unwrap();
    case.target.batch_execute("CREATE SEQUENCE t").unwrap();
    case.inventory(&["{ table: public.t, window: none }", "{ table: public.fine, window: none }"]);
    case.gpferry(&["run", "--create-tables"])
        .expect(3)
        .says("42P07")
        .says("something that is no table has this name")
        .says("1/2 tables");
}

/// Starts a run that comes to wait for what another session of the target has not committed.
fn waiting_run(case: &mut Case) -> Child {
    let args = ["run", "--create-tables"];
    let child = case.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {} \
         AND datname = current_database() AND query LIKE '%CREATE TABLE%'",
        greenplum::waits_for_a_lock()
    );
    wait_for("the run waits", Duration::from_secs(30), || case.count(&waiting) > 0);
    child
}

/// What it said, within a bounded time.
fn end(mut child: Child) -> Ran {
    wait_for("it ended", Duration::from_secs(30), || child.try_wait().unwrap().is_some());
    ran(child.wait_with_output().unwrap())
}

#[test]
fn what_another_session_is_just_making_is_waited_for_and_taken_as_it_is() {
    let mut case = Case::new("create_held");
    case.source
        .batch_execute(
            "CREATE SCHEMA x; GRANT USAGE ON SCHEMA x TO gpadmin; CREATE TABLE x.t (id int PRIMARY KEY); \
             INSERT INTO x.t VALUES (1)",
        )
        .unwrap();
    case.inventory(&["{ table: x.t, window: none }"]);
    let mut other = Side::Target.connect(case.database());
    other
        .batch_execute(
            "BEGIN; CREATE SCHEMA x; GRANT ALL ON SCHEMA x TO loader; CREATE TABLE x.t (id bigint)",
        )
        .unwrap();
    let run = waiting_run(&mut case);
    other.batch_execute("COMMIT").unwrap();
    end(run).expect(0).says("1 of 1 unit loaded, 1 row").says("0 created");
    let bigint =
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'x' AND data_type = 'bigint'";
    assert_eq!(case.count(bigint), 1);
    // Only the schema, this time: the table is made in it.
    case.target.batch_execute("DROP SCHEMA x CASCADE; DROP SCHEMA gpferry CASCADE").unwrap();
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    other.batch_execute("BEGIN; CREATE SCHEMA x; GRANT ALL ON SCHEMA x TO loader").unwrap();
    let run = waiting_run(&mut case);
    other.batch_execute("COMMIT").unwrap();
    end(run).expect(0).says("1 of 1 unit loaded, 1 row").says("1 created");
    case.assert_same("SELECT * FROM x.t");
}

#[test]
fn ctrl_c_ends_a_run_that_waits_to_create() {
    let mut case = Case::new("create_stop");
    case.source.batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    let mut other = Side::Target.connect(case.database());
    other.batch_execute("BEGIN; CREATE TABLE t (id int)").unwrap();
    let run = waiting_run(&mut case);
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    end(run).expect(130).says("0 created, 0 failed").says("1 not finished");
    other.batch_execute("ROLLBACK").unwrap();
    case.gpferry(&["run", "--create-tables"]).expect(0).says("1 created");
}

#[test]
fn without_its_source_nothing_is_made() {
    let mut case = Case::new("create_alone");
    case.source.batch_execute("CREATE TABLE t (id int)").unwrap();
    case.inventory(&["{ table: public.t, window: none }", "{ table: public.absent, window: none }"]);
    case.gpferry(&["run", "--tables-only"])
        .expect(3)
        .says("the table public.absent is not in the source database")
        .says("1/2 tables, 1 created, 1 failed");
    case.target.batch_execute("DROP TABLE t").unwrap();
    case.edit_inventory("host: gp-a", "host: gpadmin@127.0.0.1:1");
    case.gpferry(&["run", "--tables-only"]).expect(12).says("0/2 tables, 0 created, 2 failed");
    case.gpferry(&["run", "--create-tables"]).expect(12);
}
