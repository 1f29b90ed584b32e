# The stock worker's image: the examples as one program, with all of Millrace's state backends. RocksDB alone takes about
# 25 minutes of CPU to build, the first time and when a manifest has changed. From the repository's root:
#
#   docker build -f deploy/images/worker.Dockerfile -t millrace/worker:0.1.0 .

# What RocksDB's build asks for: manifests, and that sources exist. While these are the same, the layer below is.
FROM rust:1.95-bookworm AS manifests
WORKDIR /millrace
COPY . .
RUN mkdir /manifests \
    && cp --parents Cargo.lock scripts/cache.sh scripts/fetch-rocksdb.sh $(find . -name Cargo.toml) /manifests \
    && find . -name '*.rs' -exec install -D -m 644 /dev/null '/manifests/{}' ';'

FROM rust:1.95-bookworm AS rocksdb
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libclang-dev python3 tzdata
WORKDIR /millrace
COPY --from=manifests /manifests .
RUN scripts/fetch-rocksdb.sh

FROM rocksdb AS build
COPY . .
RUN export ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR="$(scripts/fetch-rocksdb.sh)" \
    && cargo build --release -p millrace-examples --bin millrace-examples --features rocksdb \
    && strip target/release/millrace-examples
# the program, the libraries that it links, certificates, time zones and a user: no shell
RUN deploy/images/mkimage --name millrace/worker:0.1.0 --limit 60 /image \
    target/release/millrace-examples=/usr/bin/millrace-examples

FROM scratch
COPY --from=build /image /
USER 10001:10001
ENTRYPOINT ["/usr/bin/millrace-examples"]
