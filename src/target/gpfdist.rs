//! The gpfdist that segments read the mount through: one that runs already, or one that this run starts when it first
//! needs it, and that ends with it.
//!
//! A thread talks with `scripts/gpfdist.sh` on gpfdist's host for as long as the run lasts. The script ends gpfdist when
//! that thread says so, and when it hears nothing more of it; so no death of gpferry leaves one behind. Where gpfdist
//! itself dies, the unit that needed it fails with the segments' words (08006), and its next try starts another.

use std::cell::Cell;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::program::ProgramError;
use crate::inventory::{self, Inventory, ProgramRule};
use crate::remote::Remote;
use crate::remote::local::Local;
use crate::remote::ssh::Pool;
use crate::source::{Conversation, Reply, Request, Script, SourceError};
use crate::stop::Stop;

/// What completes "while it ran …".
const WHAT: &str = "gpfdist";
/// How long one may serve. Whoever needs it for longer starts another.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often the thread looks whether it is to end it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the end of one is waited for.
const GRACE: Duration = Duration::from_secs(10);
/// What stands in a path of a URL as it is: gpfdist decodes the rest, once.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// What to try where a segment could not read from gpfdist (08006), by its words.
pub(super) fn advice(message: &str) -> Option<&'static str> {
    let says = |words: &str| message.contains(words);
    if says(TOO_LONG) {
        Some(
            "raise target.gpfdist.max_line (at most 256MiB), or the -m of the gpfdist that is given; or load this table by \
             `loader: copy`",
        )
    } else if says("response code 404 from gpfdist") {
        Some(
            "gpfdist does not see the file: see that target.gpfdist.mount is the mount on its host, or that the gpfdist \
             that is given serves the subdirectory that gpferry writes to",
        )
    } else if says("gpfdist error") {
        Some(
            "see that the user that runs gpfdist may read the file, and look for errors of the mount on its host",
        )
    } else if says("gpfdist") {
        Some(
            "every segment's host must reach gpfdist: name its host as they know it in target.gpfdist.address, and open \
             target.gpfdist.ports in the firewall",
        )
    } else {
        None
    }
}

/// What it says of a row that its buffer does not take.
const TOO_LONG: &str = "line too long in file";

/// Is this a row that gpfdist will never serve as it was started?
pub(super) fn is_too_long(message: &str) -> bool {
    message.contains(TOO_LONG)
}

/// The gpfdist of a run. Letting go of it ends the one that was started.
#[derive(Debug)]
pub struct Gpfdist {
    source: Source,
    serving: Mutex<Serving>,
}

/// Where it comes from.
#[derive(Debug)]
enum Source {
    Given(String),
    Started(Box<Start>),
}

/// How one is started.
struct Start {
    rule: ProgramRule,
    directory: PathBuf,
    run: String,
    pool: Pool,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").field("rule", &self.rule).field("run", &self.run).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Serving {
    NotYet,
    Now(Server),
    /// It cannot be started, and another try would not help.
    Never(ProgramError),
}

/// One that was started, and the thread that talks with its script.
#[derive(Debug)]
struct Server {
    base: String,
    over: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gpfdist {
    /// That of the inventory, for a run. Nothing is started yet.
    pub fn new(inventory: &Inventory, run: &str, pool: &Pool) -> Self {
        let source = match &inventory.target.gpfdist {
            inventory::Gpfdist::Given { url } => Source::Given(url.clone()),
            inventory::Gpfdist::Started(rule) => Source::Started(Box::new(Start {
                rule: rule.clone(),
                directory: rule.mount.join(&inventory.mount.subdir),
                run: run.to_owned(),
                pool: pool.clone(),
            })),
        };
        Self { source, serving: Mutex::new(Serving::NotYet) }
    }

    /// The URLs, `most` of them at most, under which segments read files below the mount's subdirectory. Where one is to
    /// be started and none serves, this starts one; whoever else needs it waits for the same.
    ///
    /// # Errors
    /// [`ProgramError`]: a name that gpfdist cannot serve, a host that cannot be reached, no gpfdist there, no free port.
    pub fn urls(&self, files: &[PathBuf], most: usize, stop: &Stop) -> Result<Vec<String>, ProgramError> {
        let files = files.iter().map(|file| encoded(file)).collect::<Result<Vec<_>, _>>()?;
        match &self.source {
            Source::Given(base) => Ok(dealt(base, &files, most)),
            Source::Started(start) => self.served(start, stop).map(|base| dealt(&base, &files, most)),
        }
    }

    fn served(&self, start: &Start, stop: &Stop) -> Result<String, ProgramError> {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        match &*serving {
            Serving::Now(server) if !server.over.load(Ordering::SeqCst) => return Ok(server.base.clone()),
            Serving::Never(error) => return Err(error.clone()),
            Serving::Now(_) | Serving::NotYet => {}
        }
        match Server::start(start, stop) {
            Ok(server) => {
                let base = server.base.clone();
                *serving = Serving::Now(server);
                Ok(base)
            }
            Err(error) => {
                *serving = if error.can_retry { Serving::NotYet } else { Serving::Never(error.clone()) };
                Err(error)
            }
        }
    }
}

/// Files dealt out to so many URLs: gpfdist takes a blank for the end of one and the beginning of the next.
fn dealt(base: &str, files: &[String], most: usize) -> Vec<String> {
    let urls = files.len().min(most.max(1));
    let share = |url| files.iter().skip(url).step_by(urls).map(String::as_str).collect::<Vec<_>>();
    (0..urls).map(|url| format!("{base}{}", share(url).join("%20"))).collect()
}

/// A path as it stands in a URL. Every name that gpferry makes can be served; a file of a script of the user's own may
/// have one that gpfdist takes for a pattern, or for two names.
fn encoded(file: &Path) -> Result<String, ProgramError> {
    let text = file.as_os_str().as_encoded_bytes();
    let is_pattern = text.iter().any(|byte| b" *?[\\".contains(byte) || byte.is_ascii_control());
    if is_pattern || !file.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(ProgramError {
            what: format!(
                "gpfdist cannot serve {}: it takes blanks and * ? [ \\ for a pattern",
                file.display()
            ),
            remedy: "let the script name its files without them, or load this source by `loader: copy`"
                .into(),
            can_retry: false,
            misfit: false,
        });
    }
    Ok(percent_encode(text, ENCODED).to_string())
}

impl Server {
    fn start(start: &Start, stop: &Stop) -> Result<Self, ProgramError> {
        let (over, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (say, said) = mpsc::sync_channel(1);
        let talk = Talk {
            rule: start.rule.clone(),
            directory: start.directory.clone(),
            run: start.run.clone(),
            pool: start.pool.clone(),
            end: Arc::clone(&end),
        };
        let is_over = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            talk.hold(&say);
            is_over.store(true, Ordering::SeqCst);
        });
        let mut server = Self { base: String::new(), over, end, thread: Some(thread) };
        server.base = wait_for(&said, stop)?;
        Ok(server)
    }
}

/// What the thread says of the start. A stop is not kept waiting.
fn wait_for(said: &Receiver<Result<String, ProgramError>>, stop: &Stop) -> Result<String, ProgramError> {
    let unheard = |what: &str| ProgramError {
        what: format!("gpfdist was not started: {what}"),
        remedy: "run again".into(),
        can_retry: true,
        misfit: false,
    };
    loop {
        match said.recv_timeout(LOOK_EVERY) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Timeout) if stop.asked() => return Err(unheard("the run is to stop")),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(unheard("the thread that was to do so died")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return };
        // One that does not serve yet may be waiting for a host; whatever it starts ends with this process at the latest.
        let until = Instant::now() + if self.base.is_empty() { Duration::ZERO } else { GRACE };
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !thread.is_finished() && !self.base.is_empty() {
            log::warn!("gpfdist has not ended in {} s; the script on its host ends it", GRACE.as_secs());
        }
    }
}

/// What the thread holds.
struct Talk {
    rule: ProgramRule,
    directory: PathBuf,
    run: String,
    pool: Pool,
    end: Arc<AtomicBool>,
}

impl Talk {
    /// Starts gpfdist, says so, and holds it until it is to end, or ends by itself.
    fn hold(&self, say: &SyncSender<Result<String, ProgramError>>) {
        let serves = Cell::new(false);
        let tell = |answer: Result<String, ProgramError>| {
            serves.set(answer.is_ok());
            // Whoever asked may have gone, since the run stops.
            let _ = say.try_send(answer);
        };
        match self.remote().and_then(|mut remote| self.talk(&mut *remote, &tell)) {
            Ok(()) => {}
            Err(error) if serves.get() => log::warn!("{error}; whoever needs gpfdist starts another"),
            Err(error) => tell(Err(ProgramError::of(&error))),
        }
    }

    fn remote(&self) -> Result<Box<dyn Remote>, SourceError> {
        let Some(host) = &self.rule.host else { return Ok(Box::new(Local::new("this machine"))) };
        Ok(Box::new(self.pool.get(&host.parse()?)?))
    }

    fn talk(
        &self,
        remote: &mut dyn Remote,
        tell: &dyn Fn(Result<String, ProgramError>),
    ) -> Result<(), SourceError> {
        let host = remote.host().to_owned();
        let mut talk = Conversation::start(remote, &Script::gpfdist(), "serve", WHAT, LONGEST)?;
        for (name, value) in self.settings() {
            talk.ask(&Request::Set { name, value });
        }
        talk.ask(&Request::Query { no: 0, sql: "serve".into() });
        let (mut facts, mut told_to_end) = (Facts::default(), false);
        loop {
            if !told_to_end && self.end.load(Ordering::SeqCst) {
                told_to_end = true;
                talk.ask(&Request::End);
            }
            match talk.next(LOOK_EVERY)? {
                None | Some(Reply::Beat | Reply::Hello { .. } | Reply::Part { .. }) => {}
                Some(Reply::Row { text, .. }) => facts.read(&text),
                Some(Reply::Done { .. }) => tell(facts.base(&host, self.rule.address.as_deref())),
                Some(Reply::Error { message, .. }) => {
                    return Err(SourceError::failed(&host, WHAT.into(), None, &message));
                }
                Some(Reply::End { .. }) if told_to_end => {
                    talk.finish();
                    return Ok(());
                }
                Some(Reply::End { code }) => {
                    let last = talk.finish();
                    log::warn!("gpfdist on {host} ended by itself: {}", last.trim());
                    return Err(SourceError::GivenUp { host, code });
                }
            }
        }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let rule = &self.rule;
        let mut settings = vec![
            ("DIRECTORY", self.directory.display().to_string()),
            ("PORTS", format!("{}-{}", rule.ports.start(), rule.ports.end())),
            ("MAX_LINE", rule.max_line.to_string()),
            ("RUN", self.run.clone()),
        ];
        settings.extend(rule.path.as_ref().map(|path| ("PROGRAM", path.display().to_string())));
        settings.extend(rule.bind.clone().map(|bind| ("BIND", bind)));
        settings
    }
}

/// What the script says of the gpfdist that it has started.
#[derive(Debug, Default)]
struct Facts {
    port: Option<u16>,
    host: Option<String>,
}

impl Facts {
    fn read(&mut self, row: &str) {
        match row.split_once('\t') {
            Some(("port", port)) => self.port = port.parse().ok(),
            Some(("host", host)) => self.host = Some(host.to_owned()),
            Some(("removed", number)) if number != "0" => {
                log::info!("ended {number} gpfdist that a run which died had left");
            }
            _ => {}
        }
    }

    fn base(&self, host: &str, address: Option<&str>) -> Result<String, ProgramError> {
        match (self.port, address.or(self.host.as_deref())) {
            (Some(port), Some(name)) if !name.is_empty() => {
                let (open, close) = if name.contains(':') { ("[", "]") } else { ("", "") };
                log::debug!("gpfdist on {host} serves on port {port}");
                Ok(format!("gpfdist://{open}{name}{close}:{port}/"))
            }
            _ => Err(ProgramError {
                what: format!("gpfdist on `{host}` did not say where it serves"),
                remedy: "name that host in target.gpfdist.address".into(),
                can_retry: false,
                misfit: false,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_once_more_than_its_names_are() {
        let url = |path: &str| encoded(Path::new(path)).map_err(|error| error.to_string());
        let file = "fab1/202108/10/t/q^s^%C3%9Cn%20t~0a^20210810000000^all.csv.gz";
        assert_eq!(
            url(file).unwrap(),
            "fab1/202108/10/t/q%5Es%5E%25C3%259Cn%2520t~0a%5E20210810000000%5Eall.csv.gz"
        );
        assert_eq!(url("a/ü'\"{;}.gz").unwrap(), "a/%C3%BC%27%22%7B%3B%7D.gz");
    }

    #[test]
    fn files_are_dealt_out_to_as_many_urls_as_there_may_be() {
        let files = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(dealt("g://h:1/", &files, 2), ["g://h:1/a%20c", "g://h:1/b"]);
        assert_eq!(dealt("g://h:1/", &files, 8), ["g://h:1/a", "g://h:1/b", "g://h:1/c"]);
        assert_eq!(dealt("g://h:1/", &files[..1], 0), ["g://h:1/a"]);
    }

    #[test]
    fn a_name_that_gpfdist_takes_for_a_pattern_is_refused() {
        for file in ["a b.gz", "a*.gz", "a?.gz", "[a].gz", "a\\b.gz", "../a.gz", "/a.gz", "a\nb.gz"] {
            assert!(encoded(Path::new(file)).is_err(), "{file}");
        }
    }

    #[test]
    fn the_address_is_what_the_inventory_says_or_the_host_itself() {
        let mut facts = Facts::default();
        for row in ["port\t8081", "host\tetl1.lan", "removed\t0", "else"] {
            facts.read(row);
        }
        assert_eq!(facts.base("h", None).unwrap(), "gpfdist://etl1.lan:8081/");
        assert_eq!(facts.base("h", Some("10.0.0.5")).unwrap(), "gpfdist://10.0.0.5:8081/");
        assert_eq!(facts.base("h", Some("fd00::1")).unwrap(), "gpfdist://[fd00::1]:8081/");
        assert!(Facts::default().base("h", Some("x")).is_err());
    }

    #[test]
    fn what_can_be_mended_is_said() {
        let said = |message: &str| {
            let error = ProgramError::of(&SourceError::failed("etl1", WHAT.into(), None, message));
            (error.can_retry(), error.remedy().to_owned())
        };
        let (retry, remedy) = said("gpfdist: command not found (neither in PATH, …)");
        assert!(!retry && remedy.contains("target.gpfdist.path"), "{remedy}");
        let (_, remedy) =
            said("gpfdist did not come up on a port of 80-80: FATAL cannot create socket on port 80");
        assert!(remedy.contains("target.gpfdist.ports"), "{remedy}");
    }
}
