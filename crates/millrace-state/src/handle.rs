//! Where a snapshot lies.

use millrace_core::{ids::OperatorUid, key::KeyGroupRange, operator_state::OperatorListSnapshot};
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
}

impl StateHandle {
    /// The snapshot's size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
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
}

/// The name of the operator list that holds a source's splits.
pub const SOURCE_SPLITS: &str = "millrace.source-splits";
