# Runs gpload once, with a control file that goes with it. guard.sh stands before this.
#
# Beside the requests of protocol 1 (hello, set, beat, stop, end), fields separated by TABs:
#
#     set PROGRAM|RUN|CONTROL <value>      CONTROL: the control file, on one line
#     query <no> load      answered by   row <no> exit <code>
#                                        row <no> said <a line with an error or a warning>
#                                        ok <no> <rows> 0 <seconds> -
#
#     query <no> version   answered by   the same: whether it can be started, and finds what it needs
#
# What gpload has started ends with it. A load that is ended from here may have been committed all the same: whoever asked
# looks at the table.

readonly VERSION=1.0.0
readonly WORTH_HEARING='[|](ERROR|WARN)[|]|^CONTEXT:  External table|Traceback|unable to import|(Syntax|Import|ModuleNotFound)Error|not found|[Ee]rror while loading'

control='' began=0 task=''

its_own_request() {
    case $line in
        "set${TAB}CONTROL$TAB"*) control=${line#*"$TAB"*"$TAB"} ;;
        *)
            [[ -z $job && $line =~ ^query${TAB}([0-9]{1,18})${TAB}(load|version)$ ]] || return 1
            no=${BASH_REMATCH[1]} task=${BASH_REMATCH[2]}
            load
            ;;
    esac
}

load() {
    local code='' removed=0
    why='' said='' began=$SECONDS
    remove_orphans
    if ! find_program gpload || ! make_workshop; then
        refuse "${code:-1}"
        return
    fi
    hold
}

make_workshop() {
    local template
    template=${TMPDIR:-/tmp}/gpferry-gpload.$(pid_namespace).$$.$(started_at $$).XXXXXXXX
    # gpload's own wrapper lets a shell take its arguments apart
    [[ $template =~ ^/[A-Za-z0-9_./-]+$ ]] || template=/tmp/${template##*/}
    workshop=$(mktemp -d "$template" 2>&1) && printf '%s\n' "$control" >"$workshop/control.yml" && return 0
    why="the control file cannot be written: $workshop"
    return 1
}

start_program() {
    local home=${program%/bin/*} file words=(-f "$workshop/control.yml" -l "$workshop/log")
    [[ $task == load ]] || words=(--version)
    for file in "$home/greenplum_path.sh" "$home/greenplum_loaders_path.sh"; do
        # shellcheck disable=SC1090  # the site's own
        [[ ! -r $file ]] || { set +u; . "$file"; set -u; } >/dev/null 2>&1
    done
    export GPHOME=${GPHOME:-$home}
    GPFERRY_GUARD=$mark "$program" "${words[@]}" </dev/null > >(grep --line-buffered -aE "$WORTH_HEARING") 2>&1 &
    pid=$!
}

program_ended() {
    local text code=unknown rows=1 last=() i
    while IFS= read -r text; do
        if [[ $text =~ ^ended\ with\ ([0-9]+)$ ]]; then
            code=${BASH_REMATCH[1]}
        elif [[ -n $text ]]; then
            last+=("${text//[[:cntrl:]]/ }")
        fi
    done <<<"$said"
    # A gpload that was killed leaves its gpfdist
    kill -KILL -- "-$job" 2>/dev/null
    job=''
    rm -rf -- "$workshop"
    reply "row$TAB$no${TAB}exit$TAB$code"
    for ((i = ${#last[@]} > 5 ? ${#last[@]} - 5 : 0; i < ${#last[@]}; i++)); do
        reply "row$TAB$no${TAB}said$TAB$(printf '%.1000s' "${last[i]}")"
        rows=$((rows + 1))
    done
    reply "ok$TAB$no$TAB$rows${TAB}0$TAB$((SECONDS - began)).00$TAB-"
}

supervise
