//! One unit's way into its table where that is more than a COPY: what is replaced is taken away, the rows are staged
//! and computed, updated and inserted, and every row of the file is accounted for before the load log says so.

use super::doctor::{Again, Sorting, sort_out};
use super::fill::fill;
use super::rejected::Rejected;
use super::{Cargo, Done, Ground, NotLoaded, entry, failed, fatal_or_failed, overlap};
use crate::inventory::{Duplicates, LoadMode, LoadRule};
use crate::source::postgres::{SourceColumn, SourceTable};
use crate::source::rows;
use crate::sql::Statement;
use crate::step::{Stage, UnitFailure};
use crate::target::modes::Way;
use crate::target::{Claim, Counts, Session, Shape};

/// Keys of each kind that are shown, where an operator asked for them.
pub(super) const KEYS_SHOWN: usize = 3;

/// What to try where fewer rows are in the target than were put there.
const SWALLOWED: &str =
    "look for a trigger or a rule of that table that keeps rows out; gpferry loads all rows, or none";

/// Loads a unit by `rule`, under the savepoint that is set. `again` says what becomes of rows whose keys collide;
/// without it the server refuses them.
pub(super) fn load(
    session: &mut Session,
    ground: Ground<'_>,
    cargo: &Cargo<'_>,
    rule: &LoadRule,
    again: Option<Again<'_>>,
) -> Result<Done, NotLoaded> {
    let unit = cargo.unit;
    if rule.mode == LoadMode::Insert
        && let Some(failure) = overlap(session, cargo).map_err(NotLoaded::SessionLost)?
    {
        return Err(failed(failure));
    }
    run_own(session, &rule.before, "before")?;
    let shape = session.shape(&unit.target).map_err(fatal_or_failed)?;
    let facts = session.facts().clone();
    let way = Way::new(&facts, &unit.target, &shape, rule, &cargo.exported.columns)
        .map_err(|error| failed(UnitFailure::new(Stage::Load, &error, error.remedy())))?;
    let mut rejected = Rejected::new(ground, *cargo, rule.reject_limit.of(cargo.exported.rows));
    let road = Road { ground, cargo, rule, shape: &shape, way: &way };
    let counts = match rule.mode {
        LoadMode::Insert => road.insert(session, &mut rejected, again)?,
        LoadMode::Replace => road.replace(session, &mut rejected, again)?,
        LoadMode::Update | LoadMode::Merge => road.update(session, &mut rejected)?,
    };
    run_own(session, &rule.after, "after")?;
    if !counts.add_up() {
        let error = format!(
            "{}: the rows do not add up: exported {}, loaded {}, left {}, rejected {}; rolled back",
            unit.target, counts.exported, counts.loaded, counts.left, counts.rejected
        );
        return Err(failed(UnitFailure {
            file_is_good: true,
            ..UnitFailure::new(Stage::Load, error, SWALLOWED)
        }));
    }
    if ground.anew.is_some() {
        session.unlog(unit).map_err(fatal_or_failed)?;
    }
    // The last of it: only now it is known what became of the rows, and a row of the load log is never changed.
    match session.claim(&unit.key, &entry(ground.run, cargo, rule.mode, counts)).map_err(fatal_or_failed)? {
        Claim::AlreadyThere => Ok(Done::AlreadyThere),
        Claim::Ours => rejected.publish().map(|()| Done::Copied(counts)),
    }
}

fn run_own(session: &mut Session, statements: &[Statement], key: &str) -> Result<(), NotLoaded> {
    for (n, statement) in statements.iter().enumerate() {
        let doing = format!("run statement {} of `load.{key}`", n + 1);
        session.run_own(statement, &doing).map_err(|error| match fatal_or_failed(error) {
            // Whatever it says, it does not speak of the file's rows.
            NotLoaded::Failed(failure) => NotLoaded::Failed(Box::new(UnitFailure {
                file_is_good: true,
                misfit: false,
                constraint: None,
                remedy: "correct the statement in the inventory, or what it works on".into(),
                ..*failure
            })),
            lost @ NotLoaded::SessionLost(_) => lost,
        })?;
    }
    Ok(())
}

/// What a unit's way is made of.
pub(super) struct Road<'a> {
    pub(super) ground: Ground<'a>,
    pub(super) cargo: &'a Cargo<'a>,
    rule: &'a LoadRule,
    pub(super) shape: &'a Shape,
    pub(super) way: &'a Way<'a>,
}

impl Road<'_> {
    fn counts(&self, rejected: &Rejected<'_>) -> Counts {
        Counts { exported: self.cargo.exported.rows, rejected: rejected.rows(), ..Counts::default() }
    }

    /// Appends the rows; staged where something has to be done with them first.
    fn insert(
        &self,
        session: &mut Session,
        rejected: &mut Rejected<'_>,
        again: Option<Again<'_>>,
    ) -> Result<Counts, NotLoaded> {
        let maps = !self.rule.mapping.is_empty();
        let target = std::iter::once(&self.cargo.unit.target);
        let is_counted = !session.may_miscount(target).map_err(fatal_or_failed)?;
        if again.is_none() && !maps && is_counted {
            let loaded = fill(session, self.ground, self.cargo, &self.way.into(), &[], rejected)?;
            return Ok(Counts { loaded, ..self.counts(rejected) });
        }
        // What only tells loads nothing. Where rows may not fit, each is looked at; where rows are computed, or spread
        // over segments, a line says nothing.
        let plain = !maps && rejected.limit() == 0 && !session.facts().distributes();
        let hint = again.filter(|again| plain && again.sorting != Sorting::Tell).and_then(|again| again.hint);
        let head = match hint {
            Some(hint) => self.head_and_rest(session, hint)?,
            None => None,
        };
        if head.is_none() {
            self.stage(session, rejected)?;
        }
        let mut left = 0;
        if let Some(again) = again {
            left = sort_out(session, self, again, rejected)?;
        }
        let loaded = head.unwrap_or(0)
            + session
                .touch(&self.way.insert_all(), "take the rows")
                .map_err(|error| self.not_sorted(fatal_or_failed(error)))?;
        Ok(Counts { loaded, left, ..self.counts(rejected) })
    }

    /// What refuses rows after the colliding ones were sorted out is a constraint that cannot be sorted by: said as such.
    fn not_sorted(&self, error: NotLoaded) -> NotLoaded {
        match error {
            NotLoaded::Failed(failure) => {
                let unsorted = failure.constraint.as_deref().filter(|name| !self.sorts_by(name));
                let remedy = unsorted.map(cannot_sort);
                NotLoaded::Failed(Box::new(UnitFailure {
                    remedy: remedy.unwrap_or_else(|| failure.remedy.clone()),
                    ..*failure
                }))
            }
            lost @ NotLoaded::SessionLost(_) => lost,
        }
    }

    /// Is it a unique constraint whose keys can be looked for?
    pub(super) fn sorts_by(&self, constraint: &str) -> bool {
        self.shape.uniques.iter().any(|unique| unique.name == constraint)
    }

    /// Takes the unit's rows away, and puts those of the file there.
    fn replace(
        &self,
        session: &mut Session,
        rejected: &mut Rejected<'_>,
        again: Option<Again<'_>>,
    ) -> Result<Counts, NotLoaded> {
        let conditions = self.conditions()?;
        self.clear(session, &conditions)?;
        let counts = self.insert(session, rejected, again)?;
        if conditions.is_empty() {
            return Ok(counts);
        }
        let doing = "count what was replaced";
        let within = session.count(&self.way.count_within(&conditions), doing).map_err(fatal_or_failed)?;
        if within == counts.loaded {
            return Ok(counts);
        }
        // Else rows would be in the target that the next replacement does not take away.
        let error = format!(
            "of {} rows {within} are within what was taken away of {}: the window column has another type there, or \
             `mapping` changes it; rolled back",
            counts.loaded, self.cargo.unit.target
        );
        let remedy = "give the window column the same type on both sides, or load by `mode: merge`";
        Err(failed(UnitFailure { file_is_good: true, ..UnitFailure::new(Stage::Load, error, remedy) }))
    }

    fn clear(&self, session: &mut Session, conditions: &[String]) -> Result<(), NotLoaded> {
        if !self.rule.truncate {
            self.lock(session)?;
        }
        if let Some(anew) = self.ground.anew {
            anew.check(session, self.cargo)?;
        }
        let doing = "take away what is replaced";
        session.touch(&self.way.clear(conditions), doing).map(drop).map_err(fatal_or_failed)
    }

    /// Updates the rows that match, and in mode merge inserts the others.
    fn update(&self, session: &mut Session, rejected: &mut Rejected<'_>) -> Result<Counts, NotLoaded> {
        if self.cargo.unit.entry.load.mode == LoadMode::Replace {
            // A replacement whose rows collide: what they replace goes all the same.
            self.clear(session, &self.conditions()?)?;
        }
        self.lock(session)?;
        let staged = self.stage(session, rejected)?;
        let superseded = self.single_out(session)?;
        let merges = self.rule.mode == LoadMode::Merge;
        // What nothing else tells: rows that find nothing to update, or nothing that may be.
        let matched = if !merges || self.rule.update_condition.is_some() {
            let doing = "count the rows that match";
            Some(session.count(&self.way.count_matched(), doing).map_err(fatal_or_failed)?)
        } else {
            None
        };
        let doing = "update rows";
        let updated = session.touch_all(&self.way.update(), doing).map_err(fatal_or_failed)?;
        let inserted = if merges {
            session.touch(&self.way.insert_rest(), "insert rows").map_err(fatal_or_failed)?
        } else {
            0
        };
        let counts = self.counts(rejected);
        let loaded = match matched {
            Some(matched) => matched + inserted,
            None => self.arrived(session, staged.saturating_sub(superseded), updated + inserted)?,
        };
        let left = counts.exported.saturating_sub(counts.rejected + loaded);
        Ok(Counts { loaded, updated, left, ..counts })
    }

    /// All of these rows, once they are known to be there: a trigger or a rule may have swallowed some.
    fn arrived(&self, session: &mut Session, rows: u64, touched: u64) -> Result<u64, NotLoaded> {
        // A row that changes several would hide one that is missing.
        if touched == rows && self.way.finds_one() {
            return Ok(rows);
        }
        let doing = "count the rows that arrived";
        let there = session.count(&self.way.count_matched(), doing).map_err(fatal_or_failed)?;
        if there == rows {
            return Ok(rows);
        }
        let error = format!("of {rows} rows {there} are in {}; rolled back", self.cargo.unit.target);
        Err(failed(UnitFailure { file_is_good: true, ..UnitFailure::new(Stage::Load, error, SWALLOWED) }))
    }

    /// One row for each key; says how many rows of the file another one took the place of.
    fn single_out(&self, session: &mut Session) -> Result<u64, NotLoaded> {
        let doing = "look for equal keys";
        let (keys, rows) = session.counts(&self.way.count_duplicates(), doing).map_err(fatal_or_failed)?;
        if keys == 0 {
            return Ok(0);
        }
        let Duplicates::LastBy(by) = &self.rule.duplicates else {
            let error =
                format!("{rows} rows of the file share {keys} keys, and nothing says which of them win");
            return Err(self.duplicates(session, error));
        };
        session.touch(&self.way.pick_last(by), doing).map_err(fatal_or_failed)?;
        let picked = session.count("SELECT count(*) FROM gpferry_picked", doing).map_err(fatal_or_failed)?;
        let latest = match self.way.count_latest(by) {
            Some(sql) => session.count(&sql, doing).map_err(fatal_or_failed)?,
            None => picked,
        };
        if latest != picked {
            let error = format!(
                "of the rows of the file that share a key, {} are as late by \"{by}\" as the one that would win",
                latest.abs_diff(picked)
            );
            return Err(self.duplicates(session, error));
        }
        session.touch_all(&self.way.keep_picked(), doing).map_err(fatal_or_failed)?;
        Ok(rows.saturating_sub(keys))
    }

    fn duplicates(&self, session: &mut Session, error: String) -> NotLoaded {
        let keys = if self.ground.show_keys {
            session.duplicate_keys(self.way, KEYS_SHOWN).unwrap_or_default()
        } else {
            Vec::new()
        };
        let remedy = "correct the source or `match`, or write `duplicates: last by COLUMN`; `--show-keys` shows the \
                      first of them";
        let failure = UnitFailure::new(Stage::Load, error, remedy);
        let keys = keys.into_iter().map(|key| (crate::target::Kind::Twice, key)).collect();
        failed(UnitFailure { keys, ..failure })
    }

    /// Copies the file to the staging table, and makes the rows of it that go into the target.
    fn stage(&self, session: &mut Session, rejected: &mut Rejected<'_>) -> Result<u64, NotLoaded> {
        let doing = "make a temporary table";
        session.touch_all(&self.way.make_stage(), doing).map_err(fatal_or_failed)?;
        let (table, then) = (self.way.copied_to(), self.way.fill_stage());
        let rows = fill(session, self.ground, self.cargo, table, &then, rejected)?;
        if let Some(sql) = self.way.size_stage() {
            session.touch(&sql, "stage the rows").map_err(fatal_or_failed)?;
        }
        let staged =
            session.count(&self.way.count_staged(), "count the staged rows").map_err(fatal_or_failed)?;
        if staged == rows {
            return Ok(staged);
        }
        let error = format!("{rows} rows were copied, and {staged} are staged; rolled back");
        Err(failed(UnitFailure::new(Stage::Load, error, "look at `mapping`: it makes one row of each")))
    }

    fn lock(&self, session: &mut Session) -> Result<(), NotLoaded> {
        match self.way.lock() {
            Some(lock) => session.touch(&lock, "lock the table").map(drop).map_err(fatal_or_failed),
            None => Ok(()),
        }
    }

    /// What tells the unit's rows in the target from others.
    fn conditions(&self) -> Result<Vec<String>, NotLoaded> {
        let (unit, zone) = (self.cargo.unit, self.ground.zone);
        rows::conditions(unit, &as_source(self.shape), &unit.target, zone).map_err(|error| {
            let remedy = "mode `replace` finds the rows to take away by the window column: it must be in the target \
                          as well, and of such a type";
            failed(UnitFailure { file_is_good: true, ..UnitFailure::new(Stage::Load, &error, remedy) })
        })
    }
}

/// The remedy where an index refuses rows by what is no plain column.
pub(super) fn cannot_sort(constraint: &str) -> String {
    format!(
        "the unique index \"{constraint}\" is over an expression, or holds for a part of the rows or for a partition alone: \
         gpferry cannot sort rows by it; look in the target for rows that it takes for the same as those of the file"
    )
}

/// The target's table as one that conditions are written for.
pub(super) fn as_source(shape: &Shape) -> SourceTable {
    let columns = shape.columns.iter().map(|column| SourceColumn {
        not_null: false,
        name: column.name.clone(),
        type_name: column.type_name.clone(),
        generated: column.generated,
    });
    SourceTable { columns: columns.collect(), ..SourceTable::default() }
}
