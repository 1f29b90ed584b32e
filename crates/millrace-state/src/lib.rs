//! State: keyed state and its backends, the snapshot format, the checkpoint store and the log that makes it safe.

pub mod assignment;
pub mod backend;
pub mod handle;
mod heap;
pub mod keyed;
pub mod log;
pub mod metadata;
pub mod snapshot;
pub mod storage;

pub use backend::{
    BackendRegistry, BytesBackend, FsStateBackend, KeyedBackend, KeyedBackendContext, MemoryStateBackend,
    SnapshotTarget, StateBackend,
};
pub use handle::{KeyedStateHandle, OperatorSubtaskState, SOURCE_SPLITS, StateHandle};
pub use keyed::{KeyedSnapshot, KeyedStateStore, ListState, MapState, StateValue, ValueState};
pub use snapshot::{SnapshotBytes, SnapshotSummary};
