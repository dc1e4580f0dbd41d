use super::super::coverage::at;
use super::*;

fn of() -> Of {
    Of {
        source: "s".into(),
        series: "d^public^t".into(),
        measure: "time:at".parse().unwrap(),
        job: "j".into(),
        table: "public.t".into(),
        target: "public.t".into(),
    }
}

fn interval(start: i64, end: i64) -> Interval<i64> {
    Interval::new(start, end).unwrap()
}

fn groups() -> Vec<Group> {
    let one = Rows { missing: 1, exact: true, ..Rows::default() };
    [Some("OP1".into()), None].map(|value| Group { value, rows: one }).to_vec()
}

fn compared(second: i64, agreeing: &[(i64, i64)], differing: &[(i64, i64)]) -> Compared {
    let one = Rows { missing: 1, exact: true, ..Rows::default() };
    Compared {
        of: of(),
        at: Timestamp::from_second(second).unwrap(),
        verdict: if differing.is_empty() { Verdict::Equal } else { Verdict::Different },
        deep: true,
        windows: 3,
        rows: one,
        agreeing: agreeing.iter().map(|one| interval(one.0, one.1)).collect(),
        differing: differing.iter().map(|at| (interval(at.0, at.1), one, groups())).collect(),
        error: None,
    }
}

#[test]
fn a_difference_is_open_until_digests_agree() {
    let mut ledger = Ledger::scratch().unwrap();
    let open = |ledger: &Ledger| -> Vec<(i64, i64, String)> {
        let open = ledger.open_differences("t").unwrap();
        open.into_iter().map(|one| (one.window.start(), one.window.end(), one.found_at)).collect()
    };
    let time = |second: i64| at(Timestamp::from_second(second).unwrap());
    ledger.note_compared("t", &compared(1, &[(0, 4)], &[(4, 8), (8, 12)])).unwrap();
    assert_eq!(open(&ledger), [(4, 8, time(1)), (8, 12, time(1))]);
    assert_eq!(open(&Ledger::scratch().unwrap()), []);
    // Rows alone say nothing: they are in neither list.
    ledger.note_compared("t", &compared(2, &[], &[])).unwrap();
    assert_eq!(open(&ledger).len(), 2);
    // Cut otherwise by now: what lies within windows that agree is settled, by however many.
    ledger.note_compared("t", &compared(3, &[(0, 6), (6, 9)], &[(8, 12)])).unwrap();
    assert_eq!(open(&ledger), [(8, 12, time(1))]);
    assert_eq!(ledger.open_differences("t").unwrap()[0].groups, groups());
    let table = &ledger.differing_tables("t").unwrap()[0];
    assert_eq!((table.windows, table.rows.missing, &table.since), (1, 1, &time(1)));
    ledger.note_compared("t", &compared(4, &[(8, 12)], &[])).unwrap();
    assert_eq!((open(&ledger).len(), ledger.differing_tables("t").unwrap().len()), (0, 0));
    let last = ledger.last_compared("t").unwrap();
    let last = &last[&("s".to_owned(), "d^public^t".to_owned())];
    assert_eq!((last.verdict, last.open, &last.at), (Verdict::Equal, 0, &time(4)));
    let kept = |ledger: &Ledger| -> i64 {
        let count = |row: &rusqlite::Row<'_>| row.get(0);
        ledger.connection.query_row("SELECT count(*) FROM difference_group", [], count).unwrap()
    };
    assert_eq!(kept(&ledger), 0);
    // What is mended goes with other old history; what is open stays however old it is.
    let late = Timestamp::from_second(100).unwrap();
    let gone = |ledger: &mut Ledger, look| ledger.prune(late, &[], look).unwrap().differences;
    ledger.note_compared("t", &compared(4, &[], &[(20, 24)])).unwrap();
    assert_eq!((gone(&mut ledger, true), gone(&mut ledger, false), gone(&mut ledger, false)), (2, 2, 0));
    assert_eq!(open(&ledger), [(20, 24, time(4))]);
    ledger.note_compared("t", &compared(4, &[(20, 24)], &[])).unwrap();
    // More groups than anybody would read are told as one.
    let mut many = compared(4, &[], &[(30, 34)]);
    many.differing[0].2 = groups().into_iter().cycle().take(101).collect();
    ledger.note_compared("t", &many).unwrap();
    assert_eq!(ledger.open_differences("t").unwrap()[0].groups, []);
    ledger.note_compared("t", &compared(4, &[(30, 34)], &[])).unwrap();
    // A new one is a new one.
    ledger.note_compared("t", &compared(5, &[], &[(8, 12)])).unwrap();
    assert_eq!(open(&ledger), [(8, 12, time(5))]);
}
