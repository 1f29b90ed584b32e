//! What `kafka_count` does, by hand: a consumer and a producer of librdkafka on one thread, a standard hash map, and a
//! transaction each second that holds the consumer's offsets too.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{
    Result,
    kafka_count::{Counted, Event, Topics},
};

const TRANSACTION: Duration = Duration::from_secs(1);
/// How long an answer of the broker may take.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Deliveries are looked at after so many records.
const SERVED: u64 = 1024;

/// Runs until it is ended, or to the end of the topic.
pub fn run(args: &Topics) -> Result<()> {
    let consumer = consumer(args)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &args.kafka)
        .set("transactional.id", format!("{}-bare", args.output))
        .create()?;
    producer.init_transactions(LIMIT)?;
    producer.begin_transaction()?;
    let (mut counts, mut begun, mut read) = (HashMap::<String, i64>::new(), Instant::now(), 0u64);
    loop {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let event: Event = serde_json::from_slice(message.payload().unwrap_or_default())?;
                let count = match counts.get_mut(&event.key) {
                    Some(count) => count,
                    None => counts.entry(event.key.clone()).or_default(),
                };
                *count += 1;
                send(&producer, &args.output, &serde_json::to_vec(&Counted { key: event.key, count: *count })?)?;
                read += 1;
                if read.is_multiple_of(SERVED) {
                    producer.poll(Duration::ZERO);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) if args.bounded => return Ok(commit(&consumer, &producer)?),
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
        if begun.elapsed() >= TRANSACTION {
            commit(&consumer, &producer)?;
            producer.begin_transaction()?;
            begun = Instant::now();
        }
    }
}

fn consumer(args: &Topics) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &args.kafka)
        .set("group.id", format!("{}-bare", args.output))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        // As Millrace sets it: after the queue was full, fetching pauses 1 s by default.
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&args.input, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    Ok(consumer)
}

fn send(producer: &BaseProducer, topic: &str, value: &[u8]) -> Result<()> {
    let mut record = BaseRecord::<(), [u8]>::to(topic).payload(value);
    while let Err((error, returned)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        producer.poll(POLL);
        record = returned;
    }
    Ok(())
}

fn commit(consumer: &BaseConsumer, producer: &BaseProducer) -> Result<(), KafkaError> {
    let group = consumer.group_metadata().ok_or(KafkaError::Canceled)?;
    producer.send_offsets_to_transaction(&consumer.position()?, &group, LIMIT)?;
    producer.commit_transaction(LIMIT)
}
