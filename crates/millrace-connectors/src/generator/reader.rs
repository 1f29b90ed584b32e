//! Yields a generator's records.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    Result,
    ids::CheckpointId,
    source::{ReadStatus, SourceReader},
};

use super::{pace::Pace, split::GeneratorSplit};

pub(super) struct GeneratorReader<F> {
    function: Arc<F>,
    end: u64,
    splits: Vec<GeneratorSplit>,
    no_more_splits: bool,
    /// Records a second of the whole source.
    rate: Option<f64>,
    /// This reader's share of it, once it has splits.
    pace: Option<Pace>,
    started: Instant,
    last_read: (u64, u64),
}

impl<F> GeneratorReader<F> {
    pub(super) fn new(function: Arc<F>, end: u64, rate: Option<f64>) -> Self {
        let (splits, started) = (Vec::new(), Instant::now());
        Self { function, end, splits, no_more_splits: false, rate, pace: None, started, last_read: (0, 0) }
    }

    fn is_at_end(&self) -> bool {
        self.splits.iter().all(|split| split.next >= self.end)
    }

    /// How many records may be yielded now, `max` at most, after waiting for the first.
    fn allowance(&mut self, max: usize, wait: Duration) -> usize {
        let Some(pace) = &mut self.pace else { return max };
        let due_in = pace.due_in(max, self.started.elapsed());
        if !due_in.is_zero() {
            thread::sleep(due_in.min(wait));
        }
        pace.take(max, self.started.elapsed())
    }

    /// Yields the records with the lowest indices.
    fn generate<T>(&mut self, allowance: usize, out: &mut Vec<T>)
    where
        F: Fn(u64) -> T,
    {
        let mut left = allowance as u64;
        let mut read: Option<(u64, u64)> = None;
        while left > 0 {
            let open = self.splits.iter_mut().filter(|split| split.next < self.end);
            let Some(split) = open.min_by_key(|split| split.next) else { break };
            let first = split.next;
            let end = split.block_end().min(self.end).min(first.saturating_add(left));
            out.extend((first..end).map(&*self.function));
            split.move_to(end);
            left -= end - first;
            read = Some((read.map_or(first, |(lowest, _)| lowest), end));
        }
        self.last_read = read.unwrap_or(self.last_read);
    }
}

impl<T, F: Fn(u64) -> T> SourceReader<T, GeneratorSplit> for GeneratorReader<F> {
    fn add_splits(&mut self, splits: Vec<GeneratorSplit>) -> Result<()> {
        self.splits.extend(splits);
        if let (Some(rate), Some(of)) = (self.rate, self.splits.first().map(|split| split.of)) {
            let share = rate * self.splits.len() as f64 / f64::from(of);
            let now = self.started.elapsed();
            self.pace.get_or_insert_with(|| Pace::new(share, now)).set_rate(share, now);
        }
        Ok(())
    }

    fn no_more_splits(&mut self) {
        self.no_more_splits = true;
    }

    fn read(&mut self, max: usize, wait: Duration, out: &mut Vec<T>) -> Result<ReadStatus> {
        if self.is_at_end() {
            if self.no_more_splits {
                return Ok(ReadStatus::Finished);
            }
            thread::sleep(wait);
            return Ok(ReadStatus::Idle);
        }
        let allowance = self.allowance(max, wait);
        self.generate(allowance, out);
        Ok(match self.is_at_end() {
            true if self.no_more_splits => ReadStatus::Finished,
            false if allowance > 0 => ReadStatus::More,
            _ => ReadStatus::Idle,
        })
    }

    fn position(&self) -> String {
        format!("generator@{}..{}", self.last_read.0, self.last_read.1)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<GeneratorSplit>> {
        Ok(self.splits.clone())
    }

    fn notify_checkpoint_complete(&mut self, _checkpoint: CheckpointId) -> Result<()> {
        Ok(())
    }
}
