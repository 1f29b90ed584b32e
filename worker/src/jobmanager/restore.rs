//! What an attempt starts from: the newest completed checkpoint that can be read, and the splits.

use std::collections::BTreeMap;

use millrace_core::{
    Error, ErrorDomain, Result,
    ids::{Attempt, CheckpointId, TaskId, VertexId},
    source::Boundedness,
};
use millrace_runtime::{
    coordinator::{RestorePoint, TaskStates},
    graph::JobGraph,
    scheduler::{Event as SchedulerEvent},
    source::EncodedSplit,
    task::OperatorRestore,
};
use millrace_state::{
    log::{CheckpointRecord, older_checkpoint},
    metadata::CheckpointMetadata,
    storage::CheckpointStorage,
};

use super::{Event, JobManager, splits::{Enumerators, Found, SplitsByVertex}};

/// A checkpoint, made ready for the tasks of this graph.
pub struct Restored {
    /// Which one.
    pub checkpoint: CheckpointId,
    /// The state of each task that has some.
    pub tasks: BTreeMap<TaskId, Vec<OperatorRestore>>,
    /// The splits of each source.
    pub splits: SplitsByVertex,
}

impl JobManager {
    /// Finds out what the attempt starts from.
    pub(super) fn prepare(&mut self, attempt: Attempt) {
        match self.coordinator.restore_point() {
            RestorePoint::Undecided => self.undecided = Some(attempt),
            RestorePoint::Empty => self.restore_from(attempt, Origin::given(self)),
            RestorePoint::Checkpoint(_) => match self.newest_readable() {
                Ok(record) => self.restore_from(attempt, Origin::Own(record)),
                Err(error) => self.schedule(SchedulerEvent::AttemptFailed(attempt, error)),
            },
        }
    }
}
