//! `alarms:`, who is told when something is wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::Fault;
use super::model::{AlarmField, Alarms, ColumnValue, ConditionKind, Given, Sink, TableSink, Way, Webhook};
use super::reader::{At, Fields, Reader};
use super::scalars::{absolute, any_text, length, text, whole, word};
use super::secrets::{query_password, url_password};
use super::sources::check_name;
use super::suggest;
use super::top::check_url;
use super::yaml::Value;
use crate::names::TableName;

const EXAMPLE: &str = "alarms: { sinks: { board: { kind: table, like: system_alarm } } }";
const SINK: &str = "board: { kind: table, like: system_alarm }";
const TOKEN: &str = "token: { env: ALARM_TOKEN }";
const COLUMNS: &str = "columns: { alarm_id: id, alarm_name: { constant: GPFERRY }, alarm_text: summary }";

/// How a sink is told, before its other keys are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    Command,
    Webhook,
    File,
}

const KINDS: [(&str, Kind); 4] =
    [("table", Kind::Table), ("command", Kind::Command), ("webhook", Kind::Webhook), ("file", Kind::File)];

impl Kind {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Table => &["kind", "conditions", "timeout", "url", "table", "like", "columns"],
            Kind::Command => &["kind", "conditions", "timeout", "command"],
            Kind::Webhook => &["kind", "conditions", "timeout", "url", "token", "header", "ca", "retries"],
            Kind::File => &["kind", "conditions", "timeout", "path"],
        }
    }
}

/// A ready-made table: its name, and what goes into its columns.
struct Preset {
    table: (&'static str, &'static str),
    columns: fn() -> Vec<(&'static str, ColumnValue)>,
}

/// The alarm table of a quality system: six columns, of which one tells programs apart.
const SYSTEM_ALARM: Preset = Preset {
    table: ("dm", "system_alarm"),
    columns: || {
        let field = ColumnValue::Field;
        vec![
            ("data_seq_id", field(AlarmField::Id)),
            ("data_name", ColumnValue::Constant("GPTRANSFER".into())),
            ("evt_timestamp", field(AlarmField::At)),
            ("defect_file_url", field(AlarmField::Summary)),
            ("ope_id", field(AlarmField::Group)),
            ("index_url", field(AlarmField::Alarm)),
        ]
    },
};

/// Everything below `alarms:`.
pub(super) fn read(reader: &mut Reader, at: &At<'_>) -> Alarms {
    let mut alarms = Alarms::default();
    let Some(fields) = reader.fields(at, &["remind", "sinks"], EXAMPLE) else { return alarms };
    if let Some(at) = fields.get("remind") {
        alarms.remind = match &at.node.value {
            Value::Text(text) if text == "never" => None,
            _ => length(reader, &at, "remind: 12h, or remind: never").map(|length| length.as_duration()),
        };
    }
    if let Some(at) = fields.need(reader, "sinks", "sinks: { board: { kind: table, like: system_alarm } }") {
        for (key, at) in reader.entries(&at, &format!("sinks: {{ {SINK} }}")) {
            check_name(reader, &key.text, &at, "sink");
            alarms.sinks.extend(read_sink(reader, &key.text, &at));
        }
    }
    alarms
}

fn read_sink(reader: &mut Reader, name: &str, at: &At<'_>) -> Option<Sink> {
    let Value::Map(entries) = &at.node.value else {
        reader.wrong_type(at, "a map of keys", format!("write it as {SINK}"));
        return None;
    };
    // Which keys are known depends on the kind, so that is looked at before.
    let written = entries.iter().find(|(key, _)| &*key.text == "kind").map(|(_, node)| &node.value);
    let known = match written {
        Some(Value::Text(text)) => KINDS.iter().find(|(word, _)| word == text).map(|(_, kind)| *kind),
        _ => None,
    };
    let Some(kind) = known else {
        const ANY: &[&str] = &[
            "kind",
            "conditions",
            "timeout",
            "url",
            "table",
            "like",
            "columns",
            "command",
            "token",
            "header",
            "ca",
            "retries",
            "path",
        ];
        let fields = reader.fields(at, ANY, SINK)?;
        let kind = fields.need(reader, "kind", "kind: table, command, webhook or file")?;
        word(reader, &kind, &KINDS);
        return None;
    };
    let fields = reader.fields(at, kind.keys(), SINK)?;
    let conditions = fields.get("conditions").map(|at| read_conditions(reader, &at));
    let timeout = fields.get("timeout").and_then(|at| read_timeout(reader, &at));
    let way = match kind {
        Kind::Table => read_table(reader, &fields).map(Way::Table),
        Kind::Command => read_command(reader, &fields).map(Way::Command),
        Kind::Webhook => read_webhook(reader, &fields).map(Way::Webhook),
        Kind::File => fields
            .need(reader, "path", "path: /var/log/gpferry/alarms.jsonl")
            .and_then(|at| absolute(reader, &at, "path: /var/log/gpferry/alarms.jsonl"))
            .map(Way::File),
    };
    Some(Sink {
        name: name.to_owned(),
        conditions: conditions.unwrap_or_else(|| ConditionKind::ALL.into()),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        way: way?,
    })
}

fn read_conditions(reader: &mut Reader, at: &At<'_>) -> BTreeSet<ConditionKind> {
    let words = ConditionKind::ALL.map(|kind| (kind.word(), kind));
    let items = reader.items(at, "conditions: [ failed, late ]");
    items.iter().filter_map(|at| word(reader, at, &words)).collect()
}

/// A run waits for its sinks, so none may ask for long.
fn read_timeout(reader: &mut Reader, at: &At<'_>) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(60);
    let timeout = length(reader, at, "timeout: 10s")?.as_duration();
    if timeout > LONGEST {
        let what = "a sink may take a minute at most, since runs wait for it";
        reader.fault(at, what, "write it as timeout: 10s");
        return None;
    }
    Some(timeout)
}

fn read_table(reader: &mut Reader, fields: &Fields<'_>) -> Option<TableSink> {
    const PRESETS: [(&str, &Preset); 1] = [("system_alarm", &SYSTEM_ALARM)];
    let url = fields.get("url").and_then(|at| {
        let url = text(reader, &at, "url: \"postgresql://monitor@gp6:5432/qmsprd\"")?;
        if let Err((what, remedy)) = check_url(url, &["postgresql", "postgres"]) {
            reader.fault(&at, what, remedy);
        }
        Some(url.to_owned())
    });
    let like = fields.get("like");
    let preset = like.as_ref().and_then(|at| word(reader, at, &PRESETS));
    let table = match (fields.get("table"), preset) {
        (Some(at), _) => read_name(reader, &at),
        (None, Some(preset)) => TableName::new(preset.table.0, preset.table.1).ok(),
        // What `like` was meant to be is unknown, and a fault already.
        (None, None) if like.is_some() => None,
        (None, None) => {
            fields.need(reader, "table", "table: dm.alarms, or like: system_alarm");
            None
        }
    };
    let mut columns: Vec<(String, ColumnValue)> = preset
        .map(|preset| (preset.columns)().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        .unwrap_or_default();
    let before = reader.faults_so_far();
    match fields.get("columns") {
        Some(at) => lay_over(reader, &at, &mut columns),
        None if like.is_none() => drop(fields.need(reader, "columns", COLUMNS)),
        None => {}
    }
    let has_id = columns.iter().any(|(_, value)| *value == ColumnValue::Field(AlarmField::Id));
    let at = fields.get("columns").filter(|_| !has_id && before == reader.faults_so_far());
    if let Some(at) = at {
        let what = "no column takes `id`, and without it nobody could tell whether a row is there already";
        reader.fault(&at, what, format!("write it as {COLUMNS}"));
    }
    Some(TableSink { url, table: table?, columns })
}

/// Columns as written, over the ready-made ones; `~` takes one of those away.
fn lay_over(reader: &mut Reader, at: &At<'_>, columns: &mut Vec<(String, ColumnValue)>) {
    for (key, at) in reader.entries(at, COLUMNS) {
        let name = &*key.text;
        if name.is_empty() || name.chars().any(char::is_control) {
            let what = "this is not the name of a column";
            reader.add(Fault::new(at.named, at.path.clone(), what, format!("write it as {COLUMNS}")));
            continue;
        }
        let place = columns.iter().position(|(column, _)| column == name);
        match (&at.node.value, place) {
            (Value::Null, Some(place)) => drop(columns.remove(place)),
            (Value::Map(_), _) | (Value::Text(_), _) => {
                let Some(value) = read_value(reader, &at) else { continue };
                match place {
                    Some(place) => columns[place].1 = value,
                    None => columns.push((name.to_owned(), value)),
                }
            }
            (_, _) => {
                reader.wrong_type(
                    &at,
                    "the name of a field, or a constant",
                    format!("write it as {COLUMNS}"),
                );
            }
        }
    }
}

fn read_value(reader: &mut Reader, at: &At<'_>) -> Option<ColumnValue> {
    if let Value::Map(_) = &at.node.value {
        let fields = reader.fields(at, &["constant"], "{ constant: GPFERRY }")?;
        let at = fields.need(reader, "constant", "{ constant: GPFERRY }")?;
        return match &at.node.value {
            Value::Number(text) => Some(ColumnValue::Constant(text.clone())),
            _ => {
                any_text(reader, &at, "constant: \"GPFERRY\"").map(|text| ColumnValue::Constant(text.into()))
            }
        };
    }
    let written = text(reader, at, "id")?;
    let found = AlarmField::ALL.iter().find(|(word, _)| *word == written);
    if found.is_none() {
        let words = AlarmField::ALL.map(|(word, _)| word);
        let meant = suggest::nearest(written, words).map(|word| format!("did you mean `{word}`? "));
        let shown = reader.secrets.echo(written);
        let remedy = format!(
            "{}One of: {}; a text that is always the same is written {{ constant: … }}",
            meant.unwrap_or_default(),
            words.join(", ")
        );
        reader.fault(at, format!("{shown} is not a field of an alarm"), remedy);
    }
    found.map(|(_, field)| ColumnValue::Field(*field))
}

fn read_name(reader: &mut Reader, at: &At<'_>) -> Option<TableName> {
    let name = text(reader, at, "table: dm.alarms")?;
    TableName::parse(name)
        .map_err(|error| {
            let what = reader.secrets.told(name, error.to_string());
            reader.fault(at, what, "write it as table: dm.alarms");
        })
        .ok()
}

fn read_command(reader: &mut Reader, fields: &Fields<'_>) -> Option<Vec<String>> {
    const EXAMPLE: &str = "command: [ /usr/local/bin/mail-alarm, --to, ops ]";
    let at = fields.need(reader, "command", EXAMPLE)?;
    let items = reader.items(&at, EXAMPLE);
    let words: Vec<String> = items
        .iter()
        .filter_map(|at| {
            let word = match &at.node.value {
                Value::Number(text) => text.clone(),
                _ => any_text(reader, at, EXAMPLE)?.to_owned(),
            };
            if word.contains('\0') {
                reader.fault(at, "a NUL character is in it", format!("write it as {EXAMPLE}"));
            }
            Some(word)
        })
        .collect();
    (!words.is_empty() && words.len() == items.len()).then_some(words)
}

fn read_webhook(reader: &mut Reader, fields: &Fields<'_>) -> Option<Webhook> {
    let url = fields
        .need(reader, "url", "url: \"https://alarms.example.com/hook\"")
        .and_then(|at| read_url(reader, &at, fields.get("token").is_some()));
    let token = fields.get("token").and_then(|at| match &at.node.value {
        Value::Map(_) => read_given(reader, &at, TOKEN),
        _ => {
            // Whatever stands here must not be shown.
            reader.secrets.remember(at.node);
            let remedy = format!("keep it in a variable or a file (mode 0600), as in {TOKEN}");
            reader.fault(&at, "a secret does not belong in an inventory", remedy);
            None
        }
    });
    let header = fields.get("header").and_then(|at| read_header(reader, &at));
    Some(Webhook {
        url: url?,
        token,
        header: header.unwrap_or_else(|| "Authorization".into()),
        ca: fields.get("ca").and_then(|at| absolute(reader, &at, "ca: /etc/ssl/factory-ca.pem")),
        retries: fields.get("retries").and_then(|at| whole(reader, &at, 0..=10, "retries: 2")).unwrap_or(2),
    })
}

/// Where a webhook is. Some of them are secret by their path, and kept elsewhere.
fn read_url(reader: &mut Reader, at: &At<'_>, has_token: bool) -> Option<Given> {
    const URL: &str = "url: \"https://alarms.example.com/hook\"";
    if let Value::Map(_) = &at.node.value {
        return read_given(reader, at, "url: { env: ALARM_URL }");
    }
    let url = text(reader, at, URL)?;
    if url_password(url).is_some() || query_password(url).is_some() {
        let remedy = "keep the URL in a variable or a file (mode 0600), as in url: { env: ALARM_URL }";
        reader.fault(at, "a password stands in the URL", remedy);
        return None;
    }
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if !matches!(scheme, "https" | "http") || rest.is_empty() || url.contains(char::is_whitespace) {
        let shown = reader.secrets.echo(url);
        reader.fault(at, format!("{shown} is not the URL of a webhook"), format!("write it as {URL}"));
        return None;
    }
    if scheme == "http" && has_token {
        reader.fault(at, "the token would be sent unencrypted", "write https:// in the place of http://");
        return None;
    }
    Some(Given::Written(url.to_owned()))
}

/// `{ env: NAME }` or `{ file: /path }`.
fn read_given(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<Given> {
    let fields = reader.fields(at, &["env", "file"], example)?;
    match (fields.get("env"), fields.get("file")) {
        (Some(at), None) => {
            let name = text(reader, &at, "env: \"ALARM_TOKEN\"")?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
                // It may be the secret itself that somebody wrote here.
                let what = "this is not the name of an environment variable";
                reader.fault(&at, what, "letters, digits and `_`, as in env: ALARM_TOKEN");
                return None;
            }
            Some(Given::Variable(name.to_owned()))
        }
        (None, Some(at)) => absolute(reader, &at, "file: /etc/gpferry/token").map(Given::File),
        (_, _) => {
            let what = "one of `env` and `file` says where it is kept";
            reader.fault(at, what, format!("write it as {example}"));
            None
        }
    }
}

fn read_header(reader: &mut Reader, at: &At<'_>) -> Option<String> {
    let header = text(reader, at, "header: \"X-Api-Key\"")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !header.chars().all(plain) {
        let shown = reader.secrets.echo(header);
        reader.fault(at, format!("{shown} is not the name of a header"), "write it as header: X-Api-Key");
        return None;
    }
    Some(header.to_owned())
}
