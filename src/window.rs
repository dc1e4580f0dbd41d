//! Windows: half-open intervals of civil time, and the lengths they are cut by. Pure.
//!
//! A window is `[start, end)`: its end belongs to the next one. Closed ends are how the scripts that gpferry
//! replaces exported boundary rows twice. Arithmetic is civil: a `1d` window is a day of the calendar, 23 or
//! 25 hours long where the clock changes, and windows that touch in civil time touch in real time too.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use thiserror::Error;

use crate::interval::Interval;

/// A length of time as an inventory writes it: `4h`, `90s`, `1 day`, `250ms`, or a bare number of hours.
/// Positive, at most weeks (a month has no one length).
#[derive(Debug, Clone, Copy)]
pub struct Length(Span);

/// Why a text is not a [`Length`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LengthError {
    /// Not a number with a unit.
    #[error("`{0}` is not a length of time (write 500ms, 90s, 15m, 4h, 1d, 2w, or a bare number of hours)")]
    Unreadable(String),
    /// Zero or less.
    #[error("`{0}` is not longer than nothing")]
    NotPositive(String),
    /// Months, years, nanoseconds.
    #[error("`{0}` uses a unit that gpferry does not take (use us, ms, s, m, h, d or w)")]
    Unit(String),
}

impl Length {
    /// A whole number of hours, for defaults.
    pub fn hours(hours: i64) -> Self {
        Self(Span::new().hours(hours))
    }

    /// As a fixed duration, days being 24 hours: for limits and pauses, not for windows.
    pub fn as_duration(self) -> Duration {
        self.0
            .to_duration(SpanRelativeTo::days_are_24_hours())
            .ok()
            .and_then(|signed| Duration::try_from(signed).ok())
            .unwrap_or(Duration::MAX)
    }

    /// In microseconds of civil time ([`micros()`]), where a day is a day of the calendar.
    pub fn micros(self) -> i64 {
        i64::try_from(self.as_duration().as_micros()).unwrap_or(i64::MAX)
    }
}

impl PartialEq for Length {
    fn eq(&self, other: &Self) -> bool {
        self.0.fieldwise() == other.0.fieldwise()
    }
}

/// As jiff's friendly format writes it: `4h`, `1d`.
impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl FromStr for Length {
    type Err = LengthError;

    fn from_str(text: &str) -> Result<Self, LengthError> {
        let text = text.trim();
        if let Ok(hours) = text.parse::<f64>() {
            let micros = hours * 3.6e9;
            if !(micros.is_finite() && micros <= 1e17) {
                return Err(LengthError::Unreadable(text.into()));
            }
            if micros < 1.0 {
                return Err(LengthError::NotPositive(text.into()));
            }
            #[expect(clippy::cast_possible_truncation, reason = "bounded above, and whole by rounding")]
            let micros = micros.round() as i64;
            let span = if micros % 3_600_000_000 == 0 {
                Span::new().hours(micros / 3_600_000_000)
            } else {
                Span::new().microseconds(micros)
            };
            return Ok(Self(span));
        }
        if text.starts_with(['P', 'p', '+']) {
            return Err(LengthError::Unreadable(text.into()));
        }
        let span: Span = text.parse().map_err(|_| LengthError::Unreadable(text.into()))?;
        if span.get_years() != 0 || span.get_months() != 0 || span.get_nanoseconds() != 0 {
            return Err(LengthError::Unit(text.into()));
        }
        if !span.is_positive() {
            return Err(LengthError::NotPositive(text.into()));
        }
        Ok(Self(span))
    }
}

/// A half-open interval of civil time, in the inventory's zone.
pub type Window = Interval<DateTime>;

/// `2021-08-10 00:00:00 … 04:00:00`: the end's day only where it differs.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} … ", self.start().date(), self.start().time())?;
        if self.start().date() != self.end().date() {
            write!(f, "{} ", self.end().date())?;
        }
        write!(f, "{}", self.end().time())
    }
}

/// A civil time as a number, so that windows can be cut and subtracted like any numbers: microseconds since
/// 1970-01-01 00:00:00 on the same clock. Civil days have 24 hours there; what the clock does in a zone is
/// asked only where a bound becomes an instant.
pub fn micros(time: DateTime) -> i64 {
    let since = time.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    // The calendar's years fit twenty times.
    i64::try_from(since.as_micros()).unwrap_or(if since.is_negative() { i64::MIN } else { i64::MAX })
}

/// The civil time of a number that [`micros`] gave; outside the calendar, its nearest end.
pub fn civil(micros: i64) -> DateTime {
    let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    epoch.saturating_add(SignedDuration::from_micros(micros))
}

/// Up to which civil time everything is over at `now`: no clock in the zone shows an earlier one again. Where the
/// clock will be set back, that is the time it will be set back to.
pub fn settled(now: Timestamp, zone: &TimeZone) -> DateTime {
    let shown = zone.to_datetime(now);
    let again = last_instant(shown, zone).is_some_and(|last| last > now);
    match zone.following(now).next() {
        Some(set_back) if again => zone.to_datetime(set_back.timestamp()),
        Some(_) | None => shown,
    }
}

/// The instant of a civil time in a zone, such that a later civil time is never an earlier instant: a time that
/// the clock skips is the instant of the skip, one that it shows twice is the first. `None` outside the years of
/// the calendar.
pub fn instant(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            let before = ambiguous.earlier().ok()?;
            zone.following(before).next().map(|transition| transition.timestamp())
        }
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
    }
}

/// The last instant that a clock in the zone shows a civil time: until then rows with earlier times may come.
pub fn last_instant(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_ambiguous_timestamp(time).later().ok()
}

/// `2h 5m`, `3d 4h`, `40s`: the two largest units of a duration in seconds.
pub fn human(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(units.len() - 1);
    let (name, size) = units[first];
    let next = units.get(first + 1).map(|(name, smaller)| (name, seconds % size / smaller));
    match next.filter(|(_, count)| *count > 0) {
        Some((next, count)) => format!("{}{name} {count}{next}", seconds / size),
        None => format!("{}{name}", seconds / size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_said_in_its_two_largest_units() {
        for (seconds, said) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7_500, "2h 5m"),
            (7_205, "2h"),
            (86_400 * 3 + 3_600 * 4 + 59, "3d 4h"),
        ] {
            assert_eq!(human(seconds), said);
        }
    }
    use proptest::prelude::*;

    #[test]
    fn lengths_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("4h", 14_400.0),
            ("4", 14_400.0),
            ("0.5", 1_800.0),
            ("90 seconds", 90.0),
            ("1d", 86_400.0),
            ("2w", 1_209_600.0),
            ("250ms", 0.25),
            ("7us", 0.000_007),
            ("3 microseconds", 0.000_003),
            ("2 weeks", 1_209_600.0),
        ] {
            let length: Length = text.parse().unwrap();
            assert!((length.as_duration().as_secs_f64() - seconds).abs() < 1e-9, "{text}: {length}");
        }
    }

    #[test]
    fn what_is_no_length_says_why() {
        for (text, error) in [
            ("soon", LengthError::Unreadable("soon".into())),
            ("PT4H", LengthError::Unreadable("PT4H".into())),
            ("0h", LengthError::NotPositive("0h".into())),
            ("-2", LengthError::NotPositive("-2".into())),
            ("1 month", LengthError::Unit("1 month".into())),
        ] {
            assert_eq!(text.parse::<Length>().unwrap_err(), error);
        }
    }

    #[test]
    fn where_the_clock_changes_windows_still_touch() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let at = |text: &str| instant(text.parse().unwrap(), &zone).unwrap().to_string();
        // 02:00 to 03:00 is skipped on 2021-03-14: all of it is the instant of the skip.
        for skipped in ["2021-03-14T02:00", "2021-03-14T02:30", "2021-03-14T03:00"] {
            assert_eq!(at(skipped), "2021-03-14T07:00:00Z", "{skipped}");
        }
        assert_eq!(at("2021-03-14T01:30"), "2021-03-14T06:30:00Z");
        // 01:00 to 02:00 comes twice on 2021-11-07.
        assert_eq!(at("2021-11-07T01:30"), "2021-11-07T05:30:00Z");
        let last = last_instant("2021-11-07T01:30".parse().unwrap(), &zone).unwrap();
        assert_eq!(last.to_string(), "2021-11-07T06:30:00Z");
    }

    #[test]
    fn what_will_be_shown_again_is_not_over() {
        let zone = TimeZone::get("America/New_York").unwrap();
        // 01:00 to 02:00 comes at 05:00 and again at 06:00 UTC.
        for (now, over) in [
            ("2021-11-07T04:59:00Z", "2021-11-07T00:59:00"),
            ("2021-11-07T05:00:00Z", "2021-11-07T01:00:00"),
            ("2021-11-07T05:59:00Z", "2021-11-07T01:00:00"),
            ("2021-11-07T06:00:00Z", "2021-11-07T01:00:00"),
            ("2021-11-07T06:01:00Z", "2021-11-07T01:01:00"),
            ("2021-03-14T07:01:00Z", "2021-03-14T03:01:00"),
        ] {
            assert_eq!(settled(now.parse().unwrap(), &zone).to_string(), over, "{now}");
        }
    }

    proptest! {
        #[test]
        fn a_civil_time_is_its_number(micros in -62_000_000_000_000_000i64..253_000_000_000_000_000) {
            prop_assert_eq!(super::micros(civil(micros)), micros);
        }

        #[test]
        fn a_later_time_is_never_an_earlier_instant(minutes in 0i64..530_000, more in 0i64..200) {
            let zone = TimeZone::get("America/New_York").unwrap();
            let first: DateTime = "2021-01-01T00:00".parse().unwrap();
            let one = first.checked_add(Span::new().minutes(minutes)).unwrap();
            let two = one.checked_add(Span::new().minutes(more)).unwrap();
            prop_assert!(instant(one, &zone) <= instant(two, &zone));
        }
    }
}
