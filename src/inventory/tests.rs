//! From text to meaning: what a good inventory means, and that no text makes it panic.

mod alarms;
mod faults;
mod gpfdist;
mod meaning;
mod report;
mod scripts;
mod tree;

use std::path::Path;
use std::time::Duration;

use jiff::civil::date;
use proptest::prelude::*;

use super::*;
use crate::measure::Scale;
use crate::window::Length;

/// The smallest inventory that is good.
const SMALL: &str = "\
version: 1
mount: { path: /mnt/x }
target: { url: postgresql://loader@gp6/d }
sources:
  fab1: { host: h, engine: postgres, database: d }
jobs:
  j:
    source: fab1
    tables:
      - { table: a.b, window: none }
";

/// The one of DESIGN.md 5.2, without what this version does not do yet.
const DESIGN: &str = include_str!("tests/design.yml");

fn read(text: &str) -> Result<Inventory, InventoryError> {
    parse(text, Path::new("inventory.yml"))
}

fn length(text: &str) -> Option<Length> {
    Some(text.parse().unwrap())
}

/// A window of time by a column's own type.
fn by(column: &str, length: Option<Length>, lag: Duration) -> WindowRule {
    let cut = Cut::Time { scale: Scale::Time, length };
    WindowRule::By(WindowBy { column: column.into(), cut, lag, null_window: NullWindow::Skip })
}

#[test]
fn defaults_are_filled_in() {
    let inventory = read(SMALL).unwrap();
    assert_eq!(inventory.timezone, jiff::tz::TimeZone::UTC);
    assert_eq!((inventory.mount.subdir.as_str(), &inventory.mount.owner), ("file2GP", &None));
    let Target { loader, sessions, log_schema, .. } = &inventory.target;
    assert_eq!((*loader, *sessions, log_schema.as_str()), (Loader::Auto, 4, "gpferry"));
    let source = inventory.source("fab1").unwrap();
    assert_eq!((source.mount.as_path(), source.sessions), (Path::new("/mnt/x"), 4));
    assert_eq!((&source.connection, &source.script), (&Connection::default(), &None));
    let job = &inventory.jobs[0];
    assert_eq!((job.from, job.until, job.hours), (None, None, None));
    let table = &job.tables[0];
    assert_eq!(table.window, WindowRule::None { every: None });
    assert_eq!((&table.target, &table.filter), (&None, &None));
    let LoadRule { mode, match_columns, on_pk_violation, .. } = &*table.load;
    assert_eq!(
        (*mode, match_columns.len(), *on_pk_violation),
        (LoadMode::Insert, 0, OnPkViolation::Rollback)
    );
    let export = ExportRule {
        timeout: Duration::from_secs(30 * 60),
        retries: 2,
        slice_bytes: 64 * 1024 * 1024,
        compressor: Compressor::Auto,
        method: ExportMethod::Auto,
    };
    assert_eq!(table.export, export);
}

#[test]
fn the_inventory_of_the_design_means_what_it_says() {
    let inventory = read(DESIGN).unwrap();
    assert_eq!(inventory.timezone.iana_name(), Some("Asia/Shanghai"));
    assert_eq!(inventory.mount.path, Path::new("/mnt/dataTransfer"));
    let owner = Owner { user: "gpadmin".into(), group: "gpadmin".into() };
    assert_eq!(inventory.mount.owner, Some(owner));
    assert_eq!(inventory.target.url, "postgresql://loader@gp6:5432/qmsprd");
    let source = &inventory.sources[0];
    assert_eq!((source.host.as_str(), source.engine), ("gpadmin@gp4-etl:22", Engine::Greenplum));
    let connection = Connection {
        host: Some("10.0.0.3".into()),
        port: Some(5432),
        user: Some("gpadmin".into()),
        psql: None,
    };
    assert_eq!(source.connection, connection);

    let job = &inventory.jobs[0];
    assert_eq!(job.from, Some(date(2021, 8, 10).at(0, 0, 0, 0)));
    assert_eq!(job.until, Some(date(2021, 9, 10).at(0, 0, 0, 0)));
    let by = |column: &str, text| by(column, length(text), Duration::from_secs(300));
    let windows: Vec<_> = job.tables.iter().map(|table| table.window.clone()).collect();
    assert_eq!(
        windows,
        [
            by("evt_timestamp", "4h"),
            by("upd_time", "1h"),
            WindowRule::None { every: None },
            by("evt_timestamp", "4h")
        ]
    );
    assert_eq!(job.tables[1].filter.as_ref().unwrap().to_string(), "(valid_flag = 'Y')");
    let pattern = Pattern { schema: "tiny".into(), table: "d*".into() };
    let glob = TableSelector::Glob { pattern, except: Vec::new() };
    assert_eq!(job.tables[3].what, glob);
}

#[test]
fn the_table_wins_over_the_job_and_the_job_over_the_defaults_key_by_key() {
    let text = SMALL
        .replace("jobs:", "defaults: { window: { column: c, lag: 1m }, export: { retries: 7, timeout: 1m } }\njobs:")
        .replace("    tables:", "    from: 2021-01-01\n    window: { length: 2h, lag: 2m }\n    export: { retries: 8, method: copy }\n    tables:")
        .replace("window: none", "window: { lag: 3m }, export: { compressor: pigz, method: segments }");
    let table = read(&text).unwrap().jobs.remove(0).tables.remove(0);
    let by = by("c", length("2h"), Duration::from_secs(180));
    assert_eq!(table.window, by);
    let export = ExportRule {
        timeout: Duration::from_secs(60),
        retries: 8,
        slice_bytes: 64 << 20,
        compressor: Compressor::Pigz,
        method: ExportMethod::Segments,
    };
    assert_eq!(table.export, export);
}

#[test]
fn none_of_a_job_is_undone_by_a_window_at_a_table() {
    let text = SMALL
        .replace("jobs:", "defaults: { window: { column: c, length: 4h } }\njobs:")
        .replace(
            "    tables:\n",
            "    from: 2021-01-01\n    until: 2021-02-01\n    window: none\n    tables:\n      - a.c\n",
        )
        .replace("window: none }", "window: { column: d } }");
    let tables = read(&text).unwrap().jobs.remove(0).tables;
    assert_eq!(tables[0].window, WindowRule::None { every: None });
    let by = by("d", None, Duration::from_secs(300));
    assert_eq!(tables[1].window, by, "nothing of `defaults` reaches past the job's `none`");
}

#[test]
fn values_are_read_in_every_form() {
    let text = SMALL
        .replace("version: 1\n", "version: 1\ntimezone: Asia/Shanghai\n")
        .replace("    tables:", "    from: 2021-08-09T16:00Z\n    until: \"2021-08-10 00:00:00.5\"\n    tables:")
        .replace(
            "window: none",
            "target: 'A.\"b.c\"', window: { column: \"No\", length: 4, lag: 0 }, export: { slice_bytes: 1GB, retries: 0 }",
        );
    let job = read(&text).unwrap().jobs.remove(0);
    assert_eq!(job.from, Some(date(2021, 8, 10).at(0, 0, 0, 0)));
    assert_eq!(job.until, Some(date(2021, 8, 10).at(0, 0, 0, 500_000_000)));
    let table = &job.tables[0];
    let by = by("No", length("4h"), Duration::ZERO);
    assert_eq!(table.window, by);
    assert_eq!((table.export.slice_bytes, table.export.retries), (1_000_000_000, 0));
    let target = table.target.as_ref().unwrap();
    assert_eq!((target.schema(), target.table()), ("A", "b.c"));
}

#[test]
fn what_is_kept_is_for_ever_unless_it_says_how_long() {
    assert_eq!(read(SMALL).unwrap().keep, Keep::default());
    let keep = read(&format!("{SMALL}keep: {{ files: 7d, history: 400d }}\n")).unwrap().keep;
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));
    assert_eq!(keep, Keep { files: days(7), rejects: None, history: days(400) });
    assert_eq!(keep.shortest(), days(7));
}

#[test]
fn the_samples_are_good() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory");
    for (name, tables) in [("first.yml", 2), ("full.yml", 14)] {
        let inventory = load(&samples.join(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(inventory.jobs.iter().map(|job| job.tables.len()).sum::<usize>(), tables, "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.yml");
    assert!(load(&path).unwrap_err().faults[0].what.contains("cannot be read"));
    std::fs::write(&path, b"version: 1\n# \xff\n").unwrap();
    assert!(load(&path).unwrap_err().faults[0].what.contains("line 2 holds bytes that are not UTF-8"));
}

#[test]
fn ten_thousand_tables_are_read_in_no_time() {
    let mut text = SMALL.to_owned();
    for number in 0..10_000 {
        text.push_str(&format!("      - {{ table: s.t{number}, window: none }}\n"));
    }
    let start = std::time::Instant::now();
    assert_eq!(read(&text).unwrap().jobs[0].tables.len(), 10_001);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}|[a-z:{}\\[\\]\n \"'&*!|>#,?-]{0,120}") {
        let _ = read(&text);
    }

    #[test]
    fn no_change_of_a_good_inventory_makes_it_panic(
        cut in 0usize..3000, gone in 0usize..20, put in "\\PC{0,6}|[a-z:{}\\[\\]\n \"'&*!|>#,?0-9-]{0,8}",
    ) {
        let mut chars: Vec<char> = DESIGN.chars().collect();
        let cut = cut % chars.len();
        let end = (cut + gone).min(chars.len());
        chars.splice(cut..end, put.chars());
        let text: String = chars.into_iter().collect();
        if let Err(error) = read(&text) {
            prop_assert!(!error.faults.is_empty());
            let _ = error.to_string();
        }
    }

    #[test]
    fn a_password_is_never_shown(
        line in 0usize..40, indent in 0usize..10, key in "(db_)?password|passwd|PWD|pgpassword", url in any::<bool>(),
        broken in "|: x|\\[|\"|'",
    ) {
        let mut lines: Vec<String> = DESIGN.lines().map(str::to_owned).collect();
        let line = line % lines.len();
        let secret = "S3cr3tValue";
        let written = if url { format!("postgresql://u:{secret}@h/d") } else { secret.to_owned() };
        lines.insert(line, format!("{}{key}: {written}{broken}", " ".repeat(indent)));
        let error = read(&lines.join("\n")).unwrap_err();
        prop_assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }

    #[test]
    fn a_password_in_the_place_of_any_value_is_never_shown(number in 0usize..60, url in any::<bool>()) {
        let values: Vec<usize> = DESIGN.match_indices(": ").map(|(index, _)| index + 2).collect();
        let at = values[number % values.len()];
        let end = DESIGN[at..].find(['\n', ',', '}']).map_or(DESIGN.len(), |end| at + end);
        let put = if url { "postgresql://u:S3cr3tValue@h/d" } else { "*p" };
        let text = format!("password: &p S3cr3tValue\n{}{put}{}", &DESIGN[..at], &DESIGN[end..]);
        let error = read(&text).unwrap_err();
        prop_assert!(!format!("{error} {error:?}").contains("S3cr3tValue"), "{error}");
    }
}

#[test]
fn windows_of_numbers_say_what_the_numbers_are() {
    let window = |keys: &str| {
        let text = SMALL.replace("window: none", &format!("window: {{ column: n, {keys} }}"));
        let text = text.replace("    source:", "    from: 2021-08-10\n    source:");
        match read(&text).unwrap().jobs[0].tables[0].window.clone() {
            WindowRule::By(by) => by,
            WindowRule::None { .. } => panic!("{text}"),
        }
    };
    let epoch = window("type: epoch_ms, length: 1h");
    assert_eq!(epoch.cut, Cut::Time { scale: Scale::EpochMillis, length: Some(Length::hours(1)) });
    let ids = window("type: id, step: 1000, from: -5, until: 99, null_window: include");
    assert_eq!(ids.cut, Cut::Ids { step: 1000, from: Some(-5), until: Some(99) });
    assert_eq!((ids.null_window, ids.measure().to_string()), (NullWindow::Include, "id:n".into()));
}

#[test]
fn how_a_table_is_compared_is_read_key_by_key() {
    let with = |compare: &str| {
        let entry = format!("window: none, compare: {compare} }}");
        read(&SMALL.replace("window: none }", &entry))
    };
    let rule = with("{ group: ope_id, key: [a, b], except: [c], where: \"site = 'x'\" }").unwrap();
    let rule = &rule.jobs[0].tables[0].compare;
    assert_eq!((rule.group.as_deref(), rule.key.len(), rule.except.len()), (Some("ope_id"), 2, 1));
    assert_eq!(rule.filter.as_ref().map(ToString::to_string).as_deref(), Some("(site = 'x')"));
    for wrong in ["{ by: a }", "{ key: [a, a] }", "{ where: \"a = 1; drop table t\" }", "deep"] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}
