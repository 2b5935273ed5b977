# The guardian of one lab. Its standard input is a pipe whose other end only the lab holds. So the
# end of that input means that the lab has ended, for whatever reason. The guardian then kills and
# removes everything of the lab. Arguments: the lab's id, its folder, and a folder to copy the logs
# to (or nothing).
id=$1 folder=$2 keep=$3
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# A terminal that closes or a Ctrl-C must not end the guardian.
trap '' HUP INT QUIT TERM PIPE

cat >/dev/null

# Processes started by the lab carry its id in their environment. The children of a postmaster
# overwrite their environment with their title; their program and their working folder identify
# them.
lab_processes() {
    grep -lzxF "PGSTEER_LAB=$id" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
    find /proc/[0-9]*/cwd -maxdepth 0 -lname "$folder/*" 2>/dev/null |
        while IFS=/ read -r _ _ pid _; do
            case $(readlink "/proc/$pid/exe") in
            */postgres | */postgres\ *) echo "$pid" ;;
            esac
        done
}

# Repeats the kill until two searches in a row find no process, because a process may fork in
# between.
kill_all() {
    quiet=0
    for _ in $(seq 500); do
        pids=$(lab_processes)
        if [ -n "$pids" ]; then
            quiet=0
            kill -KILL $pids 2>/dev/null
        else
            quiet=$((quiet + 1))
            [ $quiet -lt 2 ] || return 0
        fi
        sleep 0.02
    done
    return 1
}

# A killed postmaster leaves its System V shared memory segment; line 7 of its pid file has the id.
remove_shared_memory() {
    for pidfile in "$folder"/*/data/postmaster.pid; do
        [ -f "$pidfile" ] || continue
        segment=$(sed -n '7s/^ *[0-9]* *//p' "$pidfile")
        [ -z "$segment" ] || ipcrm -m "$segment" 2>/dev/null
    done
}

remove_network() {
    [ -e "/sys/class/net/pgl$id" ] && ip link del "pgl$id"
    for name in /run/netns/pgl-"$id"-*; do
        [ -e "$name" ] && ip netns del "${name##*/}"
    done
}

keep_logs() {
    [ -n "$keep" ] || return 0
    (cd "$folder" && find . -name '*.log' -exec cp --parents {} "$keep" \;)
}

failed=0
kill_all || failed=1
remove_shared_memory
remove_network
keep_logs
rm -rf "$folder" || failed=1
exit $failed
