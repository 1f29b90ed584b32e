//! The two parts of a snapshot of a store.

use std::io;

use millrace_core::{Result, key::KeyGroupRange};

use super::{layout::Layout, lifetime::Lifetime, roundtrip::Sampler};
use crate::{
    backend::{BytesSnapshot, SnapshotFiles},
    heap::FrozenTable,
    snapshot::{Entry, SnapshotHeader, SnapshotSummary, SnapshotWriter, StateMeta, StateSizeLimit},
};

/// A store's state as it was when the snapshot began. The asynchronous part reads it on another thread while the task
/// goes on.
pub trait KeyedSnapshot: Send {
    /// The files of the backend, where it takes snapshots as files: [`Self::write`] then leaves out what is in them.
    /// They stay until it is called.
    fn files(&mut self) -> Result<Option<StateInFiles>>;

    /// Writes it in the format of [`crate::snapshot`].
    fn write(self: Box<Self>, sink: &mut dyn io::Write) -> Result<SnapshotSummary>;
}

/// What of a snapshot is files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateInFiles {
    /// The files.
    pub files: SnapshotFiles,
    /// The states whose entries in them expire, by their ids in the snapshot.
    pub expiring: Vec<u16>,
}

/// The round-trip check of one entry: its sub key, its value and whether it expires.
pub(super) type CheckEntry = fn(Option<&[u8]>, &[u8], bool) -> Result<()>;

/// A heap state as it was.
pub(super) trait FrozenState: Send {
    /// Writes its entries, but for what has expired `now`, and lets go of each key group behind it, so that the task
    /// need not copy it.
    fn write(self: Box<Self>, id: u16, now: u64, sampler: &mut Sampler, writer: &mut SnapshotWriter<'_>) -> Result<()>;
}

pub(super) struct FrozenHeapState<L: Layout, H: Lifetime>(FrozenTable<L::Stored<H>>);

impl<L: Layout, H: Lifetime> FrozenHeapState<L, H> {
    pub(super) fn new(table: FrozenTable<L::Stored<H>>) -> Self {
        Self(table)
    }
}

impl<L: Layout, H: Lifetime> FrozenState for FrozenHeapState<L, H> {
    fn write(self: Box<Self>, id: u16, now: u64, sampler: &mut Sampler, writer: &mut SnapshotWriter<'_>) -> Result<()> {
        let mut scratch = Vec::new();
        for (key_group, group) in self.0 {
            for (key, stored) in group.sorted() {
                L::write(stored, now, &mut scratch, &mut |sub_key, value, expiry| {
                    if sampler.picks() {
                        L::check(sub_key, value, expiry.is_some())?;
                    }
                    writer.entry(id, key_group, &Entry { expiry, ..Entry::new(key, sub_key, value) })
                })?;
            }
        }
        Ok(())
    }
}

/// The entries of one state.
pub(super) enum FrozenEntries {
    Heap(Box<dyn FrozenState>),
    /// They are in the backend's snapshot, under this number.
    Bytes {
        backend_id: u16,
        check: CheckEntry,
    },
}

/// A store as it was.
pub(super) struct StoreSnapshot {
    pub(super) header: SnapshotHeader,
    /// When the snapshot began: what had expired then is not in it.
    pub(super) now: u64,
    pub(super) limit: Option<StateSizeLimit>,
    /// In the order of the header's states.
    pub(super) states: Vec<FrozenEntries>,
    pub(super) bytes: Option<Box<dyn BytesSnapshot>>,
    /// In the same order.
    pub(super) in_backend: Vec<StateInBackend>,
    /// Whether the entries in `bytes` are in files.
    pub(super) in_files: bool,
}

/// A state as the backend knows it.
#[derive(Clone, Copy)]
pub(super) struct StateInBackend {
    pub(super) id: u16,
    pub(super) expires: bool,
}

impl KeyedSnapshot for StoreSnapshot {
    fn files(&mut self) -> Result<Option<StateInFiles>> {
        let Some(files) = self.bytes.as_mut().map_or(Ok(None), |bytes| bytes.files())? else { return Ok(None) };
        self.in_files = true;
        // What is in the files goes by the backend's ids, so these are the snapshot's.
        let metas = std::mem::take(&mut self.header.states).into_iter();
        let states = std::mem::take(&mut self.states).into_iter();
        let mut all: Vec<_> = metas.zip(states).zip(&self.in_backend).collect();
        all.sort_by_key(|(_, state)| state.id);
        let expiring = all.iter().filter(|(_, state)| state.expires).map(|(_, state)| state.id).collect();
        for ((meta, entries), state) in all {
            self.header.states.push(StateMeta { id: state.id, ..meta });
            self.states.push(entries);
        }
        Ok(Some(StateInFiles { files, expiring }))
    }

    fn write(mut self: Box<Self>, sink: &mut dyn io::Write) -> Result<SnapshotSummary> {
        let mut writer = SnapshotWriter::new(sink, &self.header)?;
        if let Some(limit) = self.limit.take() {
            writer.limit_state_size(limit);
        }
        let mut sampler = Sampler::default();
        for (meta, entries) in std::mem::take(&mut self.header.states).into_iter().zip(self.states) {
            let written = match entries {
                FrozenEntries::Bytes { .. } if self.in_files => continue,
                FrozenEntries::Heap(state) => state.write(meta.id, self.now, &mut sampler, &mut writer),
                FrozenEntries::Bytes { backend_id, check } => {
                    let Some(bytes) = &mut self.bytes else { continue };
                    let ids = (backend_id, meta.id);
                    write_bytes(&mut **bytes, ids, self.header.range, self.now, check, &mut sampler, &mut writer)
                }
            };
            written.map_err(|error| {
                error.context(format_args!("state {:?} of operator {}", meta.name, self.header.uid))
            })?;
        }
        writer.finish()
    }
}

/// Writes the entries of one state of a backend of bytes.
fn write_bytes(
    bytes: &mut dyn BytesSnapshot,
    (backend_id, id): (u16, u16),
    range: KeyGroupRange,
    now: u64,
    check: CheckEntry,
    sampler: &mut Sampler,
    writer: &mut SnapshotWriter<'_>,
) -> Result<()> {
    for key_group in range.iter() {
        bytes.scan(backend_id, key_group, &mut |at, value, expiry| {
            if expiry.is_some_and(|expiry| expiry <= now) {
                return Ok(());
            }
            if sampler.picks() {
                check(at.sub_key, value, expiry.is_some())?;
            }
            writer.entry(id, key_group, &Entry { expiry, ..Entry::new(at.key, at.sub_key, value) })
        })?;
    }
    Ok(())
}
