//! Alarms as text for people and JSON for programs.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{JSON_VERSION, block, count};
use crate::alarm::Told;
use crate::inventory::ConditionKind;
use crate::ledger::alarms::{Alarm, Untold};

/// What a check found.
#[derive(Debug)]
pub struct Found<'a> {
    /// What stands, newest first.
    pub standing: &'a [Alarm],
    /// Since when what follows is counted.
    pub since: Timestamp,
    /// So many were raised.
    pub raised: u64,
    /// So many were over.
    pub over: u64,
    /// Who waits to be told.
    pub waiting: Vec<Untold>,
    /// Does what somebody has taken note of not count?
    pub only_unacknowledged: bool,
    /// Tables with a `late_after` of which nobody can say when they are late.
    pub never_late: Vec<String>,
}

impl Found<'_> {
    /// Nothing stands that counts.
    pub fn is_normal(&self) -> bool {
        !self.standing.iter().any(|alarm| !self.only_unacknowledged || alarm.acked.is_none())
    }

    fn verdict(&self) -> &'static str {
        if self.is_normal() { "NORMAL" } else { "ABNORMAL" }
    }

    fn of(&self, kind: ConditionKind) -> usize {
        self.standing.iter().filter(|alarm| alarm.condition.kind == kind).count()
    }

    fn acknowledged(&self) -> usize {
        self.standing.iter().filter(|alarm| alarm.acked.is_some()).count()
    }
}

/// How many alarms a check names.
const MOST: usize = 20;

/// The verdict and the counts in the first line; below it what stands, and who waits to be told.
pub fn check_text(found: &Found<'_>, zone: &TimeZone, width: u16) -> String {
    let mut parts: Vec<String> = ConditionKind::ALL
        .into_iter()
        .filter(|kind| found.of(*kind) > 0)
        .map(|kind| format!("{} {kind}", found.of(kind)))
        .collect();
    if parts.is_empty() {
        parts.push("no alarm stands".into());
    }
    let acknowledged = match found.acknowledged() {
        0 => String::new(),
        number => format!(" ({number} acknowledged)"),
    };
    let mut text = format!(
        "{}: {}{acknowledged}; since {}: {} raised, {} over\n",
        found.verdict(),
        parts.join(", "),
        moment(found.since, zone),
        found.raised,
        found.over
    );
    for alarm in found.standing.iter().take(MOST) {
        text.push_str(&one(alarm, zone, width));
    }
    if found.standing.len() > MOST {
        let more = count((found.standing.len() - MOST) as u64, "more alarm");
        text.push_str(&format!("and {more}: `gpferry alarm list` shows them\n"));
    }
    for untold in &found.waiting {
        let why = untold.error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let line = format!("sink {} has not heard {}{why}", untold.sink, count(untold.messages, "message"));
        text.push_str(&block("", &line, width));
    }
    if let Some(first) = found.never_late.first() {
        let more = match found.never_late.len() - 1 {
            0 => String::new(),
            more => format!(" and {}", count(more as u64, "more table")),
        };
        let line = format!(
            "`late_after` says nothing of {first}{more}: windows of ids, and nobody knows when an id was due"
        );
        text.push_str(&block("", &line, width));
    }
    text
}

/// For programs.
pub fn check_json(found: &Found<'_>) -> Value {
    let counts: serde_json::Map<String, Value> =
        ConditionKind::ALL.into_iter().map(|kind| (kind.word().to_owned(), found.of(kind).into())).collect();
    json!({
        "version": JSON_VERSION,
        "verdict": found.verdict(),
        "standing": counts,
        "acknowledged": found.acknowledged(),
        "since": found.since.to_string(),
        "raised": found.raised,
        "over": found.over,
        "alarms": found.standing.iter().map(alarm).collect::<Vec<_>>(),
        "waiting": found.waiting,
        "never_late": found.never_late,
    })
}

/// For people.
pub fn list_text(alarms: &[Alarm], zone: &TimeZone, width: u16) -> String {
    match alarms {
        [] => "no alarm stands\n".into(),
        alarms => alarms.iter().map(|alarm| one(alarm, zone, width)).collect(),
    }
}

/// For programs.
pub fn list_json(alarms: &[Alarm]) -> Value {
    json!({ "version": JSON_VERSION, "alarms": alarms.iter().map(alarm).collect::<Vec<_>>() })
}

fn one(alarm: &Alarm, zone: &TimeZone, width: u16) -> String {
    let condition = &alarm.condition;
    let mut head = format!(
        "{}  {}  {}  since {}, told {}",
        alarm.number,
        condition.kind,
        condition.job,
        moment(alarm.raised_at, zone),
        count(u64::from(alarm.times), "time")
    );
    if let Some((at, who)) = &alarm.acked {
        head.push_str(&format!(", acknowledged by {who} at {}", moment(*at, zone)));
    }
    if let Some(at) = alarm.over_at {
        head.push_str(&format!(", over at {}", moment(at, zone)));
    }
    let mut text = format!("{head}\n{}", block("    ", &condition.text, width));
    if alarm.over_at.is_none() && !condition.remedy.is_empty() {
        text.push_str(&block("    try: ", &condition.remedy, width));
    }
    text
}

fn alarm(alarm: &Alarm) -> Value {
    let mut value = alarm.condition.json();
    value["number"] = alarm.number.into();
    value["alarm"] = alarm.id.as_str().into();
    value["condition"] = alarm.condition.kind.word().into();
    value["raised_at"] = alarm.raised_at.to_string().into();
    value["told_at"] = alarm.told_at.to_string().into();
    value["times"] = alarm.times.into();
    value["acknowledged_at"] = json!(alarm.acked.as_ref().map(|(at, _)| at.to_string()));
    value["acknowledged_by"] = json!(alarm.acked.as_ref().map(|(_, who)| who));
    value["over_at"] = json!(alarm.over_at.map(|at| at.to_string()));
    value
}

/// What became of sinks, for people.
pub fn told_text(told: &[Told], width: u16) -> String {
    if told.is_empty() {
        return "nothing waits to be told\n".into();
    }
    let mut text = String::new();
    for one in told {
        match &one.error {
            None => text.push_str(&format!("{}: {} told\n", one.sink, count(one.messages as u64, "message"))),
            Some(error) => {
                text.push_str(&block("", &format!("{}: FAILED: {error}", one.sink), width));
                text.push_str(&block("    try: ", &error.remedy, width));
            }
        }
    }
    text
}

/// For programs.
pub fn told_json(told: &[Told]) -> Value {
    let sinks: Vec<Value> = told
        .iter()
        .map(|one| {
            json!({
                "sink": one.sink,
                "messages": one.messages,
                "error": one.error.as_ref().map(ToString::to_string),
                "remedy": one.error.as_ref().map(|error| &error.remedy),
            })
        })
        .collect();
    json!({ "version": JSON_VERSION, "sinks": sinks })
}

fn moment(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
