//! Alarms as rows of a table: the ready-made one, and others.

use super::{colliding, mend, password};
use crate::proxy::{Cut, Proxy};
use crate::support::{Case, lab};

const SYSTEM_ALARM: &str = "CREATE SCHEMA dm; CREATE TABLE dm.system_alarm (data_seq_id {id}, data_name varchar(30), \
     evt_timestamp timestamp, defect_file_url varchar(60), ope_id varchar(10), index_url varchar(200))";

fn system_alarm(case: &mut Case, id: &str) {
    let user = lab().get("LAB_TARGET_USER");
    let grant =
        format!("; GRANT USAGE ON SCHEMA dm TO {user}; GRANT SELECT, INSERT ON dm.system_alarm TO {user}");
    case.target.batch_execute(&(SYSTEM_ALARM.replace("{id}", id) + &grant)).unwrap();
}

fn again(case: &Case) {
    let ledger = rusqlite::Connection::open(case.path("inventory.ledger.sqlite")).unwrap();
    ledger.execute_batch("UPDATE alarm_delivery SET told_at = NULL").unwrap();
}

#[test]
fn the_ready_made_table_holds_each_message_once_whatever_is_told_again() {
    for id in ["bigint", "varchar(40)", "char(40)", "numeric"] {
        let mut case = colliding("alarm_table", "board: { kind: table, like: system_alarm }");
        case.edit_inventory("version: 1\n", "version: 1\ntimezone: Asia/Shanghai\n");
        system_alarm(&mut case, id);
        case.gpferry(&["run"]).expect(3);
        mend(&mut case);
        case.gpferry(&["run"]).expect(0);
        // As after a crash between COMMIT and the ledger.
        again(&case);
        case.gpferry(&["alarm", "send"]).expect(0).says("board: 2 messages told");
        let rows = case
            .target
            .query(
                "SELECT data_seq_id::text, data_name, defect_file_url, ope_id, index_url, \
                 abs(extract(epoch FROM evt_timestamp - (now() AT TIME ZONE 'Asia/Shanghai')))::int \
                 FROM dm.system_alarm ORDER BY evt_timestamp",
                &[],
            )
            .unwrap();
        let text = |row: usize, column: usize| rows[row].get::<_, Option<String>>(column);
        assert_eq!(rows.len(), 2, "{id}");
        assert_ne!(text(0, 0), text(1, 0));
        for (row, phase) in [(0, "raised: failed: s:"), (1, "over: failed: s:")] {
            assert_eq!(text(row, 1).unwrap(), "GPTRANSFER");
            let said = text(row, 2).unwrap();
            assert!(said.starts_with(phase) && said.chars().count() <= 60, "{said}");
            assert_eq!((text(row, 3), text(row, 4)), (None, text(0, 4)));
            assert!(rows[row].get::<_, i32>(5) < 60, "not the time of the inventory's zone");
        }
    }
}

#[test]
fn a_row_whose_commit_was_not_answered_is_there_once() {
    for (cut, there) in [(Cut::After, 1), (Cut::Before, 0)] {
        let mut case = colliding("alarm_commit", "");
        system_alarm(&mut case, "bigint");
        let proxy = Proxy::new("127.0.0.1", lab().get("LAB_TARGET_PORT").parse().unwrap());
        let user = lab().get("LAB_TARGET_USER");
        let (port, database) = (proxy.port(), case.database().to_owned());
        let url = format!("postgresql://{user}@127.0.0.1:{port}/{database}?sslmode=disable");
        let sink = format!("board: {{ kind: table, like: system_alarm, url: \"{url}\" }}");
        case.edit_inventory("sinks: {  }", &format!("sinks: {{ {sink} }}"));
        let password = password();
        let with = [("PGPASSWORD", password.as_str())];
        proxy.cut_at_commit(cut);
        case.gpferry_with(&["run"], &with).expect(3).says("sink board of alarms was not told");
        assert_eq!(proxy.hits(), 1, "no COMMIT passed the proxy");
        assert_eq!(case.count("SELECT count(*) FROM dm.system_alarm"), there);
        case.gpferry_with(&["alarm", "send"], &with).expect(0).says("board: 1 message told");
        assert_eq!(case.count("SELECT count(*) FROM dm.system_alarm"), 1);
    }
}

#[test]
fn columns_are_filled_as_the_mapping_says() {
    let mapping = "board: { kind: table, table: '\"My\".alarms', conditions: [ failed ], columns: { \
         \"Id\": id, what: condition, word: { constant: \"it's\" }, at: at, \"no\": { constant: 42 }, unit: unit } }";
    let mut case = colliding("alarm_mapping", mapping);
    let user = lab().get("LAB_TARGET_USER");
    case.target
        .batch_execute(&format!(
            "CREATE SCHEMA \"My\"; CREATE TABLE \"My\".alarms (\"Id\" text, what text, word text, at timestamptz, \"no\" int, \
             unit text, more text DEFAULT 'more'); GRANT USAGE ON SCHEMA \"My\" TO {user}; \
             GRANT INSERT, SELECT ON \"My\".alarms TO {user}"
        ))
        .unwrap();
    case.gpferry(&["run"]).expect(3);
    let unit = format!("{}^public^t^all", case.database());
    let sql = format!(
        "SELECT count(*) FROM \"My\".alarms WHERE what = 'failed' AND word = 'it''s' AND \"no\" = 42 AND more = 'more' \
         AND unit = '{unit}' AND abs(extract(epoch FROM at - now())) < 60"
    );
    assert_eq!(case.count(&sql), 1);
}

#[test]
fn a_table_that_cannot_take_it_is_said_with_what_to_do_and_the_run_is_as_it_was() {
    let mut case = colliding("alarm_table_bad", "board: { kind: table, like: system_alarm, timeout: 3s }");
    case.gpferry(&["run"])
        .expect(3)
        .says("table dm.system_alarm does not exist")
        .says("create dm.system_alarm with");
    let send = |case: &Case| case.gpferry(&["alarm", "send"]).expect(13);
    system_alarm(&mut case, "int");
    send(&case).says("let `id` go to a bigint or a text");
    case.target.batch_execute("ALTER TABLE dm.system_alarm ALTER data_seq_id TYPE varchar(10)").unwrap();
    send(&case).says("cannot hold a number of 18 digits").says("let `id` go to a bigint or a text");
    assert_eq!(case.count("SELECT count(*) FROM dm.system_alarm"), 0);
    case.target
        .batch_execute(
            "ALTER TABLE dm.system_alarm ALTER data_seq_id TYPE varchar(20), ALTER ope_id SET NOT NULL",
        )
        .unwrap();
    send(&case).says("a NOT NULL column gets nothing");
    case.target.batch_execute("ALTER TABLE dm.system_alarm DROP ope_id").unwrap();
    send(&case).says("has no column ope_id");
    case.edit_inventory("like: system_alarm,", "like: system_alarm, columns: { ope_id: ~ },");
    // Whoever holds it locked holds nobody up.
    let mut holder = crate::support::Side::Target.connect(case.database());
    holder.batch_execute("BEGIN; LOCK TABLE dm.system_alarm").unwrap();
    let began = std::time::Instant::now();
    send(&case).says("SQLSTATE 57014");
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    holder.batch_execute("ROLLBACK").unwrap();
    // Another session that is still at it may yet commit: nobody inserts beside it.
    holder.batch_execute("SELECT pg_advisory_lock(1735419493, hashtext('dm.system_alarm'))").unwrap();
    send(&case).says("another session inserts alarms into it right now");
    drop(holder);
    crate::ends::wait_for("the lock to go", std::time::Duration::from_secs(10), || {
        case.gpferry(&["alarm", "send"]).stdout.contains("board: 1 message told")
    });
    assert_eq!(case.count("SELECT count(*) FROM dm.system_alarm"), 1);
    let user = lab().get("LAB_TARGET_USER");
    case.target.batch_execute(&format!("REVOKE SELECT ON dm.system_alarm FROM {user}")).unwrap();
    case.gpferry(&["alarm", "test"]).expect(13).says("GRANT SELECT, INSERT ON dm.system_alarm");
}
