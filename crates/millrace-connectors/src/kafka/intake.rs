//! A reader's partitions and what becomes of their messages. Knows nothing of a broker.

use std::{ops::Range, sync::Arc};

use millrace_core::{Result, error::chain_text};

use super::{
    KafkaSplit,
    deserialize::{Deserializer, KafkaMessage},
};
use crate::undecodable::UndecodableRecords;

/// So many partitions of a batch are named in its position.
const NAMED: usize = 4;

pub(super) struct Intake<T> {
    partitions: Vec<Progress>,
    /// The partition of the last message: the next is likely to be of the same.
    last: usize,
    deserializer: Arc<dyn Deserializer<T>>,
    undecodable: UndecodableRecords,
}

struct Progress {
    split: KafkaSplit,
    /// Offsets of the last batch.
    read: Range<i64>,
}

impl Progress {
    fn is_done(&self) -> bool {
        self.split.stop.is_some_and(|stop| self.split.offset >= stop)
    }
}

impl<T: 'static> Intake<T> {
    pub(super) fn new(deserializer: Arc<dyn Deserializer<T>>, undecodable: UndecodableRecords) -> Self {
        Self { partitions: Vec::new(), last: 0, deserializer, undecodable }
    }

    pub(super) fn add(&mut self, splits: Vec<KafkaSplit>) {
        let progress = |split: KafkaSplit| Progress { read: split.offset..split.offset, split };
        self.partitions.extend(splits.into_iter().map(progress));
    }

    pub(super) fn splits(&self) -> impl Iterator<Item = &KafkaSplit> {
        self.partitions.iter().map(|progress| &progress.split)
    }

    /// The partitions that are not at their end.
    pub(super) fn open(&self) -> impl Iterator<Item = &KafkaSplit> {
        self.partitions.iter().filter(|progress| !progress.is_done()).map(|progress| &progress.split)
    }

    /// Forgets the last batch's offsets.
    pub(super) fn begin_batch(&mut self) {
        for progress in &mut self.partitions {
            progress.read = progress.split.offset..progress.split.offset;
        }
    }

    /// Takes a message: one of a partition that is not (or no longer) read here is left out.
    pub(super) fn accept(&mut self, message: &KafkaMessage<'_>, out: &mut Vec<T>) -> Result<()> {
        let Some(index) = self.find(message.topic, message.partition) else { return Ok(()) };
        let progress = &mut self.partitions[index];
        if progress.is_done() || message.offset < progress.split.offset {
            return Ok(());
        }
        if progress.split.stop.is_some_and(|stop| message.offset >= stop) {
            // Nothing is left before the end: the messages there were deleted by compaction.
            self.advance(index, message.offset);
            return Ok(());
        }
        match self.deserializer.deserialize(message) {
            Ok(record) => out.extend(record),
            Err(error) => {
                let position = format_args!("{}-{}@{}", message.topic, message.partition, message.offset);
                self.undecodable.handle(position, chain_text(&*error))?;
            }
        }
        self.advance(index, message.offset + 1);
        Ok(())
    }

    /// Moves a partition's position forward: there is no message before `offset` any more.
    pub(super) fn skip_to(&mut self, topic: &str, partition: i32, offset: i64) {
        if let Some(index) = self.find(topic, partition)
            && offset > self.partitions[index].split.offset
        {
            self.advance(index, offset);
        }
    }

    fn advance(&mut self, index: usize, offset: i64) {
        let progress = &mut self.partitions[index];
        progress.split.offset = offset;
        progress.read.end = offset;
    }

    fn find(&mut self, topic: &str, partition: i32) -> Option<usize> {
        let is_it = |progress: &Progress| progress.split.partition == partition && progress.split.topic == topic;
        if !self.partitions.get(self.last).is_some_and(is_it) {
            self.last = self.partitions.iter().position(is_it)?;
        }
        Some(self.last)
    }

    /// The last batch's offsets: `input-topic-0@120..183`, several joined by commas.
    pub(super) fn position(&self) -> String {
        let read: Vec<_> = self.partitions.iter().filter(|progress| !progress.read.is_empty()).collect();
        let name = |progress: &&Progress| {
            let (KafkaSplit { topic, partition, .. }, Range { start, end }) = (&progress.split, &progress.read);
            format!("{topic}-{partition}@{start}..{end}")
        };
        let mut text = read.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
        if read.len() > NAMED {
            text.push_str(&format!(" and {} more partitions", read.len() - NAMED));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Undecodable, kafka::StringDeserializer};

    fn intake(policy: Undecodable, splits: &[(i32, i64, Option<i64>)]) -> Intake<String> {
        let undecodable = UndecodableRecords::new(policy, "intake".into());
        let mut intake = Intake::new(Arc::new(StringDeserializer), undecodable);
        let split = |&(partition, offset, stop)| KafkaSplit { topic: "t".into(), partition, offset, stop };
        intake.add(splits.iter().map(split).collect());
        intake
    }

    fn message(partition: i32, offset: i64, value: &[u8]) -> KafkaMessage<'_> {
        KafkaMessage { topic: "t", partition, offset, timestamp: None, key: None, value: Some(value) }
    }

    fn offsets(intake: &Intake<String>) -> Vec<i64> {
        intake.splits().map(|split| split.offset).collect()
    }

    #[test]
    fn messages_move_their_partitions_and_name_the_batch() {
        let mut intake = intake(Undecodable::Fail, &[(0, 10, None), (1, 20, None)]);
        let mut out = Vec::new();
        for (partition, offset) in [(0, 10), (0, 11), (1, 25), (0, 12), (7, 1)] {
            intake.accept(&message(partition, offset, b"x"), &mut out).unwrap();
        }
        assert_eq!((out.len(), offsets(&intake)), (4, vec![13, 26]));
        assert_eq!(intake.position(), "t-0@10..13, t-1@20..26");
        intake.begin_batch();
        intake.accept(&message(1, 26, b"x"), &mut out).unwrap();
        assert_eq!(intake.position(), "t-1@26..27");
    }

    #[test]
    fn a_message_that_was_read_is_not_read_again() {
        let mut intake = intake(Undecodable::Fail, &[(0, 10, None)]);
        let mut out = Vec::new();
        intake.accept(&message(0, 9, b"x"), &mut out).unwrap();
        assert_eq!((out.len(), offsets(&intake)), (0, vec![10]));
    }

    #[test]
    fn a_bounded_partition_ends_before_its_stop() {
        let mut intake = intake(Undecodable::Fail, &[(0, 0, Some(2)), (1, 0, Some(5)), (2, 3, Some(3))]);
        let mut out = Vec::new();
        for (partition, offset) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 9)] {
            intake.accept(&message(partition, offset, b"x"), &mut out).unwrap();
        }
        assert_eq!(out.len(), 3);
        assert_eq!(intake.open().count(), 0);
    }

    #[test]
    fn what_is_undecodable_fails_by_its_offset_or_is_passed_over() {
        let mut failing = intake(Undecodable::Fail, &[(0, 0, None)]);
        let error = failing.accept(&message(0, 7, b"\xff"), &mut Vec::new()).unwrap_err();
        assert!(error.message.contains("t-0@7"), "{error}");
        let mut skipping = intake(Undecodable::SkipAndCount, &[(0, 0, None)]);
        let mut out = Vec::new();
        skipping.accept(&message(0, 7, b"\xff"), &mut out).unwrap();
        assert_eq!((out.len(), offsets(&skipping)), (0, vec![8]));
    }

    #[test]
    fn many_partitions_are_named_in_short() {
        let splits: Vec<_> = (0..6).map(|partition| (partition, 0, None)).collect();
        let mut intake = intake(Undecodable::Fail, &splits);
        for partition in 0..6 {
            intake.accept(&message(partition, 0, b"x"), &mut Vec::new()).unwrap();
        }
        assert!(intake.position().ends_with("t-3@0..1 and 2 more partitions"), "{}", intake.position());
    }
}
