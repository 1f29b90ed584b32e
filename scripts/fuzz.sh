#!/usr/bin/env bash
# Runs each fuzz target for a while. What the targets have learned stays in the
# cache; an input that breaks something stays in fuzz/artifacts, and the exit
# code tells.
#
# Usage: scripts/fuzz.sh SECONDS [TARGET...]
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh

version=0.13.2
tools=$MILLRACE_CACHE/cargo-fuzz-$version
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: the sanitizers need the nightly toolchain: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
    cargo install cargo-fuzz --version "$version" --locked --root "$tools" >&2
fi
export PATH="$tools/bin:$PATH"

time=$1
shift
targets=${*:-$(cargo +nightly fuzz list)}
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
build=$MILLRACE_CACHE/fuzz/target
cargo +nightly fuzz build --target-dir "$build"
mkdir -p fuzz/artifacts
for target in $targets; do
    corpus=$MILLRACE_CACHE/fuzz/corpus/$target
    mkdir -p "$corpus"
    echo "fuzz: $target for $time s"
    "$build/$host/release/$target" "$corpus" "fuzz/seeds/$target" -artifact_prefix="fuzz/artifacts/$target-" \
        -max_total_time="$time" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
