//! A program of the operator's, which reads the messages from its stdin.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Deadline, SinkError};
use crate::alarm::document::document;
use crate::ledger::alarms::Message;
use crate::remote::without_secrets;

/// How often it is looked whether the program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How much of what it says is read.
const MOST: u64 = 64 * 1024;

/// Runs the program once. Success is exit code 0, whether or not it read everything.
pub(super) fn tell(argv: &[String], messages: &[Message], deadline: Deadline) -> Result<(), SinkError> {
    let [program, arguments @ ..] = argv else {
        return Err(SinkError::new("the command is empty", "name a program"));
    };
    let started = without_secrets(&mut Command::new(program))
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.map_err(|error| {
        SinkError::new(
            format!("{program} cannot be started: {error}"),
            "give its whole path, and the right to run it",
        )
    })?;
    let heard = hear(&mut child);
    feed(&mut child, format!("{}\n", document(messages)));
    let ended = wait(&mut child, deadline);
    if ended.is_err() || matches!(ended, Ok(None)) {
        end(&mut child);
    }
    let said = heard.and_then(|heard| heard.recv_timeout(LOOK_EVERY * 5).ok()).unwrap_or_default();
    if let Some(last) = said.lines().rfind(|line| !line.trim().is_empty()) {
        // Not in the error, which the ledger keeps: what a program says is its own.
        log::debug!("{program} says: {last}");
    }
    let failed = |what: String| {
        let remedy =
            "run it by hand with a document of `gpferry alarm test`; `-v` shows the last line of its stderr";
        Err(SinkError::new(what, remedy))
    };
    match ended {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => failed(format!("{program} {}", ending(status))),
        Ok(None) => failed(format!("{program} did not end in time, and was killed")),
        Err(error) => failed(format!("{program} cannot be waited for: {error}")),
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".into(),
    }
}

/// Writes without waiting for a program that does not read: its end closes the pipe.
fn feed(child: &mut Child, text: String) {
    if let Some(mut stdin) = child.stdin.take() {
        thread::spawn(move || {
            // One that has read enough closes its end; its exit code says whether that was right.
            let _ = stdin.write_all(text.as_bytes());
        });
    }
}

/// Reads what it says on stderr, so that it is not held up by saying much.
fn hear(child: &mut Child) -> Option<Receiver<String>> {
    let mut stderr = child.stderr.take()?;
    let (tell, hear) = channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        let _ = stderr.by_ref().take(MOST).read_to_end(&mut said);
        let _ = io::copy(&mut stderr, &mut io::sink());
        let _ = tell.send(String::from_utf8_lossy(&said).into_owned());
    });
    Some(hear)
}

fn wait(child: &mut Child, deadline: Deadline) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let Some(left) = deadline.left() else { return Ok(None) };
        thread::sleep(LOOK_EVERY.min(left));
    }
}

/// Ends it with everything that it started.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}
