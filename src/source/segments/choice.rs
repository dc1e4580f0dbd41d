//! By which way a unit is exported: one COPY through the coordinator, or a part by each segment. Pure.

use super::Facts;
use crate::inventory::ExportMethod;

/// Units of at least so many bytes are worth a process and a file on every segment.
const LARGE: u64 = 256 << 20;

/// The oldest server whose external tables are known to do this: Greenplum 6.
const OLDEST: u32 = 90_400;

/// Whether the segments see the mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nobody looked.
    NotAsked,
    /// Each of them read what the runner had written there, and may write.
    ByAll,
    /// At least one does not: which, and what it lacks.
    Not(String),
}

/// What is known of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What the inventory says.
    pub method: ExportMethod,
    /// Its size in the source, in bytes, as far as it is known.
    pub bytes: Option<u64>,
    /// Is it a slice of something large?
    pub is_slice: bool,
}

impl Wanted {
    /// Might it be exported by the segments? Then the source is worth asking.
    pub fn may_be(self) -> bool {
        match self.method {
            ExportMethod::Copy => false,
            ExportMethod::Segments => true,
            ExportMethod::Auto => self.why_not().is_none(),
        }
    }

    /// Why `auto` means COPY, whatever the source is.
    fn why_not(self) -> Option<&'static str> {
        match self.bytes {
            _ if self.is_slice => None,
            Some(bytes) if bytes >= LARGE => None,
            Some(_) => Some("it is not large"),
            None => Some("nobody knows how large it is"),
        }
    }
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// COPY, and why.
    Copy(String),
    /// The segments, and why.
    Segments(String),
    /// The inventory says `segments`, and that cannot be: what is missing, and what to try.
    Impossible {
        /// What is missing.
        missing: String,
        /// What to try.
        remedy: String,
    },
}

/// Chooses.
pub fn choose(wanted: Wanted, facts: &Facts, seen: &Seen) -> Choice {
    let missing = missing(facts, seen);
    match (wanted.method, missing) {
        (ExportMethod::Copy, _) => Choice::Copy("the inventory says so".into()),
        (ExportMethod::Segments, Some((missing, remedy))) => Choice::Impossible { missing, remedy },
        (ExportMethod::Segments, None) => Choice::Segments("the inventory says so".into()),
        (ExportMethod::Auto, missing) => match (wanted.why_not(), missing) {
            (Some(why), _) => Choice::Copy(why.into()),
            (None, Some((missing, _))) => Choice::Copy(missing),
            (None, None) if facts.primaries < 2 => Choice::Copy("there is but one segment".into()),
            (None, None) => {
                Choice::Segments(format!("it is large, and {} segments write side by side", facts.primaries))
            }
        },
    }
}

/// What a source lacks for its segments to write, and what to try.
fn missing(facts: &Facts, seen: &Seen) -> Option<(String, String)> {
    const OR: &str = "or write `export: { method: copy }`";
    let pair = |missing: String, remedy: String| Some((missing, remedy));
    if !facts.greenplum || facts.version < OLDEST {
        let what =
            if facts.greenplum { "the source is a Greenplum before 6" } else { "the source is no Greenplum" };
        return pair(what.into(), "write `export: { method: copy }`".into());
    }
    if facts.primaries == 0 {
        return pair(
            "the source names no primary segments".into(),
            format!("look at gp_segment_configuration there, {OR}"),
        );
    }
    if !facts.superuser {
        return pair(
            format!(
                "the user {} is no superuser of the source, and nobody else may have segments run commands",
                facts.user
            ),
            format!(
                "as a superuser of the source: ALTER ROLE \"{}\" SUPERUSER (or give `connection.user` one that is), {OR}",
                facts.user.replace('"', "\"\"")
            ),
        );
    }
    if !facts.may_execute {
        return pair(
            "gp_external_enable_exec is off in the source, so no external table may run a command".into(),
            format!("gpconfig -c gp_external_enable_exec -v on, and restart the source; {OR}"),
        );
    }
    match seen {
        Seen::ByAll | Seen::NotAsked => None,
        Seen::Not(why) => pair(
            why.clone(),
            format!(
                "mount it on every segment host, writable for the user that the segments run as (a common group and \
                 setgid directories); where it is at another path there, say so by `segments: {{ mount: PATH }}` of the \
                 source; {OR}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let user = "gpadmin".to_owned();
        Facts { version: 90_426, greenplum: true, user, superuser: true, may_execute: true, primaries: 2 }
    }

    fn wanted(method: ExportMethod) -> Wanted {
        Wanted { method, bytes: Some(LARGE), is_slice: false }
    }

    #[test]
    fn auto_means_copy_unless_the_unit_is_large_and_nothing_is_missing() {
        let auto = wanted(ExportMethod::Auto);
        let by = |wanted, facts: Facts, seen| choose(wanted, &facts, &seen);
        assert!(matches!(by(auto, facts(), Seen::ByAll), Choice::Segments(_)));
        for (wanted, facts, seen, why) in [
            (Wanted { bytes: Some(LARGE - 1), ..auto }, facts(), Seen::ByAll, "it is not large"),
            (Wanted { bytes: None, ..auto }, facts(), Seen::ByAll, "nobody knows how large it is"),
            (auto, Facts { greenplum: false, ..facts() }, Seen::ByAll, "no Greenplum"),
            (auto, Facts { version: 80_323, ..facts() }, Seen::ByAll, "before 6"),
            (auto, Facts { superuser: false, ..facts() }, Seen::ByAll, "gpadmin is no superuser"),
            (auto, Facts { may_execute: false, ..facts() }, Seen::ByAll, "gp_external_enable_exec is off"),
            (auto, Facts { primaries: 1, ..facts() }, Seen::ByAll, "one segment"),
            (auto, facts(), Seen::Not("segment 1 on h does not see it".into()), "segment 1 on h"),
        ] {
            let choice = by(wanted, facts, seen);
            assert!(matches!(&choice, Choice::Copy(said) if said.contains(why)), "{why}: {choice:?}");
        }
        let slice = Wanted { is_slice: true, bytes: None, ..auto };
        assert!(matches!(by(slice, facts(), Seen::ByAll), Choice::Segments(_)));
    }

    #[test]
    fn what_is_forced_and_impossible_says_what_is_missing_and_how_to_mend_it() {
        let forced = Wanted { bytes: None, ..wanted(ExportMethod::Segments) };
        assert!(matches!(choose(forced, &facts(), &Seen::ByAll), Choice::Segments(_)));
        assert!(matches!(
            choose(forced, &Facts { primaries: 1, ..facts() }, &Seen::ByAll),
            Choice::Segments(_)
        ));
        for (facts, seen, how) in [
            (Facts { greenplum: false, ..facts() }, Seen::ByAll, "method: copy"),
            (Facts { superuser: false, ..facts() }, Seen::ByAll, "ALTER ROLE \"gpadmin\" SUPERUSER"),
            (Facts { may_execute: false, ..facts() }, Seen::ByAll, "gpconfig"),
            (facts(), Seen::Not("x".into()), "segments: { mount: PATH }"),
        ] {
            let choice = choose(forced, &facts, &seen);
            assert!(
                matches!(&choice, Choice::Impossible { remedy, .. } if remedy.contains(how)),
                "{choice:?}"
            );
        }
        assert!(matches!(choose(wanted(ExportMethod::Copy), &facts(), &Seen::ByAll), Choice::Copy(_)));
        assert!(!wanted(ExportMethod::Copy).may_be() && forced.may_be());
    }
}
