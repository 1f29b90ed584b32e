//! The keyed state in a checkpoint.

use std::{cell::OnceCell, collections::BTreeMap, ops::Range};

use bytes::Bytes;
use millrace_core::{
    Error, Result,
    key::{KeyGroupRange, KeyHash},
};
use tokio::runtime::Handle;

use super::{line, translated::FilesOfBackend};
use crate::{
    BackendRegistry, KeyedStateHandle, SharedState, StateHandle,
    in_flight::{self, EdgeInFlight},
    log::entry::damaged,
    metadata::{CheckpointMetadata, OperatorStateMeta},
    snapshot::{Entry, Section, SectionReader, SnapshotBytes, SnapshotReader, StateKind, StateMeta},
    storage::{CheckpointStorage, StorageOptions, StorageUri, open_checkpoint},
};

/// A checkpoint that is looked at.
pub struct CheckpointContents {
    storage: CheckpointStorage,
    metadata: CheckpointMetadata,
    uri: String,
    backends: BackendRegistry,
}

impl CheckpointContents {
    /// Reads the metadata of a checkpoint: `uri` is its directory or the `_metadata` in it. What a backend has in files of
    /// its own is read if the backend is among `backends`.
    pub async fn open(uri: &str, options: &StorageOptions, backends: BackendRegistry) -> Result<Self> {
        let metadata = open_checkpoint(uri, options).await?;
        let place = StorageUri::parse(uri)?;
        let directory = match place.split_last() {
            Some((directory, name)) if name == "_metadata" => directory,
            _ => place,
        };
        // From the directory above, so that files beside the checkpoint's are in reach over the same connections.
        let above = directory.split_last().map_or_else(|| directory.clone(), |(above, _)| above);
        let storage = CheckpointStorage::open_to_read(above, options)?;
        Ok(Self { storage, metadata, uri: directory.to_string(), backends })
    }

    /// What the checkpoint says of itself.
    pub fn metadata(&self) -> &CheckpointMetadata {
        &self.metadata
    }

    /// Its directory.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Reads a file from end to end and checks its size and checksum.
    pub async fn verify(&self, file: &StateHandle) -> Result<()> {
        let mut reader = self.storage.state_reader(file)?;
        while reader.next().await?.is_some() {}
        Ok(())
    }

    /// Reads what was in flight to a subtask when unaligned barriers overtook it.
    pub async fn in_flight(&self, data: &StateHandle) -> Result<Vec<EdgeInFlight>> {
        let bytes = self.storage.read_state(data).await?;
        let name = match data {
            StateHandle::File { directory, name, .. } => format!("{directory}/{name}"),
            _ => format!("{}/_metadata", self.uri),
        };
        in_flight::decode(&name, &bytes)
    }

    /// Opens the snapshots of an operator's subtasks. Blocks its thread, which must not be one that drives `runtime`.
    pub fn snapshots(&self, operator: &OperatorStateMeta, runtime: &Handle) -> Result<OperatorSnapshots> {
        self.each_snapshot(operator, runtime).collect()
    }

    /// The same one by one, for whoever goes on behind one that is damaged.
    pub fn each_snapshot(
        &self,
        operator: &OperatorStateMeta,
        runtime: &Handle,
    ) -> impl Iterator<Item = Result<SubtaskSnapshot>> {
        let keyed =
            (0u32..).zip(&operator.subtasks).filter_map(|(subtask, state)| Some((subtask, state.keyed.as_ref()?)));
        keyed.map(|(subtask, keyed)| self.open_snapshot(operator, subtask, keyed, runtime))
    }

    fn open_snapshot(
        &self,
        operator: &OperatorStateMeta,
        subtask: u32,
        keyed: &KeyedStateHandle,
        runtime: &Handle,
    ) -> Result<SubtaskSnapshot> {
        let (handle, files) = match &keyed.data {
            StateHandle::Shared(shared) => (shared.snapshot.handle(), Some(self.files(subtask, shared, runtime))),
            other => (other.clone(), None),
        };
        let origin = match &handle {
            StateHandle::File { directory, name, .. } => format!("{directory}/{name}"),
            _ => format!("the state of operator {}, subtask {subtask}, inside {}/_metadata", operator.uid, self.uri),
        };
        runtime.block_on(self.storage.check_size(&handle))?;
        let bytes = StoredSnapshot { storage: self.storage.clone(), handle, runtime: runtime.clone() };
        let reader = SnapshotReader::open(bytes).map_err(|error| in_file(&origin, error))?;
        let header = reader.header();
        let told = (&header.uid, header.max_parallelism, header.range);
        let meant = (&operator.uid, self.metadata.max_parallelism, keyed.range);
        if told != meant {
            let show = |(uid, max, range): (_, u32, KeyGroupRange)| {
                format!("operator {uid}, key groups {} to {} of {max}", range.start, range.end)
            };
            return Err(damaged(format!(
                "{origin} is foreign: it holds {}, and the metadata speaks of {}",
                show(told),
                show(meant)
            )));
        }
        Ok(SubtaskSnapshot { operator: operator.uid.to_string(), origin, files, reader })
    }

    fn files(&self, subtask: u32, shared: &SharedState, runtime: &Handle) -> SubtaskFiles {
        let SharedState { format, files, .. } = shared;
        let readable = self.backends.get(format).ok().map(|backend| FilesOfBackend {
            backend,
            files: files.clone(),
            storage: self.storage.clone(),
            runtime: runtime.clone(),
        });
        SubtaskFiles { subtask, format: format.clone(), readable, translated: OnceCell::new() }
    }
}

/// A snapshot in the store. Each read waits for it.
struct StoredSnapshot {
    storage: CheckpointStorage,
    handle: StateHandle,
    runtime: Handle,
}

impl SnapshotBytes for StoredSnapshot {
    fn size(&self) -> u64 {
        self.handle.size()
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.runtime.block_on(self.storage.read_state_range(&self.handle, range))
    }
}

/// The keyed state of one subtask.
pub struct SubtaskSnapshot {
    operator: String,
    /// The file, or where else it lies.
    origin: String,
    /// Where the entries are that are not in the snapshot, if that is so.
    files: Option<SubtaskFiles>,
    reader: SnapshotReader,
}

/// Entries in files of a backend.
struct SubtaskFiles {
    subtask: u32,
    format: String,
    /// `None` where the backend is not known here.
    readable: Option<FilesOfBackend>,
    /// Made when somebody wants to read them.
    translated: OnceCell<Result<SnapshotReader>>,
}

impl SubtaskSnapshot {
    /// What holds a state's entries. Those in files that nobody here reads are nowhere.
    fn reader_of(&self, state: &StateMeta) -> Result<&SnapshotReader> {
        let files = self.files.as_ref().filter(|_| state.kind != StateKind::Timer);
        let Some((files, readable)) = files.and_then(|files| Some((files, files.readable.as_ref()?))) else {
            return Ok(&self.reader);
        };
        let translate = || readable.translate(self.reader.header(), files.subtask);
        files.translated.get_or_init(translate).as_ref().map_err(|error| in_file(&self.origin, error.clone()))
    }
}

/// The keyed state of one operator.
pub struct OperatorSnapshots(Vec<SubtaskSnapshot>);

impl FromIterator<SubtaskSnapshot> for OperatorSnapshots {
    fn from_iter<I: IntoIterator<Item = SubtaskSnapshot>>(snapshots: I) -> Self {
        Self(snapshots.into_iter().collect())
    }
}

impl OperatorSnapshots {
    /// The states in the order of their names.
    pub fn states(&self) -> Vec<StateContents<'_>> {
        let mut states: BTreeMap<&str, StateContents<'_>> = BTreeMap::new();
        for snapshot in &self.0 {
            for meta in &snapshot.reader.header().states {
                let new = || StateContents { meta, parts: Vec::new() };
                states.entry(&meta.name).or_insert_with(new).parts.push((snapshot, meta));
            }
        }
        states.into_values().collect()
    }
}

/// A state of an operator, over all its subtasks.
pub struct StateContents<'a> {
    /// What its writer knew of it.
    pub meta: &'a StateMeta,
    parts: Vec<(&'a SubtaskSnapshot, &'a StateMeta)>,
}

impl<'a> StateContents<'a> {
    /// Its key groups in the range that are not empty, in order. Files of a backend are fetched for it: of the subtasks
    /// that have some of the range.
    pub fn groups(&self, range: KeyGroupRange) -> Result<Vec<Group<'a>>> {
        self.groups_in_parts(range).into_iter().try_fold(Vec::new(), |mut all, groups| {
            all.extend(groups?);
            Ok(all)
        })
    }

    /// The same for each subtask, for whoever goes on behind one that is damaged.
    pub fn groups_in_parts(&self, range: KeyGroupRange) -> Vec<Result<Vec<Group<'a>>>> {
        let mut parts: Vec<_> =
            self.parts.iter().map(|(snapshot, meta)| (snapshot.reader.header().range, *snapshot, *meta)).collect();
        parts.sort_by_key(|(of_part, ..)| of_part.start);
        let overlapping = parts.into_iter().filter(|(of_part, ..)| of_part.overlaps(range));
        overlapping
            .map(|(_, snapshot, meta)| {
                let reader = snapshot.reader_of(meta)?;
                Ok(reader.sections(meta.id, range).map(|section| Group { snapshot, reader, meta, section }).collect())
            })
            .collect()
    }

    /// The backend in whose files its entries are, where this program can't read them.
    pub fn in_files_of(&self) -> Option<&'a str> {
        if self.meta.kind == StateKind::Timer {
            return None;
        }
        let unreadable = |files: &&'a SubtaskFiles| files.readable.is_none();
        let mut files = self.parts.iter().filter_map(|(snapshot, _)| snapshot.files.as_ref());
        files.find(unreadable).map(|files| files.format.as_str())
    }
}

/// The entries of a state in one key group.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    snapshot: &'a SubtaskSnapshot,
    reader: &'a SnapshotReader,
    meta: &'a StateMeta,
    section: &'a Section,
}

impl Group<'_> {
    /// The key group.
    pub fn key_group(&self) -> u16 {
        self.section.key_group
    }

    /// How many entries there are.
    pub fn entries(&self) -> u64 {
        self.section.entries
    }

    /// Their size.
    pub fn bytes(&self) -> u64 {
        self.section.length
    }

    /// Reads them. They are in memory until the result goes.
    pub fn read(&self) -> Result<GroupEntries<'_>> {
        let reader = self.reader.read(self.section);
        let reader = reader.map_err(|error| in_file(&self.snapshot.origin, error))?;
        let max_parallelism = self.reader.header().max_parallelism;
        Ok(GroupEntries { group: *self, max_parallelism, reader })
    }

    /// An entry as a line of JSON.
    pub fn line(&self, entry: &Entry<'_>) -> Result<String> {
        let line = line::entry(&self.snapshot.operator, self.meta, self.key_group(), entry);
        line.map_err(|why| {
            let (group, state) = (self.key_group(), &self.meta.name);
            damaged(format!("{}: key group {group} of state {state:?}: {why}", self.snapshot.origin))
        })
    }
}

/// The entries of a key group, in order.
pub struct GroupEntries<'a> {
    group: Group<'a>,
    max_parallelism: u32,
    reader: SectionReader,
}

impl GroupEntries<'_> {
    /// The next entry, or `None` behind the last.
    #[expect(clippy::should_implement_trait, reason = "the entry borrows from the reader, which Iterator can't say")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        let entry = self.reader.next().map_err(|error| in_file(&self.group.snapshot.origin, error))?;
        let key_group = self.group.key_group();
        if let Some(entry) = &entry
            && KeyHash::of(entry.key).key_group(self.max_parallelism) != key_group
        {
            return Err(damaged(format!(
                "{} is damaged: a key of state {:?} does not belong to key group {key_group}, where it is",
                self.group.snapshot.origin, self.group.meta.name
            )));
        }
        Ok(entry)
    }
}

/// An error with the name of the file, unless it says that already.
fn in_file(origin: &str, error: Error) -> Error {
    if error.message.contains(origin) { error } else { error.context(origin) }
}
