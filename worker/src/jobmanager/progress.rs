//! How far the sources were when a failure found them, and so how much there is to read again.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::ids::{CheckpointId, TaskId};

/// Records of each source task.
pub type RecordCounts = BTreeMap<TaskId, u64>;

/// What the source tasks of an attempt have read: counted from where the attempt began.
#[derive(Debug, Default)]
pub struct SourceProgress {
    /// By the newest reports.
    read: RecordCounts,
    /// At the barriers of the checkpoints that may be restored; in the one that the attempt began with, nothing.
    at: BTreeMap<Option<CheckpointId>, RecordCounts>,
    /// What this attempt had to read again when it began.
    again: RecordCounts,
}

impl SourceProgress {
    /// A task tells how many records it has read.
    pub fn reported(&mut self, task: TaskId, records: u64) {
        let read = self.read.entry(task).or_default();
        *read = (*read).max(records);
    }

    /// A task had read so many records at a checkpoint's barrier.
    pub fn acknowledged(&mut self, checkpoint: CheckpointId, task: TaskId, records: u64) {
        self.at.entry(Some(checkpoint)).or_default().insert(task, records);
        self.reported(task, records);
    }

    /// The checkpoint is complete: none before it is restored any more.
    pub fn completed(&mut self, checkpoint: CheckpointId) {
        self.at = self.at.split_off(&Some(checkpoint));
    }

    /// A new attempt begins with this checkpoint, or with nothing. Returns how many records each task has to read until
    /// it is where the last attempt was, or was to get; tasks that are there already are left out. Where that is not
    /// known, all are.
    pub fn begin(&mut self, checkpoint: Option<CheckpointId>) -> RecordCounts {
        let mut last = std::mem::take(self);
        let base = last.at.remove(&checkpoint);
        self.at.insert(checkpoint, RecordCounts::new());
        if let Some(base) = base {
            let mut head = last.read;
            for (task, again) in last.again {
                let head = head.entry(task).or_default();
                *head = (*head).max(again);
            }
            let behind = |(task, head): (TaskId, u64)| (task, head - base.get(&task).copied().unwrap_or(0).min(head));
            self.again = head.into_iter().map(behind).filter(|(_, records)| *records > 0).collect();
        }
        self.again.clone()
    }

    /// The same where only these tasks begin again, and the others run on.
    pub fn begin_again(&mut self, checkpoint: Option<CheckpointId>, tasks: &BTreeSet<TaskId>) -> RecordCounts {
        let base = self.at.get(&checkpoint).cloned();
        let mut behind = RecordCounts::new();
        for task in tasks {
            let head = self.read.remove(task).max(self.again.remove(task)).unwrap_or(0);
            for counts in self.at.values_mut() {
                counts.remove(task);
            }
            let at = base.as_ref().map(|base| base.get(task).copied().unwrap_or(0));
            behind.extend(at.filter(|at| *at < head).map(|at| (*task, head - at)));
        }
        self.again.extend(behind.clone());
        behind
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::VertexId;

    use super::*;

    const A: TaskId = TaskId { vertex: VertexId(0), subtask: 0 };
    const B: TaskId = TaskId { vertex: VertexId(0), subtask: 1 };
    const ONE: CheckpointId = CheckpointId(1);
    const TWO: CheckpointId = CheckpointId(2);

    fn counts(counts: &[(TaskId, u64)]) -> RecordCounts {
        counts.iter().copied().collect()
    }

    /// An attempt from nothing in which checkpoints 1 and 2 are complete.
    fn two_checkpoints() -> SourceProgress {
        let mut progress = SourceProgress::default();
        assert!(progress.begin(None).is_empty(), "the first attempt has nothing to read again");
        for (checkpoint, records) in [(ONE, 10), (TWO, 30)] {
            progress.acknowledged(checkpoint, A, records);
            progress.acknowledged(checkpoint, B, records + 1);
            progress.completed(checkpoint);
        }
        progress.reported(A, 35);
        progress
    }

    #[test]
    fn what_was_read_behind_the_checkpoint_is_read_again() {
        assert_eq!(two_checkpoints().begin(Some(TWO)), counts(&[(A, 5)]));
    }

    #[test]
    fn a_failure_before_the_head_leaves_the_head_where_it_was() {
        let mut progress = two_checkpoints();
        progress.begin(Some(TWO));
        progress.reported(A, 2);
        progress.reported(B, 7);
        assert_eq!(progress.begin(Some(TWO)), counts(&[(A, 5), (B, 7)]));
    }

    #[test]
    fn a_checkpoint_during_the_replay_shortens_what_is_left() {
        let mut progress = two_checkpoints();
        progress.begin(Some(TWO));
        progress.acknowledged(CheckpointId(3), A, 2);
        progress.acknowledged(CheckpointId(3), B, 0);
        progress.completed(CheckpointId(3));
        assert_eq!(progress.begin(Some(CheckpointId(3))), counts(&[(A, 3)]));
    }

    #[test]
    fn a_task_that_begins_again_alone_is_behind_alone() {
        let mut progress = two_checkpoints();
        assert_eq!(progress.begin_again(Some(TWO), &BTreeSet::from([A])), counts(&[(A, 5)]));
        // It fails again before its head, and then all do.
        progress.reported(A, 2);
        progress.reported(B, 40);
        assert_eq!(progress.begin_again(Some(TWO), &BTreeSet::from([A])), counts(&[(A, 5)]));
        assert_eq!(progress.begin(Some(TWO)), counts(&[(A, 5), (B, 9)]));
    }

    #[test]
    fn from_a_checkpoint_that_is_not_known_nothing_is_known() {
        assert_eq!(two_checkpoints().begin(Some(ONE)), counts(&[]));
        assert_eq!(two_checkpoints().begin(None), counts(&[]));
    }

    #[test]
    fn without_checkpoints_everything_is_read_again() {
        let mut progress = SourceProgress::default();
        progress.begin(None);
        progress.reported(A, 9);
        assert_eq!(progress.begin(None), counts(&[(A, 9)]));
    }
}
