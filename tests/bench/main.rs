//! `make bench`: gpferry against the pipeline that a person would write, in one run, alternating, as ratios.
//!
//! Absolute times of one machine mean little; the ratio of two medians out of one run does. All ways move the same tables
//! between the same two PostgreSQLs on this machine. What can be set:
//!
//! - `GPFERRY_BENCH_ONLY=large,tiny` picks parts: `idle`, `large`, `peers`, `stages`, `tiny`, `collision`,
//!   `compare`, `greenplum`, `curve`;
//! - `GPFERRY_BENCH_ROUNDS` (5) is how often each way is measured, `GPFERRY_BENCH_ROWS` (2000000) and
//!   `GPFERRY_BENCH_TABLES` (9038) how much is moved;
//! - `GPFERRY_BENCH_LONG=1` adds 5 and 10 million rows to the curve, and pgcopydb over the many tables;
//! - `GPFERRY_BENCH_AGAINST=/path/to/gpferry,…` measures other builds in the same rounds (`large`, `peers`, `tiny`): is a
//!   change faster?
//! - `GPFERRY_BENCH_WRITE=1` puts the tables into `docs/performance.md` and the plots beside it. Without it they are
//!   written to `target/bench/` alone, as `bench.json` is.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]

#[path = "../lab/greenplum.rs"]
#[expect(dead_code, reason = "the lab's tests use the rest of it")]
mod greenplum;
#[path = "../lab/support.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod support;

mod collision;
mod compare;
mod cpu;
mod curve;
mod greenplum_ways;
mod idle;
mod large;
mod machine;
mod measure;
mod page;
mod peers;
mod plot;
mod stages;
mod tiny;
mod world;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

/// How much is measured, and how often.
pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) rows: usize,
    pub(crate) tables: usize,
    pub(crate) long: bool,
}

/// A part of the bench: its name, and what measures it.
type Part = (&'static str, fn(&Settings) -> Value);

const PARTS: &[Part] = &[
    ("idle", idle::measure),
    ("large", large::measure),
    ("peers", peers::measure),
    ("stages", stages::measure),
    ("tiny", tiny::measure),
    ("collision", collision::measure),
    ("compare", |settings| compare::measure(settings.rounds, settings.rows, world::fill)),
    ("greenplum", greenplum_ways::measure),
    ("curve", curve::measure),
];

fn main() {
    // `cargo test --benches` would run this with `--test`; there is nothing to test here.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let settings = Settings {
        rounds: setting("GPFERRY_BENCH_ROUNDS", 5),
        rows: setting("GPFERRY_BENCH_ROWS", 2_000_000),
        tables: setting("GPFERRY_BENCH_TABLES", 9038),
        long: is_set("GPFERRY_BENCH_LONG"),
    };
    let only = std::env::var("GPFERRY_BENCH_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    for part in &only {
        assert!(PARTS.iter().any(|(name, _)| name == part), "GPFERRY_BENCH_ONLY: there is no part `{part}`");
    }
    assert!(
        world::others().is_empty() || !is_set("GPFERRY_BENCH_WRITE"),
        "GPFERRY_BENCH_AGAINST is for looking, not for docs/performance.md"
    );
    // Before the lab starts: what it starts is counted with it.
    let meter = cpu::meter();
    println!("CPU seconds by {}", meter.how());
    let mut document =
        json!({ "version": 2, "machine": machine::facts(meter.how()), "rounds": settings.rounds });
    for (name, measure) in PARTS.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        document[*name] = measure(&settings);
    }
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("bench.json"), format!("{document:#}\n")).unwrap();
    plot::draw(&document, &directory);
    println!("\nas JSON and SVG: target/bench/");
    if is_set("GPFERRY_BENCH_WRITE") {
        let docs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs"));
        fs::create_dir_all(docs.join("performance")).unwrap();
        plot::draw(&document, &docs.join("performance"));
        page::write(&document, &docs.join("performance.md"));
        println!("and in docs/performance.md");
    }
    meter.close();
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0")
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}
