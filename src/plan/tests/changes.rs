//! What an inventory that changes, and units that fail, make of a plan.

use super::*;

#[test]
fn a_window_that_failed_too_often_is_left_alone_and_later_ones_go_on() {
    let inventory = inventory(WINDOWED);
    let now = at("2021-08-10T00:00:00Z");
    let first = plan_with(&inventory, &Facts::default(), now);
    // `retries` is 2: the third run is the last.
    for (tries, planned) in [(0, 2), (2, 2), (3, 1)] {
        let mut facts = Facts::default();
        begun(&mut facts, &first.units[0], OpenState::Unfinished, tries);
        let later = plan_with(&inventory, &facts, at("2021-08-10T04:00:00Z"));
        assert_eq!((later.units.len(), later.leaves_something()), (planned, tries == 3));
        let asked = Selection { retry_failed: true, ..Selection::default() };
        let again = plan(&inventory, &asked, &Catalog::new(), &facts, at("2021-08-10T04:00:00Z"));
        assert_eq!((again.units.len(), again.leaves_something()), (2, false));
    }
}

#[test]
fn another_length_cuts_anew_what_failed_and_keeps_what_waits() {
    let now = at("2021-08-10T04:00:00Z");
    let first = plan_with(&inventory(WINDOWED), &Facts::default(), now);
    assert_eq!(first.units.len(), 2);
    let mut facts = Facts::default();
    begun(&mut facts, &first.units[0], OpenState::Unfinished, 9);
    begun(&mut facts, &first.units[1], OpenState::Exported, 0);
    let second = plan_with(&inventory(&WINDOWED.replace("4h", "2h")), &facts, now);
    assert_eq!(
        ids(&second),
        [
            "db^a^t^20210810000000^20210810020000",
            "db^a^t^20210810020000^20210810040000",
            "db^a^t^20210810040000^20210810080000",
            "db^a^t^20210810080000^20210810100000"
        ]
    );
    assert_eq!(second.replaced, [first.units[0].key.clone()]);
}

#[test]
fn another_column_moves_everything_but_what_the_first_one_moved() {
    let now = at("2021-08-10T00:00:00Z");
    let mut facts = Facts::default();
    let first = plan_with(&inventory(WINDOWED), &facts, now);
    loaded(&mut facts, &first.units);
    let other = inventory(&WINDOWED.replace("column: c", "column: d"));
    let second = plan_with(&other, &facts, now);
    assert_eq!(second.units.len(), 1);
    let unit = &second.units[0];
    assert!(unit.key.id.starts_with("db^a^t^20210810000000^20210810040000^c"), "{}", unit.key.id);
    assert_eq!(unit.rows.without, facts.series("s", "db^a^t").unwrap().loaded);
    assert_eq!(second.notes[0].change, Change::Column { was: "time:c".into() });
    loaded(&mut facts, &second.units);
    // Back again: nothing is due, and what comes later leaves out what the other column moved.
    assert!(plan_with(&inventory(WINDOWED), &facts, now).units.is_empty());
    let later = plan_with(&inventory(WINDOWED), &facts, at("2021-08-10T04:00:00Z"));
    assert_eq!(ids(&later), ["db^a^t^20210810040000^20210810080000"]);
    assert_eq!(later.units[0].rows.without[0].measure.to_string(), "time:d");
    let whole = inventory("  j: { source: s, tables: [ { table: a.t, window: none } ] }\n");
    assert_eq!(plan_with(&whole, &facts, now).units[0].rows.without.len(), 2);
}

#[test]
fn windows_that_nobody_measured_are_those_of_the_column_of_now_and_of_nothing_else() {
    let now = at("2021-08-10T00:00:00Z");
    let first = plan_with(&inventory(WINDOWED), &Facts::default(), now).units;
    let mut facts = Facts::default();
    facts.series_mut("s", "db^a^t").unmeasured.push(first[0].extent.numbers());
    let same = plan_with(&inventory(WINDOWED), &facts, now);
    assert!(same.units.is_empty() && same.assumed[0].measure.to_string() == "time:c");
    let whole = "  j: { source: s, tables: [ { table: a.t, window: none } ] }\n";
    for other in [whole, BY_ID] {
        let plan = plan_with(&inventory(other), &facts, now);
        assert_eq!((plan.units.len(), plan.skipped[0].why), (0, Why::Unmeasured));
        assert!(plan.leaves_something() && plan.assumed.is_empty());
    }
}

#[test]
fn a_file_that_waits_by_the_first_column_gives_its_id_up_to_the_second() {
    let now = at("2021-08-10T04:00:00Z");
    let first = plan_with(&inventory(WINDOWED), &Facts::default(), now).units;
    let other = inventory(&WINDOWED.replace("column: c", "column: d"));
    let mut facts = Facts::default();
    begun(&mut facts, &first[1], OpenState::Exported, 0);
    loaded(&mut facts, &plan_with(&other, &Facts::default(), now).units[..1]);
    let back = plan_with(&inventory(WINDOWED), &facts, now);
    assert!(back.units.len() == 2 && back.units.iter().all(|unit| unit.key.id.contains("^c")));
    assert_eq!(back.replaced, [first[1].key.clone()]);
    assert!(!back.units[1].waits);
}

#[test]
fn a_table_that_was_moved_whole_is_not_moved_by_windows() {
    let whole = inventory("  j: { source: s, tables: [ { table: a.t, window: none } ] }\n");
    let now = at("2021-08-10T00:00:00Z");
    let mut facts = Facts::default();
    loaded(&mut facts, &plan_with(&whole, &Facts::default(), now).units);
    let plan = plan_with(&inventory(WINDOWED), &facts, now);
    assert_eq!((plan.units.len(), plan.skipped[0].why), (0, Why::MovedWhole));
}

#[test]
fn what_changed_is_said() {
    let now = at("2021-08-10T04:00:00Z");
    let mut facts = Facts::default();
    loaded(&mut facts, &plan_with(&inventory(WINDOWED), &Facts::default(), now).units);
    let changes = |text: &str| -> Vec<Change> {
        plan_with(&inventory(text), &facts, now).notes.into_iter().map(|note| note.change).collect()
    };
    assert_eq!(changes(WINDOWED), []);
    assert_eq!(changes(&WINDOWED.replace("4h", "3h")), [Change::Bounds]);
    assert_eq!(changes(&WINDOWED.replace("10 00:00:00", "09 20:00:00")), [Change::Earlier]);
    let two = WINDOWED.replace("tables: [", "tables: [ { table: a.u, window: none },");
    assert_eq!(changes(&two), [Change::New]);
}
