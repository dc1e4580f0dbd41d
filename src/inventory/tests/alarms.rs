//! `alarms:`, `late_after` and `expect_every`.

use super::faults::found;
use super::*;

fn alarms(sinks: &str) -> String {
    SMALL.replace("jobs:\n", &format!("alarms:\n  sinks:\n    a: {sinks}\njobs:\n"))
}

/// A sink with exactly one fault, at this key, whose message holds these words.
#[track_caller]
fn fault(sink: &str, key: &str, words: &str) {
    let error = read(&alarms(sink)).expect_err("the text was taken for good");
    assert_eq!(error.faults.len(), 1, "{error}");
    let fault = &error.faults[0];
    let wanted = if key.is_empty() { "alarms.sinks.a".to_owned() } else { format!("alarms.sinks.a.{key}") };
    assert_eq!((fault.key.as_str(), fault.place.line), (wanted.as_str(), 8), "{error}");
    let said = format!("{} try: {}", fault.what, fault.remedy);
    assert!(said.contains(words), "{said}");
}

fn way(sink: &str) -> Way {
    read(&alarms(sink)).unwrap().alarms.sinks.remove(0).way
}

#[test]
fn nobody_is_told_by_default() {
    let inventory = read(SMALL).unwrap();
    assert_eq!(inventory.alarms, Alarms { remind: Some(Duration::from_secs(86_400)), sinks: vec![] });
    assert_eq!((inventory.jobs[0].expect_every, inventory.jobs[0].tables[0].late_after), (None, None));
}

#[test]
fn sinks_mean_what_they_say() {
    let text = alarms("{ kind: file, path: /var/log/x, conditions: [ late, not_run ], timeout: 3s }");
    let sink = read(&text).unwrap().alarms.sinks.remove(0);
    let conditions = [ConditionKind::Late, ConditionKind::NotRun].into();
    let (name, timeout, way_) = ("a".into(), Duration::from_secs(3), Way::File("/var/log/x".into()));
    assert_eq!(sink, Sink { name, conditions, timeout, way: way_ });
    assert_eq!(
        way("{ kind: command, command: [ x, -y, 7 ] }"),
        Way::Command(vec!["x".into(), "-y".into(), "7".into()])
    );
    let hook = Webhook {
        url: Given::Variable("URL".into()),
        token: Some(Given::File("/t".into())),
        header: "X-Key".into(),
        ca: Some("/ca.pem".into()),
        retries: 0,
    };
    let text =
        "{ kind: webhook, url: { env: URL }, token: { file: /t }, header: X-Key, ca: /ca.pem, retries: 0 }";
    assert_eq!(way(text), Way::Webhook(hook));
    for (remind, meant) in [("never", None), ("90m", Some(Duration::from_secs(5400)))] {
        let text =
            alarms("{ kind: file, path: /x }").replace("  sinks:", &format!("  remind: {remind}\n  sinks:"));
        assert_eq!(read(&text).unwrap().alarms.remind, meant);
    }
}

#[test]
fn a_ready_made_table_may_be_changed_column_by_column() {
    let Way::Table(table) = way(
        "{ kind: table, like: system_alarm, columns: { ope_id: ~, data_name: { constant: X }, site: job } }",
    ) else {
        panic!("no table");
    };
    assert_eq!((table.table.to_string().as_str(), table.url), ("dm.system_alarm", None));
    let names: Vec<_> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["data_seq_id", "data_name", "evt_timestamp", "defect_file_url", "index_url", "site"]);
    assert_eq!(table.columns[1].1, ColumnValue::Constant("X".into()));
    assert_eq!(table.columns[5].1, ColumnValue::Field(AlarmField::Job));
}

#[test]
fn what_is_late_is_said_at_the_table_the_job_or_for_all() {
    let text = SMALL
        .replace("jobs:\n", "defaults: { late_after: 1h, expect_every: 2h }\njobs:\n")
        .replace("  j:\n", "  i:\n    source: fab1\n    tables: [ { table: a.c, window: none, late_after: 5m } ]\n  j:\n    late_after: 3h\n    expect_every: 4h\n");
    let inventory = read(&text).unwrap();
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    let meant: Vec<_> =
        inventory.jobs.iter().map(|job| (job.tables[0].late_after, job.expect_every)).collect();
    assert_eq!(meant, [(Some(Duration::from_secs(300)), hours(2)), (hours(3), hours(4))]);
}

#[test]
fn faults_of_sinks() {
    fault("{ path: /x }", "kind", "missing");
    fault("{ kind: fiel, path: /x }", "kind", "did you mean `file`");
    fault("{ kind: file }", "path", "missing");
    fault("{ kind: file, path: x }", "path", "not an absolute path");
    fault("{ kind: file, path: /x, url: y }", "url", "not known");
    fault("{ kind: file, path: /x, conditions: [ faild ] }", "conditions[0]", "did you mean `failed`");
    fault("{ kind: file, path: /x, conditions: [] }", "conditions", "empty");
    fault("{ kind: file, path: /x, timeout: 5m }", "timeout", "a minute at most");
    fault("{ kind: command, command: mail }", "command", "a list is needed");
    fault("{ kind: command, command: [] }", "command", "empty");
    fault("{ kind: table, columns: { x: id } }", "table", "missing");
    fault("{ kind: table, table: a.b }", "columns", "missing");
    fault("{ kind: table, table: a.b, columns: { x: text } }", "columns", "no column takes `id`");
    fault(
        "{ kind: table, like: system_alarm, columns: { data_seq_id: ~ } }",
        "columns",
        "no column takes `id`",
    );
    fault("{ kind: table, like: system_alram }", "like", "did you mean `system_alarm`");
    fault("{ kind: table, table: a.b, columns: { x: id, y: unti } }", "columns.y", "did you mean `unit`");
    fault("{ kind: table, table: a.b, columns: { x: id, y: 7 } }", "columns.y", "the name of a field");
    fault("{ kind: table, table: b, columns: { x: id } }", "table", "schema.table");
    fault("{ kind: table, like: system_alarm, url: mysql://h/d }", "url", "postgresql://");
    fault("{ kind: webhook, url: ftp://x }", "url", "not the URL of a webhook");
    fault("{ kind: webhook, url: http://x, token: { env: T } }", "url", "unencrypted");
    fault(
        "{ kind: webhook, url: https://x, token: { env: T, file: /t } }",
        "token",
        "one of `env` and `file`",
    );
    fault("{ kind: webhook, url: https://x, header: \"A: b\" }", "header", "not the name of a header");
    fault("[ x ]", "", "a map of keys is needed");
}

#[test]
fn secrets_of_sinks_are_refused_and_not_shown() {
    for (sink, key) in [
        ("{ kind: webhook, url: https://x, token: s3cret }", "token"),
        ("{ kind: webhook, url: https://x, token: { env: \"s3cret token\" } }", "token.env"),
        ("{ kind: webhook, url: \"https://u:s3cret@x\" }", "url"),
        ("{ kind: table, like: system_alarm, url: \"postgresql://u:s3cret@h/d\" }", "url"),
    ] {
        let error = read(&alarms(sink)).unwrap_err();
        assert_eq!(
            (error.faults.len(), error.faults[0].key.as_str()),
            (1, format!("alarms.sinks.a.{key}").as_str())
        );
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let text = SMALL.replace(
        "jobs:\n",
        "alarms:\n  remind: soon\n  sinks:\n    a: { kind: file }\n    password: { kind: command, command: [ x ], timeout: 0s }\n    a b: { kind: file, path: /x }\njobs:\n",
    );
    assert_eq!(
        found(&text),
        [
            "7:11 alarms.remind",
            "9:5 alarms.sinks.a.path",
            "10:57 alarms.sinks.password.timeout",
            "11:5 alarms.sinks.\"a b\""
        ]
    );
}
