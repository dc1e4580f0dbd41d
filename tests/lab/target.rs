//! Reaching the target as libpq's users expect.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::greenplum;
use crate::support::{Case, Ran, lab, ran};

/// A case with one empty table, whose target URL is what the test says.
fn case(name: &str, url: impl Fn(&str) -> String) -> Case {
    let mut case = Case::new(name);
    case.both("CREATE TABLE t (id int)");
    case.inventory(&["{ table: public.t, window: none }"]);
    let port = lab().get("LAB_TARGET_PORT");
    let database = case.database().to_owned();
    case.edit_inventory(&format!("postgresql://loader@127.0.0.1:{port}/{database}"), &url(&database));
    case
}

fn port() -> &'static str {
    lab().get("LAB_TARGET_PORT")
}

/// Runs with these variables and no memory of an earlier run, so that the target has to be asked.
fn with(case: &Case, variables: &[(&str, &str)]) -> Ran {
    let _ = fs::remove_file(case.path("inventory.ledger.sqlite"));
    ran(case.command(&["run"]).envs(variables.iter().copied()).output().unwrap())
}

#[test]
fn a_password_file_that_others_can_read_is_not_used() {
    if greenplum::leaves_out("passwords", "how to log in there is the tester's own affair") {
        return;
    }
    let case = case("pgpass", |database| format!("postgresql://loader@127.0.0.1:{}/{database}", port()));
    let copy = case.path("pgpass");
    fs::copy(lab().get("LAB_PGPASSFILE"), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
    let copy = copy.to_str().unwrap();
    with(&case, &[("PGPASSFILE", copy)]).expect(14).says("others can read it").says("127.0.0.1");
    fs::set_permissions(copy, fs::Permissions::from_mode(0o600)).unwrap();
    with(&case, &[("PGPASSFILE", copy)]).expect(0);
}

#[test]
fn a_password_from_the_environment_is_used_and_a_wrong_one_is_named() {
    if greenplum::leaves_out("passwords", "how to log in there is the tester's own affair") {
        return;
    }
    let case = case("pgpassword", |database| format!("postgresql://loader@127.0.0.1:{}/{database}", port()));
    let line = fs::read_to_string(lab().get("LAB_PGPASSFILE")).unwrap();
    let password = line.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    with(&case, &[("PGPASSFILE", "/nonexistent"), ("PGPASSWORD", &password)]).expect(0);
    with(&case, &[("PGPASSWORD", "wrong-secret")])
        .expect(14)
        .says("password authentication failed")
        .silent_about("wrong-secret");
}

#[test]
fn tls_is_verified_as_sslmode_says() {
    if greenplum::leaves_out("TLS", "how to log in there is the tester's own affair") {
        return;
    }
    let ca = lab().get("LAB_CA");
    let full = case("tls", |database| {
        format!("postgresql://loader@localhost:{}/{database}?sslmode=verify-full&sslrootcert={ca}", port())
    });
    with(&full, &[]).expect(0);
    // The certificate is for `localhost`; by address it is another host.
    full.edit_inventory("@localhost", "@127.0.0.1");
    with(&full, &[]).expect(14).says("certificate verify failed");
    full.edit_inventory("verify-full", "verify-ca");
    with(&full, &[]).expect(0);
    full.edit_inventory(&format!("&sslrootcert={ca}"), "");
    with(&full, &[]).expect(14).says("certificate");
    with(&full, &[("PGSSLROOTCERT", ca)]).expect(0);
}

#[test]
fn the_next_host_of_a_url_is_tried() {
    let case = case("hosts", |database| {
        format!("postgresql://loader@127.0.0.1:1,localhost:{}/{database}?connect_timeout=3", port())
    });
    with(&case, &[]).expect(0);
    case.edit_inventory(&format!("localhost:{}", port()), "127.0.0.1:2");
    with(&case, &[]).expect(14).says("127.0.0.1:1").says("127.0.0.1:2");
}

#[test]
fn a_server_that_takes_the_connection_and_says_nothing_costs_its_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    let case = case("silent", |database| {
        format!("postgresql://loader@127.0.0.1:{silent},127.0.0.1:{}/{database}?connect_timeout=2", port())
    });
    let begin = std::time::Instant::now();
    with(&case, &[]).expect(0);
    case.edit_inventory(&format!("127.0.0.1:{}/", port()), "127.0.0.1:2/");
    with(&case, &[]).expect(14).says("no answer within 2 s");
    assert!(begin.elapsed().as_secs() < 30, "it took {:?}", begin.elapsed());
}

#[test]
fn a_unix_socket_is_a_host_and_the_application_has_a_name() {
    if greenplum::leaves_out("its socket", "how to log in there is the tester's own affair") {
        return;
    }
    let mut case = case("socket", |database| {
        let socket = lab().get("LAB_TARGET_SOCKET").replace('/', "%2F");
        format!("postgresql://postgres@{socket}:{}/{database}", port())
    });
    case.both(
        "CREATE FUNCTION named() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         NEW.id := (current_setting('application_name') = 'night run')::int; RETURN NEW; END $$; \
         CREATE TRIGGER named BEFORE INSERT ON t FOR EACH ROW EXECUTE PROCEDURE named()",
    );
    case.source.batch_execute("INSERT INTO t VALUES (7)").unwrap();
    with(&case, &[("PGAPPNAME", "night run")]).expect(0);
    assert_eq!(case.count("SELECT sum(id) FROM t"), 1);
}
