//! The top of an inventory: version, zone, mount and target.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::model::{Gpfdist, Inventory, Keep, Loader, Mount, Owner, ProgramRule, Target};
use super::reader::{At, Fields, Reader};
use super::rules::Rules;
use super::scalars::{absolute, is_clean_name, length, size, text, whole, word};
use super::secrets::{self, TARGET_REMEDY};
use super::yaml::{Node, Value};
use super::{alarms, catalog, gpfdist, jobs, sources, suggest};

/// What may stand in `defaults:`.
const DEFAULTS: &[&str] = &["window", "load", "export", "late_after", "expect_every"];

/// Reads a whole document. Where a fault was put down the inventory may hold anything in that place; the
/// paths of what it holds come with it.
pub(super) fn read(reader: &mut Reader, root: &Node, path: &Path) -> Option<(Inventory, Written)> {
    let known = &[
        "version", "timezone", "mount", "target", "sources", "defaults", "catalog", "jobs", "keep", "alarms",
    ];
    let fields =
        reader.fields(&At::root(root), known, "inventory/first.yml, which comes with gpferry, shows it")?;
    read_version(reader, &fields);
    let timezone = fields.get("timezone").and_then(|at| read_timezone(reader, &at)).unwrap_or(TimeZone::UTC);
    let mount = fields
        .need(reader, "mount", "mount: { path: /mnt/dataTransfer }")
        .map(|at| read_mount(reader, &at))
        .unwrap_or_default();
    let target = fields
        .need(reader, "target", "target: { url: \"postgresql://loader@gp6:5432/qmsprd\" }")
        .map(|at| read_target(reader, &at, &mount.path))
        .unwrap_or_default();
    let sources = fields
        .need(reader, "sources", "sources: { fab1: { host: …, engine: greenplum, database: … } }")
        .map(|at| sources::read(reader, &at, &mount.path))
        .unwrap_or_default();
    let defaults = fields
        .get("defaults")
        .and_then(|at| {
            let fields = reader.fields(&at, DEFAULTS, "defaults: { export: { retries: 2 } }")?;
            Some(Rules::read(reader, &fields))
        })
        .unwrap_or_default();
    let keep = fields.get("keep").map(|at| read_keep(reader, &at)).unwrap_or_default();
    let alarms = fields.get("alarms").map(|at| alarms::read(reader, &at)).unwrap_or_default();
    let catalogs = fields.get("catalog").map(|at| catalog::read(reader, &at, &sources)).unwrap_or_default();
    let jobs = match fields.get("catalog") {
        Some(_) => fields.get("jobs"),
        None => fields.need(reader, "jobs", "jobs: { nightly: { source: fab1, tables: [ … ] } }"),
    };
    let (jobs, written) = jobs
        .map(|at| {
            let sources = fields.get("sources");
            jobs::read(reader, &at, &defaults, sources.as_ref(), &timezone, !catalogs.is_empty())
        })
        .unwrap_or_default();
    Some((
        Inventory { path: path.to_owned(), timezone, mount, target, sources, catalogs, jobs, keep, alarms },
        written,
    ))
}

fn read_keep(reader: &mut Reader, at: &At<'_>) -> Keep {
    const EXAMPLE: &str = "keep: { files: 7d, rejects: 90d, history: 400d }";
    let Some(fields) = reader.fields(at, &["files", "rejects", "history"], EXAMPLE) else {
        return Keep::default();
    };
    let mut age = |key: &str, example: &str| {
        let at = fields.get(key)?;
        length(reader, &at, example).map(|length| length.as_duration())
    };
    Keep {
        files: age("files", "files: 7d"),
        rejects: age("rejects", "rejects: 90d"),
        history: age("history", "history: 400d"),
    }
}

/// The paths of jobs and of their tables, in the order of [`Inventory::jobs`].
#[derive(Debug, Default)]
pub(super) struct Written {
    /// One per job: its path, and those of its tables.
    pub(super) jobs: Vec<(String, Vec<String>)>,
}

fn read_version(reader: &mut Reader, fields: &Fields<'_>) {
    let Some(at) = fields.need(reader, "version", "version: 1") else { return };
    match &at.node.value {
        Value::Number(number) if number == "1" => {}
        Value::Number(number) => {
            let number = reader.secrets.echo(number);
            let what = format!(
                "version {number} of the inventory is not known to this gpferry, which reads version 1"
            );
            reader.fault(
                &at,
                what,
                "write it as version: 1, or use the gpferry that this inventory was written for",
            );
        }
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            reader.wrong_type(&at, "a number", "write it as version: 1");
        }
    }
}

fn read_timezone(reader: &mut Reader, at: &At<'_>) -> Option<TimeZone> {
    let name = text(reader, at, "timezone: \"Asia/Shanghai\"")?;
    let found = TimeZone::get(name).ok().filter(|_| !name.contains(char::is_whitespace));
    if found.is_none() {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let remedy = match suggest::nearest(name, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "an IANA name, as in timezone: Asia/Shanghai; UTC where it is absent".into(),
        };
        let shown = reader.secrets.echo(name);
        reader.fault(at, format!("{shown} is not a time zone"), remedy);
    }
    found
}

fn read_mount(reader: &mut Reader, at: &At<'_>) -> Mount {
    let mut mount = Mount::default();
    let Some(fields) =
        reader.fields(at, &["path", "subdir", "owner", "waiting"], "mount: { path: /mnt/dataTransfer }")
    else {
        return mount;
    };
    if let Some(path) = fields.need(reader, "path", "path: /mnt/dataTransfer") {
        mount.path = absolute(reader, &path, "path: /mnt/dataTransfer").unwrap_or_default();
    }
    if let Some(at) = fields.get("subdir")
        && let Some(subdir) = text(reader, &at, "subdir: \"file2GP\"")
    {
        if !is_clean_name(subdir) {
            let shown = reader.secrets.echo(subdir);
            reader.fault(
                &at,
                format!("{shown} is not one plain directory name"),
                "letters, digits, `_`, `-` and `.`, not starting with `-` or `.`, as in subdir: file2GP",
            );
        }
        mount.subdir = subdir.to_owned();
    }
    mount.owner = fields.get("owner").and_then(|at| read_owner(reader, &at));
    let waiting = fields.get("waiting").and_then(|at| size(reader, &at, "waiting: 32GiB"));
    mount.waiting = waiting.unwrap_or(mount.waiting);
    mount
}

fn read_owner(reader: &mut Reader, at: &At<'_>) -> Option<Owner> {
    let written = text(reader, at, "owner: gpadmin:gpadmin")?;
    let name = |text: &str| {
        let clean =
            text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '\\' | '$' | '@'));
        (clean && !text.is_empty() && !text.starts_with('-')).then(|| text.to_owned())
    };
    let owner = written
        .split_once(':')
        .and_then(|(user, group)| Some(Owner { user: name(user)?, group: name(group)? }));
    if owner.is_none() {
        let shown = reader.secrets.echo(written);
        reader.fault(
            at,
            format!("{shown} is not a user and a group"),
            "two names with a colon between them, as in owner: gpadmin:gpadmin",
        );
    }
    owner
}

const LOADERS: [(&str, Loader); 5] = [
    ("auto", Loader::Auto),
    ("copy", Loader::Copy),
    ("segments", Loader::Segments),
    ("gpfdist", Loader::Gpfdist),
    ("gpload", Loader::Gpload),
];

fn read_target(reader: &mut Reader, at: &At<'_>, mount: &Path) -> Target {
    const URL: &str = "url: \"postgresql://loader@gp6:5432/qmsprd\"";
    let mut target = Target {
        gpfdist_written: false,
        gpfdist: Gpfdist::Started(gpfdist::default(mount)),
        gpload: gpfdist::default(mount),
        ..Target::default()
    };
    let known = &["url", "loader", "mount", "sessions", "log_schema", "gpfdist", "gpload"];
    let Some(fields) = reader.fields(at, known, "target: { url: \"postgresql://loader@gp6:5432/qmsprd\" }")
    else {
        return target;
    };
    if let Some(at) = fields.need(reader, "url", URL)
        && let Some(url) = text(reader, &at, URL)
    {
        if let Err((what, remedy)) = check_url(url, &["postgresql", "postgres"]) {
            reader.fault(&at, what, remedy);
        }
        target.url = url.to_owned();
    }
    if let Some(loader) = fields.get("loader").and_then(|at| word(reader, &at, &LOADERS)) {
        target.loader = loader;
    }
    target.mount = fields.get("mount").and_then(|at| absolute(reader, &at, "mount: /mnt/dataTransfer"));
    if let Some(sessions) = fields.get("sessions").and_then(|at| whole(reader, &at, 1..=256, "sessions: 4")) {
        target.sessions = sessions as usize;
    }
    if let Some(schema) = fields.get("log_schema").and_then(|at| text(reader, &at, "log_schema: \"gpferry\""))
    {
        target.log_schema = schema.to_owned();
    }
    if let Some(at) = fields.get("gpfdist") {
        target.gpfdist_written = true;
        target.gpfdist = gpfdist::read(reader, &at, mount);
    }
    if let Some(at) = fields.get("gpload") {
        target.gpload = gpfdist::read_gpload(reader, &at, mount);
    }
    target
}

/// What is wrong with a URL of one of these schemes. The URL itself is never shown: where its form is unknown, so is what
/// of it is a password.
pub(super) fn check_url(url: &str, schemes: &[&str]) -> Result<(), (&'static str, &'static str)> {
    const FORM: &str = "write it as url: \"postgresql://loader@gp6:5432/qmsprd\"";
    if secrets::url_password(url).is_some() {
        return Err(("a password stands in the URL, before the `@`", TARGET_REMEDY));
    }
    if secrets::query_password(url).is_some() {
        return Err(("a password stands among the parameters of the URL", TARGET_REMEDY));
    }
    let Some((_, rest)) = url.split_once("://").filter(|(scheme, _)| schemes.contains(scheme)) else {
        return Err(match schemes.contains(&"mysql") {
            false => ("the URL does not start with postgresql://", FORM),
            true => ("the URL starts with neither postgresql:// nor mysql://", FORM),
        });
    };
    if rest.contains(char::is_whitespace) {
        return Err(("a blank stands in the URL", "write %20 for a blank that belongs to a name"));
    }
    if rest.is_empty() {
        return Err(("the URL names no host and no database", FORM));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let hosts = place.split('/').next().unwrap_or(place);
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
    let port_is_good = |host: &str| match host.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse::<u16>().is_ok_and(|port| port > 0),
        _ => true,
    };
    if !hosts.split(',').all(port_is_good) {
        return Err((
            "what follows the last colon of the URL's host is not a port",
            "a port is a number from 1 to 65535; a / ? # or @ that belongs to a name is written %2F %3F %23 %40",
        ));
    }
    if !query.is_empty() && !query.split('&').all(|pair| pair.contains('=')) {
        return Err((
            "what follows the ? of the URL is not a list of name=value",
            "write it as url: \"postgresql://loader@gp6:5432/qmsprd?sslmode=require\"; a ? that belongs to a name is written %3F",
        ));
    }
    Ok(())
}

impl Default for Mount {
    /// The default subdirectory of a path that is still to be filled in.
    fn default() -> Self {
        Self { path: PathBuf::new(), subdir: "file2GP".into(), owner: None, waiting: 32 << 30 }
    }
}

impl Default for Target {
    /// The defaults of a URL that is still to be filled in.
    fn default() -> Self {
        Self {
            url: String::new(),
            loader: Loader::Auto,
            mount: None,
            sessions: 4,
            log_schema: "gpferry".into(),
            gpfdist_written: false,
            gpfdist: Gpfdist::default(),
            gpload: ProgramRule::default(),
        }
    }
}
