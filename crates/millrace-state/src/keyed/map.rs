//! A map for each key.

use std::hash::Hash;

use millrace_core::{Result, codec};

use super::{
    StateValue,
    cell::{Handle, access},
    layout::MapLayout,
};

/// A map for each key; empty for a key that nothing was put into. The order of its entries is not defined.
///
/// A handle that was not obtained from a store (`MapState::default()`) can be kept in a struct and sent to another
/// thread, but not used.
pub struct MapState<K: StateValue + Eq + Hash, V: StateValue> {
    handle: Handle<MapLayout<K, V>>,
}

impl<K: StateValue + Eq + Hash, V: StateValue> Clone for MapState<K, V> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

impl<K: StateValue + Eq + Hash, V: StateValue> Default for MapState<K, V> {
    fn default() -> Self {
        Self { handle: Handle::default() }
    }
}

impl<K: StateValue + Eq + Hash, V: StateValue> MapState<K, V> {
    pub(super) fn new(handle: Handle<MapLayout<K, V>>) -> Self {
        Self { handle }
    }

    /// A copy of the value of an entry.
    pub fn get(&self, map_key: &K) -> Result<Option<V>> {
        access!(self.handle, state => state.get(map_key))
    }

    /// Adds an entry, or replaces its value.
    pub fn put(&self, map_key: K, value: V) -> Result<()> {
        access!(self.handle, state => state.put(map_key, value))
    }

    /// Removes an entry, where there is one.
    pub fn remove(&self, map_key: &K) -> Result<()> {
        access!(self.handle, state => state.remove(map_key))
    }

    /// Whether there is an entry.
    pub fn contains(&self, map_key: &K) -> Result<bool> {
        access!(self.handle, state => state.contains(map_key))
    }

    /// A copy of all entries.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        self.collect(
            |key, value| (key.clone(), value.clone()),
            |key, value| Ok((codec::decode(key)?, codec::decode(value)?)),
        )
    }

    /// A copy of all keys.
    pub fn keys(&self) -> Result<Vec<K>> {
        self.collect(|key, _| key.clone(), |key, _| codec::decode(key))
    }

    /// A copy of all values.
    pub fn values(&self) -> Result<Vec<V>> {
        self.collect(|_, value| value.clone(), |_, value| codec::decode(value))
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> Result<bool> {
        access!(self.handle, state => state.has_none())
    }

    /// Removes all entries of the current key.
    pub fn clear(&self) -> Result<()> {
        access!(self.handle, state => state.clear())
    }

    fn collect<R>(
        &self,
        on_heap: impl Fn(&K, &V) -> R,
        in_bytes: impl Fn(&[u8], &[u8]) -> Result<R>,
    ) -> Result<Vec<R>> {
        access!(self.handle, state => state.collect(on_heap, in_bytes))
    }
}
