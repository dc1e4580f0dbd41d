//! Tables move: what was in the source is in the target, to the bit, and nothing else.

use crate::support::Case;

#[test]
fn a_table_moves_and_a_second_run_finds_it_there() {
    let mut case = Case::new("moves");
    case.both("CREATE TABLE t (id int PRIMARY KEY, v text)");
    case.source.batch_execute("INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 1000) i").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1000 rows");
    case.assert_same("SELECT * FROM t ORDER BY id");
    case.gpferry(&["run"]).expect(0).says("left alone: 1 unit of public.t (j): already loaded");
    assert_eq!(case.count("SELECT count(*) FROM t"), 1000);
    let log = "SELECT count(*) FROM gpferry.load_log WHERE rows_exported = 1000 AND rows_loaded = 1000";
    assert_eq!(case.count(log), 1);
}

#[test]
fn without_its_ledger_a_run_loads_nothing_twice() {
    let mut case = Case::new("no_ledger");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t SELECT generate_series(1, 10)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run"]).expect(0);
    std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    let retold = "1 unit that the ledger did not know is taken over from the load log";
    case.gpferry(&["run"]).expect(0).says(retold).says("already loaded");
    assert_eq!(case.count("SELECT count(*) FROM t"), 10);
    case.gpferry(&["status"]).expect(0).says("10");
}

#[test]
fn windows_are_half_open_so_a_boundary_row_moves_once() {
    let mut case = Case::new("windows");
    case.both("CREATE TABLE t (at timestamp PRIMARY KEY, z timestamptz, d date)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT x, x AT TIME ZONE 'UTC', x::date FROM generate_series(\
             timestamp '2021-08-10 00:00', '2021-08-11 00:00', '30 minutes') x; \
             INSERT INTO t VALUES ('infinity', 'infinity', 'infinity')",
        )
        .unwrap();
    for (column, length, units) in [("at", "4h", 6), ("z", "4h", 6), ("d", "1d", 1)] {
        case.target.batch_execute("TRUNCATE t; DROP SCHEMA IF EXISTS gpferry CASCADE").unwrap();
        let _ = std::fs::remove_file(case.path("inventory.ledger.sqlite"));
        let table = format!("{{ table: public.t, window: {{ column: {column}, length: {length} }} }}");
        case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n", &[&table]);
        case.gpferry(&["run"]).expect(0).says(
            &format!("{units} of {units} UNITS loaded")
                .replace("UNITS", if units == 1 { "unit" } else { "units" }),
        );
        assert_eq!(case.count("SELECT count(*) FROM t"), 48, "{column}");
    }
}

#[test]
fn a_bound_within_a_day_is_refused_for_a_column_of_days() {
    let mut case = Case::new("days");
    case.both("CREATE TABLE t (d date)");
    let table = "{ table: public.t, window: { column: d, length: 4h } }";
    case.inventory_with("", "    from: 2021-08-10\n    until: 2021-08-10 12:00\n", &[table]);
    case.gpferry(&["run"]).expect(3).says("is within a day");
}

#[test]
fn windows_of_other_bounds_move_only_what_is_missing() {
    let mut case = Case::new("bounds");
    // No key: what is moved twice is there twice.
    case.both("CREATE TABLE t (at timestamp)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT generate_series(timestamp '2021-08-10', '2021-08-10 23:59', '10 minutes')",
        )
        .unwrap();
    let inventory = |length: &str| {
        let table = format!("{{ table: public.t, window: {{ column: at, length: {length} }} }}");
        case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n", &[&table]);
    };
    inventory("4h");
    // Another runner, whose ledger has seen the load log when it was empty.
    let other = case.path("other.sqlite");
    let other = ["run", "--ledger", other.to_str().unwrap()];
    case.gpferry(&[&other[..], &["--max-units", "0"]].concat()).expect(0);
    case.gpferry(&["run", "--until", "2021-08-10 06:00"]).expect(0).says("2 of 2 units loaded, 36 rows");
    inventory("5h");
    case.gpferry(&["run", "--until", "2021-08-10 12:00"]).expect(0).says("36 rows");
    // What the ledger does not know the load log says, before a row goes in.
    inventory("8h");
    case.gpferry(&other).expect(3).says("overlaps what is loaded already");
    case.gpferry(&other).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY at");
}

#[test]
fn another_target_is_loaded_from_the_start() {
    let mut case = Case::new("retarget");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["run"]).expect(0);
    let mut other = Case::new("retarget_other");
    other.both("CREATE TABLE t (id int)");
    let (port, name) = (crate::support::lab().get("LAB_TARGET_PORT"), case.database().to_owned());
    let url = |database: &str| format!("127.0.0.1:{port}/{database}");
    case.edit_inventory(&url(&name), &url(other.database()));
    case.gpferry(&["run"]).expect(0).says("1 of 1 unit loaded, 1 row");
    assert_eq!(other.count("SELECT count(*) FROM t"), 1);
    case.edit_inventory(&url(other.database()), &url(&name));
    case.gpferry(&["run"]).expect(0).says("already loaded").says("0 of 0 units");
}

#[test]
fn plan_prints_exactly_the_units_that_run_executes() {
    let mut case = Case::new("plan");
    case.both("CREATE TABLE t (at timestamp); CREATE TABLE \"Odd ^name\" (id int)");
    case.inventory_with(
        "",
        "    from: 2021-08-10 00:00:00\n",
        &[
            "{ table: public.t, window: { column: at, length: 1d } }",
            "{ table: 'public.Odd ^name', window: none }",
        ],
    );
    let window = ["--until", "2021-08-13 12:00"];
    let plan = case.gpferry(&["plan", "--format", "json", window[0], window[1]]).expect(0).json();
    let run = case.gpferry(&["run", "--format", "json", window[0], window[1]]).expect(0).json();
    let ids = |document: &serde_json::Value| -> Vec<String> {
        let units = document["units"].as_array().unwrap();
        units.iter().map(|unit| unit["unit"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&plan), ids(&run));
    let name = case.database();
    assert_eq!(
        ids(&plan),
        [
            format!("{name}^public^t^20210810000000^20210811000000"),
            format!("{name}^public^t^20210811000000^20210812000000"),
            format!("{name}^public^t^20210812000000^20210813000000"),
            format!("{name}^public^t^20210813000000^20210813120000"),
            format!("{name}^public^Odd%20%5Ename^all"),
        ]
    );
}

#[test]
fn a_glob_moves_every_table_that_it_matches() {
    let mut case = Case::new("glob");
    for n in 1..=30 {
        case.both(&format!("CREATE TABLE tiny{n} (id int PRIMARY KEY, v text)"));
        case.source
            .batch_execute(&format!("INSERT INTO tiny{n} VALUES (1, 'a'), (2, NULL), (3, '')"))
            .unwrap();
    }
    case.both("CREATE TABLE other (id int)");
    case.inventory(&["{ tables: 'public.tiny*', window: none }"]);
    case.gpferry(&["run"]).expect(0).says("30 of 30 units loaded, 90 rows");
    for n in 1..=30 {
        case.assert_same(&format!("SELECT * FROM tiny{n} ORDER BY id"));
    }
}

#[test]
fn a_condition_and_another_target_name_are_honoured() {
    let mut case = Case::new("filter");
    case.source
        .batch_execute("CREATE TABLE t (id int, flag text); INSERT INTO t VALUES (1, 'Y'), (2, 'N')")
        .unwrap();
    case.target.batch_execute("CREATE TABLE elsewhere (flag text, id int)").unwrap();
    case.inventory(&["{ table: public.t, target: public.elsewhere, window: none, where: \"flag = 'Y'\" }"]);
    case.gpferry(&["run"]).expect(0).says("1 row");
    // The columns stand in another order in the target: they are named.
    assert_eq!(case.count("SELECT count(*) FROM elsewhere WHERE id = 1 AND flag = 'Y'"), 1);
}

#[test]
fn export_and_load_are_the_two_halves_of_run() {
    let mut case = Case::new("halves");
    case.both("CREATE TABLE t (id int)");
    case.source.batch_execute("INSERT INTO t VALUES (1), (2)").unwrap();
    case.inventory(&["{ table: public.t, window: none }"]);
    case.gpferry(&["export"]).expect(0).says("1 of 1 unit exported");
    assert_eq!(case.count("SELECT count(*) FROM t"), 0);
    case.only_file();
    case.gpferry(&["load"]).expect(0).says("1 of 1 unit loaded, 2 rows");
    assert_eq!(case.count("SELECT count(*) FROM t"), 2);
}

/// Tables whose content breaks careless tools. Each is its CREATE TABLE and its INSERT.
const AWKWARD: &[(&str, &str, &str)] = &[
    (
        "texts",
        "(id int PRIMARY KEY, v text, w varchar(40), c char(5))",
        "VALUES (1, NULL, '', 'a'), (2, '', NULL, NULL), (3, 'quote \" and \"\"', 'comma, semi;', 'ab'), \
         (4, E'CR\\rLF\\nCRLF\\r\\nend', E'\\n', '  x'), (5, E'\\\\.', E'\\\\N', E'\\\\.'), \
         (6, E'a\\n\\\\.\\nb', 'NULL', 'NULL'), (7, '  lead and trail  ', E'\\ttab', '     '), \
         (8, '😀 𝄞 é \u{301} \u{feff}', '\u{feff}bom', '表'), (9, E'back\\\\slash \\\\n', E'\\\\', '\\'), \
         (10, E'\\x01\\x08\\x1f\\x7f', '''', '\"')",
    ),
    ("backslash_dot_only", "(v text)", "VALUES (E'\\\\.'), (E'\\\\.'), ('x'), ('')"),
    (
        "numbers",
        "(id int PRIMARY KEY, f float8, g float4, n numeric, b bigint, m money)",
        "VALUES (1, 'NaN', 'NaN', 'NaN', 9223372036854775807, 12.34), (2, 'Infinity', '-Infinity', 1e100, \
         -9223372036854775808, -0.01), (3, '-0', '-0', -0.000000000000000000000000000001, 0, NULL), \
         (4, 0.1::float8 + 0.2::float8, 1/3::float4, 123456789012345678901234567890.123456789, 1, 0), \
         (5, 2.2250738585072014e-308, 1.17549435e-38, 0, -1, 1), \
         (6, 1.7976931348623157e308, 3.4028235e38, 1.10, 2, 2), (7, 5e-324, 1e-45, 100.00, 3, 3)",
    ),
    (
        "times",
        "(id int PRIMARY KEY, t timestamp, z timestamptz, d date, i interval, c time, cz timetz)",
        "VALUES (1, '1883-11-18 12:03:58.123456', '1883-11-18 12:03:58.123456+08:05:43', '0044-03-15 BC', \
         '1 year -2 months 3 days -04:05:06.789', '24:00', '23:59:59.999999+13:45'), \
         (2, 'infinity', '-infinity', 'infinity', '-1 day +00:00:01', '00:00', '00:00-12'), \
         (3, '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999+00', '5874897-12-31', '178000000 years', \
         '12:00', '12:00+00'), (4, '2021-10-31 02:30:00', '2021-10-31 02:30:00 Europe/Berlin', NULL, NULL, NULL, NULL)",
    ),
    (
        "others",
        "(id int PRIMARY KEY, b bytea, a text[], n int[], j json, jb jsonb, u uuid, ip inet, bit bit varying, x boolean)",
        "VALUES (1, '\\x00ff5c2e0a0d22', ARRAY['a,b', 'quo\"te', NULL, 'NULL', '', E'\\n', E'\\\\'], \
         '[0:1][2:3]={{1,2},{3,4}}', '{\"a\" : [1, \"\\u00e9\"],   \"b\": null}', '{\"z\": 1e400, \"a\": \"x\"}', \
         'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2001:db8::/32', B'1011', true), \
         (2, '', '{}', NULL, '\"\"', '[]', NULL, NULL, B'', false), (3, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL)",
    ),
    ("empty", "(id int PRIMARY KEY, v text)", ""),
    ("no_key", "(a int, b text)", "VALUES (1, 'x'), (1, 'x'), (NULL, NULL), (NULL, NULL)"),
    ("one_null_column", "(v text)", "VALUES (NULL), (''), (NULL), ('x')"),
    (
        "Capitals And Blanks",
        "(\"Id\" int PRIMARY KEY, \"select\" text, \"a \"\"b\"\" c\" text)",
        "VALUES (1, 's', 'q')",
    ),
    (
        "select",
        "(\"from\" int, \"x^y\" text, \"-rf\" text, \"$(touch x)\" text, \"a\\b\" text)",
        "VALUES (1, '2', '3', '4', '5')",
    ),
    ("we^ird'; drop table x; --", "(id int)", "VALUES (1)"),
    ("x$y$z $$ ) to program 'x'", "(\"$a$\" int)", "VALUES (1)"),
    ("表", "(列 text)", "VALUES ('値')"),
];

#[test]
fn awkward_content_arrives_identical() {
    let mut case = Case::new("awkward");
    let mut tables = Vec::new();
    for (name, columns, rows) in AWKWARD {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        case.both(&format!("CREATE TABLE {quoted} {columns}"));
        if !rows.is_empty() {
            case.source
                .batch_execute(&format!("INSERT INTO {quoted} {rows}"))
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        tables.push(format!("{{ table: \"public.{}\", window: none }}", name.replace('\\', "\\\\")));
    }
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    case.inventory(&tables);
    let all = tables.len();
    case.gpferry(&["run"]).expect(0).says(&format!("{all} of {all} units loaded"));
    for (name, _, _) in AWKWARD {
        case.assert_same(&format!("SELECT * FROM \"{name}\" x ORDER BY x::text COLLATE \"C\""));
    }
    // The same tables through the way of large units: a compressor each.
    case.target.batch_execute("DROP SCHEMA gpferry CASCADE").unwrap();
    for (name, _, _) in AWKWARD {
        case.target.batch_execute(&format!("TRUNCATE \"{name}\"")).unwrap();
        let grow = format!("CREATE VIEW \"v {name}\" AS SELECT * FROM \"{name}\"");
        case.source.batch_execute(&grow).unwrap();
    }
    let views: Vec<String> = AWKWARD
        .iter()
        .map(|(name, ..)| {
            format!("{{ table: \"public.v {name}\", target: \"public.{name}\", window: none }}")
        })
        .collect();
    case.inventory(&views.iter().map(String::as_str).collect::<Vec<_>>());
    case.gpferry(&["run"]).expect(0).says(&format!("{all} of {all} units loaded"));
    for (name, _, _) in AWKWARD {
        case.assert_same(&format!("SELECT * FROM \"{name}\" x ORDER BY x::text COLLATE \"C\""));
    }
}

#[test]
fn three_hundred_columns_and_a_value_of_50_mb_move() {
    let mut case = Case::new("wide");
    let columns: Vec<String> = (0..300).map(|n| format!("c{n} int")).collect();
    case.both(&format!("CREATE TABLE wide ({}); CREATE TABLE long (id int, v text)", columns.join(", ")));
    let values: Vec<String> = (0..300).map(|n| format!("i * {n}")).collect();
    case.source
        .batch_execute(&format!(
            "INSERT INTO wide SELECT {} FROM generate_series(1, 50) i; \
             INSERT INTO long VALUES (1, 'short'), (2, repeat('0123456789abcde\n', 3276800)), (3, 'after')",
            values.join(", ")
        ))
        .unwrap();
    case.inventory(&["{ table: public.wide, window: none }", "{ table: public.long, window: none }"]);
    case.gpferry(&["run"]).expect(0).says("2 of 2 units loaded, 53 rows");
    case.assert_same("SELECT * FROM wide ORDER BY c1");
    case.assert_same("SELECT id, length(v), md5(v) FROM long ORDER BY id");
}

#[test]
fn a_column_on_one_side_only_is_found_before_anything_is_exported() {
    let mut case = Case::new("columns");
    case.source
        .batch_execute(
            "CREATE TABLE a (id int, extra text); CREATE TABLE b (id int); CREATE TABLE c (id int)",
        )
        .unwrap();
    case.target
        .batch_execute("CREATE TABLE a (id int); CREATE TABLE b (id int, more text); CREATE TABLE d (id int)")
        .unwrap();
    case.inventory(&[
        "{ table: public.a, window: none }",
        "{ table: public.b, window: none }",
        "{ table: public.c, window: none }",
        "{ table: public.d, window: none }",
    ]);
    case.gpferry(&["run"])
        .expect(3)
        .says("only in the source: extra")
        .says("only in the target: more")
        .says("the table public.c is not in the target database")
        .says("the table public.d is not in the source database");
    assert!(case.files().is_empty(), "{:?}", case.files());
}
