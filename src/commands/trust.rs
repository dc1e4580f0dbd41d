//! `trust HOST`: shows a host's keys, and records them once somebody has compared them.

use std::io::{self, BufRead, IsTerminal, Write};

use super::{print, ssh_options};
use crate::cli::{Common, Trust};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory;
use crate::remote::ssh::HostText;
use crate::remote::ssh::known_hosts::Verdict;
use crate::remote::ssh::trust::{Offer, OfferedKey, offered_keys};

/// Shows and records.
///
/// # Errors
/// [`Failure`]: the host cannot be asked, a recorded key contradicts, nobody is there to compare.
pub(super) fn trust(common: &Common, trust: &Trust) -> Result<Exit, Failure> {
    let host: HostText = host_text(common, &trust.host)?.parse()?;
    let offer = offered_keys(&ssh_options(common), &host)?;
    print(&shown(&offer))?;
    if offer.keys.iter().all(|key| matches!(key.verdict, Verdict::Known)) {
        print("all of them are recorded already\n")?;
        return Ok(Exit::Done);
    }
    // Nobody is asked whether a contradiction is all right.
    offer.check()?;
    if !agreed(&offer, trust)? {
        print("nothing was recorded\n")?;
        return Ok(Exit::Done);
    }
    // A key whose fingerprint nobody compared is not recorded.
    let compared =
        |key: &OfferedKey| trust.fingerprint.is_empty() || trust.fingerprint.contains(&key.fingerprint);
    let recorded = offer.record(compared)?;
    let file = offer.file().map_or_else(String::new, |file| format!(" in {}", file.display()));
    print(&format!("{} keys of {} recorded{file}\n", recorded.len(), offer.name()))?;
    Ok(Exit::Done)
}

/// A source's name stands for its host, where there is an inventory with such a source.
fn host_text(common: &Common, text: &str) -> Result<String, Failure> {
    if !common.inventory.exists() || text.contains(['@', ':']) {
        return Ok(text.to_owned());
    }
    let inventory = inventory::load(&common.inventory)?;
    Ok(inventory.source(text).map_or_else(|| text.to_owned(), |source| source.host.clone()))
}

fn shown(offer: &Offer) -> String {
    let mut text = format!("{} shows these keys:\n", offer.name());
    for key in &offer.keys {
        let verdict = match &key.verdict {
            Verdict::Known => "recorded already",
            Verdict::Unknown { .. } => "not recorded",
            Verdict::Changed { .. } => "CHANGED",
            Verdict::Revoked { .. } => "REVOKED",
        };
        text.push_str(&format!("  {:<20} {}  {verdict}\n", key.kind, key.fingerprint));
    }
    text.push_str(
        "compare them with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host itself\n",
    );
    text
}

/// By `--fingerprint`, or by a person at a terminal.
fn agreed(offer: &Offer, trust: &Trust) -> Result<bool, Failure> {
    if let Some(wrong) =
        trust.fingerprint.iter().find(|given| !offer.keys.iter().any(|key| &key.fingerprint == *given))
    {
        let what = format!("{} shows no key with the fingerprint {wrong}", offer.name());
        return Err(Failure::Usage { what, remedy: "do not connect before you know why".into() });
    }
    if !trust.fingerprint.is_empty() {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage {
            what: "nobody is there to compare the fingerprints".into(),
            remedy: "run it at a terminal, or give the fingerprint you expect with --fingerprint SHA256:…"
                .into(),
        });
    }
    let failed = |error| Failure::Io { doing: "asking at the terminal", error };
    write!(io::stderr(), "are they the same? (yes/no) ").map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}
