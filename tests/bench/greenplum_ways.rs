//! A Greenplum that the tester brings: what its segments read and write themselves, against COPY and the site's own gpload.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::Settings;
use crate::greenplum::{self, Source};
use crate::measure::{Measured, Ways, measured};
use crate::support::{Case, lab};
use crate::world::{LARGE, forget, gpferry, reset};

/// How large units are exported: in one, or in several.
const WHOLE: &str = "slice_bytes: 1TiB";
const SLICES: &str = "slice_bytes: 64MiB";

/// Tables of a few rows.
const TINY: usize = 200;

pub(crate) fn measure(settings: &Settings) -> Value {
    if greenplum::is_missing_for("segments against COPY and gpload") {
        return Value::Null;
    }
    json!({ "large": large(settings), "tiny": tiny(settings) })
}

fn large(settings: &Settings) -> Value {
    let Some(mut source) = Source::new(&format!("bench_from_{}", std::process::id())) else {
        return Value::Null;
    };
    let mut case = Case::new("bench_greenplum");
    let rows = settings.rows;
    source.client.batch_execute(&format!("CREATE TABLE large {LARGE}")).unwrap();
    source.client.batch_execute(&crate::world::insert_large(rows)).unwrap();
    source.client.batch_execute("ANALYZE large").unwrap();
    case.target.batch_execute(&format!("CREATE TABLE large {LARGE}")).unwrap();
    inventory(&case, &source);
    println!("\n{rows} rows from Greenplum to Greenplum; medians of {}", settings.rounds);
    let mut loads = Ways::new(&["gpload", "copy", "segments, one file", "segments, parts"]);
    let mut whole = Ways::new(&["COPY, then gpload", "copy", "segments", "segments, in slices"]);
    for _ in 0..settings.rounds {
        say(&case, "copy", "copy");
        let export = round(&mut case, |case| gpferry(case, &["export"]));
        let load = gpload(&case);
        check(&mut case, rows);
        let hand =
            Measured { seconds: export.seconds + load.seconds, cpu: export.cpu + load.cpu, peak_kib: 0 };
        let mut goes = vec![load];
        for (method, loader) in [("copy", "copy"), ("copy", "segments"), ("segments", "segments")] {
            say(&case, method, loader);
            round(&mut case, |case| gpferry(case, &["export"]));
            goes.push(gpferry(&case, &["load"]));
            check(&mut case, rows);
        }
        loads.round(&goes);
        let runs = ["copy", "segments"].map(|way| {
            say(&case, way, way);
            let run = round(&mut case, |case| gpferry(case, &["run"]));
            check(&mut case, rows);
            run
        });
        // So that one is loaded while the next is exported.
        case.edit_inventory(WHOLE, SLICES);
        let slices = round(&mut case, |case| gpferry(case, &["run"]));
        check(&mut case, rows);
        case.edit_inventory(SLICES, WHOLE);
        whole.round(&[hand, runs[0], runs[1], slices]);
    }
    println!("  load alone:");
    let loads = loads.finish();
    println!("  export and load:");
    json!({ "rows": rows, "loads": { "ways": loads }, "whole": { "ways": whole.finish() } })
}

fn tiny(settings: &Settings) -> Value {
    let mut case = Case::new("bench_greenplum_tiny");
    let names: Vec<String> = (0..TINY).map(|n| format!("t{n}")).collect();
    for name in &names {
        case.both(&format!("CREATE TABLE {name} (id int PRIMARY KEY, v text)"));
        let rows = format!("INSERT INTO {name} SELECT i, 'row ' || i FROM generate_series(1, 3) i");
        case.source.batch_execute(&rows).unwrap();
    }
    case.inventory(&["{ tables: \"public.t*\", window: none }"]);
    println!("\n{TINY} tables of three rows into Greenplum; medians of {}", settings.rounds);
    let mut ways = Ways::new(&["run", "load"]);
    for _ in 0..settings.rounds {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        reset(&mut case, &names);
        let run = gpferry(&case, &["run"]);
        reset(&mut case, &names);
        gpferry(&case, &["export"]);
        ways.round(&[run, gpferry(&case, &["load"])]);
    }
    json!({ "ways": ways.finish() })
}

fn round(case: &mut Case, go: impl FnOnce(&Case) -> Measured) -> Measured {
    case.target.batch_execute("TRUNCATE large").unwrap();
    forget(case);
    go(case)
}

#[track_caller]
fn check(case: &mut Case, rows: usize) {
    assert_eq!(case.count("SELECT count(*) FROM large"), i64::try_from(rows).unwrap());
}

/// From that Greenplum, over host a, into the other database there.
fn inventory(case: &Case, source: &Source) {
    let Source { name, host, port, admin, .. } = source;
    let mount = case.mount();
    case.inventory_with(
        &format!("    segments: {{ mount: {} }}\n", mount.display()),
        "",
        &["{ table: public.large, window: none }"],
    );
    let (socket, source_port) = (lab().get("LAB_SOURCE_SOCKET"), lab().get("LAB_SOURCE_PORT"));
    case.edit_inventory(
        &format!("connection: {{ host: {socket}, port: {source_port}, user: gpadmin }}"),
        &format!("connection: {{ host: {host}, port: {port}, user: {admin} }}"),
    );
    case.edit_inventory("engine: postgres", "engine: greenplum");
    case.edit_inventory(&format!("    database: {}\n", case.database()), &format!("    database: {name}\n"));
    case.edit_inventory("jobs:\n", &format!("defaults: {{ export: {{ method: copy, {WHOLE} }} }}\njobs:\n"));
    if greenplum::forced_loader().is_none() {
        case.load_by("segments");
    }
}

/// Exports by this method from now on, and loads by this loader.
fn say(case: &Case, method: &str, loader: &str) {
    let path = case.path("inventory.yml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("method: copy", "method: METHOD").replace("method: segments", "method: METHOD");
    let text = text.replace("loader: copy", "loader: LOADER").replace("loader: segments", "loader: LOADER");
    fs::write(path, text.replace("METHOD", method).replace("LOADER", loader)).unwrap();
}

/// The site's own gpload, over the file that was exported.
fn gpload(case: &Case) -> Measured {
    let Some(home) = greenplum::gphome("gpload by hand") else { return Measured::default() };
    let (host, port, admin) =
        (lab().get("LAB_TARGET_SOCKET"), lab().get("LAB_TARGET_PORT"), lab().get("LAB_TARGET_ADMIN"));
    let file = newest(case);
    let control = case.path("gpload.yml");
    fs::write(
        &control,
        format!(
            "VERSION: 1.0.0.1\nDATABASE: {}\nUSER: {admin}\nHOST: {host}\nPORT: {port}\nGPLOAD:\n  INPUT:\n  - SOURCE:\n      \
             LOCAL_HOSTNAME: [127.0.0.1]\n      PORT_RANGE: [35000, 35999]\n      FILE: ['{file}']\n  - FORMAT: csv\n  \
             - QUOTE: '\"'\n  - ESCAPE: '\"'\n  - DELIMITER: ','\n  - NULL_AS: ''\n  - ENCODING: UTF8\n  OUTPUT:\n  \
             - TABLE: public.large\n  - MODE: insert\n",
            case.database()
        ),
    )
    .unwrap();
    measured(|| {
        let output = Command::new(home.join("bin/gpload"))
            .arg("-f")
            .arg(&control)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        0
    })
}

/// The only file of the newest round.
fn newest(case: &Case) -> String {
    let files = Command::new("find")
        .arg(case.mount())
        .args(["-name", "*.csv.gz", "-printf", "%T@ %p\n"])
        .output()
        .unwrap();
    let files = String::from_utf8(files.stdout).unwrap();
    let newest = files.lines().max_by(|a, b| a.partial_cmp(b).unwrap()).expect("a file was exported");
    newest.split_once(' ').unwrap().1.to_owned()
}
