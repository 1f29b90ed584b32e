//! A source of numbered events, read no further than the test allows.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millrace_core::{
    Error, Result,
    ids::CheckpointId,
    source::{
        Boundedness, Discovery, EnumeratorContext, ReadStatus, ReaderContext, Source, SourceReader, SourceSplit,
        SplitEnumerator,
    },
};
use serde::{Deserialize, Serialize};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Event {
    /// The split that it comes from.
    pub split: u32,
    /// Its number in the split, from 0.
    pub number: u64,
    /// The subtask that it passed between source and sink.
    pub via: u32,
    /// Ballast.
    pub text: String,
}

/// All events of a number range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberSplit {
    pub split: u32,
    pub next: u64,
    pub end: u64,
}

impl SourceSplit for NumberSplit {
    fn split_id(&self) -> String {
        format!("numbers-{}", self.split)
    }
}

/// What a test holds of its sources.
#[derive(Debug)]
pub struct Control {
    /// For each split, the number that must not be read yet.
    limits: Vec<AtomicU64>,
    /// How many records were read from each split.
    read: Vec<AtomicU64>,
    /// How often readers were asked.
    pub calls: AtomicU64,
    /// The checkpoints that readers were told are complete.
    pub completed: AtomicU64,
    /// Bytes of ballast in each record.
    ballast: usize,
    /// A number on which readers fail.
    pub poison: AtomicU64,
}

impl Control {
    /// Lets a split be read up to a number.
    pub fn allow(&self, split: u32, limit: u64) {
        self.limits[split as usize].store(limit, Ordering::SeqCst);
    }

    /// How many records of a split were read.
    pub fn read(&self, split: u32) -> u64 {
        self.read[split as usize].load(Ordering::SeqCst)
    }
}

/// The source.
pub struct Numbers(pub Arc<Control>);

impl Numbers {
    /// A source of `splits` splits without limits.
    pub fn new(splits: u32) -> Self {
        Self::with_ballast(splits, 0)
    }

    /// The same with larger records.
    pub fn with_ballast(splits: u32, ballast: usize) -> Self {
        Self(Arc::new(Control {
            limits: (0..splits).map(|_| AtomicU64::new(u64::MAX)).collect(),
            read: (0..splits).map(|_| AtomicU64::new(0)).collect(),
            calls: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            ballast,
            poison: AtomicU64::new(u64::MAX),
        }))
    }
}

impl Source for Numbers {
    type Record = Event;
    type Split = NumberSplit;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn create_enumerator(&self, _: &EnumeratorContext) -> Result<Box<dyn SplitEnumerator<NumberSplit>>> {
        Ok(Box::new(NoSplits))
    }

    fn create_reader(&self, _: &mut ReaderContext) -> Result<Box<dyn SourceReader<Event, NumberSplit>>> {
        Ok(Box::new(Reader {
            control: Arc::clone(&self.0),
            splits: Vec::new(),
            complete: false,
            position: String::new(),
        }))
    }

    fn fingerprint(&self) -> Vec<u8> {
        Vec::new()
    }
}

struct NoSplits;

impl SplitEnumerator<NumberSplit> for NoSplits {
    fn discover(&mut self, _: &BTreeSet<String>, _: Discovery) -> Result<Vec<NumberSplit>> {
        Ok(Vec::new())
    }

    fn discovery_interval(&self) -> Option<Duration> {
        None
    }
}

struct Reader {
    control: Arc<Control>,
    splits: Vec<NumberSplit>,
    complete: bool,
    position: String,
}

impl SourceReader<Event, NumberSplit> for Reader {
    fn add_splits(&mut self, splits: Vec<NumberSplit>) -> Result<()> {
        self.splits.extend(splits);
        Ok(())
    }

    fn no_more_splits(&mut self) {
        self.complete = true;
    }

    fn read(&mut self, max: usize, _wait: Duration, out: &mut Vec<Event>) -> Result<ReadStatus> {
        self.control.calls.fetch_add(1, Ordering::SeqCst);
        for split in &mut self.splits {
            let limit = self.control.limits[split.split as usize].load(Ordering::SeqCst).min(split.end);
            let (from, to) = (split.next, limit.min(split.next + (max - out.len()) as u64).max(split.next));
            let text = "x".repeat(self.control.ballast);
            out.extend((from..to).map(|number| Event { split: split.split, number, via: 0, text: text.clone() }));
            if (from..to).contains(&self.control.poison.load(Ordering::SeqCst)) {
                return Err(Error::external("the numbers don't answer"));
            }
            if from < to {
                self.position = format!("numbers-{}@{from}..{to}", split.split);
            }
            split.next = to;
            self.control.read[split.split as usize].fetch_add(to - from, Ordering::SeqCst);
        }
        let at_end = self.complete && self.splits.iter().all(|split| split.next >= split.end);
        Ok(match (at_end, out.is_empty()) {
            (true, _) => ReadStatus::Finished,
            (false, true) => ReadStatus::Idle,
            (false, false) => ReadStatus::More,
        })
    }

    fn position(&self) -> String {
        self.position.clone()
    }

    fn snapshot(&mut self, _: CheckpointId) -> Result<Vec<NumberSplit>> {
        Ok(self.splits.clone())
    }

    fn notify_checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.control.completed.store(checkpoint.0, Ordering::SeqCst);
        Ok(())
    }
}
