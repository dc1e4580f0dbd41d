//! `make bench`: gpferry against the pipeline that a person would write, in one run, alternating, as ratios.
//!
//! Absolute times of one machine mean little; the ratio of two medians out of one run does. Both ways move the
//! same tables between the same two PostgreSQLs on this machine. `GPFERRY_BENCH_ROUNDS` (5) sets how often,
//! `GPFERRY_BENCH_ROWS` (2000000) and `GPFERRY_BENCH_TABLES` (2000) how much, and `GPFERRY_BENCH_TENFOLD=1` adds
//! a table ten times as large for its memory. `GPFERRY_BENCH_ONLY=collision` measures a unit that collides alone.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]

#[path = "../lab/support.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod support;

mod compare;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use support::{Case, lab};

/// A time, and the most memory that the process had, where that is of interest.
#[derive(Clone, Copy)]
struct Measured {
    seconds: f64,
    peak_kib: u64,
}

fn main() {
    // `cargo test --benches` would run this with `--test`; there is nothing to test here.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let rounds = setting("GPFERRY_BENCH_ROUNDS", 5);
    let rows = setting("GPFERRY_BENCH_ROWS", 2_000_000);
    let tables = setting("GPFERRY_BENCH_TABLES", 2000);
    if std::env::var("GPFERRY_BENCH_ONLY").is_ok_and(|only| only == "collision") {
        one_collision(rounds, rows / 2);
        return;
    }
    if std::env::var("GPFERRY_BENCH_ONLY").is_ok_and(|only| only == "compare") {
        compare::measure(rounds, rows, fill);
        return;
    }
    let large = large_table(rounds, rows);
    let tiny = tiny_tables(rounds, tables);
    let collision = one_collision(rounds, rows / 2);
    let mut document =
        json!({ "version": 1, "rounds": rounds, "large": large, "tiny": tiny, "collision": collision });
    if std::env::var("GPFERRY_BENCH_TENFOLD").is_ok() {
        document["tenfold"] = tenfold(rows * 10);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench.json");
    fs::write(path, format!("{document:#}\n")).unwrap();
    println!("\nas JSON: target/bench.json");
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

const LARGE: &str = "(glass_id varchar(20), ope_id varchar(10), evt_timestamp timestamp, seq int, defect_code \
     varchar(12), x float8, y float8, size numeric(12,4), judge char(1), file_url text, \
     PRIMARY KEY (glass_id, ope_id, evt_timestamp, seq))";

fn fill(case: &mut Case, rows: usize) {
    case.both(&format!("CREATE TABLE large {LARGE}"));
    case.source
        .batch_execute(&format!(
            "INSERT INTO large SELECT 'G' || lpad((i / 40)::text, 9, '0'), 'OP' || i % 7, \
             timestamp '2021-08-10' + i * interval '11 ms', i % 40, 'DEF' || i % 97, random() * 2200, random() * 2500, \
             (random() * 1000)::numeric(12,4), chr(65 + i % 3), '/img/' || left(md5(i::text), 16) \
             FROM generate_series(1, {rows}) i"
        ))
        .unwrap();
    case.source.batch_execute("VACUUM ANALYZE large").unwrap();
}

fn large_table(rounds: usize, rows: usize) -> serde_json::Value {
    let mut case = Case::new("bench_large");
    fill(&mut case, rows);
    case.inventory(&["{ table: public.large, window: none }"]);
    let csv = shell(&case, "$SOURCE -c 'COPY large TO STDOUT CSV' | wc -c > $DIR/bytes");
    assert!(csv.is_some());
    let megabytes: f64 = fs::read_to_string(case.path("bytes")).unwrap().trim().parse::<f64>().unwrap() / 1e6;
    println!("{rows} rows, {megabytes:.0} MB of CSV, primary key of four columns; {rounds} rounds, medians");
    let (mut hand, mut floor, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        reset(&mut case, &["large"]);
        hand.push(hand_pipeline(&case, "large"));
        reset(&mut case, &["large"]);
        floor.push(
            shell(&case, "$SOURCE -c 'COPY large TO STDOUT' | $TARGET -c 'COPY large FROM STDIN'").unwrap(),
        );
        reset(&mut case, &["large"]);
        ours.push(gpferry(&case));
        assert_eq!(case.count("SELECT count(*) FROM large"), i64::try_from(rows).unwrap());
        println!(
            "  round {}: hand {:.2}, floor {:.2}, gpferry {:.2}",
            round + 1,
            hand[round],
            floor[round],
            ours[round].seconds
        );
    }
    let peak = ours.iter().map(|one| one.peak_kib).max().unwrap_or(0);
    let (hand, floor) = (median(hand), median(floor));
    let ours = median(ours.iter().map(|one| one.seconds).collect());
    line("hand pipeline (COPY | gzip, zcat | COPY)", hand, 1.0);
    line("floor (COPY | COPY, writes no file)", floor, floor / hand);
    line("gpferry run", ours, ours / hand);
    println!("  gpferry against the floor: {:.2}; peak memory {:.1} MiB", ours / floor, peak as f64 / 1024.0);
    json!({ "rows": rows, "csv_mb": megabytes, "hand_s": hand, "floor_s": floor, "gpferry_s": ours,
            "ratio_hand": ours / hand, "ratio_floor": ours / floor, "peak_kib": peak })
}

fn tiny_tables(rounds: usize, tables: usize) -> serde_json::Value {
    let mut case = Case::new("bench_tiny");
    let names: Vec<String> = (1..=tables).map(|n| format!("tiny{n}")).collect();
    for some in names.chunks(200) {
        let create: String = some
            .iter()
            .map(|name| format!("CREATE TABLE {name} (id int PRIMARY KEY, v text, at timestamp);"))
            .collect();
        case.both(&create);
        let fill: String = some
            .iter()
            .map(|name| {
                format!("INSERT INTO {name} SELECT i, 'row ' || i, now() FROM generate_series(1, 3) i;")
            })
            .collect();
        case.source.batch_execute(&fill).unwrap();
    }
    case.inventory(&["{ tables: \"public.tiny*\", window: none }"]);
    let sample = names.len().min(100);
    println!("\n{tables} tables of 3 rows; the hand loop over {sample} of them, extrapolated");
    let (mut hand, mut ours) = (Vec::new(), Vec::new());
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    for round in 0..rounds {
        reset(&mut case, &all[..sample]);
        let begin = Instant::now();
        for name in &all[..sample] {
            hand_pipeline(&case, name);
        }
        hand.push(begin.elapsed().as_secs_f64() / sample as f64 * tables as f64);
        reset(&mut case, &all);
        ours.push(gpferry(&case));
        println!("  round {}: hand {:.2}, gpferry {:.2}", round + 1, hand[round], ours[round].seconds);
    }
    let loaded = case.count("SELECT sum(rows_loaded)::bigint FROM gpferry.load_log");
    assert_eq!(loaded, i64::try_from(tables * 3).unwrap());
    let peak = ours.iter().map(|one| one.peak_kib).max().unwrap_or(0);
    let hand = median(hand);
    let ours = median(ours.iter().map(|one| one.seconds).collect());
    line("hand loop", hand, 1.0);
    line("gpferry run", ours, ours / hand);
    println!("  one to {:.0}; peak memory {:.1} MiB", hand / ours, peak as f64 / 1024.0);
    json!({ "tables": tables, "hand_s": hand, "gpferry_s": ours, "ratio_hand": ours / hand, "peak_kib": peak })
}

fn tenfold(rows: usize) -> serde_json::Value {
    let mut case = Case::new("bench_tenfold");
    fill(&mut case, rows);
    case.inventory(&["{ table: public.large, window: none }"]);
    let measured = gpferry(&case);
    println!(
        "\n{rows} rows: {:.2} s, peak memory {:.1} MiB",
        measured.seconds,
        measured.peak_kib as f64 / 1024.0
    );
    json!({ "rows": rows, "gpferry_s": measured.seconds, "peak_kib": measured.peak_kib })
}

/// A unit whose last row collides, put in quarantine: the COPY that fails, what is found out, and the load of the rest,
/// against the load of the same file where nothing collides.
fn one_collision(rounds: usize, rows: usize) -> serde_json::Value {
    let mut case = Case::new("bench_collision");
    fill(&mut case, rows);
    case.inventory(&[
        "{ table: public.large, window: none, load: { on_pk_violation: quarantine, rejects: allow } }",
    ]);
    println!("\n{rows} rows, the last of which collides, and `on_pk_violation: quarantine`; loads alone");
    let (mut clean, mut collided) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for collides in [false, true] {
            reset(&mut case, &["large"]);
            command(&case, "export");
            if collides {
                case.target
                    .batch_execute(&format!(
                        "INSERT INTO large (glass_id, ope_id, evt_timestamp, seq) SELECT 'G' || lpad((i / 40)::text, 9, '0'), \
                         'OP' || i % 7, timestamp '2021-08-10' + i * interval '11 ms', i % 40 FROM (SELECT {rows} AS i) i"
                    ))
                    .unwrap();
            }
            case.target.batch_execute("CHECKPOINT").unwrap();
            let measured = command(&case, "load");
            assert_eq!(case.count("SELECT count(*) FROM large"), i64::try_from(rows).unwrap());
            let rejected = case.count("SELECT rows_rejected FROM gpferry.load_log");
            assert_eq!(rejected, i64::from(collides));
            if collides { &mut collided } else { &mut clean }.push(measured);
        }
        println!(
            "  round {}: clean {:.2}, collided {:.2}",
            round + 1,
            clean[round].seconds,
            collided[round].seconds
        );
    }
    let peak = collided.iter().map(|one| one.peak_kib).max().unwrap_or(0);
    let seconds = |all: Vec<Measured>| median(all.iter().map(|one| one.seconds).collect());
    let (clean, collided) = (seconds(clean), seconds(collided));
    line("clean load", clean, 1.0);
    line("one row collides", collided, collided / clean);
    println!("  peak memory {:.1} MiB", peak as f64 / 1024.0);
    json!({ "rows": rows, "clean_s": clean, "collided_s": collided, "ratio": collided / clean, "peak_kib": peak })
}

static NEXT_ROUND: AtomicU32 = AtomicU32::new(0);

/// Takes everything back that an earlier round did, and lets both servers settle.
fn reset(case: &mut Case, tables: &[&str]) {
    for some in tables.chunks(500) {
        case.target.batch_execute(&format!("TRUNCATE {}", some.join(", "))).unwrap();
    }
    case.target.batch_execute("DROP SCHEMA IF EXISTS gpferry CASCADE; CHECKPOINT").unwrap();
    case.source.batch_execute("CHECKPOINT").unwrap();
    // Files of earlier rounds stay until the end: ext4 looks long for a free inode where thousands were freed
    // within the last minute, and that would be measured instead.
    let subdir = format!("round{}", NEXT_ROUND.fetch_add(1, Ordering::Relaxed));
    let mount = case.mount();
    let old = format!("{{ path: {}", mount.display());
    let text = fs::read_to_string(case.path("inventory.yml")).unwrap();
    let line = text.lines().find(|line| line.contains(&old)).unwrap().to_owned();
    case.edit_inventory(&line, &format!("mount: {old}, subdir: {subdir} }}"));
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(case.path(&format!("inventory.ledger.sqlite{ending}")));
    }
}

fn hand_pipeline(case: &Case, table: &str) -> f64 {
    let out = format!("$SOURCE -c 'COPY {table} TO STDOUT CSV' | gzip > $DIR/{table}.csv.gz");
    let back = format!("zcat $DIR/{table}.csv.gz | $TARGET -c 'COPY {table} FROM STDIN CSV'");
    shell(case, &format!("{out} && {back}")).unwrap()
}

/// Runs a pipeline; `None` where a part of it failed.
fn shell(case: &Case, pipeline: &str) -> Option<f64> {
    let lab = lab();
    let psql = |socket: &str, port: &str| {
        format!("psql -X -q -h {} -p {} -U postgres -d {}", lab.get(socket), lab.get(port), case.database())
    };
    let begin = Instant::now();
    let status = Command::new("bash")
        .args(["-o", "pipefail", "-c", pipeline])
        .env("SOURCE", psql("LAB_SOURCE_SOCKET", "LAB_SOURCE_PORT"))
        .env("TARGET", psql("LAB_TARGET_SOCKET", "LAB_TARGET_PORT"))
        .env("DIR", case.path(""))
        .status()
        .unwrap();
    status.success().then(|| begin.elapsed().as_secs_f64())
}

/// A whole run of the binary, with the most resident memory that it had.
fn gpferry(case: &Case) -> Measured {
    command(case, "run")
}

fn command(case: &Case, command: &str) -> Measured {
    let begin = Instant::now();
    let mut child = case
        .command(&[command, "--no-progress"])
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let ended = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(ended.success(), "gpferry ended with {ended}");
    Measured { seconds: begin.elapsed().as_secs_f64(), peak_kib }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn line(what: &str, seconds: f64, ratio: f64) {
    println!("  {what:<42} {seconds:>8.2} s   {ratio:>6.3}");
}
