#!/usr/bin/env bash
# Checks the example of a user's own job, which is a workspace of its own: with
# the versions and the profile of this one, so that nothing is compiled twice.
#
# Usage: scripts/check-own-job.sh
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh

cp Cargo.lock examples/own-job/Cargo.lock
job=(--manifest-path examples/own-job/Cargo.toml)
cargo fmt "${job[@]}" --check
cargo clippy "${job[@]}" --config 'profile.dev.debug="line-tables-only"' \
    --config 'profile.dev.package."*".debug=false' -- -D warnings
