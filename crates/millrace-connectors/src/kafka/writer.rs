//! Hands records to librdkafka and waits for their acknowledgement.

use std::{sync::Arc, time::Duration};

use millrace_core::{
    Error, Record, Result,
    sink::{NoCommittable, SinkWriter},
};
use rdkafka::{
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode,
};

use super::{
    Serializer,
    context::Context,
    errors::{call_failed, no_such_topic},
    properties::Properties,
};

const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// A poll lasts its whole time, also when what it was for has happened: so it is short.
const POLL: Duration = Duration::from_millis(1);
/// For what librdkafka reports of a failed connection.
const REPORT: Duration = Duration::from_millis(100);
/// While records are handed over, acknowledgements are taken after so many.
const POLL_EVERY: usize = 256;

pub(super) struct KafkaWriter<T> {
    producer: BaseProducer<Context>,
    servers: String,
    topic: Arc<str>,
    serializer: Arc<dyn Serializer<T>>,
}

impl<T> KafkaWriter<T> {
    /// Connects, and makes sure that the topic is there: librdkafka would let records of an unknown one wait.
    pub(super) fn new(properties: &Properties, topic: Arc<str>, serializer: Arc<dyn Serializer<T>>) -> Result<Self> {
        let producer: BaseProducer<Context> = properties
            .producer()?
            .create_with_context(Context::default())
            .map_err(|error| Error::invalid(format!("Kafka client refused: {error}")))?;
        let writer = Self { producer, servers: properties.servers().to_owned(), topic, serializer };
        let metadata = writer.producer.client().fetch_metadata(Some(&writer.topic), ANSWER_LIMIT).map_err(|error| {
            writer.producer.poll(REPORT);
            let reported = writer.producer.context().take_last_error();
            call_failed(&format!("looking up topic {}", writer.topic), &writer.servers, &error, reported)
        })?;
        match metadata.topics().iter().find(|found| found.name() == &*writer.topic).and_then(|found| found.error()) {
            None => Ok(writer),
            Some(error) => Err(match RDKafkaErrorCode::from(error) {
                RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                    no_such_topic(&writer.topic, &writer.servers)
                }
                code => {
                    let error = KafkaError::MetadataFetch(code);
                    call_failed(&format!("looking up topic {}", writer.topic), &writer.servers, &error, None)
                }
            }),
        }
    }

    /// An error if any delivery has failed since the last time.
    fn check(&self) -> Result<()> {
        let Some((failed, first)) = self.producer.context().take_failed_deliveries() else { return Ok(()) };
        Err(Error::external(format!(
            "{failed} records were not delivered to topic {} on Kafka at {}: {first}",
            self.topic, self.servers
        )))
    }

    fn send(&self, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).payload(value);
        record.key = key;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                // Backpressure: wait until Kafka has taken some.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    record = returned;
                    self.producer.poll(POLL);
                    self.check()?;
                }
                Err((error, _)) => {
                    let size = value.len() + key.map_or(0, <[u8]>::len);
                    let failed = format!("writing a record of {size} bytes to topic {}", self.topic);
                    return Err(call_failed(&failed, &self.servers, &error, None));
                }
            }
        }
    }
}

impl<T: Record> SinkWriter<T> for KafkaWriter<T> {
    fn write(&mut self, records: Vec<T>) -> Result<()> {
        for (i, record) in records.iter().enumerate() {
            let key = self.serializer.key(record).map_err(Error::from_function)?;
            let value = self.serializer.value(record).map_err(Error::from_function)?;
            self.send(key.as_deref(), &value)?;
            if i % POLL_EVERY == 0 {
                self.producer.poll(Duration::ZERO);
            }
        }
        self.check()
    }

    fn prepare_commit(&mut self) -> Result<Vec<NoCommittable>> {
        loop {
            match self.producer.flush(POLL) {
                Ok(()) => return self.check().map(|()| Vec::new()),
                Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => self.check()?,
                Err(error) => {
                    let flushing = format!("flushing topic {}", self.topic);
                    return Err(call_failed(&flushing, &self.servers, &error, None));
                }
            }
        }
    }
}
