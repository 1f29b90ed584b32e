//! State backends: where keyed state lives and where its snapshots go.
//!
//! A backend is a factory registered by name in a [`BackendRegistry`]; Millrace's own are registered in the same way as
//! a user's. There are two kinds ([`KeyedBackend`]): the engine's typed tables on the heap, and anything that implements
//! the byte interface [`BytesBackend`]. Both write and read the one snapshot format of [`crate::snapshot`], so a
//! checkpoint of one restores on any other.

mod bytes;
mod files;
mod filesystem;
mod memory;
mod registry;

pub use bytes::{BytesBackend, BytesSnapshot, StateKey, StoredValue, VisitEntry, VisitStored};
pub use files::{BackendFile, FileBackend, LocalFiles, SnapshotFiles};
pub use filesystem::FsStateBackend;
pub use memory::{DEFAULT_MAX_STATE_SIZE, MemoryStateBackend};
pub use registry::BackendRegistry;

use millrace_core::{Result, clock::Clock, ids::OperatorUid, key::KeyGroupRange, schema::Schema};

/// A factory of keyed state, one for a job.
pub trait StateBackend: Send + Sync {
    /// The name that it is registered under and that messages show.
    fn name(&self) -> &str;

    /// Where the snapshots of its state go.
    fn snapshot_target(&self) -> SnapshotTarget;

    /// Makes the state of one subtask of one operator. Called on the task's thread, before anything is restored.
    fn open(&self, context: &KeyedBackendContext) -> Result<KeyedBackend>;

    /// What it may hold in memory in the whole process, and what it holds, where it has a limit of its own.
    fn managed_memory(&self) -> Option<ManagedMemory> {
        None
    }

    /// How the files of its snapshots are read, where it takes snapshots as files.
    fn files(&self) -> Option<&dyn FileBackend> {
        None
    }
}

/// The memory of a backend that limits itself, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagedMemory {
    /// What it may hold.
    pub total: u64,
    /// What it holds.
    pub used: u64,
}

/// Where a snapshot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotTarget {
    /// To the jobmanager, inside the checkpoint's metadata.
    JobManager {
        /// A state of one subtask that is larger fails the checkpoint. In bytes.
        max_state_size: u64,
    },
    /// To files in the checkpoint's directory.
    Files,
}

/// Whose state a backend is to hold.
#[derive(Clone, Debug)]
pub struct KeyedBackendContext {
    /// The operator.
    pub uid: OperatorUid,
    /// The operator's name, for messages.
    pub operator: String,
    /// The subtask.
    pub subtask: u32,
    /// The number of key groups, fixed for the job's life.
    pub max_parallelism: u32,
    /// The key groups of this subtask.
    pub range: KeyGroupRange,
    /// The schema of the key, where it is known: a restore then refuses state that was keyed by another type.
    pub key_schema: Option<Schema>,
    /// The time that state's expiry goes by.
    pub clock: Clock,
}

impl KeyedBackendContext {
    /// That of an operator's only subtask: all key groups are its, and its clock is the system's.
    pub fn alone(uid: &str, max_parallelism: u32) -> Self {
        Self {
            uid: OperatorUid(uid.to_string()),
            operator: uid.to_string(),
            subtask: 0,
            max_parallelism,
            range: KeyGroupRange::all(max_parallelism),
            key_schema: None,
            clock: Clock::system(),
        }
    }
}

/// How a backend holds state.
pub enum KeyedBackend {
    /// Typed values on the heap: nothing is serialized on access.
    Heap,
    /// Bytes behind a backend's own interface.
    Bytes(Box<dyn BytesBackend>),
}
