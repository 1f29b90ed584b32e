//! State: keyed state and its backends, the snapshot format, the checkpoint store and the log that makes it safe.

pub mod backend;
pub mod handle;
mod heap;
pub mod keyed;
pub mod snapshot;

pub use backend::{
    BackendRegistry, BytesBackend, FsStateBackend, KeyedBackend, KeyedBackendContext, MemoryStateBackend,
    SnapshotTarget, StateBackend,
};
pub use handle::{KeyedStateHandle, OperatorSubtaskState, SOURCE_SPLITS, StateHandle};
pub use keyed::{KeyedSnapshot, KeyedStateStore, ListState, MapState, StateValue, ValueState};
pub use snapshot::{SnapshotBytes, SnapshotSummary};
