//! `jobs:`, what is moved together.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::model::Job;
use super::reader::{At, Fields, Reader};
use super::rules::Rules;
use super::scalars::{hours, text, timestamp};
use super::sources::check_name;
use super::suggest;
use super::tables::{self, Matches};
use super::top::Written;
use super::yaml::Value;

const KEYS: &[&str] =
    &["source", "from", "until", "hours", "tables", "window", "load", "export", "late_after", "expect_every"];
const EXAMPLE: &str = "nightly: { source: fab1, from: 2021-08-10, tables: [ … ] }";
const FROM: &str = "from: 2021-08-10 00:00:00";

/// All jobs, in the order written, and their paths. With `rest_is_unknown` more may come from catalogs, so that
/// nobody knows yet what of the defaults is used.
pub(super) fn read(
    reader: &mut Reader,
    at: &At<'_>,
    defaults: &Rules,
    sources: Option<&At<'_>>,
    zone: &TimeZone,
    rest_is_unknown: bool,
) -> (Vec<Job>, Written) {
    let mut matches = Matches::default();
    if !rest_is_unknown {
        matches.written(defaults);
    }
    let mut jobs = Vec::new();
    let mut written = Written::default();
    for (key, at) in reader.entries(at, &format!("jobs: {{ {EXAMPLE} }}")) {
        check_name(reader, &key.text, &at, "job");
        let Some(fields) = reader.fields(&at, KEYS, EXAMPLE) else { continue };
        let (job, tables) = read_one(reader, &key.text, &fields, defaults, sources, zone, &mut matches);
        jobs.push(job);
        written.jobs.push((at.path, tables));
    }
    matches.check(reader);
    (jobs, written)
}

fn read_one(
    reader: &mut Reader,
    name: &str,
    fields: &Fields<'_>,
    defaults: &Rules,
    sources: Option<&At<'_>>,
    zone: &TimeZone,
    matches: &mut Matches,
) -> (Job, Vec<String>) {
    let source = fields.need(reader, "source", "source: fab1");
    let source = source.and_then(|at| read_source(reader, &at, sources)).unwrap_or_default();
    let (from, until) = read_range(reader, fields, zone);
    let hours = fields.get("hours").and_then(|at| hours(reader, &at, "hours: 00:00-04:00"));
    let rules = Rules::read(reader, fields);
    matches.written(&rules);
    let rules = rules.over(defaults);
    let expect_every = rules.expected.expect_every;
    let (tables, paths) = fields
        .need(reader, "tables", "tables: [ sor.wpp_adefect_glass_f ]")
        .map(|at| tables::read(reader, &at, &rules, matches))
        .unwrap_or_default();
    let job = Job { name: name.to_owned(), source, from, until, hours, expect_every, tables };
    (job, paths)
}

/// A source's name. A source that is there but faulty counts: one fault is enough.
fn read_source(reader: &mut Reader, at: &At<'_>, sources: Option<&At<'_>>) -> Option<String> {
    let name = text(reader, at, "source: \"fab1\"")?;
    let Some(Value::Map(entries)) = sources.map(|at| &at.node.value) else { return Some(name.to_owned()) };
    let known: Vec<&str> = entries.iter().map(|(key, _)| &*key.text).collect();
    if !known.contains(&name) {
        let shown = reader.secrets.echo(name);
        reader.fault(at, format!("there is no source {shown}"), suggest::remedy_for_source(name, &known));
    }
    Some(name.to_owned())
}

fn read_range(
    reader: &mut Reader,
    fields: &Fields<'_>,
    zone: &TimeZone,
) -> (Option<DateTime>, Option<DateTime>) {
    let from = fields.get("from");
    let start = from.as_ref().and_then(|at| timestamp(reader, at, zone, FROM));
    let until = fields.get("until");
    let end = until.as_ref().and_then(|at| timestamp(reader, at, zone, "until: 2021-09-10 00:00:00"));
    if let (Some(at), Some(start), Some(end)) = (from, start, end)
        && start >= end
    {
        reader.fault(
            &at,
            format!(
                "{} {} is not before {} {}, which is `until`: no window lies between them",
                start.date(),
                start.time(),
                end.date(),
                end.time()
            ),
            "make `until` later than `from`, or leave it out for a job that goes on for ever",
        );
    }
    (start, end)
}
