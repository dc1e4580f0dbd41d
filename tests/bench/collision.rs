//! A unit one row of which collides, put in quarantine: the COPY that fails, what is found out, and the load of the rest,
//! against the load of the same file where nothing collides.

use serde_json::{Value, json};

use crate::Settings;
use crate::measure::{Measured, Ways};
use crate::support::Case;
use crate::world::{fill, gpferry, inventory, reset};

pub(crate) fn measure(settings: &Settings) -> Value {
    let rows = settings.rows / 2;
    let mut case = Case::new("bench_collision");
    fill(&mut case, rows);
    // As with a table that the load made: its owner may take dead rows away.
    let owner = crate::support::lab().get("LAB_TARGET_USER");
    case.target.batch_execute(&format!("ALTER TABLE large OWNER TO {owner}")).unwrap();
    inventory(
        &case,
        &[
            "{ table: public.large, window: none, export: { slice_bytes: 1TiB }, load: { on_pk_violation: quarantine, rejects: allow } }",
        ],
    );
    println!("\n{rows} rows, one of which collides, and `on_pk_violation: quarantine`; loads alone");
    let mut ways = Ways::new(&["clean", "the first collides", "the middle one", "the last"]);
    for _ in 0..settings.rounds {
        let round = [None, Some(1), Some(rows / 2), Some(rows)].map(|collides| go(&mut case, rows, collides));
        ways.round(&round);
    }
    json!({ "rows": rows, "ways": ways.finish() })
}

fn go(case: &mut Case, rows: usize, collides: Option<usize>) -> Measured {
    reset(case, &["large"]);
    gpferry(case, &["export"]);
    if let Some(row) = collides {
        let insert = "INSERT INTO large (glass_id, ope_id, evt_timestamp, seq) SELECT 'G' || lpad((i / 40)::text, 9, '0'), \
             'OP' || i % 7, timestamp '2021-08-10' + i * interval '11 ms', i % 40 FROM";
        case.target.batch_execute(&format!("{insert} (SELECT {row} AS i) i")).unwrap();
    }
    case.target.batch_execute("CHECKPOINT").unwrap();
    let measured = gpferry(case, &["load"]);
    assert_eq!(case.count("SELECT count(*) FROM large"), i64::try_from(rows).unwrap());
    assert_eq!(case.count("SELECT rows_rejected FROM gpferry.load_log"), i64::from(collides.is_some()));
    measured
}
