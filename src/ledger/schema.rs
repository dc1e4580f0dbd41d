//! The ledger's tables, by version. A change adds a step here; it never edits one.

use rusqlite::Transaction;

use super::coverage;

/// One step from a version to the next.
pub(super) struct Step {
    /// The SQL.
    pub(super) sql: &'static str,
    /// What SQL alone cannot do, after it.
    pub(super) then: fn(&Transaction<'_>) -> rusqlite::Result<()>,
}

/// What leads from version `n` to `n + 1`, at index `n`.
pub(super) const STEPS: &[Step] = &[
    Step { sql: FIRST, then: |_| Ok(()) },
    Step { sql: COVERAGE, then: coverage::of_units },
    Step { sql: SWEPT, then: |_| Ok(()) },
];

const FIRST: &str = "
CREATE TABLE run (
    id          TEXT PRIMARY KEY,
    command     TEXT NOT NULL,
    host        TEXT NOT NULL,
    pid         INTEGER NOT NULL,
    inventory   TEXT NOT NULL,
    started_at  TEXT NOT NULL,
    ended_at    TEXT,
    exit_code   INTEGER
) STRICT;

CREATE TABLE unit (
    source       TEXT NOT NULL,
    id           TEXT NOT NULL,
    job          TEXT NOT NULL,
    table_name   TEXT NOT NULL,
    target       TEXT NOT NULL,
    target_url   TEXT NOT NULL,
    window_start TEXT,
    window_end   TEXT,
    state        TEXT NOT NULL,
    stage        TEXT,
    exported     TEXT,
    rows         INTEGER,
    bytes        INTEGER,
    rows_loaded  INTEGER,
    error        TEXT,
    remedy       TEXT,
    run          TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    PRIMARY KEY (source, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX unit_by_job ON unit (job, table_name, window_start);

CREATE TABLE attempt (
    run            TEXT NOT NULL,
    source         TEXT NOT NULL,
    unit           TEXT NOT NULL,
    attempt        INTEGER NOT NULL,
    state          TEXT NOT NULL,
    stage          TEXT,
    rows           INTEGER,
    bytes          INTEGER,
    rows_loaded    INTEGER,
    export_seconds REAL,
    load_seconds   REAL,
    error          TEXT,
    started_at     TEXT NOT NULL,
    ended_at       TEXT,
    PRIMARY KEY (run, source, unit, attempt)
) STRICT, WITHOUT ROWID;
";

/// What is loaded, as intervals: what a plan needs does not grow with the history, which can so be pruned. Numbers
/// are microseconds of civil time, or ids; a measure is what rows are told apart by, '' where nobody wrote it down.
const COVERAGE: &str = "
ALTER TABLE unit ADD COLUMN series TEXT;
ALTER TABLE unit ADD COLUMN measure TEXT;
ALTER TABLE unit ADD COLUMN first INTEGER;
ALTER TABLE unit ADD COLUMN last INTEGER;
ALTER TABLE unit ADD COLUMN loaded_at TEXT;
ALTER TABLE unit ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE unit ADD COLUMN tried_in TEXT;
CREATE INDEX unit_open ON unit (state) WHERE state <> 'loaded';

ALTER TABLE run ADD COLUMN target_url TEXT;
ALTER TABLE attempt ADD COLUMN job TEXT;
ALTER TABLE attempt ADD COLUMN table_name TEXT;
ALTER TABLE attempt ADD COLUMN remedy TEXT;
CREATE INDEX attempt_by_unit ON attempt (source, unit);
CREATE INDEX attempt_by_time ON attempt (started_at);

CREATE TABLE covered (
    target_url  TEXT NOT NULL,
    source      TEXT NOT NULL,
    series      TEXT NOT NULL,
    measure     TEXT NOT NULL,
    first       INTEGER NOT NULL,
    last        INTEGER NOT NULL,
    tag         TEXT,
    PRIMARY KEY (target_url, source, series, measure, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE target (
    url           TEXT PRIMARY KEY,
    caught_up_at  TEXT NOT NULL
) STRICT;

CREATE TABLE seen_ids (
    source      TEXT NOT NULL,
    table_name  TEXT NOT NULL,
    column_name TEXT NOT NULL,
    at          TEXT NOT NULL,
    lowest      INTEGER NOT NULL,
    highest     INTEGER NOT NULL,
    PRIMARY KEY (source, table_name, column_name, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE null_rows (
    source      TEXT NOT NULL,
    table_name  TEXT NOT NULL,
    column_name TEXT NOT NULL,
    at          TEXT NOT NULL,
    rows        INTEGER,
    PRIMARY KEY (source, table_name, column_name)
) STRICT, WITHOUT ROWID;
";

/// Whether what a run left half-written on the mount was removed.
const SWEPT: &str = "
ALTER TABLE run ADD COLUMN swept INTEGER NOT NULL DEFAULT 0;
UPDATE run SET swept = 1 WHERE ended_at IS NOT NULL;
";
