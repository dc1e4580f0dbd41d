//! The answer to COMMIT gets lost: the load log decides, and nothing is loaded twice or believed unseen.

use crate::proxy::{Cut, Proxy};
use crate::support::{Case, lab};

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
    let proxy = Proxy::new("127.0.0.1", lab().get("LAB_TARGET_PORT").parse().unwrap());
    proxy.cut_at_commit(cut);
    let port = proxy.port();
    let direct = format!("127.0.0.1:{}/{}", lab().get("LAB_TARGET_PORT"), case.database());
    case.edit_inventory(&direct, &format!("127.0.0.1:{port}/{}?sslmode=disable", case.database()));
    let password = std::fs::read_to_string(lab().get("LAB_PGPASSFILE")).unwrap();
    let password = password.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    let run = |args: &[&str]| {
        crate::support::ran(case.command(args).env("PGPASSWORD", &password).output().unwrap())
    };
    let ran = run(&["load"]).expect(0);
    assert_eq!(proxy.hits(), 1, "no COMMIT passed the proxy");
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

#[test]
fn rows_that_were_kept_out_are_told_though_the_answer_was_lost() {
    let mut case = Case::new("commit_rejects");
    case.source.batch_execute("CREATE TABLE t (id text); INSERT INTO t VALUES ('1'), ('x'), ('3')").unwrap();
    case.target.batch_execute("CREATE TABLE t (id int)").unwrap();
    case.inventory(&["{ table: public.t, window: none, load: { reject_limit: 1 rows } }"]);
    case.gpferry(&["export"]).expect(0);
    let proxy = Proxy::new("127.0.0.1", lab().get("LAB_TARGET_PORT").parse().unwrap());
    proxy.cut_at_commit(Cut::After);
    let direct = format!("127.0.0.1:{}/{}", lab().get("LAB_TARGET_PORT"), case.database());
    let cut = format!("127.0.0.1:{}/{}?sslmode=disable", proxy.port(), case.database());
    case.edit_inventory(&direct, &cut);
    let password = std::fs::read_to_string(lab().get("LAB_PGPASSFILE")).unwrap();
    let password = password.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    let ran = crate::support::ran(case.command(&["load"]).env("PGPASSWORD", &password).output().unwrap());
    assert_eq!(proxy.hits(), 1, "no COMMIT passed the proxy");
    ran.expect(3).says("kept out");
    assert_eq!(case.count("SELECT count(*) FROM t"), 2);
}
