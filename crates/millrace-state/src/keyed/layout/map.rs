//! A map for each key: an entry for each of its own entries.

use std::{borrow::Cow, collections::HashMap, hash::Hash, marker::PhantomData};

use millrace_core::{
    Error, Result, codec,
    key::KeyHash,
    schema::{Migration, Schema},
};
use triomphe::Arc;

use super::{EmitEntry, Layout, Restored, SHORT_LOOK, encode_to, has_expired, unexpected};
use crate::{
    heap::Table,
    keyed::{
        StateValue,
        bytes_access::BytesAccess,
        cell::HeapAccess,
        lifetime::{Fate, Lifetime, Ttl},
        roundtrip,
    },
    snapshot::StateKind,
};

pub(in crate::keyed) struct MapLayout<K, V>(PhantomData<(K, V)>);

impl<K: StateValue + Eq + Hash, V: StateValue> Layout for MapLayout<K, V> {
    type Stored<H: Lifetime> = Arc<HashMap<K, H::Held<V>>>;
    const KIND: StateKind = StateKind::Map;

    fn type_name() -> String {
        format!("MapState<{}, {}>", std::any::type_name::<K>(), std::any::type_name::<V>())
    }

    fn schemas() -> Result<Vec<Schema>> {
        Ok(vec![Schema::of::<K>()?, Schema::of::<V>()?])
    }

    fn migrations(written: &[Schema]) -> Result<Vec<Migration>, String> {
        let [keys, values] = written else { return Err("a map has two types".to_string()) };
        let keys = Migration::to::<K>(keys)?;
        // Two keys might become one.
        if keys.is_needed() {
            return Err("the type of a map's keys can't change".to_string());
        }
        Ok(vec![keys, Migration::to::<V>(values)?])
    }

    fn write<H: Lifetime>(
        stored: &Arc<HashMap<K, H::Held<V>>>,
        now: u64,
        scratch: &mut Vec<u8>,
        emit: &mut EmitEntry<'_>,
    ) -> Result<()> {
        let live = stored.iter().filter(|(_, held)| !has_expired(H::expiry(held), now));
        let encode = |(key, held): (&K, _)| Ok((codec::encode(key)?, held));
        let mut entries = live.map(encode).collect::<Result<Vec<(_, &H::Held<V>)>>>()?;
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            let key = std::any::type_name::<K>();
            return Err(Error::invalid(format!("two different map keys of type {key} have the same encoding")));
        }
        for (key, held) in entries {
            encode_to(H::value(held), scratch)?;
            emit(Some(&key), scratch, H::expiry(held))?;
        }
        Ok(())
    }

    fn absorb<H: Lifetime>(
        lifetime: &H,
        table: &mut Table<Arc<HashMap<K, H::Held<V>>>>,
        hash: KeyHash,
        restored: &Restored<'_>,
    ) -> Result<()> {
        let entry = restored.entry;
        let Some(sub_key) = entry.sub_key else { return Err(unexpected(Self::KIND, "without a")) };
        let (sub_key, value) = (restored.decode(0, sub_key)?, restored.decode(1, entry.value)?);
        let map = table.get_or_insert_with(hash, entry.key, Arc::default)?;
        Arc::make_mut(map).insert(sub_key, lifetime.restore(value, entry.expiry));
        Ok(())
    }

    fn recode<'a>(restored: &Restored<'a>, ttl: Option<&Ttl>) -> Result<(Cow<'a, [u8]>, Option<u64>)> {
        if restored.entry.sub_key.is_none() {
            return Err(unexpected(Self::KIND, "without a"));
        }
        Ok((restored.recode::<V>(1, restored.entry.value)?, restored.expiry(ttl)))
    }

    fn check(sub_key: Option<&[u8]>, value: &[u8], _expires: bool) -> Result<()> {
        sub_key.map_or(Ok(()), roundtrip::check::<K>)?;
        roundtrip::check::<V>(value)
    }

    fn is_stale<H: Lifetime>(lifetime: &H, stored: &Arc<HashMap<K, H::Held<V>>>) -> bool {
        stored.values().take(SHORT_LOOK).all(|held| lifetime.is_expired(held))
    }

    fn shrink<H: Lifetime>(lifetime: &H, stored: &mut Arc<HashMap<K, H::Held<V>>>) -> bool {
        let map = Arc::make_mut(stored);
        map.retain(|_, held| !lifetime.is_expired(held));
        map.is_empty()
    }
}

impl<K: StateValue + Eq + Hash, V: StateValue, H: Lifetime> HeapAccess<'_, MapLayout<K, V>, H> {
    pub(in crate::keyed) fn get(mut self, map_key: &K) -> Result<Option<V>> {
        let held = self.table.get(self.hash, self.key)?.and_then(|map| map.get(map_key));
        let Some(held) = held else { return Ok(None) };
        match self.lifetime.fate(held) {
            Fate::Live => Ok(Some(H::value(held).clone())),
            Fate::Renewed => {
                let (value, lifetime) = (H::value(held).clone(), self.lifetime);
                if let Some(held) = self.map_mut()?.and_then(|map| map.get_mut(map_key)) {
                    lifetime.renew(held);
                }
                Ok(Some(value))
            }
            Fate::Expired => {
                let value = self.lifetime.shows_expired().then(|| H::value(held).clone());
                self.remove(map_key)?;
                Ok(value)
            }
        }
    }

    pub(in crate::keyed) fn contains(self, map_key: &K) -> Result<bool> {
        let held = self.table.get(self.hash, self.key)?.and_then(|map| map.get(map_key));
        match held.map(|held| self.lifetime.fate(held)) {
            None => Ok(false),
            Some(Fate::Live) => Ok(true),
            Some(_) => Ok(self.get(map_key)?.is_some()),
        }
    }

    pub(in crate::keyed) fn put(self, map_key: K, value: V) -> Result<()> {
        let held = self.lifetime.hold(value);
        let map = Arc::make_mut(self.table.get_or_insert_with(self.hash, self.key, Arc::default)?);
        if H::EXPIRES && map.len() == map.capacity() {
            // Only before it grows, and then it has room: so that it costs no more than what is added.
            map.retain(|_, held| !self.lifetime.is_expired(held));
            map.reserve(map.len());
        }
        map.insert(map_key, held);
        Ok(())
    }

    pub(in crate::keyed) fn remove(mut self, map_key: &K) -> Result<()> {
        let map = self.table.get(self.hash, self.key)?.filter(|map| map.contains_key(map_key));
        match map.map(|map| map.len()) {
            None => {}
            Some(1) => drop(self.table.remove(self.hash, self.key)?),
            Some(_) => drop(self.map_mut()?.and_then(|map| map.remove(map_key))),
        }
        Ok(())
    }

    pub(in crate::keyed) fn collect<R>(
        mut self,
        on_heap: impl Fn(&K, &V) -> R,
        _in_bytes: impl Fn(&[u8], &[u8]) -> Result<R>,
    ) -> Result<Vec<R>> {
        let Some(map) = self.table.get(self.hash, self.key)? else { return Ok(Vec::new()) };
        if map.values().all(|held| self.lifetime.fate(held) == Fate::Live) {
            return Ok(map.iter().map(|(key, held)| on_heap(key, H::value(held))).collect());
        }
        let mut seen = Vec::with_capacity(map.len());
        let lifetime = self.lifetime;
        let mut nothing_left = false;
        if let Some(map) = self.map_mut()? {
            map.retain(|key, held| {
                let expired = lifetime.is_expired(held);
                if !expired || lifetime.shows_expired() {
                    seen.push(on_heap(key, H::value(held)));
                }
                if lifetime.fate(held) == Fate::Renewed {
                    lifetime.renew(held);
                }
                !expired
            });
            nothing_left = map.is_empty();
        }
        if nothing_left {
            self.table.remove(self.hash, self.key)?;
        }
        Ok(seen)
    }

    pub(in crate::keyed) fn has_none(self) -> Result<bool> {
        let map = self.table.get(self.hash, self.key)?;
        let seen = |held: &H::Held<V>| !self.lifetime.is_expired(held) || self.lifetime.shows_expired();
        Ok(!map.is_some_and(|map| map.values().any(seen)))
    }

    pub(in crate::keyed) fn clear(self) -> Result<()> {
        self.table.remove(self.hash, self.key).map(drop)
    }

    fn map_mut(&mut self) -> Result<Option<&mut HashMap<K, H::Held<V>>>> {
        Ok(self.table.get_mut(self.hash, self.key)?.map(Arc::make_mut))
    }
}

impl<K: StateValue + Eq + Hash, V: StateValue> BytesAccess<'_, MapLayout<K, V>> {
    pub(in crate::keyed) fn get(self, map_key: &K) -> Result<Option<V>> {
        self.read(Some(&codec::encode(map_key)?))?.map(|value| codec::decode(&value)).transpose()
    }

    pub(in crate::keyed) fn contains(self, map_key: &K) -> Result<bool> {
        Ok(self.read(Some(&codec::encode(map_key)?))?.is_some())
    }

    pub(in crate::keyed) fn put(self, map_key: K, value: V) -> Result<()> {
        self.write(Some(&codec::encode(&map_key)?), &codec::encode(&value)?)
    }

    pub(in crate::keyed) fn remove(self, map_key: &K) -> Result<()> {
        self.delete(Some(&codec::encode(map_key)?))
    }

    pub(in crate::keyed) fn collect<R>(
        self,
        _on_heap: impl Fn(&K, &V) -> R,
        in_bytes: impl Fn(&[u8], &[u8]) -> Result<R>,
    ) -> Result<Vec<R>> {
        let mut all = Vec::new();
        self.scan(|sub_key, value| {
            let sub_key =
                sub_key.ok_or_else(|| Error::internal("a state backend has a map's entry without a map key"))?;
            all.push(in_bytes(sub_key, value)?);
            Ok(())
        })?;
        Ok(all)
    }

    pub(in crate::keyed) fn has_none(self) -> Result<bool> {
        let mut empty = true;
        self.scan(|_, _| {
            empty = false;
            Ok(())
        })?;
        Ok(empty)
    }

    pub(in crate::keyed) fn clear(self) -> Result<()> {
        let mut sub_keys = Vec::new();
        self.scan(|sub_key, _| {
            sub_keys.extend(sub_key.map(<[u8]>::to_vec));
            Ok(())
        })?;
        sub_keys.iter().try_for_each(|sub_key| self.delete(Some(sub_key)))
    }
}
