#!/usr/bin/env bash
# Counts the instructions of the hottest paths (crates/millrace-runtime/benches/micro)
# with callgrind, which gives the same number on a busy machine as on a quiet one,
# and fails where one takes more than 5 % above the committed baseline.
#
# Usage: scripts/count-instructions.sh [--write]
#   --write  makes the baseline of what is counted now
#
# A baseline belongs to a compiler and an architecture: with others, and without
# valgrind, nothing is compared, and that is said.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh

baseline=crates/millrace-runtime/benches/instructions.txt
counted=(partition keyed-state encode decode snapshot)
bound=5

skip() {
    echo "count-instructions: SKIPPED, nothing was compared: $*" >&2
    exit 0
}

command -v valgrind >/dev/null || skip "no valgrind (Debian: apt-get install valgrind)"
compiler="$(rustc --version), $(uname -m)"
made_with=$(sed -n 's/^# made with //p' "$baseline" 2>/dev/null || true)
[ "${1:-}" = --write ] || [ "$made_with" = "$compiler" ] ||
    skip "the baseline was made with $made_with, this is $compiler; make another with $0 --write"

micro=$(cargo bench --package millrace-runtime --bench micro --no-run --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$micro" ] || {
    echo "count-instructions: cargo did not say where it put the benchmarks" >&2
    exit 1
}

# per_unit NAME: instructions for each record of a workload.
per_unit() {
    local output
    output=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
        --toggle-collect='*counted_round*' "$micro" --count "$1" 2>&1) || {
        echo "$output" >&2
        return 1
    }
    awk '/^units=/ { units = substr($0, 7) } /Collected : / { all = $NF }
        END { if (all + 0 == 0 || units + 0 == 0) exit 1; printf "%.1f\n", all / units }' <<<"$output" || {
        echo "count-instructions: no count of $1 in: $output" >&2
        return 1
    }
}

new=$(for name in "${counted[@]}"; do
    echo "$name $(per_unit "$name")"
done)
[ "$(wc -w <<<"$new")" -eq $((2 * ${#counted[@]})) ] || exit 1

if [ "${1:-}" = --write ]; then
    printf '# Instructions for each record, by scripts/count-instructions.sh --write\n# made with %s\n%s\n' \
        "$compiler" "$new" >"$baseline"
    cat "$baseline"
    exit 0
fi

join <(grep -v '^#' "$baseline" | sort) <(sort <<<"$new") | awk -v bound="$bound" -v wanted="${#counted[@]}" '
    {
        change = ($3 / $2 - 1) * 100
        printf "%-12s %8.1f instructions a record, the baseline has %.1f (%+.1f %%)\n", $1, $3, $2, change
        if (change > bound) { printf "%s takes more than %s %% above its baseline\n", $1, bound; failed = 1 }
        else if (change < -bound) { printf "%s is faster: commit a new baseline\n", $1 }
    }
    END { if (NR != wanted) { print "the baseline lacks a workload"; failed = 1 } exit failed }'
