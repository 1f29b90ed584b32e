//! What a log says, once it has been read.

use std::collections::BTreeMap;

use millrace_core::ids::{Attempt, CheckpointId, Generation};

use super::entry::{CheckpointRecord, LogEntry, TerminalRecord};

/// The valid part of a log: the entries from the newest entry's floor on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogView {
    entries: BTreeMap<u64, LogEntry>,
}

impl LogView {
    /// The number of the newest entry; 0 in an empty log.
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(position, _)| *position)
    }

    /// The number of the oldest valid entry.
    pub fn floor(&self) -> u64 {
        self.newest().map_or(1, |entry| entry.floor)
    }

    /// The newest generation; 0 in an empty log.
    pub fn generation(&self) -> Generation {
        self.newest().map_or(Generation(0), |entry| entry.generation)
    }

    /// The newest entry.
    pub fn newest(&self) -> Option<&LogEntry> {
        self.entries.last_key_value().map(|(_, entry)| entry)
    }

    /// All valid entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.entries.values()
    }

    /// The retained checkpoints, oldest first.
    pub fn checkpoints(&self) -> impl DoubleEndedIterator<Item = &CheckpointRecord> {
        self.entries().filter_map(LogEntry::checkpoint)
    }

    /// The checkpoint to restore from.
    pub fn newest_checkpoint(&self) -> Option<&CheckpointRecord> {
        self.checkpoints().next_back()
    }

    /// The newest attempt of the whole job whose beginning the log holds, and its jobmanager: tasks of earlier ones
    /// must not be gone on with. One below the floor is not missed: the checkpoints above it are of no earlier attempt.
    pub fn newest_attempt(&self) -> Option<(Generation, Attempt)> {
        self.entries().rev().find_map(LogEntry::attempt)
    }

    /// How the job ended, if it has.
    pub fn terminal(&self) -> Option<&TerminalRecord> {
        self.newest().and_then(LogEntry::terminal)
    }

    /// The entry at a position.
    pub fn entry(&self, position: u64) -> Option<&LogEntry> {
        self.entries.get(&position)
    }

    /// The floor after one more checkpoint entry, at the end, of which and of those before it `retain` are kept.
    pub(super) fn floor_retaining(&self, retain: usize) -> u64 {
        let next = self.last() + 1;
        let older = self.entries().rev().filter(|entry| entry.checkpoint().is_some()).map(|entry| entry.position);
        let oldest_kept = std::iter::once(next).chain(older).take(retain.max(1)).last();
        oldest_kept.unwrap_or(next).max(self.floor())
    }

    /// The floor that a new generation's entry at the end has: the oldest checkpoint, or itself where there is none.
    pub(super) fn floor_of_generation(&self) -> u64 {
        let oldest = self.entries().find(|entry| entry.checkpoint().is_some());
        oldest.map_or(self.last() + 1, |entry| entry.position)
    }

    /// Takes in the next entry and lets go of what it makes void; returns the checkpoints among that.
    pub(super) fn push(&mut self, entry: LogEntry) -> Vec<CheckpointRecord> {
        let floor = entry.floor;
        self.entries.insert(entry.position, entry);
        let kept = self.entries.split_off(&floor);
        let void = std::mem::replace(&mut self.entries, kept);
        void.into_values().filter_map(|entry| entry.checkpoint().cloned()).collect()
    }

    /// Whether a checkpoint of this id is retained.
    pub fn names(&self, checkpoint: CheckpointId) -> bool {
        self.checkpoints().any(|record| record.id == checkpoint)
    }
}
