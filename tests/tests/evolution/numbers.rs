//! The source: its position is in splits of the version's own type.

use std::{collections::BTreeSet, marker::PhantomData, time::Duration};

use millrace::{
    Error, Result,
    source::{
        Boundedness, CheckpointId, Discovery, EnumeratorContext, ReadStatus, ReaderContext, Source, SourceReader,
        SourceSplit, SplitEnumerator,
    },
};

use super::{HALFWAY, Position, Version};

/// Numbers from zero, in each of two splits.
pub(super) struct Numbers<V> {
    pub(super) end: u64,
    /// Whether the job fails when all of them are in a checkpoint.
    pub(super) fails: bool,
    pub(super) version: PhantomData<fn() -> V>,
}

impl<V: Version> Source for Numbers<V> {
    type Record = u64;
    type Split = V::Split;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn create_enumerator(&self, _context: &EnumeratorContext) -> Result<Box<dyn SplitEnumerator<V::Split>>> {
        Ok(Box::new(Names))
    }

    fn create_reader(&self, _context: &mut ReaderContext) -> Result<Box<dyn SourceReader<u64, V::Split>>> {
        let (end, fails) = (self.end, self.fails);
        Ok(Box::new(Reader { end, fails, splits: Vec::new(), last: BTreeSet::new() }))
    }

    fn fingerprint(&self) -> Vec<u8> {
        self.end.to_le_bytes().to_vec()
    }
}

struct Names;

impl<S: SourceSplit + From<Position>> SplitEnumerator<S> for Names {
    fn discover(&mut self, known: &BTreeSet<String>, _discovery: Discovery) -> Result<Vec<S>> {
        let names = ["even", "odd"].map(str::to_owned).into_iter().filter(|name| !known.contains(name));
        Ok(names.map(|name| Position { name, next: 0 }.into()).collect())
    }

    fn discovery_interval(&self) -> Option<Duration> {
        None
    }
}

struct Reader {
    end: u64,
    fails: bool,
    splits: Vec<Position>,
    /// The checkpoints that all numbers are in.
    last: BTreeSet<CheckpointId>,
}

impl Reader {
    fn is_done(&self) -> bool {
        self.splits.iter().all(|split| split.next == self.end)
    }
}

impl<S: SourceSplit + From<Position> + Into<Position>> SourceReader<u64, S> for Reader {
    fn add_splits(&mut self, splits: Vec<S>) -> Result<()> {
        self.splits.extend(splits.into_iter().map(Into::into));
        Ok(())
    }

    fn no_more_splits(&mut self) {}

    fn read(&mut self, max: usize, wait: Duration, out: &mut Vec<u64>) -> Result<ReadStatus> {
        for split in &mut self.splits {
            while split.next < self.end && out.len() < max {
                out.push(split.next);
                split.next += 1;
            }
        }
        match (self.is_done(), self.fails) {
            (false, _) => Ok(ReadStatus::More),
            (true, false) => Ok(ReadStatus::Finished),
            (true, true) => {
                std::thread::sleep(wait.min(Duration::from_millis(1)));
                Ok(ReadStatus::Idle)
            }
        }
    }

    fn position(&self) -> String {
        String::new()
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<S>> {
        if self.is_done() {
            self.last.insert(checkpoint);
        }
        Ok(self
            .splits
            .iter()
            .map(|Position { name, next }| Position { name: name.clone(), next: *next }.into())
            .collect())
    }

    fn notify_checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<()> {
        match self.fails && self.last.contains(&checkpoint) {
            true => Err(Error::user(format!("{HALFWAY}: {}", checkpoint.0))),
            false => Ok(()),
        }
    }
}
