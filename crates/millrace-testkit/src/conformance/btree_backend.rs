//! A user's own backend, as short as one can be: bytes in an ordered map.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use millrace_core::Result;
use millrace_state::{
    BytesBackend, KeyedBackend, KeyedBackendContext, SnapshotTarget, StateBackend,
    backend::{BytesSnapshot, StateKey, StoredValue, VisitEntry, VisitStored},
};

/// State, key group, key, sub key: the order in which entries are asked for.
type Address = (u16, u16, Vec<u8>, Option<Vec<u8>>);
type Entries = BTreeMap<Address, StoredValue>;

/// Keeps state as bytes in an ordered map, and its snapshots in files. An example: it copies its map when it is written
/// to after a snapshot, which a backend for large state must not.
#[derive(Clone, Copy, Debug, Default)]
pub struct BTreeStateBackend;

impl StateBackend for BTreeStateBackend {
    fn name(&self) -> &str {
        "btree"
    }

    fn snapshot_target(&self) -> SnapshotTarget {
        SnapshotTarget::Files
    }

    fn open(&self, _context: &KeyedBackendContext) -> Result<KeyedBackend> {
        Ok(KeyedBackend::Bytes(Box::new(BTreeBackend::default())))
    }
}

/// Shared with snapshots until it is written to.
#[derive(Default)]
struct BTreeBackend(Arc<Entries>);

struct BTreeSnapshot(Arc<Entries>);

fn address(at: StateKey<'_>) -> Address {
    (at.state, at.key_group, at.key.to_vec(), at.sub_key.map(<[u8]>::to_vec))
}

impl BytesBackend for BTreeBackend {
    fn get(&mut self, at: StateKey<'_>) -> Result<Option<StoredValue>> {
        Ok(self.0.get(&address(at)).cloned())
    }

    fn put(&mut self, at: StateKey<'_>, value: &[u8], expiry: Option<u64>) -> Result<()> {
        Arc::make_mut(&mut self.0).insert(address(at), StoredValue { value: value.to_vec(), expiry });
        Ok(())
    }

    fn delete(&mut self, at: StateKey<'_>) -> Result<()> {
        Arc::make_mut(&mut self.0).remove(&address(at));
        Ok(())
    }

    fn scan(&mut self, key: StateKey<'_>, visit: &mut VisitEntry<'_>) -> Result<()> {
        let first = address(StateKey { sub_key: None, ..key });
        let of_key = |(at, _): &(&Address, &StoredValue)| (at.0, at.1, &at.2) == (first.0, first.1, &first.2);
        let mut entries = self.0.range(&first..).take_while(of_key);
        entries.try_for_each(|(at, stored)| visit(at.3.as_deref(), &stored.value, stored.expiry))
    }

    fn snapshot(&mut self) -> Result<Box<dyn BytesSnapshot>> {
        Ok(Box::new(BTreeSnapshot(Arc::clone(&self.0))))
    }
}

impl BytesSnapshot for BTreeSnapshot {
    fn scan(&mut self, state: u16, key_group: u16, visit: VisitStored<'_>) -> Result<()> {
        let first = (state, key_group, Vec::new(), None);
        let entries = self.0.range((Bound::Included(first), Bound::Unbounded));
        for ((_, _, key, sub_key), stored) in entries.take_while(|(at, _)| (at.0, at.1) == (state, key_group)) {
            visit(StateKey { state, key_group, key, sub_key: sub_key.as_deref() }, &stored.value, stored.expiry)?;
        }
        Ok(())
    }
}
