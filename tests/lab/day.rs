//! A full day, as an operator lives it: moved, damaged, compared, alarmed, repaired, and normal again.

use crate::support::Case;

const DAY: &str = "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n";

/// The alarms that stand, as lines of what was told and of what.
fn standing(case: &Case) -> Vec<String> {
    let json = case.gpferry(&["alarm", "list", "--format", "json"]).expect(0).json();
    let alarms = json["alarms"].as_array().unwrap().iter();
    let mut found: Vec<String> =
        alarms.map(|one| format!("{} {} {}", one["condition"], one["table"], one["window_start"])).collect();
    found.sort();
    found
}

/// Makes the table of alarms as plants have it, and has this case's alarms go there.
fn alarms_go_to_a_table(case: &mut Case) {
    case.target
        .batch_execute(
            "CREATE SCHEMA dm; CREATE TABLE dm.system_alarm (data_seq_id bigint, data_name varchar(64), \
             evt_timestamp timestamp, defect_file_url text, ope_id varchar(32), index_url text); \
             GRANT ALL ON SCHEMA dm TO loader; GRANT ALL ON dm.system_alarm TO loader",
        )
        .unwrap();
    case.edit_inventory("jobs:", "alarms: { sinks: { dm: { kind: table, like: system_alarm } } }\njobs:");
}

#[test]
fn what_is_changed_on_purpose_is_told_repaired_and_over() {
    let mut case = Case::new("full_day");
    case.both("CREATE TABLE t (id int PRIMARY KEY, at timestamp, v text, x float8)");
    case.both("CREATE TABLE whole (id int PRIMARY KEY, v text)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, timestamp '2021-08-10' + i * interval '1 minute', 'v' || i, i / 7.0 \
             FROM generate_series(0, 1439) i; INSERT INTO whole SELECT i, 'w' || i FROM generate_series(1, 50) i",
        )
        .unwrap();
    let windows = "{ table: public.t, window: { column: at, length: 4h } }";
    case.inventory_with("", DAY, &[windows, "{ table: public.whole, window: none }"]);
    alarms_go_to_a_table(&mut case);
    case.gpferry(&["run"]).expect(0);
    case.gpferry(&["compare", "--deep"]).expect(0);
    case.gpferry(&["alarm", "check", "--since", "24h"]).expect(0).says("NORMAL");

    // A row lost, one that nobody sent, the last bit of a float, NULL for '', and one of the whole table.
    case.target
        .batch_execute(
            "DELETE FROM t WHERE id = 10; INSERT INTO t VALUES (5000, '2021-08-10 05:00', 'extra', 0); \
             UPDATE t SET x = x + 1e-13 WHERE id = 1000; UPDATE t SET v = NULL WHERE id = 1300; \
             UPDATE whole SET v = '' WHERE id = 7",
        )
        .unwrap();
    case.gpferry(&["compare", "--deep"]).expect(4);
    let windows = ["00", "04", "16", "20"]
        .map(|hour| format!("\"difference\" \"public.t\" \"2021-08-10T{hour}:00:00\""));
    let mut wanted = windows.to_vec();
    wanted.push("\"difference\" \"public.whole\" null".into());
    wanted.sort();
    assert_eq!(standing(&case), wanted);
    case.gpferry(&["alarm", "check", "--since", "24h"]).expect(4).says("ABNORMAL").says("5 raised, 0 over");
    let told = "SELECT count(*) FROM dm.system_alarm WHERE data_name = 'GPTRANSFER'";
    assert_eq!(case.count(told), 5);
    // Compared again it is the same: nobody is told twice.
    case.gpferry(&["compare", "--deep"]).expect(4);
    assert_eq!(case.count(told), 5);

    case.gpferry(&["repair", "--delete-extra"]).expect(0);
    case.assert_same("SELECT * FROM t ORDER BY id");
    case.assert_same("SELECT * FROM whole ORDER BY id");
    case.gpferry(&["compare", "--deep"]).expect(0);
    assert_eq!(standing(&case), Vec::<String>::new());
    case.gpferry(&["alarm", "check", "--since", "24h"]).expect(0).says("NORMAL").says("5 raised, 5 over");
    assert_eq!(case.count("SELECT count(DISTINCT index_url) FROM dm.system_alarm"), 5);
    case.gpferry(&["run"]).expect(0).says("already loaded");
}

#[test]
fn where_differences_are_told_by_group_each_group_is_an_alarm() {
    let mut case = Case::new("day_groups");
    case.both("CREATE TABLE t (id int PRIMARY KEY, at timestamp, station text, v text)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT i, timestamp '2021-08-10' + i * interval '1 minute', \
             CASE i % 4 WHEN 3 THEN NULL ELSE 'OP' || i % 4 END, 'v' || i FROM generate_series(0, 1439) i",
        )
        .unwrap();
    let table = "{ table: public.t, window: { column: at, length: 4h }, compare: { group: station } }";
    case.inventory_with("", DAY, &[table]);
    alarms_go_to_a_table(&mut case);
    case.gpferry(&["run"]).expect(0);
    // Two stations and rows of none in the first window, one of them in the second too.
    case.target
        .batch_execute(
            "DELETE FROM t WHERE id IN (0, 1, 3); UPDATE t SET v = 'x' WHERE id = 5; UPDATE t SET v = 'x' WHERE id = 301",
        )
        .unwrap();
    case.gpferry(&["compare", "--deep"]).expect(4).says("station 'OP1': 1 missing, 2 changed");
    let told = |case: &mut Case| -> Vec<(Option<String>, String)> {
        let sql = "SELECT ope_id, defect_file_url FROM dm.system_alarm ORDER BY defect_file_url";
        case.target.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let first = told(&mut case);
    let groups: Vec<Option<&str>> = first.iter().map(|one| one.0.as_deref()).collect();
    assert_eq!(groups, [None, Some("OP0"), Some("OP1"), Some("OP1")], "{first:?}");
    let said = &first[2].1;
    assert!(said.contains("group OP1, differs: 1 missing, 0 only in the target, 1 changed"), "{said}");
    // One station is mended by hand: its alarms alone are over.
    case.target.batch_execute("INSERT INTO t VALUES (0, '2021-08-10 00:00', 'OP0', 'v0')").unwrap();
    case.gpferry(&["compare"]).expect(4);
    let over: Vec<_> = told(&mut case).into_iter().filter(|(_, said)| said.starts_with("over")).collect();
    assert_eq!((over.len(), over[0].0.as_deref()), (1, Some("OP0")), "{over:?}");
    case.gpferry(&["repair"]).expect(0);
    case.gpferry(&["alarm", "check"]).expect(0).says("NORMAL").says("4 raised, 4 over");
}
