//! A run that has nothing to do, over many tables: from start to end.

use serde_json::{Value, json};

use crate::Settings;
use crate::measure::Ways;
use crate::support::Case;
use crate::world::gpferry;

const TABLES: usize = 10_000;

pub(crate) fn measure(settings: &Settings) -> Value {
    let case = Case::new("bench_idle");
    let tables: Vec<String> = (0..TABLES)
        .map(|n| format!("{{ table: public.t{n}, window: {{ column: at, length: 1h }} }}"))
        .collect();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    // Nothing of it is due yet.
    case.inventory_with("", "    from: 2200-01-01\n", &tables);
    println!("\n{TABLES} tables and nothing due; medians of {}", settings.rounds);
    gpferry(&case, &["run"]);
    let mut ways = Ways::new(&["gpferry"]);
    for _ in 0..settings.rounds {
        ways.round(&[gpferry(&case, &["run"])]);
    }
    json!({ "tables": TABLES, "ways": ways.finish() })
}
