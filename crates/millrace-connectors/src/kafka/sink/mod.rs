//! The Kafka sink: what a program configures and every process holds.

mod builder;
mod committer;
mod coordinator;
mod exactly_once;
mod ids;
mod left_open;
mod outgoing;
mod plain;
mod startup;
mod transaction;

use std::sync::Arc;

use millrace_core::{
    Error, Record, Result,
    checkpoint::CheckpointConfig,
    sink::{Committer, CommitterContext, DeliveryGuarantee, Sink, SinkWriter, WriterContext},
};

use crate::kafka::{StringSerializer, properties::Properties};
pub use builder::KafkaSinkBuilder;
pub use committer::KafkaCommittable;
use committer::KafkaCommitter;
use exactly_once::TransactionalWriter;
use outgoing::{MessageFormat, Outgoing};
use plain::PlainWriter;

/// Writes records to topics, with one of three [`DeliveryGuarantee`]s:
///
/// - [`AtLeastOnce`](DeliveryGuarantee::AtLeastOnce), the default: a checkpoint completes only when every record before
///   it has been acknowledged by all in-sync replicas; what was written after the last completed one is written again
///   after a failure.
/// - [`ExactlyOnce`](DeliveryGuarantee::ExactlyOnce): records are written in transactions, one for each checkpoint and
///   subtask, which are committed when the checkpoint is complete. Consumers with `isolation.level=read_committed` see
///   each record once, at the latest a checkpoint interval after it was written. It needs a
///   [`transactional_id_prefix`](KafkaSinkBuilder::transactional_id_prefix) and Kafka 3.0 or later. A transaction must be
///   committed within `transaction.timeout.ms`, 15 minutes unless the property says otherwise, or Kafka aborts it: so
///   that is how long the job may be down. What was lost in this way fails the job with an error that says so.
/// - [`None`](DeliveryGuarantee::None): checkpoints wait for nothing.
///
/// ```
/// use millrace_connectors::kafka::KafkaSink;
/// use millrace_core::sink::DeliveryGuarantee;
///
/// # fn main() -> millrace_core::Result<()> {
/// let sink = KafkaSink::strings()
///     .bootstrap_servers("localhost:9092")
///     .topic("output-topic")
///     .delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
///     .transactional_id_prefix("my-job")
///     .build()?;
/// # let _ = sink;
/// # Ok(())
/// # }
/// ```
pub struct KafkaSink<T> {
    settings: Arc<Settings>,
    format: MessageFormat<T>,
}

/// What all writers of a sink go by.
pub(super) struct Settings {
    properties: Properties,
    guarantee: DeliveryGuarantee,
    prefix: Option<String>,
}

impl Settings {
    fn prefix(&self) -> Result<&str> {
        self.prefix.as_deref().ok_or_else(|| Error::internal("a Kafka sink without a transactional id prefix"))
    }
}

impl<T> KafkaSink<T> {
    /// Begins a sink; [`KafkaSinkBuilder::serializer`] says what its messages are.
    pub fn builder() -> KafkaSinkBuilder<T> {
        KafkaSinkBuilder::default()
    }
}

impl KafkaSink<String> {
    /// Begins a sink of text as values, without keys.
    pub fn strings() -> KafkaSinkBuilder<String> {
        Self::builder().serializer(StringSerializer)
    }
}

impl<T> Clone for KafkaSink<T> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings), format: self.format.clone() }
    }
}

impl<T: Record> Sink for KafkaSink<T> {
    type Record = T;
    type Committable = KafkaCommittable;

    fn create_writer(
        &self,
        context: &mut WriterContext<KafkaCommittable>,
    ) -> Result<Box<dyn SinkWriter<T, KafkaCommittable>>> {
        let outgoing = Outgoing::new(self.settings.properties.servers(), self.format.clone());
        Ok(match self.settings.guarantee {
            DeliveryGuarantee::ExactlyOnce => {
                Box::new(TransactionalWriter::new(Arc::clone(&self.settings), outgoing, context)?)
            }
            _ => Box::new(PlainWriter::new(&self.settings, outgoing)?),
        })
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<KafkaCommittable>>> {
        Ok(Box::new(KafkaCommitter::new(self.settings.properties.servers())))
    }

    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        self.settings.guarantee
    }

    fn check(&self, checkpoints: &CheckpointConfig) -> Result<()> {
        let (DeliveryGuarantee::ExactlyOnce, Some(interval)) = (self.settings.guarantee, checkpoints.interval) else {
            return Ok(());
        };
        let timeout = self.settings.properties.transaction_timeout()?;
        if timeout <= interval {
            return Err(Error::invalid(format!(
                "the Kafka sink's transaction.timeout.ms is {}, and the checkpoint interval {interval:?}: Kafka would abort \
                 each transaction before its checkpoint commits it. Set the property transaction.timeout.ms to more \
                 than the interval and the longest outage that the job is to survive, or choose a shorter interval",
                timeout.as_millis()
            )));
        }
        if timeout <= interval.saturating_add(checkpoints.timeout) {
            tracing::warn!(
                ?interval,
                checkpoint_timeout = ?checkpoints.timeout,
                transaction_timeout = ?timeout,
                "a checkpoint that takes its whole time would find its Kafka transactions aborted: \
                 transaction.timeout.ms should be more than the checkpoint interval and timeout together"
            );
        }
        Ok(())
    }
}
