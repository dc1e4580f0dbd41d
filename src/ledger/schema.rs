//! The ledger's tables, by version. A change adds a step here; it never edits one.

/// The SQL that leads from version `n` to `n + 1`, at index `n`.
pub(super) const STEPS: &[&str] = &[
    "
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
",
    "
ALTER TABLE run ADD COLUMN swept INTEGER NOT NULL DEFAULT 0;
UPDATE run SET swept = 1 WHERE ended_at IS NOT NULL;
",
];
