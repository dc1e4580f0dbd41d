//! All at once: twenty hosts take hardly longer than the slowest of them alone.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::{checks, preflight, ready};
use crate::support::{lab, ran};

/// How much later every byte arrives, each way, in milliseconds.
static DELAY: AtomicU64 = AtomicU64::new(100);

/// One direction of a connection: what is read now is written [`DELAY`] later.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let (tell, heard) = channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (at, bytes) in heard {
            let delay = Duration::from_millis(DELAY.load(Ordering::Relaxed));
            std::thread::sleep((at + delay).saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        drop(to.shutdown(Shutdown::Write));
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n) = from.read(&mut buffer) {
            if n == 0 || tell.send((Instant::now(), buffer[..n].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// Stands in front of a port, on an address of its own, and lives as long as the tests.
fn slow(address: &str, port: u16) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            pass(client.try_clone().unwrap(), server.try_clone().unwrap());
            pass(server, client);
        }
    });
    own
}

#[test]
#[expect(clippy::print_stderr, reason = "the ratio is worth a look also where it is good")]
fn twenty_hosts_take_at_most_half_as_long_again_as_the_slowest_alone() {
    let case = ready("twenty");
    let lab = lab();
    let port: u16 = lab.get("LAB_PORT_A").parse().unwrap();
    let known = fs::read_to_string(lab.get("LAB_KNOWN_HOSTS")).unwrap();
    let keys: Vec<&str> =
        known.lines().filter_map(|line| line.strip_prefix(&format!("[127.0.0.1]:{port} "))).collect();
    let mut config = fs::read_to_string(lab.get("LAB_SSH_CONFIG")).unwrap();
    config = config.replace(lab.get("LAB_KNOWN_HOSTS"), &case.path("known_hosts").display().to_string());
    let text = fs::read_to_string(case.path("inventory.yml")).unwrap();
    let (start, end) = (text.find("  s:\n").unwrap(), text.find("jobs:\n").unwrap());
    let (mut sources, mut recorded) = (String::new(), String::new());
    for n in 0..20 {
        let address = format!("127.0.0.{}", n + 2);
        let own = slow(&address, port);
        recorded.extend(keys.iter().map(|key| format!("[{address}]:{own} {key}\n")));
        config.push_str(&format!("Host n{n}\n    HostName {address}\n    Port {own}\n    User gpadmin\n"));
        let name = if n == 0 { "  s:\n".to_owned() } else { format!("  s{n}:\n") };
        sources.push_str(
            &text[start..end].replace("  s:\n", &name).replace("host: gp-a", &format!("host: n{n}")),
        );
    }
    fs::write(case.path("known_hosts"), recorded).unwrap();
    fs::write(case.path("ssh_config"), config).unwrap();
    fs::write(case.path("inventory.yml"), format!("{}{sources}{}", &text[..start], &text[end..])).unwrap();
    let timed = |more: &[&str]| {
        let begin = Instant::now();
        let mut command = case.command(&[&["preflight"], more].concat());
        let ran = ran(command.env("GPFERRY_SSH_CONFIG", case.path("ssh_config")).output().unwrap()).expect(0);
        (begin.elapsed(), ran)
    };
    // Twenty ends of SSH on this machine are work for its processors, and so are the tests beside this one; a
    // longer line leaves the question and takes their share away. One host after another would be twenty times
    // as long on any line.
    let good = [100, 100, 200, 400].into_iter().any(|delay| {
        DELAY.store(delay, Ordering::Relaxed);
        let alone = [0, 7, 19].map(|n| timed(&["--host", &format!("n{n}")]).0).into_iter().max().unwrap();
        let (all, ran) = timed(&[]);
        ran.says("21 hosts: 0 to mend");
        let ratio = all.as_secs_f64() / alone.as_secs_f64();
        eprintln!("{delay} ms each way: alone {alone:.2?}, twenty {all:.2?}, ratio {ratio:.2}");
        ratio <= 1.5
    });
    assert!(good, "twenty hosts take too long against the slowest of three");
}

#[test]
fn hosts_that_cannot_be_reached_do_not_hide_the_others() {
    let case = ready("mixed");
    let text = fs::read_to_string(case.path("inventory.yml")).unwrap();
    let (start, end) = (text.find("  s:\n").unwrap(), text.find("jobs:\n").unwrap());
    let dead = text[start..end].replace("  s:\n", "  s2:\n").replace("gp-a", "gpadmin@127.0.0.1:1");
    fs::write(case.path("inventory.yml"), format!("{}{dead}{}", &text[..end], &text[end..])).unwrap();
    let (ran, json) = preflight(&case, &[]);
    ran.expect(13);
    assert_eq!(checks(&json, "fail").len(), 1, "{json:#}");
    assert!(checks(&json, "ok").iter().any(|check| check[0] == "mount.nonce"), "{json:#}");
}
