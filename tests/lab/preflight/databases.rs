//! The databases: each fault of the issue, with its id and a remedy that mends it.

use super::{checks, one_fault, one_warning, preflight, ready};
use crate::support::{Case, Side};

#[test]
fn a_wrong_database_is_found() {
    let case = ready("wrongdb");
    case.edit_inventory(&format!("    database: {}", case.database()), "    database: nosuch");
    one_fault(&case, "source.database", "nosuch", "correct the source's `database`");
}

#[test]
fn a_missing_table_is_found_on_either_side() {
    let mut case = ready("notable");
    case.target.batch_execute("ALTER TABLE t RENAME TO u").unwrap();
    one_fault(&case, "target.table", "not in the target", "target:");
    case.target.batch_execute("ALTER TABLE u RENAME TO t").unwrap();
    case.source.batch_execute("DROP TABLE t").unwrap();
    one_fault(&case, "source.table", "not in the source", "inventory");
}

#[test]
fn a_missing_window_column_is_found_and_others_are_offered() {
    let case = ready("nocolumn");
    case.edit_inventory("column: ts", "column: evt_time");
    one_fault(&case, "source.window", "\"evt_time\" is not in the source table", "columns of time are: ts");
    case.edit_inventory("column: evt_time", "column: id");
    one_fault(&case, "source.window", "has type integer", "timestamp");
}

#[test]
fn a_window_column_without_an_index_or_with_null_is_a_warning() {
    let mut case = ready("noindex");
    case.source.batch_execute("DROP INDEX t_ts_idx").unwrap();
    one_warning(&case, "source.index", "every window reads the whole table", "CREATE INDEX");
    case.source.batch_execute("CREATE INDEX ON t (ts); ALTER TABLE t ALTER ts DROP NOT NULL").unwrap();
    let quiet = |case: &Case| {
        let (ran, json) = preflight(case, &[]);
        ran.expect(0);
        assert_eq!(checks(&json, "warn"), <[[String; 4]; 0]>::default());
        let found = checks(&json, "ok").into_iter().find(|check| check[0] == "source.window");
        found.map(|check| check[2].clone()).unwrap_or_default()
    };
    assert!(quiet(&case).contains("no row has none now"));
    case.source.batch_execute("INSERT INTO t VALUES (1, NULL), (2, NULL), (3, now())").unwrap();
    one_warning(
        &case,
        "source.window",
        "2 rows are NULL in the window column \"ts\"",
        "null_window: include",
    );
    case.target.batch_execute("ALTER TABLE t ALTER ts DROP NOT NULL").unwrap();
    case.edit_inventory("length: 1d", "length: 1d, null_window: include");
    assert!(quiet(&case).contains("2 rows without a value are moved as one unit"));
    case.edit_inventory("length: 1d, null_window: include", "length: 1d");
    // Whoever holds the table holds the count up for a few seconds, and nothing else.
    let mut holder = Side::Source.connect(case.database());
    case.source.batch_execute("DELETE FROM t WHERE ts IS NULL").unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").unwrap();
    case.target.batch_execute("ALTER TABLE t ALTER ts SET NOT NULL").unwrap();
    one_warning(&case, "source.window", "could not be counted in 3 s", "SELECT count(*)");
    holder.batch_execute("ROLLBACK").unwrap();
    case.source.batch_execute("ALTER TABLE t ALTER ts SET NOT NULL").unwrap();
    case.target.batch_execute("ALTER TABLE t ALTER ts DROP NOT NULL").unwrap();
    one_warning(&case, "target.window", "may be NULL in the target", "SET NOT NULL");
}

#[test]
fn numbers_are_right_where_they_are_said_to_be_times_or_ids() {
    let mut case = ready("numbers");
    case.both("CREATE TABLE n (id int PRIMARY KEY, at numeric(20) NOT NULL, v text); CREATE INDEX ON n (at)");
    case.inventory_with(
        "",
        "    from: 2026-01-01\n",
        &["{ table: public.n, window: { column: at, type: epoch_ms, length: 1d } }"],
    );
    case.gpferry(&["preflight"]).expect(0).silent_about("FAIL");
    case.edit_inventory("type: epoch_ms, ", "");
    one_fault(&case, "source.window", "has type numeric(20,0)", "`type: epoch_s`");
    case.edit_inventory("column: at, length: 1d", "column: v, type: id, step: 100");
    one_fault(&case, "source.window", "has type text", "whole numbers");
}

#[test]
fn a_partitioning_by_the_window_column_is_as_good_as_an_index() {
    let mut case = ready("partition");
    case.source
        .batch_execute(
            "DROP TABLE t; CREATE TABLE t (id int, ts timestamp NOT NULL, PRIMARY KEY (id, ts)) PARTITION BY RANGE (ts); \
             GRANT SELECT ON t TO gpadmin",
        )
        .unwrap();
    case.gpferry(&["preflight"]).expect(0).silent_about("source.index");
}

#[test]
fn a_table_that_may_not_be_read_or_written_is_found() {
    let mut case = ready("grants");
    case.source.batch_execute("REVOKE SELECT ON t FROM gpadmin").unwrap();
    one_fault(&case, "source.readable", "may not read", "GRANT SELECT ON \"public\".\"t\"");
    case.source.batch_execute("GRANT SELECT ON t TO gpadmin").unwrap();
    case.target.batch_execute("REVOKE INSERT ON t FROM loader").unwrap();
    one_fault(&case, "target.rights", "lacks INSERT on it", "GRANT INSERT ON \"public\".\"t\" TO \"loader\"");
}

#[test]
fn each_way_of_loading_asks_for_its_own_rights() {
    let mut case = ready("rights");
    case.edit_inventory("from: 2026-01-01", "from: 2026-01-01\n    until: 2026-01-02");
    let take = "REVOKE ALL ON t FROM loader; GRANT INSERT, SELECT ON t TO loader";
    case.target.batch_execute(take).unwrap();
    case.gpferry(&["preflight"]).expect(0);
    let written = std::fs::read_to_string(case.path("inventory.yml")).unwrap();
    for (load, right) in [
        ("{ mode: update, match: [id] }", "UPDATE"),
        ("{ mode: merge, match: [id] }", "UPDATE"),
        ("{ on_pk_violation: merge }", "UPDATE"),
        ("{ mode: replace }", "DELETE"),
    ] {
        std::fs::write(case.path("inventory.yml"), &written).unwrap();
        case.edit_inventory("table: public.t,", &format!("table: public.t, load: {load},"));
        let grant = format!("GRANT {right} ON \"public\".\"t\" TO \"loader\"");
        one_fault(&case, "target.rights", &format!("lacks {right} on it"), &grant);
        // Not asked beforehand, the load says as much.
        if !load.contains("on_pk") {
            let needed = format!("{right} on the table, USAGE on its schema");
            case.gpferry(&["run"]).expect(3).says("42501").says(&needed);
        }
        case.target.batch_execute(&grant).unwrap();
        case.gpferry(&["preflight"]).expect(0);
        case.target.batch_execute(take).unwrap();
    }
    std::fs::write(case.path("inventory.yml"), &written).unwrap();
    let database = case.database().to_owned();
    case.target.batch_execute(&format!("REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")).unwrap();
    case.gpferry(&["preflight"]).expect(0);
    case.edit_inventory("table: public.t,", "table: public.t, load: { on_pk_violation: quarantine },");
    let grant = format!("GRANT TEMPORARY ON DATABASE \"{database}\" TO \"loader\"");
    one_fault(&case, "target.rights", "may not make temporary tables", &grant);
    case.target.batch_execute(&grant).unwrap();
    case.gpferry(&["preflight"]).expect(0);
}

#[test]
fn a_narrower_column_is_found_and_the_remedy_mends_it() {
    let mut case = ready("narrower");
    case.source.batch_execute("ALTER TABLE t ADD v varchar(20)").unwrap();
    case.target.batch_execute("ALTER TABLE t ADD v varchar(10)").unwrap();
    let remedy = "ALTER TABLE \"public\".\"t\" ALTER COLUMN \"v\" TYPE character varying(20)";
    one_fault(&case, "target.type", "texts of 11 to 20 characters do not fit", remedy);
    case.target.batch_execute(remedy).unwrap();
    case.gpferry(&["preflight"]).expect(0);
}

#[test]
fn missing_and_extra_columns_are_found() {
    let mut case = ready("columns");
    case.source.batch_execute("ALTER TABLE t ADD v numeric(10,2)").unwrap();
    let remedy = "ALTER TABLE \"public\".\"t\" ADD COLUMN \"v\" numeric(10,2)";
    one_fault(&case, "target.columns", "\"v\" of the source is not in the target", remedy);
    case.target.batch_execute(remedy).unwrap();
    case.target.batch_execute("ALTER TABLE t ADD w int NOT NULL").unwrap();
    one_fault(&case, "target.notnull", "it would get no value", "DROP COLUMN \"w\"");
    case.target.batch_execute("ALTER TABLE t DROP w, ALTER v SET NOT NULL").unwrap();
    one_warning(&case, "target.notnull", "may be NULL in the source", "DROP NOT NULL");
}

#[test]
fn a_missing_primary_key_is_a_warning() {
    let mut case = ready("nokey");
    case.target.batch_execute("ALTER TABLE t DROP CONSTRAINT t_pkey").unwrap();
    one_warning(&case, "target.key", "nothing stops duplicates", "ADD PRIMARY KEY");
}

#[test]
fn a_target_that_is_not_there_or_has_no_room_for_the_load_log_is_found() {
    let mut case = ready("nolog");
    let database = case.database().to_owned();
    case.target.batch_execute(&format!("REVOKE CREATE ON DATABASE {database} FROM loader")).unwrap();
    one_fault(&case, "target.log", "may not make it", "CREATE SCHEMA \"gpferry\" AUTHORIZATION \"loader\"");
    case.edit_inventory(&format!("/{database}\""), "/nosuch\"");
    one_fault(&case, "target.database", "nosuch", "psql");
}

#[test]
fn tables_of_a_glob_are_looked_at_one_by_one() {
    let mut case = ready("globs");
    case.both("CREATE TABLE g1 (id int PRIMARY KEY); CREATE TABLE g2 (id int PRIMARY KEY)");
    case.target.batch_execute("DROP TABLE g2").unwrap();
    case.inventory(&["{ tables: \"public.g*\", window: none }"]);
    one_fault(&case, "target.table", "public.g2 is not in the target", "create it there");
}
