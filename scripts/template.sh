#!/usr/bin/env bash
#
# A script for another kind of database, to start from. It speaks protocol 1 (README.md) as it stands; put your
# database into the two functions below, and leave the rest as it is. One unit at a time, a gzip for each.
#
# Try it with the session in README.md.

set -uo pipefail
umask 007
export LC_ALL=C
TAB=$'\t'

# ── your database ───────────────────────────────────────────────────────────────────────────────────────────

# Rows as CSV: a comma between fields, NULL empty and unquoted, the empty string "", quotes doubled, UTF-8, no
# header, one line feed after each row. What fails says so on stderr and returns something other than 0.
# Settings stand in PGHOST, PGPORT, PGUSER, PGDATABASE and so on. Give the statement to your client as data (stdin
# or one quoted argument), never through eval or `sh -c`. Let a client that can be cancelled get its INT.
write_csv() {   # sql
    printf '1,"%s",\n2,"",\n' "${1//\"/\"\"}"
}

# Rows as COPY's text format: TABs between fields, \N for NULL, \t \n \r \\ for what those would break.
write_rows() {   # sql
    printf 'answer\t\\N\n'
}

# ── one unit, in a process group of its own ─────────────────────────────────────────────────────────────────

fail() { printf 'error\t%s\t%s\t-\t%s\n' "$no" "$1" "$(tr '\t\r\n' '   ' <<<"$2" | cut -c1-2000)" >"$tmp/result"; exit 1; }

export_unit() {   # path compressor sql
    local dir=${1%/*} tool=$2 rows began=$SECONDS
    case $1 in
        */../* | */./* | *//*) fail 1 "$1: not a plain path" ;;
        "${MOUNT:?}"/*.csv.gz) ;;
        *) fail 1 "$1: not a .csv.gz file below $MOUNT" ;;
    esac
    [[ -d $MOUNT ]] || fail 1 "$MOUNT: no such directory on this host; is it mounted?"
    [[ $tool != auto ]] || tool=gzip
    hash "$tool" 2>"$tmp/err" || fail 127 "$tool: command not found on this host"
    mkdir -p -- "$dir" 2>"$tmp/err" || fail 1 "$(cat "$tmp/err")"

    # dd opens the part exclusively, flushes it to disk, and tells of a full disk in the system's words
    printf '%s\n' "$dir/.${1##*/}.$PART.part" >"$tmp/part"
    part=$(cat "$tmp/part")
    write_csv "$3" 2>"$tmp/err" | "$tool" -1 -c 2>>"$tmp/err" |
        dd of="$part" obs=1M conv=excl,fsync 2>"$tmp/dd.err" ||
        fail 1 "$(cat "$tmp/err"; grep '^dd:' "$tmp/dd.err")"

    # A row ends with a line that leaves no quote open; counted from the file itself
    rows=$(gzip -dc -- "$part" | awk -F'"' '{ if (NF) q += NF - 1; if (q % 2 == 0) n++ } END { print n + 0 }') ||
        fail 1 'the file that was written cannot be read'
    mv -fT -- "$part" "$1" 2>"$tmp/err" || fail 1 "$(cat "$tmp/err")"
    printf 'ok\t%s\t%s\t%s\t%s.00\t%s\n' "$no" "$rows" "$(stat -c %s -- "$1")" $((SECONDS - began)) "$tool" >"$tmp/result"
}

query_unit() {   # sql
    local began=$SECONDS
    write_rows "$1" >"$tmp/rows" 2>"$tmp/err" || fail 1 "$(cat "$tmp/err")"
    printf 'ok\t%s\t%s\t0\t%s.00\t-\n' "$no" "$(wc -l <"$tmp/rows")" $((SECONDS - began)) >"$tmp/result"
}

# ── the protocol ────────────────────────────────────────────────────────────────────────────────────────────

reply() { printf '%s\t%s\n' "$nonce" "$1"; }

start_unit() {   # the next request of the queue
    local request=$1 path tool
    local rest=${request#*"$TAB"}
    no=${rest%%"$TAB"*} rest=${rest#*"$TAB"}
    rm -f -- "$tmp/result" "$tmp/rows" "$tmp/part"
    set -m
    (
        set +m
        # should the supervisor be killed, the group ends itself
        group=$BASHPID
        (
            while kill -0 $$ 2>/dev/null; do sleep 1; done
            trap '' TERM
            kill -TERM -- "-$group"
            sleep 2
            [[ ! -e $tmp/part ]] || rm -f -- "$(cat "$tmp/part")"
            rm -rf -- "$tmp"
            kill -KILL -- "-$group"
        ) >/dev/null 2>&1 &
        guard=$!
        trap 'kill -KILL $guard 2>/dev/null' EXIT
        trap 'trap - EXIT; exit 143' TERM      # the guard's own: it still has to clean up
        if [[ $request == query* ]]; then
            query_unit "$rest"
        else
            path=${rest%%"$TAB"*} rest=${rest#*"$TAB"}
            tool=${rest%%"$TAB"*} rest=${rest#*"$TAB"}
            export_unit "$path" "$tool" "$rest"
        fi
    ) </dev/null >/dev/null 2>&1 &
    job=$!
    set +m
}

unit_ended() {
    local row
    { wait "$job"; } 2>/dev/null
    job=''
    [[ ! -e $tmp/part ]] || rm -f -- "$(cat "$tmp/part")"
    # Rows come from here, as beats do: one writer, so lines never mix
    if [[ -e $tmp/rows && $(cat "$tmp/result" 2>/dev/null) == ok* ]]; then
        while IFS= read -r row; do reply "row$TAB$no$TAB$row"; done <"$tmp/rows"
    fi
    reply "$(cat "$tmp/result" 2>/dev/null || printf 'error\t%s\t1\t-\tthe export was killed' "$no")"
}

finish() {   # code
    local signal
    trap '' HUP INT TERM
    for signal in INT TERM KILL; do
        [[ -n $job ]] || break
        kill -s "$signal" -- "-$job" 2>/dev/null || break
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
            kill -0 -- "-$job" 2>/dev/null || break 2
            sleep 0.1
        done
    done
    [[ ! -e $tmp/part ]] || rm -f -- "$(cat "$tmp/part")"
    rm -rf -- "$tmp"
    reply "end$TAB$1"
    exit "$1"
}

job='' no='' line='' queue=() ended='' closed=''
IFS=$TAB read -r word version nonce heartbeat deadline || exit 2
[[ $word == hello && $version == 1 && $nonce =~ ^[A-Za-z0-9_.-]+$ && "$heartbeat$deadline" =~ ^[0-9]+$ ]] || exit 2
tmp=$(mktemp -d) || exit 1
trap '' PIPE
trap 'finish 130' HUP INT TERM
PART=manual.$$ MOUNT=''
reply "hello${TAB}1${TAB}template-1"

heard=$SECONDS
while :; do
    if [[ -n $closed ]]; then
        sleep 0.1
    else
        IFS= read -r -t 0.1 rest
        status=$?
        line+=$rest
        if ((status == 0)); then
            heard=$SECONDS
            case $line in
                beat) reply beat ;;
                stop) finish 130 ;;
                end) ended=yes ;;
                set"$TAB"PGHOST"$TAB"* | set"$TAB"PGPORT"$TAB"* | set"$TAB"PGUSER"$TAB"* | set"$TAB"PGDATABASE"$TAB"* | \
                    set"$TAB"PGAPPNAME"$TAB"* | set"$TAB"PSQL"$TAB"* | set"$TAB"MOUNT"$TAB"* | set"$TAB"PART"$TAB"* | \
                    set"$TAB"UNIT_TIMEOUT"$TAB"* | set"$TAB"SMALL"$TAB"*)
                    name=${line#*"$TAB"}
                    declare -x "${name%%"$TAB"*}=${name#*"$TAB"}"
                    ;;
                export"$TAB"*"$TAB"*"$TAB"*"$TAB"* | query"$TAB"*"$TAB"*) queue+=("$line") ;;
                *) finish 2 ;;
            esac
            line=''
        elif ((status <= 128)); then
            closed=yes                                # a line that was cut short is not a request
            [[ -n $ended ]] || finish 130
        fi
    fi
    if [[ -n $job ]] && ! kill -0 "$job" 2>/dev/null; then unit_ended; fi
    if [[ -z $job ]] && ((${#queue[@]} > 0)); then
        start_unit "${queue[0]}"
        queue=("${queue[@]:1}")
    elif [[ -z $job && -n $ended ]]; then
        finish 0
    fi
    ((heartbeat == 0 || SECONDS - heard <= heartbeat)) || finish 125
    ((deadline == 0 || SECONDS < deadline)) || finish 124
done
