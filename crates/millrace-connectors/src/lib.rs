//! The sources and sinks that come with Millrace.
//!
//! | | source | sink |
//! |---|---|---|
//! | Kafka (feature `kafka`, on by default) | [`KafkaSource`](kafka::KafkaSource) | [`KafkaSink`](kafka::KafkaSink) |
//! | files | [`FileSource`], of text lines | [`FileSink`], also on S3 (feature `s3`, on by default); Parquet with the feature `parquet` |
//! | PostgreSQL (feature `postgres`) | | `postgres::PostgresSink`, which updates rows by their key |
//! | made up | [`GeneratorSource`], [`CollectionSource`] | [`PrintSink`], [`DiscardingSink`] |
//!
//! All sources are replayable: each keeps the position of every split, so that with checkpoints on no record is lost
//! and none counts twice in state. Sinks write at least once: what was written after the last completed checkpoint is
//! written again after a failure. The file sink delivers exactly once, and the Kafka sink can: what they
//! have written is seen when its checkpoint is complete.

mod collection;
mod discard;
pub mod file;
mod generator;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "postgres")]
pub mod postgres;
mod print;
mod sweep;
mod undecodable;

pub use collection::{CollectionSource, CollectionSplit};
pub use discard::DiscardingSink;
pub use file::{FileSink, FileSource};
pub use generator::{GeneratorSource, GeneratorSplit};
pub use print::PrintSink;
pub use undecodable::Undecodable;

#[cfg(test)]
mod tests {
    use millrace_core::schema::Schema;

    /// Splits live in checkpoints, headed by their schema.
    #[test]
    fn all_splits_have_a_schema() {
        Schema::of::<super::CollectionSplit>().unwrap();
        Schema::of::<super::GeneratorSplit>().unwrap();
        Schema::of::<super::file::FileSplit>().unwrap();
        #[cfg(feature = "kafka")]
        Schema::of::<super::kafka::KafkaSplit>().unwrap();
    }
}
