//! Apache Kafka, by librdkafka.
//!
//! Clients are made and dropped by the threads that use them: dropping one waits for librdkafka's own threads, and so
//! must not happen on a thread that an asynchronous runtime needs.

mod builder;
mod closing;
mod context;
mod deserialize;
mod enumerator;
mod errors;
mod intake;
mod offsets;
mod properties;
mod reader;
mod serialize;
mod sink;
mod source;
mod watch;

pub use builder::KafkaSourceBuilder;
pub use deserialize::{Deserializer, JsonDeserializer, KafkaMessage, StringDeserializer};
pub use offsets::{OffsetReset, StartingOffsets};
pub use serialize::{JsonSerializer, MessageHeader, Serializer, StringSerializer};
pub use sink::{KafkaCommittable, KafkaSink, KafkaSinkBuilder};
pub use source::{KafkaSource, KafkaSplit};

/// Damaged bytes, for tests of what reads them.
#[cfg(test)]
fn with_flipped_bits(bytes: &[u8], flips: &[proptest::sample::Index]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for flip in flips {
        let bit = flip.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    bytes
}
