//! Who says how large a unit is: files, statistics, the last windows, and where nobody does, the plan of its query.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::greenplum::Source;
use crate::support::{Case, lab, ran};

const LOG: &str = "SELECT count(*) FROM gpferry.load_log WHERE rows_loaded > 0";
const DAY: &str = "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n";

/// What the source's server was asked from now on.
struct Asked {
    /// Where its log ends, before.
    from: usize,
}

impl Asked {
    /// Has the server note every statement in this case's database.
    fn of(case: &mut Case) -> Self {
        let database = case.database().to_owned();
        case.source.batch_execute(&format!("ALTER DATABASE {database} SET log_statement = 'all'")).unwrap();
        Self { from: Self::log().len() }
    }

    fn log() -> String {
        let path = format!("{}/pg/source.log", lab().get("LAB_DIR"));
        String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
    }

    /// How many statements hold all of these words; other cases write there too, so name a table.
    fn count(&self, words: &[&str]) -> usize {
        let log = Self::log();
        let statements = log[self.from..].lines().filter(|line| line.contains("statement: "));
        statements.filter(|line| words.iter().all(|word| line.contains(word))).count()
    }
}

/// So many rows of some 120 bytes over a day, which nobody has ever analyzed.
fn never_analyzed(case: &mut Case, name: &str, rows: usize) {
    case.both(&format!("CREATE TABLE {name} (id int PRIMARY KEY, at timestamp, v text)"));
    case.source
        .batch_execute(&format!(
            "ALTER TABLE {name} SET (autovacuum_enabled = off); \
             INSERT INTO {name} SELECT i, timestamp '2021-08-10' + i * interval '4 seconds', repeat('x', 80) \
             FROM generate_series(0, {rows} - 1) i"
        ))
        .unwrap();
}

#[test]
fn a_table_that_nobody_analyzed_is_cut_and_its_plan_is_not_asked_for() {
    let mut case = Case::new("never_analyzed");
    never_analyzed(&mut case, "never_whole", 20_000);
    never_analyzed(&mut case, "never_day", 20_000);
    never_analyzed(&mut case, "never_small", 2_000);
    let asked = Asked::of(&mut case);
    case.inventory_with(
        "",
        DAY,
        &[
            "{ table: public.never_whole, window: none, export: { slice_bytes: 512KiB } }",
            "{ table: public.never_day, window: { column: at, length: 1d }, export: { slice_bytes: 512KiB } }",
            "{ table: public.never_small, window: none, export: { slice_bytes: 512KiB } }",
        ],
    );
    case.gpferry(&["plan", "--slices"]).expect(0).says("slice …").silent_about("EXPLAIN");
    case.gpferry(&["run"]).expect(0).says("42000 rows");
    for table in ["never_whole", "never_day", "never_small"] {
        case.assert_same(&format!("SELECT * FROM {table} ORDER BY id"));
    }
    let units = |case: &mut Case, table: &str| {
        case.count(&format!(
            "SELECT count(*) FROM gpferry.load_log WHERE table_name = 'public.{table}' AND rows_loaded > 0"
        ))
    };
    assert!(units(&mut case, "never_whole") >= 4 && units(&mut case, "never_day") >= 4);
    assert_eq!(units(&mut case, "never_small"), 1);
    let by_hash = "SELECT count(*) FROM gpferry.load_log WHERE measure = 'slice:hash:id'";
    assert_eq!(case.count(by_hash), units(&mut case, "never_whole"));
    // Files say how large they are, and of the small one nothing more is asked.
    assert_eq!(asked.count(&["EXPLAIN", "never_"]), 0);
    assert_eq!(asked.count(&["histogram_bounds", "never_whole"]), 2);
    assert_eq!(asked.count(&["histogram_bounds", "never_small"]), 0);
    case.gpferry(&["run"]).expect(0).says("already loaded");
}

#[test]
fn a_view_is_cut_as_its_plan_says_once_for_each_window() {
    let mut case = Case::new("view");
    case.source
        .batch_execute(
            "CREATE TABLE below (id int PRIMARY KEY, at timestamp, v text); \
             INSERT INTO below SELECT i, timestamp '2021-08-10' + i * interval '4 seconds', repeat('x', 80) \
             FROM generate_series(0, 43199) i; ANALYZE below; \
             CREATE VIEW planned_view AS SELECT * FROM below WHERE v <> 'it''s; \\ $1 :x'",
        )
        .unwrap();
    case.target
        .batch_execute("CREATE TABLE planned_view (id int PRIMARY KEY, at timestamp, v text)")
        .unwrap();
    let asked = Asked::of(&mut case);
    let window = "{ table: public.planned_view, window: { column: at, length: 1d }, where: \"v <> 'it''s; :y'\", export: { slice_bytes: 512KiB } }";
    let days = "    from: 2021-08-10 00:00:00\n    until: 2021-08-12 00:00:00\n";
    case.inventory_with("", days, &[window]);
    case.gpferry(&["plan"]).expect(0).says("2 units to move");
    assert_eq!(asked.count(&["planned_view"]), 0);
    case.gpferry(&["plan", "--slices"])
        .expect(0)
        .says("planned_view (j): large: its size is an estimate by the plan");
    assert_eq!(asked.count(&["EXPLAIN", "planned_view"]), 2);
    assert_eq!(asked.count(&["histogram_bounds", "planned_view"]), 1);
    case.gpferry(&["run"]).expect(0).says("43200 rows").says("(EXPLAIN)");
    assert_eq!(asked.count(&["EXPLAIN", "planned_view"]), 4);
    assert_eq!(asked.count(&["histogram_bounds", "planned_view"]), 2);
    case.assert_same("SELECT * FROM planned_view ORDER BY id");
    let slices = case.count(LOG);
    assert!((8..=20).contains(&slices), "{slices} slices of two days of 2 MiB each");
    case.gpferry(&["run"]).expect(0).says("already loaded");
    // The windows of now say how large the next ones are.
    case.edit_inventory("until: 2021-08-12", "until: 2021-08-13");
    case.gpferry(&["run"]).expect(0);
    assert_eq!(asked.count(&["EXPLAIN", "planned_view"]), 4);
}

#[test]
fn a_whole_view_says_that_it_is_large_and_has_no_key() {
    let mut case = Case::new("whole_view");
    case.source
        .batch_execute(
            "CREATE TABLE below (id int, v text); \
             INSERT INTO below SELECT i, repeat('x', 80) FROM generate_series(1, 10000) i; ANALYZE below; \
             CREATE VIEW large AS SELECT * FROM below; CREATE VIEW small AS SELECT * FROM below WHERE id < 100",
        )
        .unwrap();
    case.target
        .batch_execute("CREATE TABLE large (id int, v text); CREATE TABLE small (id int, v text)")
        .unwrap();
    let of = |name| format!("{{ table: public.{name}, window: none, export: {{ slice_bytes: 128KiB }} }}");
    case.inventory(&[&of("large"), &of("small")]);
    for verb in [&["plan", "--slices"][..], &["run"]] {
        let said = case.gpferry(verb).expect(0);
        said.says("note: public.large (j): large: it has no primary key")
            .silent_about("public.small (j): large");
    }
    assert_eq!(case.count(LOG), 2);
    case.assert_same("SELECT * FROM large ORDER BY id");
}

#[test]
fn what_cannot_be_explained_moves_whole() {
    // One that refuses, and one that thinks for longer than it is given.
    for (how, said) in [
        ("RAISE EXCEPTION 'not to be explained'", "not to be explained"),
        ("PERFORM pg_sleep(60)", "due to statement timeout"),
    ] {
        let mut case = Case::new("unexplained");
        case.source
            .batch_execute(&format!(
                "CREATE TABLE below (id int PRIMARY KEY, at timestamp, v text); \
                 INSERT INTO below SELECT i, timestamp '2021-08-10' + i * interval '4 seconds', repeat('x', 80) \
                 FROM generate_series(0, 9999) i; ANALYZE below; \
                 CREATE FUNCTION unexplained() RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS \
                 'BEGIN IF current_query() LIKE ''EXPLAIN%'' THEN {}; END IF; RETURN true; END'; \
                 CREATE VIEW unexplained AS SELECT * FROM below WHERE unexplained()",
                how.replace('\'', "''")
            ))
            .unwrap();
        case.target
            .batch_execute("CREATE TABLE unexplained (id int PRIMARY KEY, at timestamp, v text)")
            .unwrap();
        let asked = Asked::of(&mut case);
        let window = "{ table: public.unexplained, window: { column: at, length: 4h }, export: { slice_bytes: 64KiB } }";
        case.inventory_with("", DAY, &[window]);
        let began = Instant::now();
        case.gpferry(&["run"]).expect(0).says("10000 rows").says("nobody says how large it is").says(said);
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
        assert_eq!(case.count("SELECT count(*) FROM gpferry.load_log"), 6, "one of each window");
        case.assert_same("SELECT * FROM unexplained ORDER BY id");
        // What fails for one window is not asked for the next.
        assert_eq!(asked.count(&["EXPLAIN", "unexplained", "2021-08-10"]), 1);
    }
}

#[test]
fn windows_by_a_column_of_few_values_are_as_large_as_its_statistics_say() {
    let mut case = Case::new("few_values");
    case.both("CREATE TABLE few_values (id int PRIMARY KEY, at timestamp, v text)");
    case.source
        .batch_execute(
            "INSERT INTO few_values SELECT i, timestamp '2021-08-10' + i % 24 * interval '1 hour', repeat('x', 80) \
             FROM generate_series(0, 23999) i; ANALYZE few_values",
        )
        .unwrap();
    let hours =
        "{ table: public.few_values, window: { column: at, length: 1h }, export: { slice_bytes: 512KiB } }";
    case.inventory_with("", DAY, &[hours]);
    case.gpferry(&["plan", "--slices"]).expect(0).says("24 units to move").silent_about("large:");
    case.gpferry(&["run"]).expect(0).says("24000 rows");
    assert_eq!(case.count(LOG), 24);
    case.assert_same("SELECT * FROM few_values ORDER BY id");
}

#[test]
fn on_greenplum_the_files_speak_where_no_analyze_has_been_and_plans_for_views() {
    let Some(mut from) = Source::new("estimates_from") else { return };
    let case = Case::new("estimates_gp");
    let rows = "SELECT i, timestamp '2021-08-10' + i * interval '2 seconds', repeat('x', 80) FROM generate_series(0, 39999) i";
    from.client
        .batch_execute(&format!(
            "SET gp_autostats_mode = none; \
             CREATE TABLE never (id int PRIMARY KEY, at timestamp, v text) DISTRIBUTED BY (id); INSERT INTO never {rows}; \
             CREATE TABLE parts (id int, at timestamp, v text) DISTRIBUTED BY (id) PARTITION BY RANGE (at) \
             (START (timestamp '2021-08-10') END (timestamp '2021-08-11') EVERY (interval '6 hours')); \
             INSERT INTO parts {rows}; \
             CREATE TABLE below (id int, at timestamp, v text) DISTRIBUTED BY (id); INSERT INTO below {rows}; ANALYZE below; \
             CREATE VIEW seen AS SELECT * FROM below; CREATE TABLE empty (id int PRIMARY KEY) DISTRIBUTED BY (id)"
        ))
        .unwrap();
    let mut target = crate::support::Side::Target.connect(case.database());
    target
        .batch_execute(
            "CREATE TABLE never (id int PRIMARY KEY, at timestamp, v text); CREATE TABLE parts (id int, at timestamp, v text); \
             CREATE TABLE seen (id int, at timestamp, v text); CREATE TABLE empty (id int PRIMARY KEY)",
        )
        .unwrap();
    let day = |name| {
        format!(
            "{{ table: public.{name}, window: {{ column: at, length: 1d }}, export: {{ slice_bytes: 1MiB }} }}"
        )
    };
    let whole = |name| format!("{{ table: public.{name}, window: none, export: {{ slice_bytes: 1MiB }} }}");
    case.inventory_with("", DAY, &[&whole("never"), &whole("empty"), &day("parts"), &day("seen")]);
    let lab = lab();
    let (socket, port) = (lab.get("LAB_SOURCE_SOCKET"), lab.get("LAB_SOURCE_PORT"));
    let Source { name, host, port: gp_port, admin, .. } = &from;
    case.edit_inventory(
        &format!("connection: {{ host: {socket}, port: {port}, user: gpadmin }}"),
        &format!("connection: {{ host: {host}, port: {gp_port}, user: {admin} }}"),
    );
    case.edit_inventory("engine: postgres", "engine: greenplum");
    case.edit_inventory(&format!("database: {}\n", case.database()), &format!("database: {name}\n"));
    let planned = case.gpferry(&["plan", "--slices"]).expect(0);
    planned
        .says("public.seen (j): large: its size is an estimate")
        .silent_about("public.never (j): large: its size");
    case.gpferry(&["run"]).expect(0).says("120000 rows");
    for (table, least) in [("never", 4), ("parts", 4), ("seen", 4), ("empty", 0)] {
        let sql = format!(
            "SELECT count(*), coalesce(sum(rows_loaded), 0)::bigint FROM gpferry.load_log \
             WHERE table_name = 'public.{table}' AND rows_loaded > 0"
        );
        let row = target.query_one(&sql, &[]).unwrap();
        let (units, rows): (i64, i64) = (row.get(0), row.get(1));
        assert!(units >= least, "{units} slices of {table}");
        assert_eq!(rows, if table == "empty" { 0 } else { 40_000 });
        let distinct = target.query_one(&format!("SELECT count(DISTINCT id) FROM {table}"), &[]).unwrap();
        assert_eq!(distinct.get::<_, i64>(0), rows);
    }
}

#[test]
fn the_script_explains_one_select_and_nothing_else() {
    let mut case = Case::new("by_hand");
    case.source
        .batch_execute(
            "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i FROM generate_series(1, 9) i; ANALYZE t",
        )
        .unwrap();
    let lab = lab();
    let ask = |requests: &str| {
        let set = |name: &str, value: &str| format!("set\t{name}\t{value}\n");
        let text = [
            "hello\t1\tn0\t0\t60\n".to_owned(),
            set("PGHOST", lab.get("LAB_SOURCE_SOCKET")),
            set("PGPORT", lab.get("LAB_SOURCE_PORT")),
            set("PGUSER", "gpadmin"),
            set("PGDATABASE", case.database()),
            requests.to_owned(),
            "end\n".to_owned(),
        ];
        let mut script = Command::new("timeout")
            .args(["60", "bash", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/greenplum.sh"), "query"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        script.stdin.take().unwrap().write_all(text.concat().as_bytes()).unwrap();
        ran(script.wait_with_output().unwrap())
    };
    let said = ask(
        "explain\t1\tSELECT \"id\" FROM t WHERE v <> 'it''s; \\ $1 :x -- y'\nexplain\t2\tSELECT 1; DROP TABLE t\n\
         explain\t3\tSELECT 1 \\g /tmp/x\nexplain\t4\tSELECT E'a'\nexplain\t5\tSELECT 'a\nexplain\t6\tSELECT nix FROM t\n\
         explain\t7\tSELECT :id\nquery\t8\tSELECT 8\n",
    )
    .expect(0);
    let said = said.says("n0 row 1 (cost=").says(" rows=").says("n0 ok 1 1 0 ").silent_about("Filter");
    let refused = (2..=7).filter(|no| said.stdout.contains(&format!("n0\terror\t{no}\t1\t"))).count();
    assert_eq!(refused, 6, "{}", said.stdout);
    said.says("n0 error 6 1 42703 ").says("n0 row 8 8 ");
    for request in ["ANALYZE SELECT 1", "(ANALYZE) SELECT 1", "DELETE FROM t", "VERBOSE SELECT 1", "select 1"]
    {
        ask(&format!("explain\t1\t{request}\n")).expect(2).says("n0 end 2");
    }
    assert_eq!(case.source.query_one("SELECT count(*) FROM t", &[]).unwrap().get::<_, i64>(0), 9);
}
