//! Where reading begins: `latest` and its like become concrete offsets, once, on the jobmanager.

use std::time::{Duration, Instant};

use millrace_core::{Error, Result};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde::{Deserialize, Serialize};

use super::{context::Context, errors::call_failed};

/// Where reading begins in partitions that are there at the job's first start. A partition that appears later is read
/// from its beginning; a restored job goes on where its checkpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartingOffsets {
    /// Behind the last message.
    #[default]
    Latest,
    /// At the first message that is still there.
    Earliest,
    /// Where the consumer group's committed offsets say, and otherwise as said here.
    Committed(OffsetReset),
    /// At the first message of this time (milliseconds since the epoch) or later.
    Timestamp(i64),
}

/// Where to begin in a partition for which the group has committed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OffsetReset {
    /// Behind the last message.
    Latest,
    /// At the first message that is still there.
    Earliest,
}

/// A partition of a topic.
pub(super) type Partition = (String, i32);

/// Asks a cluster for offsets.
pub(super) struct OffsetLookup<'a> {
    pub(super) client: &'a BaseConsumer<Context>,
    pub(super) servers: &'a str,
    pub(super) deadline: Instant,
}

impl OffsetLookup<'_> {
    /// Concrete offsets, one for each partition, in order.
    pub(super) fn resolve(&self, partitions: &[Partition], start: StartingOffsets) -> Result<Vec<i64>> {
        match start {
            StartingOffsets::Latest => self.ends(partitions),
            StartingOffsets::Earliest => self.beginnings(partitions),
            StartingOffsets::Timestamp(time) => {
                let found = self.offsets_at(partitions, Offset::Offset(time))?;
                // Where no message is that late, reading begins with the next one.
                self.fill(partitions, found, OffsetReset::Latest)
            }
            StartingOffsets::Committed(otherwise) => {
                let list = list(partitions, Offset::Invalid)?;
                let committed = self.client.committed_offsets(list, self.left());
                let committed = committed.map_err(|error| self.failed("fetching committed offsets", &error))?;
                let committed = self.concrete(partitions, &committed)?;
                self.fill(partitions, committed, otherwise)
            }
        }
    }

    /// The first offset of each partition.
    pub(super) fn beginnings(&self, partitions: &[Partition]) -> Result<Vec<i64>> {
        self.all(partitions, Offset::Beginning)
    }

    /// The offset behind the last message of each partition; where a transaction is open, before it.
    pub(super) fn ends(&self, partitions: &[Partition]) -> Result<Vec<i64>> {
        self.all(partitions, Offset::End)
    }

    fn all(&self, partitions: &[Partition], at: Offset) -> Result<Vec<i64>> {
        let found = self.offsets_at(partitions, at)?.into_iter().zip(partitions);
        let named = |(offset, (topic, partition)): (Option<i64>, &Partition)| {
            let servers = self.servers;
            offset.ok_or_else(|| {
                Error::external(format!("Kafka at {servers} tells no offset of partition {partition} of {topic}"))
            })
        };
        found.map(named).collect()
    }

    /// Puts beginnings or ends where there is no offset.
    fn fill(&self, partitions: &[Partition], found: Vec<Option<i64>>, reset: OffsetReset) -> Result<Vec<i64>> {
        let missing = found.iter().zip(partitions).filter(|(offset, _)| offset.is_none());
        let missing: Vec<_> = missing.map(|(_, partition)| partition.clone()).collect();
        let filled = match (missing.is_empty(), reset) {
            (true, _) => vec![],
            (_, OffsetReset::Latest) => self.ends(&missing)?,
            (_, OffsetReset::Earliest) => self.beginnings(&missing)?,
        };
        let mut filled = filled.into_iter();
        Ok(found.into_iter().filter_map(|offset| offset.or_else(|| filled.next())).collect())
    }

    /// Asks by time; `Beginning` and `End` stand for themselves in this request.
    fn offsets_at(&self, partitions: &[Partition], at: Offset) -> Result<Vec<Option<i64>>> {
        let found = self.client.offsets_for_times(list(partitions, at)?, self.left());
        let found = found.map_err(|error| self.failed("fetching offsets", &error))?;
        self.concrete(partitions, &found)
    }

    fn concrete(&self, partitions: &[Partition], found: &TopicPartitionList) -> Result<Vec<Option<i64>>> {
        let one = |(topic, partition): &Partition| {
            let Some(element) = found.find_partition(topic, *partition) else { return Ok(None) };
            let what = format!("fetching the offset of partition {partition} of topic {topic}");
            element.error().map_err(|error| self.failed(&what, &error))?;
            Ok(match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            })
        };
        partitions.iter().map(one).collect()
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    fn failed(&self, what: &str, error: &rdkafka::error::KafkaError) -> Error {
        call_failed(what, self.servers, error, self.client.context().take_last_error())
    }
}

/// A list of partitions, all with the same offset.
fn list(partitions: &[Partition], offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, offset)
            .map_err(|error| Error::invalid(format!("partition {partition} of topic {topic}: {error}")))?;
    }
    Ok(list)
}
