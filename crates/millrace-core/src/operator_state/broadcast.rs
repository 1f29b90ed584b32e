//! Broadcast state: a map of which every subtask of an operator has the same copy.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::SnapshotItems;
use crate::{Record, Result, codec};

/// A map that every subtask of an operator has a copy of. It is changed by what is broadcast to all subtasks, by each in
/// the same way. Clones share it.
#[derive(Debug)]
pub struct BroadcastState<K, V> {
    entries: Arc<Mutex<HashMap<K, V>>>,
}

impl<K, V> Clone for BroadcastState<K, V> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries) }
    }
}

impl<K: Record + Eq + Hash, V: Record> BroadcastState<K, V> {
    pub(super) fn new(entries: HashMap<K, V>) -> Self {
        Self { entries: Arc::new(Mutex::new(entries)) }
    }

    /// A copy of the value of an entry.
    pub fn get(&self, key: &K) -> Option<V> {
        self.lock().get(key).cloned()
    }

    /// Whether there is an entry.
    pub fn contains(&self, key: &K) -> bool {
        self.lock().contains_key(key)
    }

    /// Hands all entries to `read`, without a copy. The state must not be used inside.
    pub fn with<R>(&self, read: impl FnOnce(&HashMap<K, V>) -> R) -> R {
        read(&self.lock())
    }

    /// Adds an entry, or replaces its value.
    pub fn put(&self, key: K, value: V) {
        self.lock().insert(key, value);
    }

    /// Removes an entry, where there is one.
    pub fn remove(&self, key: &K) {
        self.lock().remove(key);
    }

    /// Removes all entries.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Record + Eq + Hash, V: Record> SnapshotItems for BroadcastState<K, V> {
    /// Sorted, so that the same state gives the same bytes.
    fn items(&self) -> Result<Vec<Vec<u8>>> {
        let mut items = self.lock().iter().map(|entry| codec::encode(&entry)).collect::<Result<Vec<_>>>()?;
        items.sort_unstable();
        Ok(items)
    }
}
