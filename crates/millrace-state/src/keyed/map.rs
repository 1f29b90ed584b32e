//! A map for each key.

use std::{collections::HashMap, hash::Hash};

use millrace_core::{Error, Result, codec};
use triomphe::Arc;

use super::{StateValue, cell::Handle, layout::MapLayout};

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
        self.handle.cell()?.access(
            (),
            |(), table, hash, key| Ok(table.get(hash, key)?.and_then(|map| map.get(map_key)).cloned()),
            |(), bytes| {
                let value = bytes.get(Some(&codec::encode(map_key)?))?;
                value.map(|value| codec::decode(&value)).transpose()
            },
        )
    }

    /// Adds an entry, or replaces its value.
    pub fn put(&self, map_key: K, value: V) -> Result<()> {
        self.handle.cell()?.access(
            (map_key, value),
            |(map_key, value), table, hash, key| {
                Arc::make_mut(table.get_or_insert_with(hash, key, Arc::default)?).insert(map_key, value);
                Ok(())
            },
            |(map_key, value), bytes| bytes.put(Some(&codec::encode(&map_key)?), &codec::encode(&value)?),
        )
    }

    /// Removes an entry, where there is one.
    pub fn remove(&self, map_key: &K) -> Result<()> {
        self.handle.cell()?.access(
            (),
            |(), table, hash, key| {
                let Some(map) = table.get(hash, key)?.filter(|map| map.contains_key(map_key)) else { return Ok(()) };
                if map.len() == 1 {
                    return table.remove(hash, key).map(drop);
                }
                if let Some(map) = table.get_mut(hash, key)? {
                    Arc::make_mut(map).remove(map_key);
                }
                Ok(())
            },
            |(), bytes| bytes.delete(Some(&codec::encode(map_key)?)),
        )
    }

    /// Whether there is an entry.
    pub fn contains(&self, map_key: &K) -> Result<bool> {
        self.handle.cell()?.access(
            (),
            |(), table, hash, key| Ok(table.get(hash, key)?.is_some_and(|map| map.contains_key(map_key))),
            |(), bytes| Ok(bytes.get(Some(&codec::encode(map_key)?))?.is_some()),
        )
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
        self.handle.cell()?.access(
            (),
            |(), table, hash, key| Ok(table.get(hash, key)?.is_none_or(|map| map.is_empty())),
            |(), bytes| {
                let mut empty = true;
                bytes.scan(|_, _| {
                    empty = false;
                    Ok(())
                })?;
                Ok(empty)
            },
        )
    }

    /// Removes all entries of the current key.
    pub fn clear(&self) -> Result<()> {
        self.handle.cell()?.access(
            (),
            |(), table, hash, key| table.remove(hash, key).map(drop),
            |(), bytes| {
                let mut sub_keys = Vec::new();
                bytes.scan(|sub_key, _| {
                    sub_keys.extend(sub_key.map(<[u8]>::to_vec));
                    Ok(())
                })?;
                sub_keys.iter().try_for_each(|sub_key| bytes.delete(Some(sub_key)))
            },
        )
    }

    fn collect<R>(
        &self,
        on_heap: impl Fn(&K, &V) -> R,
        in_bytes: impl Fn(&[u8], &[u8]) -> Result<R>,
    ) -> Result<Vec<R>> {
        let cell = self.handle.cell()?;
        cell.access(
            (),
            |(), table, hash, key| {
                let map = table.get(hash, key)?;
                Ok(map
                    .into_iter()
                    .flat_map(|map: &Arc<HashMap<K, V>>| map.iter())
                    .map(|(k, v)| on_heap(k, v))
                    .collect())
            },
            |(), bytes| {
                let mut all = Vec::new();
                bytes.scan(|sub_key, value| {
                    let sub_key = sub_key.ok_or_else(|| {
                        Error::internal(format!("map state {:?} has an entry without a map key", cell.name))
                    })?;
                    all.push(in_bytes(sub_key, value)?);
                    Ok(())
                })?;
                Ok(all)
            },
        )
    }
}
