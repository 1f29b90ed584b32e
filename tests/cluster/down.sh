#!/usr/bin/env bash
# Ends the cluster of up.sh and removes every trace of it. Says nothing when
# there is none.
#
# Usage: tests/cluster/down.sh
set -euo pipefail

. "$(dirname "$0")/common.sh"

lock
stop_node
rm -rf "$state"
