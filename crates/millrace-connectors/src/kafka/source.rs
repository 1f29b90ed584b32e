//! The Kafka source: what a program configures and every process holds.

use std::{sync::Arc, time::Duration};

use millrace_core::{
    Error, Record, Result, codec,
    source::{Boundedness, EnumeratorContext, ReaderContext, Source, SourceReader, SourceSplit, SplitEnumerator},
};
use rdkafka::{ClientConfig, consumer::BaseConsumer};
use serde::{Deserialize, Serialize};

use super::{
    Deserializer, KafkaSourceBuilder, StartingOffsets, StringDeserializer, context::Context,
    enumerator::KafkaEnumerator, properties::Properties, reader::KafkaReader,
};
use crate::Undecodable;

/// Reads the messages of topics. Each partition is a split; its position is an offset and lives in checkpoints.
///
/// - With checkpoints on, `latest` and its like are resolved once, at the job's first start; without, at each start.
/// - A restored offset that a topic no longer has (or never had) is an error, never a silent jump.
/// - Offsets are committed to the consumer group, where one is set, when a checkpoint completes and never otherwise: the
///   group shows progress to people and tools, the job itself does not go by it. Without checkpoints nothing is
///   committed.
/// - The reader joins no consumer group, so that other members of the group take nothing away from it.
/// - Messages of aborted transactions are left out, and open ones are waited for
///   (librdkafka's `isolation.level=read_committed`).
///
/// ```
/// use millrace_connectors::{Undecodable, kafka::{KafkaSource, StartingOffsets}};
///
/// # fn main() -> millrace_core::Result<()> {
/// let source = KafkaSource::strings()
///     .bootstrap_servers("localhost:9092")
///     .topics(["input-topic"])
///     .group_id("my-group")
///     .starting_offsets(StartingOffsets::Earliest)
///     .property("client.rack", "a")
///     .on_undecodable(Undecodable::SkipAndCount)
///     .build()?;
/// # let _ = source;
/// # Ok(())
/// # }
/// ```
pub struct KafkaSource<T> {
    pub(super) settings: Arc<Settings>,
    pub(super) deserializer: Arc<dyn Deserializer<T>>,
}

impl<T> KafkaSource<T> {
    /// Begins a source; [`KafkaSourceBuilder::deserializer`] says what its records are.
    pub fn builder() -> KafkaSourceBuilder<T> {
        KafkaSourceBuilder::new()
    }
}

impl KafkaSource<String> {
    /// Begins a source of values as text.
    pub fn strings() -> KafkaSourceBuilder<String> {
        KafkaSourceBuilder::new().deserializer(StringDeserializer)
    }
}

impl<T> Clone for KafkaSource<T> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings), deserializer: Arc::clone(&self.deserializer) }
    }
}

/// What enumerator and readers go by.
pub(super) struct Settings {
    pub(super) properties: Properties,
    pub(super) topics: Vec<String>,
    pub(super) group: Option<String>,
    pub(super) start: StartingOffsets,
    pub(super) bounded: bool,
    pub(super) discovery_interval: Duration,
    pub(super) undecodable: Undecodable,
}

impl Settings {
    /// A consumer's configuration; a reader's needs a group, even though it joins none.
    pub(super) fn config(&self, needs_group: bool) -> Result<ClientConfig> {
        let mut config = self.properties.consumer()?;
        match &self.group {
            Some(group) => config.set("group.id", group),
            None if needs_group => config.set("group.id", "millrace"),
            None => &mut config,
        };
        Ok(config)
    }

    /// Makes a client. It connects by itself.
    pub(super) fn connect(&self, needs_group: bool) -> Result<BaseConsumer<Context>> {
        self.config(needs_group)?
            .create_with_context(Context::default())
            .map_err(|error| Error::invalid(format!("Kafka client refused: {error}")))
    }
}

/// A partition of a topic, from an offset on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaSplit {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the next message.
    pub offset: i64,
    /// The offset at which it ends, for a bounded source.
    pub stop: Option<i64>,
}

impl SourceSplit for KafkaSplit {
    fn split_id(&self) -> String {
        split_id(&self.topic, self.partition)
    }
}

/// What names a partition.
pub(super) fn split_id(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

impl<T: Record> Source for KafkaSource<T> {
    type Record = T;
    type Split = KafkaSplit;

    fn boundedness(&self) -> Boundedness {
        if self.settings.bounded { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn create_enumerator(&self, _context: &EnumeratorContext) -> Result<Box<dyn SplitEnumerator<KafkaSplit>>> {
        Ok(Box::new(KafkaEnumerator::new(Arc::clone(&self.settings))))
    }

    fn create_reader(&self, _context: &mut ReaderContext) -> Result<Box<dyn SourceReader<T, KafkaSplit>>> {
        Ok(Box::new(KafkaReader::new(Arc::clone(&self.settings), Arc::clone(&self.deserializer))))
    }

    fn fingerprint(&self) -> Vec<u8> {
        let Settings { properties, topics, group, start, bounded, .. } = &*self.settings;
        codec::encode(&(topics, group, start, bounded, properties.digest())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::{
        operator_state::{OperatorListSnapshot, Redistribution},
        schema::Schema,
    };

    use super::*;

    fn splits() -> [KafkaSplit; 3] {
        let split = |topic: &str, partition, offset, stop| KafkaSplit { topic: topic.into(), partition, offset, stop };
        [split("orders", 0, 0, None), split("orders", 11, i64::MAX, None), split("a.b_c-1", 2, 4711, Some(1 << 40))]
    }

    /// The splits as the runtime puts them into a checkpoint: each with its id.
    fn encoded() -> Vec<u8> {
        let item = |split: KafkaSplit| codec::encode(&(split.split_id(), codec::encode(&split).unwrap())).unwrap();
        let list = OperatorListSnapshot {
            name: "millrace.source-splits".into(),
            redistribution: Redistribution::Split,
            schema: Schema::of::<KafkaSplit>().unwrap(),
            items: splits().map(item).into(),
        };
        codec::encode(&list).unwrap()
    }

    /// These bytes are in every checkpoint of a job that reads from Kafka: they must be read for ever.
    #[test]
    fn splits_in_checkpoints_are_frozen() {
        let golden = include_bytes!("golden/splits-v1.bin");
        assert_eq!(encoded(), golden);
        let list: OperatorListSnapshot = codec::decode(golden).unwrap();
        assert_eq!(list.schema, Schema::of::<KafkaSplit>().unwrap());
        for (item, split) in list.items.iter().zip(splits()) {
            let (id, bytes): (String, Vec<u8>) = codec::decode(item).unwrap();
            assert_eq!((id, codec::decode::<KafkaSplit>(&bytes).unwrap()), (split.split_id(), split));
        }
        assert_eq!(list.items.len(), splits().len());
    }

    // The fuzz targets lack them: librdkafka does not build beside the sanitizers.
    proptest::proptest! {
        #[test]
        fn damaged_splits_never_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            flips in proptest::collection::vec(proptest::prelude::any::<proptest::sample::Index>(), 1..4),
        ) {
            let _ = codec::decode::<KafkaSplit>(&bytes);
            let golden = crate::kafka::with_flipped_bits(include_bytes!("golden/splits-v1.bin"), &flips);
            if let Ok(list) = codec::decode::<OperatorListSnapshot>(&golden) {
                for item in &list.items {
                    if let Ok((_, bytes)) = codec::decode::<(String, Vec<u8>)>(item) {
                        let _ = codec::decode::<KafkaSplit>(&bytes);
                    }
                }
            }
        }
    }

    #[test]
    #[ignore = "writes the golden file: only for a new version of the split"]
    fn write_golden_file() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kafka/golden/splits-v1.bin");
        std::fs::write(file, encoded()).unwrap();
    }
}
