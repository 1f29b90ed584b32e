//! A source of values that the program itself holds.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use millrace_core::{
    Record, Result, codec,
    ids::CheckpointId,
    source::{
        Boundedness, Discovery, EnumeratorContext, ReadStatus, ReaderContext, Source, SourceReader, SourceSplit,
        SplitEnumerator,
    },
};
use serde::{Deserialize, Serialize};

const SPLIT_ID: &str = "collection";

/// Yields the items of a collection in order, once. One subtask reads them all.
///
/// The items are part of the job's fingerprint: all processes of a job must hold the same ones.
#[derive(Clone, Debug)]
pub struct CollectionSource<T> {
    // Locked only so that items need not be `Sync`.
    items: Arc<Mutex<Vec<T>>>,
}

impl<T> CollectionSource<T> {
    /// A source of these items.
    pub fn new(items: impl IntoIterator<Item = T>) -> Self {
        Self { items: Arc::new(Mutex::new(items.into_iter().collect())) }
    }
}

/// The whole collection, from an item on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSplit {
    /// The index of the next item.
    pub next: u64,
}

impl SourceSplit for CollectionSplit {
    fn split_id(&self) -> String {
        SPLIT_ID.into()
    }
}

impl<T: Record> Source for CollectionSource<T> {
    type Record = T;
    type Split = CollectionSplit;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn create_enumerator(&self, _context: &EnumeratorContext) -> Result<Box<dyn SplitEnumerator<CollectionSplit>>> {
        Ok(Box::new(CollectionEnumerator))
    }

    fn create_reader(&self, _context: &mut ReaderContext) -> Result<Box<dyn SourceReader<T, CollectionSplit>>> {
        let items = Arc::clone(&self.items);
        Ok(Box::new(CollectionReader { items, split: None, last_start: 0, no_more_splits: false }))
    }

    fn fingerprint(&self) -> Vec<u8> {
        // An item that can't be encoded fails the job when it first crosses an edge, with an error of its own.
        codec::encode(&*lock(&self.items)).unwrap_or_else(|error| error.message.into_bytes())
    }
}

struct CollectionEnumerator;

impl SplitEnumerator<CollectionSplit> for CollectionEnumerator {
    fn discover(&mut self, known: &BTreeSet<String>, _discovery: Discovery) -> Result<Vec<CollectionSplit>> {
        Ok(if known.contains(SPLIT_ID) { vec![] } else { vec![CollectionSplit { next: 0 }] })
    }

    fn discovery_interval(&self) -> Option<Duration> {
        None
    }
}

fn lock<T>(items: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    items.lock().unwrap_or_else(PoisonError::into_inner)
}

struct CollectionReader<T> {
    items: Arc<Mutex<Vec<T>>>,
    split: Option<CollectionSplit>,
    last_start: u64,
    no_more_splits: bool,
}

impl<T: Clone> CollectionReader<T> {
    /// Appends items; returns how many, and how many are left.
    fn read_items(&self, max: usize, out: &mut Vec<T>) -> (usize, usize) {
        let Some(split) = &self.split else { return (0, 0) };
        let items = lock(&self.items);
        let start = usize::try_from(split.next).unwrap_or(usize::MAX);
        let rest = items.get(start..).unwrap_or_default();
        let read = max.min(rest.len());
        out.extend_from_slice(&rest[..read]);
        (read, rest.len() - read)
    }
}

impl<T: Record> SourceReader<T, CollectionSplit> for CollectionReader<T> {
    fn add_splits(&mut self, splits: Vec<CollectionSplit>) -> Result<()> {
        self.split = splits.into_iter().last().or(self.split.take());
        Ok(())
    }

    fn no_more_splits(&mut self) {
        self.no_more_splits = true;
    }

    fn read(&mut self, max: usize, wait: Duration, out: &mut Vec<T>) -> Result<ReadStatus> {
        let (read, left) = self.read_items(max, out);
        if let Some(split) = &mut self.split {
            self.last_start = split.next;
            split.next += read as u64;
        }
        if left > 0 {
            Ok(ReadStatus::More)
        } else if self.no_more_splits {
            Ok(ReadStatus::Finished)
        } else {
            if read == 0 {
                thread::sleep(wait);
            }
            Ok(ReadStatus::Idle)
        }
    }

    fn position(&self) -> String {
        format!("{SPLIT_ID}@{}..{}", self.last_start, self.split.as_ref().map_or(0, |split| split.next))
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<CollectionSplit>> {
        Ok(self.split.iter().cloned().collect())
    }

    fn notify_checkpoint_complete(&mut self, _checkpoint: CheckpointId) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(source: &CollectionSource<String>) -> Box<dyn SourceReader<String, CollectionSplit>> {
        let mut context = ReaderContext { subtask: 0, parallelism: 1, operator_state: Default::default() };
        source.create_reader(&mut context).unwrap()
    }

    fn words() -> CollectionSource<String> {
        CollectionSource::new(["a", "b", "c", "d", "e"].map(String::from))
    }

    #[test]
    fn every_position_restores_without_loss_or_repetition() {
        let source = words();
        for position in 0..=5 {
            let mut enumerator = source.create_enumerator(&EnumeratorContext { parallelism: 1 }).unwrap();
            let splits = enumerator.discover(&BTreeSet::new(), Discovery::Initial).unwrap();
            let mut out = Vec::new();
            let mut first = reader(&source);
            first.add_splits(splits).unwrap();
            first.read(position, Duration::ZERO, &mut out).unwrap();
            assert_eq!(first.position(), format!("collection@0..{position}"));

            let mut second = reader(&source);
            second.add_splits(first.snapshot(CheckpointId(1)).unwrap()).unwrap();
            second.no_more_splits();
            while second.read(2, Duration::ZERO, &mut out).unwrap() != ReadStatus::Finished {}
            assert_eq!(out, ["a", "b", "c", "d", "e"]);
        }
    }

    #[test]
    fn a_subtask_without_the_split_finishes_at_once() {
        let mut reader = reader(&words());
        reader.no_more_splits();
        assert_eq!(reader.read(10, Duration::from_secs(60), &mut Vec::new()).unwrap(), ReadStatus::Finished);
    }

    #[test]
    fn a_known_split_is_not_found_again() {
        let mut enumerator = words().create_enumerator(&EnumeratorContext { parallelism: 1 }).unwrap();
        let known = BTreeSet::from([SPLIT_ID.to_string()]);
        assert_eq!(enumerator.discover(&known, Discovery::Later).unwrap(), []);
    }

    #[test]
    fn the_fingerprint_tells_contents_apart() {
        assert_eq!(words().fingerprint(), words().fingerprint());
        assert_ne!(words().fingerprint(), CollectionSource::new(["a".to_string()]).fingerprint());
    }
}
