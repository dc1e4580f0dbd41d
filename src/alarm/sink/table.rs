//! Rows of a table, each once: whether a row is there is asked in the statement that inserts it.

use super::{Deadline, SinkError, Surroundings};
use crate::alarm::document::field;
use crate::inventory::{AlarmField, ColumnValue, TableSink};
use crate::ledger::alarms::Message;
use crate::target::{Address, AlarmTable, Session, TargetError};

/// Inserts a row a message, all in one transaction.
pub(super) fn tell(
    sink: &TableSink,
    messages: &[Message],
    around: &Surroundings,
    deadline: Deadline,
) -> Result<(), SinkError> {
    let of = |error: TargetError| {
        // Its words speak of the target that is loaded; where another database is meant, its URL is in them.
        SinkError::new(format!("table {}: {error}", sink.table), remedy(sink, &error))
    };
    let url = sink.url.as_deref().unwrap_or(&around.target);
    let address = Address::new(url, |name| std::env::var(name).ok()).map_err(of)?;
    let rows: Vec<Vec<Option<String>>> = messages
        .iter()
        .map(|message| {
            let value = |value: &ColumnValue| match value {
                ColumnValue::Field(of) => field(message, *of, &around.zone),
                ColumnValue::Constant(text) => Some(text.clone()),
            };
            sink.columns.iter().map(|(_, one)| value(one)).collect()
        })
        .collect();
    let mut session = Session::open(&address, &around.log_schema).map_err(of)?;
    let left = deadline.left().ok_or_else(|| {
        let what = format!("table {}: connecting took all the time that there was", sink.table);
        SinkError::new(what, "look at the server, or allow more with `timeout`")
    })?;
    let is_id = |(_, value): &&(String, ColumnValue)| *value == ColumnValue::Field(AlarmField::Id);
    let id = sink.columns.iter().find(is_id).map(|(name, _)| name.as_str()).unwrap_or_default();
    let columns: Vec<&str> = sink.columns.iter().map(|(name, _)| name.as_str()).collect();
    session.insert_alarms(&AlarmTable { name: &sink.table, columns: &columns, id }, &rows, left).map_err(of)
}

fn remedy(sink: &TableSink, error: &TargetError) -> String {
    match error.sqlstate() {
        Some("42501") => {
            format!("let somebody who may do so: GRANT SELECT, INSERT ON {} TO <the user>", sink.table)
        }
        Some("42P01" | "3F000" | "42703") => {
            format!("create {} with the columns that the sink names, or correct them", sink.table)
        }
        Some("22003") => {
            "a column takes less than a number of 18 digits: let `id` go to a bigint or a text".into()
        }
        Some("23502") => {
            "a NOT NULL column gets nothing: name it in `columns`, with a field or { constant: … }".into()
        }
        Some(_) | None => error.remedy(),
    }
}
