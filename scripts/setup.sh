#!/usr/bin/env bash
# Installs what this machine lacks, with apt-get on Debian and the like.
#
# Usage: scripts/setup.sh build|bench|test
#   build  what compiling takes: a C and C++ compiler, make, libclang for
#          RocksDB's bindings (librdkafka, RocksDB, zstd, lz4, zlib and
#          jemalloc come as sources with their crates; rustc brings its own
#          lld as linker)
#   bench  that of build, and what Flink takes: a JDK, Maven, pip
#   test   that of build, and what the tests take: rustfmt and clippy, Java and
#          Maven for Kafka, Go for MinIO and Kubernetes, PostgreSQL, and on Linux
#          libfaketime, valgrind and what a Kubernetes node takes from its
#          system
#
# Says nothing and needs no network when nothing is missing. Rust itself is
# taken for granted.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh
. scripts/go.sh

packages=()

has() {
    command -v "$1" >/dev/null
}

# want COMMAND PACKAGE: notes the package down if there is no such command.
want() {
    has "$1" || packages+=("$2")
}

die() {
    echo "setup: $*" >&2
    exit 1
}

# install: brings the packages noted down, as root or through sudo.
install() {
    [ ${#packages[@]} -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || die "missing packages; install them as root, then run this again:" \
            "apt-get install ${packages[*]}"
        as_root=(sudo)
    fi
    has apt-get || die "no apt-get here; install what these Debian packages hold: ${packages[*]}"

    echo "setup: installing ${packages[*]}" >&2
    "${as_root[@]}" apt-get update -q >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${packages[@]}" >&2
    packages=()
}

# has_libclang: bindgen looks for it in these places.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' | grep -qv libclang-cpp ||
        compgen -G '/usr/lib*/libclang*.so*' | grep -qv libclang-cpp
}

java_suits() {
    local major
    major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p') || return 1
    [ "${major:-0}" -ge 17 ]
}

# fetch_go: brings a current Go toolchain through the Go module proxy, with the
# help of any older go command, since Debian's is often too old for MinIO.
fetch_go() {
    local module dir
    module=golang.org/toolchain@v0.0.1-go$GO_FETCHED.$(go env GOHOSTOS)-$(go env GOHOSTARCH)
    work=$(mktemp -d "$MILLRACE_CACHE/go-fetch.XXXXXX")
    trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

    echo "setup: Go >= $GO_NEEDED is needed, fetching $GO_FETCHED" >&2
    # In a folder without a go.mod, and not into the user's own module cache.
    dir=$(cd "$work" && GOPATH="$work/path" GOTOOLCHAIN=local GOFLAGS= \
        go mod download -json "$module" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    [ -d "$dir" ] || die "could not fetch Go $GO_FETCHED"

    # A module archive holds neither execute bits nor files named go.mod, so
    # both are restored, as newer go commands do themselves.
    chmod -R u+w "$dir"
    chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/*
    find "$dir" -name _go.mod -execdir mv {} go.mod \;
    mv -T "$dir" "$MILLRACE_CACHE/go-$GO_FETCHED"
}

# want_component SUBCOMMAND COMPONENT: a part of Rust that rustup can leave out.
want_component() {
    cargo "$1" --version >/dev/null 2>&1 && return
    has rustup || die "no cargo $1: install the $2 that belongs to this Rust"
    rustup component add "$2" >&2
}

setup_build() {
    want gcc gcc
    want g++ g++
    want make make
    want pkg-config pkg-config
    has_libclang || packages+=(libclang-dev)
    install
    has cargo || die "no cargo: install Rust first, for instance with rustup"
}

# want_node: what tests/cluster runs a node with, and what images are packed from.
want_node() {
    [ "$(uname)" = Linux ] || return 0
    # root's, and not on everyone's PATH
    local PATH=$PATH:/usr/sbin:/sbin
    want containerd containerd
    want runc runc
    want nft nftables
    want ip iproute2
    want nsenter util-linux
    want openssl openssl
    want python3 python3
    want strip binutils
    [ -x /usr/lib/cni/ptp ] || packages+=(containernetworking-plugins)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
    [ -e /usr/share/zoneinfo/UTC ] || packages+=(tzdata)
}

setup_test() {
    java_suits || packages+=(default-jre-headless)
    want mvn maven
    find_go >/dev/null || want go golang-go
    # clocks that jump, for the attacks on jobs
    [ "$(uname)" != Linux ] || compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || packages+=(libfaketime)
    # to count instructions
    [ "$(uname)" != Linux ] || want valgrind valgrind
    # the PostgreSQL sink's server
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
    want_node
    install
    java_suits || die "Java 17 or later is needed, found: $(java -version 2>&1 | head -n 1)"
    find_go >/dev/null || fetch_go
    find_go >/dev/null || die "the fetched Go $GO_FETCHED does not run"

    want_component fmt rustfmt
    want_component clippy clippy
}

setup_bench() {
    want javac default-jdk-headless
    want mvn maven
    has python3 && python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
    install
    java_suits || die "Java 17 or later is needed, found: $(java -version 2>&1 | head -n 1)"
}

case ${1:-} in
    build) setup_build ;;
    bench) setup_build; setup_bench ;;
    test) setup_build; setup_test ;;
    *) die "usage: scripts/setup.sh build|bench|test" ;;
esac
