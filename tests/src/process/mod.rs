//! Jobs as real processes: what they print and commit, what they are fed, and campaigns of kills against them.

pub mod committed;
pub mod feed;
pub mod kills;
pub mod printed;

use std::{path::Path, time::Duration};

use millrace_testkit::{
    cluster::{ClusterSpec, Result, program},
    services::kafka::KafkaBroker,
};

/// `checkpoint_example` on a topic, as a cluster of one taskmanager with one slot.
pub fn checkpoint_example(kafka: &KafkaBroker, topic: &str) -> Result<ClusterSpec> {
    let from_kafka = ["--kafka", &kafka.bootstrap(), "--topic", topic, "--group", topic].map(str::to_owned);
    Ok(ClusterSpec::new(program("checkpoint_example")?).args(from_kafka))
}

/// `checkpoint_example` that counts each record of a topic by itself, and writes to another topic in transactions that are
/// committed with the checkpoints, in a directory that outlives the jobmanager: two subtasks on two taskmanagers.
pub fn committing_example(
    kafka: &KafkaBroker,
    input: &str,
    output: &str,
    interval: Duration,
    checkpoints: &Path,
) -> Result<ClusterSpec> {
    let interval = format!("{}ms", interval.as_millis());
    let to = ["--start", "earliest", "--kafka-out", output, "--kafka-out-guarantee", "exactly-once"];
    let how = ["--key-by", "record", "--parallelism", "2", "--checkpoints", "--interval", &interval];
    let durable = ["--checkpoint-dir".to_owned(), format!("file://{}", checkpoints.display())];
    Ok(checkpoint_example(kafka, input)?.args(to).args(how).args(durable).taskmanagers(2))
}

/// Restarts without a limit and without a delay: what a test kills shall come back at once.
pub fn restart_always(spec: ClusterSpec) -> ClusterSpec {
    spec.set("restart-strategy.type", "fixed-delay")
        .set("restart-strategy.fixed-delay.attempts", u32::MAX.to_string())
        .set("restart-strategy.fixed-delay.delay", "0 ms")
}

/// A name that no other test has.
pub fn unique(name: &str) -> String {
    format!("{name}-{:016x}", rand::random::<u64>())
}
