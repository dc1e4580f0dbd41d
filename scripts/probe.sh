# What a host is, as facts: sent over stdin and never installed, so that it runs where nothing else does.
#
# POSIX sh, and no more than coreutils (busybox will do): a host may lack bash and psql, and its home may be
# full or not executable. It decides nothing; gpferry does. Every reply is one line, fields separated by TABs, the
# first of them the nonce that gpferry sent, so that what a login shell prints is not taken for one. Each request
# is answered by any number of lines and then `done`.
#
#     hello  <nonce> <seconds>     first: how replies are marked, and how long the mount may take to answer
#     mount  <path> <subdir>       remembered, as are:
#     psql   <path>                where the inventory names one
#     script <path>                that people have already
#     owner  <user> <group>        who should own the mount, by name
#     facts                        everything about host, mount and scripts
#     clock                        the time here
#     make                         makes <subdir>, as a run would; it goes at the end
#     write  <name> <text>         a proof below <subdir>; it goes at the end
#     look   <name>                what is seen here of somebody else's proof
#     forget <name>                removes a proof whose host did not come to that
#     end                          cleans up; so does a closed stdin, and a signal
#
# A dead mount blocks whoever touches it, so this process never does: a worker in the background does, and
# is given up after the limit. What it had found out by then is told.

LC_ALL=C
export LC_ALL
umask 007
set -f
unset CDPATH
tab=$(printf '\t')
nonce=- limit=500 tmp='' mount='' subdir='' psql='' scripts='' owner='' group='' made='' written='' cached=''

say() {
    line=$nonce
    for field in "$@"; do line=$line$tab$field; done
    printf '%s\n' "$line"
}

# ── what may hang ───────────────────────────────────────────────────────────────────────────────────────────

# Runs a function in the background and tells what it wrote; `hangs` where it did not come to its end.
bounded() {
    : >"$tmp/out"
    rm -f "$tmp/over" "$tmp/step"
    ( "$@" >"$tmp/out"; : >"$tmp/over" ) </dev/null >/dev/null 2>/dev/null &
    worker=$! waited=0 hung=''
    while [ ! -e "$tmp/over" ]; do
        if [ "$waited" -ge "$limit" ] || ! kill -0 "$worker" 2>/dev/null; then
            [ ! -e "$tmp/over" ] || break
            hung=yes
            step=$(cat "$tmp/step" 2>/dev/null)
            # shellcheck disable=SC2086  # it may be empty
            kill -KILL $step "$worker" 2>/dev/null
            break
        fi
        if sleep 0.01 2>/dev/null; then waited=$((waited + 1)); else sleep 1; waited=$((waited + 100)); fi
    done
    # Where the kernel does not let go of it, waiting for it would hang as well.
    [ -n "$hung" ] || wait "$worker" 2>/dev/null
    while IFS= read -r line; do printf '%s\t%s\n' "$nonce" "$line"; done <"$tmp/out"
    [ -z "$hung" ] || say hangs "$1"
}

# In a worker: a command or function whose process is known, so that it can be ended; its words are in $tmp/one.
# Whatever touches the mount goes this way, and forks no further: a child of it would be left behind.
step() {
    "$@" >"$tmp/one" 2>&1 &
    echo $! >"$tmp/step"
    wait $!
}

tell() { printf '%s' "$1"; shift; for field in "$@"; do printf '\t%s' "$field"; done; printf '\n'; }
words() { tr '\n\t' '  ' <"$tmp/one"; }
real_path() { cd -P "$1" && pwd -P; }

# Owner, mode and ACL of a path, as `ls -ldn` prints them: the one way that POSIX knows.
entry() {
    if step ls -ldn "$2"; then tell entry "$1" "$2" "$(words)"; else tell missing "$1" "$2" "$(words)"; fi
}

mount_facts() {
    entry mount "$mount"
    if step real_path "$mount"; then tell real "$(cat "$tmp/one")"; else tell real ''; fi
    if step df -Pk "$mount"; then tell space "$(tail -n 1 "$tmp/one")"; fi
    if step df -Pi "$mount"; then tell inodes "$(tail -n 1 "$tmp/one")"; fi
    if step test -w "$mount"; then tell writable mount yes; fi
    entry subdir "$mount/$subdir"
    if step test -w "$mount/$subdir"; then tell writable subdir yes; fi
}

script_facts() {
    printf '%s' "$scripts" >"$tmp/scripts"
    while IFS= read -r path; do
        step one_script "$path"
        cat "$tmp/one"
    done <"$tmp/scripts"
}

one_script() {
    there=no readable=no executable=no first='' interpreter=-
    if [ -f "$1" ]; then there=yes; fi
    if [ -x "$1" ]; then executable=yes; fi
    if [ -r "$1" ]; then readable=yes; fi
    if [ "$there$readable" = yesyes ]; then IFS= read -r first <"$1"; fi
    path=$1
    case $first in
        '#!'*)
            # shellcheck disable=SC2086  # the kernel splits it the same
            set -- ${first#??}
            [ "${1##*/}" != env ] || shift
            interpreter=$(command -v "${1:-}" 2>/dev/null || echo missing) ;;
        *) first='' ;;
    esac
    tell script "$path" "$there" "$readable" "$executable" "$interpreter" "$first"
}

make_dir() {
    if step test -d "$mount/$subdir"; then tell made there; return; fi
    if step mkdir -m 0770 "$mount/$subdir"; then
        tell made new
        # Where root makes it, it belongs to whom the mount belongs: else the others could not write there.
        if [ "$(id -u)" -eq 0 ] && step ls -ldn "$mount"; then
            read -r _ _ uid gid _ <"$tmp/one"
            step chown "$uid:$gid" "$mount/$subdir"
        fi
        step chmod u+rwx,g+rwx,o-rwx "$mount/$subdir"
    else
        tell made no "$(words)"
    fi
}

# noclobber opens exclusively: nothing is ever overwritten. cat, unlike some shells' printf, says in the system's
# words why it could not write.
write_file() {
    set -C
    exec cat "$tmp/text" >"$1"
}

write_proof() {
    if step test -e "$mount/$subdir/$1"; then tell unwritten "$mount/$subdir/$1: File exists"; return; fi
    printf '%s\n' "$2" >"$tmp/text"
    if step write_file "$mount/$subdir/$1"; then
        entry proof "$mount/$subdir/$1"
    else
        tell unwritten "$(words)"
        # Whose it is by now: it may have been made since the facts were told
        entry subdir "$mount/$subdir"
    fi
}

look_at() {
    if step cat "$mount/$subdir/$1"; then tell saw "$(words)"; entry proof "$mount/$subdir/$1"
    else tell unseen "$(words)"; fi
}

forget() { step rm -f "$mount/$subdir/$1"; }

remove_all() {
    [ -z "$written" ] || step rm -f "$mount/$subdir/$written"
    [ -z "$made" ] || step rmdir "$mount/$subdir"
}

# ── what does not ───────────────────────────────────────────────────────────────────────────────────────────

host_facts() {
    say user "$(id -un 2>/dev/null)" "$(id -u)" "$(id -g)" "$(id -G)"
    if [ -n "$owner" ]; then
        say owner "$(id -u "$owner" 2>/dev/null)" "$(group_number "$group")"
    fi
    for tool in bash perl igzip pigz gzip mktemp; do
        path=$(command -v "$tool" 2>/dev/null) && say tool "$tool" "$path"
    done
    # With -c and without --norc, bash under sshd reads .bashrc, and says whatever that says
    # shellcheck disable=SC2016
    say bash "$(bash --norc -c 'echo "$BASH_VERSION"' 2>/dev/null)"
    if path=$(command -v "${psql:-psql}" 2>/dev/null); then
        say psql "$path" "$("$path" --version 2>&1 | head -n 1)"
    fi
    read -r load1 load5 load15 _ </proc/loadavg && say load "$load1" "$load5" "$load15"
    say cpus "$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
    while read -r key value _; do
        case $key in MemAvailable: | MemFree:) say memory "$key" "$value" ;; esac
    done </proc/meminfo
    while IFS= read -r line; do say mountinfo "$line"; done </proc/self/mountinfo
    [ ! -r /etc/fstab ] || while read -r what where _; do
        case $what in '#'* | '') ;; *) say fstab "$where" ;; esac
    done </etc/fstab
    [ ! -r /etc/ssh/sshd_config ] || while read -r key value _; do
        case $key in [Mm]ax[Ss]*) say sshd "$key" "$value" ;; esac
    done </etc/ssh/sshd_config
    cache_facts
}

# getent knows directories of users that are not in files; it is not on every host.
group_number() {
    { getent group "$1" || cat /etc/group; } 2>/dev/null | while IFS=: read -r name _ gid _; do
        [ "$name" != "$1" ] || echo "$gid"
    done
}

# Can a program be put into the user's cache directory, and started from there?
cache_facts() {
    cache=${XDG_CACHE_HOME:-${HOME:-}/.cache}
    at=$cache/gpferry
    while [ ! -d "$at" ] && [ -n "$at" ]; do at=${at%/*}; done
    cached=${at:-}/.gpferry-probe.$$
    if why=$( { printf '#!/bin/sh\nexit 0\n' >"$cached"; } 2>&1 ) && chmod 700 "$cached" 2>/dev/null; then
        why=$("$cached" 2>&1)
        say cache "$cache" "${at:-/}" yes "$?" "$why"
    else
        say cache "$cache" "${at:-/}" no 0 "$why"
    fi
    rm -f "$cached"
    cached=''
}

clean_up() {
    trap '' HUP INT TERM PIPE
    trap - EXIT
    [ -z "$cached" ] || rm -f "$cached"
    if [ -n "$tmp" ]; then
        [ -z "$written$made" ] || bounded remove_all >/dev/null
        rm -rf "$tmp"
    fi
}

serve() {
    case $1 in
        hello) nonce=$2 limit=$(($3 * 100)) ;;
        mount) mount=$2 subdir=$3 ;;
        psql) psql=$2 ;;
        owner) owner=$2 group=$3 ;;
        script) scripts="$scripts$2
" ;;
        facts)
            say tmp "$tmp"
            host_facts
            if [ -n "$tmp" ]; then
                bounded mount_facts
                [ -z "$scripts" ] || bounded script_facts
            fi
            say 'done' facts ;;
        clock) say clock "$(date +%s.%N 2>/dev/null)"; say 'done' clock ;;
        make)
            bounded make_dir >"$tmp/reply"
            case $(cat "$tmp/reply") in *"${tab}made${tab}new"*) made=yes ;; esac
            cat "$tmp/reply"
            say 'done' make ;;
        write)
            # Before the attempt: one that hangs may yet succeed. The name is this run's own.
            written=$2
            bounded write_proof "$2" "$3"
            say 'done' write ;;
        forget) bounded forget "$2"; say 'done' forget ;;
        look) bounded look_at "$2"; say 'done' look ;;
        end) clean_up; say end; exit 0 ;;
    esac
}

trap clean_up EXIT
trap 'exit 1' HUP INT TERM PIPE
tmp=$(mktemp -d "${TMPDIR:-/tmp}/gpferry-probe.XXXXXXXX" 2>/dev/null) || tmp=''
while IFS=$tab read -r verb first second; do serve "$verb" "$first" "$second"; done
