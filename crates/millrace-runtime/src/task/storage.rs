//! Where tasks read and write snapshots.

use bytes::Bytes;
use millrace_core::{
    Result,
    ids::{CheckpointId, JobId},
};
use millrace_state::StateHandle;

/// A snapshot that was fetched.
pub struct StoredSnapshot {
    /// What messages call it.
    pub origin: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Reads and writes snapshots. Calls block: they come from a task's own thread before it runs, and from the threads
/// that write snapshots beside it.
pub trait SnapshotStorage: Send + Sync {
    /// Fetches a snapshot and checks that it is whole.
    fn read(&self, handle: &StateHandle) -> Result<StoredSnapshot>;

    /// Writes a snapshot into a checkpoint's directory under a name that is used once.
    fn write(&self, job: JobId, checkpoint: CheckpointId, name: &str, bytes: Vec<u8>) -> Result<StateHandle>;
}
