//! The most memory that a run has at once, by the kernel's count.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::Case;

/// Waits for the end of a run that has to end well; the most KiB that it had resident, as far as was seen.
fn peak(mut child: Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            assert!(peak > 0);
            return peak;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn run(case: &Case) -> u64 {
    let mut command = case.command(&["run", "--no-progress"]);
    peak(command.stdout(Stdio::null()).spawn().unwrap())
}

/// What the program itself takes differs with how it was built, what a table takes does not.
#[test]
fn ten_thousand_tables_of_which_nothing_is_due_take_few_megabytes() {
    let case = Case::new("peak_idle");
    let taken = |tables: usize| {
        let tables: Vec<String> = (0..tables)
            .map(|n| format!("{{ table: public.t{n}, window: {{ column: at, length: 1h }} }}"))
            .collect();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        case.inventory_with("", "    from: 2200-01-01\n", &tables);
        run(&case)
    };
    let (one, many) = (taken(1), taken(10_000));
    let more = many.saturating_sub(one);
    assert!(more < MOST_IDLE, "{many} KiB, {more} more than with one table");
}

/// KiB, where 6,500 to 9,300 were measured; 20,000 before trees were small and rules shared.
const MOST_IDLE: u64 = 12 * 1024;

/// Both runs have as many sessions on either side: what is compared is what units take.
#[test]
fn thousands_of_units_take_few_megabytes() {
    let mut case = Case::new("peak_units");
    case.both("CREATE TABLE t (id int, v text)");
    case.source.batch_execute("INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 2000) i").unwrap();
    let taken = |until: u32| {
        let table = format!(
            "{{ table: public.t, window: {{ column: id, type: id, step: 1, lag: 0s, until: {until} }} }}"
        );
        case.inventory(&[table.as_str()]);
        run(&case)
    };
    let (few, many) = (taken(9), taken(2001));
    let more = many.saturating_sub(few);
    assert!(more < MOST_UNITS, "{many} KiB, {more} more than with eight units");
}

/// KiB, where 3,800 were measured: a kilobyte and a half for each unit, and what threads touched by chance.
const MOST_UNITS: u64 = 8 * 1024;
