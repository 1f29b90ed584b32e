#!/usr/bin/env bash
# Packs the MinIO and the Kafka of the tests into images with the names that
# deploy/dev/*.yaml gives them, for a cluster that cannot pull the real ones:
# OUTDIR/minio.tar and OUTDIR/kafka.tar. Programs are where the real images have
# them.
#
# Usage: deploy/images/dev-services.sh OUTDIR
set -euo pipefail

[ "$#" -eq 1 ] || {
    echo "usage: deploy/images/dev-services.sh OUTDIR" >&2
    exit 1
}
mkdir -p "$1"
outdir=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."

# name SERVICE: the image in its manifest.
name() {
    sed -n 's/^ *image: \(&[a-z]* \)\?//p' "deploy/dev/$1.yaml" | grep -v '^\*' | sort -u
}

deploy/images/mkimage --name "$(name minio)" --entrypoint /usr/bin/minio "$outdir/minio.tar" \
    "$(scripts/fetch-minio.sh)=/usr/bin/minio"

# A Java Development Kit holds more than what runs programs.
java=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.home = //p')
deploy/images/mkimage --name "$(name kafka)" --env PATH=/opt/java/openjdk/bin \
    --env JAVA_HOME=/opt/java/openjdk --entrypoint /opt/java/openjdk/bin/java "$outdir/kafka.tar" \
    "$java/bin/java=/opt/java/openjdk/bin/java" \
    "$java/conf=/opt/java/openjdk/conf" \
    "$java/lib=/opt/java/openjdk/lib" \
    "$(scripts/fetch-kafka.sh)/libs=/opt/kafka/libs"
