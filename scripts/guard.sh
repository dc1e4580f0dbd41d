#!/usr/bin/env bash
#
# Holds a program on a host for gpferry: what gpfdist.sh and gpload.sh have in common, and stands before them when they
# are sent. They are sent over stdin and never installed; both speak protocol 1 (README.md).
#
# What it promises: nothing that a user typed is parsed by a shell, and nothing stays behind. The program ends at the
# orderly end, at a closed stdin (gpferry was killed, the connection is lost), where no beat comes, at the deadline, and
# when this process is killed.
#
#     supervisor   this process: hello, beats, clocks, the last word
#       └ guard       leads a process group of its own; when its stdin closes, so also when the supervisor is killed, it
#           └ program   ends this one
#
# Were supervisor and guard killed at once, the next of these scripts of this user on this host ends the rest: a program of
# gpferry carries its run, and the number and start time of its supervisor, in its environment, and so does what it starts.
#
# What stands behind this says what is asked and started, by functions:
#
#     its_own_request          takes the request in $line, where it knows it
#     start_program            in the guard: starts the program in the background with GPFERRY_GUARD=$mark; its number in $pid
#     program_ended            in the supervisor: it ended by itself; its last words are in $said
#
# Runs on bash 4.1 and coreutils 8.4.

set -uo pipefail
set -f
umask 077
unset CDPATH

readonly TAB=$'\t'

nonce=- partial='' line='' ended='' fate='' no='' job='' why='' said='' pid='' mark='' workshop=''
program='' first=8080 last=8180 longest=1048576 run=-

reply() { printf '%s\t%s\n' "$nonce" "$1"; }

refuse() { reply "error$TAB$no$TAB$1$TAB-$TAB$(printf '%.1500s' "${why//[[:cntrl:]]/ }")"; }

# ── supervisor ──────────────────────────────────────────────────────────────────────────────────────────────

supervise() {
    trap : PIPE                  # not ignored: that the program would inherit
    trap 'fate=130' HUP INT TERM
    IFS= read -r -t 60 line || line=''
    if ! [[ $line =~ ^hello${TAB}1${TAB}([A-Za-z0-9_.-]{1,64})${TAB}([0-9]{1,9})${TAB}([0-9]{1,9})$ ]]; then
        echo 'expected: hello 1 <nonce> <heartbeat s> <deadline s>, separated by TABs' >&2
        exit 2
    fi
    nonce=${BASH_REMATCH[1]}
    reply "hello${TAB}1${TAB}$VERSION"
    watch "$((10#${BASH_REMATCH[2]}))" "$((10#${BASH_REMATCH[3]}))"
    trap '' HUP INT TERM
    [[ -z $job ]] || end_job
    # What it said may hold names of files, and nothing else
    [[ ${fate:-0} != 1 ]] || printf '%s\n' "$said" | tail -n 5 >&2
    reply "end$TAB${fate:-0}"
    exit "${fate:-0}"
}

watch() {
    local heartbeat=$1 deadline=$2 heard=$SECONDS start=$SECONDS
    while [[ -z $fate && -z $ended ]]; do
        next_line
        case $? in
            0) heard=$SECONDS; request ;;
            2) fate=130 ;;
        esac
        if [[ -n $job && -z $fate ]] && ! hear; then
            program_ended
        fi
        ((heartbeat == 0 || SECONDS - heard <= heartbeat)) || fate=125
        ((deadline == 0 || SECONDS - start < deadline)) || fate=124
    done
}

# 0: a whole line is in $line; 1: not yet; 2: stdin is closed.
next_line() {
    local rest='' status
    IFS= read -r -t 0.2 rest
    status=$?
    partial+=$rest
    ((status != 0)) || { line=$partial partial=''; return 0; }
    ((status <= 128)) || return 1
    return 2
}

request() {
    case $line in
        beat) reply beat ;;
        stop) fate=130 ;;
        end) ended=yes ;;
        "set${TAB}PROGRAM$TAB"*) program=${line#*"$TAB"*"$TAB"} ;;
        "set${TAB}RUN$TAB"*) run=${line#*"$TAB"*"$TAB"} ;;
        *)
            if [[ $line =~ ^set${TAB}PORTS${TAB}([0-9]{1,5})-([0-9]{1,5})$ ]]; then
                first=${BASH_REMATCH[1]} last=${BASH_REMATCH[2]}
            elif [[ $line =~ ^set${TAB}MAX_LINE${TAB}([0-9]{1,9})$ ]]; then
                longest=${BASH_REMATCH[1]}
            elif ! its_own_request; then
                echo "not a request: ${line:0:60}" >&2
                fate=2
            fi
            ;;
    esac
}

# ── the program ─────────────────────────────────────────────────────────────────────────────────────────────

# A login without a terminal seldom has Greenplum on its PATH.
find_program() {   # name
    local home
    code=1
    if [[ -z $program ]]; then
        program=$(command -v "$1") || program=''
        set +f
        for home in "${GPHOME:-}" /usr/local/greenplum-db /usr/local/greenplum-db-clients /usr/local/greenplum-*; do
            [[ -n $program || ! -x $home/bin/$1 ]] || program=$home/bin/$1
        done
        set -f
    fi
    if [[ -z $program ]]; then
        why="$1: command not found (neither in PATH, in \$GPHOME/bin, nor below /usr/local/greenplum-*)" code=127
    elif [[ ! -e $program ]]; then
        why="$program: command not found" code=127
    elif [[ ! -f $program || ! -x $program ]]; then
        why="$program: Permission denied, or not a program" code=126
    fi
    [[ -z $why ]]
}

hold() {
    mark="$run $(pid_namespace) $$ $(started_at $$)"
    set -m                       # a process group of its own
    coproc GUARD { guard 2>&1; }
    set +m
    job=$GUARD_PID
    disown "$job"                # its end is no news for stderr
    # bash closes its own ends when the guard has ended, and what it said last would be lost
    exec 7<&"${GUARD[0]}" 8>&"${GUARD[1]}"
    eval "exec ${GUARD[0]}<&- ${GUARD[1]}>&-"
}

# Its stdin is held by the supervisor alone. The last line that it writes is the exit code of a program that ended by itself.
guard() {
    local status
    set +m
    trap : HUP INT TERM
    start_program
    while kill -0 "$pid" 2>/dev/null; do
        read -r -t 0.2 _
        status=$?
        ((status > 128)) || break
    done
    if kill -0 "$pid" 2>/dev/null; then
        end_it "$pid"
        [[ -z $workshop ]] || rm -rf -- "$workshop"
        kill -KILL -- "-$BASHPID"       # and whatever it had started
    fi
    wait "$pid"
    echo "ended with $?"
    [[ -z $workshop ]] || rm -rf -- "$workshop"
}

end_it() {   # pid
    local tick
    kill -TERM "$1" 2>/dev/null
    for ((tick = 0; tick < 20; tick++)); do
        [[ -n $(started_at "$1") ]] || return
        sleep 0.05
    done
    kill -KILL "$1" 2>/dev/null
}

end_job() {
    local tick
    exec 8>&-                    # the guard ends the program, and itself
    for ((tick = 0; tick < 60; tick++)); do
        kill -0 "$job" 2>/dev/null || break
        sleep 0.05
    done
    kill -KILL -- "-$job" 2>/dev/null
    hear
    job=''
}

# Takes in what the program said since; fails where the guard has ended.
hear() {
    local text alive=yes
    kill -0 "$job" 2>/dev/null || alive=''
    # At its end, all of it; before, what is there
    while { [[ -z $alive ]] || read -r -t 0 -u 7; } && IFS= read -r -t 1 -u 7 text; do
        said+=${said:+$'\n'}$text
        ((${#said} <= 4000)) || said=${said: -4000}
    done
    [[ -n $alive ]]
}

# ── what a supervisor left that was killed together with its guard ──────────────────────────────────────────

# A number of another name space would be that of another process.
pid_namespace() { readlink /proc/self/ns/pid | tr -cd 0-9; }

# Nothing for one that has ended, reaped or not.
started_at() { sed -n '/^.*) [ZX] /d; s/^.*) //p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

remove_orphans() {
    local pid left namespace mark run_of of_namespace supervisor since
    namespace=$(pid_namespace)
    while read -r pid; do
        mark=$(tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | sed -n 's/^GPFERRY_GUARD=//p')
        read -r run_of of_namespace supervisor since <<<"$mark"
        [[ $of_namespace == "$namespace" && $supervisor =~ ^[0-9]+$ && $since =~ ^[0-9]+$ ]] || continue
        [[ $(started_at "$supervisor") != "$since" ]] || continue
        echo "ended a process ($pid) that run $run_of left" >&2
        end_it "$pid"
        removed=$((removed + 1))
    done < <(marked)
    while IFS= read -r left; do
        [[ $left =~ \.([0-9]+)\.([0-9]+)\.[A-Za-z0-9]+$ ]] || continue
        [[ $(started_at "${BASH_REMATCH[1]}") == "${BASH_REMATCH[2]}" ]] || rm -rf -- "$left"
    done < <(find /tmp "${TMPDIR:-/tmp}" -maxdepth 1 -type d -user "$(id -u)" -name "gpferry-gpload.$namespace.*" 2>/dev/null)
}

marked() {
    ( set +f; grep -lsz '^GPFERRY_GUARD=' /proc/[0-9]*/environ ) | cut -d / -f 3
}
