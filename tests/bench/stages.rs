//! Where the time goes: what each step takes by itself on this machine, whose CPU time a run and the hand pipeline are,
//! and how long the units of a run were exported, waited and were loaded.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Settings;
use crate::cpu::{Process, TICKS, meter, processes};
use crate::support::Case;
use crate::world::{LARGE, fill, gpferry_told, hand_pipeline, inventory, reset, shell};

/// How often processes are looked at. What one does after the last look before its end is not seen.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(crate) fn measure(settings: &Settings) -> Value {
    let mut case = Case::new("bench_stages");
    fill(&mut case, settings.rows);
    inventory(&case, &["{ table: public.large, window: none }"]);
    println!("\n{} rows: each step by itself", settings.rows);
    let alone = alone(&mut case);
    println!("  CPU seconds by program, looked at every {} ms", LOOK_EVERY.as_millis());
    reset(&mut case, &["large"]);
    let (_, hand) = watched(|| hand_pipeline(&case, &["large"]));
    reset(&mut case, &["large"]);
    let ((_, document), ours) = watched(|| gpferry_told(&case, &["run"]));
    for (way, by) in [("hand", &hand), ("gpferry", &ours)] {
        let shown: Vec<String> = by.iter().map(|(program, cpu)| format!("{program} {cpu:.2}")).collect();
        println!("  {way}: {}", shown.join(", "));
    }
    json!({ "rows": settings.rows, "alone": alone, "cpu_hand": hand, "cpu_gpferry": ours,
            "units": units(&case, &document) })
}

/// Seconds of each step, with nothing beside it.
fn alone(case: &mut Case) -> Value {
    assert!(shell(case, "$SOURCE -c 'COPY large TO STDOUT CSV' > $DIR/large.csv"));
    assert!(shell(case, "igzip -1 -c $DIR/large.csv > $DIR/large.csv.gz"));
    let keyless = LARGE.replace(", PRIMARY KEY (glass_id, ope_id, evt_timestamp, seq)", "");
    case.target.batch_execute(&format!("CREATE TABLE keyless {keyless}")).unwrap();
    let mut told = BTreeMap::new();
    let mut step = |name: &str, work: &mut dyn FnMut()| {
        let begin = Instant::now();
        work();
        let seconds = begin.elapsed().as_secs_f64();
        println!("  {name:<44} {seconds:>7.2} s");
        told.insert(name.to_owned(), seconds);
    };
    step("1 export: COPY TO, thrown away", &mut || {
        run(case, "$SOURCE -c 'COPY large TO STDOUT CSV' > /dev/null");
    });
    step("2 compress: igzip -1", &mut || run(case, "igzip -1 -c $DIR/large.csv > /dev/null"));
    step("2 compress: gzip -6, as by hand", &mut || run(case, "gzip -c $DIR/large.csv > /dev/null"));
    step("3 publish: write and flush to disk", &mut || {
        run(case, "dd if=$DIR/large.csv.gz of=$DIR/flushed bs=1M conv=fsync status=none");
    });
    let file = case.path("large.csv.gz");
    step("4 inflate, and check the CRC", &mut || inflate(&file));
    step("5 load: COPY FROM, table without key", &mut || {
        run(case, "$TARGET -c \"\\\\copy keyless FROM '$DIR/large.csv' CSV\"");
    });
    step("5 load: COPY FROM, table with its key", &mut || {
        run(case, "$TARGET -c \"\\\\copy large FROM '$DIR/large.csv' CSV\"");
    });
    let key = "SET maintenance_work_mem = '256MB'; ALTER TABLE keyless ADD PRIMARY KEY (glass_id, ope_id, evt_timestamp, seq)";
    step("6 key: built after the rows", &mut || run(case, &format!("$TARGET -c \"{key}\"")));
    case.target.batch_execute("BEGIN; TRUNCATE large; INSERT INTO large SELECT * FROM keyless").unwrap();
    step("7 commit, after the rows", &mut || case.target.batch_execute("COMMIT").unwrap());
    case.target.batch_execute("DROP TABLE keyless").unwrap();
    json!(told)
}

fn run(case: &Case, pipeline: &str) {
    assert!(shell(case, pipeline));
}

fn inflate(file: &std::path::Path) {
    let mut reader = flate2::read::MultiGzDecoder::new(fs::File::open(file).unwrap());
    let mut buffer = vec![0; 256 * 1024];
    while reader.read(&mut buffer).unwrap() > 0 {}
}

/// Whose CPU time passed while `work` was done: by program, the bench left out.
fn watched<T>(work: impl FnOnce() -> T) -> (T, BTreeMap<String, f64>) {
    let before: BTreeMap<u32, u64> = processes().iter().map(|one| (one.pid, one.own)).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut last: BTreeMap<u32, (String, u64)> = BTreeMap::new();
            loop {
                let ends = over.load(Ordering::Relaxed);
                // Others may work on this machine too.
                let members = meter().members();
                let is_ours = |one: &Process| members.as_ref().is_none_or(|ours| ours.contains(&one.pid));
                for one in processes().into_iter().filter(is_ours) {
                    let began = before.get(&one.pid).copied().unwrap_or(0);
                    let spent = one.own.saturating_sub(began);
                    if spent > 0 {
                        let name = last.get(&one.pid).map_or_else(|| program(&one), |(name, _)| name.clone());
                        last.insert(one.pid, (name, spent));
                    }
                }
                if ends {
                    return last;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        let mut by = BTreeMap::new();
        for (pid, (name, ticks)) in watcher.join().unwrap() {
            if pid != std::process::id() && !name.is_empty() {
                *by.entry(name).or_insert(0.0) += ticks as f64 / TICKS;
            }
        }
        (done, by)
    })
}

/// What a process is in the picture; nothing for those that have no part in it.
fn program(one: &Process) -> String {
    let command = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let known = match one.name.as_str() {
        "postgres" => {
            let own = command(one.pid);
            // A backend's parent is its server, whose command line names the cluster.
            let server = if own.contains("/pg/") { own } else { command(one.parent) };
            match (server.contains("/pg/source"), server.contains("/pg/target")) {
                (true, _) => "source server",
                (_, true) => "target server",
                _ => "",
            }
        }
        "gpferry" => "gpferry",
        "sshd" => "sshd",
        "psql" => "psql",
        "gzip" | "igzip" | "pigz" | "zcat" => "compressor",
        "bash" | "perl" | "dd" | "cat" | "mv" | "sync" => "script",
        _ => "",
    };
    known.to_owned()
}

/// Sums over the units of a run, and how long it took in all: with several sessions the sums exceed it.
fn units(case: &Case, document: &Value) -> Value {
    let (_, history) = gpferry_told(case, &["history", "--attempts"]);
    let seconds = |value: &Value| value.as_f64().unwrap_or(0.0);
    let (mut exported, mut loaded, mut whole, mut number) = (0.0, 0.0, 0.0, 0);
    for attempt in history["attempts"].as_array().into_iter().flatten() {
        let time = |name: &str| attempt[name].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let (Some(began), Some(ended)) = (time("started_at"), time("ended_at")) else { continue };
        exported += seconds(&attempt["export_seconds"]);
        loaded += seconds(&attempt["load_seconds"]);
        whole += ended.duration_since(began).as_secs_f64();
        number += 1;
    }
    let waited = (whole - exported - loaded).max(0.0);
    println!(
        "  {number} units in {:.2} s: exported {exported:.2} s, loaded {loaded:.2} s, between and after {waited:.2} s",
        seconds(&document["seconds"])
    );
    json!({ "units": number, "seconds": document["seconds"], "export": exported, "load": loaded, "wait": waited })
}
