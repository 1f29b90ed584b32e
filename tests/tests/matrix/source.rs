//! Numbers, dealt to splits by their remainder, which stop half-way until the director lets them go on.

use std::{collections::BTreeSet, thread, time::Duration};

use millrace::{
    Error, Result,
    source::{
        Boundedness, CheckpointId, Discovery, EnumeratorContext, ReadStatus, ReaderContext, Source, SourceReader,
        SourceSplit, SplitEnumerator,
    },
};
use serde::{Deserialize, Serialize};

use crate::director::{Director, Stage};

/// What a job that ends half-way fails with.
pub const HALFWAY: &str = "the first half is in a checkpoint";

/// The numbers below `count`.
#[derive(Clone)]
pub struct Numbers {
    pub count: u64,
    pub splits: u64,
    pub director: Director,
}

/// Every `step`th number from `next` on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remainder {
    next: u64,
    step: u64,
}

impl SourceSplit for Remainder {
    fn split_id(&self) -> String {
        (self.next % self.step).to_string()
    }
}

impl Source for Numbers {
    type Record = u64;
    type Split = Remainder;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn create_enumerator(&self, _context: &EnumeratorContext) -> Result<Box<dyn SplitEnumerator<Remainder>>> {
        Ok(Box::new(self.clone()))
    }

    fn create_reader(&self, _context: &mut ReaderContext) -> Result<Box<dyn SourceReader<u64, Remainder>>> {
        Ok(Box::new(Reader { source: self.clone(), splits: Vec::new(), halfway: BTreeSet::new() }))
    }

    fn fingerprint(&self) -> Vec<u8> {
        self.count.to_le_bytes().to_vec()
    }
}

impl SplitEnumerator<Remainder> for Numbers {
    fn discover(&mut self, known: &BTreeSet<String>, _discovery: Discovery) -> Result<Vec<Remainder>> {
        let splits = (0..self.splits).map(|next| Remainder { next, step: self.splits });
        Ok(splits.filter(|split| !known.contains(&split.split_id())).collect())
    }

    fn discovery_interval(&self) -> Option<Duration> {
        None
    }
}

struct Reader {
    source: Numbers,
    splits: Vec<Remainder>,
    /// The checkpoints of the job half-way.
    halfway: BTreeSet<CheckpointId>,
}

impl Reader {
    fn stage(&self) -> Result<Stage> {
        self.source.director.stage().map_err(Error::user)
    }
}

impl SourceReader<u64, Remainder> for Reader {
    fn add_splits(&mut self, splits: Vec<Remainder>) -> Result<()> {
        self.splits.extend(splits);
        Ok(())
    }

    fn no_more_splits(&mut self) {}

    fn read(&mut self, max: usize, wait: Duration, out: &mut Vec<u64>) -> Result<ReadStatus> {
        let end = match self.stage()? {
            Stage::Done => return Ok(ReadStatus::Finished),
            Stage::FirstHalf | Stage::Halfway | Stage::EarlyTimers => self.source.count / 2,
            Stage::SecondHalf | Stage::LateTimers => self.source.count,
        };
        for split in &mut self.splits {
            while split.next < end && out.len() < max {
                out.push(split.next);
                split.next += split.step;
            }
        }
        if out.is_empty() {
            thread::sleep(wait.min(Duration::from_millis(1)));
            return Ok(ReadStatus::Idle);
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> String {
        format!("{:?}", self.splits)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<Remainder>> {
        if self.stage()? == Stage::Halfway {
            self.halfway.insert(checkpoint);
        }
        Ok(self.splits.clone())
    }

    fn notify_checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if self.halfway.contains(&checkpoint) {
            self.source.director.completed(checkpoint);
            return Err(Error::user(HALFWAY));
        }
        Ok(())
    }
}
