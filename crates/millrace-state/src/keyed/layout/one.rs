//! One value for each key: value, reducing and aggregating state.

use std::{borrow::Cow, marker::PhantomData};

use millrace_core::{
    Result, codec,
    key::KeyHash,
    schema::{Migration, Schema},
};

use super::{EmitEntry, Layout, Restored, encode_to, has_expired, unexpected};
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

/// Which kind of state has the value.
pub(in crate::keyed) trait OneKind: 'static {
    const KIND: StateKind;
    const HANDLE: &'static str;
}

pub(in crate::keyed) struct Value;
impl OneKind for Value {
    const KIND: StateKind = StateKind::Value;
    const HANDLE: &'static str = "ValueState";
}

pub(in crate::keyed) struct Reducing;
impl OneKind for Reducing {
    const KIND: StateKind = StateKind::Reducing;
    const HANDLE: &'static str = "ReducingState";
}

pub(in crate::keyed) struct Aggregating;
impl OneKind for Aggregating {
    const KIND: StateKind = StateKind::Aggregating;
    const HANDLE: &'static str = "AggregatingState with the accumulator";
}

pub(in crate::keyed) struct OneLayout<T, K>(PhantomData<(T, K)>);

impl<T: StateValue, K: OneKind> Layout for OneLayout<T, K> {
    type Stored<H: Lifetime> = H::Held<T>;
    const KIND: StateKind = K::KIND;

    fn type_name() -> String {
        match K::KIND {
            StateKind::Aggregating => format!("{} {}", K::HANDLE, std::any::type_name::<T>()),
            _ => format!("{}<{}>", K::HANDLE, std::any::type_name::<T>()),
        }
    }

    fn schemas() -> Result<Vec<Schema>> {
        Ok(vec![Schema::of::<T>()?])
    }

    fn migrations(written: &[Schema]) -> Result<Vec<Migration>, String> {
        written.iter().map(Migration::to::<T>).collect()
    }

    fn write<H: Lifetime>(
        stored: &H::Held<T>,
        now: u64,
        scratch: &mut Vec<u8>,
        emit: &mut EmitEntry<'_>,
    ) -> Result<()> {
        let expiry = H::expiry(stored);
        if has_expired(expiry, now) {
            return Ok(());
        }
        encode_to(H::value(stored), scratch)?;
        emit(None, scratch, expiry)
    }

    fn absorb<H: Lifetime>(
        lifetime: &H,
        table: &mut Table<H::Held<T>>,
        hash: KeyHash,
        restored: &Restored<'_>,
    ) -> Result<()> {
        if restored.entry.sub_key.is_some() {
            return Err(unexpected(Self::KIND, "with a"));
        }
        let value = restored.decode(0, restored.entry.value)?;
        let held = lifetime.restore(value, restored.entry.expiry);
        table.get_or_insert_with(hash, restored.entry.key, || held).map(drop)
    }

    fn recode<'a>(restored: &Restored<'a>, ttl: Option<&Ttl>) -> Result<(Cow<'a, [u8]>, Option<u64>)> {
        Ok((restored.recode::<T>(0, restored.entry.value)?, restored.expiry(ttl)))
    }

    fn check(_sub_key: Option<&[u8]>, value: &[u8], _expires: bool) -> Result<()> {
        roundtrip::check::<T>(value)
    }

    fn is_stale<H: Lifetime>(lifetime: &H, stored: &H::Held<T>) -> bool {
        lifetime.is_expired(stored)
    }

    fn shrink<H: Lifetime>(lifetime: &H, stored: &mut H::Held<T>) -> bool {
        lifetime.is_expired(stored)
    }
}

impl<T: StateValue, K: OneKind, H: Lifetime> HeapAccess<'_, OneLayout<T, K>, H> {
    #[inline]
    pub(in crate::keyed) fn get(self) -> Result<Option<T>> {
        let Some(held) = self.table.get(self.hash, self.key)? else { return Ok(None) };
        match self.lifetime.fate(held) {
            Fate::Live => Ok(Some(H::value(held).clone())),
            Fate::Renewed => Ok(self.table.get_mut(self.hash, self.key)?.map(|held| {
                self.lifetime.renew(held);
                H::value(held).clone()
            })),
            Fate::Expired => {
                let held = self.table.remove(self.hash, self.key)?.filter(|_| self.lifetime.shows_expired());
                Ok(held.map(|held| H::value(&held).clone()))
            }
        }
    }

    #[inline]
    pub(in crate::keyed) fn set(self, value: T) -> Result<()> {
        let value = self.lifetime.hold(value);
        match self.table.get_mut(self.hash, self.key)? {
            Some(current) => *current = value,
            None => {
                self.table.get_or_insert_with(self.hash, self.key, || value)?;
            }
        }
        Ok(())
    }

    /// Changes the value in place; where there is none it is made first.
    #[inline]
    pub(in crate::keyed) fn modify<R>(self, make: impl Fn() -> T, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        let lifetime = self.lifetime;
        let held = self.table.get_or_insert_with(self.hash, self.key, || lifetime.hold(make()))?;
        if lifetime.is_expired(held) && !lifetime.shows_expired() {
            *held = lifetime.hold(make());
        }
        let result = change(H::value_mut(held));
        lifetime.renew(held);
        Ok(result)
    }

    /// Makes the value of what is added, or merges it into the one that there is.
    pub(in crate::keyed) fn add<I>(
        self,
        added: I,
        make: impl FnOnce(I) -> T,
        merge: impl FnOnce(&mut T, I),
    ) -> Result<()> {
        let lifetime = self.lifetime;
        match self.table.get_mut(self.hash, self.key)? {
            Some(held) if !lifetime.is_expired(held) || lifetime.shows_expired() => {
                merge(H::value_mut(held), added);
                lifetime.renew(held);
            }
            Some(held) => *held = lifetime.hold(make(added)),
            None => {
                self.table.get_or_insert_with(self.hash, self.key, || lifetime.hold(make(added)))?;
            }
        }
        Ok(())
    }

    pub(in crate::keyed) fn clear(self) -> Result<()> {
        self.table.remove(self.hash, self.key).map(drop)
    }
}

impl<T: StateValue, K: OneKind> BytesAccess<'_, OneLayout<T, K>> {
    pub(in crate::keyed) fn get(self) -> Result<Option<T>> {
        self.decoded()
    }

    pub(in crate::keyed) fn set(self, value: T) -> Result<()> {
        self.write(None, &codec::encode(&value)?)
    }

    pub(in crate::keyed) fn modify<R>(self, make: impl Fn() -> T, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        let mut value = self.decoded()?.unwrap_or_else(make);
        let result = change(&mut value);
        self.write(None, &codec::encode(&value)?)?;
        Ok(result)
    }

    pub(in crate::keyed) fn add<I>(
        self,
        added: I,
        make: impl FnOnce(I) -> T,
        merge: impl FnOnce(&mut T, I),
    ) -> Result<()> {
        let value = match self.decoded()? {
            Some(mut value) => {
                merge(&mut value, added);
                value
            }
            None => make(added),
        };
        self.write(None, &codec::encode(&value)?)
    }

    pub(in crate::keyed) fn clear(self) -> Result<()> {
        self.delete(None)
    }

    fn decoded(&self) -> Result<Option<T>> {
        self.read(None)?.map(|value| codec::decode(&value)).transpose()
    }
}
