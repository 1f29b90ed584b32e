//! Partitioners that deal out batches without a look at their records.

use millrace_core::{Batch, Result};

use super::Partitioner;

/// Everything to the subtask of the same index.
pub(super) struct ForwardPartitioner {
    subtask: u32,
}

impl ForwardPartitioner {
    pub(super) fn new(subtask: u32) -> Self {
        Self { subtask }
    }
}

impl Partitioner for ForwardPartitioner {
    fn partition(&mut self, batch: Batch, out: &mut Vec<(u32, Batch)>) -> Result<()> {
        out.push((self.subtask, batch));
        Ok(())
    }
}

/// Every batch is cut into one slice for each target; whose slices get the odd records rotates, so that over time all
/// targets get equally many records, whatever the batches' sizes.
pub(super) struct RebalancePartitioner {
    targets: u32,
    next: u32,
}

impl RebalancePartitioner {
    /// Producers begin at different targets, or many small streams would all meet at the first one.
    pub(super) fn new(subtask: u32, targets: u32) -> Self {
        Self { targets, next: subtask % targets.max(1) }
    }
}

impl Partitioner for RebalancePartitioner {
    fn partition(&mut self, mut batch: Batch, out: &mut Vec<(u32, Batch)>) -> Result<()> {
        let targets = self.targets as usize;
        if targets <= 1 {
            out.push((0, batch));
            return Ok(());
        }
        let (share, odd) = (batch.len() / targets, batch.len() % targets);
        // Slices are cut off the end, so that each record moves once.
        for slice in (0..targets).rev() {
            let size = share + usize::from(slice < odd);
            if size > 0 {
                let target = ((self.next as usize + slice) % targets) as u32;
                out.push((target, batch.split_off(batch.len() - size)));
            }
        }
        self.next = ((self.next as usize + odd) % targets) as u32;
        Ok(())
    }
}

/// A copy to every target.
pub(super) struct BroadcastPartitioner {
    targets: u32,
}

impl BroadcastPartitioner {
    pub(super) fn new(targets: u32) -> Self {
        Self { targets }
    }
}

impl Partitioner for BroadcastPartitioner {
    fn partition(&mut self, batch: Batch, out: &mut Vec<(u32, Batch)>) -> Result<()> {
        let Some(last) = self.targets.checked_sub(1) else { return Ok(()) };
        for target in 0..last {
            out.push((target, batch.clone()));
        }
        out.push((last, batch));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::RecordBatch;

    use super::*;

    fn deal(partitioner: &mut dyn Partitioner, records: std::ops::Range<u32>) -> Vec<(u32, Vec<u32>)> {
        let mut out = Vec::new();
        partitioner.partition(Batch::new(RecordBatch::new(records.collect(), None)), &mut out).unwrap();
        let typed = |(target, batch): (u32, Batch)| (target, batch.into_typed::<u32>().unwrap().records);
        out.into_iter().map(typed).collect()
    }

    #[test]
    fn rebalance_is_even_for_batches_of_any_size() {
        for targets in 1..6u32 {
            let mut partitioner = RebalancePartitioner::new(1, targets);
            let mut counts = vec![0usize; targets as usize];
            let mut all = Vec::new();
            let mut next = 0;
            for size in [1u32, 1, 1, 7, 0, 64, 2, 5] {
                let dealt = deal(&mut partitioner, next..next + size);
                next += size;
                for (target, records) in dealt {
                    assert!(records.is_sorted());
                    counts[target as usize] += records.len();
                    all.extend(records);
                }
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(most - least <= 1, "{targets} targets: {counts:?}");
            }
            all.sort_unstable();
            assert!(all.into_iter().eq(0..next));
        }
    }

    #[test]
    fn broadcast_gives_everything_to_all() {
        let dealt = deal(&mut BroadcastPartitioner::new(3), 0..2);
        assert_eq!(dealt, [(0, vec![0, 1]), (1, vec![0, 1]), (2, vec![0, 1])]);
    }

    #[test]
    fn forward_goes_to_its_own_index() {
        assert_eq!(deal(&mut ForwardPartitioner::new(2), 5..7), [(2, vec![5, 6])]);
    }
}
