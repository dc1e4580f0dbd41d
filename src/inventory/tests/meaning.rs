//! Faults of what keys mean: words, times, windows, and what does not go together.

use super::faults::{found, one, table};
use super::*;

#[test]
fn words() {
    one("engine: postgres", "engine: §postgresql", "sources.fab1.engine", "did you mean `postgres`?");
    one("engine: postgres", "engine: §oracle", "sources.fab1.engine", "greenplum, postgres, mysql, tdengine");
    one("gp6/d", "gp6/d, loader: §fast", "target.loader", "auto, copy, segments, gpfdist, gpload");
    table("window: none, load: { mode: §upsert }", "load.mode", "insert, update, merge, replace");
    table(
        "window: none, load: { on_pk_violation: §skip }",
        "load.on_pk_violation",
        "rollback, skip_identical",
    );
    table("window: none, export: { compressor: §zstd }", "export.compressor", "auto, igzip, pigz, gzip");
}

#[test]
fn times() {
    one("version: 1", "version: 1\ntimezone: §Asia/Shanghia", "timezone", "did you mean `Asia/Shanghai`?");
    one("version: 1", "version: 1\ntimezone: §CN", "timezone", "IANA");
    for bad in ["10.08.2021", "2021-13-01", "20210810", "now", "2021-08-10 00:00:00 CST"] {
        one("    source:", &format!("    from: §{bad}\n    source:"), "jobs.j.from", "is not a timestamp");
    }
    let range = "    from: §2021-08-10\n    until: 2021-08-10 00:00\n    source:";
    one("    source:", range, "jobs.j.from", "no window lies between them");
    let hours = |text: &str| format!("    hours: §{text}\n    source:");
    for bad in ["0-4", "00:00", "25:00-26:00", "24:00-01:00", "04:00-04:00", "0:00-4:00"] {
        one("    source:", &hours(bad), "jobs.j.hours", "is not a range of the day");
    }
}

#[test]
fn keeping() {
    one("version: 1", "version: 1\nkeep: { §file: 7d }", "keep.file", "did you mean `files`?");
    one("version: 1", "version: 1\nkeep: { files: §0d }", "keep.files", "is not longer than nothing");
    one("version: 1", "version: 1\nkeep: { history: §1 year }", "keep.history", "uses a unit");
    one("version: 1", "version: 1\nkeep: §7d", "keep", "files: 7d");
}

#[test]
fn windows_and_lengths() {
    let with_range = SMALL.replace("    source:", "    from: 2021-08-10\n    until: 2021-08-11\n    source:");
    let at = |by: &str| found(&with_range.replace("window: none", by));
    assert_eq!(at("window: { column: c, length: soon }"), ["12:52 jobs.j.tables[0].window.length"]);
    assert_eq!(at("window: { column: c, length: 1 month }"), ["12:52 jobs.j.tables[0].window.length"]);
    assert_eq!(at("window: { column: c, length: 0 }"), ["12:52 jobs.j.tables[0].window.length"]);
    assert_eq!(at("window: { column: c, lag: -5m }"), ["12:49 jobs.j.tables[0].window.lag"]);
    assert_eq!(at("window: { length: 4h }"), ["12:9 jobs.j.tables[0]"]);
    assert_eq!(at("window: nothing"), ["12:31 jobs.j.tables[0].window"]);
    assert_eq!(at("where: \"a = 1\""), ["12:9 jobs.j.tables[0]"]);
    assert_eq!(
        at("export: { slice_bytes: 256M }"),
        ["12:9 jobs.j.tables[0]", "12:46 jobs.j.tables[0].export.slice_bytes"]
    );
    assert_eq!(
        at("window: { column: c, type: id, length: 4h }").len(),
        2,
        "no `step`, and `length` is of time"
    );
    assert_eq!(at("window: { column: c, type: id, step: 0 }"), ["12:60 jobs.j.tables[0].window.step"]);
    assert_eq!(at("window: { column: c, type: time, length: 4h, step: 9 }").len(), 1);
    assert_eq!(at("window: { column: c, type: id, step: 9, from: 5, until: 5 }").len(), 1);
    table("window: { column: c, type: §unix }", "window.type", "epoch_s, epoch_ms, epoch_us, id");
    table("window: none, except: §\"a.*\"", "except", "`except` is for patterns");
    table("window: none, export: { slice_bytes: §0 }", "export.slice_bytes", "256MiB");
    table("window: none, export: { retries: §1000 }", "export.retries", "0 to 100");
    table("window: none, where: §\"a = 1; drop\"", "where", "end the statement");
}

#[test]
fn many_tables_without_a_window_are_one_fault() {
    let names: String = (0..500).map(|number| format!("      - s.t{number}\n")).collect();
    let error = read(&format!("{SMALL}{names}")).unwrap_err();
    assert_eq!(error.faults.len(), 1, "{error}");
    assert_eq!(error.faults[0].key, "jobs.j.tables[1]");
    assert!(error.faults[0].what.contains("499 more tables"), "{error}");
}

#[test]
fn sources_that_are_not_there() {
    one("source: fab1", "source: §fab2", "jobs.j.source", "did you mean `fab1`?");
    one("source: fab1", "source: §warehouse", "jobs.j.source", "use one that is there: fab1");
}

#[test]
fn tables_that_would_be_loaded_twice() {
    let entry = "      - { table: a.b, window: none }\n";
    let with = |more: &str| format!("{SMALL}{more}");
    assert_eq!(found(&with(entry)), ["11:9 jobs.j.tables[1]"]);
    assert_eq!(
        found(&with(
            "      - { table: x.y, target: a.b, window: none }\n      - { table: x.y, target: a.b, window: none }\n"
        )),
        ["12:9 jobs.j.tables[2]"]
    );
    let second_job = format!("  k:\n    source: fab1\n    tables:\n{entry}{entry}");
    assert_eq!(found(&with(&second_job)), ["14:9 jobs.k.tables[0]", "15:9 jobs.k.tables[1]"]);
    let error = read(&with(entry)).unwrap_err().to_string();
    assert!(error.contains("jobs.j.tables[0] in line 10"), "{error}");
    let glob = "      - { tables: \"a.*\", window: none }\n";
    assert_eq!(found(&with(&format!("{glob}{glob}"))), ["12:9 jobs.j.tables[2]"]);
    for good in [
        "      - { table: a.b, window: none, where: \"x = 1\" }\n",
        "      - { table: a.b, window: none, target: a.c }\n",
        glob,
    ] {
        assert!(read(&with(good)).is_ok(), "{good}");
    }
    let other_source = with(&second_job.replace(&entry.repeat(2), entry).replace("fab1", "fab2"))
        .replace("jobs:", "  fab2: { host: g, engine: postgres, database: d }\njobs:");
    assert!(read(&other_source).is_ok());
}

#[test]
fn what_belongs_together() {
    table("window: none, load: { match: §[a] }", "load.match", "no mode here uses it");
    one("jobs:", "defaults: { load: { match: §[a] } }\njobs:", "defaults.load.match", "no mode here uses it");
    table("window: none, load: { mode: §mrege, match: [a] }", "load.mode", "`merge`");
    let text = SMALL.replace("window: none", "window: none, every: 1d");
    let error = read(&text).unwrap_err().to_string();
    assert!(error.contains("needs mode `replace` or `merge`"), "{error}");
    let text = SMALL.replace("window: none", "window: none, every: 1d, load: { mode: replace }");
    assert!(read(&text).is_ok());
}

#[test]
fn what_this_version_does_not_do_yet() {
    const NOT_YET: &str = "not supported by this version yet";
    for engine in ["mysql", "tdengine"] {
        one("engine: postgres", &format!("engine: §{engine}"), "sources.fab1.engine", NOT_YET);
    }
}

#[test]
fn what_a_mode_has_no_use_for() {
    table("window: none, load: { update_columns: §[a] }", "load.update_columns", "mode: merge");
    table(
        "window: none, load: { mode: replace, update_condition: §\"a > 1\" }",
        "load.update_condition",
        "mode",
    );
    table("window: none, load: { duplicates: §last by c }", "load.duplicates", "mode: merge");
    table("window: none, load: { truncate: §true }", "load.truncate", "mode: replace");
    table("window: none, where: a > 1, load: { mode: replace, truncate: §true }", "load.truncate", "deleted");
    // For those tables that have a use for it.
    let text =
        SMALL.replace("jobs:", "defaults: { load: { duplicates: last by c, reject_limit: 1 % } }\njobs:");
    assert!(read(&text).is_ok());
}

#[test]
fn keys_of_load() {
    table("window: none, load: { reject_limit: §many }", "load.reject_limit", "0.5 %");
    table("window: none, load: { rejects: §maybe }", "load.rejects", "fail, allow");
    table("window: none, load: { mode: merge, duplicates: §first }", "load.duplicates", "last by");
    table("window: none, load: { before: [ a, §COMMIT ] }", "load.before[1]", "SELECT");
    table("window: none, load: { after: §\"BEGIN; x\" }", "load.after", "SELECT");
    table("window: none, load: { mapping: { a: §\"b; c\" } }", "load.mapping.a", "one expression");
    table(
        "window: none, load: { mode: merge, update_condition: §\"a -- b\" }",
        "load.update_condition",
        "into_table",
    );
}

#[test]
fn the_inventory_of_the_design_is_taken_whole() {
    let text = DESIGN
        .replace("    tables:\n", "    hours: 00:00-04:00\n    tables:\n")
        .replace("'Y'\"\n", "'Y'\"\n        load: { mode: merge, match: [glass_id, ope_id] }\n")
        .replace("window: none }", "window: none, every: 1d, load: { mode: replace } }");
    assert_eq!(read(&text).map(|inventory| inventory.jobs.len()).map_err(|error| error.to_string()), Ok(1));
}
