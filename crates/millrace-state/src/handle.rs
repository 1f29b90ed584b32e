//! Where a snapshot lies.

use millrace_core::{Error, Result, ids::OperatorUid, key::KeyGroupRange, operator_state::OperatorListSnapshot};
use serde::{Deserialize, Serialize};

/// The bytes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateHandle {
    /// Inside the checkpoint's metadata.
    Inline(Vec<u8>),
    /// In a file of the checkpoint's directory.
    File {
        /// The URI of the checkpoint's directory. Empty inside `_metadata`, so that a checkpoint can be moved; filled
        /// in when the metadata is read.
        directory: String,
        /// The file's name in it; unique for ever.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The CRC-32 of its bytes.
        crc32: u32,
    },
    /// Partly in files that several checkpoints of the job share.
    Shared(Box<SharedState>),
}

/// A snapshot whose backend adds files to those of earlier checkpoints instead of writing everything again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedState {
    /// A snapshot that names the states and holds what is not in the files.
    pub snapshot: OwnState,
    /// The backend that reads the files, by its name.
    pub format: String,
    /// The states whose entries in the files expire, by their ids in the snapshot: such entries have another encoding.
    pub expiring: Vec<u16>,
    /// The files.
    pub files: Vec<SharedFile>,
}

/// A file that several checkpoints may refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFile {
    /// What the backend calls it; unique within the snapshot.
    pub local_name: String,
    /// Where it is: in the job's directory of shared files.
    pub file: StateFile,
}

/// The bytes that one checkpoint alone refers to. (Not a [`StateHandle`]: those would nest as deep as a crafted file says.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnState {
    /// Inside the checkpoint's metadata.
    Inline(Vec<u8>),
    /// In a file of the checkpoint's directory.
    File(StateFile),
}

/// A file in the store, with the fields of [`StateHandle::File`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// The URI of its directory. Empty inside `_metadata`.
    pub directory: String,
    /// Its name; unique for ever.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// The CRC-32 of its bytes.
    pub crc32: u32,
}

impl OwnState {
    /// The bytes as a handle.
    pub fn handle(&self) -> StateHandle {
        match self {
            Self::Inline(bytes) => StateHandle::Inline(bytes.clone()),
            Self::File(file) => file.handle(),
        }
    }
}

impl TryFrom<StateHandle> for OwnState {
    type Error = Error;

    fn try_from(handle: StateHandle) -> Result<Self> {
        match handle {
            StateHandle::Inline(bytes) => Ok(Self::Inline(bytes)),
            StateHandle::File { directory, name, size, crc32 } => {
                Ok(Self::File(StateFile { directory, name, size, crc32 }))
            }
            StateHandle::Shared(_) => Err(Error::internal("a snapshot in shared files holds another")),
        }
    }
}

impl StateFile {
    /// The file as a handle.
    pub fn handle(&self) -> StateHandle {
        let Self { directory, name, size, crc32 } = self.clone();
        StateHandle::File { directory, name, size, crc32 }
    }
}

impl StateHandle {
    /// The snapshot's size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
            Self::Shared(shared) => {
                let own = match &shared.snapshot {
                    OwnState::Inline(bytes) => bytes.len() as u64,
                    OwnState::File(file) => file.size,
                };
                shared.files.iter().map(|shared| shared.file.size).fold(own, u64::saturating_add)
            }
        }
    }

    /// The files that it shares with other checkpoints.
    pub fn shared_files(&self) -> &[SharedFile] {
        match self {
            Self::Shared(shared) => &shared.files,
            _ => &[],
        }
    }
}

/// The keyed state of one subtask of one operator: a snapshot in the format of [`crate::snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedStateHandle {
    /// The key groups that it holds.
    pub range: KeyGroupRange,
    /// The snapshot.
    pub data: StateHandle,
}

/// Everything that one subtask of one operator puts into a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSubtaskState {
    /// The operator.
    pub uid: OperatorUid,
    /// Its keyed state, where it has any.
    pub keyed: Option<KeyedStateHandle>,
    /// Its operator lists; a source's splits are among them, under [`SOURCE_SPLITS`].
    pub lists: Vec<OperatorListSnapshot>,
    /// What was in flight to it when an unaligned barrier overtook that, in the format of [`crate::in_flight`]: only the
    /// first operator of a chain has any.
    pub in_flight: Option<StateHandle>,
    /// Files that this checkpoint does not need: a later one will, and finds them written.
    pub ahead: Vec<SharedFile>,
}

impl OperatorSubtaskState {
    /// How many bytes it holds or refers to.
    pub fn size(&self) -> u64 {
        let lists = self.lists.iter().flat_map(|list| &list.items).map(|item| item.len() as u64);
        let handles = self.keyed.iter().map(|keyed| &keyed.data).chain(&self.in_flight).map(StateHandle::size);
        lists.chain(handles).fold(0, u64::saturating_add)
    }

    /// Whether leaving it behind would lose anything.
    pub fn has_state(&self) -> bool {
        self.keyed.is_some() || self.in_flight.is_some() || self.lists.iter().any(|list| !list.items.is_empty())
    }
}

/// The name of the operator list that holds a source's splits.
pub const SOURCE_SPLITS: &str = "millrace.source-splits";

/// The operator list in which a sink keeps what is to be committed when its checkpoint is complete: items are
/// [`PendingCommittable`](millrace_core::sink::PendingCommittable)s.
pub const SINK_COMMITTABLES: &str = "millrace.sink-committables";
