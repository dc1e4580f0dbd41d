//! The scripts that gpferry starts: the bundled ones are part of the binary, and copied to each host once, under a
//! directory named by their digest, or sent along; one of the user's own is there already.
//!
//! The commands here are constants but for that digest and a length: nothing that a person typed is in them.
//! They are one `sh -c '…'` so that a csh or fish as login shell reads them the same. Each begins a new line
//! first: what a `.bashrc` printed may have left one open, and our first word must not be glued to it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use openssl::sha::sha256;

use super::error::SourceError;
use crate::inventory::{Call, Source};
use crate::remote::{Channel, CommandFailed, Ending, Remote, Status};

/// Serves Greenplum and PostgreSQL.
const GREENPLUM: &str = include_str!("../../scripts/greenplum.sh");
/// Calls a script that people already have.
const ARGV: &str = include_str!("../../scripts/argv.sh");
/// Starts a gpfdist and ends it.
const GPFDIST: &str =
    concat!(include_str!("../../scripts/guard.sh"), include_str!("../../scripts/gpfdist.sh"));

/// Runs gpload.
const GPLOAD: &str = concat!(include_str!("../../scripts/guard.sh"), include_str!("../../scripts/gpload.sh"));

/// Ends a script that is sent over stdin.
const END_OF_SCRIPT: &str = "#gpferry: end of script";

/// Reads a script from stdin into `$s`, line by line: `read` takes no byte of what follows, which `sh -s` may.
/// No line break is in it, and `!` only before `=`, since csh as login shell would stumble over others.
const READ_SCRIPT: &str = "n=$(printf \"\\nx\"); n=${n%x}; s=; \
     while IFS= read -r l && [ \"$l\" != \"#gpferry: end of script\" ]; do s=\"$s$l$n\"; done";

/// The command that runs a script which comes over stdin, in the shell that every host has.
pub(super) fn piped_command() -> String {
    format!("exec sh -c 'echo; {READ_SCRIPT}; eval \"$s\"'")
}

/// A script as [`piped_command`] reads it.
pub(super) fn piped_text(text: &str) -> String {
    format!("{text}\n{END_OF_SCRIPT}\n")
}

/// What the commands print where the script is in its place, and where it is not.
const PRESENT: &str = "gpferry-script-present";
const MISSING: &str = "gpferry-script-missing";
/// What the install command prints when the script is in place.
const INSTALLED: &str = "gpferry-script-installed";
/// Longest time that copying the script may take.
const INSTALL_LIMIT: Duration = Duration::from_secs(60);

/// A script that speaks the protocol.
#[derive(Debug, Clone)]
pub struct Script {
    text: &'static str,
    digest: String,
    place: Place,
}

/// Where a script is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Put on the host once, by [`Script::ensure`].
    Installed,
    /// Sent along with every conversation.
    Piped,
    /// The user's own, at this path of the host.
    Theirs(PathBuf),
}

impl Script {
    /// The script that exports from a source: the bundled one, the user's own, or the one that calls the user's own.
    pub fn exporting(source: &Source) -> Self {
        match source.script.as_ref().map(|script| (script.call, &script.path)) {
            None => Self::greenplum(),
            Some((Call::Argv, _)) => Self::bundled(ARGV, Place::Piped),
            Some((Call::Protocol, path)) => {
                Self { text: "", digest: path.display().to_string(), place: Place::Theirs(path.clone()) }
            }
        }
    }

    /// The script for Greenplum and PostgreSQL.
    pub fn greenplum() -> Self {
        Self::bundled(GREENPLUM, Place::Installed)
    }

    /// The script that starts a gpfdist and ends it.
    pub fn gpfdist() -> Self {
        Self::bundled(GPFDIST, Place::Piped)
    }

    /// The script that runs gpload.
    pub fn gpload() -> Self {
        Self::bundled(GPLOAD, Place::Piped)
    }

    fn bundled(text: &'static str, place: Place) -> Self {
        let digest = sha256(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Self { text, digest, place }
    }

    /// The same, sent along with every conversation: nothing is put on the host, and [`Script::ensure`] is not
    /// needed.
    pub fn greenplum_piped() -> Self {
        Self { place: Place::Piped, ..Self::greenplum() }
    }

    /// What goes to stdin before the conversation.
    pub(super) fn preamble(&self) -> Option<String> {
        match &self.place {
            Place::Installed => None,
            Place::Piped => Some(piped_text(self.text)),
            Place::Theirs(path) => Some(format!("{}\n", path.display())),
        }
    }

    /// SHA-256 of its text, in hex; of a script of the user's own, its path.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The command that starts it with a verb of ours.
    pub(super) fn start_command(&self, verb: &'static str) -> String {
        match &self.place {
            Place::Installed => {
                format!("exec sh -c 'echo; exec bash \"{}/greenplum.sh\" {verb}'", self.directory())
            }
            // With -c, bash under sshd reads .bashrc, whose output would stand before ours and whose input is ours.
            Place::Piped => {
                format!("exec sh -c 'echo; {READ_SCRIPT}; exec bash --norc -c \"$s\" gpferry {verb}'")
            }
            // The path comes over stdin, as the first line.
            Place::Theirs(_) => format!(
                "exec sh -c 'echo; IFS= read -r p; if [ -x \"$p\" ]; then exec \"$p\" {verb}; fi; exec bash -- \"$p\" {verb}'"
            ),
        }
    }

    /// The command that says whether it is there.
    fn look_command(&self) -> String {
        format!(
            "exec sh -c 'echo; if [ -r \"{}/greenplum.sh\" ]; then echo {PRESENT}; else echo {MISSING}; fi'",
            self.directory()
        )
    }

    /// The command that reads the script from stdin and puts it in its place, whole or not at all.
    fn install_command(&self) -> String {
        format!(
            "exec sh -c 'echo; umask 077; d=\"{}\"; mkdir -p \"$d\" && t=\"$d/.new.$$\" && cat > \"$t\" && \
             [ \"$(wc -c < \"$t\")\" -eq {} ] && chmod 700 \"$t\" && mv -f \"$t\" \"$d/greenplum.sh\" && echo {INSTALLED}'",
            self.directory(),
            self.text.len()
        )
    }

    fn directory(&self) -> String {
        format!("${{XDG_CACHE_HOME:-$HOME/.cache}}/gpferry/{}", self.digest)
    }

    /// Sees to it that the script is on a host: once per host and run, before any conversation.
    ///
    /// # Errors
    /// [`SourceError`]: no session, a home directory that cannot be written, a full disk.
    pub fn ensure(&self, remote: &mut dyn Remote) -> Result<(), SourceError> {
        if self.place != Place::Installed {
            return Ok(());
        }
        let host = remote.host().to_owned();
        let channel = remote.exec(&self.look_command())?;
        let (stdout, stderr, status) = drain(channel, INSTALL_LIMIT)?;
        let said = |word: &str| stdout.lines().any(|line| line.trim_end() == word);
        if said(PRESENT) {
            return Ok(());
        }
        if said(MISSING) {
            return self.install(remote);
        }
        Err(not_done(&host, "looking for the export script", &status, &stderr))
    }

    fn install(&self, remote: &mut dyn Remote) -> Result<(), SourceError> {
        let host = remote.host().to_owned();
        log::debug!("{host}: copying the script {}", &self.digest[..12]);
        let mut channel = remote.exec(&self.install_command())?;
        channel.send(self.text.as_bytes());
        channel.close_stdin();
        let (stdout, stderr, status) = drain(channel, INSTALL_LIMIT)?;
        if stdout.lines().any(|line| line.trim_end() == INSTALLED) {
            return Ok(());
        }
        Err(not_done(&host, "copying the export script to the user's cache directory", &status, &stderr))
    }
}

/// A command that did not print its trailer: even with exit code 0 nobody saw it succeed.
pub(super) fn not_done(host: &str, what: &str, status: &Status, stderr: &str) -> SourceError {
    let ending = match Ending::of(status, stderr) {
        Ending::Success => Ending::Lost,
        other => other,
    };
    CommandFailed::new(host, what, ending, stderr).into()
}

/// Reads a channel to its end.
fn drain(
    mut channel: Box<dyn Channel + '_>,
    limit: Duration,
) -> Result<(String, String, Status), SourceError> {
    let begin = Instant::now();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while begin.elapsed() < limit {
        let heard = channel.poll(Duration::from_millis(500))?;
        stdout.extend(heard.stdout);
        stderr.extend(heard.stderr);
        if heard.closed {
            let status = channel.end(Duration::from_secs(5));
            return Ok((text(&stdout), text(&stderr), status));
        }
    }
    Ok((text(&stdout), text(&stderr), Status::Unknown))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
