//! Reaching hosts, and what is on them.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{checks, found, nothing_is_left, one_fault, preflight, ready, ready_on};
use crate::support::{Case, lab, ran};

/// Preflight with an SSH configuration of its own: more lines before the lab's.
fn with_config(case: &Case, more: &str, known_hosts: Option<&str>) -> serde_json::Value {
    let mut config = fs::read_to_string(lab().get("LAB_SSH_CONFIG")).unwrap();
    if let Some(text) = known_hosts {
        fs::write(case.path("known_hosts"), text).unwrap();
        config =
            config.replace(lab().get("LAB_KNOWN_HOSTS"), &case.path("known_hosts").display().to_string());
    }
    fs::write(case.path("ssh_config"), format!("{more}\n{config}")).unwrap();
    let mut command = case.command(&["preflight", "--format", "json"]);
    ran(command.env("GPFERRY_SSH_CONFIG", case.path("ssh_config")).output().unwrap()).expect(13).json()
}

#[test]
fn a_host_without_psql_is_found() {
    let (case, _) = ready_on("nopsql", &["--without", "psql"]);
    one_fault(&case, "host.psql", "there is no psql on the PATH", "connection: { psql:");
}

#[test]
fn a_host_without_bash_is_found() {
    let (case, _) = ready_on("nobash", &["--without", "bash"]);
    one_fault(&case, "host.bash", "there is no bash", "install bash");
}

#[test]
fn an_unknown_host_key_leads_to_trust() {
    let case = ready("unknown_key");
    let failed = checks(&with_config(&case, "", Some("")), "fail");
    assert_eq!(failed.len(), 1, "{failed:#?}");
    found(&failed, "reach.hostkey", "is not known", "gpferry trust gp-a");
    nothing_is_left(&case);
}

#[test]
fn a_changed_host_key_leads_to_a_question() {
    let case = ready("changed_key");
    let known = fs::read_to_string(lab().get("LAB_KNOWN_HOSTS")).unwrap();
    let port = |which: &str| format!("[127.0.0.1]:{} ", lab().get(which));
    // Host b's keys stand in host a's place.
    let swapped: String = known
        .lines()
        .filter_map(|line| line.strip_prefix(&port("LAB_PORT_B")))
        .map(|key| format!("{}{key}\n", port("LAB_PORT_A")))
        .collect();
    let failed = checks(&with_config(&case, "", Some(&swapped)), "fail");
    found(&failed, "reach.hostkey", "CHANGED", "ssh-keygen -R");
}

#[test]
fn a_refused_port_and_a_wrong_user_are_found() {
    let case = ready("refused");
    case.edit_inventory("host: gp-a", "host: gpadmin@127.0.0.1:1");
    one_fault(&case, "reach.tcp", "refused", "sshd");
    case.edit_inventory("host: gpadmin@127.0.0.1:1", "host: nobody@gp-a");
    one_fault(&case, "reach.auth", "did not let nobody in", "authorized_keys");
    case.edit_inventory("host: nobody@gp-a", "host: nowhere.invalid");
    one_fault(&case, "reach.name", "cannot find an address", "getent hosts");
}

#[test]
fn an_address_that_never_answers_ends_after_its_timeout() {
    let case = ready("blackhole");
    // A listener whose queue is full: the kernel drops what comes more.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _fill: Vec<Socket> = (0..4)
        .map(|_| {
            let one = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            one.set_nonblocking(true).unwrap();
            drop(one.connect(&address));
            one
        })
        .collect();
    let port = address.as_socket().unwrap().port();
    case.edit_inventory("host: gp-a", &format!("host: gpadmin@127.0.0.1:{port}"));
    let begin = Instant::now();
    let failed = checks(&with_config(&case, "ConnectTimeout 2", None), "fail");
    found(&failed, "reach.tcp", "longer than 2 s", "firewall");
    assert!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
}

#[test]
fn a_host_that_accepts_and_says_nothing_ends_after_the_timeout_and_holds_nobody_up() {
    let case = ready("silent");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = fs::read_to_string(case.path("inventory.yml")).unwrap();
    let (start, end) = (text.find("  s:\n").unwrap(), text.find("jobs:\n").unwrap());
    let silent =
        text[start..end].replace("  s:\n", "  s2:\n").replace("gp-a", &format!("gpadmin@127.0.0.1:{port}"));
    fs::write(case.path("inventory.yml"), format!("{}{silent}{}", &text[..end], &text[end..])).unwrap();
    let begin = Instant::now();
    let json = with_config(&case, "ConnectTimeout 3", None);
    let took = begin.elapsed();
    let failed = checks(&json, "fail");
    assert_eq!(failed.len(), 1, "{failed:#?}");
    found(&failed, "reach.handshake", "the key exchange took longer than 3 s", "");
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(15), "it took {took:?}");
    // The other one was proven meanwhile.
    found(&checks(&json, "ok"), "mount.nonce", "read by the runner", "");
    nothing_is_left(&case);
}

#[test]
fn what_a_login_shell_prints_does_not_disturb_the_probe() {
    let (case, _) = ready_on("noisy", &[]);
    fs::write(
        super::home(&case, "x").join("gpadmin/.bashrc"),
        "echo Welcome; printf 'user\\tevil\\t0\\t0\\t0\\nhalf a line'; echo careful >&2\n",
    )
    .unwrap();
    let (ran, json) = preflight(&case, &[]);
    assert_eq!(checks(&json, "fail"), <[[String; 4]; 0]>::default());
    ran.expect(0);
}

#[test]
fn few_startups_are_a_warning_where_sshd_config_says_so() {
    // Each export session is a connection of its own, so what counts is how many may log in at once.
    let case = ready("startups");
    let (_, json) = preflight(&case, &["--only", "reach"]);
    found(&checks(&json, "ok"), "reach.sessions", "each a connection of its own", "");
}
