//! State on the heap, snapshots in the jobmanager's memory.

use millrace_core::Result;

use super::{KeyedBackend, KeyedBackendContext, SnapshotTarget, StateBackend};

/// The largest state that [`MemoryStateBackend`] ships to the jobmanager by default: 5 MiB (as in Flink).
pub const DEFAULT_MAX_STATE_SIZE: u64 = 5 << 20;

/// Holds state on the heap and ships its snapshots to the jobmanager. Without a checkpoint directory these die with the
/// jobmanager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryStateBackend {
    max_state_size: u64,
}

impl MemoryStateBackend {
    /// With the default limit, [`DEFAULT_MAX_STATE_SIZE`].
    pub fn new() -> Self {
        Self::with_max_state_size(DEFAULT_MAX_STATE_SIZE)
    }

    /// A checkpoint fails when one state of one subtask is larger than `bytes`.
    pub fn with_max_state_size(bytes: u64) -> Self {
        Self { max_state_size: bytes }
    }
}

impl Default for MemoryStateBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl StateBackend for MemoryStateBackend {
    fn name(&self) -> &str {
        "memory"
    }

    fn snapshot_target(&self) -> SnapshotTarget {
        SnapshotTarget::JobManager { max_state_size: self.max_state_size }
    }

    fn open(&self, _context: &KeyedBackendContext) -> Result<KeyedBackend> {
        Ok(KeyedBackend::Heap)
    }
}
