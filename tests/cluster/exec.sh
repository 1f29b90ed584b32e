#!/usr/bin/env bash
# Runs a command inside the cluster's node, as root: among its processes, in its
# network, with its mounts.
#
# Usage: tests/cluster/exec.sh COMMAND [ARGUMENT…]
set -euo pipefail

. "$(dirname "$0")/common.sh"

[ "$#" -gt 0 ] || die "usage: tests/cluster/exec.sh COMMAND [ARGUMENT…]"
pid=$(node_pid) || die "no cluster is up in $state"
exec nsenter --target "$pid" --net --mount --pid --uts --ipc -- "$@"
