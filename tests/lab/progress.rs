//! Long work shows itself, on a terminal and in a log, and its numbers are the same in every mode of working.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ends::wait_for;
use crate::support::{Case, Side};

const LONG: &str = "wpp_adefect_glass_f_with_a_name_as_long_as_names_may_be_63_char";

/// Two tables, one of them with a long name.
fn world(name: &str) -> Case {
    let mut case = Case::new(name);
    case.both(&format!("CREATE TABLE {LONG} (id int PRIMARY KEY, v text); CREATE TABLE tiny (id int)"));
    case.source
        .batch_execute(&format!(
            "INSERT INTO {LONG} SELECT i, md5(i::text) FROM generate_series(1, 30000) i; INSERT INTO tiny VALUES (1), (2)"
        ))
        .unwrap();
    let long = format!("{{ table: public.{LONG}, window: none }}");
    case.inventory(&[&long, "{ table: public.tiny, window: none }"]);
    case
}

/// The load of the table with the long name waits while this session is open.
fn held(case: &Case) -> postgres::Client {
    let mut other = Side::Target.connect(case.database());
    other.batch_execute(&format!("BEGIN; LOCK TABLE {LONG} IN SHARE MODE")).unwrap();
    other
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn ended(mut child: Child) {
    wait_for("it ended", Duration::from_secs(60), || child.try_wait().unwrap().is_some());
}

/// What was written between movements of the cursor, without colours and the like.
fn pieces(seen: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut rest = seen.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => {
                // ESC [ … letter
                let last = rest.by_ref().skip(1).find(|one| one.is_ascii_alphabetic());
                if last != Some('m') {
                    pieces.push(String::new());
                }
            }
            '\r' | '\n' => pieces.push(String::new()),
            other => pieces.last_mut().unwrap().push(other),
        }
    }
    pieces
}

#[test]
fn on_a_terminal_of_80_columns_stages_and_tables_have_their_lines_and_nothing_wraps() {
    let case = world("progress_terminal");
    let mut lock = held(&case);
    let inner = case.command(&["run"]);
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut command = Command::new("script");
    command.args([
        "-q",
        "-e",
        "-f",
        "-c",
        &format!("stty cols 80 rows 24; exec {}", words.join(" ")),
        "/dev/null",
    ]);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let seen = case.path("terminal");
    let out = File::create(&seen).unwrap();
    let mut child = command.env("TERM", "xterm").stdin(Stdio::null()).stdout(out).spawn().unwrap();
    wait_for("the table in work is shown", Duration::from_secs(60), || {
        assert!(child.try_wait().unwrap().is_none(), "the run is over:\n{}", text(&seen));
        let shown = pieces(&text(&seen));
        let has = |words: &[&str]| shown.iter().any(|line| words.iter().all(|word| line.contains(word)));
        has(&["export [", "2/2", "30002 rows", "iB", "/s"])
            && has(&["load   [", "1/2", "2 rows"])
            && has(&["  public.wpp", "…", "0/1  loading", "30000 rows"])
    });
    lock.batch_execute("COMMIT").unwrap();
    ended(child);
    let seen = text(&seen);
    for piece in pieces(&seen) {
        // Lines are drawn one after the other, each with the blanks that fill the terminal's width.
        for line in piece.chars().collect::<Vec<_>>().chunks(80) {
            assert!(line.get(79).is_none_or(|last| *last == ' '), "{}", line.iter().collect::<String>());
        }
    }
    assert!(seen.contains("2/2 tables, 30002 rows, 0 created, 0 failed, in "), "{seen}");
    assert!(seen.trim_end().lines().last().unwrap().contains("2/2 tables"), "the bars are gone: {seen}");
}

#[test]
fn a_log_gets_a_plain_line_every_few_seconds_though_nothing_ends() {
    let case = world("progress_log");
    let mut lock = held(&case);
    let seen = case.path("log");
    let mut command = case.command(&["run"]);
    command.stdout(Stdio::null()).stderr(File::create(&seen).unwrap());
    let child = command.spawn().unwrap();
    let line = "exported 2/2 units, 30002 rows, ";
    wait_for("two lines", Duration::from_secs(60), || text(&seen).matches(line).count() >= 2);
    lock.batch_execute("COMMIT").unwrap();
    ended(child);
    let seen = text(&seen);
    assert!(!seen.contains('\u{1b}') && !seen.contains('\r'), "{seen}");
    assert!(seen.contains("loaded 1/2 units, 2 rows, "), "{seen}");
    assert!(seen.contains(&format!("in work: public.{LONG}")), "{seen}");
}

#[test]
fn totals_agree_in_every_mode_of_working_to_the_row() {
    let mut case = world("progress_totals");
    let last = |ran: &crate::support::Ran| ran.stdout.lines().last().unwrap().to_owned();
    let again = |case: &mut Case| {
        case.target.batch_execute(&format!("TRUNCATE {LONG}, tiny; DROP SCHEMA gpferry CASCADE")).unwrap();
        std::fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    };
    let whole = case.gpferry(&["run"]).expect(0);
    assert!(last(&whole).starts_with("2/2 tables, 30002 rows, 0 created, 0 failed, in "), "{}", last(&whole));
    again(&mut case);
    let exported = case.gpferry(&["export"]).expect(0);
    assert!(last(&exported).starts_with("2/2 tables, 30002 rows, 0 failed, in "), "{}", last(&exported));
    let loaded = case.gpferry(&["load"]).expect(0);
    assert!(last(&loaded).starts_with("2/2 tables, 30002 rows, 0 failed, in "), "{}", last(&loaded));
    again(&mut case);
    let mut rows = 0;
    for _ in 0..2 {
        let one = case.gpferry(&["run", "--max-units", "1", "--format", "json"]).expect(0).json();
        assert_eq!(one["totals"]["rows"], one["totals"]["rows_exported"], "{one}");
        rows += one["totals"]["rows"].as_i64().unwrap();
    }
    assert_eq!(rows, 30_002);
    assert_eq!(case.count("SELECT sum(rows_loaded)::bigint FROM gpferry.load_log"), 30_002);
    let status = case.gpferry(&["status", "--format", "json"]).expect(0).json();
    let tables = status["tables"].as_array().unwrap();
    assert_eq!(tables.iter().map(|one| one["rows"].as_i64().unwrap()).sum::<i64>(), 30_002, "{status}");
}
