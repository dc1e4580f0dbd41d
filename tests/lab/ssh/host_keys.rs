//! Is it the host that it says it is, and how `gpferry trust` records it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use gpferry::remote::RemoteError;
use gpferry::remote::ssh::known_hosts::Verdict;
use gpferry::remote::ssh::{HostText, Options, trust};

use super::sshd::{HOST_KEYS, Sshd, keygen, lab};

#[test]
fn an_unknown_host_key_is_refused_with_its_fingerprint() {
    let sshd = Sshd::start();
    fs::write(sshd.at("known_hosts"), "").unwrap();
    let error = sshd.error("");
    let RemoteError::HostKeyUnknown(problem) = &error else { panic!("{error}") };
    let listed = Command::new("ssh-keygen").arg("-lf").arg(sshd.at("host_ed25519.pub")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&problem.fingerprint), "{listed} {}", problem.fingerprint);
    assert_eq!((problem.key_type.as_str(), problem.port), ("ssh-ed25519", sshd.port));
    assert!(error.remedy().contains("gpferry trust lab"), "{}", error.remedy());
    // Nobody was told who we are.
    assert!(!sshd.log().contains("Accepted") && !sshd.log().contains("Failed"), "{}", sshd.log());
}

#[test]
fn strict_host_key_checking_off_does_not_turn_it_off() {
    let sshd = Sshd::start();
    fs::write(sshd.at("known_hosts"), "").unwrap();
    let error = sshd.error(" StrictHostKeyChecking no\n");
    assert!(matches!(error, RemoteError::HostKeyUnknown(_)), "{error}");
    assert_eq!(fs::read_to_string(sshd.at("known_hosts")).unwrap(), "");
}

#[test]
fn a_changed_host_key_is_another_error_than_an_unknown_one() {
    let sshd = Sshd::start();
    let other = keygen(sshd.directory.path(), "other", &["-t", "ed25519"]);
    let other = fs::read_to_string(other.with_extension("pub")).unwrap();
    fs::write(sshd.at("known_hosts"), format!("# a comment\n[127.0.0.1]:{} {other}", sshd.port)).unwrap();
    let error = sshd.error("");
    let RemoteError::HostKeyChanged(problem) = &error else { panic!("{error}") };
    assert_eq!(problem.recorded, Some((sshd.at("known_hosts"), 2)));
    assert!(!error.can_retry());
}

#[test]
fn a_revoked_host_key_is_refused_even_where_it_is_recorded() {
    let sshd = Sshd::start();
    let mut text = fs::read_to_string(sshd.at("known_hosts")).unwrap();
    text += &format!("@revoked * {}\n", sshd.host_key("ed25519"));
    fs::write(sshd.at("known_hosts"), text).unwrap();
    let error = sshd.error("");
    assert!(matches!(error, RemoteError::HostKeyRevoked(_)), "{error}");
}

#[test]
fn hashed_entries_and_bad_lines_are_lived_with() {
    let sshd = Sshd::start();
    let hashed = Command::new("ssh-keygen").arg("-H").arg("-f").arg(sshd.at("known_hosts")).output().unwrap();
    assert!(hashed.status.success());
    let text = fs::read_to_string(sshd.at("known_hosts")).unwrap();
    assert!(text.starts_with("|1|") && !text.contains("127.0.0.1"), "{text}");
    fs::write(sshd.at("known_hosts"), format!("this is no entry\n{text}")).unwrap();
    assert_eq!(sshd.whoami("").unwrap(), sshd.user);
}

#[test]
fn a_host_that_is_recorded_by_one_key_only_is_asked_for_that() {
    let sshd = Sshd::start();
    for kind in HOST_KEYS {
        sshd.record("known_hosts", &[kind]);
        assert_eq!(sshd.whoami("").unwrap(), sshd.user, "{kind}");
    }
}

#[test]
fn a_host_that_no_longer_has_the_recorded_type_is_unknown_and_not_changed() {
    let sshd = Sshd::with(&["ed25519"], "");
    let rsa = keygen(sshd.directory.path(), "host_rsa", &["-t", "rsa"]);
    assert!(rsa.exists());
    sshd.record("known_hosts", &["rsa"]);
    let error = sshd.error("");
    let RemoteError::HostKeyUnknown(problem) = &error else { panic!("{error}") };
    assert_eq!(problem.other_types, ["ssh-rsa"]);
}

#[test]
fn a_host_key_alias_names_the_entry() {
    let sshd = Sshd::start();
    fs::write(sshd.at("known_hosts"), format!("gp4 {}\n", sshd.host_key("ed25519"))).unwrap();
    assert_eq!(sshd.whoami(" HostKeyAlias gp4\n").unwrap(), sshd.user);
    assert!(matches!(sshd.error(""), RemoteError::HostKeyUnknown(_)));
}

#[test]
fn an_rsa_host_key_below_the_required_size_is_refused() {
    let sshd = Sshd::start();
    sshd.record("known_hosts", &["rsa"]);
    let error = sshd.error(" RequiredRSASize 8192\n");
    assert!(error.to_string().contains("8192"), "{error}");
}

/// Settings that record into a directory that is not there yet.
fn fresh(sshd: &Sshd) -> Options {
    sshd.options(&format!(" UserKnownHostsFile {}\n", sshd.at("home/.ssh/known_hosts").display()))
}

#[test]
fn trust_shows_every_key_records_it_and_then_connecting_works() {
    let sshd = Sshd::start();
    let options = fresh(&sshd);
    let offer = trust::offered_keys(&options, &lab()).unwrap();
    let kinds: Vec<&str> = offer.keys.iter().map(|key| key.kind.as_str()).collect();
    assert_eq!(kinds, ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]);
    for (key, kind) in offer.keys.iter().zip(HOST_KEYS) {
        assert_eq!(format!("{} {}", key.kind, key.base64), sshd.host_key(kind));
    }
    assert!(!sshd.at("home").exists(), "asking has recorded something");

    assert_eq!(offer.record(|_| true).unwrap().len(), 3);
    let mode = |name: &str| fs::metadata(sshd.at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("home/.ssh"), mode("home/.ssh/known_hosts")), (0o700, 0o600));
    let text = fs::read_to_string(sshd.at("home/.ssh/known_hosts")).unwrap();
    assert!(text.starts_with(&format!("[127.0.0.1]:{} ssh-ed25519 ", sshd.port)), "{text}");
    gpferry::remote::ssh::Pool::new(options.clone()).get(&lab()).unwrap();

    let again = trust::offered_keys(&options, &lab()).unwrap();
    assert!(again.keys.iter().all(|key| key.verdict == Verdict::Known), "{again:?}");
    assert!(again.record(|_| true).unwrap().is_empty());
    assert_eq!(fs::read_to_string(sshd.at("home/.ssh/known_hosts")).unwrap(), text);
}

#[test]
fn trust_ends_an_unfinished_last_line_before_it_appends() {
    let sshd = Sshd::with(&["ed25519"], "");
    fs::write(sshd.at("known_hosts"), "gp9 ssh-ed25519 AAAA").unwrap();
    trust::offered_keys(&sshd.options(""), &lab()).unwrap().record(|_| true).unwrap();
    let text = fs::read_to_string(sshd.at("known_hosts")).unwrap();
    let expected = format!("gp9 ssh-ed25519 AAAA\n[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key("ed25519"));
    assert_eq!(text, expected);
}

#[test]
fn trust_never_replaces_a_key() {
    let sshd = Sshd::start();
    let other = keygen(sshd.directory.path(), "other", &["-t", "rsa"]);
    let other = fs::read_to_string(other.with_extension("pub")).unwrap();
    let text = format!("[127.0.0.1]:{} {other}", sshd.port);
    fs::write(sshd.at("known_hosts"), &text).unwrap();
    let error = trust::offered_keys(&sshd.options(""), &lab()).unwrap().record(|_| true).unwrap_err();
    assert!(matches!(error, RemoteError::HostKeyChanged(_)), "{error}");
    assert_eq!(fs::read_to_string(sshd.at("known_hosts")).unwrap(), text);
}

#[test]
fn trust_of_a_host_that_refuses_says_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host: HostText = format!("u@127.0.0.1:{port}").parse().unwrap();
    let options = Options { config: Some("/dev/null".into()), ..Options::default() };
    let error = trust::offered_keys(&options, &host).unwrap_err();
    assert!(matches!(error, RemoteError::Refused { .. }), "{error}");
}
