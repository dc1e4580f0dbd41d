# Starts a gpfdist, says its port, and ends it when nobody needs it any more. guard.sh stands before this.
#
# Beside the requests of protocol 1 (hello, set, beat, stop, end), fields separated by TABs:
#
#     set PROGRAM|DIRECTORY|PORTS|MAX_LINE|BIND|RUN <value>
#     query <no> serve     answered by   row <no> port <port>
#                                        row <no> host <name of this host>
#                                        row <no> removed <how many processes that a dead run had left were ended>
#                                        ok <no> 3 0 <seconds> -
#
# Later, where gpfdist ends by itself: `end 1`, and on stderr what it said.

readonly VERSION=1.0.0
readonly PATIENCE=15            # seconds that gpfdist may take to say that it serves
readonly WORTH_HEARING='^Serving |FATAL|[Ee]rror|cannot|libr'

directory='' bind=''

its_own_request() {
    local value=${line#*"$TAB"*"$TAB"}
    case $line in
        "set${TAB}DIRECTORY$TAB"*) directory=$value ;;
        "set${TAB}BIND$TAB"*) bind=$value ;;
        *)
            [[ -z $job && $line =~ ^query${TAB}([0-9]{1,18})${TAB}serve$ ]] || return 1
            no=${BASH_REMATCH[1]}
            serve
            ;;
    esac
}

serve() {
    local began=$SECONDS removed=0 port='' code=''
    why='' said=''
    remove_orphans
    if ! may_be_served || ! find_program gpfdist; then
        refuse "${code:-1}"
        return
    fi
    hold
    while hear && ((SECONDS - began < PATIENCE)); do
        if [[ $said =~ Serving\ HTTPS?\ on\ port\ ([0-9]+), ]]; then
            port=${BASH_REMATCH[1]}
            break
        fi
        sleep 0.02
    done
    if [[ -z $port ]]; then
        end_job
        why="gpfdist did not come up on a port of $first-$last: ${said:-it said nothing}"
        refuse 1
        return
    fi
    reply "row$TAB$no${TAB}port$TAB$port"
    reply "row$TAB$no${TAB}host$TAB$(uname -n)"
    reply "row$TAB$no${TAB}removed$TAB$removed"
    reply "ok$TAB$no${TAB}3${TAB}0$TAB$((SECONDS - began)).00$TAB-"
}

may_be_served() {
    if [[ ! -e $directory ]]; then
        why="$directory: No such file or directory"
    elif [[ ! -d $directory || ! -r $directory || ! -x $directory ]]; then
        why="$directory: Permission denied, or not a directory [process uid=$(id -u) user=$(id -un) gid=$(id -g) groups=$(id -G | tr ' ' ,)]"
    fi
    [[ -z $why ]]
}

start_program() {
    local options=(-d "$directory" -p "$first" -P "$last" -m "$longest" -t 30) home=${program%/bin/*}
    [[ -z $bind ]] || options+=(-b "$bind")
    [[ ! -d $home/lib ]] || export LD_LIBRARY_PATH="$home/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    unset GPFDIST_WATCHDOG_TIMER
    # It says a line and more for each request, and only few of those are passed on: none may fill a pipe
    GPFERRY_GUARD=$mark "$program" "${options[@]}" </dev/null > >(grep --line-buffered -aE "$WORTH_HEARING") 2>&1 &
    pid=$!
}

program_ended() { fate=1; }

supervise
