//! Writing without transactions: at least once, or with no guarantee.

use millrace_core::{
    Error, Record, Result,
    sink::{DeliveryGuarantee, SinkWriter},
};
use rdkafka::producer::BaseProducer;

use super::{KafkaCommittable, Settings, outgoing::Outgoing};
use crate::kafka::{closing::ClosingProducer, context::Context};

pub(super) struct PlainWriter<T: 'static> {
    producer: ClosingProducer,
    outgoing: Outgoing<T>,
    guarantee: DeliveryGuarantee,
}

impl<T: 'static> PlainWriter<T> {
    /// Connects, and makes sure that the topic is there.
    pub fn new(settings: &Settings, outgoing: Outgoing<T>) -> Result<Self> {
        let producer: BaseProducer<Context> = settings
            .properties
            .producer(settings.guarantee)?
            .create_with_context(Context::default())
            .map_err(|error| Error::invalid(format!("Kafka client refused: {error}")))?;
        outgoing.check_topic(&producer)?;
        Ok(Self { producer: ClosingProducer::new(producer), outgoing, guarantee: settings.guarantee })
    }
}

impl<T: Record> SinkWriter<T, KafkaCommittable> for PlainWriter<T> {
    fn write(&mut self, records: Vec<T>) -> Result<()> {
        self.outgoing.send_all(&self.producer, &records)
    }

    fn prepare_commit(&mut self) -> Result<Vec<KafkaCommittable>> {
        match self.guarantee {
            DeliveryGuarantee::None => self.outgoing.check(&self.producer)?,
            _ => self.outgoing.flush(&self.producer)?,
        }
        Ok(Vec::new())
    }
}

impl<T: 'static> Drop for PlainWriter<T> {
    /// Without a guarantee nothing waits for what is under way, except the end.
    fn drop(&mut self) {
        if self.guarantee == DeliveryGuarantee::None
            && let Err(error) = self.outgoing.flush(&self.producer)
        {
            tracing::warn!("the last records of a sink without a delivery guarantee are lost: {error}");
        }
    }
}
