//! Jobs that stand in a database: in PostgreSQL, and in a MariaDB of Debian's packages.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gpferry::catalog::{CatalogError, Limits, fetch};
use gpferry::inventory::Draft;
use gpferry::stop::Stop;
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};

use crate::support::{Case, Ran, lab, ran};

/// A MariaDB of the lab.
struct Maria {
    port: String,
    socket: String,
    password: String,
}

impl Maria {
    fn start(name: &str, options: &[&str]) -> Self {
        let output = Command::new("bash")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab.sh"))
            .args(["mariadb", lab().get("LAB_DIR"), name])
            .args(options)
            .output()
            .unwrap();
        let said = ran(output).expect(0).stdout;
        let get = |key: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {key} in {said}")).to_owned()
        };
        let options = fs::read_to_string(get("LAB_MARIADB_OPTIONS")).unwrap();
        let password = options.trim().rsplit_once('=').unwrap().1.to_owned();
        Self { port: get("LAB_MARIADB_PORT"), socket: get("LAB_MARIADB_SOCKET"), password }
    }

    /// The one that most tests share, with TLS, in a time zone that is not UTC.
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Maria> = OnceLock::new();
        SHARED.get_or_init(|| {
            let pg = format!("{}/pg/target/server", lab().get("LAB_DIR"));
            let (cert, key) = (format!("--ssl-cert={pg}.crt"), format!("--ssl-key={pg}.key"));
            Self::start("shared", &["--default-time-zone=+08:00", &cert, &key])
        })
    }

    /// An administrator's session with a database of its own.
    fn database(&self, name: &str) -> Conn {
        let opts = OptsBuilder::new().socket(Some(self.socket.clone())).user(Some("root"));
        let mut conn = Conn::new(opts).unwrap();
        conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{name}`")).unwrap();
        conn.query_drop(format!("USE `{name}`")).unwrap();
        conn
    }

    fn url(&self, database: &str) -> String {
        format!("mysql://etl@localhost:{}/{database}", self.port)
    }
}

/// A case whose inventory has these lines instead of its jobs.
fn with(name: &str, lines: &str) -> Case {
    let case = Case::new(name);
    put(&case, lines);
    case
}

fn put(case: &Case, lines: &str) {
    case.inventory(&["{ table: public.t, window: none }"]);
    let path = case.path("inventory.yml");
    let text = fs::read_to_string(&path).unwrap();
    let (top, _) = text.split_once("jobs:\n").unwrap();
    fs::write(path, format!("{top}{lines}")).unwrap();
}

/// The older tables, empty, in the target's database.
const OLDER: &str = "CREATE SCHEMA eda; GRANT USAGE ON SCHEMA eda TO loader; \
    CREATE TABLE eda.transfertable (db_name varchar(64), schema_nmae varchar(64), table_name varchar(64), \
      opera_type varchar(20), valid_flg char(3), duration numeric(10,2), job_group varchar(64), \
      condition_query_column varchar(64)); \
    CREATE TABLE eda.transferstatetable (job_group varchar(64), start_timestamp timestamp, \
      end_timestamp timestamp, duration numeric(10,2), final_end_timestamp timestamptz, run_flg int, status int); \
    GRANT SELECT ON ALL TABLES IN SCHEMA eda TO loader";

/// A case with the older tables as its catalog.
fn older(name: &str) -> Case {
    let mut case = Case::new(name);
    case.target.batch_execute(OLDER).unwrap();
    let (port, database) = (lab().get("LAB_TARGET_PORT"), case.database());
    let url = format!("postgresql://loader@127.0.0.1:{port}/{database}");
    put(&case, &format!("catalog:\n  old: {{ url: \"{url}\", like: transfertable, source: s }}\n"));
    case
}

fn units(ran: &Ran) -> Vec<String> {
    let json = ran.json();
    json["units"].as_array().unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn the_older_tables_drive_a_run_and_their_import_the_same_plan() {
    let mut case = older("older");
    let name = case.database().to_owned();
    case.both(
        "CREATE TABLE t (at timestamp PRIMARY KEY); CREATE TABLE off (at timestamp); \
         CREATE TABLE \"'; drop table t; --\" (\"At\" timestamp)",
    );
    let rows = "SELECT generate_series(timestamp '2021-08-10', '2021-08-10 23:50', '10 minutes')";
    for table in ["t", "off", "\"'; drop table t; --\""] {
        case.source.batch_execute(&format!("INSERT INTO {table} {rows}")).unwrap();
    }
    case.target
        .batch_execute(&format!(
            "INSERT INTO eda.transfertable VALUES \
             ('{name}', 'public', 't', 'INSERT', 'Y', 8, 'hms', 'at'), \
             ('{name}', 'public', 'off', NULL, 'N', 8, 'hms', 'at'), \
             ('{name}', 'public', '''; drop table t; --', NULL, 'Y', 0.5, 'hms', 'At'); \
             INSERT INTO eda.transferstatetable VALUES \
             ('hms', '2021-08-10', '2021-08-10 07:59:59', 8, '2021-08-10 15:59:59.999+00', 0, 0), \
             ('unused', '2021-08-10', NULL, 8, NULL, 0, 0)"
        ))
        .unwrap();
    let plan = case.gpferry(&["plan", "--format", "json"]).expect(0);
    // Two windows of 8 hours and 32 of half an hour, up to 16:00.
    assert_eq!(units(&plan).len(), 2 + 32);

    let file = case.path("imported.yml");
    let import = case.gpferry(&["import", "--output", file.to_str().unwrap()]).expect(0);
    assert!(import.stdout.is_empty(), "{}", import.stdout);
    import
        .says("5 things to look at:")
        .says(".public.off` of group `hms`: its valid flag says no")
        .says("closed interval: taken as 2021-08-10 16:00:00")
        .says("its duration 30m is not that of its job, 8h")
        .says("rows without tables here, 1: `unused`");
    case.gpferry(&["import", "-o", file.to_str().unwrap()])
        .expect(2)
        .says("name a file that is not there yet");
    case.gpferry(&["import", "new"]).expect(2).says("there is no catalog `new`").says("are: old");
    let inventory = case.path("inventory.yml");
    let before = fs::read_to_string(&inventory).unwrap();
    fs::copy(&file, &inventory).unwrap();
    let again = case.gpferry(&["plan", "--format", "json"]).expect(0);
    assert_eq!(units(&plan), units(&again));
    fs::write(&inventory, before).unwrap();

    case.gpferry(&["run"])
        .expect(0)
        .says("34 of 34 units loaded, 192 rows")
        .says("odd things in the catalogs: 5");
    case.assert_same("SELECT * FROM t WHERE at < '2021-08-10 16:00' ORDER BY at");
    case.gpferry(&["run"]).expect(0).says("0/0 tables, 0 rows, 0 created, 0 failed");
    assert_eq!(case.count("SELECT count(*) FROM \"'; drop table t; --\""), 96);
    assert_eq!(case.count("SELECT count(*) FROM off"), 0);
}

#[test]
fn wrong_rows_are_exit_code_10_all_of_them_and_nothing_is_executed() {
    let mut case = older("wrong");
    let name = case.database().to_owned();
    let trap = case.path("trap");
    let touch = format!("$(touch {})", trap.display());
    let insert = "INSERT INTO eda.transfertable VALUES ($1, $2, $3, $4, $5, $6::text::numeric, $7, $8)";
    for row in [
        [&name, "public", &touch, "insert", "Y", "4", "hms", &touch],
        [&name, "../..", "/etc/passwd", "insert", "Y", "4", "hms", "x"],
        [&name, "public", "two\nlines", "insert", "Y", "4", "hms", "x"],
        [&name, "public", "twice", "insert", "Y", "4", "hms", "x"],
        [&name, "public", "twice", "insert", "Y", "4", "hms", "x"],
        [&name, "public", "job", "insert", "Y", "4", &touch, "x"],
        [&name, "public", "zero", "insert", "Y", "0", "hms", "x"],
        [&name, "public", "mode", "overwrite", "Y", "4", "hms", "x"],
        ["nowhere", "public", "source", "insert", "Y", "4", "hms", "x"],
    ] {
        let cells: Vec<&(dyn postgres::types::ToSql + Sync)> =
            row.iter().map(|cell| cell as &(dyn postgres::types::ToSql + Sync)).collect();
        case.target.execute(insert, &cells).unwrap();
    }
    for command in ["plan", "run", "export", "load", "preflight", "import"] {
        let ran = case.gpferry(&[command]).expect(10);
        assert!(ran.stdout.is_empty(), "{command}: {}", ran.stdout);
        ran.says(".public.two\\nlines`")
            .says("a control character stands in the name")
            .says("column `job_group`: this is not a name of a job")
            .says(".zero` of group `hms`, column `duration`: this value cannot be used here")
            .says("`overwrite` is no load mode")
            .says("it is in another database than source `s`");
    }
    case.gpferry(&["plan"])
        .expect(10)
        .says("the same source table of source `s` goes to the same place by the catalog old");
    assert!(!trap.exists() && case.files().is_empty());
    // What is only a strange name is one.
    case.target
        .batch_execute(
            "DELETE FROM eda.transfertable WHERE table_name NOT LIKE '$(%' AND schema_nmae <> '../..'; \
        INSERT INTO eda.transferstatetable VALUES ('hms', '2021-08-10', NULL, 8, '2021-08-11', 0, 0)",
        )
        .unwrap();
    case.gpferry(&["run"]).expect(3).says("is not in the source database").silent_about("syntax");
    assert!(!trap.exists());
}

#[test]
fn etl_conf_d_in_mariadb_drives_a_run() {
    let maria = Maria::shared();
    let mut case = Case::new("etl_conf");
    let name = case.database().to_owned();
    case.both("CREATE TABLE t (at timestamp)");
    case.source
        .batch_execute(
            "INSERT INTO t SELECT generate_series(timestamp '2021-08-10', '2021-08-10 23:59', '1 hour')",
        )
        .unwrap();
    let mut conn = maria.database(&name);
    // The session of an operator is in another zone than UTC, and TIMESTAMP is an instant.
    conn.query_drop(
        "CREATE TABLE etl_conf_d (JOB_NAME VARCHAR(50), RUN_START_TIMESTAMP TIMESTAMP NULL, \
         RUN_END_TIMESTAMP DATETIME(6), VALID_FLG BIT(1))",
    )
    .unwrap();
    conn.query_drop(
        "INSERT INTO etl_conf_d VALUES ('hms', '2021-08-10 00:00:00', '2021-08-10 07:59:59.999999', 1), \
         ('endless', '2021-08-10 00:00:00', '0000-00-00 00:00:00', 1), \
         ('off', '2021-08-10 00:00:00', NULL, 0), ('other', '2021-08-10 00:00:00', NULL, 1)",
    )
    .unwrap();
    let jobs = |names: &[&str]| -> String {
        let one = |(n, job): (usize, &&str)| {
            format!(
                "  {job}: {{ source: s, tables: [ {{ table: public.t, where: \"{n} = {n}\", window: {{ column: at, length: 4h }} }} ] }}\n"
            )
        };
        names.iter().enumerate().map(one).collect()
    };
    let catalog = format!(
        "timezone: Asia/Shanghai\ncatalog:\n  etl: {{ url: \"{}\", like: etl_conf_d }}\njobs:\n",
        maria.url(&name)
    );
    put(&case, &format!("{catalog}{}", jobs(&["hms", "endless", "off"])));
    let password = [("MYSQL_PWD", maria.password.as_str())];
    let until = ["--until", "2021-08-11"];
    let plan = case.gpferry_with(&[&["plan", "--format", "json"], &until[..]].concat(), &password).expect(0);
    let all = units(&plan).concat();
    assert!(all.contains("^20210810000000^20210810040000") && !all.contains("\"off\""), "{all}");
    assert!(all.contains("^20210810200000^20210811000000"), "{all}");

    // The password out of an option file, which nobody else may read.
    put(&case, &format!("{catalog}{}", jobs(&["hms"])));
    let home = case.path("home");
    fs::create_dir(&home).unwrap();
    let options = home.join(".my.cnf");
    fs::write(&options, format!("[client]\npassword = {}\n", maria.password)).unwrap();
    let at_home = [("HOME", home.to_str().unwrap())];
    fs::set_permissions(&options, fs::Permissions::from_mode(0o644)).unwrap();
    case.gpferry_with(&["plan"], &at_home)
        .expect(10)
        .says("others can read it (chmod 600")
        .says("Access denied for user 'etl'")
        .silent_about(&maria.password);
    fs::set_permissions(&options, fs::Permissions::from_mode(0o600)).unwrap();
    case.gpferry_with(&["run"], &at_home).expect(0).says("2 of 2 units loaded, 8 rows");
    case.assert_same("SELECT * FROM t WHERE at < '2021-08-10 08:00' ORDER BY at");
    let log = case.count("SELECT count(*) FROM gpferry.load_log WHERE job = 'hms'");
    assert_eq!(log, 2);

    // Left behind: the same plan without a MariaDB.
    fs::remove_file(case.path("inventory.ledger.sqlite")).unwrap();
    let plan = case.gpferry_with(&["plan", "--format", "json"], &password).expect(0);
    let imported = case.gpferry_with(&["import", "etl"], &password).expect(0);
    fs::write(case.path("inventory.yml"), &imported.stdout).unwrap();
    let again = case.gpferry(&["plan", "--format", "json"]).expect(0);
    assert_eq!(units(&plan), units(&again));
    case.gpferry(&["import"]).expect(2).says("has no `catalog:`");
}

#[test]
fn a_query_of_one_s_own_is_read_from_mariadb_over_tls_and_over_its_socket() {
    let maria = Maria::shared();
    let case = Case::new("own_query");
    let name = case.database();
    let mut conn = maria.database(name);
    conn.query_drop(
        "CREATE TABLE todo (db VARCHAR(50), tab VARCHAR(50) CHARACTER SET gbk, grp VARCHAR(20), h TINYINT) ; ",
    )
    .unwrap();
    conn.query_drop(format!(
        "INSERT INTO todo VALUES ('{name}', '表', 'night', 1), ('{name}', 't', 'night', 0)"
    ))
    .unwrap();
    let catalog = |url: &str| {
        let query = "SELECT db, 'public' AS s, tab, grp, 'at' AS col, h FROM todo WHERE grp LIKE 'n%'";
        put(
            &case,
            &format!(
                "catalog:\n  own:\n    url: \"{url}\"\n    source: {{ {name}: s }}\n    tables:\n      query: \"{query}\"\n      \
             columns: {{ database: db, schema: s, table: TAB, group: grp, window: col, valid: h }}\n    jobs:\n      \
             query: \"SELECT 'night' AS g, DATE'2021-08-10' AS f, 6 AS d\"\n      columns: {{ group: g, start: f, duration: d }}\n"
            ),
        );
    };
    let password = [("MYSQL_PWD", maria.password.as_str())];
    let socket = format!("mysql://root@localhost/{name}?socket={}", maria.socket);
    let ca = lab().get("LAB_CA");
    for url in [
        format!("{}?ssl-mode=verify_identity&ssl-ca={ca}", maria.url(name)),
        format!("{}?ssl-mode=disabled", maria.url(name)),
    ] {
        catalog(&url);
        case.gpferry_with(&["plan", "--until", "2021-08-11"], &password)
            .expect(0)
            .says("^public^%E8%A1%A8^20210810180000^20210811000000")
            .says("4 units to move");
    }
    catalog(&socket);
    case.gpferry(&["plan", "--until", "2021-08-11"]).expect(0).says("4 units to move");
    // Another CA's server is not the one that is meant.
    let pem = format!("{}?ssl-mode=verify_ca", maria.url(name));
    catalog(&pem);
    case.gpferry_with(&["plan"], &password)
        .expect(10)
        .says("cannot connect to catalog own")
        .says("certificate");
}

#[test]
fn a_server_without_tls_is_taken_where_it_may_and_refused_where_not() {
    let maria = Maria::start("plain", &[]);
    maria.database("x").query_drop("CREATE TABLE etl_conf_d (JOB_NAME TEXT, RUN_START_TIMESTAMP TEXT, RUN_END_TIMESTAMP TEXT, VALID_FLG TEXT)").unwrap();
    let password = [("MYSQL_PWD", maria.password.as_str())];
    for (mode, exit, said) in [("preferred", 0, "0 units"), ("required", 10, "does not have this capability")]
    {
        let lines =
            format!("catalog:\n  etl: {{ url: \"{}?ssl-mode={mode}\", like: etl_conf_d }}\n", maria.url("x"));
        let case = with("plain", &lines);
        let ran = case.gpferry_with(&["plan"], &password).expect(exit);
        if exit != 0 {
            ran.says(said);
        }
    }
}

/// A catalog of one query, asked as the binary asks it, with a second for each step.
fn asked(url: &str, query: &str) -> Result<(), CatalogError> {
    let text = format!(
        "version: 1\nmount: {{ path: /m }}\ntarget: {{ url: postgresql://u@h/d }}\nsources:\n  \
         s: {{ host: h, engine: postgres, database: d }}\ncatalog:\n  old:\n    url: \"{url}\"\n    \
         jobs: {{ query: \"{query}\", columns: {{ group: g, start: s }} }}\n"
    );
    let draft = Draft::parse(&text, std::path::Path::new("i.yml")).unwrap();
    let limits = Limits { time: Duration::from_secs(1), rows: 1000 };
    let passfile = lab().get("LAB_PGPASSFILE").to_owned();
    let variable = move |name: &str| (name == "PGPASSFILE").then(|| passfile.clone());
    fetch(&draft.inventory().catalogs, &variable, limits, &Stop::default()).map(drop)
}

#[test]
fn only_one_statement_that_reads_is_asked_and_only_within_limits() {
    let maria = Maria::shared();
    let mut conn = maria.database("limits");
    conn.query_drop("CREATE TABLE precious (id INT)").unwrap();
    conn.query_drop(
        "CREATE FUNCTION sly() RETURNS INT MODIFIES SQL DATA \
         BEGIN INSERT INTO precious VALUES (1); RETURN 1; END",
    )
    .unwrap();
    let my = format!("mysql://root@localhost/limits?socket={}", maria.socket);
    let mut case = Case::new("limits");
    case.target.batch_execute("CREATE TABLE precious (id int); GRANT ALL ON precious TO loader; CREATE SEQUENCE drawn; GRANT ALL ON drawn TO loader").unwrap();
    let (port, name) = (lab().get("LAB_TARGET_PORT"), case.database());
    let pg = format!("postgresql://loader@127.0.0.1:{port}/{name}");
    for url in [&my, &pg] {
        for query in [
            "SELECT 1 AS g, 2 AS s; DROP TABLE precious",
            "SELECT 1 AS g, 2 AS s; COMMIT; DROP TABLE precious; SELECT 1",
            "DROP TABLE precious",
            "INSERT INTO precious VALUES (1)",
            "INSERT INTO precious VALUES (1) RETURNING id AS g, id AS s",
        ] {
            let error = asked(url, query).expect_err(query);
            assert!(matches!(error, CatalogError::Refused { .. }), "{query}: {error}");
        }
        asked(url, "SELECT count(*) AS g, 2 AS s FROM precious -- still there").unwrap();
        let error = asked(url, "SELECT 1 AS g, 2 AS s FROM nowhere").unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("the query of `jobs`"), "{error}");
    }
    let error = asked(&my, "SELECT sly() AS g, 2 AS s").unwrap_err().to_string();
    assert!(error.contains("READ ONLY transaction"), "{error}");
    let error = asked(&pg, "SELECT nextval('drawn') AS g, 2 AS s").unwrap_err().to_string();
    assert!(error.contains("read-only transaction"), "{error}");
    assert_eq!(conn.query_first::<i64, _>("SELECT count(*) FROM precious").unwrap(), Some(0));
    assert_eq!(case.count("SELECT count(*) FROM precious"), 0);

    let slow = [
        (&my, "SELECT SLEEP(30) AS g, 2 AS s FROM information_schema.columns"),
        (&pg, "SELECT pg_sleep(30) AS g, 2 AS s"),
    ];
    for (url, query) in slow {
        let begin = Instant::now();
        let error = asked(url, query).unwrap_err();
        assert!(matches!(error, CatalogError::TooSlow { .. }), "{error}");
        assert!(
            error.to_string().contains("within 1 s") && begin.elapsed() < Duration::from_secs(25),
            "{error}"
        );
    }
    let many = [
        (&my, "SELECT seq AS g, 2 AS s FROM seq_1_to_2000"),
        (&pg, "SELECT x AS g, 2 AS s FROM generate_series(1, 2000) x"),
    ];
    for (url, query) in many {
        let error = asked(url, query).unwrap_err().to_string();
        assert!(error.contains("more than 1000 rows"), "{error}");
    }
}

#[test]
fn a_catalog_that_is_not_there_is_exit_code_10_and_a_stop_ends_the_waiting() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let case = with(
        "gone",
        &format!("catalog:\n  etl: {{ url: \"mysql://etl@127.0.0.1:{port}/x\", like: etl_conf_d }}\n"),
    );
    let mut command = case.command(&["run"]);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    // It waits for the server's greeting from now on.
    let (connection, _) = silent.accept().unwrap();
    let begin = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let code = child.wait().unwrap().code();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(code, Some(130), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    drop((connection, silent));
    case.gpferry(&["run"]).expect(10).says("cannot connect to catalog etl").says("try `psql` or `mysql`");
}
