//! One large table, from export to loaded.

use serde_json::{Value, json};

use crate::Settings;
use crate::measure::Ways;
use crate::support::Case;
use crate::world::{csv_megabytes, fill, floor, gpferry, hand_pipeline, inventory, other, others, reset};

pub(crate) fn measure(settings: &Settings) -> Value {
    let mut case = Case::new("bench_large");
    fill(&mut case, settings.rows);
    inventory(&case, &["{ table: public.large, window: none }"]);
    let megabytes = csv_megabytes(&case);
    println!(
        "\n{} rows, {megabytes:.0} MB of CSV, primary key of four columns; medians of {}",
        settings.rows, settings.rounds
    );
    let mut ways = Ways::new(&[&["hand", "floor", "gpferry"], others().as_slice()].concat());
    for _ in 0..settings.rounds {
        reset(&mut case, &["large"]);
        let hand = hand_pipeline(&case, &["large"]);
        reset(&mut case, &["large"]);
        let floor = floor(&case);
        reset(&mut case, &["large"]);
        let ours = gpferry(&case, &["run"]);
        assert_eq!(case.count("SELECT count(*) FROM large"), i64::try_from(settings.rows).unwrap());
        let mut round = vec![hand, floor, ours];
        for program in others() {
            reset(&mut case, &["large"]);
            round.push(other(&case, program, &["run"]));
        }
        ways.round(&round);
    }
    let told = ways.finish();
    let against =
        |way: &str| told["gpferry"]["seconds"].as_f64().unwrap() / told[way]["seconds"].as_f64().unwrap();
    println!("  gpferry against the floor: {:.3}", against("floor"));
    json!({ "rows": settings.rows, "csv_mb": megabytes, "ways": told, "ratio_hand": against("hand"),
            "ratio_floor": against("floor") })
}
