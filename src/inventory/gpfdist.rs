//! `target.gpfdist`: one that runs already, or how one is started; and `target.gpload`.

use std::ops::RangeInclusive;
use std::path::Path;

use super::fault::Fault;
use super::model::{Gpfdist, ProgramRule};
use super::reader::{At, Fields, Reader};
use super::scalars::{absolute, size, ssh_host, text};
use super::secrets::{self, REMEDY};
use super::yaml::Value;

const KEYS: &[&str] = &["url", "host", "address", "bind", "path", "ports", "mount", "max_line"];
const GPLOAD_KEYS: &[&str] = &["host", "address", "path", "ports", "mount", "max_line"];
const EXAMPLE: &str = "gpfdist: { host: gpadmin@etl1, address: etl1 }";
const URL: &str = "url: \"gpfdist://etl1:8081/\"";
const PORTS: &str = "ports: 8080-8180";
/// What gpfdist's `-m` takes. Source: gpfdist.c, GPFDIST_MAX_LINE_LOWER_LIMIT and its sibling.
const MAX_LINE: RangeInclusive<u64> = 32 << 10..=256 << 20;

/// What stands there. `mount` is the mount as this machine sees it.
pub(super) fn read(reader: &mut Reader, at: &At<'_>, mount: &Path) -> Gpfdist {
    let Some(fields) = reader.fields(at, KEYS, EXAMPLE) else { return Gpfdist::Started(default(mount)) };
    match fields.get("url") {
        Some(url) => read_given(reader, &url, &fields),
        None => Gpfdist::Started(read_rule(reader, &fields, default(mount), "gpfdist")),
    }
}

/// What stands under `gpload`.
pub(super) fn read_gpload(reader: &mut Reader, at: &At<'_>, mount: &Path) -> ProgramRule {
    match reader.fields(at, GPLOAD_KEYS, "gpload: { host: gpadmin@etl1, address: etl1 }") {
        Some(fields) => read_rule(reader, &fields, default(mount), "gpload"),
        None => default(mount),
    }
}

/// What is used where nothing stands there.
pub(super) fn default(mount: &Path) -> ProgramRule {
    ProgramRule { mount: mount.to_owned(), ..ProgramRule::default() }
}

fn read_given(reader: &mut Reader, at: &At<'_>, fields: &Fields<'_>) -> Gpfdist {
    for key in KEYS.iter().filter(|key| **key != "url") {
        if let Some(at) = fields.get(key) {
            reader.add(Fault::new(
                at.named,
                at.path.clone(),
                "this key says how a gpfdist is started, and `url` names one that runs already",
                "keep one of the two",
            ));
        }
    }
    let Some(url) = text(reader, at, URL) else { return Gpfdist::Given { url: String::new() } };
    if let Err((what, remedy)) = check_url(url) {
        reader.fault(at, what, remedy);
    }
    let slash = if url.ends_with('/') { "" } else { "/" };
    Gpfdist::Given { url: format!("{url}{slash}") }
}

/// What is wrong with the URL of a gpfdist. The URL itself is never shown.
fn check_url(url: &str) -> Result<(), (&'static str, &'static str)> {
    const FORM: &str =
        "write it as url: \"gpfdist://etl1:8081/\"; the port is needed, a directory may follow it";
    if secrets::url_password(url).is_some() || secrets::query_password(url).is_some() {
        return Err(("a password stands in the URL", REMEDY));
    }
    let rest = url.strip_prefix("gpfdist://").or_else(|| url.strip_prefix("gpfdists://"));
    let Some(rest) = rest else {
        return Err(("the URL does not start with gpfdist:// or gpfdists://", FORM));
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some((host, port)) = authority.rsplit_once(':') else {
        return Err(("the URL names no port", FORM));
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if !is_address(bare) || (bare == host && host.contains(':')) {
        return Err(("what stands before the port of the URL is no name and no address of a host", FORM));
    }
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(("what follows the last colon of the URL's host is not a port", FORM));
    }
    // gpfdist takes blanks and wildcards for patterns, even where they are encoded
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '~');
    if !path.chars().all(plain) || path.split('/').any(|part| part == "..") {
        return Err((
            "the directory in the URL holds more than letters, digits, `_`, `-`, `.`, `~` and `/`",
            "let gpfdist serve a directory with a plain name, or one further up",
        ));
    }
    Ok(())
}

fn read_rule(reader: &mut Reader, fields: &Fields<'_>, rule: ProgramRule, program: &str) -> ProgramRule {
    let mut address = |key: &str, example: &str, is_good: fn(&str) -> bool| {
        let at = fields.get(key)?;
        let written = text(reader, &at, example)?;
        if is_good(written) {
            return Some(written.to_owned());
        }
        let shown = reader.secrets.echo(written);
        reader.fault(&at, format!("{shown} is not that of a host"), format!("write it as {example}"));
        None
    };
    let (name, bind) = (
        address("address", "address: etl1", is_address),
        address("bind", "bind: 10.0.0.5", |text| text.parse::<std::net::Ipv4Addr>().is_ok()),
    );
    ProgramRule {
        host: fields
            .get("host")
            .and_then(|at| ssh_host(reader, &at, "host: gpadmin@etl1"))
            .map(str::to_owned),
        address: name,
        bind,
        path: fields
            .get("path")
            .and_then(|at| absolute(reader, &at, &format!("path: /usr/local/greenplum-db/bin/{program}"))),
        ports: fields.get("ports").and_then(|at| read_ports(reader, &at)).unwrap_or(rule.ports),
        mount: fields
            .get("mount")
            .and_then(|at| absolute(reader, &at, "mount: /mnt/dataTransfer"))
            .unwrap_or(rule.mount),
        max_line: fields.get("max_line").and_then(|at| read_max_line(reader, &at)).unwrap_or(rule.max_line),
    }
}

/// A host's name, or an address of either family, without brackets.
fn is_address(text: &str) -> bool {
    let is_name = !text.is_empty()
        && !text.starts_with(['-', '.'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    is_name || text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// `8080-8180`, or one port.
fn read_ports(reader: &mut Reader, at: &At<'_>) -> Option<RangeInclusive<u16>> {
    let written = match &at.node.value {
        Value::Number(number) => number,
        Value::Text(text) => text,
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
            reader.wrong_type(at, "a range of ports", format!("write it as {PORTS}"));
            return None;
        }
    };
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = port(first).zip(port(last)).filter(|(first, last)| first <= last);
    if range.is_none() {
        let shown = reader.secrets.echo(written);
        let remedy = format!("two numbers from 1 to 65535, the smaller one first, as in {PORTS}");
        reader.fault(at, format!("{shown} is not a range of ports"), remedy);
    }
    range.map(|(first, last)| first..=last)
}

fn read_max_line(reader: &mut Reader, at: &At<'_>) -> Option<u64> {
    let bytes = size(reader, at, "max_line: 1MiB")?;
    if !MAX_LINE.contains(&bytes) {
        reader.fault(
            at,
            "gpfdist serves no rows of this length",
            "from 32KiB to 256MiB, as in max_line: 1MiB",
        );
        return None;
    }
    Some(bytes)
}
