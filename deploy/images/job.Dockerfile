# A job of your own, built with `cargo build --release` on a Debian 12 or with the same or an older glibc: put your
# program's name for my-job. A StreamJob names the program by its path: `program: /usr/bin/my-job`.
FROM millrace/worker:0.1.0
COPY target/release/my-job /usr/bin/my-job
ENTRYPOINT ["/usr/bin/my-job"]
