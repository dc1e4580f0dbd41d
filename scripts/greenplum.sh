#!/usr/bin/env bash
#
# Exports from PostgreSQL and Greenplum into gzip CSV files on the mount; speaks protocol 1 (README.md).
#
# Two promises shape it. What a user typed is never parsed by a shell: requests are read as data, and
# psql gets only statements and paths that this script chose. And nothing stays behind: whatever dies,
# and whenever, somebody is left who ends the rest and removes what was half written.
#
#     supervisor   the process that sshd started: hello, beats, clocks, the last word
#       ├ pump        copies stdin into a file, so that nobody ever blocks on a full pipe
#       ├ job         a process group of its own: psql and the compressors
#       └ undertaker  waits for the supervisor's word, or for its death; then ends the job and cleans up
#
# Runs on bash 4.1, coreutils 8.4 and psql 8.3 (RHEL 6, Greenplum 5) and all that came after. Perl is used
# where it is there, to flush directories to disk and for thousands of files in one process.

set -uo pipefail
set -f                      # no text is ever a file name pattern here
umask 007                   # what is written on the mount is for the owner and the group
export LC_ALL=C             # the system's words in English, awk and globs by bytes
unset CDPATH GREP_OPTIONS PSQLRC PGSERVICE

readonly VERSION=1.2.0
readonly TAB=$'\t'
readonly EOF_MARK=$'\001eof'   # what the pump writes after the last byte; glued to a line, that line was cut short
readonly CHUNK=128             # small units per transaction-free round of psql, compression and rename

# File descriptors:  3 quiet pipe to sleep on   4 requests   5 lock of stdout   6 word to the undertaker
#                    7 to psql   8 from psql   9 keeps the data pipe open until psql is done with it

nonce=- tmp='' supervisor=$$

# ── what both sides need ────────────────────────────────────────────────────────────────────────────────────

nap() { read -r -t "$1" -u 3 _ || :; }      # sleep without a process

reply() { printf '%s\t%s\n' "$nonce" "$1"; }  # under 4096 bytes: one write, so lines of two processes never mix

# Only query rows can be longer than a pipe writes at once; their writer holds a token meanwhile.
lock_stdout() { read -r -n 1 -u 5 _; }
unlock_stdout() { printf x >&5; }

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

remove_leavings() {
    local leaving
    while IFS= read -r leaving; do
        [[ $leaving == /*.part ]] && rm -rf -- "$leaving"
    done < <(cat -- "$tmp/part" "$tmp/stages" 2>/dev/null)
    rm -rf -- "$tmp"
}

# ── supervisor ──────────────────────────────────────────────────────────────────────────────────────────────

supervise() {
    local line heartbeat deadline
    trap '' PIPE
    fate=''
    trap 'fate=130' HUP INT TERM

    IFS= read -r -t 60 line || line=''
    if ! [[ $line =~ ^hello${TAB}([0-9]+)${TAB}([A-Za-z0-9_.-]{1,64})${TAB}([0-9]{1,9})${TAB}([0-9]{1,9})$ ]]; then
        echo "greenplum.sh: expected: hello 1 <nonce> <heartbeat s> <deadline s>, separated by TABs" >&2
        exit 2
    fi
    nonce=${BASH_REMATCH[2]} heartbeat=$((10#${BASH_REMATCH[3]})) deadline=$((10#${BASH_REMATCH[4]}))
    if [[ ${BASH_REMATCH[1]} != 1 ]]; then
        echo "greenplum.sh: speaks protocol 1, not ${BASH_REMATCH[1]}" >&2
        reply "end${TAB}2"
        exit 2
    fi
    if ! make_workshop; then
        reply "end${TAB}1"
        exit 1
    fi
    reply "hello${TAB}1${TAB}$VERSION"
    start_everyone
    watch "$heartbeat" "$deadline"
    finish
}

make_workshop() {
    tmp=$(mktemp -d "${TMPDIR:-/tmp}/gpferry.XXXXXXXX") || return 1
    # psql reads these paths inside its own quotes, so they must be plain
    if [[ ! $tmp =~ ^/[A-Za-z0-9_./-]+$ ]]; then
        rmdir -- "$tmp"
        tmp=$(mktemp -d /tmp/gpferry.XXXXXXXX) || return 1
    fi
    mkfifo -m 600 "$tmp/quiet" "$tmp/lock" "$tmp/fate" "$tmp/in" "$tmp/out" "$tmp/data" "$tmp/copy" &&
        : >"$tmp/requests" && : >"$tmp/part" &&
        exec 3<>"$tmp/quiet" 4<"$tmp/requests" 5<>"$tmp/lock" && unlock_stdout && return 0
    rm -rf -- "$tmp"
    return 1
}

# The undertaker comes last, and its pipe is opened after the other forks: nobody else may hold an end of it, or
# it would not notice the supervisor's death. It is opened for both before the undertaker is there: were the
# supervisor killed in between, the undertaker would wait for a writer for ever.
start_everyone() {
    exec 6<&0
    set -m                       # each of them gets a process group of its own
    ( pump ) <&6 >/dev/null 3>&- 4<&- 5>&- 6<&- &
    pump=$!
    exec 6<&-
    ( job ) </dev/null &
    job=$!
    exec 6<>"$tmp/fate"
    ( undertaker ) </dev/null >/dev/null 2>&1 4<&- 5>&- &
    undertaker=$!
    set +m
    exec </dev/null
}

pump() {
    set +m
    cat >>"$tmp/requests"
    printf '%s\n' "$EOF_MARK" >>"$tmp/requests"
}

watch() {
    local heartbeat=$1 deadline=$2 line='' rest owed=0 heard=$SECONDS began=$SECONDS ended=''
    while [[ -z $fate ]]; do
        if IFS= read -r rest <&4; then
            line+=$rest heard=$SECONDS
            case $line in
                beat) owed=$((owed + 1)) ;;
                stop) fate=130 ;;
                end) ended=yes ;;
                *"$EOF_MARK") [[ -n $ended ]] || fate=130 ;;   # without `end` nobody wants the rest
            esac
            line=''
            ((owed)) || continue
        else
            line+=$rest
            kill -0 "$job" 2>/dev/null || break
            nap 0.05
            ((heartbeat == 0 || SECONDS - heard <= heartbeat)) || fate=125
        fi
        ((deadline == 0 || SECONDS - began < deadline)) || fate=124
        # A beat waits for a long row to be written, not for the query behind it
        if ((owed)) && read -r -n 1 -t 0.01 -u 5 _; then
            while ((owed)); do
                reply beat 2>/dev/null || fate=130
                owed=$((owed - 1))
            done
            unlock_stdout
        fi
    done
}

finish() {
    local code=$fate word=kill waited=0
    if [[ -z $code ]]; then
        { wait "$job"; code=$?; } 2>/dev/null
        ((code != 0)) || word=finished
    fi
    trap '' HUP INT TERM
    printf '%s\n' "$word" >&6
    exec 6>&-
    while kill -0 "$undertaker" 2>/dev/null && ((waited < 1500)); do
        nap 0.01
        waited=$((waited + 1))
    done
    # The job may have been killed in the middle of a row: begin a new line, so that `end` can be seen
    read -r -n 1 -t 0.01 -u 5 _ || echo
    reply "end${TAB}$code"
    exit "$code"
}

# ── undertaker ──────────────────────────────────────────────────────────────────────────────────────────────

undertaker() {
    local word=''
    set +m
    trap '' HUP INT TERM
    exec 9<"$tmp/fate" 6>&-
    read -r word <&9
    if [[ $word != finished ]]; then
        : >"$tmp/stop"
        end_job
    fi
    kill -KILL -- "-$job" "-$pump" 2>/dev/null
    remove_leavings
}

# psql turns INT into a cancel of what runs in the database; TERM and KILL would leave it running there. It
# does so only once it is connected, and ignores INT before that, so INT is sent more than once.
end_job() {
    local signal tick
    for signal in INT TERM KILL; do
        for ((tick = 0; tick < 16; tick++)); do
            if ((tick == 0)) || [[ $signal == INT ]] && ((tick % 3 == 0)); then
                kill -s "$signal" -- "-$job" 2>/dev/null || return
            fi
            nap 0.1
            kill -0 -- "-$job" 2>/dev/null || return
        done
    done
}

# ── job: the loop over the requests ─────────────────────────────────────────────────────────────────────────

job() {
    set +m
    trap ':' INT                         # meant for psql; the job sees the undertaker's note
    trap 'exit 143' HUP TERM
    trap '' PIPE
    trap 'printf "\n" >&3' EXIT          # wakes the supervisor
    exec 4<"$tmp/requests" 6>&-
    mount='' part_tag=manual.$$ small='' unit_timeout='' psql=psql snapshot=''
    psql_pid='' psql_code='' refusal='' refusal_state=- refusal_code=2 tagged='' compressor_pid='' publisher=''
    mark=m$RANDOM$RANDOM$RANDOM line=''
    c_no=() c_path=() c_sql=() c_seq=() d_no=() d_path=() d_rows=() d_slot=() seq=0 set=a
    stage='' stage_parent='' stage_why='' looked_at='' packs=yes
    new_dirs=()

    local verb
    while next_request && ! stopping; do
        verb=${line%%"$TAB"*}
        case $verb in
            export) accept_export ;;
            segments) accept_segments ;;
            look) accept_look ;;
            explain) accept_explain ;;
            query) accept_query ;;
            set) accept_setting ;;
            beat | stop) ;;              # the supervisor's
            end) break ;;
            *) misuse ;;
        esac
    done
    ! stopping || exit 130
    small_drain
    session_close
    [[ -z $stage ]] || rm -rf -- "$stage"
    exit 0
}

stopping() { [[ -e $tmp/stop ]]; }

misuse() {
    echo "greenplum.sh: not a request of protocol 1: ${line:0:60}" >&2
    session_close
    exit 2
}

# The next whole line, in $line. Small units wait for company, but only while requests keep coming.
next_request() {
    local rest polls=0
    line=''
    until IFS= read -r rest <&4 && [[ $rest != *"$EOF_MARK" ]]; do
        line+=$rest
        ! stopping || return 1
        if ((polls == 5)); then small_drain; fi
        if ((polls % 50 == 49)) && ! kill -0 "$supervisor" 2>/dev/null; then orphaned; fi
        polls=$((polls + 1))
        # who asks one thing after another waits for this each time
        if ((polls < 40)); then nap 0.004; else nap 0.02; fi
    done
    line+=$rest
}

# The supervisor was killed. That is the undertaker's business; but it may have been killed as well.
orphaned() {
    kill -INT -- "-$BASHPID"
    nap 1
    kill -TERM "${psql_pid:-$BASHPID}" 2>/dev/null
    remove_leavings
    kill -KILL -- "-$BASHPID"
}

accept_setting() {
    [[ $line =~ ^set${TAB}([A-Z_]+)${TAB}(.*)$ ]] || misuse
    local name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    small_drain
    case $name in
        PGHOST | PGPORT | PGUSER | PGDATABASE)
            [[ ${!name-} == "$value" ]] || session_forget
            export "$name=$value"
            ;;
        PGAPPNAME)
            if [[ ${PGAPPNAME-} != "$value" ]]; then
                export PGAPPNAME=$value
                if [[ $value =~ ^[A-Za-z0-9\ _.-]*$ ]]; then session_set "application_name = '$value'"; else session_forget; fi
            fi
            ;;
        PSQL)
            [[ $psql == "${value:-psql}" ]] || session_forget
            psql=${value:-psql}
            ;;
        UNIT_TIMEOUT)
            [[ $value =~ ^[0-9]{0,7}$ ]] || misuse
            if [[ $unit_timeout != "$value" ]]; then
                unit_timeout=$value
                if [[ -n $value ]]; then session_set "statement_timeout = $((10#$value * 1000))"; else session_forget; fi
            fi
            ;;
        MOUNT)
            [[ $value == /* ]] || misuse
            mount=${value%/}
            ;;
        PART)
            [[ $value =~ ^[A-Za-z0-9_.-]+$ ]] || misuse
            part_tag=$value
            ;;
        SNAPSHOT)
            [[ $value =~ ^(|new|[0-9A-Fa-f-]{1,64})$ ]] || misuse
            [[ -z $snapshot ]] || session_forget
            snapshot=$value
            [[ -z $snapshot || -z $psql_pid ]] || session_still || session_refused
            ;;
        SMALL)
            small=$value
            [[ $small != 0 ]] || small=''
            ;;
        *) misuse ;;
    esac
}

accept_export() {
    # Cut by lengths: over thousands of small units, patterns would take longer than all the rest here
    local rest=${line:7} no path compressor sql
    no=${rest%%"$TAB"*} rest=${rest:${#no}+1}
    path=${rest%%"$TAB"*} rest=${rest:${#path}+1}
    compressor=${rest%%"$TAB"*} sql=${rest:${#compressor}+1}
    [[ -n $no && ${#no} -le 18 && $no != *[!0-9]* && -n $sql ]] || misuse
    case $compressor in
        auto | igzip | pigz | gzip) ;;
        *) misuse ;;
    esac
    if ! check_path "$path" || ! check_sql "$sql"; then
        reply_error "$no" 1 - "$why"
        return
    fi
    if [[ -n $small ]] && ! hash gzip 2>/dev/null; then
        reply_error "$no" 127 - 'gzip: command not found on this host'
    elif [[ -n $small ]]; then
        pack "$no" "$path" || small_add "$no" "$path" "$sql"
    else
        export_one "$no" "$path" "$compressor" "$sql"
    fi
}

accept_segments() {
    local field="([^$TAB]+)"
    [[ $line =~ ^segments${TAB}([0-9]{1,18})${TAB}$field${TAB}([1-9][0-9]{0,4})${TAB}$field${TAB}$field${TAB}(.+)$ ]] || misuse
    local no=${BASH_REMATCH[1]} path=${BASH_REMATCH[2]} parts=${BASH_REMATCH[3]}
    local create=${BASH_REMATCH[4]} look=${BASH_REMATCH[5]} insert=${BASH_REMATCH[6]}
    small_drain
    why=''
    [[ $create == 'CREATE WRITABLE EXTERNAL WEB TEMP TABLE gpferry_out ('* ]] || misuse
    [[ $look == 'CREATE READABLE EXTERNAL WEB TEMP TABLE gpferry_seen ('* ]] || misuse
    [[ $insert == 'INSERT INTO pg_temp.gpferry_out SELECT '* ]] || misuse
    [[ -z $snapshot ]] || why='segments cannot write what a shared snapshot shows'
    if [[ -n $why ]] || ! check_path "$path" || ! check_bare "$create" || ! check_bare "$look" || ! check_bare "$insert"; then
        reply_error "$no" 1 - "$why"
        return
    fi
    segments_one "$no" "$path" "$parts" "$create" "$look" "$insert"
}

accept_look() {
    [[ $line =~ ^look${TAB}([0-9]{1,18})${TAB}(.+)$ ]] || misuse
    local no=${BASH_REMATCH[1]} sql=${BASH_REMATCH[2]}
    small_drain
    [[ $sql == 'CREATE READABLE EXTERNAL WEB TEMP TABLE gpferry_seen ('* ]] || misuse
    check_bare "$sql" || { reply_error "$no" 1 - "$why"; return; }
    look_one "$no" "$sql"
}

# Only what a SELECT would cost: `EXPLAIN` is this script's own word, so nothing can stand between the two.
accept_explain() {
    [[ $line =~ ^explain${TAB}([0-9]{1,18})${TAB}(.+)$ ]] || misuse
    local no=${BASH_REMATCH[1]} sql=${BASH_REMATCH[2]}
    small_drain
    [[ $sql == 'SELECT '* ]] || misuse
    check_bare "$sql" || { reply_error "$no" 1 - "$why"; return; }
    explain_one "$no" "$sql"
}

accept_query() {
    [[ $line =~ ^query${TAB}([0-9]{1,18})${TAB}(.+)$ ]] || misuse
    local no=${BASH_REMATCH[1]} sql=${BASH_REMATCH[2]}
    small_drain
    check_sql "$sql" || { reply_error "$no" 1 - "$why"; return; }
    query_one "$no" "$sql"
}

check_path() {
    why=''
    case $1 in
        */../* | */./* | *//*) why="$1: not a plain path" ;;
        */.*.csv.gz | */.csv.gz) [[ ${1##*/} != .* ]] || why="$1: a file name must not begin with a dot" ;;
    esac
    [[ -n $mount && $1 == "$mount"/*.csv.gz ]] || why="$1: not a .csv.gz file below the mount '$mount'"
    [[ -z $why ]]
}

# gpferry has checked that the statement's parentheses close only at its end. Should one ever not, psql must
# still not be talked into starting a program: it would do so before the server could object.
# And \copy does not know dollar quotes: it would join the blanks inside them, without a word.
check_sql() {
    local bare prefixed unclosed
    why=''
    [[ $1 == *[Pp][Rr][Oo][Gg][Rr][Aa][Mm]* || $1 == *'$'*'$'* ]] || return 0    # spares the slower looks
    shopt -s nocasematch
    if [[ $1 =~ \)[[:space:]]*to[[:space:]]+program || $1 == *'$'*'$'* ]]; then
        unquote "$1"
        [[ ! $bare =~ \)[[:space:]]*to[[:space:]]+program ]] || why='the statement holds ") TO PROGRAM"'
        [[ ! $bare =~ \$([A-Za-z_][A-Za-z_0-9]*)?\$ ]] || why="the statement holds a dollar quote, which psql's \\copy cannot read"
    fi
    shopt -u nocasematch
    [[ -z $why ]]
}

# A statement that psql is given as it is, and not within a \copy, must not reach psql's own commands and variables, nor
# end where it should not. Quotes are read here without escapes, so strings that have them are refused.
check_bare() {
    local bare prefixed unclosed
    why=''
    unquote "$1"
    case ${bare//::/} in
        *[\;\\\$]* | *--* | */\** | *:[A-Za-z0-9_]*) why='the statement holds ; \ $ : or a comment outside of quotes' ;;
    esac
    [[ -z $prefixed ]] || why='the statement holds a string with a prefix'
    [[ -z $unclosed ]] || why='the statement holds a quote that nothing closes'
    [[ -z $why ]]
}

# $bare: a statement without what stands in its quotes; $prefixed where something stands right before one (E'…'), $unclosed
# where one has no end. A name may hold anything.
unquote() {
    local rest=$1 quote
    bare='' prefixed='' unclosed=''
    while [[ $rest == *[\"\']* ]]; do
        [[ $rest != [!\"\']* || ${rest%%[\"\']*} != *[A-Za-z0-9_\&] ]] || prefixed=yes
        bare+=${rest%%[\"\']*}' '
        rest=${rest#"${rest%%[\"\']*}"}
        quote=${rest:0:1}
        rest=${rest:1}
        [[ $rest == *"$quote"* ]] || { unclosed=yes; break; }
        rest=${rest#*"$quote"}
    done
    bare+=$rest
}

reply_ok() {   # no rows bytes milliseconds compressor
    local seconds
    printf -v seconds '%d.%03d' $(($4 / 1000)) $(($4 % 1000))
    reply "ok$TAB$1$TAB$2$TAB$3$TAB$seconds$TAB$5"
}

reply_error() {   # no code sqlstate message
    ! stopping || return 0      # what a stop broke is not the unit's own error
    local text=${4//[[:cntrl:]]/ }
    if ((${#text} > 2000)); then
        text=${text:0:2000}
        while [[ $text == *[$'\x80'-$'\xbf'] ]]; do text=${text%?}; done   # cut between characters
        text="${text%[$'\xc0'-$'\xff']} …"
    fi
    reply "error$TAB$1$TAB$2$TAB$3$TAB$text"
}

# Both sides' numbers, because one name may stand for two of them.
with_numbers() {   # message path
    [[ $1 == *'Permission denied'* ]] || { why=$1; return; }
    local dir=$2 uid gid mode user groups
    while [[ ! -d $dir && $dir == /*/* ]]; do dir=${dir%/*}; done
    read -r uid gid mode < <(stat -c '%u %g %a' -- "$dir" 2>/dev/null) || uid='?' gid='?' mode=0
    user=$(id -un 2>/dev/null) || user='?'
    groups=$(id -G)
    printf -v mode '%04d' "$mode"
    why="$1 [process uid=$(id -u) user=$user gid=$(id -g) groups=${groups// /,}]"
    why+=" [owner path=$dir uid=$uid gid=$gid mode=$mode]"
}

# Below the first directory of the mount no link is followed: whoever planted it would choose where files go.
no_link() {   # directory
    local at=$1
    while [[ $at == "$mount"/*/* ]]; do
        if [[ -L $at ]]; then
            why="$at: is a symbolic link, and none is followed there"
            return 1
        fi
        at=${at%/*}
    done
}

ensure_dir() {
    no_link "$1" || return 1
    [[ -d $1 ]] && return 0
    if [[ ! -d $mount ]]; then
        why="$mount: no such directory on this host; is it mounted?"
        return 1
    fi
    why=$(mkdir -p -- "$1" 2>&1) && return 0
    with_numbers "${why#mkdir: }" "$1"
    return 1
}

# ── job: the database session ───────────────────────────────────────────────────────────────────────────────

# One psql for the whole batch. It dies when its connection does, and is started again for the next unit; when
# it cannot connect at all, every later unit is told so without another try.
session_open() {
    [[ -z $psql_pid ]] || return 0
    if stopping; then exit 130; fi
    [[ -z $refusal ]] || { why=$refusal state=$refusal_state code=$refusal_code; return 1; }
    export PGCLIENTENCODING=UTF8 PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-30}
    session_start -w && return 0
    # psql before 8.4 does not know -w, and without a terminal it has nobody to ask for a password
    [[ $why == *option* ]] && session_start && return 0
    session_refused
    return 1
}

session_refused() {
    session_close
    refusal=$why refusal_state=$state refusal_code=$code
}

session_start() {   # [-w]
    "$psql" -X -A -t ${1+"$1"} <"$tmp/in" >"$tmp/out" 2>&1 3>&- 4<&- 5>&- &
    psql_pid=$!
    exec 7>"$tmp/in" 8<"$tmp/out"
    session_pin
}

# Each side of a move reads and writes values in the same way, whatever the cluster's defaults are.
session_pin() {
    local pin pins
    pins=('client_min_messages = error' 'client_encoding = UTF8' 'standard_conforming_strings = on'
        'DateStyle = ISO, YMD' 'TimeZone = UTC' 'IntervalStyle = postgres' 'extra_float_digits = 2'
        'extra_float_digits = 3' 'bytea_output = hex' "lc_monetary = 'C'" "lc_messages = 'C'")
    [[ -z $unit_timeout ]] || pins+=("statement_timeout = $((10#$unit_timeout * 1000))")
    {
        echo '\set VERBOSITY verbose'
        printf "SET %s;\n\\\\echo $mark pin.\n" "${pins[@]}"
    } >&7 2>/dev/null
    for pin in "${pins[@]}"; do
        await pin || return 1
        case $pin,$state in
            *,- | *,42704) ;;                        # set, or unknown to this version
            extra_float_digits*,22023) ;;            # 8.3 goes up to 2
            lc_messages*,42501) ;;                   # superusers only
            *) code=1; why="SET $pin: $said"; return 1 ;;
        esac
    done
    # psql before 9.3 does not say how many rows a \copy moved; then they are counted from the data
    printf "\\\\copy (select 1) to '/dev/null' csv\n\\\\echo %s probe.\n" "$mark" >&7 2>/dev/null
    await probe || return 1
    [[ -z $troubled ]] || { code=1 why=$said; return 1; }
    tagged=$copied
    [[ -z $snapshot ]] || session_still
}

# One state of the database for all that this session reads: a new one, or the one that another session has open.
session_still() {
    local statement
    for statement in 'BEGIN ISOLATION LEVEL REPEATABLE READ' "SET TRANSACTION SNAPSHOT '$snapshot'"; do
        [[ $statement != *new\' ]] || continue
        printf "%s;\n\\\\echo $mark still.\n" "$statement" >&7 2>/dev/null
        await still || return 1
        # whoever had it open is gone: another attempt may find something else
        [[ -z $troubled ]] || { code=1 state=40001 why="$statement: $said"; return 1; }
    done
}

session_close() {
    [[ -n $psql_pid ]] || return 0
    exec 7>&- 8<&-
    { wait "$psql_pid"; psql_code=$?; } 2>/dev/null
    psql_pid=''
}

session_forget() { session_close; refusal=''; }

# Changes the session that is open; where it does not take that, the next one has it from its start.
session_set() {   # NAME = VALUE
    refusal=''
    [[ -n $psql_pid ]] || return 0
    printf "SET %s;\n\\\\echo $mark set.\n" "$1" >&7 2>/dev/null
    await set && [[ -z $troubled ]] || session_forget
}

# Reads what psql says up to the mark $1. Sets copied (rows, or nothing), troubled, state, said. When the
# session is gone it returns 1, with code and why.
await() {
    local text skipping=''
    copied='' troubled='' state=- said=''
    while psql_line; do
        case $text in
            *"$mark $1.")
                text=${text%"$mark $1."}
                case $text in
                    '') ;;
                    'COPY '*) copied=${text#COPY } ;;
                    'INSERT 0 '*) copied=${text#INSERT 0 } ;;
                    *) troubled=yes; note_trouble ;;
                esac
                return 0
                ;;
            'COPY '*) copied=${text#COPY } ;;
            'INSERT 0 '*) copied=${text#INSERT 0 } ;;
            '' | SET | BEGIN | ROLLBACK | 'CREATE EXTERNAL TABLE' | 'CREATE FOREIGN TABLE') ;;
            *) troubled=yes; note_trouble ;;
        esac
    done
    session_lost
    return 1
}

# Sets code and why, from what psql said last and how it ended.
session_lost() {
    session_close
    code=2
    if ((psql_code == 126 || psql_code == 127)); then code=$psql_code; fi
    if ((psql_code > 128)); then said+="${said:+ }psql was killed by signal $((psql_code - 128))"; fi
    why=${said:-psql ended with exit code $psql_code}
}

# One line of psql in $text, or, rarely, two: bash on a busy host may read the end of a line and say in the same
# breath that its time is over (5.2). So the last line of an answer is known by how it ends. While it waits for a COPY it looks after the compressor: psql blocks for ever on a
# pipe that nobody reads.
psql_line() {
    local more='' status waited=0
    text=''
    while :; do
        IFS= read -r -t 0.5 -u 8 more
        status=$?
        text+=$more
        ((status != 0)) || return 0
        ((status > 128)) || return 1
        [[ $text != *"$mark "*. ]] || return 0
        kill -0 "$supervisor" 2>/dev/null || orphaned
        if [[ -n $compressor_pid ]] && ! kill -0 "$compressor_pid" 2>/dev/null; then
            : <"$tmp/data"                       # lets a psql that still waits for a reader go on, into EPIPE
            case $waited in
                0) kill -INT "$psql_pid" ;;
                4) kill -TERM "$psql_pid" ;;
                8) kill -KILL "$psql_pid" ;;
            esac 2>/dev/null
            waited=$((waited + 1))
        fi
    done
}

# Keeps message and hint. DETAIL, CONTEXT and the statement may show rows, which have no place in a log.
note_trouble() {
    text=${text#"psql:$tmp/chunk.sql:"}
    text=${text#"psql:<stdin>:"}
    [[ $text =~ ^[0-9]+:\ ?(.*)$ ]] && text=${BASH_REMATCH[1]}
    text=${text#psql: }
    [[ $text == "$0: line "* ]] && text=${text#"$0: line "*: }     # bash itself: psql was not there to be started
    text=${text#error: }
    if [[ $text =~ ^[^:]+:\ \ ([0-9A-Z]{5}):\ (.*)$ ]]; then
        skipping=''
        [[ $state != - ]] && return
        state=${BASH_REMATCH[1]} said=${BASH_REMATCH[2]}
        return
    fi
    case $text in
        HINT:*) skipping='' ;;
        DETAIL:* | CONTEXT:* | QUERY:* | STATEMENT:* | LOCATION:* | LINE\ [0-9]*) skipping=yes ;;
    esac
    [[ -n $skipping ]] || ((${#said} > 2000)) || said+="${said:+ }$text"
}

# ── job: one unit, a compressor of its own ──────────────────────────────────────────────────────────────────

# psql ─► pipe ─► compressor ─► dd ─► part. dd opens the part exclusively and flushes it to disk, which tells
# of a full disk or quota in the system's own words; pigz and igzip never look at what close() says.
export_one() {   # no path compressor sql
    local no=$1 path=$2 tool=$3 sql=$4 began part mine status lost='' rows
    small_drain
    now
    began=$NOW
    pick_compressor "$tool" || { reply_error "$no" 127 - "$why"; return; }
    ensure_dir "${path%/*}" || { reply_error "$no" 1 - "$why"; return; }
    session_open || { reply_error "$no" "$code" "$state" "$why"; return; }

    part="${path%/*}/.${path##*/}.$part_tag.part"
    if [[ -e $part ]]; then
        reply_error "$no" 1 - "$part: File exists: another attempt of the same number writes it"
        return
    fi
    printf '%s\n' "$part" >"$tmp/part"
    compress "$tool" "$part" <"$tmp/data" 3>&- 4<&- 5>&- 7>&- 8<&- &
    compressor_pid=$!
    exec 9>"$tmp/data"
    # in a transaction, what fails is to fail alone; only now, since a savepoint keeps a snapshot from being exported
    [[ -z $snapshot ]] || echo '\set ON_ERROR_ROLLBACK on' >&7 2>/dev/null
    printf "\\\\copy (%s) to '%s/data' csv\n\\\\echo %s %s.\n" "$sql" "$tmp" "$mark" "$no" >&7 2>/dev/null
    await "$no" || lost=yes
    exec 9>&-
    { wait "$compressor_pid"; } 2>/dev/null
    compressor_pid=''

    rows=$copied
    mine=$state
    if judge_compressor "$tool" "$part"; then
        if [[ -n $lost ]]; then
            [[ $mine != - ]] || mine=08006
        elif [[ -n $troubled ]]; then
            code=1 why=$said
            with_numbers "$why" "${path%/*}"
        else
            [[ -n $tagged ]] || IFS= read -r rows <"$tmp/count"
            if [[ ! $rows =~ ^[0-9]+$ ]]; then
                code=1 why='psql reported neither an error nor a number of rows'
            elif publish_one "$part" "$path"; then
                forget_parts "$path"
                now
                reply_ok "$no" "$rows" "$size" $((NOW - began)) "$tool"
                : >"$tmp/part"
                return
            fi
        fi
    fi
    rm -f -- "$part"
    : >"$tmp/part"
    reply_error "$no" "$code" "$mine" "$why"
}

pick_compressor() {
    local candidate wanted=$1
    if [[ $1 == auto ]]; then
        for candidate in igzip pigz gzip; do
            tool=$candidate
            hash "$candidate" 2>/dev/null && return 0
        done
    else
        hash "$1" 2>/dev/null && return 0
    fi
    [[ $wanted != auto ]] || wanted='igzip, pigz or gzip'
    why="$wanted: command not found on this host"
    return 1
}

compress() {   # tool part
    local each
    exec 2>/dev/null             # bash would report there which of them was killed
    # shellcheck disable=SC2094  # the statuses are written after the commands ended
    if [[ -n $tagged ]]; then
        "$1" -1 -c 2>"$tmp/tool.err" |
            dd ibs=64k obs=1M of="$2" conv=fsync,excl 2>"$tmp/dd.err"
        each=("${PIPESTATUS[@]}")
    else
        count_records <"$tmp/copy" >"$tmp/count" &
        tee "$tmp/copy" | "$1" -1 -c 2>"$tmp/tool.err" |
            dd ibs=64k obs=1M of="$2" conv=fsync,excl 2>"$tmp/dd.err"
        each=("${PIPESTATUS[@]}")
        # tee and awk have no say of their own: where one of them failed, so did the compressor's input
        wait $! && ((each[0] == 0)) || each[1]=1
        each=("${each[1]}" "${each[2]}")
    fi
    printf '%s %s\n' "${each[@]}" >"$tmp/status"
}

# A record ends with a line that leaves no quote open.
count_records() {
    # shellcheck disable=SC2016
    awk -F'"' '{ if (NF) q += NF - 1; if (q % 2 == 0) n++ } END { printf "%d\n", n }'
}

judge_compressor() {   # tool part
    local tool_status=1 dd_status=1 text said_by=''
    { read -r tool_status dd_status <"$tmp/status"; } 2>/dev/null
    : >"$tmp/status"
    ((tool_status == 0 && dd_status == 0)) && return 0
    code=$tool_status
    if ((dd_status != 0)); then
        code=$dd_status
        while IFS= read -r text; do
            case $text in
                dd:*) said_by=${text#dd: } ;;
            esac
        done <"$tmp/dd.err"
    elif ((tool_status <= 128)); then
        IFS= read -r said_by <"$tmp/tool.err"
    fi
    if ((code > 128)); then
        why="the compressor $1 was killed by signal $((code - 128))"
    else
        with_numbers "${said_by:-$1 failed with exit code $code}" "${2%/*}"
    fi
    mine=-
    return 1
}

# Renames parts to their final names and sees to it that both survive a power cut.
publish_one() {   # part path
    p_from=("$1") p_to=("$2")
    publish ''
    size=${p_size[0]} code=1
    [[ -z ${p_why[0]} ]] && return 0
    with_numbers "${p_why[0]}" "${2%/*}"
    return 1
}

# Parts that segments wrote of the unit before are of no more use.
forget_parts() {   # path
    local i stem=${1%.csv.gz}
    for ((i = 0; ; i++)); do
        [[ -e "$stem^seg$i.csv.gz" ]] || break
        rm -f -- "$stem^seg$i.csv.gz"
    done
}

# p_from[], p_to[] → p_size[], p_why[]. $1: `flush` when the files are not on disk yet.
publish() {
    local i result
    p_size=() p_why=()
    if hash perl 2>/dev/null; then
        for ((i = 0; i < ${#p_from[@]}; i++)); do
            printf '%s\t%s\n' "${p_from[i]}" "${p_to[i]}"
        done | perl -e "$PUBLISH" "$1" "$HOSTTYPE" >"$tmp/published" 2>&1
        i=0
        while IFS= read -r result; do
            p_size[i]=${result%%"$TAB"*} p_why[i]=${result#*"$TAB"}
            i=$((i + 1))
        done <"$tmp/published"
        for ((; i < ${#p_from[@]}; i++)); do p_size[i]=0 p_why[i]="perl failed: ${result:-}"; done
        return
    fi
    for ((i = 0; i < ${#p_from[@]}; i++)); do
        p_size[i]=$(stat -c %s -- "${p_from[i]}" 2>/dev/null) || p_size[i]=0
        result=''
        ((p_size[i] > 0)) || result="${p_from[i]}: empty or gone before it was published"
        if [[ -z $result && -n $1 ]]; then
            result=$(dd if=/dev/null of="${p_from[i]}" conv=fsync,notrunc 2>&1) && result=''
        fi
        if [[ -z $result ]]; then
            result=$(mv -fT -- "${p_from[i]}" "${p_to[i]}" 2>&1) && result=''
            result=${result#mv: }
        fi
        p_why[i]=$result
    done
}

# shellcheck disable=SC2016
readonly PUBLISH='
    use strict;
    use IO::Handle;
    my ($flush, $machine, @units, %dirs) = @ARGV;
    while (<STDIN>) { chomp; push @units, [split /\t/]; }
    for my $u (@units) {
        # What is on disk already may be of another user, who lets it be renamed and no more
        if (!$flush) {
        } elsif (open my $f, "+<", $u->[0]) {
            $u->[2] = $f;
            # A hint (sync_file_range) to start on all files at once: then the first fsync does most of the work
            syscall 277, fileno $f, 0, 0, 2 if $machine eq "x86_64";
        } else { $u->[3] = "$u->[0]: $!"; }
    }
    for my $u (@units) {
        my ($from, $to, $f, $why) = @$u;
        my $size = 0;
        if (!$why) {
            $size = -s ($f || $from) || 0;
            $why = "$from: " . (-e $from ? "empty before it was published" : $!) unless $size;
        }
        if ($f) {
            $f->sync or $why ||= "$from: $!";
            close $f or $why ||= "$from: $!";
        }
        unless ($why) { rename $from, $to or $why = "$to: $!"; }
        (my $dir = $to) =~ s{/[^/]*\z}{};
        @$u = ($size, $why || "", $dir);
        $dirs{$dir} = "" unless $why;
    }
    for my $dir (keys %dirs) {
        # some file systems have nothing to flush in a directory, and say EINVAL
        if (open my $d, "<", $dir) { $d->sync or $!{EINVAL} or $dirs{$dir} = "$dir: $!"; }
    }
    for my $u (@units) { print $u->[0], "\t", $u->[1] || $dirs{$u->[2]}, "\n"; }
'

# ── job: a query ────────────────────────────────────────────────────────────────────────────────────────────

# The rows wait in a file until psql has said that they are all there: a query that fails sends none.
query_one() {   # no sql
    local no=$1 sql=$2 began rows
    now
    began=$NOW
    session_open || { reply_error "$no" "$code" "$state" "$why"; return; }
    printf "\\\\copy (%s) to '%s/rows'\n\\\\echo %s %s.\n" "$sql" "$tmp" "$mark" "$no" >&7 2>/dev/null
    if answered "$no"; then send_rows "$no"; fi
    rm -f -- "$tmp/rows"
}

# Waits for psql's answer to a question; where it is none, that is said, and 1 returned.
answered() {   # no
    if ! await "$1"; then
        [[ $state != - ]] || state=08006
        reply_error "$1" "$code" "$state" "$why"
    elif [[ -n $troubled ]]; then
        reply_error "$1" 1 "$state" "$said"
    else
        return 0
    fi
    return 1
}

# Of the plan only the costs of its top node are sent: the lines below show what the query compares with. The plan goes
# to a file by the way that psql has had since 8.0; a COPY cannot hold an EXPLAIN.
explain_one() {   # no sql
    local no=$1 began text='' costs=''
    now
    began=$NOW
    session_open || { reply_error "$no" "$code" "$state" "$why"; return; }
    printf "EXPLAIN %s \\\\g '%s/rows'\n\\\\echo %s %s.\n" "$2" "$tmp" "$mark" "$no" >&7 2>/dev/null
    if answered "$no"; then
        while [[ -z $costs ]] && IFS= read -r text; do
            [[ ! $text =~ \(cost=[0-9.eE+-]+\ rows=[0-9.eE+-]+\ width=[0-9]+\) ]] || costs=${text##*'(cost='}
        done <"$tmp/rows"
        costs="${costs:+(cost=${costs%%')'*})}"
        printf '%s' "${costs:+$costs$'\n'}" >"$tmp/rows"
        copied=''
        send_rows "$no"
    fi
    rm -f -- "$tmp/rows"
}

# Answers a question whose rows are in a file.
send_rows() {   # no
    local no=$1 rows=''
    lock_stdout
    awk -v prefix="$nonce${TAB}row$TAB$no$TAB" -v count="$tmp/count" \
        '{ print prefix $0 } END { print NR > count }' "$tmp/rows" && read -r rows <"$tmp/count"
    unlock_stdout
    if [[ $rows == "${copied:-$rows}" && -n $rows ]]; then
        now
        reply_ok "$no" "$rows" 0 $((NOW - began)) -
    else
        reply_error "$no" 1 - "psql reported $copied rows, and $rows were read"
    fi
}

# ── job: one unit, by the segments ──────────────────────────────────────────────────────────────────────────

# Runs statements in one transaction, which is taken back: what they make stays for nobody. The last of them made a table
# of what each segment says, which is read into a file. Sets inserted; where it returns 1, code, mine and why.
taken_back() {   # no statement …
    local no=$1 statement backend=''
    shift
    inserted='' mine=-
    printf "\\\\copy (select pg_backend_pid()) to '%s/rows'\n\\\\echo %s %s.\n" "$tmp" "$mark" "$no" >&7 2>/dev/null
    await "$no" || { mine=$state; [[ $mine != - ]] || mine=08006; return 1; }
    read -r backend <"$tmp/rows"
    # Greenplum does not tell these to segment processes that take the place of dead ones, and the texts are made there.
    for statement in BEGIN 'SET extra_float_digits = 3' "SET lc_monetary = 'C'" "$@"; do
        printf '%s;\n\\echo %s %s.\n' "$statement" "$mark" "$no" >&7 2>/dev/null
        await "$no" || { mine=$state; [[ $mine != - ]] || mine=08006; end_backend "$backend"; return 1; }
        [[ -z $troubled ]] || break
        case $statement in 'INSERT '*) inserted=$copied ;; esac
    done
    if [[ -z $troubled ]]; then
        printf "\\\\copy (select line from pg_temp.gpferry_seen) to '%s/rows'\n\\\\echo %s %s.\n" "$tmp" "$mark" "$no" >&7 2>/dev/null
        await "$no" || { mine=$state; [[ $mine != - ]] || mine=08006; return 1; }
    fi
    local failed=$troubled because=$said rows=$copied
    [[ -z $failed ]] || mine=$state
    # trouble of a file system, whatever the server calls it
    case $because in
        *'No space left on device'* | *'Disk quota exceeded'* | *'Permission denied'* | *'Read-only file system'*) mine=- ;;
    esac
    printf 'ROLLBACK;\n\\echo %s %s.\n' "$mark" "$no" >&7 2>/dev/null
    await "$no" || :                       # the session is gone, and the transaction with it
    copied=$rows code=1 why=$because
    [[ -z $failed ]]
}

# An INSERT does not notice that its client is gone before it is done.
end_backend() {   # pid
    local why state code said          # of the unit
    [[ $1 =~ ^[0-9]+$ ]] || return 0
    timeout 20 "$psql" -X -A -t -w >/dev/null 2>&1 3>&- 4<&- 5>&- </dev/null -c "select pg_terminate_backend(pid) \
        from pg_stat_activity where pid = $1 and query like 'INSERT INTO pg_temp.gpferry_out %'"
}

look_one() {   # no statement
    local no=$1 began mine inserted
    now
    began=$NOW
    session_open || { reply_error "$no" "$code" "$state" "$why"; return; }
    if taken_back "$no" "$2"; then send_rows "$no"; else reply_error "$no" "$code" "$mine" "$why"; fi
    rm -f -- "$tmp/rows"
}

# Each segment pipes its rows into a compressor of its own, and those files are renamed together. The names of all of them
# stand where the undertaker finds them; what a segment has open under a name that is gone goes when it is closed.
segments_one() {   # no path parts create look insert
    local no=$1 path=$2 parts=$3 began mine inserted i part stem
    now
    began=$NOW
    ensure_dir "${path%/*}" || { reply_error "$no" 1 - "$why"; return; }
    session_open || { reply_error "$no" "$code" "$state" "$why"; return; }
    stem=${path##*/}
    stem=${stem%.csv.gz}
    p_from=() p_to=() part_size=() part_tail=() part_tool=''
    for ((i = 0; i < parts; i++)); do
        p_from+=("${path%/*}/.$stem^seg$i.csv.gz.$part_tag.part") p_to+=("${path%/*}/$stem^seg$i.csv.gz")
    done
    printf '%s\n' "${p_from[@]}" >"$tmp/part"
    if taken_back "$no" "$4" "$6" "$5" && segments_seen "$parts" && segments_publish "$path"; then
        segments_report
    else
        rm -f -- "${p_from[@]}"
        reply_error "$no" "$code" "$mine" "$why"
    fi
    : >"$tmp/part"
    rm -f -- "$tmp/rows"
}

# Every segment has to have told of its part, and what stands here has to be what it told of.
segments_seen() {   # parts
    local segment count bytes tail tool more heard=0 size
    code=1 mine=-
    while read -r segment count bytes tail tool more; do
        if [[ ! "$segment $count $bytes" =~ ^[0-9]{1,5}\ [0-9]{1,5}\ [0-9]{1,18}$ || ! $tail =~ ^[0-9a-f]{16}$ || -n $more ]]; then
            why="a segment said what is no answer: ${segment:0:100}"
            return 1
        elif ((count != $1 || segment >= $1)) || [[ -n ${part_size[segment]:-} ]]; then
            why="segment $segment of $count answered, where $1 were expected, once each"
            return 1
        fi
        part_size[segment]=$bytes part_tail[segment]=$tail part_tool=${tool:-gzip}
        size=$(size_of "${p_from[segment]}")
        if [[ $size != "$bytes" ]]; then
            why="${p_from[segment]}: segment $segment wrote $bytes bytes there, and here are ${size:-none}: is it another directory?"
            return 1
        fi
        heard=$((heard + 1))
    done <"$tmp/rows"
    ((heard == $1)) || { why="$heard of $1 segments told of their parts"; return 1; }
    [[ $inserted =~ ^[0-9]+$ ]] || { why='psql reported neither an error nor a number of rows'; return 1; }
}

# A file's size. What another host made just now an NFS client may deny for as long as it keeps a directory in mind;
# opening the directory makes it ask.
size_of() {   # file
    local size='' wait=0
    [[ $(stat -f -c %T -- "${1%/*}" 2>/dev/null) != nfs* ]] || wait=60
    until size=$(stat -c %s -- "$1" 2>/dev/null) || ((wait-- <= 0)); do
        : 2>/dev/null <"${1%/*}"
        nap 1
    done
    printf '%s' "$size"
}

# All of them, or none.
segments_publish() {   # path
    local i failed='' stem=${1%.csv.gz}
    publish ''
    for ((i = 0; i < ${#p_to[@]}; i++)); do failed=${failed:-${p_why[i]}}; done
    if [[ -n $failed ]]; then
        rm -f -- "${p_to[@]}"
        code=1
        with_numbers "$failed" "${1%/*}"
        return 1
    fi
    # what an attempt of another way, or of more segments, left is of no more use to anybody
    rm -f -- "$1"
    for ((i = ${#p_to[@]}; ; i++)); do
        [[ -e "$stem^seg$i.csv.gz" ]] || break
        rm -f -- "$stem^seg$i.csv.gz"
    done
}

segments_report() {
    local i bytes=0
    for ((i = 0; i < parts; i++)); do
        reply "part$TAB$no$TAB$i$TAB${part_size[i]}$TAB${part_tail[i]}"
        bytes=$((bytes + part_size[i]))
    done
    now
    reply_ok "$no" "$inserted" "$bytes" $((NOW - began)) "$part_tool"
}

# ── job: small units, many at a time ────────────────────────────────────────────────────────────────────────

# The staging directory of what stands below the same first directory of the mount as this file.
stage_for() {   # path
    local parent=${1:${#mount}+1}
    if [[ $parent == */* ]]; then parent=$mount/${parent%%/*}; else parent=$mount; fi
    if [[ $parent != "$stage_parent" ]]; then
        small_drain
        stage_make "$parent"
    fi
    why=$stage_why
    [[ -n $stage ]]
}

stage_make() {   # parent
    # two hosts may have equal pids; a name that mktemp made they do not share
    local dir=$1/.$part_tag.${tmp##*.}.part
    [[ -z $stage ]] || rm -rf -- "$stage"
    stage='' stage_parent=$1
    ensure_dir "$1" || { stage_why=$why; return; }
    printf '%s\n' "$dir" >>"$tmp/stages"
    # psql knows it by a name without anybody's words in it
    why=$(mkdir -- "$dir" 2>&1 && mkdir -- "$dir/plain" "$dir/gz" 2>&1 && ln -sfn -- "$dir" "$tmp/stage" 2>&1) && { stage=$dir; return; }
    with_numbers "${why#mkdir: }" "$1"
    stage_why=$why
}

# ── job: small units, by perl ───────────────────────────────────────────────────────────────────────────────

# A process per file would cost more than the file, and so would bash per line. So this request and those that follow
# it go to a perl, as long as they are plain small exports: it reads them, lets psql write a chunk of CSV files into
# pipes, and compresses what comes out of them into a staging directory on the mount. A child of it flushes and
# renames the chunk and tells of it, while psql is busy with the next one. What psql said of units that failed, and
# whatever is not plain, is for us.
pack() {   # no path
    local status
    [[ $packs == yes ]] || return 1
    small_drain
    if ! ensure_dir "${2%/*}" || ! stage_for "$2"; then
        reply_error "$1" 1 - "$why"
        return
    fi
    session_open || { reply_error "$1" "$code" "$state" "$why"; return; }
    printf '%s\n' "$line" >"$tmp/first"
    [[ ! -e $tmp/odd ]] || : >"$tmp/odd"
    perl -e "$PACK" "$nonce" "$tmp" "$mount" "$stage" "$mark" "$supervisor" "$HOSTTYPE" "${tagged:+yes}" $CHUNK \
        <"$tmp/first" 2>"$tmp/pack.err" 3>&- 5>&-
    status=$?
    ! stopping || exit 130
    if [[ ! -e $tmp/odd ]]; then
        # No perl, or no zlib: there is another way
        packs=no
        return 1
    fi
    case $status in
        0) pack_odd ;;
        "$ALONE") orphaned ;;
        *) pack_lost ;;
    esac
}

# Answers units of which psql said something else than a number of rows.
pack_odd() {
    local text no='' skipping=''
    troubled='' state=- said=''
    while IFS= read -r text; do
        case $text in
            "unit$TAB"*)
                no=${text#*"$TAB"}
                skipping='' state=- said=''
                ;;
            "said$TAB"*)
                text=${text#*"$TAB"}
                note_trouble
                ;;
            failed)
                with_numbers "${said:-psql reported neither an error nor a number of rows}" "$stage"
                reply_error "$no" 1 "$state" "$why"
                ;;
            lost)
                session_lost
                [[ $state != - ]] || state=08006
                reply_error "$no" "$code" "$state" "$why"
                ;;
        esac
    done <"$tmp/odd"
}

# Nobody knows what it has told of: the units without an answer are asked for again.
pack_lost() {
    local said=''
    IFS= read -r said <"$tmp/pack.err"
    echo "greenplum.sh: the perl that packs small units is gone: ${said:-it was killed}" >&2
    [[ -z $psql_pid ]] || kill -KILL "$psql_pid" 2>/dev/null
    exit 1
}

# How that perl ends where the supervisor is gone.
readonly ALONE=6

# It reads requests from where they stand (4), and leaves that place at the first one that is not for it.
# shellcheck disable=SC2016
readonly PACK='
    use strict;
    use Fcntl;
    use IO::Handle;
    use Time::HiRes qw(time);
    $SIG{INT} = "IGNORE";    # meant for psql
    my ($nonce, $tmp, $mount, $stage, $mark, $supervisor, $machine, $tagged, $chunk) = @ARGV;
    use Compress::Raw::Zlib;
    my ($z) = Compress::Raw::Zlib::Deflate->new(-Level => 1, -WindowBits => WANT_GZIP(), -AppendOutput => 1);
    $z or die "zlib cannot be used\n";
    open my $requests, "<&=", 4 or die "requests: $!\n";
    open my $to_psql, ">&=", 7 or die "psql: $!\n";
    open my $from_psql, "<&=", 8 or die "psql: $!\n";
    open my $odd, ">>", "$tmp/odd" or die "$tmp/odd: $!\n";    # that it is there says that we are able
    $odd->autoflush(1);      # what a child inherits unwritten, it would write once more
    my ($below) = $stage =~ m{\A(.*)/};    # what is elsewhere has a staging directory of its own

    my ($input, $place, $number, $quiet) = ("", sysseek($requests, 0, 1) + 0, 0, 0);
    my ($looked_at, $pipes, $over, $lost, @children) = ("", 0);
    $pipes++ while -p "$tmp/$pipes.csv";
    my @units = unit(<STDIN>);
    until ($over) {
        my $line = next_line();
        if (defined $line && $line !~ /\A(?:beat|stop)\n/) {
            my $u = plain($line) && unit($line);
            if ($u) { push @units, $u; } else { $over = 1; $place -= length $line; }
        } elsif (!defined $line) {
            exit 130 if -e "$tmp/stop";
            exit '$ALONE' unless ++$quiet % 50 || kill 0, $supervisor;
            select undef, undef, undef, 0.02;
        }
        # They wait for company, but only while requests keep coming
        run(splice @units) if @units && ($over || @units >= $chunk || !defined $line && $quiet > 1);
        $over = 1 if $lost;
    }
    reap() while @children;
    close $odd or die "$tmp/odd: $!\n";
    sysseek $requests, $place, 0 or die "requests: $!\n";

    # The next whole line; $place is where the one behind it begins.
    sub next_line {
        my $end;
        while (($end = index $input, "\n") < 0) { sysread $requests, $input, 65536, length $input or return undef; }
        $quiet = 0;
        $place += $end + 1;
        return substr $input, 0, $end + 1, "";
    }

    # What somebody has to look at twice is not plain, and neither is what no directory can be made for.
    sub plain {
        my ($no, $path, $compressor, $sql) =
            $_[0] =~ m{\Aexport\t([0-9]{1,18})\t(\Q$below\E/[^\t]*\.csv\.gz)\t(auto|igzip|pigz|gzip)\t([^\n]+)\n\z} or return 0;
        # the mount itself may be in a hidden place
        return 0 if substr($path, length $mount) =~ m{//|/\.} || $sql =~ /\001eof\z/;
        if ($sql =~ /program|\$.*\$/i) {
            (my $bare = $sql) =~ s/"[^"]*"|\x27[^\x27]*\x27/ /g;
            return 0 if $bare =~ /\)\s*to\s+program/i || $bare =~ /\$(?:[A-Za-z_][A-Za-z_0-9]*)?\$/;
        }
        my ($dir) = $path =~ m{\A(.*)/};
        my ($parent) = $dir =~ m{\A(.*)/};
        return 0 if -l $dir;
        if ($parent ne $looked_at) {
            for (my $at = $parent; $at =~ m{\A\Q$mount\E/.*/}; $at =~ s{/[^/]*\z}{}) { return 0 if -l $at; }
            $looked_at = $parent;
        }
        return make_dir($dir);
    }

    sub make_dir {
        my ($dir) = @_;
        return 1 if -d $dir;
        my ($parent) = $dir =~ m{\A(\Q$mount\E/.*)/} or return 0;
        # another session may have been quicker
        return make_dir($parent) && (mkdir $dir or -d $dir);
    }

    sub unit {
        my (undef, $no, $path, undef, $sql) = split /\t/, $_[0], 5;
        chomp $sql;
        $number++;
        return { no => $no, path => $path, sql => $sql, mark => "$mark p$number.", part => "$stage/gz/$$.$number.csv.gz",
            next => $place, size => 0, count => 0, quotes => 0, rows => "" };
    }

    # Has psql write these units into pipes, one after another, and packs what comes.
    sub run {
        my @all = @_;
        my ($began, $at, $said, $script) = (time, 0, "", "");
        make_pipes(scalar @all);
        for my $n (0 .. $#all) {
            my ($u, $name) = ($all[$n], "$tmp/$n.csv");
            sysopen $u->{pipe}, $name, O_RDONLY | O_NONBLOCK or die "$name: $!\n";
            $script .= "\\copy ($u->{sql}) to \x27$name\x27 csv\n\\echo $u->{mark}\n";
        }
        # from a file: a long script and long answers in two pipes could block each other
        open my $file, ">", "$tmp/chunk.sql" or die "$tmp/chunk.sql: $!\n";
        print $file $script and close $file or die "$tmp/chunk.sql: $!\n";
        syswrite $to_psql, "\\i $tmp/chunk.sql\n";
        for my $answered (0 .. $#all) {
            my $u = $all[$answered];
            my $end;
            while (($end = index $said, "$u->{mark}\n") < 0) {
                my $now = $at > $#all ? undef : $all[$at]{pipe};
                my $ready = ready(0.5, $now, $from_psql);
                $ready ne "" || kill 0, $supervisor or exit '$ALONE';
                # A pipe without a writer looks the same before the first writer and after the last one, but not here
                if ($now && vec $ready, fileno $now, 1) {
                    while (take($all[$at])) {}
                    $at++ unless $all[$at]{pipe};
                }
                if (vec $ready, fileno $from_psql, 1) {
                    if (!sysread $from_psql, $said, 65536, length $said) {
                        $lost = $u;
                        note_odd($u, $said, "lost");
                        $place = $u->{next};
                        for my $one (@all[$answered .. $#all]) { unlink $one->{part} if $one->{out}; }
                        publish($began, @all[0 .. $answered - 1]);
                        return;
                    }
                }
            }
            answer($u, substr $said, 0, $end);
            substr($said, 0, $end + 1 + length $u->{mark}) = "";
            # Whatever it wrote is in its pipe by now; where psql did not get that far, nothing is
            for (; $at <= $answered; $at++) {
                my $one = $all[$at];
                while ($one->{pipe} && vec ready(0, $one->{pipe}), fileno $one->{pipe}, 1) { while (take($one)) {} }
                delete $one->{pipe};
            }
        }
        publish($began, @all);
    }

    # Which of these can be read from.
    sub ready {
        my ($wait, @handles) = @_;
        my $want = "";
        vec($want, fileno $_, 1) = 1 for grep { $_ } @handles;
        my $n = select my $ready = $want, undef, undef, $wait;
        return $n > 0 ? $ready : "";
    }

    # What psql said of a unit: a number of rows, or what is wrong.
    sub answer {
        my ($u, $said) = @_;
        my @lines = grep { !/\A(?:SET|BEGIN|)\z/ } split /\n/, $said;
        ($u->{rows}) = $lines[0] =~ /\ACOPY ([0-9]+)\z/ if @lines;
        my $fine = $tagged ? @lines == 1 && length $u->{rows} : !@lines || @lines == 1 && length $u->{rows};
        return if $fine;
        $u->{odd} = 1;
        note_odd($u, $said, "failed");
    }

    sub note_odd {
        my ($u, $said, $end) = @_;
        print $odd "unit\t$u->{no}\n", (map { "said\t$_\n" } grep { length } split /\n/, $said), "$end\n";
    }

    sub make_pipes {
        my ($many) = @_;
        return if $many <= $pipes;
        system("mkfifo", "-m", "600", map { "$tmp/$_.csv" } $pipes .. $many - 1) == 0 or die "mkfifo failed\n";
        $pipes = $many;
    }

    # What psql has written by now; at the end of it the file is whole. Whether there may be more.
    sub take {
        my ($u) = @_;
        my $n = sysread $u->{pipe}, my $data, 65536;
        return 0 if !defined $n && ($!{EAGAIN} || $!{EINTR});
        defined $n or $u->{why} ||= "the pipe from psql: $!";
        if (!$u->{begun}++) {
            $z->deflateReset;
            sysopen $u->{out}, $u->{part}, O_WRONLY | O_CREAT | O_EXCL, 0666 or $u->{why} ||= "$u->{part}: $!";
        }
        if ($n) {
            count($u, $data) unless $tagged;
            $z->deflate($data, $u->{packed}) == Z_OK or $u->{why} ||= "zlib failed";
        } else {
            $z->flush($u->{packed}) == Z_OK or $u->{why} ||= "zlib failed";
            delete $u->{pipe};
        }
        return 1 if $u->{pipe} && length $u->{packed} < 65536;
        while (!$u->{why} && length $u->{packed}) {
            my $wrote = syswrite $u->{out}, $u->{packed};
            if (defined $wrote) { substr($u->{packed}, 0, $wrote) = ""; $u->{size} += $wrote; }
            elsif (!$!{EINTR}) { $u->{why} = "$u->{part}: $!"; }
        }
        $u->{packed} = "";
        # A hint (sync_file_range): then the first fsync finds most of the work done
        syscall 277, fileno $u->{out}, 0, 0, 2 if !$u->{pipe} && $u->{out} && !$u->{why} && $machine eq "x86_64";
        return !!$u->{pipe};
    }

    # A record ends with a line that leaves no quote open: for a psql that does not say how many it copied.
    sub count {
        my ($u) = @_;
        for my $text (split /"/, $_[1], -1) {
            $u->{count} += $text =~ tr/\n// unless $u->{quotes} % 2;
            $u->{quotes}++;
        }
        $u->{quotes}--;
    }

    sub publish {
        my ($began, @done) = @_;
        for my $u (grep { $_->{odd} } @done) { unlink $u->{part} if delete $u->{out}; }
        @done = grep { !$_->{odd} } @done;
        $looked_at = "";
        my $took = @done ? (time - $began) / @done : 0;
        reap() if @children > 1;
        my $child = fork;
        if (!$child) {
            finish($took, @done);
            exit 0 if defined $child;
        } else { push @children, $child; }
    }

    sub reap {
        waitpid shift @children, 0;
        die "a child of it ended with $?\n" if $?;
    }

    # Sees to it that files survive a power cut, under their final names; and tells of them.
    sub finish {
        my ($took, @done) = @_;
        my (%dirs, $said);
        for my $u (@done) {
            if (!$u->{why} && $u->{out}) {
                $u->{out}->sync or $u->{why} = "$u->{part}: $!";
                close $u->{out} or $u->{why} ||= "$u->{part}: $!";
            }
            $u->{why} ||= "$u->{part}: empty before it was published" unless $u->{size};
            if (!$u->{why}) { rename $u->{part}, $u->{path} or $u->{why} = "$u->{path}: $!"; }
            ($u->{dir} = $u->{path}) =~ s{/[^/]*\z}{};
            if ($u->{why}) { unlink $u->{part}; } else { $dirs{$u->{dir}} = ""; }
        }
        for my $dir (keys %dirs) {
            # some file systems have nothing to flush in a directory, and say EINVAL
            if (open my $d, "<", $dir) { $d->sync or $!{EINVAL} or $dirs{$dir} = "$dir: $!"; }
        }
        my $end = sprintf "%.3f\tgzip\n", $took;
        for my $u (@done) {
            my $why = $u->{why} || $dirs{$u->{dir}};
            my $rows = length $u->{rows} ? $u->{rows} : $u->{count};
            next if $why && -e "$tmp/stop";    # what a stop broke is not the own error of a unit
            my $line = $why ? "$nonce\terror\t$u->{no}\t1\t-\t" . numbers($why, $u->{dir}) . "\n"
                : "$nonce\tok\t$u->{no}\t$rows\t$u->{size}\t$end";
            # up to 4096 bytes are written whole, so lines of two processes never mix
            if (length($said || "") + length $line > 4000) { print $said; STDOUT->flush; $said = ""; }
            $said .= $line;
        }
        print $said if $said;
        STDOUT->flush;
    }

    # The numbers of both sides, because one name may stand for two of them.
    sub numbers {
        my ($why, $dir) = @_;
        $why =~ s/[[:cntrl:]]/ /g;
        $why =~ /Permission denied/ or return substr $why, 0, 2000;
        my @s = stat $dir;
        my ($user, %groups) = getpwuid $> || "?";
        $groups{$_} = 1 for split / /, $);
        return sprintf "%s [process uid=%d user=%s gid=%d groups=%s] [owner path=%s uid=%s gid=%s mode=%04o]",
            $why, $>, $user, $), join(",", sort keys %groups), $dir, $s[4], $s[5], $s[2] & 07777;
    }
'

# ── job: small units, by plain files ────────────────────────────────────────────────────────────────────────

# Where there is no perl with zlib: psql writes plain files to the staging directory, one gzip compresses them all and
# one perl, or mv, renames them. The plain files are two sets of slots that take turns and are written over, and
# gzip is given links to them: ext4 looks long for a free inode where thousands were freed within seconds
# (`recently_deleted`).

small_add() {   # no path sql
    local dir=${2%/*}
    # What lies above was looked at for the unit before
    if [[ ${dir%/*} != "$looked_at" || -L $dir ]]; then
        no_link "$dir" || { reply_error "$1" 1 - "$why"; return; }
        looked_at=${dir%/*}
        stage_for "$2" || :
    fi
    [[ -n $stage ]] || { reply_error "$1" 1 - "$stage_why"; return; }
    c_no+=("$1") c_path+=("$2") c_sql+=("$3") c_seq+=($((++seq)))
    [[ -d $dir ]] || new_dirs+=("$dir")
    ((${#c_no[@]} < CHUNK)) || small_run
}

small_drain() {
    small_run
    [[ -z $publisher ]] || wait "$publisher"
    publisher=''
}

small_run() {
    local i next=0 total=${#c_no[@]} began script at
    looked_at=''
    ((total > 0)) || return 0
    now
    began=$NOW
    if [[ $set == a ]]; then set=b; else set=a; fi
    at=$tmp/stage/plain/$set
    if ((${#new_dirs[@]} > 0)) && ! mkdir -p -- "${new_dirs[@]}" 2>/dev/null; then
        small_without_dir
        total=${#c_no[@]}
    fi
    new_dirs=()
    while ((next < total)) && ! stopping; do
        if ! session_open; then
            for ((; next < total; next++)); do reply_error "${c_no[next]}" "$code" "$state" "$why"; done
            break
        fi
        script=''
        for ((i = next; i < total; i++)); do
            script+="\\copy (${c_sql[i]}) to '$at$i.csv' csv"$'\n'"\\echo $mark ${c_seq[i]}."$'\n'
        done
        # from a file: a long script and long answers in two pipes could block each other
        printf '%s' "$script" >"$tmp/chunk.sql"
        printf '\\i %s/chunk.sql\n' "$tmp" >&7 2>/dev/null
        for ((; next < total; next++)); do
            if ! await "${c_seq[next]}"; then
                [[ $state != - ]] || state=08006
                reply_error "${c_no[next]}" "$code" "$state" "$why"
                next=$((next + 1))
                break
            elif [[ -n $troubled ]]; then
                with_numbers "$said" "$stage"
                reply_error "${c_no[next]}" 1 "$state" "$why"
                : 2>/dev/null >"$at$next.csv"    # it may have filled the disk
            elif [[ -n $tagged && ! $copied =~ ^[0-9]+$ ]]; then
                reply_error "${c_no[next]}" 1 - 'psql reported neither an error nor a number of rows'
            else
                d_no+=("${c_no[next]}") d_path+=("${c_path[next]}") d_slot+=("$set$next") d_rows+=("$copied")
            fi
        done
    done
    c_no=() c_path=() c_sql=() c_seq=()
    # One at a time: the chunk after this one uses the slots of the one before
    [[ -z $publisher ]] || wait "$publisher"
    small_publish "$began" 4<&- 5>&- 7>&- 8<&- &
    publisher=$!
    d_no=() d_path=() d_rows=() d_slot=()
}

# Some directory could not be made: tell the units that need it, and go on with the others.
small_without_dir() {
    local i no=() path=() sql=() number=()
    for ((i = 0; i < ${#c_no[@]}; i++)); do
        if ensure_dir "${c_path[i]%/*}"; then
            no+=("${c_no[i]}") path+=("${c_path[i]}") sql+=("${c_sql[i]}") number+=("${c_seq[i]}")
        else
            reply_error "${c_no[i]}" 1 - "$why"
        fi
    done
    c_no=() c_path=() c_sql=() c_seq=()
    ((${#no[@]} == 0)) || c_no=("${no[@]}") c_path=("${path[@]}") c_sql=("${sql[@]}") c_seq=("${number[@]}")
}

small_publish() {   # milliseconds when its chunk began
    local i took total=${#d_no[@]} files=() index=() gzip_said rows
    ((total > 0)) || return 0
    for ((i = 0; i < total; i++)); do files+=("$tmp/stage/plain/${d_slot[i]}.csv"); done
    if [[ -z $tagged ]]; then
        i=0
        while IFS= read -r rows; do d_rows[i]=$rows i=$((i + 1)); done < <(count_each "${files[@]}")
    fi
    # a file system without hard links gets new slots
    ln -t "$tmp/stage/gz" -- "${files[@]}" 2>/dev/null || mv -f -t "$tmp/stage/gz" -- "${files[@]}"
    files=("${files[@]/#"$tmp/stage/plain/"/$tmp/stage/gz/}")
    gzip_said=$(gzip -1 -n -f -- "${files[@]}" 2>&1)
    p_from=() p_to=()
    for ((i = 0; i < total; i++)); do
        # gzip removes its input only when its output is whole
        if [[ -e ${files[i]}.gz && ! -e ${files[i]} && ${d_rows[i]} =~ ^[0-9]+$ ]]; then
            p_from+=("$stage/gz/${d_slot[i]}.csv.gz") p_to+=("${d_path[i]}") index+=("$i")
        else
            with_numbers "${gzip_said:-gzip left ${files[i]} undone}" "$stage"
            reply_error "${d_no[i]}" 1 - "$why"
            rm -f -- "${files[i]}" "${files[i]}.gz"
        fi
    done
    if ((${#p_from[@]} > 0)); then
        publish flush
        now
        took=$(((NOW - $1) / total))
        small_report
    fi
}

small_report() {
    local i unit
    for ((i = 0; i < ${#p_from[@]}; i++)); do
        unit=${index[i]}
        if [[ -z ${p_why[i]} ]]; then
            reply_ok "${d_no[unit]}" "${d_rows[unit]}" "${p_size[i]}" "$took" gzip
        else
            with_numbers "${p_why[i]}" "${d_path[unit]%/*}"
            reply_error "${d_no[unit]}" 1 - "$why"
            rm -f -- "${p_from[i]}"
        fi
    done
}

count_each() {
    # shellcheck disable=SC2016
    awk -F'"' '
        FILENAME != file { file = FILENAME; q = 0 }
        { if (NF) q += NF - 1; if (q % 2 == 0) n[file]++ }
        END { for (i = 1; i < ARGC; i++) printf "%d\n", n[ARGV[i]] }' "$@"
}


case ${1:-} in
    export | query) supervise ;;
    *)
        echo 'usage: greenplum.sh export|query   (requests on stdin; see README.md)' >&2
        exit 2
        ;;
esac
