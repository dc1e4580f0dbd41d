//! How time grows with the size of a table, and with the number of tables.

use serde_json::{Value, json};

use crate::Settings;
use crate::measure::{Measured, median, mib};
use crate::peers::pgcopydb;
use crate::support::Case;
use crate::tiny::{make, rows_of};
use crate::world::{fill, forget, gpferry, inventory, reset};

pub(crate) fn measure(settings: &Settings) -> Value {
    let rounds = settings.rounds.min(3);
    let mut sizes = vec![1000, 10_000, 100_000, settings.rows / 2, settings.rows];
    if settings.long {
        sizes.extend([5_000_000, 10_000_000]);
    }
    sizes.sort_unstable();
    sizes.dedup();
    println!("\nover the size of one table; medians of {rounds}");
    let rows = sizes.iter().map(|&rows| over_rows(rows, rounds)).collect::<Vec<_>>();
    println!("\nover the number of tables, of 3 rows each on average; medians of {rounds}");
    let tables = over_tables(settings, rounds);
    json!({ "rows": rows, "tables": tables })
}

fn over_rows(rows: usize, rounds: usize) -> Value {
    let mut case = Case::new("bench_curve");
    fill(&mut case, rows);
    inventory(&case, &["{ table: public.large, window: none }"]);
    let goes: Vec<Measured> = (0..rounds)
        .map(|_| {
            reset(&mut case, &["large"]);
            gpferry(&case, &["run"])
        })
        .collect();
    case.source.batch_execute("TRUNCATE large").unwrap();
    case.target.batch_execute("TRUNCATE large").unwrap();
    point("rows", rows, rows, &goes)
}

/// The same tables again and again: the first 10, the first 100, and so on, by the schemas that they are in.
fn over_tables(settings: &Settings, rounds: usize) -> Value {
    let all = settings.tables;
    let mut sizes: Vec<usize> =
        [10, 100, 1000, all / 2, all].into_iter().filter(|&size| size <= all).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let schemas: Vec<String> = (0..sizes.len()).map(|n| format!("c{n}")).collect();
    let parts: Vec<(&str, usize)> = schemas
        .iter()
        .enumerate()
        .map(|(n, schema)| (schema.as_str(), sizes[n] - if n == 0 { 0 } else { sizes[n - 1] }))
        .collect();
    let mut case = Case::new("bench_curve");
    let names = make(&mut case, &parts);
    let mut points = Vec::new();
    for (n, &size) in sizes.iter().enumerate() {
        let entries: Vec<String> = schemas[..=n]
            .iter()
            .map(|schema| format!("{{ tables: \"{schema}.*\", window: none }}"))
            .collect();
        inventory(&case, &entries.iter().map(String::as_str).collect::<Vec<_>>());
        let these: Vec<&str> = names[..size].iter().map(String::as_str).collect();
        let goes: Vec<Measured> = (0..rounds)
            .map(|_| {
                reset(&mut case, &these);
                gpferry(&case, &["run"])
            })
            .collect();
        points.push(point("tables", size, rows_of(size), &goes));
    }
    if settings.long {
        let drop: String = schemas.iter().map(|schema| format!("DROP SCHEMA {schema} CASCADE;")).collect();
        // More locks than one transaction may have.
        for some in names.chunks(500) {
            case.target.batch_execute(&format!("DROP TABLE {}", some.join(", "))).unwrap();
        }
        case.target.batch_execute(&drop).unwrap();
        forget(&mut case);
        let theirs = pgcopydb(&case);
        println!(
            "  pgcopydb, {all} tables, schema included: {:.2} s ({:.2} s CPU)",
            theirs.seconds, theirs.cpu
        );
        points.push(json!({ "pgcopydb": all, "seconds": theirs.seconds, "cpu_seconds": theirs.cpu }));
    }
    points.into()
}

fn point(what: &str, size: usize, rows: usize, goes: &[Measured]) -> Value {
    let (seconds, cpu) = (median(goes, |one| one.seconds), median(goes, |one| one.cpu));
    let peak_kib = goes.iter().map(|one| one.peak_kib).max().unwrap_or(0);
    println!(
        "  {size:>9} {what}: {seconds:>7.2} s, {:>9.0} rows/s, {:>6.0} tables/s, {cpu:>7.2} s CPU, {:.1} MiB",
        rows as f64 / seconds,
        if what == "tables" { size as f64 / seconds } else { 1.0 / seconds },
        mib(peak_kib)
    );
    json!({ "size": size, "rows": rows, "seconds": seconds, "cpu_seconds": cpu, "peak_kib": peak_kib })
}
