//! No line is wider than the terminal, no picture higher, and the numbers are those of the events.

use std::path::Path;

use jiff::Timestamp;

use super::*;
use crate::engine::{Event, What};
use crate::gzip::Trailer;
use crate::inventory;
use crate::mount::{Columns, Exported};
use crate::plan::{Catalog, Facts, Plan, Selection, plan};
use crate::step::load::{How, Loaded};

const LONG: &str = "a_name_that_is_as_long_as_names_may_be_in_postgres_which_is_63_";

/// Tables with two windows each.
fn planned(tables: usize) -> Plan {
    let tables: String = (0..tables)
        .map(|n| {
            format!(
                "      - {{ table: s.{}_{n}, window: {{ column: at, length: 1h }} }}\n",
                &LONG[..60 - n % 30]
            )
        })
        .collect();
    let text = format!(
        "version: 1\nmount: {{ path: /m }}\ntarget: {{ url: postgresql://l@t/d }}\n\
         sources: {{ s: {{ host: h, engine: postgres, database: d }} }}\n\
         jobs:\n  j:\n    source: s\n    from: 2021-08-10\n    until: 2021-08-10 02:00:00\n    tables:\n{tables}"
    );
    let inventory = inventory::parse(&text, Path::new("i.yml")).unwrap();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now)
}

fn exporting(unit: usize) -> Event {
    Event { unit, what: What::Exporting { attempt: 1, at: Timestamp::UNIX_EPOCH } }
}

fn exported(unit: usize, rows: u64, bytes: u64) -> Event {
    let trailer = Trailer { bytes, crc32: 0, isize: 0 };
    let (columns, left_out) = (Columns::default(), String::new());
    let exported =
        Exported { file: Path::new("f").into(), rows, trailer, columns, left_out, parts: Box::default() };
    Event { unit, what: What::Exported { exported: exported.into(), took: Duration::from_secs(1) } }
}

fn loading(unit: usize) -> Event {
    Event { unit, what: What::Loading }
}

fn loaded(unit: usize, rows: u64) -> Event {
    let loaded = Loaded { rows, rejected: 0, how: How::Now, took: Duration::from_secs(1) };
    Event { unit, what: What::Loaded(loaded) }
}

fn after(plan: &Plan, events: &[Event]) -> Tally {
    let mut tally = Tally::new(plan);
    for (n, event) in events.iter().enumerate() {
        tally.hear(event, Duration::from_secs(n as u64));
    }
    tally
}

#[test]
fn no_terminal_is_overfilled_whatever_the_names_and_numbers() {
    let plan = planned(30);
    let mut events: Vec<Event> = (0..60).map(exporting).collect();
    for unit in 0..40 {
        events.extend([exported(unit, u64::MAX / 1000, u64::MAX / 1000), loading(unit)]);
    }
    events.extend((0..20).map(|unit| loaded(unit, u64::MAX / 1000)));
    let tally = after(&plan, &events);
    for columns in [10, 40, 79, 80, 200] {
        for rows in [4, 6, 24, 60] {
            for halves in [Halves::Both, Halves::Export, Halves::Load] {
                let lines = screen(&tally, halves, (columns, rows), Duration::from_secs(400));
                assert!(lines.len() < rows, "{columns}x{rows}: {lines:#?}");
                for line in lines {
                    assert!(line.width() < columns, "{columns}: {} in {line}", line.width());
                }
            }
        }
    }
}

#[test]
fn a_picture_of_a_run_half_way() {
    let plan = planned(3);
    let events = [
        exporting(0),
        exporting(1),
        exported(0, 27_425, 5 << 20),
        loading(0),
        exported(1, 1_000_000, 40 << 20),
        loading(1),
        loaded(0, 27_425),
        Event { unit: 1, what: What::Read(10 << 20) },
        exporting(2),
        exporting(4),
    ];
    let tally = after(&plan, &events);
    insta::assert_snapshot!(screen(&tally, Halves::Both, (80, 24), Duration::from_secs(10)).join("\n"));
    insta::assert_snapshot!(log(&tally, Halves::Both, Duration::from_secs(10)));
}

#[test]
fn what_is_told_of_a_unit_that_is_tried_again_is_counted_once() {
    let plan = planned(1);
    let read = |bytes| Event { unit: 0, what: What::Read(bytes) };
    let mut tally =
        after(&plan, &[exporting(0), exported(0, 5, 100), loading(0), read(60), loading(0), read(30)]);
    assert_eq!(tally.bytes_in(), 30);
    tally.hear(&loaded(0, 5), Duration::from_secs(9));
    tally.hear(&read(90), Duration::from_secs(9));
    assert_eq!((tally.bytes_in(), tally.loaded.rows, tally.loaded.done), (100, 5, 1));
}

#[test]
fn names_give_way_in_the_middle_and_wide_characters_take_two_columns() {
    assert_eq!(cut("sor.wpp_adefect_glass_f", 11), "sor.w…ass_f");
    assert_eq!(cut("表表表表表表", 7), "表…表");
    assert_eq!(cut("short", 5), "short");
    assert_eq!(cut("short", 1), "…");
}
