//! Records on their way into a producer.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use millrace_core::{Error, Result};
use rdkafka::{
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode,
};

use crate::kafka::{
    MessageHeader, Serializer,
    builder::is_topic_name,
    context::Context,
    errors::{call_failed, no_such_topic},
};

const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// A poll lasts its whole time, also when what it was for has happened: so it is short.
const POLL: Duration = Duration::from_millis(1);
/// For what librdkafka reports of a failed connection.
const REPORT: Duration = Duration::from_millis(100);
/// While records are handed over, acknowledgements are taken after so many.
const POLL_EVERY: usize = 256;

/// Makes messages of records and hands them to a producer.
pub(super) struct Outgoing<T> {
    servers: String,
    format: MessageFormat<T>,
    /// The topics that are known to be there, with how many partitions.
    known: RefCell<BTreeMap<String, i32>>,
}

/// What becomes of a record.
pub(super) struct MessageFormat<T> {
    pub topic: Topic<T>,
    pub serializer: Arc<dyn Serializer<T>>,
    pub partitioner: Option<Partitioner<T>>,
}

/// Where records go.
pub(super) enum Topic<T> {
    One(Arc<str>),
    Selected(Arc<dyn Fn(&T) -> String + Send + Sync>),
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Self {
        match self {
            Self::One(topic) => Self::One(Arc::clone(topic)),
            Self::Selected(select) => Self::Selected(Arc::clone(select)),
        }
    }
}

/// Chooses a record's partition, given how many there are.
pub(super) type Partitioner<T> = Arc<dyn Fn(&T, i32) -> i32 + Send + Sync>;

impl<T> Clone for MessageFormat<T> {
    fn clone(&self) -> Self {
        let Self { topic, serializer, partitioner } = self;
        Self { topic: topic.clone(), serializer: Arc::clone(serializer), partitioner: partitioner.clone() }
    }
}

impl<T: 'static> Outgoing<T> {
    pub fn new(servers: &str, format: MessageFormat<T>) -> Self {
        Self { servers: servers.to_owned(), format, known: RefCell::default() }
    }

    /// Makes sure that the topic is there, where it is known before the first record.
    pub fn check_topic(&self, producer: &BaseProducer<Context>) -> Result<()> {
        match &self.format.topic {
            Topic::One(topic) => self.partitions(producer, topic).map(drop),
            Topic::Selected(_) => Ok(()),
        }
    }

    /// How many partitions a topic has. librdkafka would let records of an unknown one wait.
    fn partitions(&self, producer: &BaseProducer<Context>, topic: &str) -> Result<i32> {
        if let Some(partitions) = self.known.borrow().get(topic) {
            return Ok(*partitions);
        }
        if !is_topic_name(topic) {
            return Err(Error::user(format!("a record is to go to topic {topic:?}: that is no topic's name")));
        }
        let metadata = producer.client().fetch_metadata(Some(topic), ANSWER_LIMIT).map_err(|error| {
            producer.poll(REPORT);
            let reported = producer.context().take_last_error();
            call_failed(&format!("looking up topic {topic}"), &self.servers, &error, reported)
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if let Some(error) = found.and_then(|found| found.error()) {
            return Err(match RDKafkaErrorCode::from(error) {
                RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                    no_such_topic(topic, &self.servers)
                }
                code => {
                    let error = KafkaError::MetadataFetch(code);
                    call_failed(&format!("looking up topic {topic}"), &self.servers, &error, None)
                }
            });
        }
        let partitions = found.map_or(0, |found| found.partitions().len()) as i32;
        self.known.borrow_mut().insert(topic.to_owned(), partitions);
        Ok(partitions)
    }

    pub fn send_all(&self, producer: &BaseProducer<Context>, records: &[T]) -> Result<()> {
        for (i, record) in records.iter().enumerate() {
            self.send(producer, record)?;
            if i % POLL_EVERY == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        self.check(producer)
    }

    fn send(&self, producer: &BaseProducer<Context>, record: &T) -> Result<()> {
        let function = Error::from_function;
        let serializer = &self.format.serializer;
        let chosen;
        let topic = match &self.format.topic {
            Topic::One(topic) => &**topic,
            Topic::Selected(select) => {
                chosen = select(record);
                self.partitions(producer, &chosen)?;
                &chosen
            }
        };
        let key = serializer.key(record).map_err(function)?;
        let value = serializer.value(record).map_err(function)?;
        let mut message = BaseRecord::<[u8], [u8]>::to(topic).payload(&*value);
        message.key = key.as_deref();
        message.timestamp = serializer.timestamp(record).map_err(function)?;
        message.partition = self.partition(producer, record, topic)?;
        let headers = serializer.headers(record).map_err(function)?;
        if !headers.is_empty() {
            let owned = OwnedHeaders::new_with_capacity(headers.len());
            let insert = |owned: OwnedHeaders, header: &MessageHeader<'_>| {
                owned.insert(Header { key: &header.0, value: header.1.as_deref() })
            };
            message.headers = Some(headers.iter().fold(owned, insert));
        }
        loop {
            match producer.send(message) {
                Ok(()) => return Ok(()),
                // Backpressure: wait until Kafka has taken some.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    message = returned;
                    producer.poll(POLL);
                    self.check(producer)?;
                }
                Err((error, _)) => {
                    let size = value.len() + key.as_deref().map_or(0, <[u8]>::len);
                    let failed = format!("writing a record of {size} bytes to topic {topic}");
                    let reported = producer.context().take_last_error();
                    return Err(call_failed(&failed, &self.servers, &error, reported));
                }
            }
        }
    }

    /// The partition that the program chooses; otherwise the key decides.
    fn partition(&self, producer: &BaseProducer<Context>, record: &T, topic: &str) -> Result<Option<i32>> {
        let Some(partitioner) = &self.format.partitioner else { return Ok(None) };
        let partitions = self.partitions(producer, topic)?;
        match partitioner(record, partitions) {
            chosen if (0..partitions).contains(&chosen) => Ok(Some(chosen)),
            wrong => Err(Error::user(format!(
                "the Kafka sink's partitioner chose partition {wrong} of topic {topic}, which has {partitions} \
                 partitions, numbered from 0"
            ))),
        }
    }

    /// Returns when everything that was handed over has been acknowledged.
    pub fn flush(&self, producer: &BaseProducer<Context>) -> Result<()> {
        loop {
            match producer.flush(POLL) {
                Ok(()) => return self.check(producer),
                Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => self.check(producer)?,
                Err(error) => {
                    let flushing = format!("flushing {}", self.named());
                    return Err(call_failed(&flushing, &self.servers, &error, None));
                }
            }
        }
    }

    /// An error if any delivery has failed since the last time.
    pub fn check(&self, producer: &BaseProducer<Context>) -> Result<()> {
        let Some((failed, first)) = producer.context().take_failed_deliveries() else { return Ok(()) };
        Err(Error::external(format!(
            "{failed} records were not delivered to {} on Kafka at {}: {first}",
            self.named(),
            self.servers
        )))
    }

    fn named(&self) -> String {
        let known = self.known.borrow();
        format!("topic {}", known.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
    }
}
