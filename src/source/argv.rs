//! One call of a script that people already have: `sh SCRIPT START END TABLE SCHEMA DATABASE START^END COLUMN`.
//!
//! The arguments travel as data to `scripts/argv.sh`, which makes the call; so a login shell of any kind never sees
//! them. Here is what they are, and what is heard of a call. What the file is worth is for the step to find out.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use thiserror::Error;

use super::protocol::ProtocolError;
use super::{Conversation, Reply, Request, Script, SourceError};
use crate::file_pattern::time_text;
use crate::measure::{Measure, Scale};
use crate::remote::{CommandFailed, Ending, Remote};
use crate::stop::Stop;
use crate::unit::{Extent, Unit};

/// How often a call that runs looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why a unit cannot be told to such a script.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArgumentError {
    /// It has no window.
    #[error("{0} has no window, and a script that is called by arguments needs a start and an end")]
    NoWindow(String),
    /// Its rows are not told apart by time.
    #[error("{0} is not cut by times, and a script that is called by arguments takes nothing else")]
    NotTimes(String),
    /// Rows that are in the target already by another window column must be left out.
    #[error(
        "some rows of {0} are in the target by another window column, and a script that is called by arguments \
         cannot leave them out"
    )]
    LeftOut(String),
    /// A bound within a second.
    #[error(
        "the window's bound {0} is within a second, and a script that is called by arguments takes whole seconds: \
         it would export other rows than the unit stands for"
    )]
    WithinASecond(DateTime),
}

/// The seven arguments. Times are `YYYY-MM-DD hh:mm:ss` in the inventory's zone; names are as the catalog holds them.
///
/// # Errors
/// [`ArgumentError`].
pub fn arguments(unit: &Unit, database: &str) -> Result<[String; 7], ArgumentError> {
    let shown = || unit.table.to_string();
    let window = match unit.extent {
        Extent::Times(window) => window,
        Extent::Whole | Extent::Repeated(_) | Extent::Slice(_) => {
            return Err(ArgumentError::NoWindow(shown()));
        }
        Extent::Nulls | Extent::Ids(_) => return Err(ArgumentError::NotTimes(shown())),
    };
    let Measure::By(Scale::Time, column) = &unit.rows.measure else {
        return Err(ArgumentError::NotTimes(shown()));
    };
    if !unit.rows.without.is_empty() {
        return Err(ArgumentError::LeftOut(shown()));
    }
    if let Some(bound) = [window.start(), window.end()].into_iter().find(|at| at.subsec_nanosecond() != 0) {
        return Err(ArgumentError::WithinASecond(bound));
    }
    let (start, end) = (time_text(window.start()), time_text(window.end()));
    let both = format!("{start}^{end}");
    let table = &unit.table;
    Ok([start, end, table.table().into(), table.schema().into(), database.into(), both, column.clone()])
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct CallOrder<'a> {
    /// Completes "while it ran …".
    pub what: &'a str,
    /// Where the unit's file will stand, as the host sees it. What stands there before is put aside.
    pub file: &'a str,
    /// The script's path on the host.
    pub script: &'a str,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Longest time that it may take.
    pub timeout: Duration,
    /// The zone of its arguments, for its database session.
    pub zone: &'a TimeZone,
    /// This run, for its database session.
    pub run: &'a str,
}

/// A call that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The script's exit code.
    pub code: u32,
    /// Size of the file that it wrote, in bytes, as the host sees it.
    pub bytes: Option<u64>,
    /// How long it took, until everything that it had started was over.
    pub took: Duration,
    /// The last lines of its stderr, without those in which a database quotes rows.
    pub stderr: String,
}

/// What became of a call.
#[derive(Debug)]
pub enum CallEnd {
    /// It ended by itself.
    Called(Called),
    /// It could not be made, or was stopped since its time was over. Other units may fare better.
    Failed(SourceError),
}

/// Makes a call and waits for its end. `script` is the one that makes it ([`Script::exporting`]).
///
/// # Errors
/// [`SourceError`] where nobody knows how it ended, or a stop was asked for.
pub fn call(
    remote: &mut dyn Remote,
    script: &Script,
    order: CallOrder<'_>,
    stop: &Stop,
) -> Result<CallEnd, SourceError> {
    let host = remote.host().to_owned();
    let mut talk = Conversation::start(remote, script, "call", order.what, order.timeout)?;
    if let Some(zone) = order.zone.iana_name() {
        talk.ask(&Request::Set { name: "PGTZ", value: zone.into() });
    }
    talk.ask(&Request::Set { name: "PGAPPNAME", value: format!("gpferry {}", order.run) });
    let words = std::iter::once(order.script.to_owned()).chain(order.arguments.iter().cloned()).collect();
    talk.ask(&Request::Call { no: 0, file: order.file.into(), words });
    talk.ask(&Request::End);
    let mut facts = Facts::default();
    let (mut told_to_stop, mut answer) = (false, None);
    let code = loop {
        if stop.asked() && !told_to_stop {
            told_to_stop = true;
            talk.ask(&Request::Stop);
        }
        match talk.next(LOOK_EVERY)? {
            None | Some(Reply::Beat | Reply::Hello { .. }) => {}
            Some(Reply::Row { text, .. }) => facts.read(&text),
            Some(Reply::Part { no, .. }) => return Err(talk.protocol(ProtocolError::Unasked(no))),
            Some(Reply::Done { took, .. }) => answer = Some(Ok(took)),
            Some(Reply::Error { sqlstate, message, .. }) => {
                answer =
                    Some(Err(SourceError::failed(&host, order.what.into(), sqlstate.as_deref(), &message)));
            }
            Some(Reply::End { code }) => break code,
        }
    };
    let stderr = without_rows(&talk.finish());
    match (code, answer, facts.code) {
        (0, Some(Ok(took)), Some(code)) => {
            Ok(CallEnd::Called(Called { code, bytes: facts.bytes, took, stderr }))
        }
        (0, Some(Err(error)), _) => Ok(CallEnd::Failed(error)),
        (124, ..) => {
            let ending = Ending::TimedOut { after: order.timeout };
            Ok(CallEnd::Failed(CommandFailed::new(&host, order.what, ending, &stderr).into()))
        }
        // It ended in order without having said how the call ended.
        (0, ..) => Err(SourceError::GivenUp { host, code: 2 }),
        (code, ..) => Err(SourceError::GivenUp { host, code }),
    }
}

/// What the rows of an answer say.
#[derive(Debug, Default)]
struct Facts {
    code: Option<u32>,
    bytes: Option<u64>,
}

impl Facts {
    fn read(&mut self, row: &str) {
        match row.split_once('\t') {
            Some(("exit", code)) => self.code = code.parse().ok(),
            Some(("file", bytes)) => self.bytes = bytes.parse().ok(),
            _ => {}
        }
    }
}

/// DETAIL and CONTEXT of a database's errors hold rows, which belong in no log.
fn without_rows(stderr: &str) -> String {
    let holds_rows = |line: &&str| {
        let line = line.trim_start();
        ["DETAIL:", "CONTEXT:"].iter().any(|word| line.starts_with(word))
    };
    stderr.lines().filter(|line| !holds_rows(line)).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_pattern::tests::unit;
    use crate::measure::{Loaded, everything};
    use jiff::civil::date;
    use std::sync::Arc;

    #[test]
    fn arguments_are_as_older_scripts_take_them() {
        let end = date(2021, 8, 10).at(2, 0, 0, 0);
        let words = arguments(&unit("a'; touch x; '", Some(end)), "q d").unwrap();
        let (start, end) = ("2021-08-09 22:00:00", "2021-08-10 02:00:00");
        let both = format!("{start}^{end}");
        assert_eq!(words, [start, end, "a'; touch x; '", "s.x", "q d", &both, "c ol"]);
    }

    #[test]
    fn a_unit_that_such_a_script_has_no_words_for_is_refused() {
        let within = date(2021, 8, 10).at(2, 0, 0, 500_000);
        assert_eq!(arguments(&unit("t", Some(within)), "d"), Err(ArgumentError::WithinASecond(within)));
        let whole = unit("t", None);
        assert_eq!(arguments(&whole, "d"), Err(ArgumentError::NoWindow(whole.table.to_string())));
    }

    #[test]
    fn what_is_there_by_another_measure_cannot_be_left_out() {
        let mut unit = unit("t", Some(date(2021, 8, 10).at(2, 0, 0, 0)));
        let loaded = Loaded { measure: Measure::All, tag: None, intervals: vec![everything()] };
        let rows = Arc::make_mut(&mut unit.rows);
        rows.without.push(loaded);
        assert!(matches!(arguments(&unit, "d"), Err(ArgumentError::LeftOut(_))));
        let rows = Arc::make_mut(&mut unit.rows);
        rows.measure = Measure::By(Scale::EpochMillis, "n".into());
        assert!(matches!(arguments(&unit, "d"), Err(ArgumentError::NotTimes(_))));
    }

    #[test]
    fn a_call_is_one_line_of_fields() {
        let words = ["/x y.sh", "a b", "c\td\n", ""].map(str::to_owned).to_vec();
        let line = Request::Call { no: 7, file: "/m/f.gz".into(), words }.line();
        assert_eq!(line, "call\t7\t/m/f.gz\t/x y.sh\ta b\tc d \t\n");
    }

    #[test]
    fn rows_of_an_answer_are_read() {
        let mut facts = Facts::default();
        for row in ["exit\t99", "file\tabsent", "else\t5", ""] {
            facts.read(row);
        }
        assert_eq!((facts.code, facts.bytes), (Some(99), None));
        facts.read("file\t12");
        assert_eq!(facts.bytes, Some(12));
    }

    #[test]
    fn what_holds_rows_is_left_out_of_stderr() {
        let stderr =
            "ERROR:  duplicate key\nDETAIL:  Key (a)=(secret)\nCONTEXT:  COPY t, line 1: \"x\"\nbye\n";
        assert_eq!(without_rows(stderr), "ERROR:  duplicate key\nbye\n");
    }
}
