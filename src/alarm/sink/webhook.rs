//! A POST of JSON.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::given::read;
use super::{Deadline, SinkError};
use crate::alarm::document::document;
use crate::inventory::Webhook;
use crate::ledger::alarms::Message;

/// Before the second try; before each further one twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Sends all messages in one document. Success is an answer of 2xx; a redirection is none, since it might lead the token
/// anywhere.
pub(super) fn tell(hook: &Webhook, messages: &[Message], deadline: Deadline) -> Result<(), SinkError> {
    let url = read(&hook.url)?;
    let shown = shown(&url);
    let token = hook.token.as_ref().map(read).transpose()?;
    if token.is_some() && !url.starts_with("https://") {
        let what = format!("{shown}: the token would be sent unencrypted");
        return Err(SinkError::new(what, "give a URL that begins with https://"));
    }
    let roots = hook.ca.as_deref().map(roots).transpose()?;
    let body = document(messages).to_string();
    let mut pause = FIRST_PAUSE;
    let mut tries = 0;
    loop {
        tries += 1;
        let Some(left) = deadline.left() else {
            return Err(timed_out(&shown));
        };
        let no = match post(hook, &url, token.as_deref(), roots.clone(), &body, left) {
            Ok(()) => return Ok(()),
            Err(no) => no,
        };
        if tries > hook.retries || !no.again || deadline.left().is_none_or(|left| left <= pause) {
            return Err(no.told(&shown, tries));
        }
        thread::sleep(pause);
        pause *= 2;
    }
}

/// The URL without its path, which may be secret.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

fn timed_out(shown: &str) -> SinkError {
    SinkError::new(
        format!("{shown} did not answer in time"),
        "look at the receiver, or allow more with `timeout`",
    )
}

/// Why it did not arrive, and whether another try may help.
struct No {
    what: String,
    remedy: &'static str,
    again: bool,
}

impl No {
    fn told(self, shown: &str, tries: u32) -> SinkError {
        let tries = if tries > 1 { format!(" (tried {tries} times)") } else { String::new() };
        SinkError::new(format!("{shown}: {}{tries}", self.what), self.remedy)
    }
}

fn post(
    hook: &Webhook,
    url: &str,
    token: Option<&str>,
    roots: Option<Arc<Vec<ureq::tls::Certificate<'static>>>>,
    body: &str,
    left: Duration,
) -> Result<(), No> {
    let roots = roots.map_or(RootCerts::PlatformVerifier, RootCerts::Specific);
    let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build();
    let agent: Agent = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(left))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("gpferry/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut request = agent.post(url).header("Content-Type", "application/json");
    if let Some(token) = token {
        let value = match hook.header.eq_ignore_ascii_case("authorization") {
            true => format!("Bearer {token}"),
            false => token.to_owned(),
        };
        request = request.header(&hook.header, value);
    }
    match request.send(body) {
        Ok(answer) => judge(answer.status().as_u16()),
        Err(error) => Err(refused(&error)),
    }
}

/// Too many requests and what a server blames on itself may be mended by waiting; what it blames on us may not.
fn judge(status: u16) -> Result<(), No> {
    let remedy = match status {
        200..=299 => return Ok(()),
        300..=399 => "give the URL that it leads to: redirections are not followed",
        401 | 403 => "look at the token, and at the header that it is sent in",
        _ => "look at the receiver's log",
    };
    Err(No {
        what: format!("answered {status}"),
        remedy,
        again: matches!(status, 408 | 425 | 429 | 500..=599),
    })
}

/// The library's own words. None of them repeats what was sent.
fn refused(error: &ureq::Error) -> No {
    match error {
        ureq::Error::Timeout(_) => No {
            what: "did not answer in time".into(),
            remedy: "look at the receiver, or allow more with `timeout`",
            again: true,
        },
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => No {
            what: error.to_string(),
            remedy: "look at the receiver, its name, the network, and HTTPS_PROXY",
            again: true,
        },
        ureq::Error::NativeTls(_) => No {
            what: format!("its certificate or TLS is refused: {error}"),
            remedy: "let it show a certificate for that name; one of your own authority is trusted with `ca`",
            again: false,
        },
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            No { what: "the URL or the token is malformed".into(), remedy: "look at both", again: false }
        }
        // The library may add to them.
        other => No { what: other.to_string(), remedy: "look at the receiver's log", again: false },
    }
}

/// The certificates of a file.
fn roots(path: &Path) -> Result<Arc<Vec<ureq::tls::Certificate<'static>>>, SinkError> {
    let wrong = |why: String| {
        SinkError::new(
            format!("{} cannot be used: {why}", path.display()),
            "write certificates in PEM into it",
        )
    };
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(wrong("no certificate is in it".into())) } else { Ok(Arc::new(found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_may_be_secret_is_not_shown() {
        for (url, said) in [
            ("https://hooks.example.com/services/T0/B0/s3cret", "https://hooks.example.com"),
            ("https://h:8443?key=s3cret", "https://h:8443"),
            ("https://u:s3cret@h/x", "https://h"),
        ] {
            assert_eq!(shown(url), said);
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(judge(204).is_ok());
        for (status, again) in
            [(500, true), (503, true), (429, true), (400, false), (401, false), (302, false)]
        {
            assert_eq!(judge(status).unwrap_err().again, again, "{status}");
        }
    }
}
