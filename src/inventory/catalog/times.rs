//! Times and lengths as the older tables hold them, and what is odd about them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Unit};

use crate::inventory::scalars;
use crate::inventory::yaml::Value;
use crate::window::Length;

/// The half-open bound that a closed end means: `…:59`, also with a fraction of nines, is the last moment of a
/// minute. `None` where the end is no closed one. An offset behind it is kept.
pub(super) fn half_open(text: &str) -> Option<String> {
    let time_end = text.char_indices().skip(19).find(|(_, c)| !c.is_ascii_digit() && *c != '.');
    let (civil, offset) = text.split_at(time_end.map_or(text.len(), |(at, _)| at));
    let fraction = civil.split_once('.').map_or("", |(_, fraction)| fraction);
    let whole = fraction.chars().all(|c| c == '0') || fraction.chars().all(|c| c == '9');
    let time = scalars::civil(civil)?;
    if time.second() != 59 || !whole {
        return None;
    }
    let minute = time.with().second(0).subsec_nanosecond(0).build().ok()?;
    let bound = minute.checked_add(Span::new().minutes(1)).ok()?;
    Some(format!("{}{offset}", written(bound)))
}

/// As an inventory writes it.
pub(super) fn written(time: DateTime) -> String {
    format!("{} {}", time.date(), time.time())
}

/// When that is, in the inventory's zone.
pub(super) fn moment(text: &str, zone: &TimeZone) -> Option<DateTime> {
    scalars::moment(text, zone)
}

/// A number of hours as people write a length; any other text as it is.
pub(super) fn length(text: &str) -> Value {
    let Ok(hours) = text.parse::<f64>() else { return Value::Text(text.into()) };
    let minutes = hours * 60.0;
    if !(hours.is_finite() && hours > 0.0 && minutes < 1e9) {
        return Value::Text(text.into());
    }
    if hours.fract() == 0.0 {
        Value::Text(format!("{hours}h"))
    } else if minutes.fract() == 0.0 {
        Value::Text(format!("{minutes}m"))
    } else {
        Value::Text(text.into())
    }
}

/// Does a length go into a range a whole number of times? Days are 24 hours here.
pub(super) fn divides(length: Length, from: DateTime, until: DateTime) -> bool {
    let Ok(range) = from.until((Unit::Hour, until)) else { return false };
    let range = range.total(Unit::Microsecond).unwrap_or_default();
    let length = length.as_duration().as_secs_f64() * 1e6;
    length > 0.0 && (range / length).fract().abs() < 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn a_closed_end_becomes_the_bound_behind_it() {
        for (closed, bound) in [
            ("2021-08-10 23:59:59", "2021-08-11 00:00:00"),
            ("2021-12-31T23:59:59.999999", "2022-01-01 00:00:00"),
            ("2021-08-10 03:59:59.000", "2021-08-10 04:00:00"),
            ("2021-08-10 03:59:59.999+08", "2021-08-10 04:00:00+08"),
            ("2021-08-10 03:59:59 +08:00", "2021-08-10 04:00:00 +08:00"),
        ] {
            assert_eq!(half_open(closed).as_deref(), Some(bound), "{closed}");
        }
        for open in [
            "2021-08-11 00:00:00",
            "2021-08-11",
            "2021-08-10 23:59",
            "2021-08-10 23:59:58",
            "2021-08-10 23:59:59.5",
            "infinity",
            "",
            "9999-12-31 23:59:59",
            "二〇二一年八月十日二三時五九分五九秒五",
        ] {
            assert_eq!(half_open(open), None, "{open}");
        }
    }

    #[test]
    fn numbers_of_hours_are_written_as_lengths() {
        for (text, written) in [
            ("4", "4h"),
            ("4.00", "4h"),
            ("0.5", "30m"),
            ("0.0001", "0.0001"),
            ("2d", "2d"),
            ("soon", "soon"),
            ("0", "0"),
            ("-1", "-1"),
        ] {
            assert_eq!(length(text), Value::Text(written.into()), "{text}");
        }
    }

    #[test]
    fn a_length_divides_a_range_or_does_not() {
        let (from, until) = (date(2021, 8, 10).at(0, 0, 0, 0), date(2021, 8, 10).at(10, 0, 0, 0));
        assert!(divides("2.5".parse().unwrap(), from, until));
        assert!(!divides("4h".parse().unwrap(), from, until));
        assert!(!divides("4h".parse().unwrap(), until, from) || from > until);
    }
}
