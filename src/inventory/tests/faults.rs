//! Faults of form: one test per kind, where it is found and under which key.

use super::*;

/// The faults of a text, as `line:column key`.
pub(super) fn found(text: &str) -> Vec<String> {
    let error = read(text).expect_err("the text was taken for good");
    let shown = error.to_string();
    assert!(error.faults.iter().all(|fault| !fault.what.is_empty() && !fault.remedy.is_empty()), "{shown}");
    error
        .faults
        .iter()
        .map(|fault| format!("{}:{} {}", fault.place.line, fault.place.column, fault.key))
        .collect()
}

/// `SMALL` with one piece replaced has exactly one fault: where the `§` stands, under this key, and its message
/// holds these words.
#[track_caller]
pub(super) fn one(piece: &str, by: &str, key: &str, words: &str) {
    assert!(SMALL.contains(piece), "{piece} is not in the text");
    let marked = SMALL.replacen(piece, by, 1);
    let before = marked.split('§').next().unwrap();
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    let place = format!("{}:{column}", before.matches('\n').count() + 1);
    let text = marked.replace('§', "");
    let error = read(&text).expect_err("the text was taken for good");
    assert_eq!(found(&text), [format!("{place} {key}")], "{error}");
    let fault = &error.faults[0];
    let said = format!("{} try: {}", fault.what, fault.remedy);
    assert!(said.contains(words), "{said}");
}

/// The same, for what the one table entry says instead of `window: none`.
#[track_caller]
pub(super) fn table(by: &str, key: &str, words: &str) {
    one("window: none", by, &format!("jobs.j.tables[0].{key}"), words);
}

#[test]
fn unknown_keys() {
    one("    source:", "    §colour: red\n    source:", "jobs.j.colour", "known here: source, from");
    one(
        "engine: postgres",
        "engine: postgres, §sesions: 2",
        "sources.fab1.sesions",
        "did you mean `sessions`?",
    );
    one("version: 1", "version: 1\n§<<: { a: b }", "\"<<\"", "merge keys are not read");
    table("§windows: none, window: none", "windows", "did you mean `window`?");
}

#[test]
fn duplicate_keys_at_several_places() {
    let text = SMALL
        .replace("host: h", "host: h, host: g, host: f")
        .replace("    source:", "    source: x\n    source:");
    let expected =
        ["5:20 sources.fab1.host", "5:29 sources.fab1.host", "8:13 jobs.j.source", "9:5 jobs.j.source"];
    assert_eq!(found(&text), expected);
    let what = &read(&text).unwrap_err().faults[0].what;
    assert!(what.contains("first in line 5"), "{what}");
}

#[test]
fn missing_keys() {
    for key in ["version", "mount", "target"] {
        let text: String =
            SMALL.lines().filter(|line| !line.starts_with(key)).map(|l| format!("{l}\n")).collect();
        assert_eq!(found(&text), [format!("1:1 {key}")]);
    }
    let top: String = SMALL.lines().take(3).map(|l| format!("{l}\n")).collect();
    assert_eq!(found(&top), ["1:1 jobs", "1:1 sources"]);
    one("mount: { path: /mnt/x", "§mount: { owner: a:b", "mount.path", "path: /mnt/dataTransfer");
    one("target: { url: postgresql://loader@gp6/d", "§target: { sessions: 2", "target.url", "postgresql://");
    one("fab1: { host: h, ", "§fab1: { ", "sources.fab1.host", "missing");
    one("fab1: { host: h, engine: postgres, ", "§fab1: { host: h, ", "sources.fab1.engine", "missing");
    one(
        "fab1: { host: h, engine: postgres, database: d",
        "§fab1: { host: h, engine: postgres",
        "sources.fab1.database",
        "missing",
    );
    one("j:\n    source: fab1\n", "§j:\n", "jobs.j.source", "missing");
    one(
        "j:\n    source: fab1\n    tables:\n      - { table: a.b, window: none }\n",
        "§j:\n    source: fab1\n",
        "jobs.j.tables",
        "missing",
    );
    one("{ table: a.b, ", "§{ ", "jobs.j.tables[0]", "names no table");
}

#[test]
fn wrong_types() {
    one("version: 1", "version: §\"1\"", "version", "this is a text, and a number");
    one("version: 1", "version: §2", "version", "version `2`");
    one("{ path: /mnt/x }", "§/mnt/x", "mount", "this is a text, and a map");
    one("host: h", "host: §5", "sources.fab1.host", "put it in quotes");
    one("host: h", "§host:", "sources.fab1.host", "nothing is written here");
    one("database: d", "database: §true", "sources.fab1.database", "truth value");
    one("engine: postgres", "engine: §[postgres]", "sources.fab1.engine", "this is a list, and a word");
    one("database: d", "database: d, sessions: §\"4\"", "sources.fab1.sessions", "and a number");
    one(
        "    tables:\n      - { table: a.b, window: none }",
        "    tables: §a.b",
        "jobs.j.tables",
        "and a list",
    );
    one("  fab1: { host: h, engine: postgres, database: d }", "  §- fab1", "sources", "and a map of names");
    one("      - { table: a.b, window: none }", "      §[]", "jobs.j.tables", "the list is empty");
    table("window: none, export: { timeout: §[] }", "export.timeout", "this is a list");
    table("window: none, where: §{ a: b }", "where", "this is a map");
    table("window: §~", "window", "window: none");
}

#[test]
fn names_and_paths() {
    for (name, key) in
        [("fab/1", "\"fab/1\""), (".fab1", "\".fab1\""), ("-fab1", "-fab1"), ("fäb1", "\"fäb1\"")]
    {
        let text = SMALL.replace("fab1", name);
        assert_eq!(found(&text), [format!("5:3 sources.{key}")]);
    }
    one("  j:", "  §j 1:", "jobs.\"j 1\"", "this is not a name of a job");
    one("/mnt/x", "§mnt/x", "mount.path", "absolute");
    one("/mnt/x", "§/mnt/../x", "mount.path", "`..`");
    one("host: h", "host: h, mount: §data", "sources.fab1.mount", "absolute");
    for subdir in ["a/b", "..", ".x", "/x", "\"a b\"", "-x"] {
        one("/mnt/x", &format!("/mnt/x, subdir: §{subdir}"), "mount.subdir", "not one plain directory name");
    }
    one("/mnt/x", "/mnt/x, owner: §gpadmin", "mount.owner", "two names with a colon");
    one("a.b", "§t", "jobs.j.tables[0].table", "schema.table");
    one("a.b", "§a.b.c", "jobs.j.tables[0].table", "schema.table");
    one("a.b", "§a.d*", "jobs.j.tables[0].table", "write `{ tables: \"a.d*\" }`");
    one("{ table: a.b, window: none }", "§a.d?", "jobs.j.tables[0]", "{ tables: \"a.d?\" }");
    for glob in ["d*", "a.b.*", "'\"a\".*'", "\"a.[\"", "[a.b, c.d]", "\"*.\""] {
        one("table: a.b", &format!("tables: §{glob}"), "jobs.j.tables[0].tables", "tables: \"tiny.d*\"");
    }
    one("table: a.b", "table: a.b, tables: §a.*", "jobs.j.tables[0].tables", "two entries");
    one("table: a.b", "tables: a.*, target: §x.y", "jobs.j.tables[0].target", "many tables");
}

#[test]
fn hosts_and_databases() {
    for host in ["-oProxyCommand=x", "\"a b\"", "h:99999", "ssh://h", "\"@h\"", "user@-x"] {
        one("host: h", &format!("host: §{host}"), "sources.fab1.host", "host");
    }
    one("host: h", "host: §u:geheim@h", "sources.fab1.host", "a password stands before the `@`");
    one("database: d", "database: §\"host=x dbname=d\"", "sources.fab1.database", "connection string");
    one(
        "database: d",
        "database: d, connection: { host: §-x }",
        "sources.fab1.connection.host",
        "starts with `-`",
    );
    one("database: d", "database: d, connection: { port: §0 }", "sources.fab1.connection.port", "65535");
    one(
        "database: d",
        "database: d, connection: { psql: §psql }",
        "sources.fab1.connection.psql",
        "absolute",
    );
    for (sessions, range) in [("0", "1 to 256"), ("257", "1 to 256"), ("1.5", "1 to 256"), ("-1", "1 to 256")]
    {
        one("database: d", &format!("database: d, sessions: §{sessions}"), "sources.fab1.sessions", range);
        one("gp6/d", &format!("gp6/d, sessions: §{sessions}"), "target.sessions", range);
    }
}

#[test]
fn passwords() {
    for (url, words) in [
        ("postgresql://loader:geheim@gp6/d", "before the `@`"),
        ("postgresql://loader:ge/heim@gp6/d", "before the `@`"),
        ("postgresql://gp6/d?sslmode=x&password=geheim", "among the parameters"),
        ("mysql://loader:geheim@gp6/d", "PGPASSFILE"),
        ("loader:geheim@gp6/d", "postgresql://"),
        ("postgresql://loader:1?geheim@gp6/d", "is not a list of name=value"),
        ("\"host=gp6 password=geheim\"", "postgresql://"),
    ] {
        one("postgresql://loader@gp6/d", &format!("§{url}"), "target.url", words);
        assert!(
            !read(&SMALL.replace("postgresql://loader@gp6/d", url)).unwrap_err().to_string().contains("heim")
        );
    }
    for key in ["password", "PGPASSWORD", "passwd", "pwd", "db_password"] {
        one("gp6/d", &format!("gp6/d, §{key}: geheim"), &format!("target.{key}"), "PGPASSFILE");
        one(
            "host: h",
            &format!("host: h, §{key}: geheim"),
            &format!("sources.fab1.{key}"),
            "on the source host",
        );
        table(&format!("window: none, load: {{ §{key}: [geheim] }}"), &format!("load.{key}"), "PGPASSWORD");
    }
    let text =
        SMALL.replace("gp6/d", "gp6/d, password: &p geheim").replace("host: h", "host: h, sessions: *p");
    assert!(!read(&text).unwrap_err().to_string().contains("geheim"));
    assert!(read(&SMALL.replace("  j:", "  password_changes:")).is_ok(), "a job may be named so");
}
