//! An initial load, table and key included, against pgcopydb.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::Settings;
use crate::measure::{Measured, Ways, measured};
use crate::support::{Case, lab};
use crate::world::{csv_megabytes, fill, forget, gpferry, inventory, other, others};

pub(crate) fn measure(settings: &Settings) -> Value {
    if Command::new("pgcopydb").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    {
        println!("\nno pgcopydb here: `make bench` installs it");
        return Value::Null;
    }
    let mut case = Case::new("bench_peers");
    fill(&mut case, settings.rows);
    inventory(&case, &["{ table: public.large, window: none }"]);
    let megabytes = csv_megabytes(&case);
    println!(
        "\ninitial load of {} rows, {megabytes:.0} MB of CSV, table and key included; medians of {}",
        settings.rows, settings.rounds
    );
    let mut ways = Ways::new(&[&["pgcopydb", "gpferry"], others().as_slice()].concat());
    for _ in 0..settings.rounds {
        let theirs = round(&mut case, pgcopydb);
        let ours = round(&mut case, |case| gpferry(case, &["run", "--create-tables"]));
        let rows = case.count("SELECT count(*) FROM large");
        assert_eq!(rows, i64::try_from(settings.rows).unwrap());
        let key = "SELECT count(*) FROM pg_constraint WHERE contype = 'p' AND conrelid = 'large'::regclass";
        assert_eq!(case.count(key), 1);
        let mut goes = vec![theirs, ours];
        for program in others() {
            goes.push(round(&mut case, |case| other(case, program, &["run", "--create-tables"])));
        }
        ways.round(&goes);
    }
    json!({ "rows": settings.rows, "csv_mb": megabytes, "ways": ways.finish() })
}

fn round(case: &mut Case, go: impl FnOnce(&Case) -> Measured) -> Measured {
    case.target.batch_execute("DROP TABLE IF EXISTS large").unwrap();
    forget(case);
    let measured = go(case);
    assert!(case.count("SELECT count(*) FROM large") > 0);
    measured
}

/// `pgcopydb clone` of the whole database, as its manual has it. It analyzes what it copied, which cannot be turned off.
pub(crate) fn pgcopydb(case: &Case) -> Measured {
    let lab = lab();
    let url = |socket: &str, port: &str| {
        format!("host={} port={} user=postgres dbname={}", lab.get(socket), lab.get(port), case.database())
    };
    let directory = tempfile::tempdir().unwrap();
    measured(|| {
        let output = Command::new("pgcopydb")
            .args(["clone", "--source", &url("LAB_SOURCE_SOCKET", "LAB_SOURCE_PORT")])
            .args(["--target", &url("LAB_TARGET_SOCKET", "LAB_TARGET_PORT")])
            .args(["--dir", directory.path().join("work").to_str().unwrap()])
            .args(["--table-jobs", "4", "--index-jobs", "4", "--skip-large-objects", "--skip-extensions"])
            .args(["--no-owner", "--no-acl"])
            .env("XDG_RUNTIME_DIR", directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        0
    })
}
