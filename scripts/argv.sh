#!/usr/bin/env bash
#
# Calls a script that people already have, for one unit, and says how it ended and what stands at the place of the
# unit's file. Sent over stdin and never installed; README.md says what the called script may rely on.
#
# What it promises: no argument is ever parsed by a shell; a file that an earlier attempt left is not taken for a new
# one; the answer comes when everything that the script started has ended; and whatever dies, nothing stays behind.
#
#     supervisor   this process: hello, beats, clocks, the last word
#       ├ job         a process group of its own: the script and what it starts
#       └ undertaker  waits for the supervisor's word, or for its death; then ends the job
#
# Beside the requests of protocol 1 (hello, set, beat, stop, end), fields separated by TABs:
#
#     call <no> <file> <script> <argument>…    answered by   row <no> exit <code>
#                                                            row <no> file <bytes>, or absent
#                                                            ok <no> 2 0 <seconds> -
#
# Runs on bash 4.1 and coreutils 8.4. A closed stdin is the order to stop: nobody is left who would hear the answer.

set -uo pipefail
set -f
unset CDPATH

readonly VERSION=1.0.0
readonly TAB=$'\t'

nonce=- partial='' line='' ended='' fate='' no='' job='' code='' file='' aside='' why='' began=0 zone='' application=gpferry

reply() { printf '%s\t%s\n' "$nonce" "$1"; }

# Milliseconds of a clock that needs no process; hundredths are the best that bash before 5 can have.
now() {
    if [[ -n ${EPOCHREALTIME:-} ]]; then
        NOW=$((${EPOCHREALTIME/[.,]/} / 1000))
    else
        local up
        read -r up _ </proc/uptime
        NOW=$((10#${up/./} * 10))
    fi
}

# ── supervisor ──────────────────────────────────────────────────────────────────────────────────────────────

supervise() {
    trap : PIPE                  # not ignored: that the script would inherit
    trap 'fate=130' HUP INT TERM
    IFS= read -r -t 60 line || line=''
    if ! [[ $line =~ ^hello${TAB}1${TAB}([A-Za-z0-9_.-]{1,64})${TAB}([0-9]{1,9})${TAB}([0-9]{1,9})$ ]]; then
        echo 'argv.sh: expected: hello 1 <nonce> <heartbeat s> <deadline s>, separated by TABs' >&2
        exit 2
    fi
    nonce=${BASH_REMATCH[1]}
    reply "hello${TAB}1${TAB}$VERSION"
    watch "$((10#${BASH_REMATCH[2]}))" "$((10#${BASH_REMATCH[3]}))"
    trap '' HUP INT TERM
    if [[ -n $job ]]; then
        clean_up
        job_is_over
    fi
    reply "end$TAB${fate:-0}"
    exit "${fate:-0}"
}

watch() {
    local heartbeat=$1 deadline=$2 heard=$SECONDS start=$SECONDS
    while [[ -z $fate ]]; do
        next_line
        case $? in
            0) heard=$SECONDS; request ;;
            2) fate=130 ;;
        esac
        [[ -z $job ]] || look
        [[ -z $ended || -n $job ]] || return
        ((heartbeat == 0 || SECONDS - heard <= heartbeat)) || fate=125
        ((deadline == 0 || SECONDS - start < deadline)) || fate=124
    done
}

# 0: a whole line is in $line; 1: not yet; 2: stdin is closed.
next_line() {
    local rest='' status
    IFS= read -r -t 0.1 rest
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
        "set${TAB}PGTZ$TAB"*) zone=${line#*"$TAB"*"$TAB"} ;;
        "set${TAB}PGAPPNAME$TAB"*) application=${line#*"$TAB"*"$TAB"} ;;
        "call$TAB"*) call ;;
        *)
            echo "argv.sh: not a request: ${line:0:60}" >&2
            fate=2
            ;;
    esac
}

# ── the call ────────────────────────────────────────────────────────────────────────────────────────────────

call() {
    local fields=() rest=$line
    while [[ $rest == *"$TAB"* ]]; do
        fields+=("${rest%%"$TAB"*}")
        rest=${rest#*"$TAB"}
    done
    fields+=("$rest")
    if [[ -n $job ]] || ((${#fields[@]} < 4)) || ! [[ ${fields[1]} =~ ^[0-9]{1,18}$ && ${fields[2]} == /* && ${fields[3]} == /* ]]; then
        echo 'argv.sh: not a call' >&2
        fate=2
        return
    fi
    no=${fields[1]} file=${fields[2]} aside=${fields[2]%/*}/.${fields[2]##*/}.before code='' why=''
    now
    began=$NOW
    if ! may_be_called "${fields[3]}" || ! put_aside; then
        reply "error$TAB$no${TAB}1${TAB}-$TAB${why//[[:cntrl:]]/ }"
        return
    fi
    set -m                       # a process group of its own
    ( run "${fields[@]:3}" ) </dev/null >/dev/null &
    job=$!
    set +m
    # Opened after the fork: nobody else may hold an end of it, or the supervisor's death would not be noticed.
    exec 6> >(undertaker >/dev/null 2>&1)
}

run() {   # script argument…
    export GPFERRY_CALL=$nonce PGAPPNAME=$application PGCLIENTENCODING=UTF8 PGDATESTYLE='ISO, YMD' LC_MESSAGES=C
    export PGOPTIONS="${PGOPTIONS:+$PGOPTIONS }-c extra_float_digits=2"
    [[ -z $zone ]] || export PGTZ=$zone
    exec sh "$@"
}

may_be_called() {
    if [[ ! -e $1 ]]; then
        why="$1: No such file or directory"
    elif [[ ! -f $1 || ! -r $1 ]]; then
        why="$1: Permission denied, or not a file [process uid=$(id -u) user=$(id -un) gid=$(id -g) groups=$(id -G | tr ' ' ,)]"
    fi
    [[ -z $why ]]
}

# What stands at the file's place is from an earlier attempt.
put_aside() {
    [[ -e $file || -L $file ]] || return 0
    if [[ -d $file && ! -L $file ]]; then
        why="$file: is a directory"
        return 1
    fi
    why=$(LC_ALL=C mv -f -T -- "$file" "$aside" 2>&1)
}

put_back() { [[ ! -e $aside && ! -L $aside ]] || mv -f -T -- "$aside" "$file" 2>/dev/null; }

look() {
    if [[ -z $code ]] && ! kill -0 "$job" 2>/dev/null; then
        { wait "$job"; code=$?; } 2>/dev/null
    fi
    # What it left in the background may be writing still
    [[ -n $code ]] && ! kill -0 -- "-$job" 2>/dev/null || return
    answer
    job_is_over
}

answer() {
    local bytes=absent took
    if [[ -f $file ]]; then
        bytes=$(stat -L -c %s -- "$file") || bytes=absent
        rm -f -- "$aside"
    else
        put_back
    fi
    now
    took=$((NOW - began))
    reply "row$TAB$no${TAB}exit$TAB$code"
    reply "row$TAB$no${TAB}file$TAB$bytes"
    reply "ok$TAB$no${TAB}2${TAB}0$TAB$(printf '%d.%03d' $((took / 1000)) $((took % 1000)))${TAB}-"
}

job_is_over() {
    job=''
    echo finished >&6
    exec 6>&-
}

# ── the end of a call that did not end by itself ────────────────────────────────────────────────────────────

undertaker() {
    local word=''
    trap '' HUP INT TERM
    read -r word
    [[ $word == finished ]] || clean_up
}

clean_up() {
    end_job
    [[ ! -f $file ]] || rm -f -- "$file"        # half written
    put_back
}

# psql turns INT into a cancel of what runs in the database; TERM and KILL would leave it running there. It does so
# only once it is connected, and ignores INT before that, so INT is sent more than once.
end_job() {
    local signal tick pids
    for signal in INT TERM KILL; do
        for ((tick = 0; tick < 16; tick++)); do
            if ((tick == 0)) || [[ $signal == INT ]] && ((tick % 3 == 0)); then
                kill -s "$signal" -- "-$job" 2>/dev/null || break 2
            fi
            sleep 0.1
            kill -0 -- "-$job" 2>/dev/null || break 2
        done
    done
    # What left the group (setsid, or a shell with job control) still carries the mark of this call
    for signal in INT TERM KILL; do
        pids=$(marked)
        [[ -n $pids ]] || return 0
        # shellcheck disable=SC2086  # numbers
        kill -s "$signal" $pids 2>/dev/null
        for ((tick = 0; tick < 10; tick++)); do
            sleep 0.1
            [[ -n $(marked) ]] || return 0
        done
    done
}

marked() {
    ( set +f; grep -lszxF "GPFERRY_CALL=$nonce" /proc/[0-9]*/environ ) | cut -d / -f 3
}

supervise
