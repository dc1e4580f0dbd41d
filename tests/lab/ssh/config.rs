//! What the SSH configuration means to gpferry, and what it refuses to guess.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use gpferry::remote::RemoteError;
use gpferry::remote::ssh::{HostText, Options, Pool};

use super::sshd::{Sshd, run};

fn host(text: &str) -> HostText {
    text.parse().unwrap()
}

#[test]
fn an_alias_is_resolved_through_include_and_patterns() {
    let sshd = Sshd::start();
    let included = sshd.at("included");
    fs::write(&included, format!("Host gp*-etl\n HostName 127.0.0.1\n Port {}\n", sshd.port)).unwrap();
    let config = sshd.at("main");
    let rest = format!(
        "Host gp4-* !gp4-x\n User {}\n IdentityFile %d/../{}\nHost *\n IdentityFile {}\n IdentitiesOnly yes\n \
         IdentityAgent none\n UserKnownHostsFile {}\n GlobalKnownHostsFile /dev/null\n",
        sshd.user,
        "nowhere/key",
        sshd.at("client").display(),
        sshd.at("known_hosts").display()
    );
    fs::write(&config, format!("Include {}\n{rest}", included.display())).unwrap();
    let pool = Pool::new(Options { config: Some(config), ..Options::default() });
    let mut remote = pool.get(&host("gp4-etl")).unwrap();
    assert_eq!(run(&mut remote, "id -un", b"").out.trim(), sshd.user);
}

#[test]
fn user_and_port_of_the_text_win_over_the_configuration() {
    let sshd = Sshd::start();
    let pool = sshd.pool(" Port 1\n User nobody-at-all\n");
    let text = format!("{}@lab:{}", sshd.user, sshd.port);
    let mut remote = pool.get(&host(&text)).unwrap();
    assert_eq!(run(&mut remote, "id -un", b"").out.trim(), sshd.user);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_its_name() {
    let sshd = Sshd::start();
    for (setting, key, value) in [
        (" ProxyJump bastion\n", "ProxyJump", "bastion"),
        (" ProxyCommand nc %h %p\n", "ProxyCommand", "nc"),
        (" CertificateFile /x/cert.pub\n", "CertificateFile", "/x/cert.pub"),
        (" RemoteCommand ls\n", "RemoteCommand", "ls"),
        (" BindAddress 127.0.0.2\n", "BindAddress", "127.0.0.2"),
        (" RevokedHostKeys /x\n", "RevokedHostKeys", "/x"),
        (" PreferredAuthentications password\n", "PreferredAuthentications", "password"),
        (" PubkeyAuthentication no\n", "PubkeyAuthentication", "false"),
    ] {
        let error = sshd.error(setting);
        let RemoteError::Config { key: named, value: shown, .. } = &error else {
            panic!("{setting}: {error}")
        };
        assert_eq!(named, key);
        assert!(shown.contains(value), "{error}");
        assert!(error.remedy().contains(key), "{}", error.remedy());
    }
}

#[test]
fn what_cannot_matter_is_let_pass() {
    let sshd = Sshd::start();
    let settings = " ServerAliveInterval 5\n ControlMaster auto\n ControlPath /x/%C\n ControlPersist 10\n \
                    ForwardAgent yes\n Compression yes\n LogLevel ERROR\n SendEnv LANG\n SetEnv A=b\n \
                    LocalForward 1 h:2\n GSSAPIAuthentication yes\n HashKnownHosts yes\n RekeyLimit 1G\n";
    assert_eq!(sshd.whoami(settings).unwrap(), sshd.user);
}

#[test]
fn algorithms_of_the_configuration_are_the_ones_that_are_used() {
    let sshd = Sshd::with(&["ed25519", "rsa"], "LogLevel DEBUG1");
    sshd.record("known_hosts", &["ed25519", "rsa"]);
    let settings = " Ciphers aes192-ctr\n MACs hmac-sha2-512\n KexAlgorithms ecdh-sha2-nistp384\n \
                    HostKeyAlgorithms rsa-sha2-256\n";
    assert_eq!(sshd.whoami(settings).unwrap(), sshd.user);
    let log = sshd.log();
    for part in ["aes192-ctr", "hmac-sha2-512", "ecdh-sha2-nistp384", "host key algorithm: rsa-sha2-256"] {
        let used = |line: &str| line.contains("kex: ") && line.contains(part);
        assert!(log.lines().any(used), "{part}: {log}");
    }
    let error = sshd.error(" KexAlgorithms sntrup761x25519-sha512@openssh.com\n");
    assert!(matches!(&error, RemoteError::Config { key, .. } if key == "KexAlgorithms"), "{error}");
}

#[test]
fn a_configuration_that_ssh_cannot_read_is_quoted() {
    let sshd = Sshd::start();
    let error = sshd.error(" NoSuchKeyword x\n");
    let RemoteError::ConfigUnreadable { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.to_lowercase().contains("nosuchkeyword"), "{reason}");
}

#[test]
fn without_ssh_a_configuration_is_an_error_and_not_left_out() {
    let sshd = Sshd::start();
    let options = Options { ssh: "/nonexistent/ssh".into(), ..sshd.options("") };
    let Err(error) = Pool::new(options).get(&host("lab")) else { panic!("it let us in") };
    assert!(matches!(error, RemoteError::SshMissing { .. }), "{error}");
}

#[test]
fn a_host_that_accepts_and_says_nothing_ends_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Until the other side hangs up, which it must.
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    });
    let sshd = Sshd::start();
    let begun = Instant::now();
    let Err(error) = sshd.pool(" ConnectTimeout 1\n").get(&host(&format!("lab:{port}"))) else {
        panic!("it let us in")
    };
    assert!(
        matches!(error, RemoteError::TimedOut { limit, .. } if limit == Duration::from_secs(1)),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(held.join().unwrap().starts_with(b"SSH-2.0-"));
}

#[test]
fn a_port_where_nobody_listens_is_refused_and_a_name_without_address_is_named() {
    let sshd = Sshd::start();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Err(error) = sshd.pool("").get(&host(&format!("lab:{port}"))) else { panic!("it let us in") };
    assert!(
        matches!(&error, RemoteError::Refused { address, .. } if *address == format!("127.0.0.1:{port}"))
    );
    let error = sshd.error(" HostName no-such-host.invalid\n");
    assert!(
        matches!(&error, RemoteError::NameNotResolved { name, .. } if name == "no-such-host.invalid"),
        "{error}"
    );
}

#[test]
fn a_server_that_hangs_up_at_once_is_no_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let sshd = Sshd::start();
    let Err(error) = sshd.pool("").get(&host(&format!("lab:{port}"))) else { panic!("it let us in") };
    assert!(matches!(error, RemoteError::Handshake { .. }), "{error:?}");
    held.join().unwrap();
}
