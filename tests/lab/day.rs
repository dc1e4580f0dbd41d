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
    case.target
        .batch_execute(
            "CREATE SCHEMA dm; CREATE TABLE dm.system_alarm (data_seq_id bigint, data_name varchar(64), \
             evt_timestamp timestamp, defect_file_url text, ope_id varchar(32), index_url text); \
             GRANT ALL ON SCHEMA dm TO loader; GRANT ALL ON dm.system_alarm TO loader",
        )
        .unwrap();
    let windows = "{ table: public.t, window: { column: at, length: 4h } }";
    case.inventory_with("", DAY, &[windows, "{ table: public.whole, window: none }"]);
    let sinks = "alarms: { sinks: { dm: { kind: table, like: system_alarm } } }\njobs:";
    case.edit_inventory("jobs:", sinks);
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
