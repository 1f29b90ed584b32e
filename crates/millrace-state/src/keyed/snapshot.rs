//! The two parts of a snapshot of a store.

use std::io;

use millrace_core::{Result, key::KeyGroupRange};

use super::{layout::Layout, roundtrip::Sampler};
use crate::{
    backend::BytesSnapshot,
    heap::FrozenTable,
    snapshot::{Entry, SnapshotHeader, SnapshotSummary, SnapshotWriter, StateSizeLimit},
};

/// A store's state as it was when the snapshot began. The asynchronous part reads it on another thread while the task
/// goes on.
pub trait KeyedSnapshot: Send {
    /// Writes it in the format of [`crate::snapshot`].
    fn write(self: Box<Self>, sink: &mut dyn io::Write) -> Result<SnapshotSummary>;
}

/// The round-trip check of one entry: its sub key and value.
pub(super) type CheckEntry = fn(Option<&[u8]>, &[u8]) -> Result<()>;

/// A heap state as it was.
pub(super) trait FrozenState: Send {
    /// Writes its entries under the id and lets go of each key group behind it, so that the task need not copy it.
    fn write(self: Box<Self>, id: u16, sampler: &mut Sampler, writer: &mut SnapshotWriter<'_>) -> Result<()>;
}

pub(super) struct FrozenHeapState<L: Layout>(FrozenTable<L::Stored>);

impl<L: Layout> FrozenHeapState<L> {
    pub(super) fn new(table: FrozenTable<L::Stored>) -> Self {
        Self(table)
    }
}

impl<L: Layout> FrozenState for FrozenHeapState<L> {
    fn write(self: Box<Self>, id: u16, sampler: &mut Sampler, writer: &mut SnapshotWriter<'_>) -> Result<()> {
        let mut scratch = Vec::new();
        for (key_group, group) in self.0 {
            for (key, stored) in group.sorted() {
                L::write(stored, &mut scratch, &mut |sub_key, value| {
                    if sampler.picks() {
                        L::check(sub_key, value)?;
                    }
                    writer.entry(id, key_group, &Entry::new(key, sub_key, value))
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
    pub(super) limit: Option<StateSizeLimit>,
    /// In the order of the header's states.
    pub(super) states: Vec<FrozenEntries>,
    pub(super) bytes: Option<Box<dyn BytesSnapshot>>,
}

impl KeyedSnapshot for StoreSnapshot {
    fn write(mut self: Box<Self>, sink: &mut dyn io::Write) -> Result<SnapshotSummary> {
        let mut writer = SnapshotWriter::new(sink, &self.header)?;
        if let Some(limit) = self.limit.take() {
            writer.limit_state_size(limit);
        }
        let mut sampler = Sampler::default();
        for (meta, entries) in std::mem::take(&mut self.header.states).into_iter().zip(self.states) {
            let written = match entries {
                FrozenEntries::Heap(state) => state.write(meta.id, &mut sampler, &mut writer),
                FrozenEntries::Bytes { backend_id, check } => {
                    let Some(bytes) = &mut self.bytes else { continue };
                    write_bytes(&mut **bytes, backend_id, meta.id, self.header.range, check, &mut sampler, &mut writer)
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
    backend_id: u16,
    id: u16,
    range: KeyGroupRange,
    check: CheckEntry,
    sampler: &mut Sampler,
    writer: &mut SnapshotWriter<'_>,
) -> Result<()> {
    for key_group in range.iter() {
        bytes.scan(backend_id, key_group, &mut |at, value| {
            if sampler.picks() {
                check(at.sub_key, value)?;
            }
            writer.entry(id, key_group, &Entry::new(at.key, at.sub_key, value))
        })?;
    }
    Ok(())
}
