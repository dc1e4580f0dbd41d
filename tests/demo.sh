#!/usr/bin/env bash
# `make demo`: moves real tables between real servers on this machine, and checks what it shows.
#
# Two source hosts (an sshd each), a source and a target PostgreSQL and a shared directory are started by
# tests/lab/lab.sh in a directory of their own, and are gone at the end, however it comes. The commands are shown
# as an operator would type them. Exit code 0 only if everything was as promised.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
lab=$root/tests/lab/lab.sh
demo='' step=0

fail() { printf '\ndemo: NOT AS PROMISED: %s\n' "$*" >&2; exit 1; }

heading() { step=$((step + 1)); printf '\n== %s. %s\n' "$step" "$*"; }

# type CODE COMMAND: shows a command, runs it, and checks its exit code. What it printed is left in $demo/said.
type_in() {
    local wanted=$1 code=0
    printf '\n$ %s\n' "$2"
    # Not in an `if` or `||`: the functions in it would then go on after an error.
    set +e
    eval "$2" | tee -i "$demo/said" # a stopped command still has its say
    code=${PIPESTATUS[0]}
    set -e
    if [ "$code" -ge 128 ]; then exit "$code"; fi
    [ "$code" -eq "$wanted" ] || fail "exit code $code instead of $wanted from: $2"
    if [ "$code" -ne 0 ]; then printf '(exit code %s)\n' "$code"; fi
}

# The last command must have said this; line breaks count as blanks.
said() { tr -s ' \n' '  ' <"$demo/said" | grep -qF -- "$1" || fail "the last command did not say \"$1\""; }

value() { psql -Xqtd "$1" -c "$2" | tr -d ' \n'; }

is() { [ "$2" = "$3" ] || fail "$1: $2 instead of $3"; }

# What is left of the lab's processes, once it was stopped.
survivors() {
    local pid began what
    while read -r pid began what; do
        [ "$(awk '{ sub(/^.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$pid/stat" 2>/dev/null)" = "$began" ] && echo "$what ($pid)"
    done <"$1" || true
}

stop_everything() {
    local status=$? left='' started=''
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$demo" ]; then
        cd /
        printf '\nstopping everything\n'
        if [ -e "$demo/lab/pids" ]; then cp "$demo/lab/pids" "$demo/pids" && started=yes; fi
        bash "$lab" down "$demo/lab" || status=1
        if [ -e "$demo/pids" ]; then left=$(survivors "$demo/pids"); fi
        rm -rf "$demo"
        if [ -n "$left" ]; then
            printf 'demo: still running: %s\n' "$left" >&2
            status=1
        elif [ -e "$demo" ]; then
            printf 'demo: %s could not be removed\n' "$demo" >&2
            status=1
        elif [ -n "$started" ]; then
            printf 'both sshd and both PostgreSQL servers have ended; their files are removed\n'
        fi
    fi
    if [ "$status" -eq 0 ]; then
        printf '\nEverything was as promised.\n'
    else
        printf '\ndemo: ended early, with exit code %s\n' "$status" >&2
    fi
    exit "$status"
}
trap stop_everything EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# ---------------------------------------------------------------- build

command -v cargo >/dev/null || fail "there is no cargo; install Rust (https://rustup.rs), then try again"
cd "$root"
target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
heading "Build (some minutes the first time, seconds after that)"
printf '\n$ cargo build --release --locked\n'
cargo build --release --locked
PATH=$target/release:$PATH

# ---------------------------------------------------------------- the lab

heading "Start two source hosts, two databases and a shared directory"
demo=$(mktemp -d /tmp/gpferry-demo.XXXXXX)
chmod 755 "$demo"
printf '\n$ tests/lab/lab.sh up %s/lab\n' "$demo"
bash "$lab" up "$demo/lab" --owner $$ >"$demo/up"
while IFS='=' read -r key text; do
    case $key in LAB_*) declare "$key=$text" ;; esac
done <"$demo/lab/lab.env"

# Nothing of the caller's own set-up may lead to other servers.
unset SSH_AUTH_SOCK ${!PG@} ${!GPFERRY_@}
export PATH=$LAB_PG_BIN:$PATH PSQLRC=/dev/null PAGER=cat LC_ALL=C.UTF-8
export PGPASSFILE=$LAB_PGPASSFILE GPFERRY_SSH_CONFIG=$LAB_SSH_CONFIG
FAB1="host=$LAB_SOURCE_SOCKET port=$LAB_SOURCE_PORT user=postgres dbname=fab1"
FAB2="host=$LAB_SOURCE_SOCKET port=$LAB_SOURCE_PORT user=postgres dbname=fab2"
DWH="host=$LAB_TARGET_SOCKET port=$LAB_TARGET_PORT user=postgres dbname=dwh"
cat <<TEXT
gp-a   sshd on port $LAB_PORT_A, sees the shared directory as $LAB_MOUNT_A
gp-b   sshd on port $LAB_PORT_B, sees the shared directory as $LAB_MOUNT_B
source PostgreSQL on port $LAB_SOURCE_PORT, databases fab1 and fab2
target PostgreSQL on port $LAB_TARGET_PORT, database dwh
TEXT
mkdir "$demo/work"
cd "$demo/work"

# ---------------------------------------------------------------- tables

sql() { psql -Xqd "$1" -v ON_ERROR_STOP=1 >/dev/null; }

databases() {
    sql "${FAB1/dbname=fab1/dbname=postgres}" <<<'CREATE DATABASE fab1 OWNER gpadmin; CREATE DATABASE fab2 OWNER gpadmin'
    sql "${DWH/dbname=dwh/dbname=postgres}" <<<'CREATE DATABASE dwh OWNER loader'
}

fab1_tables='
    CREATE SCHEMA qms;
    CREATE TABLE qms.awkward (id int PRIMARY KEY, note text, raw bytea, amount numeric, ratio float8,
                              at timestamp, atz timestamptz, gap interval, tags text[]);
    CREATE TABLE qms."select" ("from" int PRIMARY KEY, "Group By" text);
    CREATE TABLE qms.glass (glass_id int, evt_timestamp timestamp, defects int, PRIMARY KEY (glass_id, evt_timestamp));'
fab2_tables='
    CREATE SCHEMA mes;
    CREATE TABLE mes.lot_type (code text PRIMARY KEY, name text);
    CREATE TABLE mes.lot (lot_id int PRIMARY KEY, state text);'

tables() {
    sql "$FAB1" <<<"SET ROLE gpadmin; $fab1_tables"
    sql "$FAB2" <<<"SET ROLE gpadmin; $fab2_tables"
    sql "$DWH" <<<"SET ROLE loader; $fab1_tables $fab2_tables"
}

rows() {
    sql "$FAB1" <<'SQL'
INSERT INTO qms.awkward VALUES
 (1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (2, '', '', 0, '-0', '1969-07-20 20:17:40', '1969-07-20 20:17:40+00', '0', '{}'),
 (3, 'a "quoted" one, with commas', '\x00ff0a0d5c2e', 1e-20, 'NaN', '0044-03-15 12:00 BC', 'epoch', '-1 mon 3 days', '{a,NULL,"b,c"}'),
 (4, E'CR\rLF\nCRLF\r\nend', '\x', 123456789012345678901234567890.123456789, 'Infinity', 'infinity', '-infinity', '178000000 years', '{{1,2},{3,4}}'),
 (5, '\.', '\x5c2e0a', 'NaN', 1.7976931348623157e308, '1900-01-01', '1900-01-01 00:00+08', '1 us', NULL),
 (6, E'\\.\n\\.\n\\N', NULL, -0.1, 5e-324, '294276-12-31 23:59:59.999999', now(), '-00:00:01', '{""}'),
 (7, '  blanks on both sides  ', convert_to('中文', 'UTF8'), 1, 0.1, now(), now(), '1 year', '{中文}'),
 (8, E'😀 and e + U+0301: e\u0301', decode(repeat('41', 100000), 'hex'), 99999.99999, 1e15, '2021-08-10', '2021-08-10', '24:00', '{😀}'),
 (9, '\N', NULL, 1, 1, now(), now(), '0', '{"\\N"}');
INSERT INTO qms."select" SELECT i, 'where ' || i FROM generate_series(1, 500) i;
-- Every half hour, so that rows stand on the windows' bounds.
INSERT INTO qms.glass SELECT g, t, g % 7 FROM generate_series(1, 1000) g,
    generate_series(timestamp '2021-08-10', '2021-08-11 12:00', '30 minutes') t;
SQL
    sql "$FAB2" <<'SQL'
INSERT INTO mes.lot_type VALUES ('P', 'production'), ('E', 'engineering'), ('', ''), ('N', NULL);
INSERT INTO mes.lot SELECT i, CASE WHEN i % 2 = 0 THEN 'done' END FROM generate_series(1, 1000) i;
SQL
}

heading "Tables with awkward content in the source, empty ones in the target"
databases
tables
rows
type_in 0 'psql -d "$FAB1" -P null=NULL -c "SELECT id, note, at FROM qms.awkward"'
is "rows in the target before the run" "$(value "$DWH" 'SELECT (SELECT count(*) FROM qms.awkward) + (SELECT count(*) FROM qms.glass)')" 0

# ---------------------------------------------------------------- inventory, plan, run

heading "The inventory: where everything is, and what is to be moved"
cat >inventory.yml <<YAML
version: 1
mount: { path: $LAB_MOUNT }
target:
  # The password stands in the password file that PGPASSFILE names.
  url: postgresql://$LAB_TARGET_USER@127.0.0.1:$LAB_TARGET_PORT/dwh
sources:
  fab1:
    host: gp-a                        # an alias of the SSH configuration
    engine: postgres
    mount: $LAB_MOUNT_A         # the same directory, as gp-a sees it
    database: fab1
    connection:                       # as seen from gp-a
      { host: $LAB_SOURCE_SOCKET, port: $LAB_SOURCE_PORT, user: gpadmin }
  fab2:
    host: gp-b
    engine: postgres
    mount: $LAB_MOUNT_B
    database: fab2
    connection:
      { host: $LAB_SOURCE_SOCKET, port: $LAB_SOURCE_PORT, user: gpadmin }
jobs:
  quality:
    source: fab1
    from: 2021-08-10 00:00:00
    until: 2021-08-11 00:00:00
    tables:
      - table: qms.glass
        window: { column: evt_timestamp, length: 6h }
      - { table: qms.awkward, window: none }
      - { table: qms.select, window: none }
  types:
    source: fab2
    tables:
      - { table: mes.lot_type, window: none }
YAML
type_in 0 'cat inventory.yml'

heading "What is due? (changes nothing)"
type_in 0 'gpferry plan'
said '7 units to move'
said 'loading: by COPY, since the target has no segments'

heading "Move it: export over SSH into the shared directory, load into the target"
type_in 0 'gpferry run'
said '7 of 7 units loaded'
said '0 failed'

heading "What does the record say?"
type_in 0 'gpferry status'
said '48000'
gpferry status --format json --table qms.glass | grep -q '"watermark": "2021-08-11T00:00:00"' || fail "the watermark is another one"

# ---------------------------------------------------------------- proof

# same NAME SOURCE QUERY: the rows of a query in PostgreSQL's own binary form, on both sides.
same() {
    local copy="COPY ($3) TO STDOUT (FORMAT binary)" rows here there
    rows=$(value "$2" "SELECT count(*) FROM ($3) rows")
    here=$(psql -Xqd "$2" -c "$copy" | sha256sum | cut -c 1-64)
    there=$(psql -Xqd "$DWH" -c "$copy" | sha256sum | cut -c 1-64)
    printf '%-14s %7s %s… %s…\n' "$1" "$rows" "${here:0:20}" "${there:0:20}"
    [ "$rows" -gt 0 ] || fail "no rows to compare in $1"
    is "digest of $1 in the target" "$there" "$here"
    is "rows of $1 in the target" "$(value "$DWH" "SELECT count(*) FROM $1")" "$rows"
}

heading "The same? SHA-256 of COPY (…) TO STDOUT (FORMAT binary), both sides"
printf '\n%-14s %7s %-21s %s\n' TABLE ROWS SOURCE TARGET
same qms.awkward "$FAB1" 'SELECT * FROM qms.awkward ORDER BY id'
same 'qms."select"' "$FAB1" 'SELECT * FROM qms."select" ORDER BY 1'
same qms.glass "$FAB1" "SELECT * FROM qms.glass WHERE evt_timestamp >= '2021-08-10' AND evt_timestamp < '2021-08-11' ORDER BY 1, 2"
same mes.lot_type "$FAB2" 'SELECT * FROM mes.lot_type ORDER BY 1'

heading "The files, and one line of the manifest"
mount=$LAB_MOUNT
type_in 0 '(cd "$mount" && find file2GP -type f | sort)'
is "files on the mount" "$(grep -c 'csv\.gz$' "$demo/said")" 7
if grep -q '\.part$' "$demo/said"; then fail "a .part file was left"; fi
type_in 0 'grep -h lot_type "$mount"/file2GP/manifest/*.jsonl | fold -w 79'
said '"crc32"'

heading "The load log in the target, written in the same transactions"
type_in 0 'psql -d "$DWH" -c "SELECT unit, rows_loaded FROM gpferry.load_log ORDER BY 1"'
is "rows in the load log" "$(value "$DWH" 'SELECT count(*) FROM gpferry.load_log')" 7

heading "Run it again: nothing is moved twice"
type_in 0 'gpferry run'
said 'already loaded'
is "rows of qms.glass" "$(value "$DWH" 'SELECT count(*) FROM qms.glass')" 48000

# ---------------------------------------------------------------- a primary-key violation

heading "A primary-key violation: lot 500 stands in the target already"
cat >>inventory.yml <<YAML
  lots:
    source: fab2
    tables:
      - { table: mes.lot, window: none }
YAML
type_in 0 'tail -n 4 inventory.yml'
type_in 0 "psql -d \"\$DWH\" -c \"INSERT INTO mes.lot VALUES (500, 'by hand')\""
type_in 3 'gpferry run --job lots --show-keys'
said 'FAILED in load: fab2:fab2^mes^lot^all'
said 'lot_pkey'
said '500'
said '1 failed'

heading "Nothing of that unit stayed: only the row that was there before"
type_in 0 'psql -d "$DWH" -c "SELECT * FROM mes.lot"'
is "rows of mes.lot" "$(value "$DWH" "SELECT string_agg(lot_id || state, ',') FROM mes.lot")" '500byhand'
is "load log rows of mes.lot" "$(value "$DWH" "SELECT count(*) FROM gpferry.load_log WHERE unit LIKE '%lot^all'")" 0
type_in 0 'gpferry status --job lots'
said 'FAILED in load'

heading "The cause is mended, and the same command does the rest"
type_in 0 'psql -d "$DWH" -c "DELETE FROM mes.lot WHERE lot_id = 500"'
type_in 0 'gpferry run'
said '1 of 1 unit loaded, 1000 rows'
printf '\n%-14s %7s %-21s %s\n' TABLE ROWS SOURCE TARGET
same mes.lot "$FAB2" 'SELECT * FROM mes.lot ORDER BY 1'

heading "A remote command ended with exit code 137. What does that mean?"
type_in 0 'gpferry explain 137'
said 'SIGKILL'

heading "Stop"
