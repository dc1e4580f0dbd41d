//! Single values: texts, words, numbers, lengths, sizes, timestamps, paths, hosts.
//!
//! Each function returns the value, or `None` once the fault is put down. `example` is what to write instead.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use super::model::Hours;
use super::reader::{At, Reader};
use super::suggest;
use super::yaml::Value;
use crate::window::{Length, LengthError};

/// A text, line breaks and all.
pub(super) fn any_text<'a>(reader: &mut Reader, at: &At<'a>, example: &str) -> Option<&'a str> {
    match &at.node.value {
        Value::Text(text) if text.trim().is_empty() => {
            reader.fault(at, "the text is empty", format!("write it as {example}"));
        }
        Value::Text(text) => return Some(text),
        Value::Number(_) | Value::Bool(_) => {
            reader.wrong_type(at, "a text", format!("put it in quotes, as in {example}"));
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            reader.wrong_type(at, "a text", format!("write it as {example}"));
        }
    }
    None
}

/// A text on one line, without control characters.
pub(super) fn text<'a>(reader: &mut Reader, at: &At<'a>, example: &str) -> Option<&'a str> {
    let text = any_text(reader, at, example)?;
    if text.chars().any(char::is_control) {
        reader.fault(
            at,
            "a line break or another control character is in it",
            format!("write it as {example}"),
        );
        return None;
    }
    Some(text)
}

/// A text without blanks that a program could not take for an option.
pub(super) fn plain_text<'a>(reader: &mut Reader, at: &At<'a>, example: &str) -> Option<&'a str> {
    let text = text(reader, at, example)?;
    if text.starts_with('-') || text.contains(char::is_whitespace) {
        let shown = reader.secrets.echo(text);
        reader.fault(
            at,
            format!("{shown} starts with `-` or holds a blank"),
            format!("write it as {example}"),
        );
        return None;
    }
    Some(text)
}

/// One word of a list.
pub(super) fn word<T: Copy>(reader: &mut Reader, at: &At<'_>, words: &[(&str, T)]) -> Option<T> {
    let list = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    let Value::Text(text) = &at.node.value else {
        reader.wrong_type(at, "a word", format!("one of: {}", list().join(", ")));
        return None;
    };
    let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
    if found.is_none() {
        let remedy = match suggest::nearest(text, list()) {
            Some(meant) => format!("did you mean `{meant}`? One of: {}", list().join(", ")),
            None => format!("one of: {}", list().join(", ")),
        };
        let shown = reader.secrets.echo(text);
        reader.fault(at, format!("{shown} is not a word that is known here"), remedy);
    }
    found
}

/// A whole number in a range.
pub(super) fn whole(
    reader: &mut Reader,
    at: &At<'_>,
    range: RangeInclusive<u32>,
    example: &str,
) -> Option<u32> {
    let range = i64::from(*range.start())..=i64::from(*range.end());
    number(reader, at, range, example).and_then(|number| u32::try_from(number).ok())
}

/// A whole number, of either sign, within a range.
pub(super) fn number(
    reader: &mut Reader,
    at: &At<'_>,
    range: RangeInclusive<i64>,
    example: &str,
) -> Option<i64> {
    let remedy = format!("a whole number from {} to {}, as in {example}", range.start(), range.end());
    let Value::Number(written) = &at.node.value else {
        reader.wrong_type(at, "a number", remedy);
        return None;
    };
    let found = written.parse().ok().filter(|number| range.contains(number));
    if found.is_none() {
        let shown = reader.secrets.echo(written);
        reader.fault(at, format!("{shown} is out of range"), remedy);
    }
    found
}

/// A number or a text, as written.
fn measure<'a>(reader: &mut Reader, at: &At<'a>, wanted: &str, example: &str) -> Option<&'a str> {
    match &at.node.value {
        Value::Number(text) | Value::Text(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
            reader.wrong_type(at, wanted, format!("write it as {example}"));
            None
        }
    }
}

/// A length of time, longer than nothing.
pub(super) fn length(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<Length> {
    let text = measure(reader, at, "a length of time", example)?;
    text.parse()
        .map_err(|error: LengthError| {
            let what = reader.secrets.told(text, error.to_string());
            reader.fault(at, what, format!("write it as {example}"));
        })
        .ok()
}

/// A pause: a length of time that may also be nothing.
pub(super) fn pause(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<Duration> {
    if let Value::Number(text) | Value::Text(text) = &at.node.value
        && !text.trim_start().starts_with('-')
        && matches!(text.parse::<Length>(), Err(LengthError::NotPositive(_)))
    {
        return Some(Duration::ZERO);
    }
    length(reader, at, example).map(Length::as_duration)
}

/// A number of bytes: `256MiB`, `1GB`, `1048576`.
pub(super) fn size(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<u64> {
    let text = measure(reader, at, "a number of bytes", example)?;
    let found = bytes(text).filter(|bytes| *bytes > 0);
    if found.is_none() {
        let shown = reader.secrets.echo(text);
        reader.fault(
            at,
            format!("{shown} is not a number of bytes"),
            format!("a whole number with B, kB, MB, GB, TB or KiB, MiB, GiB, TiB, as in {example}"),
        );
    }
    found
}

fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor: u64 = match text[digits..].trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A timestamp: `2021-08-10 00:00:00`, `2021-08-10T00:00`, `2021-08-10`; with an offset or `Z` it is turned
/// into the inventory's zone.
pub(super) fn timestamp(
    reader: &mut Reader,
    at: &At<'_>,
    zone: &TimeZone,
    example: &str,
) -> Option<DateTime> {
    let remedy =
        format!("write it as {example}, or 2021-08-10, or with an offset: 2021-08-10T00:00:00+08:00");
    let (Value::Text(text) | Value::Number(text)) = &at.node.value else {
        reader.wrong_type(at, "a timestamp", remedy);
        return None;
    };
    let found = moment(text, zone);
    if found.is_none() {
        let shown = reader.secrets.echo(text);
        reader.fault(at, format!("{shown} is not a timestamp"), remedy);
    }
    found
}

/// The time in the zone that a text means.
pub(super) fn moment(text: &str, zone: &TimeZone) -> Option<DateTime> {
    civil(text).or_else(|| instant(text).map(|instant| zone.to_datetime(instant)))
}

/// The forms without an offset. jiff would take more than is meant here (week dates, an offset that it
/// ignores, nanoseconds that PostgreSQL cuts), so the form is checked first.
pub(super) fn civil(text: &str) -> Option<DateTime> {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let (form, part) = form.split_once('.').unwrap_or((&form, "0"));
    let known =
        ["0000-00-00", "0000-00-00 00:00", "0000-00-00T00:00", "0000-00-00 00:00:00", "0000-00-00T00:00:00"];
    let part_is_good = part.chars().all(|c| c == '0') && (1..=6).contains(&part.len());
    if !known.contains(&form) || !part_is_good || text.get(16..19) == Some(":60") {
        return None;
    }
    text.parse().ok()
}

fn instant(text: &str) -> Option<Timestamp> {
    let (date_and_time, offset) = text.split_at_checked(text.rfind(['Z', 'z', '+', '-'])?)?;
    civil(date_and_time.trim_end()).filter(|_| date_and_time.len() > 10)?;
    format!("{}{offset}", date_and_time.trim_end()).parse().ok()
}

/// A range of the day: `00:00-04:00`.
pub(super) fn hours(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<Hours> {
    let remedy = format!("two times of day from 00:00 to 24:00, as in {example}");
    let Value::Text(text) = &at.node.value else {
        reader.wrong_type(at, "a range of the day", remedy);
        return None;
    };
    let found = text.split_once('-').and_then(|(from, until)| {
        let (from, until) = (from.trim(), until.trim());
        let read = |text: &str| if text == "24:00" { Some(Time::midnight()) } else { time_of_day(text) };
        (from != until).then_some(Hours { from: time_of_day(from)?, until: read(until)? })
    });
    if found.is_none() {
        let shown = reader.secrets.echo(text);
        reader.fault(at, format!("{shown} is not a range of the day"), remedy);
    }
    found
}

fn time_of_day(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two_digits = |part: &str| part.len() == 2 && part.chars().all(|c| c.is_ascii_digit());
    if !two_digits(hour) || !two_digits(minute) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

/// An absolute path, without `..`.
pub(super) fn absolute(reader: &mut Reader, at: &At<'_>, example: &str) -> Option<PathBuf> {
    let text = text(reader, at, example)?;
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        let shown = reader.secrets.echo(text);
        reader.fault(
            at,
            format!("{shown} is not an absolute path"),
            format!("start at / and write no `..`, as in {example}"),
        );
        return None;
    }
    Some(path.components().collect())
}

/// Is this a name of a source or job, or one clean component of a path? `[A-Za-z0-9_.-]+`, not starting with
/// `-` or `.`, of at most 100 characters.
pub(super) fn is_clean_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && !name.starts_with(['-', '.'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Where SSH connects to: `user@host:port`, `host`, an alias, `[::1]:22`.
pub(super) fn ssh_host<'a>(reader: &mut Reader, at: &At<'a>, example: &str) -> Option<&'a str> {
    let text = plain_text(reader, at, example)?;
    let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
    if user.is_some_and(|user| user.contains(':')) {
        reader.fault(
            at,
            "a password stands before the `@`",
            "remove it; use a key or the agent, and write the host as user@host:port",
        );
        return None;
    }
    if !is_host(host) || user == Some("") {
        let shown = reader.secrets.echo(text);
        reader.fault(
            at,
            format!("{shown} is not a host"),
            format!("user@host:port, host, or an alias of ~/.ssh/config, as in {example}"),
        );
        return None;
    }
    Some(text)
}

fn is_host(text: &str) -> bool {
    let good_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, after)) => (host, Some(after.strip_prefix(':').unwrap_or(""))),
            None => return false,
        },
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    !host.is_empty()
        && !host.starts_with('-')
        && !host.contains(['/', '\'', '"', '`', '$', ';', '\\'])
        && port.is_none_or(good_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_their_unit() {
        for (text, expected) in [
            ("256MiB", Some(256 * 1024 * 1024)),
            ("1GB", Some(1_000_000_000)),
            ("1048576", Some(1_048_576)),
            ("2 KiB", Some(2048)),
            ("7B", Some(7)),
            ("256M", None),
            ("1.5GB", None),
            ("-1", None),
            ("MiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_have_few_forms() {
        let midnight = jiff::civil::date(2021, 8, 10).at(0, 0, 0, 0);
        for text in [
            "2021-08-10",
            "2021-08-10 00:00",
            "2021-08-10T00:00",
            "2021-08-10 00:00:00",
            "2021-08-10T00:00:00.000",
        ] {
            assert_eq!(civil(text), Some(midnight), "{text}");
        }
        for text in [
            "2021-8-10",
            "2021-W32-1",
            "20210810",
            "2021-02-30",
            "2021-08-10 24:00",
            "2021-08-10 23:59:60",
            "2021-08-10 00:00:00.1234567",
            "2021-08-10 00:00+08:00",
            "10.08.2021",
            "",
            "２０２１-08-10",
        ] {
            assert_eq!(civil(text), None, "{text}");
        }
        let shanghai = TimeZone::get("Asia/Shanghai").unwrap();
        for text in ["2021-08-09T16:00Z", "2021-08-09 16:00:00+00:00", "2021-08-10 01:00:00 +09:00"] {
            assert_eq!(instant(text).map(|at| shanghai.to_datetime(at)), Some(midnight), "{text}");
        }
        for text in ["2021-08-10+08:00", "2021-08-10Z", "é-Z", "-", "2021-08-10T00:00Zulu"] {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn hosts_have_few_forms() {
        for text in ["gp4-etl", "gp4-etl:22", "10.0.0.3:2222", "[::1]:22", "::1", "fe80::1%eth0", "alias_1"] {
            assert!(is_host(text), "{text}");
        }
        for text in [
            "",
            ":22",
            "h:",
            "h:0",
            "h:70000",
            "h:ssh",
            "[::1",
            "[::1]22",
            "-oProxyCommand=x",
            "a/b",
            "$(x)",
            "h:+22",
        ] {
            assert!(!is_host(text), "{text}");
        }
    }
}
