//! An sshd of its own for each test, on a free loopback port, with keys and configuration in a temporary
//! directory. Nothing of the machine's own SSH setup is read or changed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gpferry::remote::ssh::{HostText, Options, Pool};
use gpferry::remote::{Remote, RemoteError, Status};

pub(crate) struct Sshd {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) user: String,
    daemon: Child,
}

pub(crate) const HOST_KEYS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

impl Sshd {
    /// One that knows the three kinds of host keys and lets `client` in, an Ed25519 key that is made with it.
    pub(crate) fn start() -> Self {
        Self::with(&HOST_KEYS, "")
    }

    pub(crate) fn with(host_keys: &[&str], settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // What stands first wins in this file, too.
        let mut config = format!(
            "{settings}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n",
        );
        for kind in host_keys {
            let key = keygen(directory.path(), &format!("host_{kind}"), &["-t", kind]);
            config += &format!("HostKey {}\n", key.display());
        }
        let client = keygen(directory.path(), "client", &["-t", "ed25519"]);
        fs::copy(client.with_extension("pub"), at("authorized_keys")).unwrap();
        config += &format!("AuthorizedKeysFile {}\n", at("authorized_keys").display());
        // Where sshd insists on its directory for privilege separation, and only root may make it.
        drop(fs::create_dir_all("/run/sshd"));
        let (daemon, port) = launch(&at("sshd_config"), &config, &at("sshd.log"));
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap().trim().to_owned();
        let sshd = Self { directory, port, user, daemon };
        sshd.record("known_hosts", host_keys);
        sshd
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new key of the client, which the server does not know.
    pub(crate) fn key(&self, name: &str, arguments: &[&str]) -> PathBuf {
        keygen(self.directory.path(), name, arguments)
    }

    /// Lets exactly this key in.
    pub(crate) fn authorize(&self, key: &Path) {
        fs::copy(public_of(key), self.at("authorized_keys")).unwrap();
    }

    /// `ssh-ed25519 AAAA…` of one of the host's keys.
    pub(crate) fn host_key(&self, kind: &str) -> String {
        let text = fs::read_to_string(self.at(&format!("host_{kind}.pub"))).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Writes a known_hosts file with these keys of the host.
    pub(crate) fn record(&self, file: &str, kinds: &[&str]) {
        let line = |kind: &&str| format!("[127.0.0.1]:{} {}\n", self.port, self.host_key(kind));
        fs::write(self.at(file), kinds.iter().map(line).collect::<String>()).unwrap();
    }

    /// Settings of the client; what stands first wins, so `extra` comes before the defaults.
    pub(crate) fn options(&self, extra: &str) -> Options {
        let config = self.at(&format!("config.{}", fs::read_dir(self.directory.path()).unwrap().count()));
        let text = format!(
            "Host lab\n{extra}\nHost lab\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {}\n \
             IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {}\n GlobalKnownHostsFile /dev/null\n",
            self.port,
            self.user,
            self.at("client").display(),
            self.at("known_hosts").display()
        );
        fs::write(&config, text).unwrap();
        Options { config: Some(config), ask: Arc::new(|_| None), ..Options::default() }
    }

    pub(crate) fn pool(&self, extra: &str) -> Pool {
        Pool::new(self.options(extra))
    }

    /// Connects under these settings and says who it is there.
    pub(crate) fn whoami(&self, extra: &str) -> Result<String, RemoteError> {
        let mut remote = self.pool(extra).get(&lab())?;
        Ok(run(&mut remote, "id -un", b"").out.trim().into())
    }

    pub(crate) fn error(&self, extra: &str) -> RemoteError {
        match self.pool(extra).get(&lab()) {
            Ok(_) => panic!("it let us in with {extra:?}"),
            Err(error) => error,
        }
    }

    /// What sshd wrote about itself.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.at("sshd.log")).unwrap()
    }
}

impl Drop for Sshd {
    /// Ends the daemon and the processes it started for connections, each by its number.
    fn drop(&mut self) {
        for pid in children(self.daemon.id()) {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status());
        }
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

/// Starts sshd, and waits until it says that it listens. Somebody else may have taken the port meanwhile.
fn launch(file: &Path, config: &str, log: &Path) -> (Child, u16) {
    for _ in 0..10 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(file, format!("Port {port}\n{config}")).unwrap();
        let mut daemon = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(file)
            .stderr(File::create(log).unwrap())
            .spawn()
            .expect("sshd is installed (Debian: openssh-server)");
        let deadline = Instant::now() + Duration::from_secs(20);
        while daemon.try_wait().unwrap().is_none() && Instant::now() < deadline {
            if fs::read_to_string(log).unwrap().contains("Server listening on") {
                return (daemon, port);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(daemon.kill());
        drop(daemon.wait());
    }
    panic!("sshd did not start: {}", fs::read_to_string(log).unwrap());
}

pub(crate) fn keygen(directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = directory.join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", name, "-f"]).arg(&path).args(arguments);
    if !arguments.contains(&"-N") {
        command.args(["-N", ""]);
    }
    assert!(command.status().unwrap().success());
    path
}

pub(crate) fn public_of(key: &Path) -> PathBuf {
    key.with_extension("pub")
}

/// The processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let parent_of = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    processes.filter_map(|name| name.parse().ok()).filter(|pid| parent_of(pid) == Some(parent)).collect()
}

/// The host of [`Sshd::options`].
pub(crate) fn lab() -> HostText {
    "lab".parse().unwrap()
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) status: Status,
}

/// Runs a command to its end.
pub(crate) fn run(remote: &mut impl Remote, command: &str, stdin: &[u8]) -> Said {
    let mut channel = remote.exec(command).unwrap();
    channel.send(stdin);
    channel.close_stdin();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let heard = channel.poll(Duration::from_secs(1)).unwrap();
        out.extend(heard.stdout);
        err.extend(heard.stderr);
        if heard.closed {
            break;
        }
        assert!(Instant::now() < deadline, "{command}: {} and {} bytes so far", out.len(), err.len());
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { out: text(out), err: text(err), status: channel.end(Duration::from_secs(10)) }
}

/// An agent of its own, with these keys in this order.
pub(crate) struct Agent {
    socket: PathBuf,
    daemon: Child,
}

impl Agent {
    pub(crate) fn with(directory: &Path, keys: &[PathBuf]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let socket = directory.join(format!("agent{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut daemon = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It prints its address once it listens.
        let mut line = String::new();
        BufReader::new(daemon.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        for key in keys {
            let mut add = Command::new("ssh-add");
            add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null());
            assert!(add.status().unwrap().success(), "{}", key.display());
        }
        Self { socket, daemon }
    }

    /// The setting that uses it.
    pub(crate) fn setting(&self) -> String {
        format!(" IdentityAgent {}\n", self.socket.display())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}
