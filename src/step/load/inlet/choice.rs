//! The choice of the way, which follows from what the server is, who the user is and what the operator wrote. Pure.

use crate::inventory::{Loader, Target};
use crate::target::{Cluster, Facts};

/// From so many segments on they read large files faster than one stream through the coordinator brings them: measured
/// with two cores, COPY takes two thirds of the time of two segments.
const MANY: usize = 4;
/// Files from this size on are worth an external table of their own. Compressed bytes.
pub const LARGE: u64 = 16 << 20;

/// A way into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inlet {
    /// COPY FROM STDIN, in one stream through the coordinator.
    Copy,
    /// An external table whose rows the segments read out of the mount.
    Segments,
    /// An external table whose rows the segments read from gpfdist, which serves the mount.
    Gpfdist,
    /// gpload, into a table of gpferry's own, and on from there.
    Gpload,
}

/// A way and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub inlet: Inlet,
    /// Why this one, in words that go on after "since".
    pub why: String,
}

/// Why a way that the inventory demands cannot be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// What is missing.
    pub why: String,
    /// What to try.
    pub remedy: String,
}

/// Whether segments see the mount.
pub type Sight = Result<(), Impossible>;

/// What an operator wrote of how files are to get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// `target.loader`.
    pub loader: Loader,
    /// Is there a `target.gpfdist`? Nobody is given a server of files who did not ask for one.
    pub gpfdist: bool,
}

impl Wish {
    /// Of an inventory.
    pub fn of(target: &Target) -> Self {
        Self { loader: target.loader, gpfdist: target.gpfdist_written }
    }
}

/// The way of large files, as far as it follows from the server alone: `Segments` only if they see the mount.
///
/// # Errors
/// [`Impossible`] where the inventory demands what the server, or the user's rights, cannot do.
pub fn way_of_large(wish: Wish, facts: &Facts) -> Result<Choice, Impossible> {
    let loader = wish.loader;
    let copy = |why: &str| Ok(Choice { inlet: Inlet::Copy, why: why.into() });
    let forced = matches!(loader, Loader::Segments | Loader::Gpfdist | Loader::Gpload);
    let Some(cluster) = facts.cluster.as_ref().filter(|cluster| cluster.segments > 0) else {
        let why = "the target has no segments";
        return if forced { Err(impossible(loader, why, COPY)) } else { copy(why) };
    };
    match loader {
        Loader::Segments if !cluster.superuser => Err(impossible(loader, NO_SUPERUSER, SUPERUSER)),
        Loader::Gpfdist | Loader::Gpload if !cluster.reads_gpfdist => {
            Err(impossible(loader, NO_RIGHT, RIGHT))
        }
        Loader::Gpload => Ok(Choice { inlet: Inlet::Gpload, why: "the inventory says so".into() }),
        Loader::Gpfdist => Ok(Choice { inlet: Inlet::Gpfdist, why: "the inventory says so".into() }),
        Loader::Segments => Ok(Choice { inlet: Inlet::Segments, why: "the inventory says so".into() }),
        Loader::Auto if cluster.segments < MANY => {
            copy(&format!("{} are too few to outdo it", segments(cluster)))
        }
        Loader::Auto if cluster.superuser => {
            Ok(Choice { inlet: Inlet::Segments, why: format!("there are {}", segments(cluster)) })
        }
        Loader::Auto if cluster.reads_gpfdist && wish.gpfdist => Ok(Choice {
            inlet: Inlet::Gpfdist,
            why: format!("there are {}, and {NO_SUPERUSER}", segments(cluster)),
        }),
        Loader::Auto => copy(NO_SUPERUSER),
        Loader::Copy => copy("the inventory says so"),
    }
}

pub(super) const COPY: &str = "write `loader: auto` or `loader: copy` at the target";
const NO_SUPERUSER: &str = "only a superuser may have segments run commands";
const SUPERUSER: &str =
    "load as a superuser (gpadmin), or write `loader: auto` or `loader: copy` at the target";

const NO_RIGHT: &str = "the loading user may not make external tables";
const RIGHT: &str = "let a superuser say: ALTER ROLE <the loading user> CREATEEXTTABLE; or write `loader: auto` or \
     `loader: copy` at the target";

pub(super) fn impossible(loader: Loader, why: &str, remedy: &str) -> Impossible {
    let loader = match loader {
        Loader::Gpfdist => "gpfdist",
        Loader::Gpload => "gpload",
        Loader::Auto | Loader::Copy | Loader::Segments => "segments",
    };
    Impossible { why: format!("`loader: {loader}` is not possible: {why}"), remedy: remedy.into() }
}

/// `8 segments on 2 hosts`.
fn segments(cluster: &Cluster) -> String {
    let hosts = cluster.hosts.len();
    format!("{} segments on {hosts} host{}", cluster.segments, if hosts == 1 { "" } else { "s" })
}

/// A choice, in one line.
pub fn words(loader: Loader, choice: &Choice) -> String {
    let (files, others) = match loader {
        Loader::Auto => (format!("files of {} MiB and more", LARGE >> 20), "; the others by COPY"),
        Loader::Copy | Loader::Segments | Loader::Gpfdist | Loader::Gpload => ("every file".to_owned(), ""),
    };
    let why = &choice.why;
    match choice.inlet {
        Inlet::Copy => format!("by COPY, since {why}"),
        Inlet::Segments => format!("the segments read {files} themselves, since {why}{others}"),
        Inlet::Gpfdist => format!("the segments read {files} from gpfdist, since {why}{others}"),
        Inlet::Gpload => format!("gpload loads {files} into a table of its own, since {why}{others}"),
    }
}

/// What `plan` says, which has nobody read anything.
pub fn planned(wish: Wish, facts: &Facts) -> String {
    let loader = wish.loader;
    match way_of_large(wish, facts) {
        Err(no) => format!("{} (try: {})", no.why, no.remedy),
        Ok(choice) if choice.inlet == Inlet::Segments => {
            let words = words(loader, &choice);
            format!("{words}; gpferry preflight proves that they see the mount")
        }
        Ok(choice) => words(loader, &choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(cluster: Option<Cluster>) -> Facts {
        let text = if cluster.is_some() { "Greenplum" } else { "PostgreSQL" };
        Facts { cluster, ..Facts::of(text.into(), 90_426) }
    }

    fn cluster(segments: usize, superuser: bool) -> Option<Cluster> {
        let hosts = vec!["sdw1".into(), "sdw2".into()];
        Some(Cluster { segments, hosts, superuser, ..Cluster::default() })
    }

    fn wish(loader: Loader) -> Wish {
        Wish { loader, gpfdist: false }
    }

    #[test]
    fn the_way_follows_from_server_rights_and_number_of_segments() {
        let way = |loader, cluster| way_of_large(wish(loader), &facts(cluster)).map(|choice| choice.inlet);
        assert_eq!(way(Loader::Auto, None), Ok(Inlet::Copy));
        assert_eq!(way(Loader::Auto, cluster(3, true)), Ok(Inlet::Copy));
        assert_eq!(way(Loader::Auto, cluster(4, true)), Ok(Inlet::Segments));
        assert_eq!(way(Loader::Auto, cluster(96, false)), Ok(Inlet::Copy));
        let may_read =
            |segments| cluster(segments, false).map(|known| Cluster { reads_gpfdist: true, ..known });
        assert_eq!(way(Loader::Auto, may_read(96)), Ok(Inlet::Copy));
        let offered = Wish { gpfdist: true, ..wish(Loader::Auto) };
        let with_gpfdist = |segments| way_of_large(offered, &facts(may_read(segments))).unwrap();
        assert_eq!([3, 4].map(|segments| with_gpfdist(segments).inlet), [Inlet::Copy, Inlet::Gpfdist]);
        assert!(
            words(Loader::Auto, &with_gpfdist(8))
                .starts_with("the segments read files of 16 MiB and more from gpfdist")
        );
        assert_eq!(way(Loader::Copy, cluster(96, true)), Ok(Inlet::Copy));
        assert_eq!(way(Loader::Segments, cluster(1, true)), Ok(Inlet::Segments));
        assert!(way(Loader::Segments, None).unwrap_err().why.contains("has no segments"));
        assert!(way(Loader::Segments, cluster(8, false)).unwrap_err().remedy.contains("superuser"));
    }

    #[test]
    fn a_plan_says_the_way_and_why() {
        let told = [
            planned(wish(Loader::Auto), &facts(None)),
            planned(wish(Loader::Auto), &facts(cluster(2, true))),
            planned(wish(Loader::Auto), &facts(cluster(16, true))),
            planned(wish(Loader::Auto), &facts(cluster(16, false))),
            planned(wish(Loader::Segments), &facts(cluster(2, true))),
            planned(wish(Loader::Segments), &facts(None)),
        ];
        insta::assert_snapshot!(told.join("\n"), @r"
            by COPY, since the target has no segments
            by COPY, since 2 segments on 2 hosts are too few to outdo it
            the segments read files of 16 MiB and more themselves, since there are 16 segments on 2 hosts; the others by COPY; gpferry preflight proves that they see the mount
            by COPY, since only a superuser may have segments run commands
            the segments read every file themselves, since the inventory says so; gpferry preflight proves that they see the mount
            `loader: segments` is not possible: the target has no segments (try: write `loader: auto` or `loader: copy` at the target)
            ");
    }
}
