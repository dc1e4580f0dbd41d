//! One unit after another by a script that people already have, each believed only for what its file holds.
//!
//! An exit code that means success proves nothing: such scripts end well when their directory is there already, when
//! half of a pipeline died, and when they wrote nothing. So what stood at the file's place is put aside before the
//! call, the answer comes only when everything that the script started is over, and the rows are counted in the file,
//! with the checksum of every gzip member, and held against the window.

use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use jiff::civil::Date;
use thiserror::Error;

use super::bounds::Bounds;
use super::export::{Ground, Order, Outcome, Written, record};
use super::{Stage, UnitFailure};
use crate::csv::{OpenQuote, RowCounter};
use crate::gzip::{CheckedReader, GzipError, Trailer};
use crate::inventory::{CustomScript, Source};
use crate::mount::{Exported, MountError};
use crate::remote::{CommandFailed, Ending, Remote, Status};
use crate::source::SourceError;
use crate::source::argv::{self, ArgumentError, CallEnd, CallOrder, Called};
use crate::unit::Unit;

/// Inflated bytes that are looked at at a time.
const PIECE: usize = 128 * 1024;

/// Why a unit was not exported by such a script.
#[derive(Debug, Error)]
pub enum CallError {
    /// The script has no words for the unit.
    #[error(transparent)]
    Arguments(#[from] ArgumentError),
    /// It ended otherwise than with success, or could not be called.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It said that all is well, and wrote nothing.
    #[error("{script} on `{host}` said success (exit code {code}), and {} is not there", .file.display())]
    NoFile {
        /// The script.
        script: String,
        /// The host.
        host: String,
        /// Its exit code.
        code: u32,
        /// Where the file should stand, as the host sees it.
        file: PathBuf,
    },
    /// It said that all is well, and the file has no bytes: not even gzip's own.
    #[error("{script} on `{host}` said success (exit code {code}), and {} is empty (0 bytes)", .file.display())]
    EmptyFile {
        /// The script.
        script: String,
        /// The host.
        host: String,
        /// Its exit code.
        code: u32,
        /// The file, as the host sees it.
        file: PathBuf,
    },
    /// The runner cannot see the file.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It is not a whole gzip file.
    #[error("the script said success, and {0}")]
    File(#[from] GzipError),
    /// It is not CSV.
    #[error("{} is not CSV as PostgreSQL writes it: {error}", .file.display())]
    NotCsv {
        /// The file, as the runner sees it.
        file: PathBuf,
        /// Why not.
        error: OpenQuote,
    },
    /// It holds rows of other windows.
    #[error(
        "{} holds rows outside of its window: {before} before its start, {after} at its end or after it", .file.display()
    )]
    OutsideWindow {
        /// The file, as the runner sees it.
        file: PathBuf,
        /// Rows before the start.
        before: u64,
        /// Rows at the end or after it.
        after: u64,
    },
    /// The run is to end.
    #[error("stopped while the rows of {} were counted", .0.display())]
    Stopped(PathBuf),
}

impl CallError {
    /// Can the same call succeed a moment later?
    fn can_retry(&self) -> bool {
        match self {
            Self::Source(error) => error.can_retry(),
            // A pipeline whose first half died leaves such files.
            Self::EmptyFile { .. } | Self::File(_) | Self::Stopped(_) => true,
            Self::Arguments(_)
            | Self::NoFile { .. }
            | Self::Mount(_)
            | Self::NotCsv { .. }
            | Self::OutsideWindow { .. } => false,
        }
    }

    /// What to try.
    fn remedy(&self) -> String {
        match self {
            Self::Arguments(ArgumentError::LeftOut(_)) => "go back to the window column that the table had before, or \
                 name the same host as another source without `script`, and move the table from there"
                .into(),
            Self::Arguments(_) => "give the window a length of whole seconds, or name the same host as another source \
                 without `script`, and move the table from there"
                .into(),
            Self::Source(error) => error.remedy(),
            Self::NoFile { file, .. } => format!(
                "see whether the script ends with success because {} is there already (empty it, or mend the script), \
                 and whether `script.file` in the inventory is where it writes",
                file.parent().unwrap_or(Path::new("its directory")).display()
            ),
            Self::EmptyFile { .. } | Self::File(_) => {
                "the script must not end with success when a part of it failed: `set -o pipefail` (bash), and the exit \
                 codes of psql and gzip"
                    .into()
            }
            Self::Mount(error) => error.remedy(),
            Self::NotCsv { .. } => {
                "let the script export by COPY … TO STDOUT WITH CSV, without a header; see scripts/README.md".into()
            }
            Self::OutsideWindow { .. } => {
                "windows are half-open: let the script export `>= START AND < END`, not `<= END`; and let its database \
                 session keep the time zone of PGTZ"
                    .into()
            }
            Self::Stopped(_) => "run again".into(),
        }
    }
}

impl From<&CallError> for UnitFailure {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Mount(error) => Self::of_mount(Stage::Export, error),
            CallError::Source(source) => {
                let own = match source {
                    SourceError::Command(failed) => is_units_own(failed),
                    other => other.is_units_own(),
                };
                Self { own, ..Self::of_source(Stage::Export, source) }
            }
            CallError::Arguments(_)
            | CallError::NoFile { .. }
            | CallError::EmptyFile { .. }
            | CallError::File(_)
            | CallError::NotCsv { .. }
            | CallError::OutsideWindow { .. }
            | CallError::Stopped(_) => {
                Self { can_retry: error.can_retry(), ..Self::new(Stage::Export, error, error.remedy()) }
            }
        }
    }
}

/// Was it the unit's own fault that a call failed? A script's code says nothing of that; its stderr may.
fn is_units_own(failed: &CommandFailed) -> bool {
    match failed.ending {
        Ending::TimedOut { .. } => true,
        Ending::Script(_) | Ending::General(_) | Ending::Misuse => {
            let said = failed.stderr_tail.join("\n");
            SourceError::failed(&failed.host, failed.what.clone(), None, &said).is_units_own()
        }
        Ending::Success
        | Ending::DatabaseLost
        | Ending::NotExecutable
        | Ending::NotFound
        | Ending::InvalidExit
        | Ending::Signalled { .. }
        | Ending::OutOfRange(_)
        | Ending::ServerSignal { .. }
        | Ending::Lost => false,
    }
}

/// Where a unit's file stands below the mount's subdirectory: by gpferry's own rule, or where the source's script puts
/// it.
///
/// # Errors
/// [`UnitFailure`] where that script cannot be asked for this unit.
pub fn file(source: &Source, unit: &Unit, today: Date) -> Result<PathBuf, UnitFailure> {
    let Some(script) = source.argv() else { return Ok(unit.relative_path(today)) };
    if let Err(error) = argv::arguments(unit, &source.database) {
        let failure = UnitFailure::from(&CallError::from(error));
        return Err(UnitFailure { stage: Stage::Check, ..failure });
    }
    Ok(script.file.path(unit, &source.database, today))
}

/// Exports units one after another. `report` hears of each that has an outcome, by its index in the plan.
///
/// # Errors
/// [`SourceError`] where the host is lost, or a stop was asked for: the units that `report` has not heard of are open.
pub(super) fn export(
    ground: Ground<'_>,
    script: &CustomScript,
    remote: &mut dyn Remote,
    orders: &[Order<'_>],
    mut report: impl FnMut(usize, Outcome),
) -> Result<(), SourceError> {
    for order in orders {
        let stopped = || SourceError::GivenUp { host: ground.source.host.clone(), code: 130 };
        if ground.stop.asked() {
            return Err(stopped());
        }
        let began = Timestamp::now();
        let called = match call(ground, script, remote, order)? {
            Ok(called) => called,
            Err(error) => {
                report(order.index, Outcome::Failed(UnitFailure::from(&error)));
                continue;
            }
        };
        let outcome = match believe(ground, script, order, &called, began) {
            Ok(exported) => Outcome::Exported { exported: exported.into(), took: called.took },
            Err(CallError::Stopped(_)) => return Err(stopped()),
            Err(error) => Outcome::Failed(UnitFailure::from(&error)),
        };
        report(order.index, outcome);
    }
    Ok(())
}

/// Makes the call of one unit. The inner error is the unit's own, the outer one the host's.
fn call(
    ground: Ground<'_>,
    script: &CustomScript,
    remote: &mut dyn Remote,
    order: &Order<'_>,
) -> Result<Result<Called, CallError>, SourceError> {
    let arguments = match argv::arguments(order.unit, &ground.source.database) {
        Ok(arguments) => arguments,
        Err(error) => return Ok(Err(error.into())),
    };
    let path = script.path.display().to_string();
    let what = format!("{path} for {}", order.unit.key.id);
    let call = CallOrder {
        what: &what,
        file: &ground.mount.path_on(&ground.source.mount, &order.file).display().to_string(),
        script: &path,
        arguments: &arguments,
        timeout: order.unit.entry.export.timeout,
        zone: ground.zone,
        run: ground.run,
    };
    Ok(match argv::call(remote, ground.script, call, ground.stop)? {
        CallEnd::Called(called) if meant_success(script, called.code) => Ok(called),
        CallEnd::Called(called) => {
            let failed = CommandFailed::new(&ground.source.host, &what, ending(&called), &called.stderr);
            Err(CallError::Source(failed.into()))
        }
        CallEnd::Failed(error) => Err(CallError::Source(error)),
    })
}

fn meant_success(script: &CustomScript, code: u32) -> bool {
    script.ok.iter().any(|&ok| u32::from(ok) == code)
}

/// The ending behind a code that does not mean success here; 0 may be one.
fn ending(called: &Called) -> Ending {
    match Ending::of(&Status::Exited(called.code), &called.stderr) {
        Ending::Success => Ending::Script(0),
        other => other,
    }
}

/// Sees the file from here, counts its rows, and writes the manifest line.
fn believe(
    ground: Ground<'_>,
    script: &CustomScript,
    order: &Order<'_>,
    called: &Called,
    began: Timestamp,
) -> Result<Exported, CallError> {
    let (name, host) = (script.path.display().to_string(), ground.source.host.clone());
    let there = || ground.mount.path_on(&ground.source.mount, &order.file);
    let bytes = match called.bytes {
        None => return Err(CallError::NoFile { script: name, host, code: called.code, file: there() }),
        Some(0) => return Err(CallError::EmptyFile { script: name, host, code: called.code, file: there() }),
        Some(bytes) => bytes,
    };
    let (rows, trailer) = count(ground, order, bytes)?;
    // Opened once more: what was counted must still be what stands there.
    let (_, now) = ground.mount.open_published(&order.file, bytes, Instant::now(), ground.stop)?;
    if now != trailer {
        return Err(MountError::Changed { path: ground.mount.path(&order.file) }.into());
    }
    let exported = Exported {
        file: order.file.clone(),
        rows,
        trailer,
        columns: order.columns.clone(),
        left_out: order.unit.rows.left_out(),
        parts: Box::default(),
    };
    let written = Written {
        compressor: "the script's own",
        settings: "the script's own; PGTZ, PGDATESTYLE=ISO,YMD PGCLIENTENCODING=UTF8 extra_float_digits=2 were \
                   offered by the environment",
        script: &name,
        began,
        took: called.took,
    };
    record(ground, order, &exported, &written)?;
    Ok(exported)
}

fn count(ground: Ground<'_>, order: &Order<'_>, bytes: u64) -> Result<(u64, Trailer), CallError> {
    let path = ground.mount.path(&order.file);
    let until = ground.mount.patience();
    let (file, trailer) = ground.mount.open_published(&order.file, bytes, until, ground.stop)?;
    let mut bounds = order.unit.extent.window().map(|window| Bounds::of(*window, ground.zone));
    let column = order.unit.rows.measure.column();
    let watched = order.columns.iter().position(|name| Some(name.as_str()) == column);
    let counter = RowCounter::watching(watched, |field| bounds.iter_mut().for_each(|one| one.look(field)));
    let rows = read_rows(ground, CheckedReader::new(file, &path, &trailer), counter, &path)?;
    match bounds {
        Some(Bounds { before, after, .. }) if before + after > 0 => {
            Err(CallError::OutsideWindow { file: path, before, after })
        }
        Some(_) | None => Ok((rows, trailer)),
    }
}

fn read_rows(
    ground: Ground<'_>,
    mut reader: CheckedReader,
    mut counter: RowCounter<impl FnMut(&[u8])>,
    path: &Path,
) -> Result<u64, CallError> {
    let mut piece = vec![0; PIECE];
    loop {
        if ground.stop.asked() {
            return Err(CallError::Stopped(path.into()));
        }
        match reader.next(&mut piece)? {
            0 => return counter.finish().map_err(|error| CallError::NotCsv { file: path.into(), error }),
            n => counter.feed(&piece[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_down_is_not_the_unit_s_own_fault() {
        let own = |ending, stderr: &str| is_units_own(&CommandFailed::new("h", "x.sh", ending, stderr));
        assert!(own(Ending::Script(100), "ERROR:  column \"x\" does not exist\n"));
        assert!(own(Ending::Script(100), ""));
        assert!(!own(Ending::Script(100), "psql: could not connect to server: Connection refused\n"));
        assert!(!own(Ending::Script(100), "gzip: stdout: No space left on device\n"));
        assert!(own(Ending::TimedOut { after: std::time::Duration::ZERO }, ""));
        assert!(!own(Ending::Signalled { number: 9, name: "SIGKILL" }, ""));
    }
}
