//! How the kinds of state are held on the heap and what their entries are.

use std::{collections::HashMap, hash::Hash, marker::PhantomData};

use millrace_core::{Error, Result, codec, key::KeyHash, schema::Schema};
use triomphe::Arc;

use super::{StateValue, roundtrip};
use crate::{
    backend::VisitEntry,
    heap::Table,
    snapshot::{Cursor, StateKind, put_bytes},
};

/// A kind of state, with its types.
pub(super) trait Layout: 'static {
    /// What a heap table holds for a key.
    type Stored: Clone + Send + Sync + 'static;
    /// The kind.
    const KIND: StateKind;

    /// The handle's type as a user writes it, for messages.
    fn type_name() -> String;

    /// The schemas of its types.
    fn schemas() -> Result<Vec<Schema>>;

    /// Hands the entries of a key to `emit`, in order. `scratch` is a buffer to encode into.
    fn write(stored: &Self::Stored, scratch: &mut Vec<u8>, emit: &mut VisitEntry<'_>) -> Result<()>;

    /// Takes in an entry of a snapshot.
    fn absorb(
        table: &mut Table<Self::Stored>,
        hash: KeyHash,
        key: &[u8],
        sub_key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<()>;

    /// Checks that an encoded entry decodes to something that has the same encoding.
    fn check(sub_key: Option<&[u8]>, value: &[u8]) -> Result<()>;
}

/// Encodes into a buffer that is there.
fn encode_to<T: serde::Serialize>(value: &T, scratch: &mut Vec<u8>) -> Result<()> {
    let mut buffer = std::mem::take(scratch);
    buffer.clear();
    *scratch = codec::encode_into(value, buffer)?;
    Ok(())
}

fn unexpected(kind: StateKind, with: &str) -> Error {
    Error::external(format!("the snapshot is damaged: an entry of a {kind} state is {with} sub key")).fatal()
}

pub(super) struct ValueLayout<T>(PhantomData<T>);

impl<T: StateValue> Layout for ValueLayout<T> {
    type Stored = T;
    const KIND: StateKind = StateKind::Value;

    fn type_name() -> String {
        format!("ValueState<{}>", std::any::type_name::<T>())
    }

    fn schemas() -> Result<Vec<Schema>> {
        Ok(vec![Schema::of::<T>()?])
    }

    fn write(stored: &T, scratch: &mut Vec<u8>, emit: &mut VisitEntry<'_>) -> Result<()> {
        encode_to(stored, scratch)?;
        emit(None, scratch)
    }

    fn absorb(table: &mut Table<T>, hash: KeyHash, key: &[u8], sub_key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        if sub_key.is_some() {
            return Err(unexpected(Self::KIND, "with a"));
        }
        let value = codec::decode(value)?;
        table.get_or_insert_with(hash, key, || value).map(drop)
    }

    fn check(_sub_key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        roundtrip::check::<T>(value)
    }
}

pub(super) struct ListLayout<T>(PhantomData<T>);

impl<T: StateValue> ListLayout<T> {
    /// Appends an element's encoding to a list's.
    pub(super) fn append(list: &mut Vec<u8>, element: &T) -> Result<()> {
        put_bytes(list, &codec::encode(element)?);
        Ok(())
    }

    pub(super) fn encode(elements: &[T]) -> Result<Vec<u8>> {
        let mut list = Vec::new();
        elements.iter().try_for_each(|element| Self::append(&mut list, element))?;
        Ok(list)
    }

    pub(super) fn decode(list: &[u8]) -> Result<Vec<T>> {
        let mut cursor = Cursor::new(list);
        let mut elements = Vec::new();
        while !cursor.is_empty() {
            elements.push(codec::decode(cursor.bytes("a list's element")?)?);
        }
        Ok(elements)
    }
}

impl<T: StateValue> Layout for ListLayout<T> {
    type Stored = Arc<Vec<T>>;
    const KIND: StateKind = StateKind::List;

    fn type_name() -> String {
        format!("ListState<{}>", std::any::type_name::<T>())
    }

    fn schemas() -> Result<Vec<Schema>> {
        Ok(vec![Schema::of::<T>()?])
    }

    fn write(stored: &Arc<Vec<T>>, _scratch: &mut Vec<u8>, emit: &mut VisitEntry<'_>) -> Result<()> {
        emit(None, &Self::encode(stored)?)
    }

    fn absorb(
        table: &mut Table<Arc<Vec<T>>>,
        hash: KeyHash,
        key: &[u8],
        sub_key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<()> {
        if sub_key.is_some() {
            return Err(unexpected(Self::KIND, "with a"));
        }
        let elements = Self::decode(value)?;
        table.get_or_insert_with(hash, key, || Arc::new(elements)).map(drop)
    }

    fn check(_sub_key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        let mut cursor = Cursor::new(value);
        while !cursor.is_empty() {
            roundtrip::check::<T>(cursor.bytes("a list's element")?)?;
        }
        Ok(())
    }
}

pub(super) struct MapLayout<K, V>(PhantomData<(K, V)>);

impl<K: StateValue + Eq + Hash, V: StateValue> Layout for MapLayout<K, V> {
    type Stored = Arc<HashMap<K, V>>;
    const KIND: StateKind = StateKind::Map;

    fn type_name() -> String {
        format!("MapState<{}, {}>", std::any::type_name::<K>(), std::any::type_name::<V>())
    }

    fn schemas() -> Result<Vec<Schema>> {
        Ok(vec![Schema::of::<K>()?, Schema::of::<V>()?])
    }

    fn write(stored: &Arc<HashMap<K, V>>, scratch: &mut Vec<u8>, emit: &mut VisitEntry<'_>) -> Result<()> {
        let encode = |(key, value): (&K, _)| Ok((codec::encode(key)?, value));
        let mut entries = stored.iter().map(encode).collect::<Result<Vec<(_, &V)>>>()?;
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            let key = std::any::type_name::<K>();
            return Err(Error::invalid(format!("two different map keys of type {key} have the same encoding")));
        }
        for (key, value) in entries {
            encode_to(value, scratch)?;
            emit(Some(&key), scratch)?;
        }
        Ok(())
    }

    fn absorb(
        table: &mut Table<Arc<HashMap<K, V>>>,
        hash: KeyHash,
        key: &[u8],
        sub_key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<()> {
        let Some(sub_key) = sub_key else { return Err(unexpected(Self::KIND, "without a")) };
        let (sub_key, value) = (codec::decode(sub_key)?, codec::decode(value)?);
        let map = table.get_or_insert_with(hash, key, Arc::default)?;
        Arc::make_mut(map).insert(sub_key, value);
        Ok(())
    }

    fn check(sub_key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        sub_key.map_or(Ok(()), roundtrip::check::<K>)?;
        roundtrip::check::<V>(value)
    }
}
