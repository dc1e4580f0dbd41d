//! What sinks are told, and which of it they have heard.

use jiff::Timestamp;
use openssl::sha::sha256;
use rusqlite::params;
use serde::Serialize;

use super::{COLUMNS, Condition, alarm, time};
use crate::inventory::ConditionKind;
use crate::ledger::coverage::at;
use crate::ledger::{Ledger, LedgerError};

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The condition is new.
    Raised,
    /// It goes on.
    Reminded,
    /// It is over.
    Over,
    /// Somebody tries a sink.
    Test,
}

impl Phase {
    /// The word in the ledger and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Reminded => "reminded",
            Self::Over => "over",
            Self::Test => "test",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "reminded" => Self::Reminded,
            "over" => Self::Over,
            "test" => Self::Test,
            _ => Self::Raised,
        }
    }
}

/// What a sink is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number for everybody: 18 digits at most, the same however often it is sent.
    pub id: String,
    /// The alarm, as [`super::Alarm::id`].
    pub alarm: String,
    /// The alarm's number in this ledger.
    pub number: i64,
    /// Why it is sent.
    pub phase: Phase,
    /// When that was.
    pub at: Timestamp,
    /// When the alarm was raised.
    pub raised_at: Timestamp,
    /// The condition, with the words of that time.
    pub condition: Condition,
}

/// A sink that was not told, or not all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Untold {
    /// Its name.
    pub sink: String,
    /// So many messages wait for it.
    pub messages: u64,
    /// Why, the last time.
    pub error: Option<String>,
}

/// A number of at most 18 digits, which fits a bigint and a text alike.
pub(super) fn number_of(what: &str) -> String {
    let digest = sha256(what.as_bytes());
    let first = digest.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    (first % 1_000_000_000_000_000_000).to_string()
}

impl Message {
    /// A message that says nothing but that it came through.
    pub fn test(now: Timestamp) -> Self {
        let condition = Condition {
            key: "test".into(),
            kind: ConditionKind::NotRun,
            job: "test".into(),
            source: None,
            table: None,
            unit: None,
            window_start: None,
            window_end: None,
            group: None,
            text: "a test of this sink: nothing is wrong".into(),
            remedy: "nothing is to be done".into(),
        };
        let id = number_of(&format!("test {now} {}", std::process::id()));
        let (alarm, number) = (id.clone(), 0);
        Self { id, alarm, number, phase: Phase::Test, at: now, raised_at: now, condition }
    }
}

impl Ledger {
    /// What a sink has not heard yet, oldest first, at most so many.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn untold_messages(&self, sink: &str, most: usize) -> Result<Vec<Message>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(&format!(
                "SELECT {COLUMNS}, m.id, m.phase, m.at, m.text, m.remedy
                 FROM alarm_delivery d JOIN alarm_message m ON m.id = d.message JOIN alarm a ON a.number = m.alarm
                 WHERE d.sink = ?1 AND d.told_at IS NULL ORDER BY m.rowid LIMIT ?2"
            ))?;
            let rows = statement.query_map(params![sink, most], |row| {
                let alarm = alarm(row)?;
                let condition = Condition { text: row.get(23)?, remedy: row.get(24)?, ..alarm.condition };
                Ok(Message {
                    id: row.get(20)?,
                    alarm: alarm.id,
                    number: alarm.number,
                    phase: Phase::of(&row.get::<_, String>(21)?),
                    at: time(row, 22)?,
                    raised_at: alarm.raised_at,
                    condition,
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|error| self.error(error))
    }

    /// Notes that a sink has heard these messages, or why not.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn note_told(
        &self,
        sink: &str,
        messages: &[String],
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let told_at = error.is_none().then(|| at(now));
        self.atomically(|ledger| {
            let write = || {
                let mut statement = ledger.connection.prepare_cached(
                    "UPDATE alarm_delivery SET told_at = ?3, error = ?4, tries = tries + 1
                     WHERE sink = ?1 AND message = ?2",
                )?;
                for message in messages {
                    statement.execute(params![sink, message, told_at, error])?;
                }
                Ok(())
            };
            write().map_err(|error| ledger.error(error))
        })
    }

    /// Who waits to be told.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn untold(&self) -> Result<Vec<Untold>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT sink, count(*), max(error) FROM alarm_delivery WHERE told_at IS NULL GROUP BY sink ORDER BY sink",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(Untold { sink: row.get(0)?, messages: row.get(1)?, error: row.get(2)? })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|error| self.error(error))
    }

    /// Forgets what waits for a sink that is no more; how much that was.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn forget_sink(&self, sink: &str) -> Result<usize, LedgerError> {
        let sql = "DELETE FROM alarm_delivery WHERE sink = ? AND told_at IS NULL";
        self.connection.execute(sql, [sink]).map_err(|error| self.error(error))
    }
}
