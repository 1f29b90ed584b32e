//! A reader that goes on where it was.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Isolation, KafkaClient, Message, kafka, partitions};
use crate::services::Result;

/// Reads a topic from its beginning, a part at a time.
pub struct Follower {
    topic: String,
    consumer: BaseConsumer,
}

impl KafkaClient {
    /// A reader at the beginning of all partitions that a topic has now.
    pub fn follow(&self, topic: &str, isolation: Isolation) -> Result<Follower> {
        kafka(format!("following {topic}"), || {
            let consumer = self.consumer(isolation)?;
            let mut assignment = TopicPartitionList::new();
            for partition in partitions(&consumer, topic)? {
                assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
            consumer.assign(&assignment)?;
            Ok(Follower { topic: topic.to_owned(), consumer })
        })
    }
}

impl Follower {
    /// What was not returned yet: waits up to `limit` for a first record, and not for more. A broker that is away is
    /// waited for, too.
    pub fn read_on(&mut self, limit: Duration) -> Result<Vec<Message>> {
        kafka(format!("following {}", self.topic), || {
            let mut messages = Vec::new();
            let mut wait = limit;
            while let Some(polled) = self.consumer.poll(wait) {
                match polled {
                    Ok(message) => messages.push(Message::from(&message)),
                    Err(KafkaError::PartitionEOF(_)) => {}
                    // The client goes on by itself when the broker is back.
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                }
                if !messages.is_empty() {
                    wait = Duration::ZERO;
                }
            }
            Ok(messages)
        })
    }
}

/// Whether an error says no more than that the broker is away.
fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, CoordinatorNotAvailable, LeaderNotAvailable, NotLeaderForPartition,
        RequestTimedOut,
    };
    let passing = [
        AllBrokersDown,
        BrokerTransportFailure,
        CoordinatorNotAvailable,
        LeaderNotAvailable,
        NotLeaderForPartition,
        RequestTimedOut,
    ];
    matches!(error, KafkaError::MessageConsumption(code) if passing.contains(code))
}
