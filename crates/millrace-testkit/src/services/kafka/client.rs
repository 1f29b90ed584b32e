//! Client operations, all synchronous and all with a time limit.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::services::{Error, Result};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a record may wait for a broker that is away, on a machine that is very busy.
const DELIVERY_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// A record as it lies in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The partition it lies in.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its value; empty if it has none.
    pub value: Vec<u8>,
}

impl Message {
    /// The value as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.value).expect("the value is text")
    }
}

impl From<&BorrowedMessage<'_>> for Message {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(Into::into),
            value: message.payload().unwrap_or_default().into(),
        }
    }
}

/// Which records of transactions a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All of them, also those of aborted and open transactions.
    ReadUncommitted,
    /// Those of committed transactions, up to the first that is still open.
    ReadCommitted,
}

/// The operations, on the broker at an address. It outlives a broker that is restarted there.
#[derive(Clone, Debug)]
pub struct KafkaClient {
    bootstrap: String,
}

impl KafkaClient {
    /// A client of the broker at `host:port`.
    pub fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned() }
    }

    /// `host:port`, the client setting `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// Creates a topic and waits until clients see it.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        kafka(format!("creating topic {name}"), || {
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
            single(block_on(self.admin()?.create_topics([&topic], &options()))?)?;
            self.wait_for_partitions(name, partitions)
        })
    }

    /// Adds partitions to a topic until there are so many, and waits until
    /// clients see them.
    pub fn grow_topic(&self, name: &str, partitions: i32) -> Result<()> {
        kafka(format!("adding partitions to topic {name}"), || {
            let count = usize::try_from(partitions).unwrap_or_default();
            let grown = NewPartitions::new(name, count);
            single(block_on(self.admin()?.create_partitions([&grown], &options()))?)?;
            self.wait_for_partitions(name, partitions)
        })
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        kafka(format!("deleting topic {name}"), || single(block_on(self.admin()?.delete_topics(&[name], &options()))?))
    }

    /// Deletes a partition's records before this offset.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        kafka(format!("deleting records of {topic}"), || {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(before))?;
            block_on(self.admin()?.delete_records(&list, &options()))?;
            Ok(())
        })
    }

    /// Writes records and returns when the broker has acknowledged them all. Records are sent while the iterator is
    /// still being asked for more, so that it can set a pace.
    ///
    /// Records with a key go to the partition that the key decides, those
    /// without to any.
    pub fn produce<K, V>(&self, topic: &str, records: impl IntoIterator<Item = (Option<K>, V)>) -> Result<()>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        self.send(topic, records.into_iter().map(|(key, value)| (None, key, value)))
    }

    /// Writes records without keys to one partition, as [`produce`](Self::produce) does.
    pub fn produce_to<V>(&self, topic: &str, partition: i32, values: impl IntoIterator<Item = V>) -> Result<()>
    where
        V: AsRef<[u8]>,
    {
        self.send(topic, values.into_iter().map(|value| (Some(partition), None::<&[u8]>, value)))
    }

    fn send<K, V>(&self, topic: &str, records: impl Iterator<Item = (Option<i32>, Option<K>, V)>) -> Result<()>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        kafka(format!("producing to {topic}"), || {
            let producer: BaseProducer<Deliveries> = self
                .config()
                // Each record lies in the topic once, also where the broker is killed and comes back.
                .set("enable.idempotence", "true")
                .set("message.timeout.ms", DELIVERY_LIMIT.as_millis().to_string())
                // A topic was waited for when it was created.
                .set("topic.metadata.propagation.max.ms", "1000")
                .create_with_context(Deliveries::default())?;
            for (partition, key, value) in records {
                let mut record = BaseRecord::to(topic).payload(value.as_ref());
                record.partition = partition;
                record.key = key.as_ref().map(AsRef::as_ref);
                while let Err((error, returned)) = producer.send(record) {
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                        return Err(error);
                    }
                    producer.poll(POLL);
                    record = returned;
                }
                producer.poll(Duration::ZERO);
            }
            // Longer than a message's own limit, which has the better error.
            producer.flush(2 * DELIVERY_LIMIT)?;
            match producer.context().failure.get() {
                Some(error) => Err(error.clone()),
                None => Ok(()),
            }
        })
    }

    /// The records from the beginning to where the topic ended when this was
    /// called, by partition and offset.
    pub fn consume_all(&self, topic: &str, isolation: Isolation) -> Result<Vec<Message>> {
        kafka(format!("consuming {topic}"), || {
            let consumer = self.consumer(isolation)?;
            let ends = ends(&consumer, topic)?;

            let mut assignment = TopicPartitionList::new();
            let mut open = BTreeMap::new();
            for (partition, (begin, end)) in ends {
                if begin < end {
                    assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
                    open.insert(partition, end);
                }
            }
            consumer.assign(&assignment)?;

            let mut messages = Vec::new();
            let mut give_up = Instant::now() + LIMIT;
            while !open.is_empty() {
                match consumer.poll(POLL) {
                    None if Instant::now() >= give_up => {
                        return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
                    }
                    None => {}
                    // Markers of transactions can be a partition's last
                    // entries: its end is then no message's.
                    Some(Err(KafkaError::PartitionEOF(partition))) => {
                        open.remove(&partition);
                    }
                    Some(Err(error)) => return Err(error),
                    Some(Ok(message)) => {
                        give_up = Instant::now() + LIMIT;
                        let Some(end) = open.get(&message.partition()).copied() else {
                            continue;
                        };
                        if message.offset() < end {
                            messages.push(Message::from(&message));
                        }
                        if message.offset() + 1 >= end {
                            open.remove(&message.partition());
                        }
                    }
                }
            }
            messages.sort_by_key(|message| (message.partition, message.offset));
            Ok(messages)
        })
    }

    /// The offset after the last record of each partition.
    pub fn end_offsets(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        kafka(format!("asking for the ends of {topic}"), || {
            let ends = ends(&self.consumer(Isolation::ReadUncommitted)?, topic)?;
            Ok(ends.into_iter().map(|(partition, (_, end))| (partition, end)).collect())
        })
    }

    /// The offsets that a consumer group has committed; a partition without
    /// one is left out.
    pub fn committed_offsets(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        kafka(format!("asking for the offsets of group {group}"), || {
            let consumer: BaseConsumer = self.config().set("group.id", group).create()?;
            let mut asked = TopicPartitionList::new();
            for partition in partitions(&consumer, topic)? {
                asked.add_partition(topic, partition);
            }
            let committed = consumer.committed_offsets(asked, LIMIT)?;
            Ok(committed
                .elements()
                .iter()
                .filter_map(|entry| match entry.offset() {
                    Offset::Offset(offset) => Some((entry.partition(), offset)),
                    _ => None,
                })
                .collect())
        })
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        // A broker that comes back is seen at once.
        config.set("reconnect.backoff.max.ms", "500");
        config
    }

    fn admin(&self) -> KafkaResult<AdminClient<DefaultClientContext>> {
        self.config().create()
    }

    /// A consumer that is assigned its partitions and commits nothing.
    pub(super) fn consumer(&self, isolation: Isolation) -> KafkaResult<BaseConsumer> {
        let level = match isolation {
            Isolation::ReadUncommitted => "read_uncommitted",
            Isolation::ReadCommitted => "read_committed",
        };
        self.config()
            // required, even where no group is joined
            .set("group.id", "millrace-testkit")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            // By default a position that the broker doesn't have would be moved to the end, silently.
            .set("auto.offset.reset", "error")
            .set("isolation.level", level)
            // 500 ms by default: what is committed meanwhile would be seen that late
            .set("fetch.wait.max.ms", "20")
            .create()
    }

    /// A topic that was just changed is not at once in the broker's metadata.
    fn wait_for_partitions(&self, topic: &str, count: i32) -> KafkaResult<()> {
        let consumer = self.consumer(Isolation::ReadUncommitted)?;
        let give_up = Instant::now() + LIMIT;
        loop {
            match partitions(&consumer, topic) {
                Ok(partitions) if partitions.len() as i32 == count => return Ok(()),
                Err(error) if Instant::now() >= give_up => return Err(error),
                _ if Instant::now() >= give_up => {
                    return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
                }
                _ => thread::sleep(POLL),
            }
        }
    }
}

/// Keeps the error of the first record that was not delivered.
#[derive(Default)]
struct Deliveries {
    failure: OnceLock<KafkaError>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            // Only the first one is kept.
            let _ = self.failure.set(error.clone());
        }
    }
}

/// The partitions of a topic, each of which has a leader.
pub(super) fn partitions(consumer: &BaseConsumer, topic: &str) -> KafkaResult<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
    let failed = |error| KafkaError::MetadataFetch(RDKafkaErrorCode::from(error));
    let Some(topic) = metadata.topics().first() else {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic));
    };
    if let Some(error) = topic.error() {
        return Err(failed(error));
    }
    topic
        .partitions()
        .iter()
        .map(|partition| match partition.error() {
            Some(error) => Err(failed(error)),
            None => Ok(partition.id()),
        })
        .collect()
}

/// First and end offset of each partition, as far as the consumer may read.
fn ends(consumer: &BaseConsumer, topic: &str) -> KafkaResult<BTreeMap<i32, (i64, i64)>> {
    partitions(consumer, topic)?
        .into_iter()
        .map(|partition| {
            let marks = consumer.fetch_watermarks(topic, partition, LIMIT)?;
            Ok((partition, marks))
        })
        .collect()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT))
}

/// The outcome of an administrative request for a single topic.
fn single(mut results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> KafkaResult<()> {
    match results.pop() {
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
        _ => Ok(()),
    }
}

/// Runs an operation; its error says what was tried.
pub(super) fn kafka<T>(action: String, operation: impl FnOnce() -> KafkaResult<T>) -> Result<T> {
    operation().map_err(|source| Error::Kafka { action, source })
}
