//! A message as receivers read it: JSON, one line, and the fields that a table's columns take.

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::inventory::AlarmField;
use crate::ledger::alarms::{Message, Phase};

/// The version of the document.
const VERSION: u32 = 1;

/// Messages as one document, for programs and webhooks.
pub fn document(messages: &[Message]) -> Value {
    json!({ "version": VERSION, "host": host(), "alarms": messages.iter().map(one).collect::<Vec<_>>() })
}

/// A message as one line with its end, for files.
pub fn line(message: &Message) -> String {
    let mut value = one(message);
    value["version"] = VERSION.into();
    value["host"] = host().into();
    format!("{value}\n")
}

fn one(message: &Message) -> Value {
    let mut value = message.condition.json();
    value["id"] = message.id.as_str().into();
    value["alarm"] = message.alarm.as_str().into();
    value["number"] = json!(message.number);
    value["phase"] = message.phase.word().into();
    value["condition"] = kind(message).into();
    value["at"] = message.at.to_string().into();
    value["raised_at"] = message.raised_at.to_string().into();
    value
}

/// One field as text; `None` where the message has nothing to say. Times are of a zone, with its offset: a column without
/// a zone takes the former, one with a zone the instant.
pub fn field(message: &Message, field: AlarmField, zone: &TimeZone) -> Option<String> {
    let condition = &message.condition;
    let time = |at: jiff::Timestamp| {
        Some(at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.6f%:z").to_string())
    };
    match field {
        AlarmField::Id => Some(message.id.clone()),
        AlarmField::Alarm => Some(message.alarm.clone()),
        AlarmField::Phase => Some(message.phase.word().into()),
        AlarmField::Condition => Some(kind(message).into()),
        AlarmField::Job => Some(condition.job.clone()),
        AlarmField::Source => condition.source.clone(),
        AlarmField::Table => condition.table.clone(),
        AlarmField::Unit => condition.unit.clone(),
        AlarmField::WindowStart => condition.window_start.clone(),
        AlarmField::WindowEnd => condition.window_end.clone(),
        AlarmField::Group => condition.group.clone(),
        AlarmField::Text => Some(condition.text.clone()),
        AlarmField::Summary => {
            Some(format!("{}: {}: {}", message.phase.word(), kind(message), condition.text))
        }
        AlarmField::Remedy => Some(condition.remedy.clone()),
        AlarmField::At => time(message.at),
        AlarmField::RaisedAt => time(message.raised_at),
        AlarmField::Host => Some(host()),
    }
}

fn kind(message: &Message) -> &'static str {
    match message.phase {
        Phase::Test => "test",
        Phase::Raised | Phase::Reminded | Phase::Over => message.condition.kind.word(),
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
