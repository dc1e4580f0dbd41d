//! What is wrong, as it was told: conditions that stand, the messages about them, and who has heard each.
//!
//! A condition is known by its key. The one that stands is told once, again after a while, and once more when it is
//! over; one that comes back later is another. Which of these it is, is judged elsewhere (`crate`'s floors above);
//! here it is written down, in the transaction that it was read in.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::coverage::at;
use super::{Ledger, LedgerError};
use crate::inventory::{ConditionKind, Sink};

mod messages;

use messages::number_of;
pub use messages::{Message, Phase, Untold};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is known by, the same every time that it is looked at.
    pub key: String,
    /// What kind of thing is wrong.
    pub kind: ConditionKind,
    /// The job.
    pub job: String,
    /// The source.
    pub source: Option<String>,
    /// The table in the source.
    pub table: Option<String>,
    /// The unit's id.
    pub unit: Option<String>,
    /// Start of the window: a time, or an id.
    pub window_start: Option<String>,
    /// Its end.
    pub window_end: Option<String>,
    /// The group, where differences are told by group.
    pub group: Option<String>,
    /// What is wrong, without cell values.
    pub text: String,
    /// What to try.
    pub remedy: String,
}

impl Condition {
    /// What is wrong, of what, for programs.
    pub fn json(&self) -> Value {
        json!({
            "job": self.job,
            "source": self.source,
            "table": self.table,
            "unit": self.unit,
            "window_start": self.window_start,
            "window_end": self.window_end,
            "group": self.group,
            "text": self.text,
            "remedy": self.remedy,
        })
    }
}

/// A condition that was raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Its number in this ledger, for people.
    pub number: i64,
    /// Its number for everybody else: 18 digits at most.
    pub id: String,
    /// What is wrong.
    pub condition: Condition,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// When it was seen last.
    pub seen_at: Timestamp,
    /// When it was told last.
    pub told_at: Timestamp,
    /// How often it was told so far.
    pub times: u32,
    /// When somebody took note of it, and who.
    pub acked: Option<(Timestamp, String)>,
    /// When it was over.
    pub over_at: Option<Timestamp>,
}

/// What a look at everything leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones.
    pub raised: Vec<Condition>,
    /// Those that go on.
    pub going: Vec<(i64, Condition, Telling)>,
    /// Those that are over.
    pub over: Vec<i64>,
}

/// What is told of an alarm that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Nothing.
    Nothing,
    /// It is told again.
    Again,
    /// Nothing, and it counts as told now: the clock was set back.
    Nowadays,
}

const COLUMNS: &str = "a.number, a.id, a.key, a.kind, a.job, a.source, a.table_name, a.unit, a.window_start, \
     a.window_end, a.in_group, a.text, a.remedy, a.raised_at, a.seen_at, a.told_at, a.times, a.acked_at, a.acked_by, \
     a.over_at";

impl Ledger {
    /// Does something in one transaction, which sees one state of the ledger and keeps other writers out.
    ///
    /// # Errors
    /// What `work` failed with, and then nothing was written; [`LedgerError`].
    pub fn atomically<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let run = |sql: &str| self.connection.execute_batch(sql).map_err(|error| self.error(error));
        run("BEGIN IMMEDIATE")?;
        let done = work(self).and_then(|done| run("COMMIT").map(|()| done));
        if done.is_err() {
            // What failed may have ended the transaction itself.
            let _ = run("ROLLBACK");
        }
        done
    }

    /// Alarms, newest first: those that stand, or all.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn alarms(&self, also_over: bool) -> Result<Vec<Alarm>, LedgerError> {
        let which = if also_over { "" } else { "WHERE a.over_at IS NULL" };
        let read = || {
            let mut statement = self
                .connection
                .prepare(&format!("SELECT {COLUMNS} FROM alarm a {which} ORDER BY a.number DESC"))?;
            let rows = statement.query_map([], alarm)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|error| self.error(error))
    }

    /// How many alarms were raised, and how many were over, since then.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn alarms_since(&self, since: Timestamp) -> Result<(u64, u64), LedgerError> {
        self.connection
            .query_row(
                "SELECT count(*) FILTER (WHERE raised_at >= ?1), count(*) FILTER (WHERE over_at >= ?1) FROM alarm",
                [at(since)],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .map_err(|error| self.error(error))
    }

    /// Keys of units that failed once, whose alarm stands, and of which nobody can say now whether they fail again:
    /// they are on their way.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn units_on_their_way(&self) -> Result<HashSet<(String, String)>, LedgerError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT u.source, u.id FROM alarm a JOIN unit u ON u.source = a.source AND u.id = a.unit
                 WHERE a.over_at IS NULL AND u.state IN ('exporting', 'exported', 'loading')",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.error(error))
    }

    /// When everything was looked at last.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn last_look(&self) -> Result<Option<Timestamp>, LedgerError> {
        self.connection
            .query_row("SELECT at FROM alarm_look", [], |row| row.get::<_, String>(0))
            .optional()
            .map(|found| found.and_then(|at| at.parse().ok()))
            .map_err(|error| self.error(error))
    }

    /// Writes down what a look led to, and what each sink is to be told of it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn note_alarms(&self, changes: &Changes, sinks: &[Sink], now: Timestamp) -> Result<(), LedgerError> {
        let write = || {
            for condition in &changes.raised {
                let number = self.raise(condition, now)?;
                self.tell(number, Phase::Raised, sinks, now)?;
            }
            for (number, condition, telling) in &changes.going {
                self.connection.execute(
                    "UPDATE alarm SET seen_at = ?2, text = ?3, remedy = ?4 WHERE number = ?1",
                    params![number, at(now), condition.text, condition.remedy],
                )?;
                match telling {
                    Telling::Nothing => {}
                    Telling::Again => self.tell(*number, Phase::Reminded, sinks, now)?,
                    Telling::Nowadays => {
                        let sql = "UPDATE alarm SET told_at = ?2 WHERE number = ?1";
                        self.connection.execute(sql, params![number, at(now)])?;
                    }
                }
            }
            for number in &changes.over {
                let sql = "UPDATE alarm SET over_at = ?2 WHERE number = ?1";
                self.connection.execute(sql, params![number, at(now)])?;
                self.tell(*number, Phase::Over, sinks, now)?;
            }
            self.connection.execute("INSERT OR REPLACE INTO alarm_look (one, at) VALUES (1, ?)", [at(now)])
        };
        write().map(drop).map_err(|error| self.error(error))
    }

    fn raise(&self, condition: &Condition, now: Timestamp) -> rusqlite::Result<i64> {
        self.connection
            .prepare_cached(
                "INSERT INTO alarm (id, key, kind, job, source, table_name, unit, window_start, window_end, in_group,
                                    text, remedy, raised_at, seen_at, told_at, times)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13, ?13, 0)",
            )?
            .execute(params![
                number_of(&format!("{} {}", at(now), condition.key)),
                condition.key,
                condition.kind.word(),
                condition.job,
                condition.source,
                condition.table,
                condition.unit,
                condition.window_start,
                condition.window_end,
                condition.group,
                condition.text,
                condition.remedy,
                at(now),
            ])?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Puts down a message for every sink that takes its kind. A reminder that a sink has not heard yet gives way.
    fn tell(&self, number: i64, phase: Phase, sinks: &[Sink], now: Timestamp) -> rusqlite::Result<()> {
        let (id, kind, times): (String, String, u32) = self.connection.query_row(
            "UPDATE alarm SET told_at = ?2, times = times + 1 WHERE number = ?1 RETURNING id, kind, times",
            params![number, at(now)],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let takes =
            |sink: &&Sink| ConditionKind::of(&kind).is_some_and(|kind| sink.conditions.contains(&kind));
        self.connection.execute(
            "DELETE FROM alarm_delivery WHERE told_at IS NULL
                 AND message IN (SELECT id FROM alarm_message WHERE alarm = ?1 AND phase = 'reminded')",
            [number],
        )?;
        let message = number_of(&format!("{id} {} {times}", phase.word()));
        self.connection
            .prepare_cached(
                "INSERT INTO alarm_message (id, alarm, phase, at, text, remedy)
                 SELECT ?2, number, ?3, ?4, text, remedy FROM alarm WHERE number = ?1",
            )?
            .execute(params![number, message, phase.word(), at(now)])?;
        for sink in sinks.iter().filter(takes) {
            self.connection
                .prepare_cached("INSERT INTO alarm_delivery (message, sink) VALUES (?, ?)")?
                .execute(params![message, sink.name])?;
        }
        Ok(())
    }

    /// Notes that somebody has taken note of an alarm that stands; `None` where there is no such alarm.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn acknowledge(&self, number: i64, who: &str, now: Timestamp) -> Result<Option<Alarm>, LedgerError> {
        let read = || {
            self.connection.execute(
                "UPDATE alarm SET acked_at = ?2, acked_by = ?3
                 WHERE number = ?1 AND over_at IS NULL AND acked_at IS NULL",
                params![number, at(now), who],
            )?;
            self.connection
                .query_row(&format!("SELECT {COLUMNS} FROM alarm a WHERE a.number = ?"), [number], alarm)
                .optional()
        };
        read().map_err(|error| self.error(error))
    }
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error: jiff::Error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn alarm(row: &Row<'_>) -> rusqlite::Result<Alarm> {
    let optional = |column: usize| {
        let text: Option<String> = row.get(column)?;
        text.is_some().then(|| time(row, column)).transpose()
    };
    let kind: String = row.get(3)?;
    let unknown = || rusqlite::Error::InvalidColumnType(3, "kind".into(), rusqlite::types::Type::Text);
    let acked_by: Option<String> = row.get(18)?;
    Ok(Alarm {
        number: row.get(0)?,
        id: row.get(1)?,
        condition: Condition {
            key: row.get(2)?,
            kind: ConditionKind::of(&kind).ok_or_else(unknown)?,
            job: row.get(4)?,
            source: row.get(5)?,
            table: row.get(6)?,
            unit: row.get(7)?,
            window_start: row.get(8)?,
            window_end: row.get(9)?,
            group: row.get(10)?,
            text: row.get(11)?,
            remedy: row.get(12)?,
        },
        raised_at: time(row, 13)?,
        seen_at: time(row, 14)?,
        told_at: time(row, 15)?,
        times: row.get(16)?,
        acked: optional(17)?.map(|at| (at, acked_by.unwrap_or_default())),
        over_at: optional(19)?,
    })
}
