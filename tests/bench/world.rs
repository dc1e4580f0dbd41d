//! The tables that are moved, and the ways to move them.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::measure::{Measured, measured};
use crate::support::{Case, lab};

pub(crate) const LARGE: &str = "(glass_id varchar(20), ope_id varchar(10), evt_timestamp timestamp, seq int, defect_code \
     varchar(12), x float8, y float8, size numeric(12,4), judge char(1), file_url text, \
     PRIMARY KEY (glass_id, ope_id, evt_timestamp, seq))";

/// Fills `large` in the source, and makes it on both sides.
pub(crate) fn fill(case: &mut Case, rows: usize) {
    case.both(&format!("CREATE TABLE large {LARGE}"));
    case.source.batch_execute(&insert_large(rows)).unwrap();
    case.source.batch_execute("VACUUM ANALYZE large").unwrap();
}

/// Fills `large`.
pub(crate) fn insert_large(rows: usize) -> String {
    format!(
        "INSERT INTO large SELECT 'G' || lpad((i / 40)::text, 9, '0'), 'OP' || i % 7, \
             timestamp '2021-08-10' + i * interval '11 ms', i % 40, 'DEF' || i % 97, random() * 2200, random() * 2500, \
             (random() * 1000)::numeric(12,4), chr(65 + i % 3), '/img/' || left(md5(i::text), 16) \
             FROM generate_series(1, {rows}) i"
    )
}

/// Megabytes of CSV that `large` is.
pub(crate) fn csv_megabytes(case: &Case) -> f64 {
    assert!(shell(case, "$SOURCE -c 'COPY large TO STDOUT CSV' | wc -c > $DIR/bytes"));
    fs::read_to_string(case.path("bytes")).unwrap().trim().parse::<f64>().unwrap() / 1e6
}

/// An inventory of these tables. The target is reached by its socket, as by the other ways.
pub(crate) fn inventory(case: &Case, tables: &[&str]) {
    case.inventory(tables);
    if !crate::greenplum::is_target() {
        let socket = lab().get("LAB_TARGET_SOCKET").replace('/', "%2F");
        case.edit_inventory("@127.0.0.1:", &format!("@{socket}:"));
    }
}

/// Empties these tables, and takes everything else back that an earlier round did.
pub(crate) fn reset(case: &mut Case, tables: &[&str]) {
    for some in tables.chunks(500) {
        case.target.batch_execute(&format!("TRUNCATE {}", some.join(", "))).unwrap();
    }
    forget(case);
}

/// Lets gpferry know of no earlier round, and both servers settle.
pub(crate) fn forget(case: &mut Case) {
    static NEXT_ROUND: AtomicU32 = AtomicU32::new(0);
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

/// What a person would write, for each of these tables: out through gzip into a file, and back.
pub(crate) fn hand_pipeline(case: &Case, tables: &[&str]) -> Measured {
    measured(|| {
        for table in tables {
            let file = format!("$DIR/{}.csv.gz", table.replace('.', "_"));
            let out = format!("$SOURCE -c 'COPY {table} TO STDOUT CSV' | gzip > {file}");
            let back = format!("zcat {file} | $TARGET -c 'COPY {table} FROM STDIN CSV'");
            assert!(shell(case, &format!("{out} && {back}")));
        }
        0
    })
}

/// The fewest steps: from one server to the other, without a file.
pub(crate) fn floor(case: &Case) -> Measured {
    measured(|| {
        assert!(shell(case, "$SOURCE -c 'COPY large TO STDOUT' | $TARGET -c 'COPY large FROM STDIN'"));
        0
    })
}

/// Runs a pipeline; false where a part of it failed.
pub(crate) fn shell(case: &Case, pipeline: &str) -> bool {
    let lab = lab();
    let psql = |socket: &str, port: &str| {
        format!("psql -X -q -h {} -p {} -U postgres -d {}", lab.get(socket), lab.get(port), case.database())
    };
    let status = Command::new("bash")
        .args(["-o", "pipefail", "-c", pipeline])
        .env("SOURCE", psql("LAB_SOURCE_SOCKET", "LAB_SOURCE_PORT"))
        .env("TARGET", psql("LAB_TARGET_SOCKET", "LAB_TARGET_PORT"))
        .env("DIR", case.path(""))
        .status()
        .unwrap();
    status.success()
}

/// A whole run of the binary.
pub(crate) fn gpferry(case: &Case, args: &[&str]) -> Measured {
    measured(|| told(case.command(args)).0)
}

/// Other builds of gpferry, each of which is a way of its own beside this one: `GPFERRY_BENCH_AGAINST`, their paths with
/// commas between.
pub(crate) fn others() -> Vec<&'static str> {
    let paths = std::env::var("GPFERRY_BENCH_AGAINST").unwrap_or_default();
    paths.leak().split(',').map(str::trim).filter(|path| !path.is_empty()).collect()
}

/// A whole run of another build.
pub(crate) fn other(case: &Case, program: &str, args: &[&str]) -> Measured {
    let this = case.command(args);
    let mut command = Command::new(program);
    command.args(this.get_args());
    for (name, value) in this.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    measured(|| told(command).0)
}

/// The same, with its JSON document.
pub(crate) fn gpferry_told(case: &Case, args: &[&str]) -> (Measured, serde_json::Value) {
    let mut document = serde_json::Value::Null;
    let measured = measured(|| {
        let (peak, stdout) = told(case.command(&[args, &["--format", "json"]].concat()));
        document = serde_json::from_slice(&stdout).unwrap_or_default();
        peak
    });
    (measured, document)
}

/// Runs the binary; the most resident memory that it had, and what it said.
fn told(mut command: Command) -> (u64, Vec<u8>) {
    command.arg("--no-progress").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (peak, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&status).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
                peak.fetch_max(kib.unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let output = child.wait_with_output().unwrap();
        over.store(true, Ordering::Relaxed);
        output
    });
    if !output.status.success() {
        std::io::stdout().write_all(&[output.stdout, output.stderr].concat()).unwrap();
        panic!("{command:?} ended with {}", output.status);
    }
    (peak.into_inner(), output.stdout)
}
