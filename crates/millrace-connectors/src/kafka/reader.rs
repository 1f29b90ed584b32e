//! Reads partitions from where it is told, and nowhere else.

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use millrace_core::{
    Error, Record, Result,
    ids::CheckpointId,
    source::{ReadStatus, SourceReader},
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
};

use super::{
    KafkaSplit,
    closing::ClosingConsumer,
    context::Context,
    deserialize::{Deserializer, KafkaMessage},
    errors::{Verdict, call_failed, judge},
    intake::Intake,
    source::Settings,
    watch::Watch,
};
use crate::undecodable::UndecodableRecords;

/// How long to ask for a partition's range, after an error.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Checkpoints that were neither completed nor superseded are forgotten beyond this number.
const MAX_SNAPSHOTS: usize = 100;

pub(super) struct KafkaReader<T> {
    settings: Arc<Settings>,
    intake: Intake<T>,
    /// Made with the first split: a subtask without any needs no connection.
    consumer: Option<ClosingConsumer>,
    no_more_splits: bool,
    /// The positions of checkpoints that are not complete yet.
    snapshots: BTreeMap<CheckpointId, Vec<KafkaSplit>>,
    /// Made with the consumer.
    watch: Option<Watch>,
}

impl<T: 'static> KafkaReader<T> {
    pub(super) fn new(settings: Arc<Settings>, deserializer: Arc<dyn Deserializer<T>>) -> Self {
        let name = format!("kafka {}", settings.topics.join(","));
        let intake = Intake::new(deserializer, UndecodableRecords::new(settings.undecodable, name));
        let snapshots = BTreeMap::new();
        Self { settings, intake, consumer: None, no_more_splits: false, snapshots, watch: None }
    }

    fn is_finished(&self) -> bool {
        self.settings.bounded && self.no_more_splits && self.intake.open().next().is_none()
    }

    /// Polls up to `max` messages, waiting for the first. Returns whether there are more.
    fn poll(&mut self, max: usize, wait: Duration, out: &mut Vec<T>) -> Result<bool> {
        let Some(consumer) = &self.consumer else {
            thread::sleep(wait);
            return Ok(false);
        };
        let mut timeout = wait;
        for _ in 0..max {
            match consumer.poll(timeout) {
                None => return Ok(false),
                Some(Ok(message)) => {
                    let message = KafkaMessage {
                        topic: message.topic(),
                        partition: message.partition(),
                        offset: message.offset(),
                        timestamp: message.timestamp().to_millis(),
                        key: message.key(),
                        value: message.payload(),
                    };
                    self.intake.accept(&message, out)?;
                }
                Some(Err(error)) => match judge(&error) {
                    Verdict::Passing => tracing::debug!("Kafka: {error}"),
                    Verdict::Group if self.settings.group.is_none() => tracing::debug!("Kafka: {error}"),
                    // The watch finds out whether it stays away.
                    Verdict::Missing => tracing::debug!("Kafka: {error}"),
                    verdict => return Err(self.failed(consumer, &error, verdict)),
                },
            }
            timeout = Duration::ZERO;
        }
        Ok(true)
    }

    /// The error of a reader that can't go on.
    fn failed(&self, consumer: &BaseConsumer<Context>, error: &KafkaError, verdict: Verdict) -> Error {
        let servers = self.settings.properties.servers();
        if verdict == Verdict::Position
            && let Some(lost) = self.intake.open().find_map(|split| lost_position(consumer, split, servers))
        {
            return lost;
        }
        let topics = self.settings.topics.join(", ");
        let reported = consumer.context().take_last_error();
        call_failed(&format!("reading topic {topics}"), servers, error, reported)
    }

    /// Partitions may end with messages that no reader gets, such as the marks of transactions.
    fn pass_unseen_messages(&mut self) {
        let Some(positions) = self.consumer.as_ref().and_then(|consumer| consumer.position().ok()) else { return };
        for element in positions.elements() {
            if let Offset::Offset(offset) = element.offset() {
                self.intake.skip_to(element.topic(), element.partition(), offset);
            }
        }
    }
}

/// The error of a position that a partition does not have; `None` if it has it, or does not tell.
fn lost_position(consumer: &BaseConsumer<Context>, split: &KafkaSplit, servers: &str) -> Option<Error> {
    let KafkaSplit { topic, partition, offset, .. } = split;
    let (begin, end) = consumer.fetch_watermarks(topic, *partition, ASK_LIMIT).ok()?;
    let is_lost = !(begin..=end).contains(offset);
    is_lost.then(|| {
        Error::external(format!(
            "offset {offset} of partition {partition} of topic {topic} is outside its range {begin}..{end} on Kafka at \
             {servers}: messages were deleted before they were read, or the topic was deleted and created anew. The \
             position is not moved silently; start the job anew without its checkpoint to read from another one"
        ))
        .fatal()
    })
}

impl<T: Record> SourceReader<T, KafkaSplit> for KafkaReader<T> {
    fn add_splits(&mut self, splits: Vec<KafkaSplit>) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for KafkaSplit { topic, partition, offset, stop } in &splits {
            if stop.is_none_or(|stop| *offset < stop) {
                list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(|error| {
                    Error::internal(format!("offset {offset} of partition {partition} of topic {topic}: {error}"))
                })?;
            }
        }
        self.intake.add(splits.clone());
        if list.count() == 0 {
            return Ok(());
        }
        let watch = match &self.watch {
            Some(watch) => watch,
            None => self.watch.insert(Watch::start(Arc::clone(&self.settings))?),
        };
        watch.add(&splits);
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            none => none.insert(ClosingConsumer::new(self.settings.connect(true)?)),
        };
        // Partitions that are read already are not disturbed.
        consumer.incremental_assign(&list).map_err(|error| {
            Error::external(format!("Kafka at {} assigns no partitions: {error}", self.settings.properties.servers()))
        })
    }

    fn no_more_splits(&mut self) {
        self.no_more_splits = true;
    }

    fn read(&mut self, max: usize, wait: Duration, out: &mut Vec<T>) -> Result<ReadStatus> {
        if self.is_finished() {
            return Ok(ReadStatus::Finished);
        }
        self.intake.begin_batch();
        let has_more = self.poll(max, wait, out)?;
        if let Some(watch) = &self.watch {
            watch.check(self.intake.open(), self.settings.properties.servers())?;
        }
        if !has_more && self.settings.bounded {
            self.pass_unseen_messages();
        }
        Ok(match (self.is_finished(), has_more) {
            (true, _) => ReadStatus::Finished,
            (_, true) => ReadStatus::More,
            (_, false) => ReadStatus::Idle,
        })
    }

    fn position(&self) -> String {
        self.intake.position()
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<KafkaSplit>> {
        let splits: Vec<_> = self.intake.splits().cloned().collect();
        if self.settings.group.is_some() {
            self.snapshots.insert(checkpoint, splits.clone());
            if self.snapshots.len() > MAX_SNAPSHOTS {
                self.snapshots.pop_first();
            }
        }
        Ok(splits)
    }

    fn pending_records(&self) -> Option<u64> {
        self.watch.as_ref()?.pending(self.intake.open())
    }

    /// Commits the checkpoint's positions, without waiting: the job itself does not go by them.
    fn notify_checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let later = self.snapshots.split_off(&checkpoint.next());
        let splits = std::mem::replace(&mut self.snapshots, later).remove(&checkpoint);
        let (Some(splits), Some(consumer)) = (splits, &self.consumer) else { return Ok(()) };
        let mut list = TopicPartitionList::with_capacity(splits.len());
        for KafkaSplit { topic, partition, offset, .. } in &splits {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .map_err(|error| Error::internal(format!("offset {offset} can't be committed: {error}")))?;
        }
        match consumer.commit(&list, CommitMode::Async) {
            Ok(()) => consumer.context().commit_began(),
            Err(error) => tracing::warn!(%checkpoint, "committing offsets to the consumer group failed: {error}"),
        }
        Ok(())
    }
}
