//! What is told, when, and when not: the judging alone, and then with a ledger.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::judge::{Seen, judge};
use super::{deliver, look};
use crate::inventory::{self, ConditionKind, Inventory};
use crate::ledger::Ledger;
use crate::ledger::alarms::{Alarm, Condition, Phase, Telling};
use crate::ledger::lock::AlarmLock;

const HOUR: i64 = 3600;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn condition(kind: ConditionKind, name: &str) -> Condition {
    Condition {
        key: format!("{kind} {name}"),
        kind,
        job: "j".into(),
        source: Some("s".into()),
        table: Some("a.t".into()),
        unit: Some(name.into()),
        window_start: None,
        window_end: None,
        group: None,
        text: format!("{name} is wrong"),
        remedy: "mend it".into(),
    }
}

fn failed(name: &str) -> Condition {
    condition(ConditionKind::Failed, name)
}

fn standing(number: i64, condition: Condition, told: i64) -> Alarm {
    let told_at = at(told);
    let id = number.to_string();
    Alarm {
        number,
        id,
        condition,
        raised_at: told_at,
        seen_at: told_at,
        told_at,
        times: 1,
        acked: None,
        over_at: None,
    }
}

fn seen(conditions: Vec<Condition>) -> Seen {
    Seen { conditions, undecided: HashSet::new(), jobs: HashSet::from(["j".to_owned()]) }
}

const REMIND: Option<Duration> = Some(Duration::from_secs(4 * 3600));

#[test]
fn what_is_new_is_raised_and_what_stands_is_not_raised_again() {
    let changes = judge(&[], seen(vec![failed("a"), failed("b")]), REMIND, None, at(0));
    assert_eq!(changes.raised, [failed("a"), failed("b")]);
    let changes =
        judge(&[standing(1, failed("a"), 0)], seen(vec![failed("a")]), REMIND, Some(at(0)), at(HOUR));
    assert_eq!((changes.raised.len(), changes.over.len()), (0, 0));
    assert_eq!(changes.going, [(1, failed("a"), Telling::Nothing)]);
}

#[test]
fn it_is_told_again_after_a_while_unless_somebody_has_taken_note_or_nobody_wants_that() {
    let telling = |alarm: Alarm, remind, now| {
        judge(&[alarm], seen(vec![failed("a")]), remind, Some(at(0)), at(now)).going[0].2
    };
    let alarm = standing(1, failed("a"), 0);
    assert_eq!(telling(alarm.clone(), REMIND, 4 * HOUR - 1), Telling::Nothing);
    assert_eq!(telling(alarm.clone(), REMIND, 4 * HOUR), Telling::Again);
    assert_eq!(telling(alarm.clone(), None, 400 * HOUR), Telling::Nothing);
    let acked = Alarm { acked: Some((at(1), "me".into())), ..alarm };
    assert_eq!(telling(acked, REMIND, 40 * HOUR), Telling::Nothing);
}

#[test]
fn what_is_seen_no_more_is_over_acknowledged_or_not() {
    let acked = Alarm { acked: Some((at(1), "me".into())), ..standing(2, failed("b"), 0) };
    let changes = judge(&[standing(1, failed("a"), 0), acked], seen(vec![]), REMIND, Some(at(0)), at(HOUR));
    assert_eq!(changes.over, [1, 2]);
}

#[test]
fn what_nobody_can_say_neither_begins_nor_ends() {
    let undecided = HashSet::from([failed("a").key, failed("b").key]);
    let seen = Seen { undecided, ..seen(vec![failed("b")]) };
    let changes = judge(&[standing(1, failed("a"), 0)], seen, REMIND, Some(at(0)), at(HOUR));
    assert_eq!((changes.raised, changes.going, changes.over), (vec![], vec![], vec![]));
}

#[test]
fn a_clock_that_was_set_back_raises_ends_and_repeats_nothing() {
    let late = condition(ConditionKind::Late, "late");
    let other = condition(ConditionKind::NotRun, "other");
    let alarms =
        [standing(1, late, 10 * HOUR), standing(2, failed("a"), 10 * HOUR), standing(3, failed("b"), 0)];
    let now_seen = seen(vec![other.clone(), failed("a"), failed("c")]);
    let changes = judge(&alarms, now_seen.clone(), REMIND, Some(at(10 * HOUR)), at(HOUR));
    // What the clock has no part in goes on as always; the rest waits for the next look.
    assert_eq!(changes.raised, [failed("c")]);
    assert_eq!(changes.going, [(2, failed("a"), Telling::Nowadays)]);
    assert_eq!(changes.over, [3]);
    let changes = judge(&alarms, now_seen, REMIND, Some(at(HOUR)), at(HOUR + 1));
    assert_eq!(changes.raised, [other, failed("c")]);
    assert_eq!(changes.over, [1, 3]);
}

#[test]
fn another_inventory_s_alarms_are_left_alone_until_nobody_has_seen_them_for_long() {
    let alarm =
        Alarm { condition: Condition { job: "other".into(), ..failed("a") }, ..standing(1, failed("a"), 0) };
    let over = |days: i64| {
        judge(std::slice::from_ref(&alarm), seen(vec![]), REMIND, Some(at(0)), at(days * 24 * HOUR)).over
    };
    assert_eq!((over(6), over(7)), (vec![], vec![1]));
}

#[test]
fn one_condition_that_is_seen_twice_is_one() {
    let changes = judge(&[], seen(vec![failed("a"), failed("a")]), REMIND, None, at(0));
    assert_eq!(changes.raised.len(), 1);
}

fn inventory(alarms: &str, job: &str) -> Inventory {
    let text = format!(
        "version: 1\nmount: {{ path: /mnt }}\ntarget: {{ url: \"postgresql://u@h/d\" }}\n\
         sources: {{ s: {{ host: h, engine: postgres, database: db }} }}\n\
         alarms: {{ remind: 4h, sinks: {{ {alarms} }} }}\n\
         jobs: {{ j: {{ source: s, from: 2021-08-10, {job} tables: [ {{ table: a.t, window: {{ column: c, length: 1d }} }} ] }} }}\n"
    );
    inventory::parse(&text, Path::new("i.yml")).unwrap()
}

const FILE: &str = "f: { kind: file, path: /nowhere/f }";

/// What a sink is to be told, as `phase text`.
fn told(ledger: &Ledger, sink: &str) -> Vec<String> {
    let messages = ledger.untold_messages(sink, 1000).unwrap();
    messages.iter().map(|one| format!("{} {}", one.phase.word(), one.condition.kind)).collect()
}

fn hear(ledger: &Ledger, sink: &str) {
    let ids: Vec<String> =
        ledger.untold_messages(sink, 1000).unwrap().into_iter().map(|message| message.id).collect();
    ledger.note_told(sink, &ids, None, at(0)).unwrap();
}

#[test]
fn a_late_table_is_told_once_again_and_over() {
    let ledger = Ledger::scratch().unwrap();
    let inventory = inventory(FILE, "late_after: 2h,");
    let start: Timestamp = "2021-08-11T00:05:00Z".parse().unwrap();
    let look = |hours: f64, inventory: &Inventory| {
        look(&ledger, inventory, "u", start + Duration::from_secs_f64(hours * 3600.0)).unwrap()
    };
    assert_eq!(look(2.0, &inventory).standing.len(), 0);
    let first = look(2.1, &inventory);
    assert_eq!((first.raised, first.standing.len()), (1, 1));
    let text = &first.standing[0].condition.text;
    assert!(
        text.contains("a.t of s is not loaded; what comes next has been due for 2h 6m, and 2h"),
        "{text}"
    );
    assert_eq!(look(2.2, &inventory).raised, 0);
    assert_eq!(told(&ledger, "f"), ["raised late"]);
    hear(&ledger, "f");
    assert_eq!(look(6.2, &inventory).reminded, 1);
    assert_eq!(told(&ledger, "f"), ["reminded late"]);
    // Two days on nobody has heard the reminder yet: there is one, not twelve.
    assert_eq!(look(30.0, &inventory).reminded, 1);
    assert_eq!(look(40.0, &inventory).reminded, 1);
    assert_eq!(told(&ledger, "f"), ["reminded late"]);
    let patient = self::inventory(FILE, "late_after: 30d,");
    assert_eq!(look(41.0, &patient).over, 1);
    assert_eq!(told(&ledger, "f"), ["over late"]);
    hear(&ledger, "f");
    assert_eq!((look(42.0, &patient).over, told(&ledger, "f")), (0, vec![]));
}

#[test]
fn an_acknowledged_alarm_is_not_told_again_and_its_end_is() {
    let ledger = Ledger::scratch().unwrap();
    let inventory = inventory(FILE, "late_after: 2h,");
    let now: Timestamp = "2021-08-12T00:00:00Z".parse().unwrap();
    let number = look(&ledger, &inventory, "u", now).unwrap().standing[0].number;
    hear(&ledger, "f");
    assert!(ledger.acknowledge(number, "me", now).unwrap().unwrap().acked.is_some());
    assert_eq!(ledger.acknowledge(number + 1, "me", now).unwrap(), None);
    assert_eq!(look(&ledger, &inventory, "u", now + Duration::from_secs(99 * 3600)).unwrap().reminded, 0);
    assert_eq!(told(&ledger, "f"), Vec::<String>::new());
    let patient = self::inventory(FILE, "late_after: 90d,");
    assert_eq!(look(&ledger, &patient, "u", now + Duration::from_secs(100 * 3600)).unwrap().over, 1);
    assert_eq!(told(&ledger, "f"), ["over late"]);
}

#[test]
fn a_job_that_is_not_run_is_told_from_when_it_was_first_expected() {
    let ledger = Ledger::scratch().unwrap();
    let inventory = inventory(FILE, "expect_every: 1h,");
    let now = at(0);
    let look =
        |minutes: u64| look(&ledger, &inventory, "u", now + Duration::from_secs(60 * minutes)).unwrap();
    assert_eq!((look(0).raised, look(60).raised), (0, 0));
    let looked = look(61);
    assert_eq!(looked.raised, 1);
    let text = &looked.standing[0].condition.text;
    assert!(text.contains("for 1h 1m, and one is expected every 1h; none ever did"), "{text}");
    ledger.begin_jobs("r", ["j"]).unwrap();
    assert_eq!(look(62).over, 0, "a run that has not come to its end is none");
    ledger.end_jobs("r", now + Duration::from_secs(60 * 63)).unwrap();
    assert_eq!(look(64).over, 1);
    assert_eq!((look(123).raised, look(124).raised), (0, 1));
}

#[test]
fn a_sink_hears_what_it_takes_and_each_message_has_its_own_number() {
    let ledger = Ledger::scratch().unwrap();
    let sinks = "f: { kind: file, path: /f, conditions: [ late ] }, g: { kind: file, path: /g, conditions: [ failed, not_run ] }";
    let inventory = inventory(sinks, "late_after: 2h, expect_every: 1h,");
    look(&ledger, &inventory, "u", at(0)).unwrap();
    look(&ledger, &inventory, "u", at(2 * HOUR)).unwrap();
    assert_eq!(told(&ledger, "f"), ["raised late"]);
    assert_eq!(told(&ledger, "g"), ["raised not_run"]);
    look(&ledger, &inventory, "u", at(20 * HOUR)).unwrap();
    let messages = ledger.untold_messages("f", 10).unwrap();
    assert_eq!(messages.iter().map(|one| one.phase).collect::<Vec<_>>(), [Phase::Raised, Phase::Reminded]);
    assert!(messages[0].id != messages[1].id && messages[0].alarm == messages[1].alarm, "{messages:?}");
    for id in messages.iter().map(|one| &one.id) {
        assert!(id.len() <= 18 && id.parse::<u64>().is_ok(), "{id}");
    }
}

#[test]
fn what_a_sink_did_not_hear_waits_with_the_reason() {
    let ledger = Ledger::scratch().unwrap();
    let inventory = inventory(FILE, "late_after: 2h,");
    look(&ledger, &inventory, "u", at(0)).unwrap();
    let id = ledger.untold_messages("f", 10).unwrap().remove(0).id;
    ledger.note_told("f", std::slice::from_ref(&id), Some("it is full"), at(1)).unwrap();
    let untold = ledger.untold().unwrap();
    assert_eq!((untold[0].messages, untold[0].error.as_deref()), (1, Some("it is full")));
    assert_eq!(ledger.untold_messages("f", 10).unwrap()[0].id, id);
    ledger.note_told("f", &[id], None, at(2)).unwrap();
    assert_eq!(ledger.untold().unwrap(), []);
}

/// A ledger in which each of these units has failed.
fn failing(ledger: &mut Ledger, inventory: &Inventory, count: usize) {
    use crate::ledger::{Record, RecordedFailure, Run, State};
    use crate::plan::{Catalog, Facts, Selection, plan};
    let run = Run {
        id: "r".into(),
        command: "run".into(),
        inventory: "i.yml".into(),
        target_url: "u".into(),
        started_at: at(0),
    };
    let units = plan(inventory, &Selection::default(), &Catalog::new(), &Facts::default(), at(0)).units;
    let failure = RecordedFailure {
        stage: "export",
        error: "the host is down".into(),
        remedy: "start it".into(),
        counts: false,
    };
    let record = Record {
        attempt: 1,
        state: State::Failed,
        started_at: at(0),
        exported: None,
        rows_loaded: None,
        rows_rejected: None,
        export_seconds: None,
        load_seconds: None,
        failure: Some(failure.into()),
    };
    assert!(units.len() >= count, "{}", units.len());
    ledger.record(&run, at(0), units.iter().take(count).map(|unit| (unit, &record))).unwrap();
}

#[test]
fn many_at_once_are_told_each_once_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alarms.jsonl");
    let mut ledger = Ledger::open(&directory.path().join("l.sqlite")).unwrap();
    let inventory =
        inventory(&format!("f: {{ kind: file, path: {} }}", path.display()), "until: 2023-08-10,");
    failing(&mut ledger, &inventory, 700);
    let looked = look(&ledger, &inventory, "u", at(1)).unwrap();
    assert_eq!((looked.raised, looked.standing.len()), (700, 700));
    let told = deliver(&ledger, &inventory, Duration::from_secs(30)).unwrap().unwrap();
    assert_eq!((told.len(), told[0].messages, &told[0].error), (1, 700, &None));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: HashSet<&str> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), ids.len()), (700, 700));
    assert!(lines.is_sorted_by_key(|line| line["number"].as_i64()));
    let first = &lines[0];
    assert_eq!(
        (&first["window_start"], &first["window_end"]),
        (&"2021-08-10T00:00:00".into(), &"2021-08-11T00:00:00".into())
    );
    assert_eq!(first["text"], "s:db^a^t^20210810000000^20210811000000 failed in export: the host is down");
    assert_eq!(deliver(&ledger, &inventory, Duration::from_secs(30)).unwrap(), Some(vec![]));
}

#[test]
fn one_process_tells_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&directory.path().join("l.sqlite")).unwrap();
    let path = directory.path().join("alarms.jsonl");
    let inventory = inventory(&format!("f: {{ kind: file, path: {} }}", path.display()), "late_after: 2h,");
    look(&ledger, &inventory, "u", at(0)).unwrap();
    let held = AlarmLock::take(ledger.path(), Duration::ZERO).unwrap().unwrap();
    assert_eq!(deliver(&ledger, &inventory, Duration::from_millis(100)).unwrap(), None);
    drop(held);
    assert_eq!(deliver(&ledger, &inventory, Duration::from_secs(9)).unwrap().unwrap()[0].messages, 1);
}

#[test]
fn what_is_over_for_long_is_forgotten_and_what_stands_is_not() {
    let mut ledger = Ledger::scratch().unwrap();
    let both = inventory(FILE, "late_after: 2h, expect_every: 1h,");
    look(&ledger, &both, "u", at(0)).unwrap();
    look(&ledger, &both, "u", at(2 * HOUR)).unwrap();
    look(&ledger, &inventory(FILE, "late_after: 2h,"), "u", at(3 * HOUR)).unwrap();
    assert_eq!(ledger.alarms(true).unwrap().len(), 2);
    assert_eq!(ledger.prune(at(2 * HOUR), &[], false).unwrap().alarms, 0);
    assert_eq!(ledger.prune(at(4 * HOUR), &["j".into()], false).unwrap().alarms, 0, "busy");
    assert_eq!(ledger.prune(at(4 * HOUR), &[], true).unwrap().alarms, 1);
    assert_eq!(ledger.prune(at(4 * HOUR), &[], false).unwrap().alarms, 1);
    assert_eq!(ledger.alarms(true).unwrap().len(), 1);
    assert_eq!(told(&ledger, "f"), ["raised late"]);
}
