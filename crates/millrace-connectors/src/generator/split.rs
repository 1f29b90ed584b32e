//! How a generator's indices are divided: into blocks, dealt out in turn to a number of splits that is fixed at the
//! first start. One reader that holds all splits can so go through the indices in order, and several readers stay
//! balanced when the parallelism changes.

use millrace_core::source::SourceSplit;
use serde::{Deserialize, Serialize};

/// So many splits that most parallelisms divide them about evenly.
const SPLITS: u32 = 64;
const MAX_BLOCK: u64 = 1024;

/// The blocks `number`, `number + of`, `number + 2 * of`, … of the generator's indices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratorSplit {
    /// Which of the splits it is.
    pub number: u32,
    /// How many splits there are.
    pub of: u32,
    /// How many indices make a block.
    pub block: u64,
    /// The next index to yield; it lies in one of the split's blocks.
    pub next: u64,
}

impl SourceSplit for GeneratorSplit {
    fn split_id(&self) -> String {
        format!("generator-{}-of-{}", self.number, self.of)
    }
}

impl GeneratorSplit {
    /// The end of the block that `next` lies in.
    pub(super) fn block_end(&self) -> u64 {
        (self.next / self.block).saturating_add(1).saturating_mul(self.block)
    }

    /// Goes on at `index`, or in the split's next block where this one is at its end.
    pub(super) fn move_to(&mut self, index: u64) {
        let others = u64::from(self.of - 1).saturating_mul(self.block);
        self.next = if index < self.block_end() { index } else { index.saturating_add(others) };
    }
}

/// The splits of a new generator.
pub(super) fn splits(parallelism: u32, count: Option<u64>, rate: Option<f64>) -> Vec<GeneratorSplit> {
    let of = SPLITS.max(parallelism);
    // Small blocks where there are few records, or few in 10 ms: no subtask shall do all the work.
    let by_count = count.map_or(MAX_BLOCK, |count| count / u64::from(of));
    let by_rate = rate.map_or(MAX_BLOCK, |rate| (rate / 100.0) as u64 / u64::from(of));
    let block = by_count.min(by_rate).clamp(1, MAX_BLOCK);
    (0..of).map(|number| GeneratorSplit { number, of, block, next: u64::from(number) * block }).collect()
}
