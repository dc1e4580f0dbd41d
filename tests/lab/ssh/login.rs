//! Being let in: agent, key files, passphrases, and refusals that say what was tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpferry::remote::ssh::{Options, Pool};
use gpferry::remote::{KeyProblem, RemoteError};

use super::sshd::{Agent, Sshd, lab, public_of};

const KINDS: [(&str, &[&str]); 5] = [
    ("ed25519", &["-t", "ed25519"]),
    ("ecdsa", &["-t", "ecdsa", "-b", "384"]),
    ("rsa", &["-t", "rsa", "-b", "2048"]),
    ("rsa-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
    ("ecdsa-pem", &["-t", "ecdsa", "-m", "PEM"]),
];

/// Settings that replace the fixture's key. IdentityFile adds up, so its own is taken out of authorized_keys.
fn file(path: &std::path::Path) -> String {
    format!(" IdentityFile {}\n", path.display())
}

#[test]
fn a_key_file_of_every_kind_lets_in() {
    let sshd = Sshd::start();
    for (name, arguments) in KINDS {
        let key = sshd.key(name, arguments);
        sshd.authorize(&key);
        assert_eq!(sshd.whoami(&file(&key)).unwrap(), sshd.user, "{name}");
        assert!(sshd.log().contains("Accepted publickey"), "{}", sshd.log());
    }
    // sshd 9 takes RSA with SHA-2 only, and says which key it took.
    assert!(
        sshd.log().contains("Accepted publickey for") && sshd.log().contains("RSA SHA256:"),
        "{}",
        sshd.log()
    );
}

#[test]
fn a_key_of_the_agent_lets_in_for_every_kind() {
    let sshd = Sshd::start();
    for (name, arguments) in KINDS {
        let key = sshd.key(name, arguments);
        sshd.authorize(&key);
        let agent = Agent::with(sshd.directory.path(), std::slice::from_ref(&key));
        // The file itself is gone: only the agent can sign.
        let public = public_of(&key);
        std::fs::remove_file(&key).unwrap();
        let settings = agent.setting() + &file(&public);
        assert_eq!(sshd.whoami(&settings).unwrap(), sshd.user, "{name}");
    }
}

#[test]
fn the_second_identity_of_an_agent_is_tried_too() {
    let sshd = Sshd::start();
    let (wrong, right) = (sshd.key("wrong", &["-t", "ed25519"]), sshd.key("right", &["-t", "rsa"]));
    sshd.authorize(&right);
    let agent = Agent::with(sshd.directory.path(), &[wrong, right]);
    let settings = agent.setting() + " IdentitiesOnly no\n IdentityFile /nonexistent\n";
    assert_eq!(sshd.whoami(&settings).unwrap(), sshd.user);
}

#[test]
fn the_key_that_is_named_comes_before_the_others_of_a_full_agent() {
    let sshd = Sshd::start();
    let mut keys: Vec<_> = (0..8).map(|n| sshd.key(&format!("wrong{n}"), &["-t", "ed25519"])).collect();
    let right = sshd.key("right", &["-t", "ed25519"]);
    sshd.authorize(&right);
    keys.push(right.clone());
    let agent = Agent::with(sshd.directory.path(), &keys);
    // Eight keys before it are more than MaxAuthTries lets pass.
    let named = agent.setting() + &file(&public_of(&right)) + " IdentitiesOnly no\n";
    assert_eq!(sshd.whoami(&named).unwrap(), sshd.user);
    assert_eq!(sshd.whoami(&(agent.setting() + &file(&public_of(&right)))).unwrap(), sshd.user);

    let error = sshd.error(&(agent.setting() + " IdentitiesOnly no\n IdentityFile none\n"));
    let RemoteError::AuthenticationFailed { tried, .. } = &error else { panic!("{error}") };
    assert!(tried.last().unwrap().contains("MaxAuthTries"), "{error}");
}

#[test]
fn a_refused_login_is_final_and_lists_what_was_tried() {
    let sshd = Sshd::start();
    let (one, two) = (sshd.key("one", &["-t", "ed25519"]), sshd.key("two", &["-t", "rsa"]));
    std::fs::write(sshd.at("authorized_keys"), "").unwrap();
    let agent = Agent::with(sshd.directory.path(), std::slice::from_ref(&two));
    let settings = agent.setting() + &file(&one) + &file(&two) + " IdentityFile /absent/key\n";
    let error = sshd.error(&settings);
    let RemoteError::AuthenticationFailed { tried, methods, user, .. } = &error else { panic!("{error}") };
    assert_eq!((methods.as_str(), user), ("publickey", &sshd.user));
    let tried = tried.join("\n");
    for part in ["ssh-rsa SHA256:", "of the agent", one.to_str().unwrap(), "/absent/key: No such file"] {
        assert!(tried.contains(part), "{part}: {tried}");
    }
    // The agent's key was refused already; its file is not tried again.
    assert!(!tried.contains(&format!("file {}", two.display())), "{tried}");
    assert!(!error.can_retry());
    assert!(error.remedy().contains("authorized_keys"), "{}", error.remedy());
}

#[test]
fn an_agent_that_is_gone_is_named_and_does_not_stop_the_key_files() {
    let sshd = Sshd::start();
    assert_eq!(sshd.whoami(" IdentityAgent /nonexistent/agent\n").unwrap(), sshd.user);
    std::fs::write(sshd.at("authorized_keys"), "").unwrap();
    let error = sshd.error(" IdentityAgent /nonexistent/agent\n");
    assert!(error.to_string().contains("the agent at /nonexistent/agent"), "{error}");
}

#[test]
fn a_passphrase_without_a_terminal_is_called_what_it_is() {
    let sshd = Sshd::start();
    for (name, arguments) in KINDS {
        let key = sshd.key(name, &[arguments, &["-N", "a secret"]].concat());
        sshd.authorize(&key);
        let error = sshd.error(&file(&key));
        let RemoteError::KeyFile { path, problem, .. } = &error else { panic!("{name}: {error}") };
        assert_eq!((path, *problem), (&key, KeyProblem::PassphraseNeeded), "{name}");
        assert!(error.remedy().contains("ssh-add"), "{}", error.remedy());
    }
}

#[test]
fn a_passphrase_is_asked_once_and_a_wrong_one_is_called_wrong() {
    let sshd = Sshd::start();
    for (name, arguments) in KINDS {
        let key = sshd.key(name, &[arguments, &["-N", "a secret"]].concat());
        sshd.authorize(&key);
        let asked = Arc::new(AtomicUsize::new(0));
        let pool = |answer: &'static str| {
            let asked = Arc::clone(&asked);
            let ask = Arc::new(move |_: &std::path::Path| {
                asked.fetch_add(1, Ordering::SeqCst);
                Some(answer.to_owned())
            });
            Pool::new(Options { ask, ..sshd.options(&file(&key)) })
        };
        let right = pool("a secret");
        let held = (right.get(&lab()).unwrap(), right.get(&lab()).unwrap());
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{name}");
        drop(held);
        for wrong in ["a guess", ""] {
            let Err(error) = pool(wrong).get(&lab()) else { panic!("{name}: {wrong:?} let us in") };
            let problem = matches!(error, RemoteError::KeyFile { problem: KeyProblem::WrongPassphrase, .. });
            assert!(problem, "{name}: {error}");
        }
    }
}

#[test]
fn a_file_that_is_no_key_is_named() {
    let sshd = Sshd::start();
    std::fs::write(sshd.at("authorized_keys"), "").unwrap();
    let key = sshd.at("odd");
    std::fs::write(&key, "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n").unwrap();
    let error = sshd.error(&file(&key));
    let RemoteError::KeyFile { path, problem: KeyProblem::Unsupported, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(path, &key);
}

#[test]
fn a_server_that_takes_passwords_only_is_named_with_what_it_takes() {
    let sshd = Sshd::with(&["ed25519"], "PubkeyAuthentication no\nPasswordAuthentication yes");
    let error = sshd.error("");
    let RemoteError::AuthenticationFailed { methods, tried, .. } = &error else { panic!("{error}") };
    assert_eq!((methods.as_str(), tried.len()), ("password", 0), "{error}");
}
