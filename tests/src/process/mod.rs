//! Jobs as real processes: what they print, what they are fed, and campaigns of kills against them.

pub mod feed;
pub mod kills;
pub mod printed;

use millrace_testkit::{
    cluster::{ClusterSpec, Result, program},
    services::kafka::KafkaBroker,
};

/// `checkpoint_example` on a topic, as a cluster of one taskmanager with one slot.
pub fn checkpoint_example(kafka: &KafkaBroker, topic: &str) -> Result<ClusterSpec> {
    let from_kafka = ["--kafka", &kafka.bootstrap(), "--topic", topic, "--group", topic].map(str::to_owned);
    Ok(ClusterSpec::new(program("checkpoint_example")?).args(from_kafka))
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
