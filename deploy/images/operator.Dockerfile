# The operator's image. From the repository's root:
#
#   docker build -f deploy/images/operator.Dockerfile -t millrace/operator:0.1.0 .
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 tzdata
WORKDIR /millrace
COPY . .
RUN cargo build --release -p millrace-operator --bin millrace-operator && strip target/release/millrace-operator
# the program, the libraries that it links, certificates, time zones and a user: no shell
RUN deploy/images/mkimage --name millrace/operator:0.1.0 --limit 60 /image \
    target/release/millrace-operator=/usr/bin/millrace-operator

FROM scratch
COPY --from=build /image /
USER 10001:10001
ENTRYPOINT ["/usr/bin/millrace-operator"]
