//! The metadata of a checkpoint: what it holds and where. The file `_metadata` of its directory.
//!
//! ```text
//! magic "MLRCKPT\n" | version u32 | payload length u64 | payload (postcard) | CRC-32 u32 of all before
//! ```
//!
//! Numbers are little-endian. Paths inside are relative to the checkpoint's directory, so that it can be moved; files
//! that checkpoints share are in the directory `shared` beside it.
//!
//! Version 2 has shared files; in version 3, what was in flight follows, and in version 4 the files that only later
//! checkpoints need. A checkpoint is written as the lowest version that can hold it, which older programs read too.

use std::collections::BTreeSet;

use millrace_core::{
    Error, Result,
    checkpoint::CheckpointingMode,
    codec,
    ids::{Attempt, CheckpointId, Generation, JobId, OperatorUid},
    key::{KeyGroupRange, check_parallelism},
    operator_state::OperatorListSnapshot,
};
use serde::{Deserialize, Serialize};

use crate::{
    KeyedStateHandle, OperatorSubtaskState, OwnState, SINK_COMMITTABLES, SharedFile, StateHandle,
    frame::{Frame, HEADER, TRAILER},
    log::entry::damaged,
    storage::{SHARED, is_file_name},
};

/// The newest version of the format that this program reads and writes. It reads all before.
pub const METADATA_FORMAT_VERSION: u32 = 4;

/// The version of a checkpoint with neither shared files nor data in flight.
const FIRST: u32 = 1;
/// The version that came with shared files.
const WITH_SHARED_FILES: u32 = 2;
/// The version that came with data in flight.
const WITH_DATA_IN_FLIGHT: u32 = 3;
/// The version that came with files written ahead.
const WITH_FILES_AHEAD: u32 = 4;

const FRAME: Frame =
    Frame { magic: b"MLRCKPT\n", what: "the metadata of a checkpoint", versions: FIRST..=METADATA_FORMAT_VERSION };

/// A completed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointMetadata {
    /// The job that took it.
    pub job: JobId,
    /// Its id.
    pub checkpoint: CheckpointId,
    /// The jobmanager's generation.
    pub generation: Generation,
    /// The start of the job's tasks that it belongs to.
    pub attempt: Attempt,
    /// When it was triggered, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Exactly once or at least once.
    pub mode: CheckpointingMode,
    /// The number of key groups, fixed for the job's life.
    pub max_parallelism: u32,
    /// Whether it is the last of a job whose input has ended.
    pub is_final: bool,
    /// What each operator put in.
    pub operators: Vec<OperatorStateMeta>,
}

/// What one operator put into a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorStateMeta {
    /// The operator.
    pub uid: OperatorUid,
    /// Its name, for messages.
    pub name: String,
    /// Its parallelism.
    pub parallelism: u32,
    /// The state of each of its subtasks, in order. Data in flight and files ahead are not in its encoding: they follow
    /// behind all operators.
    #[serde(with = "subtasks")]
    pub subtasks: Vec<OperatorSubtaskState>,
}

/// Something of a subtask, by the places of operator and subtask in the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfSubtask<T> {
    operator: u32,
    subtask: u32,
    data: T,
}

impl CheckpointMetadata {
    /// The bytes of the file. Directories of state files are left out.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut relative = self.clone();
        relative.set_directory("");
        let mut payload = codec::encode(&relative)?;
        if self.format_version() >= WITH_DATA_IN_FLIGHT {
            codec::encode_into(&relative.of_subtasks(|state| state.in_flight.clone()), &mut payload)?;
        }
        if self.format_version() >= WITH_FILES_AHEAD {
            let ahead = |state: &OperatorSubtaskState| Some(state.ahead.clone()).filter(|files| !files.is_empty());
            codec::encode_into(&relative.of_subtasks(ahead), &mut payload)?;
        }
        let mut bytes = Vec::with_capacity(HEADER + payload.len() + TRAILER);
        bytes.extend_from_slice(&FRAME.header(self.format_version(), payload.len() as u64));
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// Reads the file `name`, whose checkpoint lies in `directory` (a URI). Anything that is not exactly what was
    /// written is refused by name.
    pub fn decode(name: &str, bytes: &[u8], directory: &str) -> Result<Self> {
        let refuse = |why: String| damaged(format!("checkpoint {name} is {why}"));
        let (version, payload) = FRAME.unframe(bytes).map_err(refuse)?;
        let mut metadata =
            Self::decode_payload(version, payload).map_err(|error| refuse(format!("not understood: {error}")))?;
        if metadata.format_version() > version {
            return Err(refuse(format!("not consistent: version {version} has no shared files")));
        }
        metadata.check().map_err(|why| refuse(format!("not consistent: {why}")))?;
        metadata.set_directory(directory);
        Ok(metadata)
    }

    /// The total size of the state that it refers to or holds, in bytes.
    pub fn state_size(&self) -> u64 {
        self.subtasks().map(OperatorSubtaskState::size).fold(0, u64::saturating_add)
    }

    /// How much of that was in flight.
    pub fn in_flight_size(&self) -> u64 {
        let in_flight = self.subtasks().filter_map(|subtask| subtask.in_flight.as_ref());
        in_flight.map(StateHandle::size).fold(0, u64::saturating_add)
    }

    /// The names of the files in the directory of shared files that it refers to.
    pub fn shared_file_names(&self) -> impl Iterator<Item = &str> {
        let needed = self.keyed().flat_map(|keyed| keyed.data.shared_files());
        let ahead = self.subtasks().flat_map(|subtask| &subtask.ahead);
        needed.chain(ahead).map(|shared| shared.file.name.as_str())
    }

    /// Whether sinks make records visible when it is complete.
    pub fn has_committables(&self) -> bool {
        let mut lists = self.subtasks().flat_map(|subtask| &subtask.lists);
        lists.any(|list| list.name == SINK_COMMITTABLES && !list.items.is_empty())
    }

    fn subtasks(&self) -> impl Iterator<Item = &OperatorSubtaskState> {
        self.operators.iter().flat_map(|operator| &operator.subtasks)
    }

    fn keyed(&self) -> impl Iterator<Item = &KeyedStateHandle> {
        self.subtasks().filter_map(|subtask| subtask.keyed.as_ref())
    }

    fn format_version(&self) -> u32 {
        if self.subtasks().any(|subtask| !subtask.ahead.is_empty()) {
            return WITH_FILES_AHEAD;
        }
        if self.subtasks().any(|subtask| subtask.in_flight.is_some()) {
            return WITH_DATA_IN_FLIGHT;
        }
        match self.keyed().any(|keyed| matches!(keyed.data, StateHandle::Shared(_))) {
            true => WITH_SHARED_FILES,
            false => FIRST,
        }
    }

    fn decode_payload(version: u32, payload: &[u8]) -> Result<Self> {
        if version < WITH_DATA_IN_FLIGHT {
            return codec::decode(payload);
        }
        let (mut metadata, rest) = codec::decode_front::<Self>(payload)?;
        let (in_flight, rest) = codec::decode_front::<Vec<OfSubtask<StateHandle>>>(rest)?;
        for OfSubtask { operator, subtask, data } in in_flight {
            let subtask = metadata.subtask(operator, subtask)?;
            if subtask.in_flight.replace(data).is_some() {
                return Err(Error::internal(format!("data in flight to operator {} is in it twice", subtask.uid)));
            }
        }
        if version < WITH_FILES_AHEAD {
            codec::decode::<()>(rest)?;
            return Ok(metadata);
        }
        for OfSubtask { operator, subtask, data } in codec::decode::<Vec<OfSubtask<Vec<SharedFile>>>>(rest)? {
            let subtask = metadata.subtask(operator, subtask)?;
            if !std::mem::replace(&mut subtask.ahead, data).is_empty() {
                return Err(Error::internal(format!("files ahead of operator {} are in it twice", subtask.uid)));
            }
        }
        Ok(metadata)
    }

    fn subtask(&mut self, operator: u32, subtask: u32) -> Result<&mut OperatorSubtaskState> {
        let operator = self.operators.get_mut(operator as usize);
        let subtask = operator.and_then(|operator| operator.subtasks.get_mut(subtask as usize));
        subtask.ok_or_else(|| Error::internal("something is of a subtask that is not in it"))
    }

    fn of_subtasks<T>(&self, part: impl Fn(&OperatorSubtaskState) -> Option<T>) -> Vec<OfSubtask<T>> {
        let mut all = Vec::new();
        for (operator, meta) in (0..).zip(&self.operators) {
            for (subtask, state) in (0..).zip(&meta.subtasks) {
                all.extend(part(state).map(|data| OfSubtask { operator, subtask, data }));
            }
        }
        all
    }

    fn set_directory(&mut self, uri: &str) {
        let beside = beside(uri);
        let subtasks = self.operators.iter_mut().flat_map(|operator| &mut operator.subtasks);
        for subtask in subtasks {
            let keyed = subtask.keyed.iter_mut().map(|keyed| &mut keyed.data);
            keyed.chain(&mut subtask.in_flight).for_each(|data| place(data, uri));
            subtask.ahead.iter_mut().for_each(|shared| shared.file.directory.clone_from(&beside));
        }
    }

    /// What the rest of the program relies on and a crafted file could break.
    fn check(&self) -> Result<(), String> {
        let mut uids = BTreeSet::new();
        for operator in &self.operators {
            let uid = &operator.uid;
            check_parallelism(operator.parallelism, self.max_parallelism)
                .map_err(|error: Error| format!("operator {uid}: {error}"))?;
            if !uids.insert(uid) {
                return Err(format!("operator {uid} is in it twice"));
            }
            if operator.subtasks.len() != operator.parallelism as usize {
                return Err(format!(
                    "operator {uid} has {} subtasks and parallelism {}",
                    operator.subtasks.len(),
                    operator.parallelism
                ));
            }
            for subtask in &operator.subtasks {
                self.check_subtask(uid, subtask)?;
            }
        }
        Ok(())
    }

    fn check_subtask(&self, uid: &OperatorUid, subtask: &OperatorSubtaskState) -> Result<(), String> {
        if &subtask.uid != uid {
            return Err(format!("a subtask of operator {uid} says that it is of {}", subtask.uid));
        }
        match &subtask.in_flight {
            Some(StateHandle::Shared(_)) => return Err(format!("data in flight to operator {uid} is in shared files")),
            Some(data) => check_handle(uid, data)?,
            None => {}
        }
        check_shared(uid, &subtask.ahead)?;
        let Some(keyed) = &subtask.keyed else {
            return Ok(());
        };
        let KeyGroupRange { start, end } = keyed.range;
        if start > end || u32::from(end) >= self.max_parallelism {
            return Err(format!("operator {uid} has key groups {start} to {end} of {}", self.max_parallelism));
        }
        check_handle(uid, &keyed.data)
    }
}

/// Says where the checkpoint's directory is, or takes that out where `uri` is empty.
fn place(data: &mut StateHandle, uri: &str) {
    match data {
        StateHandle::Inline(_) => {}
        StateHandle::File { directory, .. } => *directory = uri.to_string(),
        StateHandle::Shared(shared) => {
            if let OwnState::File(file) = &mut shared.snapshot {
                file.directory = uri.to_string();
            }
            let beside = beside(uri);
            shared.files.iter_mut().for_each(|shared| shared.file.directory.clone_from(&beside));
        }
    }
}

/// The directory of shared files beside a checkpoint's.
fn beside(uri: &str) -> String {
    uri.rsplit_once('/').map_or(String::new(), |(job, _)| format!("{job}/{SHARED}"))
}

fn check_name(uid: &OperatorUid, name: &str) -> Result<(), String> {
    match is_file_name(name) {
        true => Ok(()),
        false => Err(format!("operator {uid} has a state file {name:?}")),
    }
}

fn check_shared(uid: &OperatorUid, files: &[SharedFile]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for SharedFile { local_name, file } in files {
        check_name(uid, local_name)?;
        check_name(uid, &file.name)?;
        if !names.insert(local_name) {
            return Err(format!("operator {uid} has the shared file {local_name:?} twice"));
        }
    }
    Ok(())
}

fn check_handle(uid: &OperatorUid, data: &StateHandle) -> Result<(), String> {
    match data {
        StateHandle::Inline(_) => Ok(()),
        StateHandle::File { name, .. } => check_name(uid, name),
        StateHandle::Shared(shared) => {
            if let OwnState::File(file) = &shared.snapshot {
                check_name(uid, &file.name)?;
            }
            check_shared(uid, &shared.files)
        }
    }
}

/// The state of subtasks as all versions have it.
mod subtasks {
    use serde::{Deserializer, Serializer};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Subtask {
        uid: OperatorUid,
        keyed: Option<KeyedStateHandle>,
        lists: Vec<OperatorListSnapshot>,
    }

    pub(super) fn serialize<S: Serializer>(all: &[OperatorSubtaskState], serializer: S) -> Result<S::Ok, S::Error> {
        let plain = |OperatorSubtaskState { uid, keyed, lists, .. }: &OperatorSubtaskState| Subtask {
            uid: uid.clone(),
            keyed: keyed.clone(),
            lists: lists.clone(),
        };
        serializer.collect_seq(all.iter().map(plain))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<OperatorSubtaskState>, D::Error> {
        let all = Vec::<Subtask>::deserialize(deserializer)?;
        let whole = |Subtask { uid, keyed, lists }| OperatorSubtaskState {
            uid,
            keyed,
            lists,
            in_flight: None,
            ahead: Vec::new(),
        };
        Ok(all.into_iter().map(whole).collect())
    }
}

#[cfg(test)]
pub(crate) mod tests;
