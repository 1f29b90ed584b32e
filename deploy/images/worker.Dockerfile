# The stock worker's image: the examples as one program, with all of Millrace's state backends. RocksDB alone takes about
# 25 minutes of CPU to build. From the repository's root:
#
#   docker build -f deploy/images/worker.Dockerfile -t millrace/worker:0.1.0 .
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libclang-dev python3 tzdata
WORKDIR /millrace
COPY . .
RUN cargo build --release -p millrace-examples --bin millrace-examples --features rocksdb && strip target/release/millrace-examples
# the program, the libraries that it links, certificates, time zones and a user: no shell
RUN deploy/images/mkimage --name millrace/worker:0.1.0 --limit 60 /image \
    target/release/millrace-examples=/usr/bin/millrace-examples

FROM scratch
COPY --from=build /image /
USER 10001:10001
ENTRYPOINT ["/usr/bin/millrace-examples"]
