#!/usr/bin/env bash
# The lab: source hosts with an sshd each, a source and a target PostgreSQL, and a shared directory as the mount.
#
#   lab.sh install [PACKAGE …]        the packages, and these, and nothing else
#   lab.sh up DIR [--owner PID] [--tmpfs SIZE]
#                                     starts it; with --owner it goes when that process does; with --tmpfs the mount
#                                     is a file system of its own, which can be filled
#   lab.sh host DIR NAME [OPTION …]   adds a host to a running lab, and prints how it is reached; goes with the lab
#       --users "NAME:UID:GID …"      whom it lets in; default: gpadmin with the mount's numbers
#       --without TOOL[,TOOL]         programs that are not there
#       --mount KIND                  shared (default), readonly, full, other, none, hangs
#       --below DIR                   a directory that `full`, `other` and `none` have at the mount's place
#       --noexec-home                 homes are mounted noexec
#       --squash                      root has no power over others' files, as behind an export with root_squash
#   lab.sh mariadb DIR NAME [OPTION …] adds a MariaDB to a running lab, with these options of mariadbd, and prints
#                                     how it is reached; goes with the lab
#   lab.sh bounce DIR source|target   stops that PostgreSQL as a crash would, and starts it again
#   lab.sh down DIR                   stops exactly what `up` started, and removes DIR's lab
#
# No containers: each host is an sshd in a mount namespace of its own, with its own /etc/passwd (so one user can
# have two UIDs) and the shared directory at another path. `up` prints KEY=VALUE lines and leaves them in
# DIR/lab.env. Nothing outside DIR is written, but for packages.
set -euo pipefail
umask 022 # the hosts' users read what root makes here

say() { printf 'lab: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || die "needs root or sudo, for mount namespaces and packages"
    exec sudo --preserve-env=LAB_FSYNC,LAB_SETTINGS LAB_UID="$(id -u)" LAB_GID="$(id -g)" bash "$0" "$@"
}

# ---------------------------------------------------------------- packages

PACKAGES=(openssh-server openssh-client postgresql postgresql-client mariadb-server-core mariadb-client-core isal pigz
    gzip perl openssl libssl-dev pkg-config gcc libc6-dev make iproute2 nftables strace faketime)

install_packages() {
    local missing=() package
    for package in "${PACKAGES[@]}"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    as_root "$@"
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >&2 ||
        die "apt-get could not install ${missing[*]}"
}

# ---------------------------------------------------------------- processes

# Servers start under `setsid`: Ctrl+C at a terminal is for whoever uses the lab, and they stop with `down`.

# A pid may be taken by another process later: its start time tells. Nothing for one that has ended, reaped or not.
started_at() { awk '{ sub(/^.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null; }

record() { printf '%s %s %s\n' "$1" "$(started_at "$1")" "$2" >>"$dir/pids"; }

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { printf '%s' "$port"; return; }
    done
}

# wait_for SECONDS WHAT LOG COMMAND…
wait_for() {
    local until=$((SECONDS + $1)) what=$2 log=$3
    shift 3
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then
            say "$what did not come up; the end of $log:"
            tail -n 20 "$log" >&2 || true
            return 1
        fi
        sleep 0.05
    done
}

# ---------------------------------------------------------------- hosts

# host NAME MOUNTPOINT "user:uid:gid …"
host() {
    local name=$1 mountpoint=$2 users=$3 root=$dir/hosts/$1 port user rest
    mkdir -p "$root/etc" "$root/home" "$root/run"
    chmod 755 "$root" "$root/etc" "$root/home" "$root/run"
    # The whole of /etc, not files of it: a file that is bound here goes when the machine's own is replaced.
    cp -a /etc/. "$root/etc/" 2>/dev/null || true
    local ours='gpadmin|user1|sshd'
    for rest in $users; do ours="$ours|${rest%%:*}"; done
    grep -vE "^($ours):" /etc/passwd >"$root/etc/passwd"
    grep -vE '^(gpadmin|user1):' /etc/group >"$root/etc/group"
    printf 'sshd:x:106:65534::/run/sshd:/usr/sbin/nologin\n' >>"$root/etc/passwd"
    sed 's/^\([^:]*\):[^:]*/\1:*/' "$root/etc/passwd" | awk -F: '{ print $1 ":*:19000:0:99999:7:::" }' >"$root/etc/shadow"
    local uid gid
    for rest in $users; do
        IFS=: read -r user uid gid <<<"$rest"
        printf '%s:x:%s:%s::/home/%s:%s\n' "$user" "$uid" "$gid" "$user" "${host_shell:-/bin/bash}" >>"$root/etc/passwd"
        printf '%s:x:%s:\n' "$user" "$gid" >>"$root/etc/group"
        printf '%s:*:19000:0:99999:7:::\n' "$user" >>"$root/etc/shadow"
        mkdir -p "$root/home/$user/.ssh"
        cp "$dir/id_ed25519.pub" "$root/home/$user/.ssh/authorized_keys"
        chmod 700 "$root/home/$user" "$root/home/$user/.ssh"
        chown -R "$uid:$gid" "$root/home/$user"
    done
    for user in ${host_keys:-ed25519 ecdsa rsa}; do
        ssh-keygen -q -t "$user" -N '' -C "lab-$name" -f "$root/ssh_host_${user}_key"
    done
    local try
    for try in 1 2 3 4 5; do
        port=$(free_port)
        start_sshd "$name" "$mountpoint" "$port"
        if wait_for 10 "sshd of host $name" "$root/sshd.log" sshd_answers "$port"; then break; fi
        [ "$try" -lt 5 ] || return 1
    done
    declare -g "port_$name=$port"
    local key
    for key in "$root"/ssh_host_*_key.pub; do
        printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 "$key")" >>"$dir/known_hosts"
    done
    cat >>"$dir/ssh_config" <<CONFIG
Host gp-$name
    HostName 127.0.0.1
    Port $port
    User gpadmin
CONFIG
}

start_sshd() {
    local name=$1 mountpoint=$2 port=$3 root=$dir/hosts/$1
    cat >"$root/sshd_config" <<CONFIG
Port $port
ListenAddress 127.0.0.1
HostKey /run/host/ssh_host_ed25519_key
HostKey /run/host/ssh_host_ecdsa_key
HostKey /run/host/ssh_host_rsa_key
PidFile none
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp
CONFIG
    export host_mount=${host_mount:-} host_below=${host_below:-} host_noexec=${host_noexec:-}
    export host_without=${host_without:-} host_squash=${host_squash:-}
    # In the namespace: the host's own /etc files and homes, and the mount at its own path. /run is its own too,
    # with this host's directory in it, so that DIR may lie below anything that is covered.
    setsid unshare --mount --propagation private bash -c '
        set -e
        root=$1 shared=$2 mountpoint=$3
        exec 3<"$root" 4<"$shared"
        mount -t tmpfs -o mode=755 tmpfs /run
        mkdir -p /run/sshd /run/host /run/shared
        mount --bind "/proc/self/fd/3" /run/host
        mount --bind "/proc/self/fd/4" /run/shared
        mount --bind /run/host/etc /etc
        mount --bind /run/host/home /home
        # Covers a directory that every Debian has: nothing is made on the machine itself.
        top=/$(printf %s "$mountpoint" | cut -d/ -f2)
        mount -t tmpfs -o mode=755 tmpfs "$top"
        mkdir -p "$mountpoint"
        own() {
            mkdir -p "$mountpoint/$host_below/file2GP"
            for each in "$mountpoint" "$mountpoint/$host_below" "$mountpoint/$host_below/file2GP"; do
                chown --reference=/run/shared "$each"
                chmod 2770 "$each"
            done
        }
        case $host_mount in
            readonly) mount --bind /run/shared "$mountpoint"; mount -o remount,ro,bind "$mountpoint" ;;
            full)
                mount -t tmpfs -o size=64k tmpfs "$mountpoint"
                own
                cat /dev/zero >"$mountpoint/filler" 2>/dev/null || true ;;
            other) mkdir /run/host/other; mount --bind /run/host/other "$mountpoint"; own ;;
            none) mkdir -p "$mountpoint/$host_below" ;;
            # A file system whose server never answers. Somebody must hold it; it goes with the namespace.
            hangs)
                exec 7<>/dev/fuse
                mount -i -t fuse -o fd=7,rootmode=40000,user_id=0,group_id=0,allow_other dead:/export "$mountpoint"
                sleep infinity >/dev/null 2>&1 3<&- 4<&- &
                exec 7>&- ;;
            *) mount --bind /run/shared "$mountpoint" ;;
        esac
        [ -z "$host_noexec" ] || mount -o remount,bind,noexec /home
        for tool in ${host_without//,/ }; do
            found=$(readlink -f "$(command -v "$tool")")
            mount --bind /dev/null "$found"
        done
        exec 3<&- 4<&-
        keep=()
        [ -z "$host_squash" ] || keep=(setpriv --bounding-set -dac_override,-dac_read_search,-fowner,-chown)
        exec "${keep[@]}" /usr/sbin/sshd -D -e -f /run/host/sshd_config
    ' lab-host "$root" "$dir/mount" "$mountpoint" >>"$root/sshd.log" 2>&1 </dev/null &
    record $! "sshd-$name"
}

sshd_answers() {
    local banner
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    read -r -t 2 banner <&3 || { exec 3>&-; return 1; }
    exec 3>&-
    [[ $banner == SSH-2.0-* ]]
}

# more_host NAME OPTION…: one more host in a running lab
more_host() {
    local name=$1 users
    users="gpadmin:$(stat -c %u:%g "$dir/mount")"
    shift
    host_keys=ed25519
    while [ $# -gt 0 ]; do
        case $1 in
        --users) users=$2 && shift ;;
        --without) host_without=$2 && shift ;;
        --mount) host_mount=$2 && shift ;;
        --below) host_below=$2 && shift ;;
        --noexec-home) host_noexec=yes ;;
        --squash) host_squash=yes ;;
        *) die "host: $1?" ;;
        esac
        shift
    done
    case ",${host_without:-}," in *,bash,*) host_shell=/bin/sh ;; esac
    host "$name" /mnt/dataTransfer "$users"
    local port=port_$name
    printf 'LAB_HOST=gp-%s\nLAB_PORT=%s\nLAB_HOST_MOUNT=/mnt/dataTransfer\n' "$name" "${!port}"
}

# ---------------------------------------------------------------- databases

pg_bin() { find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1; }

# cluster NAME: a PostgreSQL of its own, as the system user postgres
cluster() {
    local name=$1 data=$dir/pg/$1 log=$dir/pg/$1.log bin port try
    bin=$(pg_bin)
    as_postgres "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; die "initdb of $name failed"; }
    cat >>"$data/postgresql.conf" <<CONFIG
listen_addresses = '127.0.0.1'
unix_socket_directories = '$sockets'
max_connections = 200
shared_buffers = 256MB
max_wal_size = 8GB
checkpoint_timeout = 30min
fsync = ${LAB_FSYNC:-off}
synchronous_commit = on
log_line_prefix = '%m [%p] %a '
${LAB_SETTINGS:-}
CONFIG
    {
        printf 'local all postgres trust\n'
        if [ "$name" = source ]; then
            printf 'local all all trust\nhost all all 127.0.0.1/32 trust\n'
        else
            printf 'local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n'
        fi
    } >"$data/pg_hba.conf"
    if [ "$name" = target ]; then with_tls "$data"; fi
    for try in 1 2 3 4 5; do
        port=$(free_port)
        if start_postgres "$name" "$port"; then break; fi
        [ "$try" -lt 5 ] || return 1
    done
    declare -g "port_$name=$port"
}

start_postgres() {   # NAME PORT
    local name=$1 port=$2 data=$dir/pg/$1 log=$dir/pg/$1.log bin
    bin=$(pg_bin)
    # `exec`: the pid on record must be the server's own, not that of a shell that waits for it.
    (exec setsid "${AS_POSTGRES[@]}" "$bin/postgres" -D "$data" -p "$port") >>"$log" 2>&1 </dev/null &
    record $! "postgres-$name"
    wait_for 20 "the $name database" "$log" as_postgres "$bin/pg_isready" -q -h "$sockets" -p "$port"
}

# An immediate shutdown: every session dies, and the next start is a recovery from a crash.
bounce() {
    local name=$1 pid began what last='' port
    while read -r pid began what; do
        [ "$what" != "postgres-$name" ] || [ "$(started_at "$pid")" != "$began" ] || last=$pid
    done <"$dir/pids"
    [ -n "$last" ] || die "no $name database runs in $dir"
    port=$(sed -n 4p "$dir/pg/$name/postmaster.pid")
    kill -QUIT "$last"
    while [ -n "$(started_at "$last")" ]; do sleep 0.02; done
    start_postgres "$name" "$port"
}

# A certificate for `localhost` and a CA of its own, made here and gone with the lab.
with_tls() {
    local data=$1
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=lab CA" -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout "$data/server.key" -out "$dir/server.csr" 2>/dev/null
    openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
        -extfile <(printf 'subjectAltName=DNS:localhost') -out "$data/server.crt" 2>/dev/null
    rm -f "$dir/ca.key" "$dir/server.csr" "$dir/ca.srl"
    chmod 600 "$data/server.key"
    chown postgres: "$data/server.key" "$data/server.crt"
    printf 'ssl = on\n' >>"$data/postgresql.conf"
}

AS_POSTGRES=(setpriv --reuid postgres --regid postgres --init-groups env -C /)

as_postgres() { "${AS_POSTGRES[@]}" "$@"; }

sql() { as_postgres "$(pg_bin)/psql" -X -q -v ON_ERROR_STOP=1 -h "$sockets" -p "$1" -d postgres -c "$2"; }

# more_mariadb NAME OPTION…: a MariaDB of its own, as the system user postgres; the package brings no user and no service
more_mariadb() {
    local name=$1 data=$dir/my/$1 log=$dir/my/$1.log sockets port try password
    shift
    sockets=$(cat "$dir/sockets")
    mkdir -p "$dir/my"
    chmod 755 "$dir/my"
    mkdir "$data" || die "mariadb: $name?"
    chown postgres: "$data"
    touch "$log"
    chown postgres: "$log"
    # Without the kernel's asynchronous IO, of which a machine has only so much for all servers on it; one after the other.
    exec 9>"$dir/my/lock"
    flock 9
    as_postgres mariadb-install-db --no-defaults --datadir="$data" --skip-test-db --skip-name-resolve \
        --auth-root-authentication-method=normal --innodb-use-native-aio=0 >>"$log" 2>&1 9>&- ||
        { tail -n 60 "$log" >&2; die "mariadb-install-db failed"; }
    exec 9>&-
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    # Not on a command line, where every user of the machine could read it.
    (umask 077 && printf "CREATE OR REPLACE USER etl@'%%' IDENTIFIED BY '%s';\nGRANT SELECT ON *.* TO etl@'%%';\n" "$password" >"$data.sql")
    chown postgres: "$data.sql"
    for try in 1 2 3 4 5; do
        port=$(free_port)
        (exec setsid "${AS_POSTGRES[@]}" mariadbd --no-defaults --datadir="$data" --socket="$sockets/$name.sock" \
            --bind-address=127.0.0.1 --port="$port" --init-file="$data.sql" \
            --innodb-use-native-aio=0 --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0 "$@") >>"$log" 2>&1 </dev/null &
        record $! "mariadb-$name"
        if wait_for 30 "the MariaDB $name" "$log" mariadb_settled "$port" "$!" && mariadb_answers "$port" 2>/dev/null; then break; fi
        [ "$try" -lt 5 ] || { tail -n 20 "$log" >&2; rm -f "$data.sql"; die "the MariaDB $name gave up"; }
    done
    printf '[client]\npassword=%s\n' "$password" >"$data.cnf"
    chmod 600 "$data.cnf"
    chown "${LAB_UID:-0}:${LAB_GID:-0}" "$data.cnf"
    rm -f "$data.sql"
    printf 'LAB_MARIADB_PORT=%s\nLAB_MARIADB_SOCKET=%s\nLAB_MARIADB_USER=etl\nLAB_MARIADB_OPTIONS=%s\n' \
        "$port" "$sockets/$name.sock" "$data.cnf"
}

# A server that has given up is not waited for.
mariadb_settled() { [ -z "$(started_at "$2")" ] || mariadb_answers "$1"; }

# It greets with its version, once the statements of its init file are done.
mariadb_answers() {
    local banner
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    banner=$(timeout 2 head -c 20 <&3 | tr -d '\0') || true
    exec 3>&-
    [[ $banner == *.*.* ]]
}

# ---------------------------------------------------------------- up and down

up() {
    if [ -e "$dir/lab.env" ]; then
        say "a lab already runs in $dir"
        cat "$dir/lab.env"
        return
    fi
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd -P)
    chmod 755 "$dir"
    trap 'status=$?; trap - EXIT; say "not started; cleaning up"; down; exit "$status"' EXIT
    mkdir -p "$dir/mount" "$dir/hosts" "$dir/pg"
    [ -z "$tmpfs" ] || mount -t tmpfs -o "size=$tmpfs" tmpfs "$dir/mount"
    chmod 755 "$dir/hosts"
    chown postgres: "$dir/pg"
    # A socket's path takes 107 bytes.
    sockets=$(mktemp -d /tmp/gpferry-pg.XXXXXX)
    printf '%s\n' "$sockets" >"$dir/sockets"
    chown postgres: "$sockets"
    chmod 755 "$sockets"
    local uid=${LAB_UID:-5301} gid=${LAB_GID:-5301}
    chown "$uid:$gid" "$dir/mount"
    chmod 2770 "$dir/mount"
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$dir/id_ed25519"
    cat >"$dir/ssh_config" <<CONFIG
Host *
    IdentityFile $dir/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile $dir/known_hosts
CONFIG
    host a /mnt/dataTransfer "gpadmin:$uid:$gid user1:530:530"
    host b /srv/transfer "gpadmin:$uid:$gid user1:540:2180"
    cluster source
    cluster target
    local password
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    sql "$port_source" "CREATE ROLE gpadmin LOGIN CREATEDB"
    # Not on a command line, where every user of the machine could read it.
    as_postgres "$(pg_bin)/psql" -X -q -v ON_ERROR_STOP=1 -h "$sockets" -p "$port_target" -d postgres \
        <<<"CREATE ROLE loader LOGIN CREATEDB PASSWORD '$password'"
    printf '127.0.0.1:%s:*:loader:%s\nlocalhost:%s:*:loader:%s\n' \
        "$port_target" "$password" "$port_target" "$password" >"$dir/pgpass"
    chmod 600 "$dir/pgpass"
    chown "${LAB_UID:-0}:${LAB_GID:-0}" "$dir/pgpass" "$dir/id_ed25519" "$dir/known_hosts" "$dir/ssh_config"
    cat >"$dir/lab.env.new" <<ENV
LAB_DIR=$dir
LAB_MOUNT=$dir/mount
LAB_SSH_CONFIG=$dir/ssh_config
LAB_IDENTITY=$dir/id_ed25519
LAB_KNOWN_HOSTS=$dir/known_hosts
LAB_PORT_A=$port_a
LAB_PORT_B=$port_b
LAB_MOUNT_A=/mnt/dataTransfer
LAB_MOUNT_B=/srv/transfer
LAB_USER=gpadmin
LAB_SOURCE_SOCKET=$sockets
LAB_SOURCE_PORT=$port_source
LAB_TARGET_SOCKET=$sockets
LAB_TARGET_PORT=$port_target
LAB_TARGET_USER=loader
LAB_TARGET_ADMIN=postgres
LAB_PGPASSFILE=$dir/pgpass
LAB_CA=$dir/ca.pem
LAB_PG_BIN=$(pg_bin)
ENV
    mv "$dir/lab.env.new" "$dir/lab.env"
    [ -z "$owner" ] || watch
    trap - EXIT
    cat "$dir/lab.env"
}

# Takes the lab down when its owner is gone, and DIR with it.
watch() {
    local began
    began=$(started_at "$owner")
    setsid bash -c '
        while [ "$(awk "{ sub(/^.*\) /, \"\"); print \$20 }" "/proc/$1/stat" 2>/dev/null)" = "$2" ]; do sleep 0.5; done
        bash "$3" down "$4"
        rm -rf "$4"
    ' lab-watch "$owner" "$began" "$0" "$dir" >/dev/null 2>&1 </dev/null &
}

down() {
    local pid began what mounted
    if [ -e "$dir/pids" ]; then
        # Sessions inside a host's namespace are not children of its sshd any more once it is gone.
        local -A namespaces=()
        while read -r pid began what; do
            [ "$(started_at "$pid")" = "$began" ] || continue
            [[ $what != sshd-* ]] || namespaces[$(readlink "/proc/$pid/ns/mnt")]=1
            if [[ $what == postgres-* ]]; then kill -QUIT "$pid" 2>/dev/null || true; else kill "$pid" 2>/dev/null || true; fi
        done <"$dir/pids"
        local own process
        own=$(readlink /proc/self/ns/mnt)
        for process in /proc/[0-9]*; do
            began=$(readlink "$process/ns/mnt" 2>/dev/null) || continue
            [ "$began" != "$own" ] && [ -n "${namespaces[$began]:-}" ] && kill -KILL "${process#/proc/}" 2>/dev/null || true
        done
        while read -r pid began what; do
            local tries=0
            while [ "$(started_at "$pid")" = "$began" ] && [ "$tries" -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
            if [ "$(started_at "$pid")" = "$began" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
        done <"$dir/pids"
    fi
    if [ -e "$dir/sockets" ]; then rm -rf -- "$(cat "$dir/sockets")"; fi
    # What a test, or --tmpfs, mounted below DIR.
    awk -v below="$dir/" 'index($2, below) == 1 { print $2 }' /proc/mounts | while read -r mounted; do umount -l "$mounted"; done
    rm -rf "$dir/hosts" "$dir/pg" "$dir/my" "$dir/mount" "$dir/pids" "$dir/sockets" "$dir/lab.env" "$dir/lab.env.new" \
        "$dir/ssh_config" "$dir/known_hosts" "$dir/id_ed25519" "$dir/id_ed25519.pub" "$dir/pgpass" "$dir/ca.pem"
}

case ${1:-} in
install)
    PACKAGES+=("${@:2}")
    install_packages "$@"
    ;;
up)
    [ -n "${2:-}" ] || die "up needs a directory"
    install_packages "$@"
    as_root "$@"
    dir=$2 owner='' tmpfs=''
    shift 2
    while [ $# -gt 0 ]; do
        case $1 in
        --owner) owner=$2 ;;
        --tmpfs) tmpfs=$2 ;;
        *) die "up: $1?" ;;
        esac
        shift 2
    done
    up
    ;;
host)
    [ -n "${3:-}" ] || die "host needs a directory and a name"
    as_root "$@"
    dir=$(cd "$2" && pwd -P)
    [ -e "$dir/lab.env" ] || die "no lab runs in $dir"
    shift 2
    more_host "$@"
    ;;
mariadb)
    [ -n "${3:-}" ] || die "mariadb needs a directory and a name"
    as_root "$@"
    dir=$(cd "$2" && pwd -P)
    [ -e "$dir/lab.env" ] || die "no lab runs in $dir"
    shift 2
    more_mariadb "$@"
    ;;
bounce)
    [ -n "${3:-}" ] || die "bounce needs a directory and source or target"
    as_root "$@"
    dir=$(cd "$2" && pwd -P)
    sockets=$(cat "$dir/sockets")
    bounce "$3"
    ;;
down)
    [ -n "${2:-}" ] || die "down needs a directory"
    [ -d "$2" ] || exit 0
    as_root "$@"
    dir=$(cd "$2" && pwd -P)
    down
    ;;
*)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
