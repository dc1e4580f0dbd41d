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
    step(FIRST),
    Step { sql: COVERAGE, then: coverage::of_units },
    step(SWEPT),
    step(TALLIES),
    step(REJECTED),
    step(ALARMS),
    step(OWED),
    step(COMPARED),
    step(GROUPS),
];

const fn step(sql: &'static str) -> Step {
    Step { sql, then: |_| Ok(()) }
}

/// Primary keys that tables of the target are still to get: `columns` is JSON.
const OWED: &str = "
CREATE TABLE owed_key (
    target_url   TEXT NOT NULL,
    schema_name  TEXT NOT NULL,
    table_name   TEXT NOT NULL,
    columns      TEXT NOT NULL,
    oid          INTEGER NOT NULL,
    PRIMARY KEY (target_url, schema_name, table_name)
) STRICT, WITHOUT ROWID;
";

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

/// Whether what a run left on the mount was removed after it had died.
const SWEPT: &str = "
ALTER TABLE run ADD COLUMN swept INTEGER NOT NULL DEFAULT 0;
UPDATE run SET swept = 1 WHERE ended_at IS NOT NULL;
";

/// How much is loaded, per target and series: `status` reads a row a table, and units may be pruned without the sums
/// becoming smaller. The triggers are the one place that adds to them, whoever writes a unit. A whole table that is moved
/// again is in the target once.
const TALLIES: &str = "
CREATE TABLE tally (
    target_url  TEXT NOT NULL,
    source      TEXT NOT NULL,
    series      TEXT NOT NULL,
    job         TEXT NOT NULL,
    table_name  TEXT NOT NULL,
    target      TEXT NOT NULL,
    measure     TEXT,
    units       INTEGER NOT NULL,
    rows        INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    loaded_at   TEXT NOT NULL,
    PRIMARY KEY (target_url, source, series)
) STRICT, WITHOUT ROWID;

INSERT INTO tally
SELECT target_url, source, series, job, table_name, target, measure, count(*), coalesce(sum(rows_loaded), 0),
       coalesce(sum(bytes), 0), max(coalesce(loaded_at, updated_at))
FROM unit WHERE state = 'loaded' AND series IS NOT NULL GROUP BY target_url, source, series;

CREATE TRIGGER unit_begins_loaded AFTER INSERT ON unit WHEN NEW.state = 'loaded' AND NEW.series IS NOT NULL BEGIN
    INSERT INTO tally VALUES (NEW.target_url, NEW.source, NEW.series, NEW.job, NEW.table_name, NEW.target, NEW.measure,
                              1, coalesce(NEW.rows_loaded, 0), coalesce(NEW.bytes, 0),
                              coalesce(NEW.loaded_at, NEW.updated_at))
    ON CONFLICT (target_url, source, series) DO UPDATE SET
        job = excluded.job, table_name = excluded.table_name, target = excluded.target,
        measure = CASE WHEN excluded.measure LIKE 'null:%' THEN measure ELSE coalesce(excluded.measure, measure) END,
        units = CASE WHEN excluded.measure = 'all' THEN 1 ELSE units + 1 END,
        rows = CASE WHEN excluded.measure = 'all' THEN excluded.rows ELSE rows + excluded.rows END,
        bytes = CASE WHEN excluded.measure = 'all' THEN excluded.bytes ELSE bytes + excluded.bytes END,
        loaded_at = max(loaded_at, excluded.loaded_at);
END;

CREATE TRIGGER unit_becomes_loaded AFTER UPDATE ON unit
WHEN NEW.state = 'loaded' AND NEW.series IS NOT NULL
     AND NOT (OLD.state = 'loaded' AND OLD.target_url = NEW.target_url) BEGIN
    INSERT INTO tally VALUES (NEW.target_url, NEW.source, NEW.series, NEW.job, NEW.table_name, NEW.target, NEW.measure,
                              1, coalesce(NEW.rows_loaded, 0), coalesce(NEW.bytes, 0),
                              coalesce(NEW.loaded_at, NEW.updated_at))
    ON CONFLICT (target_url, source, series) DO UPDATE SET
        job = excluded.job, table_name = excluded.table_name, target = excluded.target,
        measure = CASE WHEN excluded.measure LIKE 'null:%' THEN measure ELSE coalesce(excluded.measure, measure) END,
        units = CASE WHEN excluded.measure = 'all' THEN 1 ELSE units + 1 END,
        rows = CASE WHEN excluded.measure = 'all' THEN excluded.rows ELSE rows + excluded.rows END,
        bytes = CASE WHEN excluded.measure = 'all' THEN excluded.bytes ELSE bytes + excluded.bytes END,
        loaded_at = max(loaded_at, excluded.loaded_at);
END;

CREATE TRIGGER unit_is_loaded_again AFTER UPDATE ON unit
WHEN NEW.state = 'loaded' AND NEW.series IS NOT NULL AND OLD.state = 'loaded' AND OLD.target_url = NEW.target_url BEGIN
    UPDATE tally SET rows = rows + coalesce(NEW.rows_loaded, 0) - coalesce(OLD.rows_loaded, 0),
                     bytes = bytes + coalesce(NEW.bytes, 0) - coalesce(OLD.bytes, 0)
    WHERE target_url = NEW.target_url AND source = NEW.source AND series = NEW.series;
END;

CREATE INDEX unit_loaded ON unit (loaded_at) WHERE state = 'loaded';
CREATE INDEX unit_by_time ON unit (updated_at);

CREATE TABLE pruned (
    what  TEXT PRIMARY KEY,
    at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Rows that were kept out of the target and are written down.
const REJECTED: &str = "
ALTER TABLE unit ADD COLUMN rows_rejected INTEGER;
ALTER TABLE attempt ADD COLUMN rows_rejected INTEGER;
";

/// What was wrong, what was told of it, and who has heard it. One alarm of a key stands at a time. `job_run` says when
/// jobs were run; `alarm_look` when everything was looked at last.
const ALARMS: &str = "
CREATE TABLE alarm (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL,
    key           TEXT NOT NULL,
    kind          TEXT NOT NULL,
    job           TEXT NOT NULL,
    source        TEXT,
    table_name    TEXT,
    unit          TEXT,
    window_start  TEXT,
    window_end    TEXT,
    in_group      TEXT,
    text          TEXT NOT NULL,
    remedy        TEXT NOT NULL,
    raised_at     TEXT NOT NULL,
    seen_at       TEXT NOT NULL,
    told_at       TEXT NOT NULL,
    times         INTEGER NOT NULL,
    acked_at      TEXT,
    acked_by      TEXT,
    over_at       TEXT
) STRICT;
CREATE UNIQUE INDEX alarm_standing ON alarm (key) WHERE over_at IS NULL;

CREATE TABLE alarm_message (
    id      TEXT PRIMARY KEY,
    alarm   INTEGER NOT NULL,
    phase   TEXT NOT NULL,
    at      TEXT NOT NULL,
    text    TEXT NOT NULL,
    remedy  TEXT NOT NULL
) STRICT;
CREATE INDEX alarm_message_by_alarm ON alarm_message (alarm);

CREATE TABLE alarm_delivery (
    message  TEXT NOT NULL,
    sink     TEXT NOT NULL,
    told_at  TEXT,
    tries    INTEGER NOT NULL DEFAULT 0,
    error    TEXT,
    PRIMARY KEY (message, sink)
) STRICT, WITHOUT ROWID;
CREATE INDEX alarm_delivery_waiting ON alarm_delivery (sink) WHERE told_at IS NULL;

CREATE TABLE alarm_look (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    at   TEXT NOT NULL
) STRICT;

CREATE TABLE job_run (
    job             TEXT PRIMARY KEY,
    expected_since  TEXT,
    run             TEXT,
    ran_at          TEXT
) STRICT, WITHOUT ROWID;
";

/// What comparisons found: the last one of each table, and the windows that differ, or did until `settled_at`.
const COMPARED: &str = "
CREATE TABLE compared (
    target_url   TEXT NOT NULL,
    source       TEXT NOT NULL,
    series       TEXT NOT NULL,
    measure      TEXT NOT NULL,
    job          TEXT NOT NULL,
    table_name   TEXT NOT NULL,
    target       TEXT NOT NULL,
    compared_at  TEXT NOT NULL,
    verdict      TEXT NOT NULL,
    deep         INTEGER NOT NULL,
    windows      INTEGER NOT NULL,
    differing    INTEGER NOT NULL,
    rows_source  INTEGER NOT NULL,
    rows_target  INTEGER NOT NULL,
    missing      INTEGER NOT NULL,
    extra        INTEGER NOT NULL,
    changed      INTEGER NOT NULL,
    exact        INTEGER NOT NULL,
    error        TEXT,
    remedy       TEXT,
    PRIMARY KEY (target_url, source, series, measure)
) STRICT, WITHOUT ROWID;

CREATE TABLE difference (
    target_url   TEXT NOT NULL,
    source       TEXT NOT NULL,
    series       TEXT NOT NULL,
    measure      TEXT NOT NULL,
    first        INTEGER NOT NULL,
    last         INTEGER NOT NULL,
    job          TEXT NOT NULL,
    table_name   TEXT NOT NULL,
    target       TEXT NOT NULL,
    rows_source  INTEGER NOT NULL,
    rows_target  INTEGER NOT NULL,
    missing      INTEGER NOT NULL,
    extra        INTEGER NOT NULL,
    changed      INTEGER NOT NULL,
    exact        INTEGER NOT NULL,
    found_at     TEXT NOT NULL,
    compared_at  TEXT NOT NULL,
    settled_at   TEXT,
    PRIMARY KEY (target_url, source, series, measure, first, last)
) STRICT, WITHOUT ROWID;
";

/// By which groups windows differ, where comparisons tell them.
const GROUPS: &str = "
CREATE TABLE difference_group (
    target_url   TEXT NOT NULL,
    source       TEXT NOT NULL,
    series       TEXT NOT NULL,
    measure      TEXT NOT NULL,
    first        INTEGER NOT NULL,
    last         INTEGER NOT NULL,
    place        INTEGER NOT NULL,
    in_group     TEXT,
    missing      INTEGER NOT NULL,
    extra        INTEGER NOT NULL,
    changed      INTEGER NOT NULL,
    exact        INTEGER NOT NULL,
    PRIMARY KEY (target_url, source, series, measure, first, last, place)
) STRICT, WITHOUT ROWID;
";
