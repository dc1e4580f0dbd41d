//! What must hold after every run, whatever was done to it.

use std::time::{Duration, Instant};

use crate::support::Side;
use crate::world::World;

/// How long a dead run's processes, sessions and half-written files may stay.
const LEFT_BEHIND: Duration = Duration::from_secs(15);

/// What the target holds, held against the source and the load log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) there: i64,
    /// Of the source, and not there.
    pub(crate) missing: i64,
    /// There once too often, or never in the source.
    pub(crate) surplus: i64,
}

/// Counts what is there, in PostgreSQL's own words; and what the load log says otherwise.
pub(crate) fn rows(world: &mut World) -> (Rows, Vec<String>) {
    let tables = world.tables.clone();
    let target = world.session(Side::Target);
    let (mut rows, mut wrong) = (Rows::default(), Vec::new());
    let log: bool =
        target.query_one("SELECT to_regclass('gpferry.load_log') IS NOT NULL", &[]).unwrap().get(0);
    for table in &tables {
        let logged = if log {
            format!(
                "SELECT coalesce(sum(rows_loaded), 0)::bigint FROM gpferry.load_log WHERE table_name = 'public.{table}'"
            )
        } else {
            "SELECT 0::bigint".to_owned()
        };
        let query = format!(
            "SELECT (SELECT count(*) FROM {table}), \
             (SELECT count(*) FROM (SELECT * FROM expected.{table} EXCEPT ALL SELECT * FROM {table}) x), \
             (SELECT count(*) FROM (SELECT * FROM {table} EXCEPT ALL SELECT * FROM expected.{table}) x), ({logged})"
        );
        let row = target.query_one(query.as_str(), &[]).unwrap();
        let (there, missing, surplus, logged): (i64, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        rows.there += there;
        rows.missing += missing;
        rows.surplus += surplus;
        if there != logged {
            wrong.push(format!("{table} holds {there} rows, the load log says {logged}"));
        }
        if surplus > 0 {
            wrong.push(format!("{table} holds {surplus} rows that are twice there or not of the source"));
        }
    }
    (rows, wrong)
}

/// What is left of a run that is over, after the time that it has for going.
pub(crate) fn left_behind(world: &mut World, parts_too: bool) -> Vec<String> {
    let began = Instant::now();
    loop {
        let mut left: Vec<String> = world
            .processes()
            .iter()
            .map(|process| format!("process {} {}", process.name, process.pid))
            .collect();
        for (side, name) in [(Side::Source, "source"), (Side::Target, "target")] {
            left.extend(world.backends(side).iter().map(|pid| format!("session {pid} in the {name}")));
        }
        if parts_too {
            left.extend(parts(world));
        }
        if left.is_empty() || began.elapsed() > LEFT_BEHIND {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Half-written files and staging directories below the mount.
fn parts(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![world.case.mount().join("file2GP")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(".part") {
                found.push(entry.path().display().to_string());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
        }
    }
    found
}
