//! Counts by key: JSON from Kafka, JSON to Kafka, exactly once.

use clap::Args;
use millrace::{
    connectors::kafka::{JsonDeserializer, JsonSerializer, StartingOffsets},
    prelude::*,
    sink::DeliveryGuarantee,
};
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    count::{self, Count},
};

/// Where to read and write.
#[derive(Args, Clone)]
pub struct Topics {
    /// The broker.
    #[arg(long)]
    pub kafka: String,
    /// The topic to read.
    #[arg(long)]
    pub input: String,
    /// The topic to write.
    #[arg(long)]
    pub output: String,
    /// Ends with what is there at the start.
    #[arg(long)]
    pub bounded: bool,
}

/// What is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// What is counted by.
    pub key: String,
    /// Not used.
    pub number: u64,
    /// Not used.
    pub text: String,
}

/// What is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// The key.
    pub key: String,
    /// How often it has come.
    pub count: i64,
}

impl count::Counted for Event {
    type Out = Counted;

    fn counted(self, count: i64) -> Counted {
        Counted { key: self.key, count }
    }
}

/// Runs the job.
pub fn run(args: &Topics) -> Result<()> {
    let env = StreamExecutionEnvironment::new();
    let source = KafkaSource::builder()
        .bootstrap_servers(&args.kafka)
        .topics([&args.input])
        .starting_offsets(StartingOffsets::Earliest)
        .deserializer(JsonDeserializer::<Event>::new());
    let source = if args.bounded { source.bounded() } else { source };
    let sink = KafkaSink::builder()
        .bootstrap_servers(&args.kafka)
        .topic(&args.output)
        .serializer(JsonSerializer)
        .delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
        .transactional_id_prefix(&args.output)
        .build()?;
    env.from_source(source.build()?, "records")
        .uid("records")
        .key_by_ref(|event| &event.key)
        .flat_map(Count::default())
        .name("Count")
        .uid("count")
        .sink_to(sink)
        .uid("output");
    env.execute("kafka to kafka")?;
    Ok(())
}
