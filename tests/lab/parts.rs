//! Each segment of a Greenplum source writes its own part of a unit: what arrives is what was there, and whatever breaks
//! on a segment, on the mount or on the runner breaks the unit and leaves nothing.
//!
//! The segments run outside of the hosts' mount namespaces, as users of their own: they see the mount at its real path,
//! and share a group with it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::ends::wait_for;
use crate::greenplum::Source;
use crate::support::{Case, lab};

/// A case whose source is a Greenplum.
struct World {
    case: Case,
    from: Source,
}

impl World {
    fn new(name: &str) -> Option<Self> {
        Self::at(name, "")
    }

    /// The same, with the mount in a directory of this name below the test's own.
    fn at(name: &str, below: &str) -> Option<Self> {
        let from = Source::new(&format!("{name}_from_{}", std::process::id()))?;
        let case = Case::new(&format!("{name}_{}", std::process::id()));
        let world = Self { case, from };
        let mut client = postgres::Client::connect(&world.url(), postgres::NoTls).unwrap();
        // The group that the segments write as.
        let group: String = client.query_one("SELECT current_setting('data_directory')", &[]).unwrap().get(0);
        let group = fs::metadata(group).unwrap().gid();
        fs::set_permissions(lab().get("LAB_MOUNT"), fs::Permissions::from_mode(0o2775)).unwrap();
        let owner = fs::metadata(lab().get("LAB_MOUNT")).unwrap().uid();
        let mount = world.case.mount();
        for directory in [mount, world.mount(below)] {
            let _ = fs::create_dir(&directory);
            chown(&directory, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o2770)).unwrap();
        }
        Some(world)
    }

    /// The mount in a directory of this name.
    fn mount(&self, below: &str) -> PathBuf {
        if below.is_empty() { self.case.mount() } else { self.case.mount().join(below) }
    }

    fn url(&self) -> String {
        let Source { name, host, port, admin, .. } = &self.from;
        format!("host={host} port={port} user={admin} dbname={name}")
    }

    /// An inventory that exports from there by segments; `below`: the directory of the mount.
    fn inventory(&self, below: &str, job: &str, tables: &[&str]) {
        let mount = self.mount(below);
        self.case.inventory_with(&format!("    segments: {{ mount: '{}' }}\n", quoted(&mount)), job, tables);
        let name = self.case.database();
        let lab = lab();
        let (socket, port, on_host) =
            (lab.get("LAB_SOURCE_SOCKET"), lab.get("LAB_SOURCE_PORT"), lab.get("LAB_MOUNT_A"));
        let Source { name: from, host, port: gp_port, admin, .. } = &self.from;
        self.case.edit_inventory(
            &format!("connection: {{ host: {socket}, port: {port}, user: gpadmin }}"),
            &format!("connection: {{ host: {host}, port: {gp_port}, user: {admin} }}"),
        );
        self.case.edit_inventory("engine: postgres", "engine: greenplum");
        self.case.edit_inventory(&format!("database: {name}\n"), &format!("database: {from}\n"));
        if !below.is_empty() {
            let case_mount = self.case.mount();
            self.case.edit_inventory(
                &format!("mount: {{ path: {} }}", case_mount.display()),
                &format!("mount: {{ path: '{}' }}", quoted(&mount)),
            );
            self.case.edit_inventory(
                &format!("mount: {on_host}/{name}\n"),
                &format!("mount: '{}'\n", quoted(&Path::new(on_host).join(name).join(below))),
            );
        }
        self.case.edit_inventory(
            "jobs:\n",
            "defaults: { export: { method: segments, slice_bytes: 1GiB, retries: 0 } }\njobs:\n",
        );
    }

    /// The same SQL on both sides.
    fn both(&mut self, sql: &str) {
        self.from.client.batch_execute(sql).unwrap_or_else(|error| panic!("source: {error:?}: {sql}"));
        self.case.target.batch_execute(sql).unwrap_or_else(|error| panic!("target: {error:?}: {sql}"));
    }

    fn source(&mut self, sql: &str) {
        self.from.client.batch_execute(sql).unwrap_or_else(|error| panic!("source: {error:?}: {sql}"));
    }

    /// Every row of a query, on each side, in COPY's binary form.
    #[track_caller]
    fn assert_same(&mut self, query: &str) {
        let read = |client: &mut postgres::Client| {
            let (mut bytes, copy) = (Vec::new(), format!("COPY ({query}) TO STDOUT (FORMAT binary)"));
            std::io::Read::read_to_end(&mut client.copy_out(copy.as_str()).unwrap(), &mut bytes).unwrap();
            bytes
        };
        let (source, target) = (read(&mut self.from.client), read(&mut self.case.target));
        assert!(source == target, "{query}: {} bytes and {}", source.len(), target.len());
    }

    fn primaries(&mut self) -> usize {
        let query = "SELECT count(*) FROM gp_segment_configuration WHERE role = 'p' AND content >= 0";
        self.from.client.query_one(query, &[]).unwrap().get::<_, i64>(0) as usize
    }

    /// External tables, and sessions that export.
    fn left_in_the_source(&mut self) -> i64 {
        let query = "SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'gpferry%') + (SELECT count(*) FROM pg_stat_activity \
             WHERE application_name LIKE 'gpferry%' AND datname = current_database())";
        self.from.client.query_one(query, &[]).unwrap().get(0)
    }

    /// What compressors of this test's segments are at work.
    fn compressors(&self) -> Vec<u32> {
        let mount = self.case.mount();
        let writes_there = |process: &PathBuf| {
            fs::read_link(process.join("fd/1")).is_ok_and(|file| file.starts_with(&mount))
                && fs::read_to_string(process.join("comm"))
                    .is_ok_and(|name| ["igzip", "pigz", "gzip"].contains(&name.trim()))
        };
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let pid = |process: PathBuf| process.file_name()?.to_str()?.parse().ok();
        processes.filter(writes_there).filter_map(pid).collect()
    }

    fn nothing_is_left(&mut self) {
        wait_for("something is left in the source", Duration::from_secs(60), || {
            self.left_in_the_source() == 0
        });
        wait_for("a file is left", Duration::from_secs(15), || self.case.files().is_empty());
    }
}

/// Within single quotes of YAML.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace('\'', "''")
}

const ODD: &str = "CREATE TYPE mood AS ENUM ('sad', 'o,k'); CREATE DOMAIN cents AS numeric(10,2); \
     CREATE TABLE odd (id int PRIMARY KEY, c char(5), m mood, n cents, k money, b boolean, a text[], i interval, x xml, \
     j json, \"We ird\"\"c\" text, f4 float4, f8 float8, by bytea, d date, ts timestamp, tz timestamptz, ch \"char\") \
     DISTRIBUTED BY (id)";

const ODD_ROWS: &str = "SET gp_autostats_mode = 'none'; SET TimeZone = 'Asia/Shanghai'; INSERT INTO odd SELECT g, 'ab', 'o,k', g / 7.0, '12.5', g % 2 = 0, \
     ARRAY['a', 'b,\"c', NULL, ''], g * interval '1 day 2:03:04.5', '<a b=\"1\"/>', '{\"a\": 1}', \
     CASE g % 9 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'two\\nlines' WHEN 3 THEN E'\\\\.' WHEN 4 THEN '\"' \
     WHEN 5 THEN E'a\\r\\nb' WHEN 6 THEN '表 ü €' WHEN 7 THEN ' ' ELSE E'\\\\N' END, \
     g / 3.0, 1 / (g + 1.0 / 3), decode(lpad(to_hex(g), 4, '0'), 'hex'), date '2021-01-01' + g, \
     timestamp '2021-01-01' + g * interval '1.000001 s', timestamptz '2021-01-01' + g * interval '1 s', 'c' \
     FROM generate_series(1, 500) g; INSERT INTO odd (id) VALUES (1000)";

#[test]
fn what_segments_write_is_what_copy_writes() {
    let Some(mut world) = World::new("parts_odd") else { return };
    world.both(ODD);
    world.source(ODD_ROWS);
    world.both("CREATE TABLE one (t text) DISTRIBUTED BY (t)");
    world.source(
        "INSERT INTO one VALUES (E'\\\\.'), (''), (NULL), (E'x\\n\\\\.\\ny'), ('\"'), (E'\\\\N'), (' ')",
    );
    let tables = ["{ table: public.odd, window: none }", "{ table: public.one, window: none }"];
    world.inventory("", "", &tables);
    world.case.gpferry(&["export"]).expect(0).says("exported by the segments of s: the inventory says so");
    let by_segments = lines(&world, "seg");
    fs::remove_file(world.case.path("inventory.ledger.sqlite")).unwrap();
    world.case.edit_inventory("method: segments", "method: copy");
    world.case.gpferry(&["export"]).expect(0);
    assert_eq!(world.case.files().len(), 2, "the parts of the first export are still there");
    assert_eq!(by_segments, lines(&world, "all.csv.gz"), "the same bytes, row by row");
    assert!(by_segments.len() > 500);
    assert_eq!(world.left_in_the_source(), 0);
}

/// The lines of all files of this ending, sorted: segments have their own order.
fn lines(world: &World, mark: &str) -> Vec<Vec<u8>> {
    let root = world.case.mount().join("file2GP");
    let mut lines = Vec::new();
    for file in world.case.files().iter().filter(|file| file.to_string_lossy().contains(mark)) {
        let output = Command::new("gzip").arg("-dc").arg(root.join(file)).output().unwrap();
        assert!(output.status.success(), "{}", file.display());
        lines.extend(output.stdout.split(|&byte| byte == b'\n').map(<[u8]>::to_vec));
    }
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}

#[test]
fn rows_arrive_whatever_their_table_is_and_each_part_is_on_record() {
    let Some(mut world) = World::new("parts_kinds") else { return };
    let primaries = world.primaries();
    world.both(
        "CREATE TABLE spread (id int, at timestamp, v text) DISTRIBUTED BY (id); \
         CREATE TABLE strewn (id int, v text) DISTRIBUTED RANDOMLY; \
         CREATE TABLE everywhere (id int, v text) DISTRIBUTED REPLICATED; \
         CREATE TABLE empty (id int) DISTRIBUTED BY (id); CREATE TABLE single (id int) DISTRIBUTED BY (id); \
         CREATE TABLE cut (id int, d date) DISTRIBUTED BY (id) PARTITION BY RANGE (d) \
         (START ('2021-01-01') END ('2021-03-01') EVERY (INTERVAL '1 month'))",
    );
    world.source(
        "INSERT INTO spread SELECT i, timestamp '2021-08-10' + i * interval '1 minute', 'row ' || i \
         FROM generate_series(0, 2879) i; \
         INSERT INTO strewn SELECT i, 'x' FROM generate_series(1, 1000) i; \
         INSERT INTO everywhere SELECT i, 'x' FROM generate_series(1, 1000) i; INSERT INTO single VALUES (7); \
         INSERT INTO cut SELECT i, date '2021-01-01' + i % 59 FROM generate_series(1, 1000) i; \
         CREATE VIEW seen AS SELECT id * 2 AS id, v FROM strewn WHERE id % 3 = 0",
    );
    world.case.target.batch_execute("CREATE TABLE seen (id int, v text)").unwrap();
    world.inventory(
        "",
        "    from: 2021-08-10 00:00:00\n    until: 2021-08-12 00:00:00\n",
        &[
            "{ table: public.spread, window: { column: at, length: 12h }, where: \"v <> 'row 5; --' AND id::text <> 'x'\" }",
            "{ table: public.strewn, window: none }",
            "{ table: public.everywhere, window: none }",
            "{ table: public.empty, window: none }",
            "{ table: public.single, window: none }",
            "{ table: public.cut, window: none }",
            "{ table: public.seen, window: none }",
        ],
    );
    let ran = world.case.gpferry(&["run", "--format", "json"]).expect(0).json();
    for table in ["spread", "strewn", "everywhere", "empty", "single", "cut", "seen"] {
        let order = if table == "spread" { "id, at" } else { "1" };
        world.assert_same(&format!("SELECT * FROM {table} ORDER BY {order}"));
    }
    let units = ran["units"].as_array().unwrap();
    assert_eq!(units.len(), 10);
    for unit in units {
        assert_eq!(unit["files"], primaries, "{unit}");
        assert!(unit["file"].as_str().unwrap().ends_with("^seg*.csv.gz"), "{unit}");
    }
    let files = world.case.files();
    assert_eq!(files.len(), 10 * primaries, "{files:?}");
    let root = world.case.mount().join("file2GP");
    for file in &files {
        assert_eq!(fs::metadata(root.join(file)).unwrap().mode() & 0o777, 0o640, "{}", file.display());
    }
    let manifest = fs::read_dir(root.join("manifest")).unwrap().next().unwrap().unwrap().path();
    let manifest = fs::read_to_string(manifest).unwrap();
    assert_eq!(manifest.lines().count(), files.len(), "one line a file");
    assert!(
        manifest.contains(&format!("\"part\":{{\"no\":0,\"of\":{primaries},\"rows_of_all\":1}}")),
        "{manifest}"
    );
    assert_eq!(world.left_in_the_source(), 0);
    // Loaded, they go with their unit.
    world.case.edit_inventory("version: 1\n", "version: 1\nkeep: { files: 1us }\n");
    world.case.gpferry(&["prune"]).expect(0);
    assert_eq!(world.case.files(), Vec::<PathBuf>::new());
}

#[test]
fn an_odd_path_of_the_mount_reaches_the_segments_as_it_is() {
    let below = "it's $(touch x) `y` \"z\" %s ä";
    let Some(mut world) = World::at("parts_path", below) else { return };
    world.both("CREATE TABLE t (id int) DISTRIBUTED BY (id)");
    world.source("INSERT INTO t SELECT generate_series(1, 100)");
    world.inventory(below, "", &["{ table: public.t, window: none }"]);
    world.case.gpferry(&["run"]).expect(0).says("100 rows");
    world.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn parts_survive_between_export_and_load_and_a_damaged_one_fails_its_unit() {
    let Some(mut world) = World::new("parts_hurt") else { return };
    world.both("CREATE TABLE t (id int, v text) DISTRIBUTED BY (id)");
    world.source("INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) i");
    world.inventory("", "", &["{ table: public.t, window: none }"]);
    world.case.edit_inventory("retries: 0", "retries: 9");
    let root = world.case.mount().join("file2GP");
    type Hurt = fn(&Path);
    let hurt: [(&str, Hurt); 4] = [
        ("is not there for the runner", |path| fs::remove_file(path).unwrap()),
        ("is truncated", |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(fs::metadata(path).unwrap().len() - 1).unwrap();
        }),
        ("seg1.csv.gz", |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x55;
            fs::write(path, bytes).unwrap();
        }),
        ("was changed after it was published", |path| {
            let mut bytes = fs::read(path).unwrap();
            let at = bytes.len() - 2;
            bytes[at] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
    ];
    for (says, hurt) in hurt {
        world.case.gpferry(&["export"]).expect(0);
        let files = world.case.files();
        hurt(&root.join(files.iter().find(|file| file.to_string_lossy().contains("^seg1")).unwrap()));
        world.case.gpferry(&["load"]).expect(3).says(says).says("^seg1.csv.gz");
        assert_eq!(world.case.count("SELECT count(*) FROM t"), 0, "{says}");
    }
    world.case.gpferry(&["export"]).expect(0);
    world.case.gpferry(&["load"]).expect(0).says("5000 rows");
    world.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn a_disk_that_is_full_fails_the_unit_and_says_so() {
    let Some(mut world) = World::new("parts_full") else { return };
    world.both("CREATE TABLE t (id int, v text) DISTRIBUTED BY (id)");
    world.source("INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 200000) i");
    world.inventory("", "", &["{ table: public.t, window: none }"]);
    // The directory that the unit's parts will stand in, as the segments see it, is a small file system.
    world.case.gpferry(&["export"]).expect(0);
    let directory = world.case.mount().join("file2GP").join(world.case.files()[0].parent().unwrap());
    for file in world.case.files() {
        fs::remove_file(world.case.mount().join("file2GP").join(file)).unwrap();
    }
    fs::remove_file(world.case.path("inventory.ledger.sqlite")).unwrap();
    let facts = fs::metadata(&directory).unwrap();
    let options = format!("size=200k,mode=2770,uid={},gid={}", facts.uid(), facts.gid());
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&directory).status();
    assert!(mounted.unwrap().success());
    let ran = world.case.gpferry(&["run"]);
    let mut taken = 0;
    for entry in fs::read_dir(&directory).unwrap().flatten() {
        taken += entry.metadata().unwrap().len();
    }
    assert!(Command::new("umount").arg(&directory).status().unwrap().success());
    let said = ran.expect(3);
    assert!(taken > 100_000, "it was not full: {taken}");
    said.says("No space left on device");
    world.nothing_is_left();
    world.case.gpferry(&["run"]).expect(0).says("200000 rows");
}

/// A table whose export takes a while on every segment.
fn slow(world: &mut World, rows: u32) {
    world.both("CREATE TABLE t (id int, v text) DISTRIBUTED BY (id)");
    world.source(&format!("INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, {rows}) i"));
    let table = "{ table: public.t, window: none, where: \"pg_sleep(CASE WHEN id % 500 = 0 THEN 0.3 ELSE 0 END) IS NOT NULL\" }";
    world.inventory("", "", &[table]);
}

#[test]
fn a_compressor_that_dies_on_one_segment_fails_the_unit_and_leaves_nothing() {
    let Some(mut world) = World::new("parts_killed") else { return };
    slow(&mut world, 10_000);
    let run = world.case.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("no compressor is at work", Duration::from_secs(60), || !world.compressors().is_empty());
    let pid = world.compressors()[0].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    world.nothing_is_left();
    assert_eq!(world.case.count("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_client_that_dies_on_the_source_host_takes_the_statement_of_the_segments_with_it() {
    let Some(mut world) = World::new("parts_psql") else { return };
    // It would go on for half an hour.
    slow(&mut world, 6_000);
    world.case.edit_inventory("% 500 = 0 THEN 0.3", "% 500 = 0 THEN 300");
    let run = world.case.command(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("no compressor is at work", Duration::from_secs(60), || !world.compressors().is_empty());
    let mark = format!("PGDATABASE={}", world.from.name);
    let is_client = |process: &PathBuf| {
        fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "psql")
            && fs::read(process.join("environ"))
                .is_ok_and(|all| all.split(|&byte| byte == 0).any(|one| one == mark.as_bytes()))
    };
    let mut processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let client = processes.find(is_client).expect("a psql");
    let pid = client.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stdout));
    world.nothing_is_left();
    assert_eq!(world.compressors(), Vec::<u32>::new());
}

#[test]
fn a_runner_that_is_killed_leaves_nothing_behind_and_a_stop_ends_at_once() {
    let Some(mut world) = World::new("parts_dead") else { return };
    slow(&mut world, 60_000);
    for signal in ["-KILL", "-INT"] {
        let mut run =
            world.case.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("no compressor is at work", Duration::from_secs(60), || !world.compressors().is_empty());
        assert!(Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap().success());
        wait_for("the run goes on", Duration::from_secs(20), || run.try_wait().unwrap().is_some());
        world.nothing_is_left();
        assert_eq!(world.compressors(), Vec::<u32>::new());
    }
    world.case.edit_inventory("0.3 ELSE", "0.0 ELSE");
    world.case.gpferry(&["run"]).expect(0).says("60000 rows");
    world.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled_on_the_segments() {
    let Some(mut world) = World::new("parts_limit") else { return };
    slow(&mut world, 60_000);
    world.case.edit_inventory("retries: 0", "retries: 0, timeout: 2s");
    world.case.gpferry(&["run"]).expect(3).says("export.timeout");
    world.nothing_is_left();
}

#[test]
fn slices_of_what_is_large_are_left_to_the_segments_by_auto() {
    let Some(mut world) = World::new("parts_auto") else { return };
    world.both("CREATE TABLE t (id int PRIMARY KEY, v text) DISTRIBUTED BY (id)");
    world.source(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 50000) i; ANALYZE t",
    );
    world.inventory("", "", &["{ table: public.t, window: none }"]);
    world.case.edit_inventory("method: segments, slice_bytes: 1GiB", "method: auto, slice_bytes: 1MiB");
    world.case.gpferry(&["plan", "--slices"]).expect(0).says("exported by the segments of s: it is large");
    let ran = world.case.gpferry(&["run", "--format", "json"]).expect(0).json();
    let units = ran["units"].as_array().unwrap();
    assert!(units.len() > 1, "{units:?}");
    let primaries = world.primaries();
    assert!(units.iter().all(|unit| unit["files"] == primaries), "{units:?}");
    world.assert_same("SELECT * FROM t ORDER BY id");
    // What is small is left to COPY, and so is everything where the segments do not see the mount.
    world.both("CREATE TABLE small (id int PRIMARY KEY) DISTRIBUTED BY (id)");
    world.source("INSERT INTO small VALUES (1)");
    world.case.target.batch_execute("TRUNCATE t; DROP SCHEMA gpferry CASCADE").unwrap();
    fs::remove_file(world.case.path("inventory.ledger.sqlite")).unwrap();
    world.case.edit_inventory("segments: { mount: '/", "segments: { mount: '/no");
    world.case.edit_inventory(
        "      - { table: public.t",
        "      - { table: public.small, window: none }\n      - { table: public.t",
    );
    let ran = world.case.gpferry(&["run"]).expect(0);
    ran.says("exported by COPY: segment").says("does not see the mount there");
    assert_eq!(
        world.case.files().iter().filter(|file| file.to_string_lossy().contains("^small^")).count(),
        1
    );
    world.assert_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn what_is_forced_and_cannot_be_says_what_is_missing_and_plan_shows_the_choice() {
    let Some(mut world) = World::new("parts_refused") else { return };
    world.both("CREATE TABLE t (id int) DISTRIBUTED BY (id)");
    world.source("INSERT INTO t SELECT generate_series(1, 100)");
    world.inventory("", "", &["{ table: public.t, window: none }"]);
    world.case.gpferry(&["plan", "--slices"]).expect(0).says("exported by the segments of s");
    let segments = format!("segments: {{ mount: '{}' }}", world.case.mount().display());
    world.case.edit_inventory(&segments, "segments: { mount: /nowhere/else }");
    world
        .case
        .gpferry(&["run"])
        .expect(3)
        .says("does not see the mount there")
        .says("segments: { mount: PATH }");
    world.case.edit_inventory("segments: { mount: /nowhere/else }", &segments);
    let user = format!("user: {}", world.from.admin);
    world.source("GRANT SELECT ON t TO loader");
    world.case.edit_inventory(&user, "user: loader");
    world
        .case
        .gpferry(&["run"])
        .expect(3)
        .says("loader is no superuser")
        .says("ALTER ROLE \"loader\" SUPERUSER");
    world.case.edit_inventory("method: segments", "method: auto");
    world.case.gpferry(&["run"]).expect(0).says("100 rows");
    assert!(world.case.files()[0].to_string_lossy().ends_with("all.csv.gz"));
    assert_eq!(world.left_in_the_source(), 0);
}

/// What the script says to these requests, asked by hand on this machine.
fn by_hand(world: &World, requests: &[String]) -> String {
    let Source { name, host, port, admin, .. } = &world.from;
    let set = |name: &str, value: &str| format!("set\t{name}\t{value}\n");
    let mount = world.case.mount();
    let text = [
        "hello\t1\tN\t0\t60\n".to_owned(),
        set("PGHOST", host),
        set("PGPORT", &port.to_string()),
        set("PGUSER", admin),
        set("PGDATABASE", name),
        set("MOUNT", &mount.display().to_string()),
        set("PART", "r.1"),
        requests.concat(),
        "end\n".to_owned(),
    ];
    fs::write(world.case.path("requests"), text.concat()).unwrap();
    let output = Command::new("timeout")
        .args(["60", "bash", "-c", "bash \"$2\" export <\"$1\"", "hand"])
        .arg(world.case.path("requests"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/greenplum.sh"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_script_takes_only_whole_parts_of_every_segment_and_no_statement_that_leads_elsewhere() {
    let Some(mut world) = World::new("parts_hand") else { return };
    world.source("CREATE TABLE t (id int) DISTRIBUTED BY (id); INSERT INTO t SELECT generate_series(1, 100)");
    let primaries = world.primaries();
    let (mount, elsewhere) = (world.case.mount(), world.case.mount().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    let owner = fs::metadata(&mount).unwrap();
    chown(&elsewhere, Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o2770)).unwrap();
    let witness = world.case.path("witness");
    let ask = |no: usize, parts: usize, name: &str, written: &Path, query: &str| {
        let table = gpferry::names::TableName::new("public", "t").unwrap();
        let file = written.join(format!("{name}.csv.gz"));
        let parts_of = gpferry::source::segments::Parts {
            file: &file,
            tag: "r.1",
            compressor: gpferry::inventory::Compressor::Auto,
        };
        let columns = gpferry::source::segments::Columns::Like;
        let made = gpferry::source::segments::statements(parts_of, &table, &columns, query).unwrap();
        let path = mount.join("f").join(format!("{name}.csv.gz"));
        let [create, look, insert] = [made.create, made.look, made.insert];
        format!("segments\t{no}\t{}\t{parts}\t{create}\t{look}\t{insert}\n", path.display())
    };
    let here = mount.join("f");
    let all = "SELECT \"id\" FROM \"public\".\"t\"";
    let odd = |no: usize, tail: &str| ask(no, primaries, "odd", &here, &format!("{all} WHERE {tail}"));
    let touch = format!("touch {}", witness.display());
    let said = by_hand(
        &world,
        &[
            // What another way, or more segments, left of the unit.
            ask(0, primaries, "good", &here, all),
            ask(1, primaries, "lost", &elsewhere, all),
            ask(2, primaries + 1, "more", &here, all),
            ask(3, primaries, "none", &here, &format!("{all} WHERE false")),
            odd(4, &format!("id = 1; \\! {touch}")),
            odd(5, &format!("'' <> E'\\'' \\! {touch} ''")),
            odd(6, "id = :HOST"),
            odd(7, "id = 1 -- x"),
            odd(8, "id / 0 = 1"),
            format!(
                "look\t9\t{}\n",
                "CREATE READABLE EXTERNAL WEB TEMP TABLE gpferry_seen (line text) EXECUTE 'echo seen $GP_SEGMENT_ID' ON ALL FORMAT 'text' (DELIMITER 'off')"
            ),
        ],
    );
    let of = |no: usize, word: &str| {
        let head = format!("N\t{word}\t{no}\t");
        said.lines().filter(|line| line.starts_with(&head)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(of(0, "ok")[0].starts_with("N\tok\t0\t100\t") && of(0, "part").len() == primaries, "{said}");
    assert!(of(1, "error")[0].contains("is it another directory?"), "{said}");
    assert!(of(2, "error")[0].contains("where 3 were expected") || primaries != 2, "{said}");
    assert!(of(3, "ok")[0].starts_with("N\tok\t3\t0\t") && of(3, "part").len() == primaries, "{said}");
    for no in 4..=7 {
        assert!(of(no, "error")[0].contains("the statement holds"), "{no}: {said}");
    }
    assert!(of(8, "error")[0].contains("22012"), "{said}");
    assert_eq!(of(9, "row").len(), primaries, "{said}");
    assert!(said.contains("N\tend\t0") && !witness.exists(), "{said}");
    let mut files: Vec<_> = fs::read_dir(&here).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    let expected: Vec<std::ffi::OsString> = ["good", "none"]
        .iter()
        .flat_map(|name| (0..primaries).map(move |no| format!("{name}^seg{no}.csv.gz").into()))
        .collect();
    assert_eq!(files, expected, "nothing half-written is left where the script can see it");
    assert_eq!(world.left_in_the_source(), 0);
}

#[test]
fn a_unit_behind_one_whose_segment_died_keeps_every_digit() {
    let Some(mut world) = World::new("parts_digits") else { return };
    world.both("CREATE TABLE f (id int PRIMARY KEY, x float8, y float4); CREATE TABLE a (id int)");
    // The first is the larger, so it is exported first.
    world.source(
        "INSERT INTO f SELECT i, i / 7.0::float8, i / 7.0::float4 FROM generate_series(1, 500) i; \
         INSERT INTO a SELECT generate_series(1, 200000); ANALYZE a; ANALYZE f; \
         CREATE FUNCTION die() RETURNS bool LANGUAGE plpgsql VOLATILE AS $$ BEGIN \
         PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN true; END $$",
    );
    world.inventory(
        "",
        "",
        &["{ table: public.a, window: none, where: \"die()\" }", "{ table: public.f, window: none }"],
    );
    // One session for both: its segment processes are made anew behind the first.
    world.case.edit_inventory("    engine: greenplum\n", "    engine: greenplum\n    sessions: 1\n");
    world.case.gpferry(&["run"]).expect(3).says("1 of 2 units loaded, 500 rows").says("public^a^all");
    world.assert_same("SELECT * FROM f ORDER BY id");
}
