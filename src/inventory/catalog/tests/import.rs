//! What `import` writes means the same, and tells what was wrong.

use super::*;

/// What a plan is made of.
pub(super) fn jobs(inventory: &Inventory) -> String {
    format!("{:#?}", inventory.jobs)
}

#[test]
fn what_is_imported_means_the_same_and_tells_what_was_wrong() {
    let tables = [
        "qmsprd|sor|wpp_f|insert|Y|4.00|hms|upd_time",
        "qmsprd|sor|\"quo.ted\"|~|Y|0.5|hms|: # x",
        "qmsprd|no|yes|~|Y|~|lonely|~",
        "qmsprd|eda|off|~|N|4|hms|~",
        "qmsprd|eda|gone|~|Y|4|done|~",
    ];
    let states = [
        "hms|2021-08-10 00:00:00|2021-08-10 09:59:59|4|2021-09-09 23:59:59|0|0",
        "done|2021-09-10 00:00:00|~|4|2021-09-10 00:00:00|0|0",
        "empty|2021-09-10 00:00:00|~|4|~|0|0",
    ];
    let text = format!(
        "{TOP}{OLD}jobs:\n  mine:\n    source: fab2\n    tables: [ {{ table: a.b, window: none, where: \"x = ': #'\" }} ]\n"
    );
    let (fetched, draft) = (old(&tables, &states), draft(&text));
    let import = draft.import(&fetched).unwrap();
    let again = crate::inventory::parse(&import.yaml, Path::new("imported.yml")).unwrap();
    assert_eq!(jobs(&again), jobs(&draft.complete(&fetched).unwrap().0));
    assert!(again.catalogs.is_empty());
    let told: String = import.findings.iter().map(|finding| format!("{finding}\n")).collect();
    insta::assert_snapshot!(format!("{}\n---\n{told}", import.yaml), @r##"
    # Written by `gpferry import` from catalog old.
    # What was odd there, beside what is said below:
    #   catalog old: `jobs` row of group `done`: it is at its final end: the job is left out
    #   catalog old: `tables` row `qmsprd.eda.off` of group `hms`: its valid flag says no: the table is left out
    #   catalog old: `jobs` row of group `done`: left out with it: 1 valid table
    #   catalog old: `jobs`: rows without tables here, 1: `empty`

    version: 1
    timezone: Asia/Shanghai
    mount:
      path: /mnt/x
    target:
      url: postgresql://loader@gp6/d
    sources:
      fab1:
        host: h
        engine: greenplum
        database: qmsprd
      fab2:
        host: g
        engine: postgres
        database: mes
    defaults:
      window:
        column: evt_timestamp
        lag: 7m
    jobs:
      mine:
        source: fab2
        tables:
          - table: a.b
            window: none
            where: "x = ': #'"
      hms:
        source: fab1 # its final end is the last second of a closed interval: taken as 2021-09-10 00:00:00, which does not belong to it; its window ends in the last second of a closed interval; half-open it ends at 2021-08-10 10:00:00; its duration 4h does not divide its window, 2021-08-10 00:00:00 to 2021-08-10 10:00:00
        from: "2021-08-10 00:00:00"
        until: "2021-09-10 00:00:00"
        window:
          length: 4h
        tables:
          - table: sor."""quo.ted""" # its duration 30m is not that of its job, 4h: taken as its own
            window:
              column: ": # x"
              length: 30m
          - table: sor.wpp_f
            window:
              column: upd_time
            load:
              mode: insert
      lonely:
        source: fab1 # there is no row of `jobs` for it, so the job has no `from`
        tables:
          - table: no.yes

    ---
    catalog old: `jobs` row of group `hms`: its final end is the last second of a closed interval: taken as 2021-09-10 00:00:00, which does not belong to it
    catalog old: `jobs` row of group `hms`: its window ends in the last second of a closed interval; half-open it ends at 2021-08-10 10:00:00
    catalog old: `jobs` row of group `hms`: its duration 4h does not divide its window, 2021-08-10 00:00:00 to 2021-08-10 10:00:00
    catalog old: `jobs` row of group `done`: it is at its final end: the job is left out
    catalog old: `tables` row `qmsprd.eda.off` of group `hms`: its valid flag says no: the table is left out
    catalog old: `jobs` row of group `done`: left out with it: 1 valid table
    catalog old: `tables` row `qmsprd.sor."quo.ted"` of group `hms`: its duration 30m is not that of its job, 4h: taken as its own
    catalog old: group `lonely`: there is no row of `jobs` for it, so the job has no `from`
    catalog old: `jobs`: rows without tables here, 1: `empty`
    "##);
}

#[test]
fn an_import_leaves_out_what_a_run_refuses() {
    let tables = [GOOD, GOOD, "qmsprd|sor|x|~|Y|4|back|~"];
    let states = [STATE, STATE, "back|2021-09-11 00:00:00|~|4|2021-09-10 00:00:00|0|0"];
    let (text, fetched) = (format!("{TOP}{OLD}"), old(&tables, &states));
    assert_eq!(complete(&text, &fetched).unwrap_err().faults.len(), 3);
    let import = draft(&text).import(&fetched).unwrap();
    let told: String = import.findings.iter().map(|finding| format!("{finding}\n")).collect();
    for one in [
        "the table is listed twice: the first row is taken",
        "this group has more than one row: the first is taken",
        "its final end 2021-09-10 00:00:00 is before its start 2021-09-11 00:00:00: the job is left out",
    ] {
        assert!(told.contains(one) && import.yaml.contains(one), "no `{one}` in {told}{}", import.yaml);
    }
    let error = draft(&text).import(&old(&[], &[])).unwrap_err();
    let error = said(&error);
    assert!(error.contains("jobs"), "{error}");
}

#[test]
fn one_of_two_catalogs_can_be_left_behind() {
    let both = format!("{TOP}{OLD}{}", CONF.replace("catalog:\n", ""));
    let import =
        draft(&both).import(&old(&[&GOOD.replace("hms", "nightly").replace("wpp_f", "x")], &[])).unwrap();
    let left = crate::inventory::parse(&import.yaml, Path::new("i.yml")).unwrap();
    assert_eq!(left.catalogs.iter().map(|catalog| catalog.name.as_str()).collect::<Vec<_>>(), ["etl"]);
    assert_eq!(left.jobs.len(), 3);
}
