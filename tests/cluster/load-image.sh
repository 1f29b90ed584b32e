#!/usr/bin/env bash
# Brings images into the node, where nothing can be pulled from: the tar files
# that deploy/images/mkimage writes, or `docker save`.
#
# Usage: tests/cluster/load-image.sh IMAGE.tar…
set -euo pipefail

[ "$#" -gt 0 ] || {
    echo "usage: tests/cluster/load-image.sh IMAGE.tar…" >&2
    exit 1
}
for image in "$@"; do
    "$(dirname "$0")/exec.sh" ctr --namespace k8s.io images import - <"$image"
done
