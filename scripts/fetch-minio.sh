#!/usr/bin/env bash
# Builds MinIO, the S3 server the tests run against, from the Go module proxy
# into the cache and prints the path of the binary. Does nothing but print when
# it is there. MinIO is built because its project publishes no binaries to a
# package registry; it takes about five minutes of CPU, once per machine.
#
# Usage: scripts/fetch-minio.sh
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh
. scripts/go.sh

version=v0.0.0-20260212201848-7aac2a2c5b7c
home=$MILLRACE_CACHE/minio-$version

if [ ! -x "$home/minio" ]; then
    go=$(find_go) || {
        echo "fetch-minio: no Go >= $GO_NEEDED; run scripts/setup.sh test" >&2
        exit 1
    }

    # Modules and build cache are ten times the size of the result: they live
    # beside it only while it is built. Go makes its module cache read-only.
    work=$(mktemp -d "$MILLRACE_CACHE/minio-build.XXXXXX")
    trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

    echo "fetch-minio: building MinIO $version, about five minutes" >&2
    env -u GOBIN -u GOROOT GOPATH="$work/path" GOCACHE="$work/cache" GOFLAGS= \
        GOTOOLCHAIN=local CGO_ENABLED=0 \
        nice "$go" install -trimpath -ldflags='-s -w' \
        "github.com/minio/minio@$version" >&2

    # One rename makes the installation appear whole, or not at all.
    mkdir "$work/home"
    mv "$work/path/bin/minio" "$work/home/minio"
    mv -T "$work/home" "$home" 2>/dev/null || [ -x "$home/minio" ]
fi

# Where `cargo test` finds it without make.
ln -sfn "$home" "$MILLRACE_CACHE/minio"
echo "$home/minio"
