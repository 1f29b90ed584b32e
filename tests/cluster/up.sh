#!/usr/bin/env bash
# Brings up a real Kubernetes cluster of one node on this machine and prints the
# path of its kubeconfig. Does nothing but print when it is up. A cluster that
# is not up starts from nothing.
#
# Usage: tests/cluster/up.sh [--fresh]
#   --fresh  take down a running one first
#
# Exits with 77, and says why, on a machine that cannot have one.
set -euo pipefail

. "$(dirname "$0")/common.sh"

cannot() {
    say "there can be no cluster here: $*"
    exit 77
}

[ "$#" -eq 0 ] || [ "$*" = --fresh ] || die "usage: tests/cluster/up.sh [--fresh]"
[ "$(uname)" = Linux ] || cannot "it needs Linux"
[ "$(id -u)" -eq 0 ] || cannot "its processes must be root's"
unshare --net --mount --pid --uts --ipc --fork true || cannot "namespaces cannot be made"
for command in containerd runc nft ip openssl python3; do
    command -v "$command" >/dev/null || die "no $command; run scripts/setup.sh test"
done
# The node sees its own, empty ones of these folders.
for folder in "$state" "$MILLRACE_CACHE"; do
    case $folder in
        /run/* | /var/lib/* | /var/log/*) die "$folder: MILLRACE_CACHE and MILLRACE_CLUSTER must be elsewhere" ;;
    esac
done

home=$(scripts/fetch-kubernetes.sh)
lock
kubeconfig=$state/admin.kubeconfig
if [ "${1:-}" != --fresh ] && [ -e "$state/ready" ] && node_pid >/dev/null; then
    echo "$kubeconfig"
    exit
fi

# Also after a run that died: what it left is in the way.
SECONDS=0
stop_node
rm -rf "$state"
mkdir -p "$state/log"

# fail MESSAGE: leaves the state, with its logs, to be read.
fail() {
    tail -n 5 "$state"/log/*.log >&2
    stop_node
    die "$* (logs are in $state/log)"
}

# await WHAT COMMAND…: until the command succeeds.
await() {
    local what=$1 end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        node_pid >/dev/null || fail "$what: the node has ended"
        [ "$SECONDS" -lt "$end" ] || fail "$what: not within two minutes"
        sleep 0.1
    done
}

tests/cluster/pki.sh "$state" "$node_address"
for cgroup in $(cgroups); do
    mkdir -p "$cgroup" || cannot "the cgroup $cgroup cannot be made"
done

say "starting a Kubernetes node in $state"
# A clean environment: proxies and the like are the machine's, not the node's.
env -i HOME=/root PATH="$home:/usr/sbin:/usr/bin:/sbin:/bin" \
    setsid unshare --net --mount --pid --uts --ipc --fork --propagation private \
    "$PWD/tests/cluster/node.sh" "$state" "$node_address" \
    </dev/null >"$state/log/node.log" 2>&1 9<&- &
end=$((SECONDS + 10))
until pid=$(node_pid); do
    [ "$SECONDS" -lt "$end" ] || fail "the node did not start"
    sleep 0.05
done

# A cable to the node, and no other way out of it. The machine reaches Services
# and pods through it too.
ip link add "$link" type veth peer name eth0 netns "$pid"
ip address add "$machine_address/30" dev "$link"
ip link set "$link" up
for network in 10.96.0.0/16 10.244.0.0/24; do
    ip route add "$network" via "$node_address" dev "$link" ||
        fail "this machine has a route to $network already, which the cluster needs"
done

deploy/images/mkimage --name localhost/pause:dev --entrypoint /pause "$state/pause.tar" "$home/pause=/pause" >&2
deploy/images/mkimage --name localhost/coredns:dev --entrypoint /coredns "$state/coredns.tar" "$home/coredns=/coredns" >&2
await containerd tests/cluster/exec.sh ctr version
tests/cluster/load-image.sh "$state/pause.tar" "$state/coredns.tar" >&2

kubectl() {
    "$home/kubectl" --kubeconfig "$kubeconfig" "$@"
}
await "the API server" kubectl get --raw /readyz
await "cluster DNS" kubectl apply -f tests/cluster/conf/coredns.yaml
await "the node" kubectl wait --for=condition=Ready --timeout=1s node/node
await "cluster DNS" kubectl -n kube-system rollout status deployment/coredns --timeout=1s
# every pod is refused until the namespace has its account
await "service accounts" kubectl -n default get serviceaccount default

touch "$state/ready"
say "ready after $SECONDS s"
echo "$kubeconfig"
