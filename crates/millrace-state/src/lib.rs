//! State: keyed state and its backends, the snapshot format, the checkpoint store and the log that makes it safe.

pub mod assignment;
pub mod backend;
mod frame;
pub mod handle;
mod heap;
pub mod in_flight;
pub mod inspect;
pub mod keyed;
pub mod log;
pub mod memory;
pub mod metadata;
pub mod snapshot;
pub mod storage;
mod ttl;

pub use backend::{
    BackendRegistry, BytesBackend, FsStateBackend, KeyedBackend, KeyedBackendContext, MemoryStateBackend,
    SnapshotTarget, StateBackend,
};
pub use handle::{
    KeyedStateHandle, OperatorSubtaskState, OwnState, SINK_COMMITTABLES, SOURCE_SPLITS, SharedFile, SharedState,
    StateFile, StateHandle,
};
pub use keyed::{
    AggregateFunction, AggregatingState, DueTimers, KeyedSnapshot, KeyedStateStore, ListState, MapState,
    ReduceFunction, ReducingState, StateValue, TIMERS, ValueState,
};
pub use snapshot::{SnapshotBytes, SnapshotSummary};
pub use ttl::{StateTtlConfig, StateVisibility, UpdateType};
