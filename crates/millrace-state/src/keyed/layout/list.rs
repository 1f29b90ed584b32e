//! A list for each key.
//!
//! Its one entry has the elements one after the other, each as varint length and encoding. Where the entry expires, each
//! element is preceded by its own expiry, and the entry's is the latest of them.

use std::{borrow::Cow, marker::PhantomData};

use millrace_core::{
    Result, codec,
    key::KeyHash,
    schema::{Migration, Schema},
};
use triomphe::Arc;

use super::{EmitEntry, Layout, Restored, SHORT_LOOK, has_expired, unexpected};
use crate::{
    heap::Table,
    keyed::{
        StateValue,
        bytes_access::BytesAccess,
        cell::HeapAccess,
        lifetime::{Fate, Lifetime, Ttl},
        roundtrip,
    },
    snapshot::{Cursor, StateKind, put_bytes},
};

pub(in crate::keyed) struct ListLayout<T>(PhantomData<T>);

/// Hands each encoded element of a list to `take`, with its expiry where the list `expires`.
fn elements<'a>(
    list: &'a [u8],
    expires: bool,
    mut take: impl FnMut(&'a [u8], Option<u64>) -> Result<()>,
) -> Result<()> {
    let mut cursor = Cursor::new(list);
    while !cursor.is_empty() {
        let expiry = if expires { Some(cursor.u64("an element's expiry")?) } else { None };
        take(cursor.bytes("a list's element")?, expiry)?;
    }
    Ok(())
}

/// A list that is being encoded, and the latest expiry in it.
#[derive(Default)]
struct Encoded {
    list: Vec<u8>,
    expiry: Option<u64>,
}

impl Encoded {
    fn push(&mut self, element: &[u8], expiry: Option<u64>) {
        if let Some(expiry) = expiry {
            self.list.extend_from_slice(&expiry.to_le_bytes());
        }
        put_bytes(&mut self.list, element);
        self.expiry = self.expiry.max(expiry);
    }
}

impl<T: StateValue> Layout for ListLayout<T> {
    type Stored<H: Lifetime> = Arc<Vec<H::Held<T>>>;
    const KIND: StateKind = StateKind::List;

    fn type_name() -> String {
        format!("ListState<{}>", std::any::type_name::<T>())
    }

    fn schemas() -> Result<Vec<Schema>> {
        Ok(vec![Schema::of::<T>()?])
    }

    fn migrations(written: &[Schema]) -> Result<Vec<Migration>, String> {
        written.iter().map(Migration::to::<T>).collect()
    }

    fn write<H: Lifetime>(
        stored: &Arc<Vec<H::Held<T>>>,
        now: u64,
        _scratch: &mut Vec<u8>,
        emit: &mut EmitEntry<'_>,
    ) -> Result<()> {
        let mut encoded = Encoded::default();
        for held in stored.iter().filter(|held| !has_expired(H::expiry(held), now)) {
            encoded.push(&codec::encode(H::value(held))?, H::expiry(held));
        }
        if encoded.list.is_empty() { Ok(()) } else { emit(None, &encoded.list, encoded.expiry) }
    }

    fn absorb<H: Lifetime>(
        lifetime: &H,
        table: &mut Table<Arc<Vec<H::Held<T>>>>,
        hash: KeyHash,
        restored: &Restored<'_>,
    ) -> Result<()> {
        let entry = restored.entry;
        if entry.sub_key.is_some() {
            return Err(unexpected(Self::KIND, "with a"));
        }
        let mut list = Vec::new();
        elements(entry.value, entry.expiry.is_some(), |element, expiry| {
            list.push(lifetime.restore(restored.decode(0, element)?, expiry));
            Ok(())
        })?;
        table.get_or_insert_with(hash, entry.key, || Arc::new(list)).map(drop)
    }

    fn recode<'a>(restored: &Restored<'a>, ttl: Option<&Ttl>) -> Result<(Cow<'a, [u8]>, Option<u64>)> {
        let entry = restored.entry;
        let mut encoded = Encoded::default();
        elements(entry.value, entry.expiry.is_some(), |element, expiry| {
            let expiry = ttl.map(|ttl| expiry.unwrap_or_else(|| ttl.new_expiry()));
            encoded.push(&restored.recode::<T>(0, element)?, expiry);
            Ok(())
        })?;
        Ok((Cow::Owned(encoded.list), encoded.expiry))
    }

    fn check(_sub_key: Option<&[u8]>, value: &[u8], expires: bool) -> Result<()> {
        elements(value, expires, |element, _| roundtrip::check::<T>(element))
    }

    fn is_stale<H: Lifetime>(lifetime: &H, stored: &Arc<Vec<H::Held<T>>>) -> bool {
        stored.iter().take(SHORT_LOOK).all(|held| lifetime.is_expired(held))
    }

    fn shrink<H: Lifetime>(lifetime: &H, stored: &mut Arc<Vec<H::Held<T>>>) -> bool {
        let list = Arc::make_mut(stored);
        list.retain(|held| !lifetime.is_expired(held));
        list.is_empty()
    }
}

impl<T: StateValue, H: Lifetime> HeapAccess<'_, ListLayout<T>, H> {
    pub(in crate::keyed) fn get(self) -> Result<Vec<T>> {
        let Some(list) = self.table.get(self.hash, self.key)? else { return Ok(Vec::new()) };
        if list.iter().all(|held| self.lifetime.fate(held) == Fate::Live) {
            return Ok(list.iter().map(|held| H::value(held).clone()).collect());
        }
        let mut seen = Vec::with_capacity(list.len());
        let mut nothing_left = false;
        if let Some(list) = self.table.get_mut(self.hash, self.key)? {
            let list = Arc::make_mut(list);
            list.retain_mut(|held| {
                let expired = self.lifetime.is_expired(held);
                if !expired || self.lifetime.shows_expired() {
                    seen.push(H::value(held).clone());
                }
                if self.lifetime.fate(held) == Fate::Renewed {
                    self.lifetime.renew(held);
                }
                !expired
            });
            nothing_left = list.is_empty();
        }
        if nothing_left {
            self.table.remove(self.hash, self.key)?;
        }
        Ok(seen)
    }

    pub(in crate::keyed) fn add(self, element: T) -> Result<()> {
        let held = self.lifetime.hold(element);
        let list = Arc::make_mut(self.table.get_or_insert_with(self.hash, self.key, Arc::default)?);
        if H::EXPIRES && list.len() == list.capacity() {
            // Only before it grows, and then it has room: so that it costs no more than what is added.
            list.retain(|held| !self.lifetime.is_expired(held));
            list.reserve(list.len());
        }
        list.push(held);
        Ok(())
    }

    pub(in crate::keyed) fn update(self, elements: Vec<T>) -> Result<()> {
        let list = elements.into_iter().map(|element| self.lifetime.hold(element)).collect();
        *self.table.get_or_insert_with(self.hash, self.key, Arc::default)? = Arc::new(list);
        Ok(())
    }

    pub(in crate::keyed) fn clear(self) -> Result<()> {
        self.table.remove(self.hash, self.key).map(drop)
    }
}

impl<T: StateValue> BytesAccess<'_, ListLayout<T>> {
    pub(in crate::keyed) fn get(self) -> Result<Vec<T>> {
        let Some(stored) = self.load(None)? else { return Ok(Vec::new()) };
        let mut seen = Vec::new();
        let Some(ttl) = self.ttl() else {
            elements(&stored.value, false, |element, _| {
                seen.push(codec::decode(element)?);
                Ok(())
            })?;
            return Ok(seen);
        };
        let (mut kept, mut changed) = (Encoded::default(), false);
        elements(&stored.value, true, |element, expiry| {
            let fate = expiry.map_or(Fate::Live, |expiry| ttl.fate_of(expiry));
            changed |= fate != Fate::Live;
            if fate != Fate::Expired || ttl.shows_expired() {
                seen.push(codec::decode(element)?);
            }
            match fate {
                Fate::Live => kept.push(element, expiry),
                Fate::Renewed => kept.push(element, Some(ttl.new_expiry())),
                Fate::Expired => {}
            }
            Ok(())
        })?;
        if changed {
            self.replace(&kept)?;
        }
        Ok(seen)
    }

    pub(in crate::keyed) fn add(self, element: T) -> Result<()> {
        let stored = self.load(None)?;
        let element = codec::encode(&element)?;
        let mut list = Encoded::default();
        match self.ttl() {
            None => {
                list.list = stored.map(|stored| stored.value).unwrap_or_default();
                list.push(&element, None);
            }
            Some(ttl) => {
                if let Some(stored) = &stored {
                    elements(&stored.value, true, |element, expiry| {
                        if expiry.is_some_and(|expiry| ttl.fate_of(expiry) != Fate::Expired) {
                            list.push(element, expiry);
                        }
                        Ok(())
                    })?;
                }
                list.push(&element, Some(ttl.new_expiry()));
            }
        }
        self.replace(&list)
    }

    pub(in crate::keyed) fn update(self, elements: Vec<T>) -> Result<()> {
        let expiry = self.ttl().map(Ttl::new_expiry);
        let mut list = Encoded::default();
        for element in &elements {
            list.push(&codec::encode(element)?, expiry);
        }
        self.replace(&list)
    }

    pub(in crate::keyed) fn clear(self) -> Result<()> {
        self.delete(None)
    }

    fn replace(&self, list: &Encoded) -> Result<()> {
        if list.list.is_empty() { self.delete(None) } else { self.store(None, &list.list, list.expiry) }
    }
}
