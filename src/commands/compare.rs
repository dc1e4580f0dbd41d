//! `compare`: is the target what the source is?

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;

use super::run::STOP_LIMIT;
use super::{check_tables, facts, ledger_path, pool, print, selection, width};
use crate::cli::{Common, Compare, Format};
use crate::engine::compare::{Ground, Outcome, compare as compare_all};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interval::Interval;
use crate::ledger::Ledger;
use crate::ledger::compared::{Compared as Noted, Group, Of, OpenDifference, Rows, Verdict};
use crate::plan::{Compared, Comparison, Uncompared, compared};
use crate::progress::{Comparing, Screen};
use crate::report::compare::{CSV_HEADER, Shown, csv_record, json_left_out, json_lines, text};
use crate::step::compare::{Side, Told, Unread, Window};
use crate::stop::Stop;
use crate::target::Address;

/// Compares what is loaded.
///
/// # Errors
/// [`Failure`] where nothing could be compared at all. A table that cannot be compared is no error.
pub(super) fn compare(common: &Common, wanted: &Compare, screen: &Screen) -> Result<Exit, Failure> {
    let stop = Stop::on_signals().context("listening for signals")?;
    stop.end_within(STOP_LIMIT).context("watching over a stop")?;
    let inventory = super::jobs::inventory(common, &stop)?;
    let selection = selection(&inventory, &wanted.between.select())?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let mut keys = wanted.keys.as_deref().map(KeyFile::create).transpose()?;
    let now = Timestamp::now();
    let mut ledger = Ledger::open(&ledger_path(common))?;
    let facts = facts::of_run(&mut ledger, &inventory, &target, now)?;
    let pool = pool(common);
    let (catalog, unlisted) = super::catalog(&inventory, &selection, &pool, &stop);
    check_tables(&inventory, &selection, &catalog)?;
    for (name, error) in &unlisted {
        log::error!("source {name}: {error} (try: {})", error.remedy());
    }
    let comparison = compared(&inventory, &selection, &catalog, &facts, now);
    drop(facts);
    let suspects = suspects(&comparison, &ledger.open_differences(target.shown())?);
    let progress = Comparing::new(screen, names(&comparison), common.no_progress);
    let ground = Ground {
        inventory: &inventory,
        comparison: &comparison,
        target: &target,
        pool: &pool,
        stop: &stop,
        deep: wanted.deep,
        suspects: &suspects,
        keys: wanted.limit,
        values: wanted.show_values,
        proofs: false,
        watch: &progress.watch,
    };
    let mut all = Vec::new();
    let mut seen = Seen::default();
    let done = compare_all(ground, &mut |outcome| {
        let shown = note(&mut ledger, &comparison, target.shown(), wanted.deep, outcome)?;
        seen.take(&shown);
        if let (Some(keys), Ok(told)) = (&mut keys, &shown.told) {
            keys.write(shown.compared, told)?;
        }
        match common.format {
            Format::Text => all.push(shown),
            Format::Json => {
                let lines: String = json_lines(&shown).iter().map(|line| format!("{line}\n")).collect();
                print(&lines)?;
            }
        }
        Ok(())
    });
    progress.finish();
    done?;
    match common.format {
        Format::Text => {
            all.sort_by_key(|shown| place(&comparison, shown.compared));
            print(&text(&all, &comparison.left_out, width()))?;
        }
        Format::Json => {
            let lines: String =
                comparison.left_out.iter().map(|one| format!("{}\n", json_left_out(one))).collect();
            print(&lines)?;
        }
    }
    super::alarm::after_run(&inventory, &target, &ledger, &stop);
    Ok(stop.exit().unwrap_or_else(|| seen.exit(&comparison.left_out, !unlisted.is_empty())))
}

/// What its tables are called while they are compared.
pub(super) fn names(comparison: &Comparison) -> Vec<String> {
    comparison.tables.iter().map(|one| format!("{}:{}", one.source, one.table)).collect()
}

fn place(comparison: &Comparison, compared: &Compared) -> usize {
    comparison.tables.iter().position(|one| std::ptr::eq(one, compared)).unwrap_or(usize::MAX)
}

/// What came of the tables, together.
#[derive(Debug, Default)]
pub(super) struct Seen {
    different: bool,
    unread: usize,
    unreachable: usize,
    read: usize,
}

impl Seen {
    pub(super) fn take(&mut self, shown: &Shown<'_>) {
        match (&shown.told, shown.verdict) {
            (Err(unread), _) if unread.unreachable && unread.side == Side::Source => self.unreachable += 1,
            (Err(_), _) => self.unread += 1,
            (Ok(_), verdict) => {
                self.read += 1;
                self.different |= verdict == Verdict::Different;
                self.unread += usize::from(verdict == Verdict::Partly);
            }
        }
    }

    /// What could not be read comes first: then nobody knows whether that is equal.
    pub(super) fn exit(&self, left_out: &[Uncompared], unlisted: bool) -> Exit {
        if self.unreachable > 0 && self.read + self.unread == 0 {
            Exit::Unreachable
        } else if self.unreachable + self.unread > 0
            || unlisted
            || left_out.iter().any(|one| one.why.is_open())
        {
            Exit::UnitsFailed
        } else if self.different {
            Exit::Differ
        } else {
            Exit::Done
        }
    }
}

/// Windows of each table whose difference is open: looked at by digests, whatever their numbers of rows say.
pub(super) fn suspects(comparison: &Comparison, open: &[OpenDifference]) -> Vec<Vec<usize>> {
    let mut by_table: HashMap<(&str, &str, String), Vec<Interval<i64>>> = HashMap::new();
    for one in open {
        let of = (one.of.source.as_str(), one.of.series.as_str(), one.of.measure.to_string());
        by_table.entry(of).or_default().push(one.window);
    }
    let of_table = |compared: &Compared| {
        let of = (compared.source.as_str(), compared.rows.series.as_str(), compared.rows.measure.to_string());
        let Some(open) = by_table.get(&of) else { return Vec::new() };
        let windows = compared.extents().into_iter().enumerate();
        windows
            .filter(|(_, extent)| open.iter().any(|one| one.overlaps(&extent.numbers())))
            .map(|(n, _)| n)
            .collect()
    };
    comparison.tables.iter().map(of_table).collect()
}

/// Writes down what came of a table, and keeps what is shown of it.
pub(super) fn note<'a>(
    ledger: &mut Ledger,
    comparison: &'a Comparison,
    target_url: &str,
    deep: bool,
    outcome: Outcome,
) -> Result<Shown<'a>, Failure> {
    let compared = &comparison.tables[outcome.table];
    let verdict = verdict(&outcome.told);
    let windows = outcome.told.as_ref().map_or(&[][..], |told| &told.windows);
    let sum = |side: usize| windows.iter().map(|window| window.rows[side]).sum();
    let rows = [sum(0), sum(1)];
    let difference = outcome.told.as_ref().map(Told::difference).unwrap_or_default();
    let of = |rows: [u64; 2], difference: crate::step::compare::Difference| Rows {
        source: rows[0],
        target: rows[1],
        missing: difference.missing,
        extra: difference.extra,
        changed: difference.changed,
        exact: difference.exact,
    };
    let differs = |window: &&Window| !window.difference.is_none();
    let mut groups: HashMap<usize, Vec<Group>> = HashMap::new();
    for (window, value, difference) in outcome.told.iter().flat_map(|told| &told.parts) {
        let group = Group { value: value.clone(), rows: of([0, 0], *difference) };
        groups.entry(*window).or_default().push(group);
    }
    let noted = Noted {
        of: Of {
            source: compared.source.clone(),
            series: compared.rows.series.clone(),
            measure: compared.rows.measure.clone(),
            job: compared.job.clone(),
            table: compared.table.to_string(),
            target: compared.target.to_string(),
        },
        at: outcome.at,
        verdict,
        deep,
        windows: windows.len() as u64,
        rows: of(rows, difference),
        agreeing: windows
            .iter()
            .filter(|window| window.digested && !differs(window))
            .map(|window| window.extent.numbers())
            .collect(),
        differing: windows
            .iter()
            .enumerate()
            .filter(|(_, window)| differs(window))
            .map(|(n, window)| {
                let rows = of(window.rows, window.difference);
                (window.extent.numbers(), rows, groups.remove(&n).unwrap_or_default())
            })
            .collect(),
        error: outcome.told.as_ref().err().map(|unread| (unread.error.clone(), unread.remedy.clone())),
    };
    ledger.note_compared(target_url, &noted)?;
    let windows = windows.len();
    let told = outcome.told.map(only_differing);
    Ok(Shown { compared, verdict, windows, rows, deep, told, seconds: outcome.took.as_secs_f64() })
}

fn verdict(told: &Result<Told, Unread>) -> Verdict {
    match told {
        Err(_) => Verdict::Unread,
        Ok(told) if !told.difference().is_none() => Verdict::Different,
        Ok(told) if told.has_gaps() => Verdict::Partly,
        Ok(_) => Verdict::Equal,
    }
}

/// What is kept of a table: of its windows, those that differ.
fn only_differing(mut told: Told) -> Told {
    let mut places = HashMap::new();
    let mut kept = Vec::new();
    for (n, window) in told.windows.into_iter().enumerate() {
        if !window.difference.is_none() {
            places.insert(n, kept.len());
            kept.push(window);
        }
    }
    told.windows = kept;
    for (window, _) in &mut told.proofs {
        *window = places.get(window).copied().unwrap_or(usize::MAX);
    }
    for key in &mut told.keys {
        key.window = places.get(&key.window).copied().unwrap_or(usize::MAX);
    }
    told
}

/// A CSV of keys. They are cell values: nobody else may read it.
struct KeyFile(csv::Writer<std::fs::File>);

impl KeyFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
                let what = format!("cannot make {}: {error}", path.display());
                Failure::Usage {
                    what,
                    remedy: "give --keys the name of a new file in a directory that is there".into(),
                }
            })?;
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(CSV_HEADER).context("writing --keys")?;
        Ok(Self(writer))
    }

    fn write(&mut self, compared: &Compared, told: &Told) -> Result<(), Failure> {
        for key in &told.keys {
            self.0.write_record(csv_record(compared, told, key)).context("writing --keys")?;
        }
        self.0.flush().context("writing --keys")?;
        Ok(())
    }
}
