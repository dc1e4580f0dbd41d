//! Making the load log shorter without forgetting anything: old windows that touch become one row.
//!
//! The row that stands for them covers exactly their union, with an id as any unit of that extent would have, so the
//! check for overlaps in the loading transaction and the reading of the whole log see what they saw before. Rows go
//! and their row comes in one transaction, which holds a lock that no claim can pass.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use postgres::fallible_iterator::FallibleIterator;

use super::load_log::instant;
use super::{CommitError, Limits, Session, TargetError};
use crate::interval::Interval;
use crate::measure::{Measure, Scale};
use crate::stop::Stop;
use crate::unit::{Extent, read_id, unit_id};
use crate::window::{Window, civil};

/// How long one statement may take that puts rows together: loaders wait meanwhile.
const LIMITS: Limits = Limits { statement: Duration::from_secs(60), lock: Duration::from_secs(5) };
/// What the mode of a row says that stands for several units.
const PRUNED: &str = "pruned";
/// So many rows go in one transaction.
const BATCH: usize = 5_000;
/// How long the lock is tried for: loaders hold theirs for as long as a group takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which rows may be put together.
#[derive(Debug, Clone)]
pub struct OldRows<'a> {
    /// Loaded before.
    pub cut: Timestamp,
    /// Of these sources.
    pub sources: &'a [String],
    /// Not of these jobs.
    pub busy: &'a [String],
}

/// Rows that touch, and the row that stands for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    source: String,
    units: Vec<String>,
    series: String,
    tag: Option<String>,
    table: String,
    measure: Measure,
    interval: Interval<i64>,
    job: String,
    run: String,
    rows: [i64; 3],
    loaded_at: Timestamp,
    /// Units that the row stands for in the end, those that it stood for before included.
    stands_for: u64,
}

/// What became of the rows of the load log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Rows that went.
    pub rows: u64,
    /// Rows that stand for them.
    pub into: u64,
    /// Was the load log held by others all the time, so that the rest is left for later?
    pub in_use: bool,
}

/// A row that may prove that a file is of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The unit's id.
    pub unit: String,
    /// Its job.
    pub job: String,
    /// Its file below the mount's subdirectory; empty for a row that stands for several units.
    pub file: String,
    /// When it was loaded; of several units, the last of them.
    pub loaded_at: Timestamp,
}

impl Session {
    /// The rows of these units of a source.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn held(&mut self, source: &str, units: &[&str]) -> Result<Vec<Held>, TargetError> {
        let sql = format!(
            "SELECT unit, job, file, loaded_at::text FROM {} WHERE source = $1 AND unit = ANY ($2)",
            self.log
        );
        let found = self.client.query(sql.as_str(), &[&source, &units]);
        Ok(found.map_err(|error| TargetError::of(&error, "read the load log"))?.iter().map(held).collect())
    }

    /// The rows of a source that stand for several units.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn held_together(&mut self, source: &str) -> Result<Vec<Held>, TargetError> {
        let sql = format!(
            "SELECT unit, job, file, loaded_at::text FROM {} WHERE source = $1 AND mode = '{PRUNED}'",
            self.log
        );
        let found = self.client.query(sql.as_str(), &[&source]);
        Ok(found.map_err(|error| TargetError::of(&error, "read the load log"))?.iter().map(held).collect())
    }

    /// Is there a load log that says by what its rows are told apart? An older one is left alone.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn has_measures(&mut self) -> Result<bool, TargetError> {
        Ok(self.load_log_columns()?.iter().any(|column| column == "measure"))
    }

    /// Finds old windows that touch, and hands them on in batches.
    ///
    /// # Errors
    /// [`TargetError`], and what `each` says.
    pub fn touching(
        &mut self,
        old: &OldRows<'_>,
        each: &mut dyn FnMut(Vec<Merge>) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let of = |error: postgres::Error| TargetError::of(&error, "read the load log");
        let sql = format!(
            "SELECT source, unit, job, table_name, measure, rows_exported, rows_loaded, rows_rejected, \
             loaded_at::text, run, mode, digest FROM {} \
             WHERE loaded_at < CAST('{}' AS timestamptz) AND measure IS NOT NULL \
             AND (window_start IS NOT NULL OR first_id IS NOT NULL) \
             ORDER BY source, table_name, measure, window_start, first_id",
            self.log, old.cut
        );
        let nothing: [&str; 0] = [];
        let mut rows = self.client.query_raw(sql.as_str(), nothing).map_err(of)?;
        let mut batch = Batch::default();
        while let Some(row) = rows.next().map_err(of)? {
            if let Some(one) = old_row(&row)
                && old.sources.contains(&one.source)
                && !old.busy.contains(&one.job)
            {
                batch.add(one);
            }
            if batch.is_full() {
                each(batch.take())?;
            }
        }
        batch.end_group();
        each(batch.take())
    }

    /// Puts rows together, all in one transaction.
    ///
    /// # Errors
    /// [`TargetError`]; nothing has changed then, unless the answer to COMMIT was lost.
    pub fn put_together(&mut self, merges: &[Merge], stop: &Stop) -> Result<Merged, TargetError> {
        if merges.is_empty() {
            return Ok(Merged::default());
        }
        if !self.begin_alone(stop)? {
            return Ok(Merged { in_use: true, ..Merged::default() });
        }
        let mut done = Merged::default();
        for merge in merges {
            if self.put_one(merge)? {
                done.rows += merge.units.len() as u64;
                done.into += 1;
            }
        }
        self.commit().map(|()| done).map_err(|error| match error {
            CommitError::Aborted(error) | CommitError::Unknown(error) => error,
        })
    }

    /// Begins a transaction in which nobody else writes the load log. It never waits in the lock's queue, where
    /// loaders would wait behind it.
    fn begin_alone(&mut self, stop: &Stop) -> Result<bool, TargetError> {
        let begin = Instant::now();
        let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE NOWAIT", self.log);
        loop {
            self.begin()?;
            match self.run(&lock, "lock the load log") {
                Ok(()) => return Ok(true),
                Err(error) if error.sqlstate() == Some("55P03") => self.rollback()?,
                Err(error) => {
                    drop(self.rollback());
                    return Err(error);
                }
            }
            if begin.elapsed() >= PATIENCE || stop.asked() {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Under the lock. Not done where the rows are not all there any more.
    fn put_one(&mut self, merge: &Merge) -> Result<bool, TargetError> {
        let of = |error: postgres::Error| TargetError::of(&error, "put rows of the load log together");
        self.savepoint(LIMITS)?;
        let delete =
            self.prepared(&format!("DELETE FROM {} WHERE source = $1 AND unit = ANY ($2)", self.log))?;
        let gone = self.client.execute(&delete, &[&merge.source, &merge.units]).map_err(of)?;
        if gone != merge.units.len() as u64 {
            self.rollback_to_savepoint()?;
            return Ok(false);
        }
        let insert = self.prepared(&format!(
            "INSERT INTO {} (source, unit, job, table_name, window_start, window_end, file, mode, rows_exported, \
             rows_loaded, rows_rejected, digest, run, loaded_at, measure, first_id, last_id) \
             VALUES ($1, $2, $3, $4, $5::text::timestamp, $6::text::timestamp, '', '{PRUNED}', $7, $8, $9, $10, $11, \
             $12::text::timestamptz, $13, $14, $15)",
            self.log
        ))?;
        let extent = merge.extent();
        let window = extent.window();
        let (start, end) =
            (window.map(|one| one.start().to_string()), window.map(|one| one.end().to_string()));
        let ids = matches!(extent, Extent::Ids(_));
        let (first, last) = (ids.then_some(merge.interval.start()), ids.then_some(merge.interval.end()));
        let unit = unit_id(&merge.series, &extent, merge.tag.as_deref());
        self.client
            .execute(
                &insert,
                &[
                    &merge.source,
                    &unit,
                    &merge.job,
                    &merge.table,
                    &start,
                    &end,
                    &merge.rows[0],
                    &merge.rows[1],
                    &merge.rows[2],
                    &format!("units:{}", merge.stands_for),
                    &merge.run,
                    &merge.loaded_at.to_string(),
                    &merge.measure.to_string(),
                    &first,
                    &last,
                ],
            )
            .map_err(of)?;
        self.release()?;
        Ok(true)
    }
}

impl Merge {
    fn extent(&self) -> Extent {
        if matches!(self.measure, Measure::By(Scale::Id, _)) {
            return Extent::Ids(self.interval);
        }
        let window = Window::new(civil(self.interval.start()), civil(self.interval.end()));
        window.map_or(Extent::Ids(self.interval), Extent::Times)
    }

    /// Rows that go.
    pub fn rows(&self) -> u64 {
        self.units.len() as u64
    }

    fn take_in(&mut self, other: Merge) {
        let end = self.interval.end().max(other.interval.end());
        if let Some(interval) = Interval::new(self.interval.start(), end) {
            self.interval = interval;
        }
        self.units.extend(other.units);
        for (sum, more) in self.rows.iter_mut().zip(other.rows) {
            *sum = sum.saturating_add(more);
        }
        self.stands_for += other.stands_for;
        if other.loaded_at >= self.loaded_at {
            (self.loaded_at, self.job, self.run) = (other.loaded_at, other.job, other.run);
        }
    }
}

/// Rows that come in order, and the runs of them that touch.
#[derive(Debug, Default)]
struct Batch {
    group: Option<(String, String, Measure)>,
    /// By series and tag: entries of one target table may have several.
    open: HashMap<(String, Option<String>), Merge>,
    done: Vec<Merge>,
    rows: usize,
}

impl Batch {
    fn add(&mut self, one: Merge) {
        let group = (one.source.clone(), one.table.clone(), one.measure.clone());
        if self.group.as_ref() != Some(&group) {
            self.end_group();
            self.group = Some(group);
        }
        let key = (one.series.clone(), one.tag.clone());
        match self.open.remove(&key) {
            Some(mut open) if one.interval.start() <= open.interval.end() && open.units.len() < BATCH => {
                open.take_in(one);
                self.open.insert(key, open);
            }
            Some(open) => {
                self.keep(open);
                self.open.insert(key, one);
            }
            None => drop(self.open.insert(key, one)),
        }
    }

    /// One row alone stands for itself.
    fn keep(&mut self, merge: Merge) {
        if merge.units.len() > 1 {
            self.rows += merge.units.len();
            self.done.push(merge);
        }
    }

    fn end_group(&mut self) {
        for (_, merge) in std::mem::take(&mut self.open) {
            self.keep(merge);
        }
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH
    }

    fn take(&mut self) -> Vec<Merge> {
        self.rows = 0;
        std::mem::take(&mut self.done)
    }
}

fn held(row: &postgres::Row) -> Held {
    Held { unit: row.get(0), job: row.get(1), file: row.get(2), loaded_at: instant(row.get(3)) }
}

/// A row as a run of its own; `None` for what must stay as it is.
fn old_row(row: &postgres::Row) -> Option<Merge> {
    let unit: String = row.get(1);
    let measure: Measure = row.get::<_, Option<String>>(4)?.parse().ok()?;
    let named = read_id(&unit)?;
    match (&measure, named.extent) {
        (Measure::By(Scale::Id, _), Extent::Ids(_)) | (Measure::By(..), Extent::Times(_)) => {}
        // Slices stay: a few of them are a table.
        (Measure::All | Measure::Null(_) | Measure::By(..) | Measure::Slice(..), _) => return None,
    }
    let (mode, digest): (String, String) = (row.get(10), row.get(11));
    let before =
        digest.strip_prefix("units:").filter(|_| mode == PRUNED).and_then(|units| units.parse().ok());
    Some(Merge {
        source: row.get(0),
        units: vec![unit],
        series: named.series,
        tag: named.tag,
        table: row.get(3),
        measure,
        interval: named.extent.numbers(),
        job: row.get(2),
        run: row.get(9),
        rows: [row.get(5), row.get::<_, Option<i64>>(6).unwrap_or(0), row.get(7)],
        loaded_at: row.get::<_, &str>(8).parse().ok()?,
        stands_for: before.unwrap_or(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(series: &str, start: i64, end: i64) -> Merge {
        let interval = Interval::new(start, end).unwrap();
        Merge {
            source: "s".into(),
            units: vec![unit_id(series, &Extent::Ids(interval), None)],
            series: series.into(),
            tag: None,
            table: "a.t".into(),
            measure: Measure::By(Scale::Id, "n".into()),
            interval,
            job: "j".into(),
            run: "r".into(),
            rows: [end - start, end - start, 0],
            loaded_at: Timestamp::UNIX_EPOCH,
            stands_for: 1,
        }
    }

    #[test]
    fn what_touches_is_put_together_and_a_gap_stays_a_gap() {
        let mut batch = Batch::default();
        for (start, end) in [(0, 10), (10, 20), (21, 30), (30, 35), (40, 50)] {
            batch.add(row("d^a^t", start, end));
        }
        // Another variant of the same target table, in between.
        batch.add(row("d^a^t^v1", 50, 60));
        batch.end_group();
        let mut found = batch.take();
        found.sort_by_key(|merge| merge.interval);
        let told: Vec<_> =
            found.iter().map(|one| (one.interval.start(), one.interval.end(), one.rows[1])).collect();
        assert_eq!(told, [(0, 20, 20), (21, 35, 14)]);
        assert_eq!(found[0].units.len(), 2);
        assert_eq!(unit_id(&found[0].series, &found[0].extent(), None), "d^a^t^i0^i20");
        assert_eq!(found[0].stands_for, 2);
    }

    #[test]
    fn what_is_put_together_is_put_together_again() {
        let mut batch = Batch::default();
        batch.add(Merge { stands_for: 7, ..row("d^a^t", 0, 20) });
        batch.add(row("d^a^t", 20, 25));
        batch.end_group();
        let found = batch.take();
        assert_eq!((found.len(), found[0].stands_for, found[0].rows[1]), (1, 8, 25));
    }
}
