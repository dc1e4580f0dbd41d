//! Does a file hold what its window means, and nothing else? Pure.
//!
//! Older scripts often closed their windows on both ends. Then a row on the boundary is in two files, and a table
//! without a key would hold it twice. So each row's window column is held against the window.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::file_pattern::time_text;
use crate::window::{Window, instant, last_instant};

/// Counts rows that are outside of a window. A time that is not written as ISO (`infinity`, before Christ, another
/// DateStyle) is not judged.
#[derive(Debug)]
pub(super) struct Bounds {
    start: (String, Option<Timestamp>),
    end: (String, Option<Timestamp>),
    /// Rows before the start.
    pub(super) before: u64,
    /// Rows at the end or after it.
    pub(super) after: u64,
}

impl Bounds {
    pub(super) fn of(window: Window, zone: &TimeZone) -> Self {
        Self {
            start: (time_text(window.start()), instant(window.start(), zone)),
            // Where the clock shows a bound twice, the database takes the later of the two.
            end: (time_text(window.end()), last_instant(window.end(), zone)),
            before: 0,
            after: 0,
        }
    }

    /// Looks at the window column of one row: `date`, `timestamp` or `timestamp with time zone`, as PostgreSQL writes
    /// them in ISO style.
    pub(super) fn look(&mut self, field: &[u8]) {
        let Some(text) = std::str::from_utf8(field).ok().filter(|text| is_iso(text)) else { return };
        let (is_before, is_after) = match text.get(19..) {
            // A day: windows of such columns begin and end at midnight.
            None => (text < &self.start.0[..10], text >= &self.end.0[..10]),
            Some(rest) => match rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit()) {
                // Civil times of one form are in the order of their texts.
                "" => (text < self.start.0.as_str(), text >= self.end.0.as_str()),
                _ => {
                    let Ok(time) = text.parse::<Timestamp>() else { return };
                    (
                        self.start.1.is_some_and(|start| time < start),
                        self.end.1.is_some_and(|end| time >= end),
                    )
                }
            },
        };
        self.before += u64::from(is_before);
        self.after += u64::from(is_after);
    }
}

/// `YYYY-MM-DD`, or that and ` hh:mm:ss` and anything.
fn is_iso(text: &str) -> bool {
    let form = |text: &str, form: &str| {
        text.len() == form.len()
            && text
                .bytes()
                .zip(form.bytes())
                .all(|(a, b)| if b == b'0' { a.is_ascii_digit() } else { a == b })
    };
    form(text, "0000-00-00") || text.get(..19).is_some_and(|head| form(head, "0000-00-00 00:00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn outside(fields: &[&str]) -> (u64, u64) {
        let day = date(2021, 8, 10);
        let window = Window::new(day.at(0, 0, 0, 0), date(2021, 8, 11).at(0, 0, 0, 0)).unwrap();
        let mut bounds = Bounds::of(window, &TimeZone::get("Asia/Shanghai").unwrap());
        fields.iter().for_each(|field| bounds.look(field.as_bytes()));
        (bounds.before, bounds.after)
    }

    #[test]
    fn the_start_is_inside_and_the_end_is_not() {
        assert_eq!(outside(&["2021-08-10 00:00:00", "2021-08-10 23:59:59.999999", "2021-08-10"]), (0, 0));
        assert_eq!(outside(&["2021-08-11 00:00:00", "2021-08-11 00:00:00.000001", "2021-08-11"]), (0, 3));
        assert_eq!(outside(&["2021-08-09 23:59:59.999999", "2021-08-09", "0001-01-01 00:00:00"]), (3, 0));
    }

    #[test]
    fn times_with_an_offset_are_instants() {
        assert_eq!(
            outside(&["2021-08-10 00:00:00+08", "2021-08-09 16:00:00+00", "2021-08-10 21:29:59.5+05:30"]),
            (0, 0)
        );
        assert_eq!(outside(&["2021-08-11 00:00:00+08", "2021-08-10 16:00:00+00"]), (0, 2));
        assert_eq!(outside(&["2021-08-09 15:59:59.999999+00"]), (1, 0));
    }

    #[test]
    fn what_is_not_iso_is_not_judged() {
        let odd = [
            "",
            "infinity",
            "-infinity",
            "0044-03-15 00:00:00 BC",
            "10/08/2031",
            "12021-08-10 00:00:00",
            "表表表表表表表",
        ];
        assert_eq!(outside(&odd), (0, 0));
    }

    #[test]
    fn a_bound_that_the_clock_shows_twice_is_judged_mildly() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let day = date(2021, 11, 7);
        let window = Window::new(day.at(0, 0, 0, 0), day.at(1, 30, 0, 0)).unwrap();
        let mut bounds = Bounds::of(window, &zone);
        bounds.look(b"2021-11-07 01:29:00-05");
        assert_eq!(bounds.after, 0);
        bounds.look(b"2021-11-07 01:30:00-05");
        assert_eq!(bounds.after, 1);
    }
}
