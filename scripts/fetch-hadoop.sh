#!/usr/bin/env bash
# Brings Hadoop's NameNode and DataNode from Maven Central into the cache and
# prints their folder (libs/ with the jars, formatted/ with an empty name
# folder). Does nothing but print when it is there.
#
# Usage: scripts/fetch-hadoop.sh
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh

source=tests/services/hadoop
hash=$(cat "$source/pom.xml" "$source/hdfs-site.xml" "$0" | sha256sum | cut -c 1-12)
home=$MILLRACE_CACHE/hadoop-$hash

if [ ! -d "$home" ]; then
    work=$(mktemp -d "$MILLRACE_CACHE/hadoop-fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/home" "$work/conf"

    # Maven's own repository lives in the working folder too, so that nothing
    # is left in the user's ~/.m2.
    echo "fetch-hadoop: downloading the jars from Maven Central" >&2
    mvn --batch-mode --quiet --file "$source/pom.xml" \
        -Dmaven.repo.local="$work/m2" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$work/home/libs" >&2

    # A NameNode refuses a folder that is not formatted.
    sed -e "s|@DATA@|$work/home/formatted|" -e 's|@NAMENODE@|127.0.0.1:1|' \
        "$source/hdfs-site.xml" >"$work/conf/hdfs-site.xml"
    cp "$work/conf/hdfs-site.xml" "$work/conf/core-site.xml"
    cp "$source/log4j.properties" "$work/conf/"
    java --add-opens=java.base/java.lang=ALL-UNNAMED -cp "$work/conf:$work/home/libs/*" \
        org.apache.hadoop.hdfs.server.namenode.NameNode -format -force >"$work/format.log" 2>&1 ||
        { tail -n 20 "$work/format.log" >&2; exit 1; }

    # One rename makes the installation appear whole, or not at all.
    mv -T "$work/home" "$home" 2>/dev/null || [ -d "$home" ]
fi

# Where `cargo test` finds it without make.
ln -sfn "$home" "$MILLRACE_CACHE/hadoop"
echo "$home"
