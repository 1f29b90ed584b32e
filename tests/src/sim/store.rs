//! A simulated object store: creates are if-absent and linearizable, listings are complete. What goes wrong on the way
//! to it and back is the world's business.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use millrace_core::ids::{Attempt, CheckpointId, Generation, JobId, TaskId};
use millrace_runtime::coordinator::TaskStates;
use millrace_state::{
    OperatorSubtaskState, StateHandle,
    log::{LogBody, LogEntry},
};

/// The job whose log it is.
pub const JOB: JobId = JobId(0x51);

/// A task's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A source: where it began, and the next record.
    Source {
        /// The first record.
        base: u64,
        /// The next record.
        position: u64,
    },
    /// A counting task, per source.
    Counter {
        /// How many records were counted.
        counts: Vec<u64>,
        /// The next record that is expected.
        next: Vec<u64>,
        /// What was in flight when barriers overtook it: records from a number on, up to another.
        in_flight: Vec<Vec<(u64, u64)>>,
    },
}

/// A checkpoint's metadata.
#[derive(Debug)]
pub struct Metadata {
    /// Unique for every checkpoint that a jobmanager tries to complete.
    pub instance: usize,
    /// The jobmanager's generation, and the attempt whose tasks took it.
    pub by: (Generation, Attempt),
    /// Where the tasks' states are.
    pub states: Rc<TaskStates>,
}

/// A checkpoint that was read back.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Which one.
    pub instance: usize,
    /// The state of each task.
    pub snapshots: BTreeMap<TaskId, Snapshot>,
}

/// The store.
#[derive(Debug, Default)]
pub struct Store {
    log: BTreeMap<u64, (Vec<u8>, LogEntry)>,
    metadata: BTreeMap<CheckpointId, Rc<Metadata>>,
    files: BTreeMap<String, (CheckpointId, Snapshot)>,
}

impl Store {
    /// The numbers of the log's entries from one on.
    pub fn list_log(&self, from: u64) -> Vec<u64> {
        self.log.range(from..).map(|(position, _)| *position).collect()
    }

    /// An entry of the log.
    pub fn read_log(&self, position: u64) -> Option<Vec<u8>> {
        self.log.get(&position).map(|(bytes, _)| bytes.clone())
    }

    /// Creates an entry if there is none; returns whether it did.
    pub fn create_log(&mut self, position: u64, bytes: &[u8]) -> Result<bool, String> {
        if self.log.contains_key(&position) {
            return Ok(false);
        }
        let entry = LogEntry::decode(JOB, position, bytes).map_err(|error| error.message)?;
        if let Some(end) = self.newest_log().filter(|end| end.terminal().is_some() && end.position < position) {
            return Err(format!("entry {position} follows the job's end at {}", end.position));
        }
        self.log.insert(position, (bytes.to_vec(), entry));
        Ok(true)
    }

    /// Deletes an entry of the log, which must be void.
    pub fn delete_log(&mut self, position: u64) -> Result<(), String> {
        let floor = self.newest_log().map_or(0, |newest| newest.floor);
        match self.log.remove(&position) {
            Some(_) if position >= floor => Err(format!("log entry {position} was deleted, and the floor is {floor}")),
            _ => Ok(()),
        }
    }

    /// The newest entry of the log.
    pub fn newest_log(&self) -> Option<&LogEntry> {
        self.log.last_key_value().map(|(_, (_, entry))| entry)
    }

    /// The highest generation that has claimed the job.
    pub fn generation(&self) -> Generation {
        self.newest_log().map_or(Generation(0), |entry| entry.generation)
    }

    /// Whether the job has ended.
    pub fn has_ended(&self) -> bool {
        self.newest_log().is_some_and(|entry| entry.terminal().is_some())
    }

    /// The checkpoints that the log points to.
    pub fn pointed_to(&self) -> impl Iterator<Item = CheckpointId> {
        let floor = self.newest_log().map_or(0, |newest| newest.floor);
        self.log.range(floor..).filter_map(|(_, (_, entry))| match &entry.body {
            LogBody::Checkpoint(record) => Some(record.id),
            _ => None,
        })
    }

    /// Creates a checkpoint's metadata if there is none; returns the instance that is there now.
    pub fn create_metadata(&mut self, checkpoint: CheckpointId, metadata: &Rc<Metadata>) -> usize {
        self.metadata.entry(checkpoint).or_insert_with(|| Rc::clone(metadata)).instance
    }

    /// A checkpoint's metadata.
    pub fn metadata(&self, checkpoint: CheckpointId) -> Option<&Metadata> {
        self.metadata.get(&checkpoint).map(|metadata| &**metadata)
    }

    /// Writes a snapshot.
    pub fn put_state(&mut self, checkpoint: CheckpointId, name: String, snapshot: Snapshot) {
        self.files.insert(name, (checkpoint, snapshot));
    }

    /// Reads a checkpoint; an error names what is missing.
    pub fn read_checkpoint(&self, checkpoint: CheckpointId) -> Result<Restored, String> {
        let metadata =
            self.metadata.get(&checkpoint).ok_or_else(|| format!("chk-{checkpoint}/_metadata is missing"))?;
        let mut snapshots = BTreeMap::new();
        for (task, state) in metadata.states.iter() {
            for name in file_names(state) {
                let (_, snapshot) =
                    self.files.get(name).ok_or_else(|| format!("chk-{checkpoint}/{name} is missing"))?;
                snapshots.insert(*task, snapshot.clone());
            }
        }
        Ok(Restored { instance: metadata.instance, snapshots })
    }

    /// The highest id of which there is any file.
    pub fn highest_checkpoint(&self) -> CheckpointId {
        let files = self.files.values().map(|(checkpoint, _)| *checkpoint);
        self.metadata.keys().copied().chain(files).max().unwrap_or_default()
    }

    /// Deletes a checkpoint's directory.
    pub fn delete_checkpoint(&mut self, checkpoint: CheckpointId) -> Result<(), String> {
        self.metadata.remove(&checkpoint);
        self.files.retain(|_, (of, _)| *of != checkpoint);
        self.check_pointers(checkpoint)
    }

    /// Deletes snapshots.
    pub fn delete_files(&mut self, names: &[String]) -> Result<(), String> {
        let mut touched = BTreeSet::new();
        for name in names {
            touched.extend(self.files.remove(name).map(|(checkpoint, _)| checkpoint));
        }
        touched.into_iter().try_for_each(|checkpoint| self.check_pointers(checkpoint))
    }

    /// A checkpoint that the log points to has its files.
    pub fn check_pointers(&self, checkpoint: CheckpointId) -> Result<(), String> {
        if !self.pointed_to().any(|pointed| pointed == checkpoint) {
            return Ok(());
        }
        self.read_checkpoint(checkpoint)
            .map(drop)
            .map_err(|what| format!("the log points to checkpoint {checkpoint}, and {what}"))
    }
}

/// The files of a task's state.
pub fn file_names(state: &[OperatorSubtaskState]) -> impl Iterator<Item = &str> {
    state.iter().filter_map(|part| match &part.keyed.as_ref()?.data {
        StateHandle::File { name, .. } => Some(name.as_str()),
        StateHandle::Inline(_) | StateHandle::Shared(_) => None,
    })
}
