//! `alarm`: is everything normal, what stands, who has taken note; and telling the sinks at the end of runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::history::time;
use super::status::readable;
use super::{ledger_path, print, print_json, width};
use crate::alarm::{Told, deliver, look, test};
use crate::cli::{Acknowledge, AlarmCheck, AlarmCommand, Common, Format};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::{Cut, Inventory, Sink, TableEntry, TableSelector, WindowRule};
use crate::ledger::{Ledger, LedgerError};
use crate::report::alarm as report;
use crate::stop::Stop;
use crate::target::Address;

/// All sinks together may hold a command up for so long.
const LIMIT: Duration = Duration::from_secs(30);

/// Does what is asked about alarms.
///
/// # Errors
/// [`Failure`] where that could not be done at all.
pub(super) fn alarm(common: &Common, asked: &AlarmCommand) -> Result<Exit, Failure> {
    match asked {
        AlarmCommand::Check(asked) => check(common, asked),
        AlarmCommand::List { all } => list(common, *all),
        AlarmCommand::Ack(asked) => acknowledge(common, asked),
        AlarmCommand::Test { sink } => try_sinks(common, sink),
        AlarmCommand::Send => send(common),
    }
}

/// Looks at everything, tells the sinks, and says whether all is normal.
fn check(common: &Common, asked: &AlarmCheck) -> Result<Exit, Failure> {
    let inventory = super::jobs::inventory(common, &Stop::default())?;
    let now = Timestamp::now();
    let since = time("--since", &asked.since, now, &inventory.timezone)?;
    let ledger = open(common)?;
    let target = Address::new(&inventory.target.url, |name| std::env::var(name).ok())?;
    let looked = look(&ledger, &inventory, target.shown(), now)?;
    tell(&ledger, &inventory)?;
    let (raised, over) = ledger.alarms_since(since)?;
    let found = report::Found {
        standing: &looked.standing,
        since,
        raised,
        over,
        waiting: ledger.untold()?,
        only_unacknowledged: asked.unacknowledged,
        never_late: never_late(&inventory),
    };
    match common.format {
        Format::Text => print(&report::check_text(&found, &inventory.timezone, width()))?,
        Format::Json => print_json(&report::check_json(&found))?,
    }
    Ok(if found.is_normal() { Exit::Done } else { Exit::Differ })
}

/// Tables with a `late_after` whose windows are of ids.
fn never_late(inventory: &Inventory) -> Vec<String> {
    let entries = inventory.jobs.iter().flat_map(|job| job.tables.iter().map(move |entry| (job, entry)));
    let by_ids = |entry: &TableEntry| match &entry.window {
        WindowRule::By(by) => matches!(by.cut, Cut::Ids { .. }),
        WindowRule::None { .. } => false,
    };
    let late = entries.filter(|(_, entry)| entry.late_after.is_some() && by_ids(entry));
    late.map(|(job, entry)| match &entry.what {
        TableSelector::One(table) => format!("{table} ({})", job.name),
        TableSelector::Glob { pattern, .. } => format!("{pattern} ({})", job.name),
    })
    .collect()
}

fn list(common: &Common, all: bool) -> Result<Exit, Failure> {
    let ledger = open(common)?;
    let alarms = ledger.alarms(all)?;
    let zone = readable(common).map_or(TimeZone::UTC, |inventory| inventory.timezone);
    match common.format {
        Format::Text => print(&report::list_text(&alarms, &zone, width()))?,
        Format::Json => print_json(&report::list_json(&alarms))?,
    }
    Ok(Exit::Done)
}

fn acknowledge(common: &Common, asked: &Acknowledge) -> Result<Exit, Failure> {
    let ledger = open(common)?;
    let standing = ledger.alarms(false)?;
    let numbers: Vec<i64> =
        if asked.all { standing.iter().map(|alarm| alarm.number).collect() } else { asked.number.clone() };
    let wrong = numbers.iter().find(|number| !standing.iter().any(|alarm| alarm.number == **number));
    if let Some(number) = wrong {
        return Err(Failure::Usage {
            what: format!("no alarm {number} stands"),
            remedy: "`gpferry alarm list` shows the alarms that stand, with their numbers".into(),
        });
    }
    let (who, now) = (who(), Timestamp::now());
    let mut acked = Vec::new();
    for number in numbers {
        acked.extend(ledger.acknowledge(number, &who, now)?);
    }
    let zone = readable(common).map_or(TimeZone::UTC, |inventory| inventory.timezone);
    match common.format {
        Format::Text => print(&report::list_text(&acked, &zone, width()))?,
        Format::Json => print_json(&report::list_json(&acked))?,
    }
    Ok(Exit::Done)
}

/// The user and the machine.
fn who() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

/// Tells sinks a message that says nothing else.
fn try_sinks(common: &Common, names: &[String]) -> Result<Exit, Failure> {
    let inventory = crate::inventory::load(&common.inventory)?;
    let sinks = &inventory.alarms.sinks;
    let known = || sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>().join(", ");
    if sinks.is_empty() {
        let what = format!("{} has no sink of alarms", inventory.path.display());
        let remedy = "write one under `alarms:`; docs/alarms.md shows it".into();
        return Err(Failure::Usage { what, remedy });
    }
    if let Some(name) = names.iter().find(|name| !sinks.iter().any(|sink| sink.name == **name)) {
        let remedy = format!("the sinks of {} are: {}", inventory.path.display(), known());
        return Err(Failure::Usage { what: format!("there is no sink `{name}`"), remedy });
    }
    let now = Timestamp::now();
    let wanted = |sink: &&Sink| names.is_empty() || names.contains(&sink.name);
    let tried: Vec<Told> = sinks
        .iter()
        .filter(wanted)
        .map(|sink| {
            let error = test(sink, &inventory, now).err();
            Told { sink: sink.name.clone(), messages: usize::from(error.is_none()), error }
        })
        .collect();
    told(common, &tried)
}

/// Tells what waits, now.
fn send(common: &Common) -> Result<Exit, Failure> {
    let inventory = crate::inventory::load(&common.inventory)?;
    let ledger = open(common)?;
    match deliver(&ledger, &inventory, LIMIT)? {
        Some(sent) => told(common, &sent),
        None => {
            log::warn!("{BUSY}");
            Ok(Exit::Done)
        }
    }
}

/// Shows what became of sinks. Whoever asked for just that gets an exit code for it.
fn told(common: &Common, told: &[Told]) -> Result<Exit, Failure> {
    match common.format {
        Format::Text => print(&report::told_text(told, width()))?,
        Format::Json => print_json(&report::told_json(told))?,
    }
    Ok(if told.iter().any(|one| one.error.is_some()) { Exit::Preflight } else { Exit::Done })
}

const BUSY: &str = "another process tells the sinks right now; what waits is told by it, or the next time";

/// The ledger, which has to be there: of what is not recorded nobody can say that it is normal.
fn open(common: &Common) -> Result<Ledger, Failure> {
    let path: PathBuf = ledger_path(common);
    if !is_there(&path)? {
        let error = rustix::io::Errno::NOENT.into();
        return Err(LedgerError::Io { path, error }.into());
    }
    Ok(Ledger::open(&path)?)
}

fn is_there(path: &Path) -> Result<bool, LedgerError> {
    path.try_exists().map_err(|error| LedgerError::Io { path: path.to_owned(), error })
}

/// Tells the sinks; one that fails is only said.
fn tell(ledger: &Ledger, inventory: &Inventory) -> Result<(), LedgerError> {
    let Some(told) = deliver(ledger, inventory, LIMIT)? else {
        log::info!("{BUSY}");
        return Ok(());
    };
    for one in told {
        if let Some(error) = one.error {
            log::error!(
                "sink {} of alarms was not told, and is tried again the next time: {error} (try: {})",
                one.sink,
                error.remedy
            );
        }
    }
    Ok(())
}

/// Looks and tells at the end of a run. Whatever fails is said and no failure of the run; a run that is to stop tells
/// nobody, and the next one does.
pub(super) fn after_run(inventory: &Inventory, target: &Address, ledger: &Ledger, stop: &Stop) {
    if inventory.alarms.sinks.is_empty() {
        return;
    }
    let looked = look(ledger, inventory, target.shown(), Timestamp::now());
    let done = looked.and_then(|looked| {
        let (raised, over) = (looked.raised, looked.over);
        if raised + over > 0 {
            log::info!("alarms: {raised} raised, {over} over; {} stand", looked.standing.len());
        }
        if stop.asked() { Ok(()) } else { tell(ledger, inventory) }
    });
    if let Err(error) = done {
        log::error!("alarms are not told: {error} (try: {})", error.remedy());
    }
}
