//! `sources:`, the databases that are exported.

use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::model::{Call, Connection, CustomScript, Engine, Source};
use super::reader::{At, Reader};
use super::scalars::{absolute, is_clean_name, plain_text, ssh_host, text, whole, word};
use crate::file_pattern::FilePattern;

const ENGINES: [(&str, Engine); 4] = [
    ("greenplum", Engine::Greenplum),
    ("postgres", Engine::Postgres),
    ("mysql", Engine::Mysql),
    ("tdengine", Engine::Tdengine),
];
const KEYS: &[&str] =
    &["host", "engine", "mount", "database", "connection", "sessions", "script", "segments"];
const EXAMPLE: &str = "fab1: { host: gpadmin@gp4-etl, engine: greenplum, database: qmsprd }";

/// All sources, in the order written.
pub(super) fn read(reader: &mut Reader, at: &At<'_>, mount: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    for (key, at) in reader.entries(at, &format!("sources: {{ {EXAMPLE} }}")) {
        check_name(reader, &key.text, &at, "source");
        sources.extend(read_one(reader, &key.text, &at, mount));
    }
    sources
}

/// A name of a source or a job becomes part of paths and of lock names.
pub(super) fn check_name(reader: &mut Reader, name: &str, at: &At<'_>, what: &str) {
    if !is_clean_name(name) {
        reader.add(Fault::new(
            at.named,
            at.path.clone(),
            format!("this is not a name of a {what}"),
            "letters, digits, `_`, `-` and `.`, not starting with `-` or `.`, at most 100 of them",
        ));
    }
}

fn read_one(reader: &mut Reader, name: &str, at: &At<'_>, mount: &Path) -> Option<Source> {
    let fields = reader.fields(at, KEYS, EXAMPLE)?;
    let host = fields.need(reader, "host", "host: gpadmin@gp4-etl:22");
    let engine = fields.need(reader, "engine", "engine: greenplum");
    let database = fields.need(reader, "database", "database: qmsprd");
    let engine = engine.and_then(|at| word(reader, &at, &ENGINES)).unwrap_or(Engine::Greenplum);
    let mount = fields
        .get("mount")
        .and_then(|at| absolute(reader, &at, "mount: /mnt/dataTransfer"))
        .unwrap_or_else(|| mount.to_owned());
    let segments = fields.get("segments").and_then(|at| read_segments(reader, &at, engine));
    Some(Source {
        name: name.to_owned(),
        host: host
            .and_then(|at| ssh_host(reader, &at, "host: \"gpadmin@gp4-etl:22\""))
            .unwrap_or_default()
            .to_owned(),
        engine,
        segments_mount: segments.unwrap_or_else(|| mount.clone()),
        mount,
        database: database.and_then(|at| read_database(reader, &at)).unwrap_or_default(),
        connection: fields.get("connection").map(|at| read_connection(reader, &at)).unwrap_or_default(),
        sessions: fields
            .get("sessions")
            .and_then(|at| whole(reader, &at, 1..=256, "sessions: 4"))
            .map_or(4, |sessions| sessions as usize),
        script: fields.get("script").and_then(|at| read_script(reader, &at)),
    })
}

/// A database's name. libpq would take one with `=` or `://` in it for a whole connection string.
fn read_database(reader: &mut Reader, at: &At<'_>) -> Option<String> {
    let database = text(reader, at, "database: \"qmsprd\"")?;
    if database.contains('=') || database.contains("://") || database.starts_with('-') {
        reader.fault(
            at,
            "psql would read this as a connection string or an option, not as a database",
            "write the name alone, as in database: qmsprd; host, port and user belong under `connection:`",
        );
        return None;
    }
    Some(database.to_owned())
}

/// Where the hosts of its segments see the mount.
fn read_segments(reader: &mut Reader, at: &At<'_>, engine: Engine) -> Option<PathBuf> {
    let example = "segments: { mount: /mnt/dataTransfer }";
    let fields = reader.fields(at, &["mount"], example)?;
    if engine != Engine::Greenplum {
        reader.add(Fault::new(
            at.named,
            at.path.clone(),
            "only a Greenplum has segments",
            "remove it, or write `engine: greenplum`",
        ));
    }
    fields.get("mount").and_then(|at| absolute(reader, &at, example))
}

fn read_connection(reader: &mut Reader, at: &At<'_>) -> Connection {
    let example = "connection: { host: 10.0.0.3, port: 5432, user: gpadmin }";
    let Some(fields) = reader.fields(at, &["host", "port", "user", "psql"], example) else {
        return Connection::default();
    };
    Connection {
        host: fields
            .get("host")
            .and_then(|at| plain_text(reader, &at, "host: \"10.0.0.3\""))
            .map(str::to_owned),
        port: fields
            .get("port")
            .and_then(|at| whole(reader, &at, 1..=65535, "port: 5432"))
            .and_then(|port| u16::try_from(port).ok()),
        user: fields.get("user").and_then(|at| text(reader, &at, "user: \"gpadmin\"")).map(str::to_owned),
        psql: fields
            .get("psql")
            .and_then(|at| absolute(reader, &at, "psql: /usr/local/greenplum-db/bin/psql")),
    }
}

fn read_script(reader: &mut Reader, at: &At<'_>) -> Option<CustomScript> {
    const CALLS: [(&str, Call); 2] = [("protocol", Call::Protocol), ("argv", Call::Argv)];
    let fields =
        reader.fields(at, &["path", "call", "ok", "file"], "script: { path: /home/x.sh, call: argv }")?;
    let path = fields.need(reader, "path", "path: /home/scripts/dataTrs.sh");
    let call = fields.need(reader, "call", "call: argv");
    let ok = fields.get("ok").map(|at| {
        let codes = reader.items(&at, "ok: [99]");
        codes
            .iter()
            .filter_map(|at| whole(reader, at, 0..=255, "ok: [99]"))
            .filter_map(|code| u8::try_from(code).ok())
            .collect()
    });
    let call = call.and_then(|at| word(reader, &at, &CALLS)).unwrap_or(Call::Argv);
    if call == Call::Protocol {
        for at in ["ok", "file"].into_iter().filter_map(|key| fields.get(key)) {
            reader.add(Fault::new(
                at.named,
                at.path.clone(),
                "this key says nothing to a script that is called by the protocol",
                "remove it: its replies name codes, and gpferry tells it the file",
            ));
        }
    }
    Some(CustomScript {
        path: path.and_then(|at| absolute(reader, &at, "path: /home/scripts/dataTrs.sh")).unwrap_or_default(),
        call,
        ok: ok.unwrap_or_else(|| vec![0]),
        file: fields.get("file").and_then(|at| read_file(reader, &at)).unwrap_or_default(),
    })
}

/// Where a script writes, below the mount's subdirectory.
fn read_file(reader: &mut Reader, at: &At<'_>) -> Option<FilePattern> {
    let example = "file: \"{yyyymm}/{dd}/{table}/{unit}.csv.gz\"";
    let file = text(reader, at, example)?;
    match FilePattern::parse(file) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let what = format!("{} cannot be a unit's file: {error}", reader.secrets.echo(file));
            reader.fault(at, what, format!("write it as {example}"));
            None
        }
    }
}
