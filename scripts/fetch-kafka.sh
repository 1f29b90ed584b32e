#!/usr/bin/env bash
# Brings a Kafka broker from Maven Central into the cache and prints its folder
# (libs/ with the jars, formatted/ with an empty data folder). Does nothing but
# print when it is there.
#
# Usage: scripts/fetch-kafka.sh
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh

source=tests/services/kafka
hash=$(cat "$source/pom.xml" "$source/server.properties" | sha256sum | cut -c 1-12)
home=$MILLRACE_CACHE/kafka-$hash

if [ ! -d "$home" ]; then
    work=$(mktemp -d "$MILLRACE_CACHE/kafka-fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/home"

    # Maven's own repository lives in the working folder too, so that nothing
    # is left in the user's ~/.m2.
    echo "fetch-kafka: downloading the jars from Maven Central" >&2
    mvn --batch-mode --quiet --file "$source/pom.xml" \
        -Dmaven.repo.local="$work/m2" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$work/home/libs" >&2

    # A broker refuses a data folder that is not formatted. Formatting takes
    # as long as starting, so it is done once and copied for every broker.
    sed -e "s|@DATA@|$work/home/formatted|" -e 's|@ADDRESS@|127.0.0.1:1|' \
        -e 's|@CONTROLLER_PORT@|2|' "$source/server.properties" >"$work/format.properties"
    java -cp "$work/home/libs/*" kafka.tools.StorageTool format \
        --cluster-id bWlsbHJhY2UtdGVzdHMtMQ --config "$work/format.properties" >&2

    # One rename makes the installation appear whole, or not at all.
    mv -T "$work/home" "$home" 2>/dev/null || [ -d "$home" ]
fi

# Where `cargo test` finds it without make.
ln -sfn "$home" "$MILLRACE_CACHE/kafka"
echo "$home"
