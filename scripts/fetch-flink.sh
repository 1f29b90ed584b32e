#!/usr/bin/env bash
# Brings Flink (from the Python package that has its jars), its Kafka connector
# (from Maven Central) and the jobs of benches/flink, compiled, into the cache
# and prints the folder: lib/ with all jars. Does nothing but print when it is
# there. Takes a JDK, Maven and pip.
#
# Usage: scripts/fetch-flink.sh
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh

version=2.3.0
source=benches/flink
hash=$(cat "$0" "$source/pom.xml" | sha256sum | cut -c 1-12)
flink=$MILLRACE_CACHE/flink-$hash
jobs=$MILLRACE_CACHE/flink-jobs-$(cat "$0" "$source"/pom.xml "$source"/src/millrace/bench/*.java | sha256sum | cut -c 1-12)

for tool in javac mvn python3; do
    command -v $tool >/dev/null || {
        echo "fetch-flink: no $tool; on Debian: apt-get install default-jdk-headless maven python3-pip" >&2
        exit 1
    }
done

work=$(mktemp -d "$MILLRACE_CACHE/flink-fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

if [ ! -d "$flink" ]; then
    echo "fetch-flink: downloading Flink $version" >&2
    python3 -m pip download --quiet --no-deps --dest "$work" "apache-flink-libraries==$version" >&2
    mkdir -p "$work/home/lib"
    python3 - "$work"/*.whl "$work/home/lib" >&2 <<'PYTHON'
import pathlib, sys, zipfile
wanted = ("flink-dist-", "flink-metrics-prometheus-", "log4j-api-", "log4j-core-", "log4j-slf4j-impl-")
with zipfile.ZipFile(sys.argv[1]) as wheel:
    for name in wheel.namelist():
        file = pathlib.PurePath(name).name
        if file.startswith(wanted):
            (pathlib.Path(sys.argv[2]) / file).write_bytes(wheel.read(name))
PYTHON
    mvn --batch-mode --quiet --file "$source/pom.xml" \
        -Dmaven.repo.local="$work/m2" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$work/home/lib" >&2
    # One rename makes it appear whole, or not at all.
    mv -T "$work/home" "$flink" 2>/dev/null || [ -d "$flink" ]
fi

if [ ! -d "$jobs" ]; then
    mkdir -p "$work/jobs/lib" "$work/classes"
    javac -nowarn -d "$work/classes" -cp "$flink/lib/*" "$source"/src/millrace/bench/*.java >&2
    (cd "$work/classes" && python3 -m zipfile -c "$work/jobs/lib/jobs.jar" .)
    for jar in "$flink"/lib/*; do ln -s "$jar" "$work/jobs/lib/"; done
    mv -T "$work/jobs" "$jobs" 2>/dev/null || [ -d "$jobs" ]
fi

echo "$jobs"
