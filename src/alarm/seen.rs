//! What is wrong now, out of the ledger and the inventory. Whether it is new is not asked here.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::judge::Seen;
use crate::inventory::{ConditionKind, Inventory, Job};
use crate::ledger::alarms::Condition;
use crate::ledger::compared::{Group, OpenDifference};
use crate::ledger::job_runs::JobRuns;
use crate::ledger::overview::{TableStatus, overview, tell_tries};
use crate::ledger::status::FailedUnit;
use crate::ledger::{Ledger, LedgerError};
use crate::measure::{Measure, Scale};
use crate::unit::{Extent, read_id};
use crate::window::{civil, human, instant};

/// Where more groups than these differ, in all windows together, windows are told alone: nobody reads thousands.
const MOST_BY_GROUP: usize = 1000;

/// Everything that is wrong with the jobs of an inventory.
///
/// # Errors
/// [`LedgerError`].
pub(super) fn seen(
    ledger: &Ledger,
    inventory: &Inventory,
    target: &str,
    now: Timestamp,
) -> Result<Seen, LedgerError> {
    let known = ledger.known(target, now)?;
    let jobs: HashSet<String> = inventory.jobs.iter().map(|job| job.name.clone()).collect();
    let mut failed = ledger.failed_units()?;
    tell_tries(inventory, &known, &mut failed);
    let open = ledger.open_differences(target)?;
    let by_group = open.iter().map(|one| one.groups.len()).sum::<usize>() <= MOST_BY_GROUP;
    let mut conditions: Vec<Condition> = open
        .into_iter()
        .flat_map(|found| differences(found, by_group))
        .chain(failed.iter().map(failure))
        .collect();
    conditions.retain(|condition| jobs.contains(&condition.job));
    conditions.extend(overview(Some(inventory), &known, now).iter().filter_map(late));
    let mut undecided: HashSet<String> =
        ledger.units_on_their_way()?.iter().map(|(source, unit)| failed_key(source, unit)).collect();
    runs(ledger, inventory, now, &mut conditions, &mut undecided)?;
    Ok(Seen { conditions, undecided, jobs })
}

fn failed_key(source: &str, unit: &str) -> String {
    format!("failed {source} {unit}")
}

fn failure(unit: &FailedUnit) -> Condition {
    let (window_start, window_end) = match read_id(&unit.unit).map(|named| named.extent) {
        Some(Extent::Times(window)) => (Some(window.start().to_string()), Some(window.end().to_string())),
        Some(Extent::Ids(ids)) => (Some(ids.start().to_string()), Some(ids.end().to_string())),
        Some(Extent::Whole | Extent::Repeated(_) | Extent::Nulls | Extent::Slice(_)) | None => (None, None),
    };
    let tries = match unit.tries {
        _ if unit.given_up => format!(", given up after {} run(s)", unit.tries),
        0 => String::new(),
        tries => format!(", tried by {tries} run(s)"),
    };
    Condition {
        key: failed_key(&unit.source, &unit.unit),
        kind: ConditionKind::Failed,
        job: unit.job.clone(),
        source: Some(unit.source.clone()),
        table: Some(unit.table.clone()),
        window_start,
        window_end,
        group: None,
        text: format!("{}:{} failed in {}{tries}: {}", unit.source, unit.unit, unit.stage, unit.error),
        remedy: unit.remedy.clone(),
        unit: Some(unit.unit.clone()),
    }
}

fn late(table: &TableStatus) -> Option<Condition> {
    let late = table.late_seconds?;
    let after = table.late_after.filter(|after| late > after.as_secs())?;
    let reached = match &table.watermark {
        Some(at) => format!("is loaded up to {}", at.replace('T', " ")),
        None => "is not loaded".into(),
    };
    Some(Condition {
        key: format!("late {} {} {}", table.job, table.source, table.series),
        kind: ConditionKind::Late,
        job: table.job.clone(),
        source: Some(table.source.clone()),
        table: Some(table.table.clone()),
        unit: None,
        window_start: table.watermark.clone(),
        window_end: None,
        group: None,
        text: format!(
            "{} of {} {reached}; what comes next has been due for {}, and {} is allowed",
            table.table,
            table.source,
            human(late),
            human(after.as_secs())
        ),
        remedy: format!("look at `gpferry status --job {}`, and at when it is run", table.job),
    })
}

/// A window that differs, or each group of it where they are told apart.
fn differences(found: OpenDifference, by_group: bool) -> Vec<Condition> {
    let groups: Vec<Option<&Group>> = match &found.groups[..] {
        groups if by_group && !groups.is_empty() => groups.iter().map(Some).collect(),
        _ => vec![None],
    };
    groups.into_iter().map(|group| difference(&found, group)).collect()
}

fn difference(found: &OpenDifference, group: Option<&Group>) -> Condition {
    let OpenDifference { of, window, .. } = found;
    let (start, end) = match &of.measure {
        Measure::By(Scale::Id, _) => (Some(window.start().to_string()), Some(window.end().to_string())),
        Measure::By(..) => (Some(civil(window.start()).to_string()), Some(civil(window.end()).to_string())),
        Measure::All | Measure::Null(_) | Measure::Slice(..) => (None, None),
    };
    let place = match (&start, &end) {
        (Some(start), Some(end)) => format!(" from {start} to {end}"),
        _ if matches!(of.measure, Measure::Null(_)) => ", rows without a time".into(),
        _ => String::new(),
    };
    let value = group.and_then(|group| group.value.as_deref());
    // NULL is a group as well, and not the one of that word.
    let (key, within) = match (group, value) {
        (None, _) => (String::new(), String::new()),
        (Some(_), None) => (" null".into(), ", group NULL,".into()),
        (Some(_), Some(value)) => {
            // It is out of a table, and is shown on terminals.
            let shown: String = value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            (format!(" ={value}"), format!(", group {shown},"))
        }
    };
    let rows = group.map_or(found.rows, |group| group.rows);
    let sides = match group {
        None => format!("{} row(s) in the source and {} in the target;", rows.source, rows.target),
        Some(_) => String::new(),
    };
    let more = if rows.exact { "" } else { " at least" };
    let counts = format!(
        "{sides}{more} {} missing, {} only in the target, {} changed",
        rows.missing, rows.extra, rows.changed
    );
    Condition {
        key: format!(
            "difference {} {} {} {} {}{key}",
            of.source,
            of.series,
            of.measure,
            window.start(),
            window.end()
        ),
        kind: ConditionKind::Difference,
        remedy: format!("`gpferry repair --job {} --table {}` moves it again", of.job, of.table),
        text: format!("{}{place}{within} differs: {}", of.table, counts.trim_start()),
        job: of.job.clone(),
        source: Some(of.source.clone()),
        table: Some(of.table.clone()),
        unit: None,
        window_start: start,
        window_end: end,
        group: value.map(str::to_owned),
    }
}

/// Jobs of which no run came to its end for too long. One that is at work leaves that open.
fn runs(
    ledger: &Ledger,
    inventory: &Inventory,
    now: Timestamp,
    conditions: &mut Vec<Condition>,
    undecided: &mut HashSet<String>,
) -> Result<(), LedgerError> {
    let known = ledger.job_runs()?;
    for job in &inventory.jobs {
        let Some(every) = job.expect_every else { continue };
        let runs = known.get(&job.name).cloned().unwrap_or_default();
        if runs.expected_since.is_none() {
            ledger.expect_job(&job.name, now)?;
        }
        let is_over =
            job.until.and_then(|until| instant(until, &inventory.timezone)).is_some_and(|end| end <= now);
        if runs.at_work {
            undecided.insert(not_run_key(job));
        } else if let Some(condition) = not_run(job, every, &runs, now).filter(|_| !is_over) {
            conditions.push(condition);
        }
    }
    Ok(())
}

fn not_run_key(job: &Job) -> String {
    format!("not_run {}", job.name)
}

fn not_run(job: &Job, every: Duration, runs: &JobRuns, now: Timestamp) -> Option<Condition> {
    let last = runs.ran_at.into_iter().chain(runs.expected_since).max()?;
    let since: Duration = now.duration_since(last).try_into().ok()?;
    if since <= every {
        return None;
    }
    let last = match runs.ran_at {
        Some(ran_at) => format!("the last one did at {ran_at:.0}"),
        None => "none ever did".into(),
    };
    Some(Condition {
        key: not_run_key(job),
        kind: ConditionKind::NotRun,
        job: job.name.clone(),
        source: Some(job.source.clone()),
        table: None,
        unit: None,
        window_start: None,
        window_end: None,
        group: None,
        text: format!(
            "no run of job {} came to its end for {}, and one is expected every {}; {last}",
            job.name,
            human(since.as_secs()),
            human(every.as_secs())
        ),
        remedy: "look at what starts it (cron), and at `gpferry history --runs`".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::Interval;
    use crate::ledger::compared::{Of, Rows};

    #[test]
    fn differences_are_told_apart_by_window_and_moved_again_by_repair() {
        let found = |measure: &str, start: i64| OpenDifference {
            of: Of {
                source: "s".into(),
                series: "db^a^t".into(),
                measure: measure.parse().unwrap(),
                job: "j".into(),
                table: "a.t".into(),
                target: "a.t".into(),
            },
            window: Interval::new(start, start + 3_600_000_000).unwrap(),
            rows: Rows { source: 10, target: 7, missing: 3, extra: 0, changed: 0, exact: true },
            groups: Vec::new(),
            found_at: "2021-08-10T00:00:00Z".into(),
            compared_at: "2021-08-10T00:00:00Z".into(),
        };
        let difference = |found: OpenDifference| differences(found, true).remove(0);
        let one = difference(found("time:at", 0));
        assert_eq!(one, difference(found("time:at", 0)));
        for other in [found("time:at", 3_600_000_000), found("id:at", 0), found("all", 0)] {
            assert_ne!(difference(other).key, one.key);
        }
        assert_eq!(one.kind, ConditionKind::Difference);
        assert_eq!(
            one.text,
            "a.t from 1970-01-01T00:00:00 to 1970-01-01T01:00:00 differs: 10 row(s) in the source and 7 in the target; \
             3 missing, 0 only in the target, 0 changed"
        );
        assert_eq!(one.remedy, "`gpferry repair --job j --table a.t` moves it again");
        let rows = Rows { missing: 1, exact: true, ..Rows::default() };
        let groups = ["OP1", "null"].map(|value| Group { value: Some(value.into()), rows });
        let groups = groups.into_iter().chain([Group { value: None, rows }]).collect();
        let grouped = OpenDifference { groups, ..found("time:at", 0) };
        assert_eq!(differences(grouped.clone(), false), [difference(found("time:at", 0))]);
        let told = differences(grouped, true);
        let keys: HashSet<&str> = told.iter().map(|one| one.key.as_str()).collect();
        assert_eq!((told.len(), keys.len()), (3, 3));
        let seen: Vec<Option<&str>> = told.iter().map(|one| one.group.as_deref()).collect();
        assert_eq!(seen, [Some("OP1"), Some("null"), None]);
        assert_eq!(
            told[0].text,
            "a.t from 1970-01-01T00:00:00 to 1970-01-01T01:00:00, group OP1, differs: 1 missing, 0 only in the target, \
             0 changed"
        );
    }
}
