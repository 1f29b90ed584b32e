#!/usr/bin/env bash
# Builds Millrace's images without a container engine: OUTDIR/operator.tar and
# OUTDIR/worker.tar. Prints each one's name, file and unpacked size, and fails
# above 60 MiB. What is in them is what deploy/images/*.Dockerfile put there.
#
# Usage: scripts/build-images.sh [--profile PROFILE] OUTDIR
#   --profile  cargo's profile, release unless given
set -euo pipefail

profile=release
if [ "${1:-}" = --profile ]; then
    profile=${2:-}
    shift 2 || true
fi
if [ "$#" -ne 1 ] || [ -z "$profile" ]; then
    echo "usage: scripts/build-images.sh [--profile PROFILE] OUTDIR" >&2
    exit 1
fi
mkdir -p "$1"
outdir=$(cd "$1" && pwd)

cd "$(dirname "$0")/.."
. scripts/cache.sh
export ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR=${ROCKSDB_LIB_DIR:-$(scripts/fetch-rocksdb.sh)}
cargo build --profile "$profile" -p millrace-operator --bin millrace-operator \
    -p millrace-examples --bin millrace-examples --features millrace-examples/rocksdb >&2
# the one profile whose folder is not called like it
built=$CARGO_TARGET_DIR/${profile/#dev/debug}

# The workspace's version, which is the chart's too.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# image NAME PROGRAM
image() {
    strip -o "$outdir/$2" "$built/$2"
    deploy/images/mkimage --name "millrace/$1:$version" --limit 60 \
        --label "org.opencontainers.image.licenses=Apache-2.0" \
        --entrypoint "/usr/bin/$2" "$outdir/$1.tar" "$outdir/$2=/usr/bin/$2"
    rm "$outdir/$2"
}

image operator millrace-operator
image worker millrace-examples
