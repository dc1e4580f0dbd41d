//! `compare`: two million equal rows, and one changed row found among them, against the digest queries of both sides run
//! at once, which is the least that any comparison by content costs; and against reladiff, where it is installed.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::support::{Case, lab};

/// What is digested: the same text of a row that `compare` makes.
const DIGEST: &str = "SELECT count(*), sum(CAST(CAST('x' || substr(md5(CAST(ROW(glass_id, ope_id, evt_timestamp, seq, \
     defect_code, encode(float8send(x), 'hex'), encode(float8send(y), 'hex'), size, CAST(judge AS text), file_url) AS text)), \
     1, 15) AS bit(60)) AS bigint)) FROM large";

/// Measures all of it: `fill` makes the table `large` on both sides, and its rows in the source.
pub(crate) fn measure(rounds: usize, rows: usize, fill: fn(&mut Case, usize)) -> serde_json::Value {
    let mut case = Case::new("bench_compare");
    fill(&mut case, rows);
    let window = "{ table: public.large, window: { column: evt_timestamp, length: 1d } }";
    case.inventory_with("", "    from: 2021-08-10 00:00:00\n    until: 2021-08-11 00:00:00\n", &[window]);
    ran(&case, &["run", "--no-progress"], 0);
    case.target.batch_execute("VACUUM ANALYZE large").unwrap();
    let has_peer = std::env::var("GPFERRY_BENCH_RELADIFF").is_ok();
    if has_peer {
        case.both(
            "CREATE TABLE keyed AS SELECT CAST(round(extract(epoch FROM evt_timestamp - timestamp '2021-08-10') / 0.011) AS int) AS n, \
             large.* FROM large; ALTER TABLE keyed ADD PRIMARY KEY (n); ANALYZE keyed",
        );
    }
    println!("\n{rows} rows compared; {rounds} rounds, medians");
    let (mut digests, mut equal, mut changed, mut peer) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let middle = rows / 2;
    let set = |case: &mut Case, to: &str| {
        let sql = format!(
            "UPDATE large SET judge = {to} WHERE evt_timestamp = timestamp '2021-08-10' + {middle} * interval '11 ms'"
        );
        assert_eq!(case.target.execute(sql.as_str(), &[]).unwrap(), 1);
        if has_peer {
            case.target
                .execute(format!("UPDATE keyed SET judge = {to} WHERE n = {middle}").as_str(), &[])
                .unwrap();
        }
    };
    let judge: String = case
        .target
        .query_one(
            format!("SELECT judge::text FROM large WHERE evt_timestamp = timestamp '2021-08-10' + {middle} * interval '11 ms'").as_str(),
            &[],
        )
        .unwrap()
        .get(0);
    for round in 0..rounds {
        digests.push(both_digests(&case));
        equal.push(ran(&case, &["compare", "--deep"], 0));
        set(&mut case, "'?'");
        changed.push(ran(&case, &["compare", "--deep"], 4));
        peer.extend(reladiff(&case));
        set(&mut case, &format!("'{judge}'"));
        // Its difference is closed again.
        ran(&case, &["compare", "--deep"], 0);
        println!(
            "  round {}: digests {:.2}, equal {:.2}, one changed {:.2}{}",
            round + 1,
            digests[round],
            equal[round],
            changed[round],
            peer.get(round).map(|seconds| format!(", reladiff {seconds:.2}")).unwrap_or_default()
        );
    }
    let (digests, equal, changed) = (median(digests), median(equal), median(changed));
    println!("  digest queries of both sides at once {digests:>8.2} s");
    println!(
        "  equal                                {equal:>8.2} s   {:>6.3} (at most 1.3)",
        equal / digests
    );
    println!(
        "  one row changed, found by its key    {changed:>8.2} s   {:>6.3} (at most 1.6)",
        changed / digests
    );
    let peer = (!peer.is_empty()).then(|| median(peer));
    match peer {
        Some(peer) => println!(
            "  reladiff, by an integer key          {peer:>8.2} s   {:>6.3} of it (at most 0.6)",
            changed / peer
        ),
        None => println!("  reladiff is not installed (GPFERRY_BENCH_RELADIFF names its program)"),
    }
    json!({ "rows": rows, "digests_s": digests, "equal_s": equal, "changed_s": changed, "ratio_equal": equal / digests,
            "ratio_changed": changed / digests, "reladiff_s": peer })
}

/// A run of the binary; its seconds.
fn ran(case: &Case, args: &[&str], code: i32) -> f64 {
    let begin = Instant::now();
    let status = case.command(args).stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
    assert_eq!(status.code(), Some(code), "{args:?}");
    begin.elapsed().as_secs_f64()
}

/// The digest query on both sides at once, each by a psql of its own.
fn both_digests(case: &Case) -> f64 {
    let lab = lab();
    let begin = Instant::now();
    let sides = [("LAB_SOURCE_SOCKET", "LAB_SOURCE_PORT"), ("LAB_TARGET_SOCKET", "LAB_TARGET_PORT")];
    let children = sides.map(|(socket, port)| {
        Command::new("psql")
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-h",
                lab.get(socket),
                "-p",
                lab.get(port),
                "-U",
                "postgres",
                "-d",
                case.database(),
            ])
            .args(["-c", "SET jit = off", "-c", DIGEST])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let said = children.map(|child| child.wait_with_output().unwrap());
    assert!(said.iter().all(|one| one.status.success()) && said[0].stdout == said[1].stdout);
    begin.elapsed().as_secs_f64()
}

/// reladiff over the same table, by an integer key that it takes: the timestamp of the primary key it does not.
fn reladiff(case: &Case) -> Option<f64> {
    let program = std::env::var("GPFERRY_BENCH_RELADIFF").ok()?;
    let lab = lab();
    let url = |socket: &str, port: &str| {
        let socket = lab.get(socket).replace('/', "%2F");
        format!("postgresql://postgres:x@{socket}:{}/{}", lab.get(port), case.database())
    };
    let begin = Instant::now();
    let said = Command::new(program)
        .args([&url("LAB_SOURCE_SOCKET", "LAB_SOURCE_PORT"), "keyed"])
        .args([&url("LAB_TARGET_SOCKET", "LAB_TARGET_PORT"), "keyed"])
        .args(["-k", "n", "-c", "%"])
        .output()
        .unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    assert!(!said.stdout.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    Some(seconds)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
