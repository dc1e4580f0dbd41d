//! A webhook over TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::colliding;
use super::hook::{Answer, Hook};
use crate::support::Case;

const TOKEN: &str = "tok-48151623";

/// A case with one webhook at `host`, and the server behind it, which has a certificate for `name`.
fn hooked(case_name: &str, host: &str, name: &str, answers: &[Answer], more: &str) -> (Case, Hook) {
    let case = colliding(case_name, "");
    let hook = Hook::new(name, &case.path("ca.pem"), answers);
    let (url, ca) = (hook.url(host), case.path("ca.pem"));
    let sink = format!("w: {{ kind: webhook, url: \"{url}\", ca: {}{more} }}", ca.display());
    case.edit_inventory("sinks: {  }", &format!("sinks: {{ {sink} }}"));
    (case, hook)
}

#[test]
fn a_webhook_is_posted_the_document_with_the_token_which_is_shown_nowhere() {
    let more = ", token: { env: ALARM_TOKEN }";
    let (case, hook) = hooked("alarm_hook", "localhost", "localhost", &[Answer::Status(204)], more);
    let run = case.gpferry_with(&["run", "-vv", "--log-format", "json"], &[("ALARM_TOKEN", TOKEN)]).expect(3);
    let requests = hook.requests();
    assert_eq!(requests.len(), 1, "{requests:?}\n{}", run.stderr);
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook/s3cret-path HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains(&format!("authorization: bearer {TOKEN}")), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["version"], &body["alarms"][0]["phase"]), (&1.into(), &"raised".into()));
    // The library would log the request in pieces, byte by byte.
    run.silent_about(TOKEN).silent_about("\"target\":\"ureq");
    for entry in fs::read_dir(case.path("")).unwrap().flatten() {
        let bytes = fs::read(entry.path()).unwrap_or_default();
        let holds = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!holds, "{} holds the token", entry.path().display());
    }
    case.gpferry_with(&["run"], &[("ALARM_TOKEN", TOKEN)]).expect(3);
    assert_eq!(hook.requests().len(), 1, "told twice");
    case.gpferry(&["alarm", "test"]).expect(13).says("the variable ALARM_TOKEN is not set");
}

#[test]
fn a_token_may_be_in_a_file_that_others_cannot_read_and_in_another_header() {
    let (case, hook) =
        hooked("alarm_hook_file", "127.0.0.1", "127.0.0.1", &[Answer::Status(200)], ", header: X-Api-Key");
    let token = case.path("token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    case.edit_inventory("header:", &format!("token: {{ file: {} }}, header:", token.display()));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o640)).unwrap();
    case.gpferry(&["alarm", "test"]).expect(13).says("others can read it (mode 640)").silent_about(TOKEN);
    assert_eq!(hook.requests().len(), 0);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    case.gpferry(&["alarm", "test"]).expect(0);
    assert!(hook.requests()[0].to_lowercase().contains(&format!("x-api-key: {TOKEN}\r\n")));
}

#[test]
fn a_certificate_of_an_unknown_authority_or_another_name_is_refused() {
    let (case, hook) = hooked("alarm_hook_tls", "localhost", "localhost", &[Answer::Status(200)], "");
    case.gpferry(&["alarm", "test"]).expect(0);
    let ca = format!(", ca: {}", case.path("ca.pem").display());
    case.edit_inventory(&ca, "");
    case.gpferry(&["alarm", "test"])
        .expect(13)
        .says("its certificate or TLS is refused")
        .silent_about("s3cret-path");
    // The machine's own authorities, where this is one of them.
    let known = case.path("ca.pem").display().to_string();
    case.gpferry_with(&["alarm", "test"], &[("SSL_CERT_FILE", &known)]).expect(0);
    assert_eq!(hook.requests().len(), 2);
    let (case, hook) =
        hooked("alarm_hook_name", "localhost", "elsewhere.example", &[Answer::Status(200)], "");
    case.gpferry(&["alarm", "test"]).expect(13).says("its certificate or TLS is refused");
    assert_eq!(hook.requests().len(), 0);
}

#[test]
fn a_server_that_fails_is_asked_again_and_one_that_refuses_is_not() {
    let failing = [Answer::Status(500), Answer::Status(503), Answer::Status(200)];
    let (case, hook) = hooked("alarm_hook_500", "localhost", "localhost", &failing, "");
    case.gpferry(&["run"]).expect(3).silent_about("was not told");
    let bodies: Vec<_> =
        hook.requests().iter().map(|one| one.split_once("\r\n\r\n").unwrap().1.to_owned()).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies[0] == bodies[1] && bodies[1] == bodies[2], "{bodies:?}");
    for (answer, requests, said) in [
        (Answer::Status(400), 1, "answered 400"),
        (Answer::Status(500), 3, "answered 500 (tried 3 times)"),
        (Answer::Moved("https://127.0.0.1:1/x".into()), 1, "answered 302"),
    ] {
        let (case, hook) = hooked("alarm_hook_no", "localhost", "localhost", &[answer], "");
        case.gpferry(&["run"]).expect(3).says(said);
        assert_eq!(hook.requests().len(), requests, "{said}");
    }
}

#[test]
fn a_server_that_hangs_or_is_not_there_holds_nobody_up() {
    let more = ", timeout: 1s, retries: 10";
    let (case, _hook) = hooked("alarm_hook_hang", "localhost", "localhost", &[Answer::Nothing], more);
    let began = Instant::now();
    case.gpferry(&["alarm", "test"]).expect(13).says("did not answer in time");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    // One that takes the connection, and never says a word of TLS.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let old = _hook.url("localhost");
    case.edit_inventory(&old, &format!("https://localhost:{port}/x"));
    let began = Instant::now();
    case.gpferry(&["alarm", "test"]).expect(13).says("did not answer in time");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    drop(mute);
    case.gpferry(&["run"]).expect(3).says("sink w of alarms was not told").says("refused");
}
