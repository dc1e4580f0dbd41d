//! Writing down what a comparison found.

use rusqlite::{Transaction, params};

use super::super::coverage::at;
use super::{Compared, groups};
use crate::interval::merged;

/// The comparison itself, and what it closes and opens.
pub(super) fn note(
    transaction: &Transaction<'_>,
    target_url: &str,
    compared: &Compared,
) -> rusqlite::Result<()> {
    note_last(transaction, target_url, compared)?;
    settle(transaction, target_url, compared)?;
    open(transaction, target_url, compared)
}

/// What came of it, in place of the one before.
fn note_last(transaction: &Transaction<'_>, target_url: &str, compared: &Compared) -> rusqlite::Result<()> {
    let (of, when, measure) = (&compared.of, at(compared.at), compared.of.measure.to_string());
    let error = compared.error.as_ref();
    transaction.execute(
        "INSERT OR REPLACE INTO compared (target_url, source, series, measure, job, table_name, target, compared_at,
                                          verdict, deep, windows, differing, rows_source, rows_target, missing, extra,
                                          changed, exact, error, remedy)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
        params![
            target_url,
            of.source,
            of.series,
            measure,
            of.job,
            of.table,
            of.target,
            when,
            compared.verdict.word(),
            compared.deep,
            compared.windows,
            compared.differing.len(),
            compared.rows.source,
            compared.rows.target,
            compared.rows.missing,
            compared.rows.extra,
            compared.rows.changed,
            compared.rows.exact,
            error.map(|(error, _)| error.as_str()),
            error.map(|(_, remedy)| remedy.as_str()),
        ],
    )?;
    Ok(())
}

/// Whatever was open within the windows that were looked at is open no longer.
fn settle(transaction: &Transaction<'_>, target_url: &str, compared: &Compared) -> rusqlite::Result<()> {
    let (of, when, measure) = (&compared.of, at(compared.at), compared.of.measure.to_string());
    let seen = compared.agreeing.iter().chain(compared.differing.iter().map(|(window, ..)| window));
    let series = (of.source.as_str(), of.series.as_str(), measure.as_str());
    let mut settle = transaction.prepare_cached(
        "UPDATE difference SET missing = 0, extra = 0, changed = 0, exact = 1, compared_at = ?7, settled_at = ?7
         WHERE target_url = ?1 AND source = ?2 AND series = ?3 AND measure = ?4 AND first >= ?5 AND last <= ?6
           AND settled_at IS NULL",
    )?;
    for part in merged(seen.copied().collect()) {
        settle.execute(params![target_url, of.source, of.series, measure, part.start(), part.end(), when])?;
        groups::forget(transaction, target_url, series, part)?;
    }
    Ok(())
}

/// Opens the windows that differ. What was settled by this very look has not been closed in between: it keeps the time it
/// was found at.
fn open(transaction: &Transaction<'_>, target_url: &str, compared: &Compared) -> rusqlite::Result<()> {
    let (of, when, measure) = (&compared.of, at(compared.at), compared.of.measure.to_string());
    let series = (of.source.as_str(), of.series.as_str(), measure.as_str());
    let mut open = transaction.prepare_cached(
        "INSERT INTO difference (target_url, source, series, measure, first, last, job, table_name, target, rows_source,
                                 rows_target, missing, extra, changed, exact, found_at, compared_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?16)
         ON CONFLICT (target_url, source, series, measure, first, last) DO UPDATE SET
             job = ?7, table_name = ?8, target = ?9, rows_source = ?10, rows_target = ?11, missing = ?12, extra = ?13,
             changed = ?14, exact = ?15, compared_at = ?16,
             found_at = CASE WHEN settled_at = ?16 THEN found_at ELSE ?16 END, settled_at = NULL",
    )?;
    for (window, rows, groups) in &compared.differing {
        groups::note(transaction, target_url, series, *window, groups)?;
        open.execute(params![
            target_url,
            of.source,
            of.series,
            measure,
            window.start(),
            window.end(),
            of.job,
            of.table,
            of.target,
            rows.source,
            rows.target,
            rows.missing,
            rows.extra,
            rows.changed,
            rows.exact,
            when,
        ])?;
    }
    Ok(())
}
