//! Rows → jobs: what they mean, what is wrong with them, and that what is imported means the same.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::inventory::{Draft, Inventory, InventoryError, TableSelector, WindowRule};

const TOP: &str = "\
version: 1
timezone: Asia/Shanghai
mount: { path: /mnt/x }
target: { url: postgresql://loader@gp6/d }
sources:
  fab1: { host: h, engine: greenplum, database: qmsprd }
  fab2: { host: g, engine: postgres, database: mes }
defaults:
  window: { column: evt_timestamp, lag: 7m }
";

const OLD: &str =
    "catalog:\n  old: { url: \"postgresql://etl@gp6/qmsprd\", like: transfertable, source: fab1 }\n";

const TABLE_COLUMNS: [&str; 8] = [
    "db_name",
    "schema_nmae",
    "table_name",
    "opera_type",
    "valid_flg",
    "duration",
    "job_group",
    "condition_query_column",
];
const STATE_COLUMNS: [&str; 7] =
    ["job_group", "start_timestamp", "end_timestamp", "duration", "final_end_timestamp", "run_flg", "status"];

/// A row as `a|b|c`: `~` is NULL.
fn answer(columns: &[&str], rows: &[&str]) -> Option<Answer> {
    let cells = |row: &&str| row.split('|').map(|cell| (cell != "~").then(|| cell.to_owned())).collect();
    Some(Answer {
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        rows: rows.iter().map(cells).collect(),
    })
}

fn old(tables: &[&str], states: &[&str]) -> BTreeMap<String, Fetched> {
    let fetched = Fetched { tables: answer(&TABLE_COLUMNS, tables), jobs: answer(&STATE_COLUMNS, states) };
    BTreeMap::from([("old".to_owned(), fetched)])
}

fn draft(text: &str) -> Draft {
    Draft::parse(text, Path::new("inventory.yml")).unwrap_or_else(|error| panic!("{error}"))
}

fn complete(
    text: &str,
    fetched: &BTreeMap<String, Fetched>,
) -> Result<(Inventory, Vec<Finding>), InventoryError> {
    draft(text).complete(fetched)
}

/// What an error says, on one line.
fn said(error: &InventoryError) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Everything that is wrong with these rows.
fn wrong(tables: &[&str], states: &[&str]) -> String {
    let error = complete(&format!("{TOP}{OLD}"), &old(tables, states)).unwrap_err();
    assert!(error.faults.iter().all(|fault| fault.key.starts_with("catalog.old")), "{error}");
    assert!(error.faults.iter().all(|fault| fault.place.line == 11), "{error}");
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

const GOOD: &str = "qmsprd|sor|wpp_f|~|Y|4|hms|~";
const STATE: &str = "hms|2021-08-10 00:00:00|2021-08-10 04:00:00|4|2021-09-10 00:00:00|0|0";

mod import;

use import::jobs;

#[test]
fn the_older_tables_become_jobs() {
    let tables = [
        "qmsprd|sor|wpp_f|insert|Y|4.00|hms|upd_time",
        "qmsprd|eda|other|~|y  |0.5|hms|~",
        "qmsprd|eda|off|~|N|soon|hms|~",
    ];
    let (inventory, findings) = complete(&format!("{TOP}{OLD}"), &old(&tables, &[STATE])).unwrap();
    let [job] = inventory.jobs.as_slice() else { panic!("{:?}", inventory.jobs) };
    assert_eq!((job.name.as_str(), job.source.as_str()), ("hms", "fab1"));
    assert_eq!(job.from, Some("2021-08-10T00:00".parse().unwrap()));
    assert_eq!(job.until, Some("2021-09-10T00:00".parse().unwrap()));
    let names: Vec<String> = job.tables.iter().map(|entry| format!("{:?}", entry.what)).collect();
    assert!(names[0].contains("other") && names[1].contains("wpp_f"), "{names:?}");
    let windows: Vec<String> = job.tables.iter().map(|entry| format!("{:?}", entry.window)).collect();
    // Column and lag come from the defaults where the row says nothing.
    assert!(windows[0].contains("\"evt_timestamp\"") && windows[0].contains("420s"), "{windows:?}");
    assert!(windows[1].contains("\"upd_time\""), "{windows:?}");
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "catalog old: `tables` row `qmsprd.eda.off` of group `hms`: its valid flag says no: the table is left out",
            "catalog old: `tables` row `qmsprd.eda.other` of group `hms`: its duration 30m is not that of its job, 4h: taken as its own",
        ]
    );
}

#[test]
fn a_catalog_stands_beside_jobs_of_the_file() {
    let jobs = "jobs:\n  mine:\n    source: fab2\n    tables: [ { table: a.b, window: none } ]\n";
    let (inventory, _) = complete(&format!("{TOP}{OLD}{jobs}"), &old(&[GOOD], &[STATE])).unwrap();
    let names: Vec<&str> = inventory.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["mine", "hms"]);
    assert_eq!(draft(&format!("{TOP}{OLD}{jobs}")).inventory().jobs.len(), 1);
    // One table by two ways, one job by two ways.
    let twice = jobs.replace("fab2", "fab1").replace("a.b", "sor.wpp_f");
    let error = complete(&format!("{TOP}{OLD}{twice}"), &old(&[GOOD], &[STATE])).unwrap_err();
    let error = said(&error);
    assert!(
        error.contains("`qmsprd.sor.wpp_f`") && error.contains("by jobs.mine.tables[0] in line 15"),
        "{error}"
    );
    let same = jobs.replace("mine", "hms");
    let error = complete(&format!("{TOP}{OLD}{same}"), &old(&[GOOD], &[STATE])).unwrap_err();
    let error = said(&error);
    assert!(error.contains("there is a job `hms` already"), "{error}");
}

#[test]
fn every_fault_is_told_at_once_with_row_column_and_remedy() {
    let all = wrong(
        &[
            "qmsprd|sor|a|upsert|Y|4|hms|~",
            "qmsprd|sor|b|~|Y|secret value|hms|~",
            "qmsprd|~|c|~|Y|4|hms|~",
            "mes|sor|d|~|Y|4|hms|~",
            "qmsprd|sor|e|~|maybe|4|hms|~",
            "qmsprd|sor|f|~|~|4|hms|~",
            "qmsprd|sor|g|~|Y|4| |~",
            "qmsprd|sor|h|~|Y|4|hms|~",
            "qmsprd|sor|h|~|Y|4|hms|~",
        ],
        &[
            "hms|yester day|~|-4|2021-09-10 00:00:00|0|0",
            "x|~|~|~|~|0|0",
            "y|2021-08-10|~|~|~|0|0",
            "y|2021-08-10|~|~|~|0|0",
        ],
    );
    for one in [
        "catalog.old: `tables` row `qmsprd.sor.a` of group `hms`: `upsert` is no load mode try: one of insert",
        "row `qmsprd.sor.b` of group `hms`, column `duration`: this value cannot be used here try: a number of hours",
        "row `qmsprd.c` of group `hms`, column `schema_nmae`: nothing stands here, and a value is needed",
        "row `mes.sor.d` of group `hms`: it is in another database than source `fab1`, which has `qmsprd`",
        "row `qmsprd.sor.e` of group `hms`, column `valid_flg`: this is neither yes nor no try: Y, YES",
        "row `qmsprd.sor.f` of group `hms`, column `valid_flg`: nothing stands here",
        "row `qmsprd.sor.g`, column `job_group`: nothing stands here",
        "the same source table of source `fab1` goes to the same place by the catalog old, `tables` row `qmsprd.sor.h`",
        "`jobs` row of group `hms`, column `start_timestamp`: this value is not a timestamp try: a timestamp such as",
        "`jobs` row of group `hms`, column `duration`: this value cannot be used here",
        "`jobs` row of group `x`, column `start_timestamp`: nothing stands here",
        "`jobs` row of group `y`: this group has more than one row",
    ] {
        assert!(all.contains(one), "no `{one}` in {all}");
    }
    for value in ["secret value", "yester day", "maybe"] {
        assert!(!all.contains(value), "`{value}` in {all}");
    }
}

#[test]
fn a_range_that_ends_before_it_starts_is_a_fault_of_its_row() {
    let all = wrong(&[GOOD], &["hms|2021-09-11 00:00:00|~|4|2021-09-10 00:00:00|0|0"]);
    assert!(
        all.contains(
            "`jobs` row of group `hms`, column `start_timestamp`: 2021-09-11 00:00:00 is not before"
        ),
        "{all}"
    );
}

#[test]
fn without_a_window_column_anywhere_the_row_is_named() {
    let text = format!("{TOP}{OLD}").replace("column: evt_timestamp, ", "");
    let error = complete(&text, &old(&[GOOD], &[STATE])).unwrap_err();
    let error = said(&error);
    assert!(error.contains("row `qmsprd.sor.wpp_f` of group `hms`: the window has no column"), "{error}");
}

#[test]
fn columns_that_are_not_returned_are_named_with_those_that_are() {
    let states = answer(&["grp", "start_timestamp", "start_timestamp"], &[]);
    let fetched = Fetched { tables: answer(&TABLE_COLUMNS, &[GOOD]), jobs: states };
    let error =
        complete(&format!("{TOP}{OLD}"), &BTreeMap::from([("old".into(), fetched)])).unwrap_err().to_string();
    let said = error.split_whitespace().collect::<Vec<_>>().join(" ");
    for one in [
        "catalog.old.jobs.columns.group: the query returns no column `job_group` try: the query returns `grp`,",
        "catalog.old.jobs.columns.start: the query returns more than one column `start_timestamp`",
        "catalog.old.jobs.columns.final_end: the query returns no column `final_end_timestamp`",
    ] {
        assert!(said.contains(one), "no `{one}` in {said}");
    }
    // Named anew, or not read at all, it is no fault; capitals do not count where nothing else differs.
    let text = format!("{TOP}{OLD}").replace(
        "source: fab1 }",
        "source: fab1, jobs: { columns: { group: GRP, end: ~, final_end: ~, duration: ~ } } }",
    );
    let jobs = answer(&["grp", "start_timestamp"], &["hms|2021-08-10"]);
    let fetched = Fetched { tables: answer(&TABLE_COLUMNS, &[GOOD]), jobs };
    let (inventory, _) = complete(&text, &BTreeMap::from([("old".into(), fetched)])).unwrap();
    assert!(inventory.jobs[0].from.is_some());
}

#[test]
fn hostile_names_are_names_or_faults() {
    let tables = [
        "qmsprd|sor|'; drop table x; --|~|Y|4|hms|~",
        "qmsprd|sor|$(touch x)|~|Y|4|hms|~",
        "qmsprd|sor|a^b|~|Y|4|hms|~",
        "qmsprd|../..|/etc/*|~|Y|4|hms|~",
        "qmsprd|s\"o.r|[x]|~|Y|4|hms|' or 1=1; --",
    ];
    let (inventory, _) = complete(&format!("{TOP}{OLD}"), &old(&tables, &[STATE])).unwrap();
    let mut kept: Vec<(String, String)> = inventory.jobs[0]
        .tables
        .iter()
        .map(|entry| match &entry.what {
            TableSelector::One(name) => (name.schema().to_owned(), name.table().to_owned()),
            TableSelector::Glob { .. } => panic!("{entry:?} became a pattern"),
        })
        .collect();
    kept.sort();
    let mut meant: Vec<(String, String)> = tables
        .iter()
        .map(|row| row.split('|').collect::<Vec<_>>())
        .map(|cells| (cells[1].to_owned(), cells[2].to_owned()))
        .collect();
    meant.sort();
    assert_eq!(kept, meant);

    for group in ["../..", "$(touch x)", "a b", "-rf", ".hidden", "表", "a\nb"] {
        let all = wrong(&[&GOOD.replace("hms", group)], &[]);
        assert!(
            all.contains("column `job_group`: this is not a name of a job") || all.contains("group `"),
            "{group:?}: {all}"
        );
        assert!(all.contains("this is not a name of a job"), "{group:?}: {all}");
    }
    for (row, column) in [
        ("qmsprd|sor|a\nb|~|Y|4|hms|~", "table_name"),
        ("qmsprd|sor|a|~|Y|4|hms|x\ty", "condition_query_column"),
    ] {
        let all = wrong(&[row], &[STATE]);
        assert!(all.contains(&format!("column `{column}`")) && all.contains("control character"), "{all}");
        assert!(!all.contains('\t'), "{all}");
    }
}

#[test]
fn a_group_of_two_sources_becomes_two_jobs() {
    let text = format!("{TOP}{OLD}").replace("source: fab1 }", "source: { qmsprd: fab1, mes: fab2 } }");
    let tables = [GOOD, "mes|sor|wpp_f|~|Y|4|hms|~"];
    let (inventory, _) = complete(&text, &old(&tables, &[STATE])).unwrap();
    let jobs: Vec<_> = inventory.jobs.iter().map(|job| (job.name.as_str(), job.source.as_str())).collect();
    assert_eq!(jobs, [("hms.fab1", "fab1"), ("hms.fab2", "fab2")]);
    let error = complete(&text, &old(&["elsewhere|sor|wpp_f|~|Y|4|hms|~"], &[STATE])).unwrap_err();
    assert!(said(&error).contains("there is no source for its database"), "{error}");
}

const CONF: &str = "\
catalog:
  etl: { url: \"mysql://etl@db/etl\", like: etl_conf_d }
jobs:
  hms: { source: fab1, tables: [ { table: sor.wpp_f, window: { length: 4h } } ] }
  off: { source: fab1, tables: [ { table: sor.off, window: { length: 4h } } ] }
";

fn conf(rows: &[&str]) -> BTreeMap<String, Fetched> {
    let columns = ["JOB_NAME", "RUN_START_TIMESTAMP", "RUN_END_TIMESTAMP", "VALID_FLG"];
    BTreeMap::from([("etl".to_owned(), Fetched { tables: None, jobs: answer(&columns, rows) })])
}

#[test]
fn a_catalog_without_tables_gives_times_to_the_jobs_of_the_file() {
    let rows = [
        "hms|2021-08-10 00:00:00|2021-08-10 23:59:59|Y",
        "off|2021-08-10 00:00:00|~|N",
        "stranger|2021-08-10 00:00:00|0000-00-00 00:00:00|Y",
    ];
    let (inventory, findings) = complete(&format!("{TOP}{CONF}"), &conf(&rows)).unwrap();
    let [job] = inventory.jobs.as_slice() else { panic!("{:?}", inventory.jobs) };
    assert_eq!(job.until, Some("2021-08-11T00:00".parse().unwrap()));
    let told: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    assert!(told.contains("closed interval: taken as 2021-08-11 00:00:00"), "{told}");
    assert!(told.contains("rows without tables here, 1: `stranger`"), "{told}");
    // A zero date is nothing, so a start that is one is missing.
    let error = complete(&format!("{TOP}{CONF}"), &conf(&["hms|0000-00-00 00:00:00|~|1"])).unwrap_err();
    assert!(said(&error).contains("nothing stands here"), "{error}");
    let both = format!("{TOP}{CONF}").replace("hms: { source", "hms: { from: 2021-01-01, source");
    let error = complete(&both, &conf(&rows)).unwrap_err();
    assert!(said(&error).contains("the job has `from` already"), "{error}");
    // An instant is turned into the inventory's zone.
    let rows = ["hms|2021-08-09 16:00:00.000000+00:00|infinity|Y"];
    let (inventory, _) = complete(&format!("{TOP}{CONF}"), &conf(&rows)).unwrap();
    assert_eq!(
        (inventory.jobs[0].from, inventory.jobs[0].until),
        (Some("2021-08-10T00:00".parse().unwrap()), None)
    );
}

#[test]
fn hours_are_read_where_a_column_has_them() {
    let text = format!("{TOP}{CONF}").replace(
        "like: etl_conf_d }",
        "jobs: { query: SELECT 1, columns: { group: g, start: s, hours: h, duration: d } } }",
    );
    let fetched = |hours: &str| {
        let jobs = answer(&["g", "s", "h", "d"], &[&format!("hms|2021-08-10|{hours}|~")]);
        BTreeMap::from([("etl".to_owned(), Fetched { tables: None, jobs })])
    };
    let (inventory, _) = complete(&text, &fetched("22:00-04:00")).unwrap();
    assert_eq!(inventory.jobs[0].hours.map(|hours| hours.to_string()).as_deref(), Some("22:00-04:00"));
    let error = complete(&text, &fetched("at night")).unwrap_err();
    let said = said(&error);
    assert!(said.contains("group `hms`, column `h`: this value is not a range of the day"), "{said}");
    assert!(said.contains("or none (`hours: ~`)") && !said.contains("at night"), "{said}");
}

#[test]
fn what_is_written_about_a_catalog_is_checked() {
    let at = |catalog: &str| {
        let error =
            Draft::parse(&format!("{TOP}catalog:\n  old: {catalog}\n"), Path::new("i.yml")).unwrap_err();
        error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let url = "url: \"postgresql://etl@gp6/d\"";
    for (catalog, said) in [
        (format!("{{ {url} }}"), "neither `like` nor queries"),
        (format!("{{ {url}, like: transfertabel, source: fab1 }}"), "did you mean `transfertable`"),
        (format!("{{ {url}, like: transfertable }}"), "catalog.old.source: this key is missing"),
        (format!("{{ {url}, like: transfertable, source: fab3 }}"), "did you mean `fab1`"),
        (
            format!("{{ {url}, like: transfertable, source: {{ a: nowhere }} }}"),
            "there is no source `nowhere`",
        ),
        (format!("{{ {url}, like: etl_conf_d, source: fab1 }}"), "names no tables"),
        ("{ like: etl_conf_d }".into(), "catalog.old.url: this key is missing"),
        ("{ url: \"oracle://u@h/d\", like: etl_conf_d }".into(), "neither postgresql:// nor mysql://"),
        ("{ url: \"mysql://u:geheim@h/d\", like: etl_conf_d }".into(), "a password stands in the URL"),
        ("{ url: \"mysql://u@h/d?password=geheim\", like: etl_conf_d }".into(), "among the parameters"),
        (
            format!("{{ {url}, jobs: {{ columns: {{ group: g, start: s }} }} }}"),
            "jobs.query: this key is missing",
        ),
        (
            format!("{{ {url}, jobs: {{ query: SELECT 1, columns: {{ group: g }} }} }}"),
            "no column of the query is named for `start`",
        ),
        (format!("{{ {url}, source: fab1, tables: {{ query: SELECT 1 }} }}"), "is named for `schema`"),
        (
            format!("{{ {url}, jobs: {{ query: SELECT 1, columns: {{ gruop: g, start: s }} }} }}"),
            "did you mean `group`",
        ),
        (
            format!(
                "{{ {url}, like: transfertable, source: {{ a: fab1 }}, tables: {{ columns: {{ database: ~ }} }} }}"
            ),
            "no column is named for `database`",
        ),
        (format!("{{ {url}, like: etl_conf_d, colour: red }}"), "this key is not known"),
    ] {
        let found = at(&catalog);
        assert!(found.contains(said) && !found.contains("geheim"), "{catalog}: {found}");
    }
    let nothing = Draft::parse(TOP, Path::new("i.yml")).unwrap_err();
    let nothing = said(&nothing);
    assert!(nothing.contains("jobs: this key is missing"), "{nothing}");
}

#[test]
fn ten_thousand_rows_are_read_and_written_in_no_time() {
    let tables: Vec<String> =
        (0..10_000).map(|n| format!("qmsprd|sor|t{n}|~|{}|3|g{}|~", ["Y", "N"][n % 2], n % 1000)).collect();
    let states: Vec<String> =
        (0..1000).map(|n| format!("g{n}|2021-08-10 00:00:00|~|4|2021-09-10 00:00:00|0|0")).collect();
    let text = |rows: &[String]| rows.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let (tables, states) = (text(&tables), text(&states));
    let fetched = old(&tables.lines().collect::<Vec<_>>(), &states.lines().collect::<Vec<_>>());
    let start = std::time::Instant::now();
    let draft = draft(&format!("{TOP}{OLD}"));
    let (inventory, findings) = draft.complete(&fetched).unwrap();
    // Half of the rows are left out, the durations of the others are not their job's, and half of the states are
    // told together.
    assert_eq!((inventory.jobs.len(), findings.len()), (500, 5_000 + 5_000 + 1));
    assert!(draft.import(&fetched).unwrap().yaml.len() > 100_000);
    assert!(start.elapsed() < std::time::Duration::from_secs(15), "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn no_name_breaks_what_is_imported(
        schema in "[^\\p{C}|~ ]{1,8}", table in "\\PC{1,12}", column in "\\PC{1,12}", group in "[a-z0-9][a-z0-9_.-]{0,8}",
    ) {
        let mut fetched = old(&[], &[]);
        let row = ["qmsprd", &schema, &table, "insert", "1", "2", &group, &column];
        if let Some(answer) = &mut fetched.get_mut("old").unwrap().tables {
            answer.rows = vec![row.iter().map(|cell| Some((*cell).to_owned())).collect()];
        }
        let draft = draft(&format!("{TOP}{OLD}"));
        if let Ok((whole, _)) = draft.complete(&fetched) {
            let import = draft.import(&fetched).unwrap();
            let again = super::super::parse(&import.yaml, Path::new("i.yml")).unwrap();
            prop_assert_eq!(jobs(&again), jobs(&whole));
            let [job] = again.jobs.as_slice() else { panic!("{again:?}") };
            let WindowRule::By { .. } = &job.tables[0].window else { panic!("{job:?}") };
        }
    }

    #[test]
    fn no_row_makes_the_reader_panic(cells in prop::collection::vec(prop::option::of("\\PC{0,6}|2021-08-10( 23:59:59)?|Y|4"), 8),
        state in prop::collection::vec(prop::option::of("\\PC{0,6}|2021-08-10( 23:59:59)?|hms"), 7)) {
        let mut fetched = old(&[GOOD], &[STATE]);
        let old = fetched.get_mut("old").unwrap();
        old.tables.as_mut().unwrap().rows.push(cells);
        old.jobs.as_mut().unwrap().rows.push(state);
        let draft = draft(&format!("{TOP}{OLD}"));
        let _ = draft.complete(&fetched);
        let _ = draft.import(&fetched);
    }
}
