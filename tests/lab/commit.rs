//! The answer to COMMIT gets lost: the load log decides, and nothing is loaded twice or believed unseen.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{Case, lab};

/// Where the line is cut, once, at the first COMMIT that passes.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// The server never sees it.
    Before,
    /// The server has committed, the client never hears so.
    After,
}

/// A proxy in front of the target that cuts one connection; returns its port, and whether it has cut.
fn proxy(cut: Cut) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let target: u16 = lab().get("LAB_TARGET_PORT").parse().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&done);
    // Ends with the test binary.
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(("127.0.0.1", target)).unwrap();
            let done = Arc::clone(&done);
            thread::spawn(move || serve(client, server, cut, &done));
        }
    });
    (port, seen)
}

fn serve(mut client: TcpStream, mut server: TcpStream, cut: Cut, done: &AtomicBool) {
    let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let silent = Arc::new(AtomicBool::new(false));
    let silenced = Arc::clone(&silent);
    let answers = thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(n @ 1..) = from_server.read(&mut buffer) {
            if silenced.load(Ordering::SeqCst) {
                // This is the answer to COMMIT: it happened, and nobody hears of it.
                break;
            }
            if to_client.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 65536];
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        let commits = buffer[..n].windows(7).any(|bytes| bytes == b"COMMIT\0");
        if commits && !done.swap(true, Ordering::SeqCst) {
            if cut == Cut::Before {
                break;
            }
            silent.store(true, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
    let _ = client.shutdown(Shutdown::Both);
    let _ = answers.join();
}

fn a_commit_is_cut(name: &str, cut: Cut, load: &str) {
    let mut case = Case::new(name);
    let tables = ["a", "b", "c"];
    for table in tables {
        // No key: were it loaded twice, nothing would stop it.
        case.both(&format!("CREATE TABLE {table} (id int)"));
        case.source.batch_execute(&format!("INSERT INTO {table} SELECT generate_series(1, 100)")).unwrap();
    }
    case.inventory(
        &tables
            .map(|table| format!("{{ table: public.{table}, window: none, load: {load} }}"))
            .each_ref()
            .map(String::as_str),
    );
    // Exported first, over a line that holds: then the load log is there, and all three load as one group.
    case.gpferry(&["export"]).expect(0);
    let (port, cut_done) = proxy(cut);
    let direct = format!("127.0.0.1:{}/{}", lab().get("LAB_TARGET_PORT"), case.database());
    case.edit_inventory(&direct, &format!("127.0.0.1:{port}/{}?sslmode=disable", case.database()));
    let password = std::fs::read_to_string(lab().get("LAB_PGPASSFILE")).unwrap();
    let password = password.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    let run = |args: &[&str]| {
        crate::support::ran(case.command(args).env("PGPASSWORD", &password).output().unwrap())
    };
    let ran = run(&["load"]).expect(0);
    assert!(cut_done.load(Ordering::SeqCst), "no COMMIT passed the proxy");
    ran.says("3 of 3 units loaded, 300 rows");
    for table in tables {
        assert_eq!(case.count(&format!("SELECT count(*) FROM {table}")), 100, "{table}");
    }
    assert_eq!(case.count("SELECT sum(rows_loaded)::bigint FROM gpferry.load_log"), 300);
}

#[test]
fn a_load_whose_answer_was_lost_is_not_loaded_twice() {
    a_commit_is_cut("commit_after", Cut::After, "{ mode: insert }");
}

#[test]
fn nor_is_it_in_a_mode_that_claims_last() {
    a_commit_is_cut("commit_after_merge", Cut::After, "{ mode: merge, match: [id] }");
    a_commit_is_cut("commit_after_replace", Cut::After, "{ mode: replace }");
    a_commit_is_cut("commit_before_replace", Cut::Before, "{ mode: replace }");
}

#[test]
fn a_load_whose_commit_never_arrived_is_loaded_again() {
    a_commit_is_cut("commit_before", Cut::Before, "{ mode: insert }");
}
