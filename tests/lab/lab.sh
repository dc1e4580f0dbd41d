#!/usr/bin/env bash
#
# The lab: two source hosts with sshd, a source and a target PostgreSQL, and a mount that all of them share, on
# one machine and without containers.
#
#     lab.sh install                     only the Debian packages that are missing, build dependencies too
#     lab.sh up DIR [--owner PID]        starts it in DIR and prints DIR/lab.env; again: prints it again
#     lab.sh down DIR                    stops what runs there and removes what `up` made
#
# A host is an sshd in namespaces of its own: its mounts, its processes and its name. Its root is put together
# from the machine's directories and its own /etc/passwd, /home, /tmp and mount point, so nothing is created
# outside DIR, and when the host's first process dies, the kernel takes everything else of it. With --owner the
# lab goes, with all of DIR, as soon as that process is gone; tests that crash leave nothing behind.
#
# LAB_FSYNC=on makes the clusters write like real ones. Needs root, and asks sudo for it.

set -euo pipefail
umask 022
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

self=$(readlink -f -- "${BASH_SOURCE[0]}")
source_port='' target_port='' port_a='' port_b=''

main() {
    case ${1:-} in
        install) as_root "$@"; install_packages libssl-dev pkg-config gcc libc6-dev make ;;
        up) as_root "$@"; shift; up "$@" ;;
        down) as_root "$@"; shift; down "$@" ;;
        __host) shift; host_main "$@" ;;
        __watch) shift; watch_owner "$@" ;;
        *) sed -n '3,8s/^# \{0,1\}//p' "$self" >&2; exit 2 ;;
    esac
}

as_root() {
    ((EUID != 0)) || return 0
    exec sudo --preserve-env=LAB_FSYNC -- "$self" "$@"
}

say() { echo "lab: $*" >&2; }

# ── packages ────────────────────────────────────────────────────────────────────────────────────────────────

install_packages() {
    local package missing=() policy=/usr/sbin/policy-rc.d
    for package in openssh-server openssh-client postgresql isal pigz gzip util-linux "$@"; do
        have "$package" || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0
    say "installing ${missing[*]}"
    # The lab starts its own servers; the packages' own need not run
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        # shellcheck disable=SC2064
        trap "rm -f '$policy'" EXIT
    fi
    apt_install "${missing[@]}" || { apt_get update && apt_install "${missing[@]}"; } ||
        say 'apt-get failed; going on with what is there'
    if [[ $(trap -p EXIT) == *"$policy"* ]]; then
        rm -f "$policy"
        trap - EXIT
    fi
    for package in "${missing[@]}"; do
        have "$package" || { say "still missing: $package"; exit 1; }
    done
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >&2; }
apt_install() { apt_get install -y --no-install-recommends "$@"; }

# What counts is the command, wherever it came from.
have() {
    case $1 in
        openssh-server) type -P sshd ;;
        openssh-client) type -P ssh ;;
        postgresql) pg_bin ;;
        isal) type -P igzip ;;
        util-linux) type -P unshare && type -P setpriv && type -P flock ;;
        pkg-config) type -P pkg-config ;;
        pigz | gzip | gcc | make) type -P "$1" ;;
        *) dpkg-query -W -f '${Status}' "$1" | grep -q 'ok installed' ;;
    esac >/dev/null 2>&1
}

pg_bin() {
    local found
    found=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
    [[ -x $found ]] && echo "${found%/*}"
}

# ── processes: each is recorded with its start time, so that no later one of the same number is meant ───────

# pid → its start time (proc(5): the 22nd field; the 2nd may hold blanks and parentheses). A zombie is gone: not
# every container's first process collects them.
started() {
    local fields
    fields=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -ra fields <<<"${fields##*) }"
    [[ ${fields[0]} != Z ]] || return 1
    echo "${fields[19]}"
}

record() { echo "$1 $2 $(started "$2")" >>"$dir/state/pids"; }

recorded() {   # name → pid, when it still is that process
    local name pid start
    [[ -e $dir/state/pids ]] || return 1
    while read -r name pid start; do
        [[ $name == "$1" && $(started "$pid") == "$start" ]] && echo "$pid" && return 0
    done < <(tac "$dir/state/pids")
    return 1
}

wait_for() {   # seconds, what, command...
    local tries=$(($1 * 20)) what=$2
    shift 2
    while ((tries-- > 0)); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
    say "waited in vain for $what"
    return 1
}

gone() { ! started "$1" >/dev/null; }

free_port() {
    local port hex
    while :; do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
        printf -v hex ':%04X ' "$port"
        grep -qF "$hex" /proc/net/tcp /proc/net/tcp6 2>/dev/null || { echo "$port"; return; }
    done
}

# ── up ──────────────────────────────────────────────────────────────────────────────────────────────────────

up() {
    local owner=''
    dir=${1:?DIR is missing}
    shift
    while (($# > 0)); do
        case $1 in
            --owner) owner=${2:?PID is missing}; shift 2 ;;
            *) say "unknown option $1"; exit 2 ;;
        esac
    done
    [[ -z $owner ]] || started "$owner" >/dev/null || { say "no process $owner to be the owner"; exit 2; }
    [[ -d $dir ]] || { mkdir -p -- "$dir"; made_dir=yes; }
    dir=$(readlink -f -- "$dir")
    exec 200<"$dir"
    flock 200
    if [[ -e $dir/state ]]; then
        if [[ -e $dir/lab.env ]] && running; then
            say "already up in $dir"
            cat "$dir/lab.env"
            return
        fi
        say "cleaning up what an earlier lab left in $dir"
        [[ ! -e $dir/state/made_dir ]] || made_dir=yes
        take_down
        exec 200>&-
        mkdir -p -- "$dir"
        exec 200<"$dir"
        flock 200
    elif [[ -n $(ls -A -- "$dir") ]]; then
        say "$dir is not empty, and not a lab"
        exit 1
    fi
    install_packages
    trap 'failed' EXIT
    trap 'exit 130' INT TERM HUP
    mkdir "$dir/state" "$dir/hosts" "$dir/mount"
    [[ -z ${made_dir:-} ]] || : >"$dir/state/made_dir"
    uid=${SUDO_UID:-5301} gid=${SUDO_GID:-5301}
    make_client
    place_clusters
    make_host a /mnt/dataTransfer 530:530 &
    local host_a=$!
    make_host b /data/share 540:2180 &
    local host_b=$!
    make_clusters
    wait "$host_a"
    wait "$host_b"
    start_cluster source
    start_cluster target
    start_host a
    start_host b
    make_roles
    chown "$uid:$gid" "$dir/mount"
    chmod 2770 "$dir/mount"
    write_down
    [[ -z $owner ]] || start_watch "$owner"
    trap - EXIT INT TERM HUP
    cat "$dir/lab.env"
}

running() {
    recorded source && recorded target && recorded host-a && recorded host-b
} >/dev/null

failed() {
    local status=$? log
    trap - EXIT
    say "could not start in $dir"
    for log in "$dir"/state/*.log "$dir"/hosts/*/sshd.log; do
        [[ -s $log ]] && { echo "--- ${log#"$dir"/}"; tail -n 15 "$log"; } >&2
    done
    take_down
    exit $((status ? status : 1))
}

# ── up: the clusters ────────────────────────────────────────────────────────────────────────────────────────

# In DIR, unless postgres cannot get there or a socket's name would be too long (107 bytes).
place_clusters() {
    pg=$dir/pg
    mkdir "$pg"
    if ((${#pg} > 75)) || ! as_postgres test -x "$pg"; then
        rmdir "$pg"
        pg=$(mktemp -d /tmp/gpferry-lab.XXXXXX)
        chmod 755 "$pg"
    fi
    echo "$pg" >"$dir/state/pg"
    PG_BIN=$(pg_bin)
}

# From / because DIR may be closed to postgres. An array too, so that what is started in the background is the
# process itself.
as_postgres=(env -C / setpriv --reuid=postgres --regid=postgres --init-groups --)
as_postgres() { "${as_postgres[@]}" "$@"; }

make_clusters() {
    local name
    install -d -o postgres -g postgres "$pg/source" "$pg/target"
    as_postgres "$PG_BIN/initdb" -N -A trust -U postgres -E UTF8 --locale=C.UTF-8 -D "$pg/source/data" \
        >"$dir/state/initdb.log" 2>&1
    as_postgres cp -a "$pg/source/data" "$pg/target/data"
    for name in source target; do
        as_postgres tee -a "$pg/$name/data/postgresql.conf" >/dev/null <<-END
			listen_addresses = '127.0.0.1'
			unix_socket_directories = '$pg/$name'
			fsync = ${LAB_FSYNC:-off}
			max_connections = 200
			autovacuum = on
			log_line_prefix = '%m [%p] %a %d '
			timezone = 'UTC'
		END
    done
    as_postgres tee "$pg/source/data/pg_hba.conf" >/dev/null <<-END
		local all all                   trust
		host  all gpadmin  127.0.0.1/32 trust
		host  all all      127.0.0.1/32 scram-sha-256
	END
    as_postgres tee "$pg/target/data/pg_hba.conf" >/dev/null <<-END
		local all postgres              trust
		local all all                   scram-sha-256
		host  all all      127.0.0.1/32 scram-sha-256
	END
}

start_cluster() {   # source|target
    local name=$1 log=$dir/state/$1.log pid port try
    for try in 1 2 3 4 5; do
        port=$(free_port)
        "${as_postgres[@]}" setsid "$PG_BIN/postgres" -D "$pg/$name/data" -p "$port" </dev/null >"$log" 2>&1 200<&- &
        pid=$!
        record "$name" "$pid"
        if wait_for 20 "PostgreSQL ($name)" answers_or_dead "$pid" "$pg/$name" "$port" && ! gone "$pid"; then
            declare -g "${name}_port=$port"
            return
        fi
        grep -q 'in use' "$log" || return 1
        say "port $port was taken, try $try"
    done
    return 1
}

answers_or_dead() { gone "$1" || "$PG_BIN/pg_isready" -q -h "$2" -p "$3"; }

make_roles() {
    local password
    password=$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')
    echo "CREATE ROLE gpadmin LOGIN SUPERUSER; CREATE ROLE loader LOGIN CREATEDB PASSWORD '$password';" |
        PGHOST=$pg/source PGPORT=$source_port as_postgres "$PG_BIN/psql" -Xq -v ON_ERROR_STOP=1
    echo "CREATE ROLE loader LOGIN CREATEDB PASSWORD '$password';" |
        PGHOST=$pg/target PGPORT=$target_port as_postgres "$PG_BIN/psql" -Xq -v ON_ERROR_STOP=1
    (umask 077 && echo "127.0.0.1:$target_port:*:loader:$password" >"$dir/pgpass")
}

# ── up: the hosts ───────────────────────────────────────────────────────────────────────────────────────────

make_client() {
    ssh-keygen -q -t ed25519 -N '' -C gpferry-lab -f "$dir/id_ed25519"
    : >"$dir/known_hosts"
}

make_host() {   # name, where it sees the mount, user1's uid:gid
    local host=$dir/hosts/$1 type user ids group
    mkdir -p "$host"/{root,etc,ssh,home,tmp}
    chmod 1777 "$host/tmp"
    echo "$2" >"$host/mount_point"
    for type in ed25519 rsa ecdsa; do
        ssh-keygen -q -t "$type" -N '' -C "gp-$1" -f "$host/ssh/ssh_host_${type}_key"
    done
    install -m 644 /dev/null "$host/etc/passwd"
    install -m 644 /dev/null "$host/etc/group"
    install -m 600 /dev/null "$host/etc/shadow"
    for user in "gpadmin:$uid:$gid" "user1:$3"; do
        ids=${user#*:} group=${user%%:*}
        user=$group
        echo "$user:x:$ids:$user:/home/$user:/bin/bash" >>"$host/etc/passwd"
        echo "$user:*:19000:0:99999:7:::" >>"$host/etc/shadow"
        echo "$group:x:${ids#*:}:" >>"$host/etc/group"
        install -d -m 755 -o "${ids%:*}" -g "${ids#*:}" "$host/home/$user"
        install -d -m 700 -o "${ids%:*}" -g "${ids#*:}" "$host/home/$user/.ssh"
        install -m 600 -o "${ids%:*}" -g "${ids#*:}" "$dir/id_ed25519.pub" "$host/home/$user/.ssh/authorized_keys"
    done
    # The lab's users first: where two share a number, the first one's name is shown
    grep -vE '^(gpadmin|user1):' /etc/passwd >>"$host/etc/passwd"
    grep -vE '^(gpadmin|user1):' /etc/group >>"$host/etc/group"
    cat >"$host/ssh/sshd_config" <<-END
		ListenAddress 127.0.0.1
		HostKey /etc/ssh/ssh_host_ed25519_key
		HostKey /etc/ssh/ssh_host_rsa_key
		HostKey /etc/ssh/ssh_host_ecdsa_key
		PidFile /run/sshd.pid
		UsePAM no
		UseDNS no
		StrictModes yes
		PasswordAuthentication no
		KbdInteractiveAuthentication no
		PrintMotd no
		PrintLastLog no
		LogLevel VERBOSE
		# tests that run side by side log in side by side
		MaxStartups 100
		Subsystem sftp internal-sftp
	END
}

start_host() {   # name
    local name=$1 host=$dir/hosts/$1 log=$dir/hosts/$1/sshd.log pid port try key type
    for try in 1 2 3 4 5; do
        port=$(free_port)
        setsid unshare --mount --propagation private --uts --pid --fork --kill-child=KILL -- \
            bash "$self" __host "$name" "$host" "$dir/mount" "$pg/source" "$port" \
            </dev/null >"$log" 2>&1 200<&- &
        pid=$!
        record "host-$name" "$pid"
        if wait_for 10 "sshd on host $name" listens_or_dead "$pid" "$port" && ! gone "$pid"; then
            declare -g "port_$name=$port"
            for type in ed25519 rsa ecdsa; do
                key=$(cut -d' ' -f1,2 "$host/ssh/ssh_host_${type}_key.pub")
                echo "[127.0.0.1]:$port $key" >>"$dir/known_hosts"
            done
            return
        fi
        grep -q 'in use' "$log" || return 1
        say "port $port was taken, try $try"
    done
    return 1
}

# It must be our sshd that greets: the log says so as soon as it listens.
listens_or_dead() { gone "$1" || { grep -q "listening on 127.0.0.1 port $2" "$dir"/hosts/*/sshd.log && greets "$2"; }; }

greets() {
    local banner=''
    exec 201<>"/dev/tcp/127.0.0.1/$1" || return 1
    read -r -t 2 banner <&201
    exec 201>&-
    [[ $banner == SSH-2.0-* ]]
}

# The first process of a host.
host_main() {   # name, its directory, the mount, the source's socket directory, port
    local name=$1 host=$2 mount=$3 socket=$4 port=$5 root=$2/root entry point
    hostname "gp-$name"
    mount -t tmpfs -o mode=755,size=16m "gp-$name" "$root"
    for entry in /* /.[!.]*; do
        case $entry in
            /etc | /home | /mnt | /data | /tmp | /run | /proc | /root | /lost+found) ;;
            *)
                if [[ -L $entry ]]; then
                    cp -a -- "$entry" "$root$entry"
                elif [[ -d $entry ]]; then
                    mkdir -- "$root$entry"
                    mount --rbind -- "$entry" "$root$entry"
                fi
                ;;
        esac
    done
    # /etc: the machine's files, by links, under the host's own
    mkdir -p "$root"/{etc,.machine-etc,home,tmp,run/sshd,root,proc,mnt,.old}
    chmod 700 "$root/root"
    mount --bind /etc "$root/.machine-etc"
    for entry in /etc/*; do
        case ${entry##*/} in
            passwd | passwd- | group | group- | shadow | shadow- | gshadow | gshadow- | ssh | nologin) ;;
            *) ln -s -- "/.machine-etc/${entry##*/}" "$root$entry" ;;
        esac
    done
    cp -a -- "$host"/etc/* "$root/etc/"
    cp -a -- "$host/ssh" "$root/etc/ssh"
    mount --bind "$host/home" "$root/home"
    mount --bind "$host/tmp" "$root/tmp"
    mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
    point=$(cat "$host/mount_point")
    mkdir -p "$root$point"
    mount --bind "$mount" "$root$point"
    if [[ ! -d $root$socket ]]; then
        mkdir -p "$root$socket"
        mount --bind "$socket" "$root$socket"
    fi
    cd "$root"
    pivot_root . .old
    cd /
    umount -l /.old
    rmdir /.old 2>/dev/null || :
    trap '' HUP
    unset SUDO_UID SUDO_GID SUDO_USER SUDO_COMMAND
    "$(type -P sshd)" -D -e -f /etc/ssh/sshd_config -p "$port" &
    wait "$!"
}

# ── up: what the tests read ─────────────────────────────────────────────────────────────────────────────────

write_down() {
    local name port pid
    for name in a b; do
        port=port_$name
        cat <<-END
			Host gp-$name
			    HostName 127.0.0.1
			    Port ${!port}
			    User gpadmin
			    IdentityFile $dir/id_ed25519
			    IdentitiesOnly yes
			    UserKnownHostsFile $dir/known_hosts
			    GlobalKnownHostsFile /dev/null
			    StrictHostKeyChecking yes
		END
        # seen from outside, unlike the host's own /run/sshd.pid
        pid=$(cat "/proc/$(recorded "host-$name")/task/"*/children)
        pid=$(cat "/proc/${pid%% *}/task/"*/children)
        echo "${pid%% *}" >"$dir/hosts/$name/sshd.pid"
    done >"$dir/ssh_config"
    cat >"$dir/state/lab.env" <<-END
		LAB_DIR=$dir
		LAB_MOUNT=$dir/mount
		LAB_SSH_CONFIG=$dir/ssh_config
		LAB_IDENTITY=$dir/id_ed25519
		LAB_KNOWN_HOSTS=$dir/known_hosts
		LAB_PORT_A=$port_a
		LAB_PORT_B=$port_b
		LAB_MOUNT_A=/mnt/dataTransfer
		LAB_MOUNT_B=/data/share
		LAB_USER=gpadmin
		LAB_SOURCE_SOCKET=$pg/source
		LAB_SOURCE_PORT=$source_port
		LAB_TARGET_SOCKET=$pg/target
		LAB_TARGET_PORT=$target_port
		LAB_TARGET_USER=loader
		LAB_PGPASSFILE=$dir/pgpass
		LAB_PG_BIN=$PG_BIN
	END
    if [[ -n ${SUDO_UID:-} ]]; then
        chown "$uid:$gid" "$dir/id_ed25519" "$dir/id_ed25519.pub" "$dir/known_hosts" "$dir/ssh_config" "$dir/pgpass"
    fi
    mv "$dir/state/lab.env" "$dir/lab.env"      # last: a lab with this file is ready
}

# ── the owner ───────────────────────────────────────────────────────────────────────────────────────────────

start_watch() {
    local start
    start=$(started "$1")
    setsid bash "$self" __watch "$dir" "$1" "$start" </dev/null >/dev/null 2>&1 200<&- &
    record watch $!
}

watch_owner() {   # dir, pid, its start time
    dir=$1
    trap '' HUP INT
    while [[ $(started "$2") == "$3" ]]; do
        [[ -d $dir/state ]] || exit 0
        sleep 0.5
    done
    exec 200<"$dir" || exit 0
    flock 200
    [[ $(recorded watch) == "$$" ]] || exit 0     # another lab has come here since
    take_down
    rm -rf --one-file-system -- "$dir"
}

# ── down ────────────────────────────────────────────────────────────────────────────────────────────────────

down() {
    dir=$(readlink -f -- "${1:?DIR is missing}") || dir=''
    if [[ ! -e $dir/state/pg && ! -e $dir/state/pids ]]; then
        say "no lab in $1"
        return
    fi
    exec 200<"$dir"
    flock 200
    take_down
}

take_down() {
    local name pid host_pids=() first=() file made=''
    if pid=$(recorded watch) && [[ $pid != "$$" ]]; then kill -KILL "$pid" 2>/dev/null || :; fi
    for name in host-a host-b; do
        # unshare takes the host's first process with it, and the kernel all the others
        pid=$(recorded "$name") || continue
        read -ra first < <(cat "/proc/$pid/task/$pid/children" 2>/dev/null) || :
        host_pids+=("$pid" ${first[@]+"${first[@]}"})
        kill -KILL "$pid" 2>/dev/null || :
    done
    for name in source target; do
        pid=$(recorded "$name") || continue
        kill -QUIT "$pid" 2>/dev/null || :
        if ! wait_for 5 "the end of PostgreSQL ($name)" gone "$pid"; then
            kill -KILL "$pid" 2>/dev/null || :
            drop_shared_memory "$(cat "$dir/state/pg")/$name/data/postmaster.pid"
        fi
    done
    for pid in ${host_pids[@]+"${host_pids[@]}"}; do
        wait_for 5 "the end of process $pid" gone "$pid" || :
    done
    file=$(cat "$dir/state/pg" 2>/dev/null) || file=''
    case $file in
        "$dir"/pg | /tmp/gpferry-lab.??????) rm -rf --one-file-system -- "$file" ;;
    esac
    [[ -e $dir/state/made_dir ]] && made=yes
    rm -rf --one-file-system -- "$dir"/{hosts,mount,lab.env,id_ed25519,id_ed25519.pub,known_hosts,ssh_config,pgpass,pg,state}
    [[ -z $made ]] || rmdir -- "$dir" 2>/dev/null || :
}

# A postmaster that was killed leaves its System V segment; the last number of its pid file's 7th line names it.
drop_shared_memory() {
    local id
    id=$(sed -n 7p "$1" 2>/dev/null | awk '{ print $2 }') || return 0
    [[ ! $id =~ ^[0-9]+$ ]] || ipcrm -m "$id" 2>/dev/null || :
}

main "$@"
