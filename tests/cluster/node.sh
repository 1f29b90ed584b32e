#!/usr/bin/env bash
# PID 1 of the node. up.sh starts it in network, mount, pid, uts and ipc
# namespaces of its own: when it ends, the kernel ends every process in them and
# drops their mounts and network.
#
# Usage: node.sh STATE NODE_ADDRESS
set -euo pipefail

state=$1
address=$2

# /proc is still the machine's, so this is the id by which the machine knows it.
read -r pid _ </proc/self/stat
echo "$pid" >"$state/node.pid"

mount -t proc proc /proc
echo node >/proc/sys/kernel/hostname

# Its own, empty folders where the programs write, so that nothing of theirs
# stays on the machine.
for folder in /run /var/log /var/lib; do
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
for folder in containerd kubelet; do
    mkdir -p "$state/$folder" "/var/lib/$folder"
    mount --bind "$state/$folder" "/var/lib/$folder"
done
mkdir -p /run/netns /run/cluster /run/conf
mount --bind "$state" /run/cluster
mount --bind "$(dirname "$0")/conf" /run/conf

# The kubelet insists on these settings of the whole machine. It gets files that
# hold them, and the machine keeps its own.
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
    file=/run/$(basename "${setting%=*}")
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done
mount --make-rshared /

until ip address add "$address/30" dev eth0 2>/dev/null; do
    sleep 0.05 # up.sh has not yet plugged the cable in
done
ip link set lo up
ip link set eth0 up
# There is no default route, and without any a process of the node itself could
# not even start towards a Service's address.
ip route add 10.96.0.0/16 dev lo src "$address"
echo 1 >/proc/sys/net/ipv4/ip_forward

declare -A programs

# start PROGRAM [ARGUMENT…]
start() {
    "$@" >"$state/log/$1.log" 2>&1 &
    programs[$!]=$1
}

# client PROGRAM [ARGUMENT…]: one that is a client of the API server.
client() {
    start "$1" --kubeconfig="$state/$1.kubeconfig" "${@:2}"
}

start containerd --config /run/conf/containerd.toml
start etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn
start kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$address" \
    --service-cluster-ip-range=10.96.0.0/16 \
    --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction \
    --client-ca-file="$state/pki/ca.crt" \
    --tls-cert-file="$state/pki/apiserver.crt" \
    --tls-private-key-file="$state/pki/apiserver.key" \
    --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$state/pki/admin.crt" \
    --kubelet-client-key="$state/pki/admin.key" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$state/pki/service-accounts.key" \
    --service-account-signing-key-file="$state/pki/service-accounts.key"

until kubectl --kubeconfig "$state/admin.kubeconfig" get --raw /readyz >/dev/null 2>&1; do
    for program in "${!programs[@]}"; do
        kill -0 "$program" || exit 1
    done
    sleep 0.1
done

for program in kube-controller-manager kube-scheduler; do
    arguments=(
        --authentication-kubeconfig="$state/$program.kubeconfig"
        --authorization-kubeconfig="$state/$program.kubeconfig"
        --bind-address=127.0.0.1
        --leader-elect=false
    )
    if [ "$program" = kube-controller-manager ]; then
        arguments+=(
            --use-service-account-credentials
            --service-account-private-key-file="$state/pki/service-accounts.key"
            --root-ca-file="$state/pki/ca.crt"
        )
    fi
    client "$program" "${arguments[@]}"
done
client kubelet --config=/run/conf/kubelet.yaml --hostname-override=node --node-ip="$address"
start kube-proxy --config=/run/conf/kube-proxy.yaml --hostname-override=node

# Half a node is of no use to anyone.
wait -n -p ended "${!programs[@]}" || true
echo "${programs[$ended]} has ended, and so does the node" >&2
exit 1
