#!/usr/bin/env bash
# Builds librocksdb.a from the sources in the crate that Cargo.lock names into
# the cache and prints its folder. Does nothing but print when it is there.
# RocksDB takes about 25 minutes of CPU, and Cargo would build it again for
# every profile, target folder and change of features; with
#
#   ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR=$(scripts/fetch-rocksdb.sh) cargo build
#
# the crate links it in seconds. lz4 and zstd come with crates of their own.
#
# Usage: scripts/fetch-rocksdb.sh
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh

# What it is made from: the sources' versions, the features, the compiler.
key=$({
    for crate in librocksdb-sys lz4-sys zstd-sys; do
        grep -A 3 "^name = \"$crate\"" Cargo.lock
    done
    grep '^rocksdb = ' Cargo.toml
    "${CXX:-c++}" --version
    rustc -vV | grep '^host: '
} | sha256sum | cut -c 1-12)
home=$MILLRACE_CACHE/rocksdb-$key

if [ ! -f "$home/librocksdb.a" ]; then
    work=$(mktemp -d "$MILLRACE_CACHE/rocksdb-build.XXXXXX")
    trap 'rm -rf "$work"' EXIT

    # Cargo itself builds it, with the workspace's versions and features, once,
    # optimised and without debug info.
    echo "fetch-rocksdb: building RocksDB, about 25 minutes of CPU" >&2
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$work/target" \
        CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_OPT_LEVEL=3 \
        cargo build --locked --release --package librocksdb-sys >&2

    # One rename makes the installation appear whole, or not at all.
    mkdir "$work/home"
    mv "$work"/target/release/build/librocksdb-sys-*/out/librocksdb.a "$work/home/"
    mv -T "$work/home" "$home" 2>/dev/null || [ -f "$home/librocksdb.a" ]
fi

echo "$home"
