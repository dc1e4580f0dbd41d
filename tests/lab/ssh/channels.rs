//! Commands: their streams, their endings, and the sessions they run on.

use std::process::Command;
use std::time::{Duration, Instant};

use gpferry::remote::{Cause, Channel, Ending, Remote, RemoteError, Status};

use super::sshd::{Sshd, lab, run};

/// Signals a process that this test has started.
fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success(), "{signal} {pid}");
}

/// The first line of stdout.
fn first_line(channel: &mut dyn Channel) -> String {
    let mut out = Vec::new();
    while !out.contains(&b'\n') {
        out.extend(channel.poll(Duration::from_secs(10)).unwrap().stdout);
    }
    String::from_utf8(out).unwrap().trim().to_owned()
}

#[test]
fn exit_codes_arrive_and_are_understood() {
    let sshd = Sshd::start();
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    for (command, ending) in [
        ("true", Ending::Success),
        ("cat /nonexistent", Ending::General(Cause::NoSuchFile)),
        ("exit 2", Ending::Misuse),
        ("exit 99", Ending::Script(99)),
        ("/etc/passwd", Ending::NotExecutable),
        ("no-such-command-here", Ending::NotFound),
        ("exit 128", Ending::InvalidExit),
        ("sh -c 'kill -INT $$'; exit $?", Ending::Signalled { number: 2, name: "SIGINT" }),
        ("sh -c 'kill -KILL $$'; exit $?", Ending::Signalled { number: 9, name: "SIGKILL" }),
        ("exit 255", Ending::OutOfRange(255)),
        ("kill -TERM $$", Ending::ServerSignal { name: "TERM".into() }),
    ] {
        let said = run(&mut remote, command, b"");
        assert_eq!(Ending::of(&said.status, &said.err), ending, "{command}: {said:?}");
    }
}

#[test]
fn twenty_megabytes_on_both_streams_at_once_block_neither() {
    let sshd = Sshd::start();
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    let said = run(&mut remote, "head -c 20000000 /dev/zero >&2 & head -c 20000000 /dev/zero; wait", b"");
    assert_eq!((said.out.len(), said.err.len(), said.status), (20_000_000, 20_000_000, Status::Exited(0)));
    let said = run(&mut remote, "head -c 20000000 /dev/zero >&2; echo done", b"");
    assert_eq!((said.out.as_str(), said.err.len(), said.status), ("done\n", 20_000_000, Status::Exited(0)));
}

#[test]
fn what_goes_in_comes_out_however_much_it_is() {
    let sshd = Sshd::start();
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    let bytes: Vec<u8> = (0..8_000_000u32).map(|n| b'a' + u8::try_from(n % 23).unwrap()).collect();
    let said = run(&mut remote, "tee /dev/stderr", &bytes);
    assert!(
        said.out.as_bytes() == bytes && said.err.as_bytes() == bytes,
        "{} {}",
        said.out.len(),
        said.err.len()
    );
    assert_eq!(said.status, Status::Exited(0));
    // A command that does not read its stdin is no error.
    assert_eq!(run(&mut remote, "exit 7", &bytes).status, Status::Exited(7));
}

#[test]
fn a_status_that_comes_after_the_streams_closed_is_waited_for() {
    let sshd = Sshd::start();
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    assert_eq!(run(&mut remote, "exec >&- 2>&-; sleep 0.5; exit 7", b"").status, Status::Exited(7));
}

#[test]
fn poll_comes_back_after_its_time_and_with_what_it_heard() {
    let sshd = Sshd::start();
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    let mut channel = remote.exec("read x; echo \"$x\"; read x; exit 5").unwrap();
    let begun = Instant::now();
    assert_eq!(channel.poll(Duration::from_millis(300)).unwrap(), Default::default());
    assert!((300..10_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    channel.send(b"a word\n");
    assert_eq!(first_line(channel.as_mut()), "a word");
    channel.send(b"\n");
    while !channel.poll(Duration::from_secs(5)).unwrap().closed {}
    assert_eq!(channel.end(Duration::from_secs(5)), Status::Exited(5));
}

#[test]
fn a_killed_sshd_is_a_lost_command_and_never_a_success() {
    let sshd = Sshd::start();
    let pool = sshd.pool("");
    let mut remote = pool.get(&lab()).unwrap();
    let mut channel = remote.exec("echo $PPID; sleep 60; echo done").unwrap();
    let server = first_line(channel.as_mut());
    kill("-KILL", &server);
    let begun = Instant::now();
    let error = loop {
        match channel.poll(Duration::from_secs(1)) {
            Ok(heard) => assert!(!heard.closed && begun.elapsed() < Duration::from_secs(30), "{heard:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, RemoteError::Lost { .. }), "{error}");
    assert!(error.can_retry());
    assert_eq!(channel.end(Duration::from_secs(2)), Status::Unknown);
    drop(remote);
    // The broken session did not go back.
    let mut remote = pool.get(&lab()).unwrap();
    assert_ne!(run(&mut remote, "echo $PPID", b"").out.trim(), server);
}

#[test]
fn an_ending_that_is_not_waited_for_is_unknown() {
    let sshd = Sshd::start();
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    let mut channel = remote.exec("exec >&- 2>&-; sleep 20").unwrap();
    while !channel.poll(Duration::from_secs(5)).unwrap().closed {}
    assert_eq!(channel.end(Duration::from_millis(200)), Status::Unknown);
}

#[test]
fn letting_go_of_a_stopped_server_does_not_hang() {
    let sshd = Sshd::start();
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    let mut channel = remote.exec("echo $PPID; cat").unwrap();
    let server = first_line(channel.as_mut());
    kill("-STOP", &server);
    channel.send(&vec![b'x'; 10_000_000]);
    channel.poll(Duration::from_millis(200)).unwrap();
    let begun = Instant::now();
    drop(channel);
    drop(remote);
    let took = begun.elapsed();
    kill("-CONT", &server);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn starting_a_command_on_a_stopped_server_ends_after_the_timeout() {
    let sshd = Sshd::start();
    let options = gpferry::remote::ssh::Options { start_timeout: Duration::from_secs(1), ..sshd.options("") };
    let mut remote = gpferry::remote::ssh::Pool::new(options).get(&lab()).unwrap();
    let server = run(&mut remote, "echo $PPID", b"").out.trim().to_owned();
    kill("-STOP", &server);
    let begun = Instant::now();
    let error = remote.exec("true").err().unwrap();
    let took = begun.elapsed();
    kill("-CONT", &server);
    assert!(matches!(error, RemoteError::TimedOut { .. }), "{error}");
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn a_command_that_is_let_go_of_loses_its_stdin() {
    let sshd = Sshd::start();
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    let mark = sshd.at("ended");
    let mut channel = remote.exec(&format!("echo begun; cat; touch {}", mark.display())).unwrap();
    assert_eq!(first_line(channel.as_mut()), "begun");
    drop(channel);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !mark.exists() {
        assert!(Instant::now() < deadline, "cat still waits for its stdin");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_session_on_which_a_command_was_left_is_not_used_again() {
    let sshd = Sshd::start();
    let pool = sshd.pool("");
    let mut remote = pool.get(&lab()).unwrap();
    let mut channel = remote.exec("echo $PPID; cat").unwrap();
    let server = first_line(channel.as_mut());
    drop(channel);
    // Neither by the one who left it nor by the next.
    assert_ne!(run(&mut remote, "echo $PPID", b"").out.trim(), server);
    drop(remote);
    assert_ne!(run(&mut pool.get(&lab()).unwrap(), "echo $PPID", b"").out.trim(), server);
}

#[test]
fn a_server_that_opens_no_channel_is_called_that() {
    let sshd = Sshd::with(&["ed25519"], "MaxSessions 0");
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    let error = remote.exec("true").err().unwrap();
    assert!(matches!(error, RemoteError::ChannelRefused { .. }), "{error}");
    assert!(error.remedy().contains("MaxSessions") && error.can_retry(), "{}", error.remedy());
}

#[test]
fn a_session_serves_one_command_after_the_other() {
    let sshd = Sshd::with(&["ed25519"], "MaxSessions 1");
    let pool = sshd.pool("");
    let server = |remote: &mut gpferry::remote::ssh::Pooled| run(remote, "echo $PPID", b"").out;
    let mut one = pool.get(&lab()).unwrap();
    let first = server(&mut one);
    for _ in 0..20 {
        assert_eq!(server(&mut one), first);
    }
    let mut two = pool.get(&lab()).unwrap();
    assert_ne!(server(&mut two), first);
    drop(one);
    for _ in 0..3 {
        assert_eq!(server(&mut pool.get(&lab()).unwrap()), first);
    }
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 2, "{}", sshd.log());
}

#[test]
fn an_idle_session_whose_server_went_away_is_replaced() {
    let sshd = Sshd::start();
    let pool = sshd.pool("");
    let mut remote = pool.get(&lab()).unwrap();
    // Let go of at once, asked for later, and asked for before the server is gone.
    for signal in ["-KILL", "-TERM"] {
        let server = run(&mut remote, "echo $PPID", b"").out.trim().to_owned();
        drop(remote);
        remote = pool.get(&lab()).unwrap();
        kill(signal, &server);
        std::thread::sleep(Duration::from_millis(100));
        let next = run(&mut remote, "echo $PPID", b"").out.trim().to_owned();
        assert_ne!(next, server);
        drop(remote);
        kill(signal, &next);
        std::thread::sleep(Duration::from_millis(100));
        remote = pool.get(&lab()).unwrap();
        assert_ne!(run(&mut remote, "echo $PPID", b"").out.trim(), next);
    }
}

#[test]
fn many_sessions_at_once_are_all_let_in() {
    let sshd = Sshd::with(&["ed25519"], "MaxStartups 5");
    let pool = sshd.pool("");
    let failed: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let mut remote = pool.get(&lab())?;
                    assert_eq!(run(&mut remote, "echo hello", b"").out, "hello\n");
                    std::thread::sleep(Duration::from_millis(500));
                    Ok::<_, RemoteError>(())
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().err()).map(|e| e.to_string()).collect()
    });
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn what_a_bashrc_or_a_banner_says_does_not_hide_the_rest() {
    let sshd = Sshd::with(&["ed25519"], "Banner /etc/passwd");
    let mut remote = sshd.pool("").get(&lab()).unwrap();
    let said = run(&mut remote, "echo hello", b"");
    assert!(said.out.ends_with("hello\n"), "{said:?}");
}
