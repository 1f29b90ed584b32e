//! Finds partitions and where to begin in them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    Error, Result,
    source::{Discovery, SplitEnumerator},
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::{
    KafkaSplit, StartingOffsets,
    context::Context,
    errors::{call_failed, is_missing, no_such_topic},
    offsets::{OffsetLookup, Partition},
    source::{Settings, split_id},
};

/// A cluster that does not answer for so long is unreachable.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// A topic that was just made is not known to all brokers at once.
const TOPIC_LIMIT: Duration = Duration::from_secs(2);
const REPORT_LIMIT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(100);

pub(super) struct KafkaEnumerator {
    settings: Arc<Settings>,
}

impl KafkaEnumerator {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings }
    }
}

impl SplitEnumerator<KafkaSplit> for KafkaEnumerator {
    /// Connects anew each time: between two looks no client has to be kept alive and polled.
    fn discover(&mut self, known: &BTreeSet<String>, discovery: Discovery) -> Result<Vec<KafkaSplit>> {
        let settings = &*self.settings;
        if settings.bounded && discovery == Discovery::Later {
            return Ok(vec![]);
        }
        let servers = settings.properties.servers();
        let client = settings.connect(false)?;
        let look = Look { client: &client, servers, deadline: Instant::now() + ANSWER_LIMIT };
        let mut new = Vec::new();
        for topic in &settings.topics {
            let partitions = look.partitions(topic).map_err(|error| match discovery {
                Discovery::Initial => error,
                // It was there when the job started: a broker that has just started may not know it yet.
                Discovery::Later => Error { retryable: true, ..error },
            })?;
            let unknown = partitions.into_iter().filter(|partition| !known.contains(&split_id(topic, *partition)));
            new.extend(unknown.map(|partition| (topic.clone(), partition)));
        }
        if new.is_empty() {
            return Ok(vec![]);
        }
        let offsets = look.offsets();
        let start = match discovery {
            Discovery::Initial => settings.start,
            Discovery::Later => StartingOffsets::Earliest,
        };
        let starts = offsets.resolve(&new, start)?;
        let stops = if settings.bounded { Some(offsets.ends(&new)?) } else { None };
        let split = |(i, (topic, partition)): (usize, Partition)| {
            let stop = stops.as_ref().map(|stops| stops[i]);
            KafkaSplit { topic, partition, offset: starts[i], stop }
        };
        Ok(new.into_iter().enumerate().map(split).collect())
    }

    fn discovery_interval(&self) -> Option<Duration> {
        (!self.settings.bounded).then_some(self.settings.discovery_interval)
    }
}

/// One look at a cluster.
pub(super) struct Look<'a> {
    pub(super) client: &'a BaseConsumer<Context>,
    pub(super) servers: &'a str,
    pub(super) deadline: Instant,
}

impl Look<'_> {
    /// The partitions of a topic, each of which has a leader.
    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let missing_until = self.deadline.min(Instant::now() + TOPIC_LIMIT);
        loop {
            let code = match self.try_partitions(topic) {
                Ok(partitions) => return Ok(partitions),
                Err(code) => code,
            };
            let is_missing = is_missing(code);
            let until = match code {
                RDKafkaErrorCode::LeaderNotAvailable => self.deadline,
                _ if is_missing => missing_until,
                _ => Instant::now(),
            };
            if Instant::now() < until {
                thread::sleep(RETRY);
            } else if is_missing {
                return Err(no_such_topic(topic, self.servers).fatal());
            } else {
                return Err(self.failed(topic, code));
            }
        }
    }

    fn failed(&self, topic: &str, code: RDKafkaErrorCode) -> Error {
        // Serves what librdkafka has to tell: why it could not connect.
        while Instant::now() < self.deadline + REPORT_LIMIT && self.client.poll(RETRY).is_some() {}
        let reported = self.client.context().take_last_error();
        call_failed(&format!("looking up topic {topic}"), self.servers, &KafkaError::MetadataFetch(code), reported)
    }

    /// The way to offsets, within the same time.
    pub(super) fn offsets(&self) -> OffsetLookup<'_> {
        OffsetLookup { client: self.client, servers: self.servers, deadline: self.deadline }
    }

    pub(super) fn try_partitions(&self, topic: &str) -> std::result::Result<Vec<i32>, RDKafkaErrorCode> {
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let metadata = self
            .client
            .fetch_metadata(Some(topic), left)
            .map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))?;
        let Some(topic) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        };
        if let Some(error) = topic.error() {
            return Err(error.into());
        }
        let ids = topic.partitions().iter().map(|partition| match partition.leader() {
            -1 => Err(RDKafkaErrorCode::LeaderNotAvailable),
            _ => Ok(partition.id()),
        });
        let mut ids = ids.collect::<std::result::Result<Vec<_>, _>>()?;
        ids.sort_unstable();
        Ok(ids)
    }
}
