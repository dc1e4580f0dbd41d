//! Scripts of the user's own.

use super::faults::{found, one, table};
use super::*;
use crate::file_pattern::FilePattern;

/// `SMALL` with a script that is called by arguments, and a window for its table.
const ARGV: &str = "database: d, script: { path: /home/x.sh, call: argv }";

fn with_window(source: &str) -> String {
    SMALL
        .replace("database: d", source)
        .replace("window: none", "window: { column: c, length: 1h }")
        .replace("    tables:", "    from: 2021-01-01\n    tables:")
}

#[test]
fn a_script_is_read_with_its_defaults() {
    let script = |text: &str| read(&with_window(text)).unwrap().sources.remove(0).script.unwrap();
    let all =
        script("database: d, script: { path: /home/x.sh, call: argv, ok: [0, 99], file: \"x/{unit}.gz\" }");
    assert_eq!((all.call, all.ok.as_slice()), (Call::Argv, [0, 99].as_slice()));
    assert_eq!(all.file, FilePattern::parse("x/{unit}.gz").unwrap());
    let least = script(ARGV);
    assert_eq!((least.ok.as_slice(), &least.file), ([0].as_slice(), &FilePattern::default()));
    let own = "database: d, script: { path: /home/x.sh, call: protocol }";
    assert_eq!(read(&SMALL.replace("database: d", own)).unwrap().sources[0].argv(), None);
}

/// A text with one `§` has exactly one fault: where it stands, under this key; its message holds these words.
#[track_caller]
fn one_fault(marked: &str, key: &str, words: &str) {
    let (before, after) = marked.split_once('§').unwrap();
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    let text = format!("{before}{after}");
    assert_eq!(found(&text), [format!("{}:{column} {key}", before.matches('\n').count() + 1)], "{text}");
    let error = read(&text).unwrap_err().to_string();
    let folded = error.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(folded.contains(words), "{error}");
}

#[test]
fn a_file_that_cannot_be_a_unit_s_is_refused_where_it_stands() {
    for (file, words) in [
        ("{yyyy}/{unit}.gz", "`{yyyy}` is not known; these are: {yyyymm} {dd} {source}"),
        ("../{unit}.gz", "does not stay below"),
        ("/x/{unit}.gz", "does not stay below"),
        ("{table}.csv.gz", "does not name each unit's own file"),
        ("manifest/{unit}.gz", "keeps for itself"),
        ("{unit", "stands alone"),
    ] {
        let by = format!("database: d, script: {{ path: /home/x.sh, call: argv, file: §\"{file}\" }}");
        one_fault(&with_window(&by), "sources.fab1.script.file", words);
    }
}

#[test]
fn what_a_script_called_by_arguments_never_heard_of_is_refused() {
    let text = SMALL.replace("database: d", ARGV);
    let window = "needs the start and end of a window";
    one_fault(&text.replace("window: none", "window: §none"), "jobs.j.tables[0].window", window);
    let shared = text
        .replace("{ table: a.b, window: none }", "a.b\n      - a.c")
        .replace("jobs:", "defaults: { window: §none }\njobs:");
    one_fault(&shared, "defaults.window", window);
    for (more, key) in [
        ("type: §id, step: 10", "type"),
        ("length: 1h, type: §epoch_ms", "type"),
        ("length: 1h, null_window: §include", "null_window"),
    ] {
        let by = with_window(ARGV).replace("length: 1h", more);
        one_fault(&by, &format!("jobs.j.tables[0].window.{key}"), "a script that is called by arguments");
    }
    let filtered = with_window(ARGV).replace("length: 1h }", "length: 1h }, where: §x = 1");
    one_fault(&filtered, "jobs.j.tables[0].where", "another source without `script`");
}

#[test]
fn sources_whose_scripts_would_write_one_file_are_refused() {
    let second = |script: &str| {
        let line = format!("  fab2: {{ host: g, engine: postgres, database: d, script: {script} }}\njobs:");
        with_window(ARGV).replace("jobs:", &line)
    };
    let same = second("§{ path: /x.sh, call: argv }");
    one_fault(&same, "sources.fab2.script", "the same file as units of source `fab1`");
    let file = second("{ path: /x.sh, call: argv, file: §\"{yyyymm}/{dd}/{table}/{unit}.csv.gz\" }");
    one_fault(&file, "sources.fab2.script.file", "the same file");
    assert!(read(&second("{ path: /x.sh, call: argv, file: \"b/{unit}.gz\" }")).is_ok());
    assert!(
        read(
            &same
                .replace('§', "")
                .replace("host: g, engine: postgres, database: d", "host: g, engine: postgres, database: e")
        )
        .is_ok()
    );
}

#[test]
fn keys_that_say_nothing_to_the_protocol_are_refused() {
    for key in ["ok: [99]", "file: \"{unit}.gz\""] {
        let by = format!("database: d, script: {{ path: /home/x.sh, call: protocol, §{key} }}");
        let name = key.split(':').next().unwrap();
        one("database: d", &by, &format!("sources.fab1.script.{name}"), "by the protocol");
    }
    one(
        "database: d",
        "database: d, script: { path: §x.sh, call: protocol }",
        "sources.fab1.script.path",
        "absolute",
    );
    table("window: none, §wher: x", "wher", "did you mean `where`?");
}
