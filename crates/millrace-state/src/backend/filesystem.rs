//! State on the heap, snapshots in files.

use millrace_core::Result;

use super::{KeyedBackend, KeyedBackendContext, SnapshotTarget, StateBackend};

/// Holds state on the heap, as [`MemoryStateBackend`](super::MemoryStateBackend) does, and writes its snapshots to the
/// checkpoint directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsStateBackend {
    checkpoint_dir: Option<String>,
}

impl FsStateBackend {
    /// Checkpoints go to this directory: `file:///…`, `s3://bucket/…` or, with the feature `hdfs`,
    /// `hdfs://namenode:port/…`.
    pub fn new(checkpoint_dir: impl Into<String>) -> Self {
        Self { checkpoint_dir: Some(checkpoint_dir.into()) }
    }

    /// Checkpoints go to the directory that the configuration names (`state.checkpoints.dir`).
    pub fn configured() -> Self {
        Self { checkpoint_dir: None }
    }

    /// The directory that the program names.
    pub fn checkpoint_dir(&self) -> Option<&str> {
        self.checkpoint_dir.as_deref()
    }
}

impl StateBackend for FsStateBackend {
    fn name(&self) -> &str {
        "filesystem"
    }

    fn snapshot_target(&self) -> SnapshotTarget {
        SnapshotTarget::Files
    }

    fn open(&self, _context: &KeyedBackendContext) -> Result<KeyedBackend> {
        Ok(KeyedBackend::Heap)
    }
}
