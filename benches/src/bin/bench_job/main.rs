//! The jobs that only benchmarks run: `bench_job <job>`. Each is written with the public SDK, as a user's would be.

mod bare_clients;
mod changes;
mod count;
mod edge;
mod kafka_count;
mod latency;
mod nexmark;

use std::process::ExitCode;

use clap::Parser;
use millrace_testkit::cluster::exit_code;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// A job.
#[derive(Parser)]
enum Job {
    /// Counts by key: JSON from Kafka, JSON to Kafka, exactly once.
    KafkaCount(kafka_count::Topics),
    /// The same by hand.
    BareClients(kafka_count::Topics),
    /// A query of Nexmark.
    Nexmark(nexmark::Args),
    /// Changes many counters.
    Changes(changes::Args),
    /// How long records take.
    Latency(latency::Args),
    /// Records from one process to another.
    Edge(edge::Args),
}

fn main() -> ExitCode {
    exit_code(match Job::parse() {
        Job::KafkaCount(args) => kafka_count::run(&args),
        Job::BareClients(args) => bare_clients::run(&args),
        Job::Nexmark(args) => nexmark::run(&args),
        Job::Changes(args) => changes::run(&args),
        Job::Latency(args) => latency::run(&args),
        Job::Edge(args) => edge::run(&args),
    })
}
