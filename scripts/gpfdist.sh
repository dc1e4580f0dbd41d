#!/usr/bin/env bash
#
# Starts a gpfdist, says its port, and ends it when nobody needs it any more. Sent over stdin and never installed;
# speaks protocol 1 (README.md).
#
# What it promises: nothing that a user typed is parsed by a shell, and no gpfdist stays behind. It ends at the orderly
# end, at a closed stdin (gpferry was killed, the connection is lost), where no beat comes, at the deadline, and when this
# process is killed.
#
#     supervisor   this process: hello, beats, clocks, the last word
#       └ guard       leads a process group of its own; when its stdin closes, so also when the supervisor is killed, it
#           └ gpfdist   ends this one
#
# Were supervisor and guard killed at once, the next gpfdist.sh of this user on this host ends the rest: a gpfdist of
# gpferry carries its run, and the number and start time of its supervisor, in its environment.
#
# Beside the requests of protocol 1 (hello, set, beat, stop, end), fields separated by TABs:
#
#     set GPFDIST|DIRECTORY|PORTS|MAX_LINE|BIND|RUN <value>
#     query <no> serve     answered by   row <no> port <port>
#                                        row <no> host <name of this host>
#                                        row <no> removed <how many that a dead run had left were ended>
#                                        ok <no> 3 0 <seconds> -
#
# Later, where gpfdist ends by itself: `end 1`, and on stderr what it said. Runs on bash 4.1 and coreutils 8.4.

set -uo pipefail
set -f
unset CDPATH

readonly VERSION=1.0.0
readonly TAB=$'\t'
readonly PATIENCE=15            # seconds that gpfdist may take to say that it serves
readonly WORTH_HEARING='^Serving |FATAL|[Ee]rror|cannot|libr'

nonce=- partial='' line='' ended='' fate='' no='' job='' from='' word='' why='' said=''
program='' directory='' first=8080 last=8180 longest=1048576 bind='' run=-

reply() { printf '%s\t%s\n' "$nonce" "$1"; }

# ── supervisor ──────────────────────────────────────────────────────────────────────────────────────────────

supervise() {
    trap : PIPE                  # not ignored: that gpfdist would inherit
    trap 'fate=130' HUP INT TERM
    IFS= read -r -t 60 line || line=''
    if ! [[ $line =~ ^hello${TAB}1${TAB}([A-Za-z0-9_.-]{1,64})${TAB}([0-9]{1,9})${TAB}([0-9]{1,9})$ ]]; then
        echo 'gpfdist.sh: expected: hello 1 <nonce> <heartbeat s> <deadline s>, separated by TABs' >&2
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
            fate=1
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
    local value=${line#*"$TAB"*"$TAB"}
    case $line in
        beat) reply beat ;;
        stop) fate=130 ;;
        end) ended=yes ;;
        "set${TAB}GPFDIST$TAB"*) program=$value ;;
        "set${TAB}DIRECTORY$TAB"*) directory=$value ;;
        "set${TAB}BIND$TAB"*) bind=$value ;;
        "set${TAB}RUN$TAB"*) run=$value ;;
        *)
            if [[ $line =~ ^set${TAB}PORTS${TAB}([0-9]{1,5})-([0-9]{1,5})$ ]]; then
                first=${BASH_REMATCH[1]} last=${BASH_REMATCH[2]}
            elif [[ $line =~ ^set${TAB}MAX_LINE${TAB}([0-9]{1,9})$ ]]; then
                longest=${BASH_REMATCH[1]}
            elif [[ -z $job && $line =~ ^query${TAB}([0-9]{1,18})${TAB}serve$ ]]; then
                no=${BASH_REMATCH[1]}
                serve
            else
                echo "gpfdist.sh: not a request: ${line:0:60}" >&2
                fate=2
            fi
            ;;
    esac
}

# ── gpfdist ─────────────────────────────────────────────────────────────────────────────────────────────────

serve() {
    local began=$SECONDS removed=0 port='' code=1
    why='' said=''
    remove_orphans
    if ! may_be_served || ! find_program; then
        refuse "$code"
        return
    fi
    start
    while hear && ((SECONDS - began < PATIENCE)); do
        if [[ $said =~ Serving\ HTTPS?\ on\ port\ ([0-9]+), ]]; then
            port=${BASH_REMATCH[1]}
            break
        fi
        sleep 0.02
    done
    if [[ -z $port ]]; then
        end_job
        hear
        why="gpfdist did not come up on a port of $first-$last: ${said:-it said nothing}"
        refuse 1
        return
    fi
    reply "row$TAB$no${TAB}port$TAB$port"
    reply "row$TAB$no${TAB}host$TAB$(uname -n)"
    reply "row$TAB$no${TAB}removed$TAB$removed"
    reply "ok$TAB$no${TAB}3${TAB}0$TAB$((SECONDS - began)).00$TAB-"
}

refuse() { reply "error$TAB$no$TAB$1$TAB-$TAB$(printf '%.1500s' "${why//[[:cntrl:]]/ }")"; }

may_be_served() {
    if [[ ! -e $directory ]]; then
        why="$directory: No such file or directory"
    elif [[ ! -d $directory || ! -r $directory || ! -x $directory ]]; then
        why="$directory: Permission denied, or not a directory [process uid=$(id -u) user=$(id -un) gid=$(id -g) groups=$(id -G | tr ' ' ,)]"
    fi
    [[ -z $why ]]
}

# A login without a terminal seldom has Greenplum on its PATH.
find_program() {
    local home
    if [[ -z $program ]]; then
        program=$(command -v gpfdist) || program=''
        set +f
        for home in "${GPHOME:-}" /usr/local/greenplum-db /usr/local/greenplum-db-clients /usr/local/greenplum-*; do
            [[ -n $program || ! -x $home/bin/gpfdist ]] || program=$home/bin/gpfdist
        done
        set -f
    fi
    if [[ -z $program ]]; then
        why='gpfdist: command not found (neither in PATH, in $GPHOME/bin, nor below /usr/local/greenplum-*)' code=127
    elif [[ ! -e $program ]]; then
        why="$program: command not found" code=127
    elif [[ ! -f $program || ! -x $program ]]; then
        why="$program: Permission denied, or not a program" code=126
    fi
    [[ -z $why ]]
}

start() {
    local mark
    mark="$run $(readlink /proc/self/ns/pid) $$ $(started_at $$)"
    set -m                       # a process group of its own
    coproc GUARD { guard "$mark" 2>&1; }
    set +m
    job=$GUARD_PID from=${GUARD[0]} word=${GUARD[1]}
}

# Its stdin is held by the supervisor alone.
guard() {
    local options=(-d "$directory" -p "$first" -P "$last" -m "$longest" -t 30) home=${program%/bin/*} pid status
    set +m
    trap : HUP INT TERM
    [[ -z $bind ]] || options+=(-b "$bind")
    [[ ! -d $home/lib ]] || export LD_LIBRARY_PATH="$home/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    unset GPFDIST_WATCHDOG_TIMER
    # It says a line and more for each request, and only few of those are passed on: none may fill a pipe
    GPFERRY_GPFDIST=$1 "$program" "${options[@]}" </dev/null > >(grep --line-buffered -aE "$WORTH_HEARING") 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        read -r -t 0.2 _
        status=$?
        ((status > 128)) || break
    done
    end_it "$pid"
}

end_it() {   # pid
    local tick
    kill -TERM "$1" 2>/dev/null
    for ((tick = 0; tick < 20; tick++)); do
        kill -0 "$1" 2>/dev/null || return
        sleep 0.05
    done
    kill -KILL "$1" 2>/dev/null
}

end_job() {
    local tick
    eval "exec $word>&-"         # a number; the guard ends gpfdist, and itself
    for ((tick = 0; tick < 60; tick++)); do
        kill -0 "$job" 2>/dev/null || break
        sleep 0.05
    done
    kill -KILL -- "-$job" 2>/dev/null
    job=''
}

# Takes in what gpfdist said since; fails where it has ended.
hear() {
    local text alive=yes
    kill -0 "$job" 2>/dev/null || alive=''
    # At its end, all of it; before, what is there
    while { [[ -z $alive ]] || read -r -t 0 -u "$from"; } 2>/dev/null && IFS= read -r -t 1 -u "$from" text 2>/dev/null; do
        said=${said: -2000}${said:+$'\n'}$text
    done
    [[ -n $alive ]]
}

# ── what a supervisor left that was killed together with its guard ──────────────────────────────────────────

started_at() { sed -n 's/^.*) //p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

remove_orphans() {
    local pid namespace mark run_of of_namespace supervisor since
    namespace=$(readlink /proc/self/ns/pid)
    while read -r pid; do
        mark=$(tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | sed -n 's/^GPFERRY_GPFDIST=//p')
        read -r run_of of_namespace supervisor since <<<"$mark"
        [[ $of_namespace == "$namespace" && $supervisor =~ ^[0-9]+$ && $since =~ ^[0-9]+$ ]] || continue
        [[ $(started_at "$supervisor") != "$since" ]] || continue
        echo "gpfdist.sh: ended a gpfdist (process $pid) that run $run_of left" >&2
        end_it "$pid"
        removed=$((removed + 1))
    done < <(marked)
}

marked() {
    ( set +f; grep -lsz '^GPFERRY_GPFDIST=' /proc/[0-9]*/environ ) | cut -d / -f 3
}

supervise
