//! Thousands of tables with some rows each.

use serde_json::{Value, json};

use crate::Settings;
use crate::measure::Ways;
use crate::support::Case;
use crate::world::{gpferry, hand_pipeline, inventory, other, others, reset};

/// Tables that the hand loop is measured over.
const SAMPLE: usize = 200;
/// Rows that a table has on average, times the number of tables: 27,425 for 9,038.
const ROWS_OF: (usize, usize) = (27_425, 9_038);

/// Rows of all of so many tables.
pub(crate) fn rows_of(tables: usize) -> usize {
    tables * ROWS_OF.0 / ROWS_OF.1
}

/// Makes so many tables on both sides, in these schemas one after the other, with 0 to 7 rows each. Their names.
pub(crate) fn make(case: &mut Case, schemas: &[(&str, usize)]) -> Vec<String> {
    let total: usize = schemas.iter().map(|(_, tables)| tables).sum();
    let mut rest = rows_of(total).saturating_sub((0..total).map(|n| n % 7).sum());
    let mut names = Vec::new();
    for (schema, tables) in schemas {
        case.both(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
        case.source.batch_execute(&format!("GRANT USAGE ON SCHEMA {schema} TO gpadmin")).unwrap();
        case.target.batch_execute(&format!("GRANT USAGE ON SCHEMA {schema} TO loader")).unwrap();
        names.extend((0..*tables).map(|n| format!("{schema}.tiny{n}")));
    }
    let mut number = 0;
    for some in names.chunks(200) {
        let create: String = some
            .iter()
            .map(|name| format!("CREATE TABLE {name} (id int PRIMARY KEY, v text, at timestamp);"))
            .collect();
        case.both(&create);
        let mut fill = String::new();
        for name in some {
            let rows = number % 7 + usize::from(rest > 0);
            rest = rest.saturating_sub(1);
            number += 1;
            fill += &format!(
                "INSERT INTO {name} SELECT i, 'row ' || i, now() FROM generate_series(1, {rows}) i;"
            );
        }
        case.source.batch_execute(&fill).unwrap();
    }
    case.source.batch_execute("VACUUM ANALYZE").unwrap();
    case.target.batch_execute("VACUUM ANALYZE").unwrap();
    names
}

pub(crate) fn measure(settings: &Settings) -> Value {
    let mut case = Case::new("bench_tiny");
    let tables = settings.tables;
    let names = make(&mut case, &[("tiny", tables)]);
    inventory(&case, &["{ tables: \"tiny.*\", window: none }"]);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let sample = all.len().min(SAMPLE);
    println!(
        "\n{tables} tables, {} rows; the hand loop over {sample} of them, extrapolated; medians of {}",
        rows_of(tables),
        settings.rounds
    );
    let mut ways = Ways::new(&[&["hand", "gpferry"], others().as_slice()].concat());
    for _ in 0..settings.rounds {
        reset(&mut case, &all[..sample]);
        let hand = hand_pipeline(&case, &all[..sample]).times(tables as f64 / sample as f64);
        reset(&mut case, &all);
        let ours = gpferry(&case, &["run"]);
        let loaded = case.count("SELECT sum(rows_loaded)::bigint FROM gpferry.load_log");
        assert_eq!(loaded, i64::try_from(rows_of(tables)).unwrap());
        let mut round = vec![hand, ours];
        for program in others() {
            reset(&mut case, &all);
            round.push(other(&case, program, &["run"]));
        }
        ways.round(&round);
    }
    let told = ways.finish();
    let one_to = 1.0 / told["gpferry"]["ratio"].as_f64().unwrap();
    println!("  one to {one_to:.0}");
    json!({ "tables": tables, "rows": rows_of(tables), "sample": sample, "ways": told, "one_to": one_to })
}
