//! The runner among the hosts: asked by the same script, and the one that all others are compared with.

use crossbeam_channel::{Receiver, Sender};

use super::Area;
use super::access::Entry;
use super::choose::nowhere;
use super::facts::{self, HostFacts, Proof};
use super::gather::{FACTS_LIMIT, Ground, MOUNT_LIMIT, ONE_LIMIT, answer, name, prepare, text};
use super::visit::{Made, Place, Visit};
use crate::remote::local::Local;
use crate::source::Probe;
use crate::source::probe::Line;

/// What the runner has to say to the hosts once it has made its own proof, or why there is none.
pub(super) type Ready = Result<(), String>;

/// What a host has to ask of the runner.
pub(super) enum Question {
    /// "Do you see this file, with this text?"
    Look {
        /// Its name.
        name: String,
        /// What it holds.
        text: String,
        /// Where to say it.
        answer: Sender<Result<Entry, String>>,
    },
    /// "I may not have removed it."
    Forget {
        /// Its name.
        name: String,
    },
}

pub(super) fn runner_place(ground: Ground<'_>) -> Place {
    Place { host: "runner".into(), mount: ground.inventory.mount.path.display().to_string(), ..nowhere() }
}

/// The runner: what it sees, the subdirectory, its own proof, and then the hosts' questions.
pub(super) fn visit_runner(
    ground: Ground<'_>,
    tell: &[Sender<Ready>],
    questions: &Receiver<Question>,
) -> (Visit, Result<Made, String>) {
    let place = runner_place(ground);
    let mut here = Local::new("runner");
    let mut made = Ok(Made::NotAsked);
    let say = |ready: &Ready| tell.iter().for_each(|host| drop(host.send(ready.clone())));
    let begun = Probe::start(&mut here, MOUNT_LIMIT).and_then(|mut probe| {
        prepare(&mut probe, ground, &place, &[]);
        let facts = HostFacts::read(&probe.ask(&["facts"], FACTS_LIMIT)?);
        Ok((probe, facts))
    });
    let (mut probe, facts) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            say(&Err(format!("the runner could not look at the mount: {error}")));
            return (Visit { place, found: Err(error), proof: None, unproven: None }, made);
        }
    };
    let mut proof = None;
    if ground.looks_at(&[Area::Mount]) && facts.mount.hangs {
        say(&Err("the mount does not answer on the runner".into()));
    } else if ground.looks_at(&[Area::Mount]) {
        made = make(&mut probe);
        let wrote = match &made {
            Ok(_) => answer(
                probe.ask(&["write", &name(ground.run, 0), &text(ground.run, "runner")], ONE_LIMIT),
                facts::written,
            ),
            Err(why) => Err(why.clone()),
        };
        say(&wrote.as_ref().map(drop).map_err(|why| format!("the runner itself could not write: {why}")));
        proof = Some(Proof { wrote: Some(wrote), ..Proof::default() });
        for question in questions {
            hear(&mut probe, question);
        }
    }
    probe.end(ONE_LIMIT);
    (Visit { place, found: Ok(facts), proof, unproven: None }, made)
}

fn make(probe: &mut Probe<'_>) -> Result<Made, String> {
    let lines = probe.ask(&["make"], ONE_LIMIT).map_err(|error| error.to_string())?;
    let field = |line: &Line, at: usize| line.get(at).cloned().unwrap_or_default();
    let made = lines.iter().find(|line| field(line, 0) == "made");
    match made.map(|line| (field(line, 1), field(line, 2))) {
        Some((word, _)) if word == "there" => Ok(Made::There),
        Some((word, _)) if word == "new" => Ok(Made::ByUs),
        Some((_, why)) => Err(why.trim().trim_start_matches("mkdir: ").to_owned()),
        None => Err("the mount does not answer".into()),
    }
}

fn hear(probe: &mut Probe<'_>, question: Question) {
    match question {
        Question::Look { name, text, answer: to } => {
            let seen = answer(probe.ask(&["look", &name], ONE_LIMIT), |lines| facts::seen(lines, &text));
            // Whoever asked may have given up.
            drop(to.send(seen));
        }
        // Its own script removes it as well, once it notices that nobody is there any more.
        Question::Forget { name } => drop(probe.ask(&["forget", &name], ONE_LIMIT)),
    }
}
