//! Slices hold every row of what was cut, and none twice.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::inventory;
use crate::plan::{Catalog, Facts, Selection, plan};

/// The one unit of an entry.
fn unit(entry: &str) -> Unit {
    let text = format!(
        "version: 1\ntimezone: Europe/Berlin\nmount: {{ path: /mnt }}\n\
         target: {{ url: \"postgresql://u@h/d\" }}\n\
         sources: {{ s: {{ host: h, engine: postgres, database: db }} }}\njobs:\n  j:\n    source: s\n    \
         from: 2021-03-28 00:00:00\n    until: 2021-03-29 00:00:00\n    tables:\n      - {entry}\n"
    );
    let inventory = inventory::parse(&text, Path::new("i.yml")).unwrap_or_else(|error| panic!("{error}"));
    let now = "2021-04-02T00:00:00Z".parse().unwrap();
    let plan = plan(&inventory, &Selection::default(), &Catalog::new(), &Facts::default(), now);
    plan.units.into_iter().next().unwrap()
}

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn spread(column: &str, by: SliceBy, edges: Vec<i64>) -> Spread {
    let key_place = (column != "at").then_some(0);
    let column = column.into();
    Spread { column, by, key_place, found_fast: true, days: false, zoned: false, edges, distinct: 1.0 }
}

const WHOLE: &str = "{ table: a.t, window: none, export: { slice_bytes: 1MiB } }";
const DAY_LONG: &str = "{ table: a.t, window: { column: at, length: 1d }, export: { slice_bytes: 1MiB } }";

/// The intervals of slices, which must touch, in order, from end to end.
fn intervals(slices: &[Unit], of: &Unit) -> Vec<Interval<i64>> {
    let intervals: Vec<_> = slices.iter().map(|slice| slice.extent.numbers()).collect();
    let all = if of.extent.is_whole() { crate::measure::all_numbers() } else { of.extent.numbers() };
    assert!(intervals.windows(2).all(|pair| pair[0].end() == pair[1].start()), "{intervals:?}");
    assert_eq!(intervals.first().map(Interval::start), Some(all.start()));
    assert_eq!(intervals.last().map(Interval::end), Some(all.end()));
    let mut ids: Vec<&str> = slices.iter().map(|slice| slice.key.id.as_str()).collect();
    ids.dedup();
    assert_eq!(ids.len(), slices.len());
    for slice in slices {
        let read = crate::unit::read_id(&slice.key.id).unwrap();
        assert_eq!((&read.extent, read.series), (&slice.extent, slice.rows.series.clone()));
    }
    intervals
}

#[test]
fn what_is_small_stays_whole_and_what_cannot_be_cut_says_why() {
    let known =
        |bytes| Size { bytes: Some(bytes), spreads: vec![spread("id", SliceBy::Number, (0..100).collect())] };
    assert!(cut(&unit(WHOLE), &known(1 << 20), Told::default(), &berlin(), false).unwrap().is_empty());
    let no_key =
        Size { bytes: Some(5 << 20), spreads: vec![spread("at", SliceBy::Time, (0..100).collect())] };
    assert_eq!(cut(&unit(WHOLE), &no_key, Told::default(), &berlin(), false).err(), Some(Uncut::Key));
    let merged = unit("{ table: a.t, window: none, load: { mode: merge }, export: { slice_bytes: 1MiB } }");
    assert_eq!(may_be_cut(&merged), Err(Uncut::Mode));
    let limited = unit("{ table: a.t, window: none, load: { reject_limit: 5 rows } }");
    assert_eq!(may_be_cut(&limited), Err(Uncut::Mode));
    assert_eq!(may_be_cut(&unit(WHOLE)), Ok(()));
    let slices = cut(&unit(WHOLE), &known(4 << 20), Told::default(), &berlin(), false).unwrap();
    let found = intervals(&slices, &unit(WHOLE));
    assert_eq!(found.iter().map(Interval::start).collect::<Vec<_>>(), [i64::MIN, 25, 50, 75]);
    assert_eq!(slices[1].key.id, "db^a^t^all^s25_50");
    assert_eq!(slices[1].rows.measure.to_string(), "slice:number:id");
}

#[test]
fn the_first_slices_are_small_where_nothing_is_there_to_load_yet() {
    let known =
        Size { bytes: Some(2 << 20), spreads: vec![spread("id", SliceBy::Number, (0..400).collect())] };
    let slices = cut(&unit(WHOLE), &known, Told::default(), &berlin(), true).unwrap();
    let found = intervals(&slices, &unit(WHOLE));
    assert_eq!(found.iter().map(Interval::start).collect::<Vec<_>>(), [i64::MIN, 50, 100, 200]);
    let small = Size { bytes: Some(1 << 20), ..known };
    assert!(cut(&unit(WHOLE), &small, Told::default(), &berlin(), true).unwrap().is_empty());
}

#[test]
fn the_key_column_is_chosen_by_what_is_known_of_it() {
    let text = |place, distinct| Spread {
        key_place: Some(place),
        distinct,
        ..spread("code", SliceBy::Hash, Vec::new())
    };
    let number = Spread { key_place: Some(2), ..spread("no", SliceBy::Number, (0..50).collect()) };
    let few = Spread { key_place: Some(0), ..spread("kind", SliceBy::Number, vec![1, 1, 1, 1]) };
    let by = |spreads: Vec<Spread>| {
        best(&Size { bytes: Some(0), spreads }, &Cuts::new(4, false)).map(|(_, one)| one.column.clone())
    };
    assert_eq!(by(vec![few.clone(), text(1, 0.9), number]).as_deref(), Some("no"));
    let rare = Spread { column: "rare".into(), ..text(0, 0.1) };
    assert_eq!(by(vec![few.clone(), rare, text(1, 0.9)]).as_deref(), Some("code"));
    assert_eq!(by(vec![few.clone(), text(1, 0.0)]), None);
    // A key of one column has a value for each row.
    assert_eq!(by(vec![text(0, 0.0)]).as_deref(), Some("code"));
    let beside = Spread { key_place: None, ..text(0, 0.5) };
    assert_eq!(by(vec![beside.clone(), few]).as_deref(), Some("kind"));
    assert_eq!(by(vec![beside]), None);
}

fn planned(bytes: u64) -> Told {
    Told { lately: None, planned: Some(bytes) }
}

#[test]
fn a_table_that_nobody_analyzed_is_cut_by_the_hash_of_its_key() {
    let all = unit(WHOLE);
    let never = Spread { distinct: 0.0, ..spread("id", SliceBy::Number, Vec::new()) };
    let size = Size { bytes: Some(4 << 20), spreads: vec![never] };
    let slices = cut(&all, &size, Told::default(), &berlin(), false).unwrap();
    assert_eq!(slices[1].rows.measure.to_string(), "slice:hash:id");
    assert_eq!(intervals(&slices, &all).len(), 4);
    // What is left of it is cut in the same way, also once the column was counted.
    let larger = Size { bytes: Some(40 << 20), ..size.clone() };
    let counted = Size { spreads: vec![spread("id", SliceBy::Number, (0..100).collect())], ..larger.clone() };
    for size in [larger, counted] {
        let again = cut(&slices[1], &size, Told::default(), &berlin(), false).unwrap();
        assert_eq!(again.len(), 2, "a quarter of the table may be a quarter of eight");
        let ends = (again[0].extent.numbers().start(), again.last().unwrap().extent.numbers().end());
        assert_eq!(ends, (slices[1].extent.numbers().start(), slices[1].extent.numbers().end()));
    }
    // Nobody knows how large it is, until a plan says so.
    let unknown = Size { bytes: None, ..size };
    assert!(cut(&all, &unknown, Told::default(), &berlin(), false).unwrap().is_empty());
    assert_eq!(cut(&all, &unknown, planned(3 << 20), &berlin(), false).unwrap().len(), 3);
    let no_key = Size::default();
    assert_eq!(cut(&all, &no_key, planned(3 << 20), &berlin(), false).err(), Some(Uncut::Key));
    assert!(cut(&all, &no_key, planned(1 << 20), &berlin(), false).unwrap().is_empty());
    // Of a slice the plan was of all of them.
    assert_eq!(cut(&slices[1], &unknown, planned(12 << 20), &berlin(), false).unwrap().len(), 2);
    assert!(cut(&slices[1], &unknown, planned(4 << 20), &berlin(), false).unwrap().is_empty());
}

#[test]
fn what_no_index_leads_to_is_cut_in_few_pieces_since_each_reads_the_whole_table() {
    let pieces = |spread: Spread, ramp| {
        let size = Size { bytes: Some(100 << 20), spreads: vec![spread] };
        cut(&unit(WHOLE), &size, Told::default(), &berlin(), ramp).unwrap().len()
    };
    let number = |found_fast| Spread { found_fast, ..spread("id", SliceBy::Number, (0..10_000).collect()) };
    assert_eq!(pieces(number(true), false), 100);
    assert_eq!(pieces(number(false), false), 8);
    assert_eq!(pieces(number(false), true), 10);
    assert_eq!(pieces(spread("id", SliceBy::Hash, Vec::new()), false), 8);
    // Of two columns of a key the one that an index leads to.
    let beside = Spread { key_place: Some(1), ..spread("no", SliceBy::Number, (0..10_000).collect()) };
    let size = Size { bytes: Some(100 << 20), spreads: vec![number(false), beside] };
    let slices = cut(&unit(WHOLE), &size, Told::default(), &berlin(), false).unwrap();
    assert_eq!((slices.len(), slices[0].rows.measure.to_string().as_str()), (100, "slice:number:no"));
}

#[test]
fn a_window_by_a_column_without_an_index_is_cut_by_how_much_of_the_table_it_is() {
    let day = unit(DAY_LONG);
    let start = day.extent.numbers().start();
    let pieces = |found_fast, part: i64| {
        // So many of a hundred edges lie in this day.
        let edges = (1..=part).chain((part..100).map(|n| n - 86_400_000_000)).map(|n| start + n).collect();
        let at = Spread { found_fast, ..spread("at", SliceBy::Time, edges) };
        let size = Size { bytes: Some(100 << 20), spreads: vec![at] };
        cut(&day, &size, Told::default(), &berlin(), false).map(|slices| slices.len())
    };
    assert_eq!(pieces(true, 50), Ok(51));
    assert_eq!(pieces(false, 50), Ok(5));
    assert_eq!(pieces(false, 10), Err(Uncut::Scan));
    assert_eq!(pieces(true, 10), Ok(10));
}

#[test]
fn a_plan_is_asked_for_where_nothing_else_says_how_large_a_unit_is() {
    let (whole, day) = (unit(WHOLE), unit(DAY_LONG));
    let column = |edges: Vec<i64>, distinct| Spread { distinct, ..spread("at", SliceBy::Time, edges) };
    let size =
        |bytes, column: Option<&Spread>| Size { bytes, spreads: column.cloned().into_iter().collect() };
    let counted = column((0..100).collect(), 0.5);
    let (never, few) = (column(Vec::new(), 0.0), column(Vec::new(), 0.001));
    let asked = |unit: &Unit, size: &Size, lately| asked_for_plan(unit, size, lately).map(|unit| unit.extent);
    // Files say how large a table is, and statistics how much of it is in a window.
    assert_eq!(asked(&whole, &size(Some(9 << 20), None), None), None);
    assert_eq!(asked(&day, &size(Some(9 << 20), Some(&counted)), None), None);
    assert_eq!(asked(&day, &size(Some(9 << 20), Some(&never)), None), None);
    // A view; a column of few values, which has no histogram; and either after its last windows.
    for size in [size(None, None), size(None, Some(&counted)), size(Some(9 << 20), Some(&few))] {
        assert_eq!(asked(&day, &size, None), Some(day.extent));
        assert_eq!(asked(&day, &size, Some(1.0)), None);
    }
    assert_eq!(asked(&whole, &size(None, None), None), Some(Extent::Whole));
    // Of a slice: the table.
    let measure = Measure::Slice(SliceBy::Hash, "id".into());
    let rows = Arc::new(Rows { measure, ..(*whole.rows).clone() });
    let slice = Unit { extent: Extent::Slice(Interval::new(5, 9).unwrap()), rows, ..whole };
    assert_eq!(asked(&slice, &size(None, None), None), Some(Extent::Whole));
}

#[test]
fn a_window_of_unknown_spread_is_cut_evenly_by_its_plan() {
    let day = unit(DAY_LONG);
    let slices = cut(&day, &Size::default(), planned(4 << 20), &berlin(), false).unwrap();
    let found = intervals(&slices, &day);
    assert_eq!(found.len(), 4);
    let lengths: Vec<i64> = found.iter().map(|slice| slice.end() - slice.start()).collect();
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    // No more can be in it than in the whole table, and what its last windows held says more.
    let table = Size { bytes: Some(2 << 20), spreads: Vec::new() };
    assert_eq!(cut(&day, &table, planned(40 << 20), &berlin(), false).unwrap().len(), 2);
    let told = Told { lately: Some(0.0), ..planned(40 << 20) };
    assert!(cut(&day, &Size::default(), told, &berlin(), false).unwrap().is_empty());
}

#[test]
fn a_window_is_cut_by_what_is_known_of_it() {
    let day = unit(DAY_LONG);
    let start = day.extent.numbers().start();
    // Half of the table lies in this day, all of it in its last hour.
    let edges: Vec<i64> =
        (0..50).map(|n| start - 1000 + n).chain((0..51).map(|n| start + 23 * 3_600_000_000 + n)).collect();
    let size = Size { bytes: Some(8 << 20), spreads: vec![spread("at", SliceBy::Time, edges)] };
    let slices = cut(&day, &size, Told::default(), &berlin(), false).unwrap();
    let found = intervals(&slices, &day);
    assert_eq!(found.len(), 4);
    assert!(found[1..].iter().all(|slice| slice.start() > start + 23 * 3_600_000_000));
    // What windows held lately says more than the catalog.
    let lately = 2.0 * f64::from(1 << 20) / 86_400_000_000.0;
    assert_eq!(
        cut(&day, &size, Told { lately: Some(lately), planned: None }, &berlin(), false).unwrap().len(),
        2
    );
    assert_eq!(
        cut(&day, &Size { bytes: Some(3 << 20), spreads: Vec::new() }, Told::default(), &berlin(), false)
            .unwrap()
            .len(),
        3
    );
    // A day cannot be cut by a column of days.
    let days = Spread { days: true, ..spread("at", SliceBy::Time, Vec::new()) };
    let size = Size { bytes: Some(8 << 20), spreads: vec![days] };
    assert_eq!(cut(&day, &size, Told::default(), &berlin(), false).err(), Some(Uncut::Skewed));
}

#[test]
fn what_is_left_of_a_table_is_cut_by_the_same_column() {
    let all = unit(WHOLE);
    let size =
        Size { bytes: Some(4 << 20), spreads: vec![spread("id", SliceBy::Number, (0..100).collect())] };
    let first = cut(&all, &size, Told::default(), &berlin(), false).unwrap().remove(1);
    assert!(cut(&first, &size, Told::default(), &berlin(), false).unwrap().is_empty());
    let larger = Size { bytes: Some(40 << 20), ..size };
    let again = cut(&first, &larger, Told::default(), &berlin(), false).unwrap();
    assert!(again.len() > 5, "{}", again.len());
    assert_eq!(again[0].extent.numbers().start(), 25);
    assert_eq!(again.last().unwrap().extent.numbers().end(), 50);
}

proptest! {
    /// Every row is in one slice: whatever the values, wherever the window, whatever is known of the spread.
    #[test]
    fn slices_cover_what_was_cut_exactly_once(
        mut edges in proptest::collection::vec(any::<i64>(), 0..60), near in proptest::collection::vec(-90_000_000_000i64..90_000_000_000, 0..60),
        bytes in 0u64..(600 << 20), rows in proptest::collection::vec(any::<i64>(), 20), by in 0..3, zoned: bool, days: bool, ramp: bool,
    ) {
        let day = unit(DAY_LONG);
        let whole = unit(WHOLE);
        let start = day.extent.numbers().start();
        edges.extend(near.iter().map(|one| start + one));
        edges.sort_unstable();
        let by = [SliceBy::Time, SliceBy::Number, SliceBy::Hash][by as usize];
        let key = spread("id", by, if by == SliceBy::Hash { Vec::new() } else { edges.clone() });
        let at = Spread { zoned, days, ..spread("at", SliceBy::Time, edges) };
        let size = Size { bytes: Some(bytes), spreads: vec![key, at] };
        for of in [&day, &whole] {
            let Ok(slices) = cut(of, &size, Told::default(), &berlin(), ramp) else { continue };
            prop_assert!(slices.len() <= 258 && slices.len() != 1);
            if slices.is_empty() { continue }
            let found = intervals(&slices, of);
            for row in rows.iter().chain(&near) {
                let value = if of.extent.is_whole() { *row } else { start + row.rem_euclid(90_000_000_000) };
                let all = if of.extent.is_whole() { crate::measure::all_numbers() } else { of.extent.numbers() };
                let holding = found.iter().filter(|slice| slice.start() <= value && value < slice.end()).count();
                prop_assert_eq!(holding, usize::from(all.start() <= value && value < all.end()));
            }
        }
    }
}
