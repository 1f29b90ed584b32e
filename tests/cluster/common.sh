# shellcheck shell=bash disable=SC2034,SC2164
# Sourced by the cluster's scripts: where its state is, whether it runs, and how
# it ends.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/cache.sh

# Everything that the cluster writes, outside the clone.
state=$(realpath -m "${MILLRACE_CLUSTER:-$MILLRACE_CACHE/cluster}")
# The machine's end of the only cable that leads to the node.
link=millrace0
node_address=10.99.0.1
machine_address=10.99.0.2

say() {
    echo "cluster: $*" >&2
}

die() {
    say "$@"
    exit 1
}

# One at a time brings the cluster up or down. The folder around the state is
# locked, so that no lock file remains.
lock() {
    mkdir -p "$(dirname "$state")"
    exec 9<"$(dirname "$state")"
    flock 9
}

# node_pid: prints the id of the node's PID 1 as the machine sees it, or fails
# if the node does not run. Another process may have the id by now.
node_pid() {
    local pid
    pid=$(cat "$state/node.pid" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/${pid:-none}/cmdline" 2>/dev/null | grep -qF "node.sh $state " || return 1
    echo "$pid"
}

# cgroups: prints the node's folder in each of the machine's cgroup hierarchies.
cgroups() {
    local processes
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo /sys/fs/cgroup/millrace
        return
    fi
    for processes in /sys/fs/cgroup/*/cgroup.procs; do
        [ ! -e "$processes" ] || echo "${processes%/cgroup.procs}/millrace"
    done
}

# stop_node: ends the node's PID 1, and with it all its processes, mounts and
# network, then removes its cgroups. Does nothing where there is none.
stop_node() {
    local pid cgroup end=$((SECONDS + 30))
    if pid=$(node_pid); then
        kill -KILL "$pid"
        # it is gone when everything in its namespaces is
        while [ -e "/proc/$pid" ]; do
            [ "$SECONDS" -lt "$end" ] || die "process $pid, the node, does not end"
            sleep 0.05
        done
    fi
    for cgroup in $(cgroups); do
        while [ -d "$cgroup" ]; do
            find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
            [ "$SECONDS" -lt "$end" ] || die "the cgroup $cgroup cannot be removed"
            sleep 0.05
        done
    done
    # the kernel removes a network after its last process, in its own time
    while [ -e "/sys/class/net/$link" ]; do
        ip link delete "$link" 2>/dev/null || sleep 0.05
        [ "$SECONDS" -lt "$end" ] || die "the network link $link cannot be removed"
    done
}
