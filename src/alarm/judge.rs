//! What is seen now against what stands: what is new, what goes on, what is over. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::ledger::alarms::{Alarm, Changes, Condition, Telling};

/// What stands of a job that this inventory does not have is another inventory's, or nobody's: after so long without
/// being seen it is over.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What is to be seen now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is wrong.
    pub conditions: Vec<Condition>,
    /// Keys of what nobody can say at the moment: it neither begins nor ends.
    pub undecided: HashSet<String>,
    /// The jobs that were looked at.
    pub jobs: HashSet<String>,
}

impl Changes {
    /// How many are told again.
    pub fn reminded(&self) -> usize {
        self.going.iter().filter(|(_, _, telling)| *telling == Telling::Again).count()
    }
}

/// What changes by what is seen. After a clock that was set back (`last_look` lies after `now`) what comes and goes with
/// the clock alone is left as it is, for this once, and nothing is told again since it seems old.
pub fn judge(
    standing: &[Alarm],
    seen: Seen,
    remind: Option<Duration>,
    last_look: Option<Timestamp>,
    now: Timestamp,
) -> Changes {
    let clock_went_back = last_look.is_some_and(|last| last > now);
    let undecided = seen.undecided;
    let is_open = |condition: &Condition| {
        undecided.contains(&condition.key) || (clock_went_back && condition.kind.is_by_clock())
    };
    let mut changes = Changes::default();
    let mut left: HashMap<String, Condition> = HashMap::new();
    let mut order = Vec::new();
    for condition in seen.conditions {
        if !left.contains_key(&condition.key) {
            order.push(condition.key.clone());
            left.insert(condition.key.clone(), condition);
        }
    }
    for alarm in standing {
        let key = &alarm.condition.key;
        if let Some(condition) = left.remove(key) {
            changes.going.push((alarm.number, condition, telling(alarm, remind, now)));
        } else if !seen.jobs.contains(&alarm.condition.job) {
            if since(alarm.seen_at, now) >= FORGOTTEN {
                changes.over.push(alarm.number);
            }
        } else if !is_open(&alarm.condition) {
            changes.over.push(alarm.number);
        }
    }
    for key in order {
        let Some(condition) = left.remove(&key) else { continue };
        if !is_open(&condition) {
            changes.raised.push(condition);
        }
    }
    changes
}

/// Is one that goes on told again?
fn telling(alarm: &Alarm, remind: Option<Duration>, now: Timestamp) -> Telling {
    if alarm.told_at > now {
        return Telling::Nowadays;
    }
    match remind {
        Some(remind) if alarm.acked.is_none() && since(alarm.told_at, now) >= remind => Telling::Again,
        Some(_) | None => Telling::Nothing,
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(then).try_into().unwrap_or_default()
}
