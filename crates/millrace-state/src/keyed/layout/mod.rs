//! How the kinds of state are held on the heap and what their entries are.

mod list;
mod map;
mod one;

pub(super) use list::ListLayout;
pub(super) use map::MapLayout;
pub(super) use one::{Aggregating, OneLayout, Reducing, Value};

use std::borrow::Cow;

use millrace_core::{
    Error, Result, codec,
    key::KeyHash,
    schema::{Migration, Schema},
};

use super::{
    StateValue,
    lifetime::{Lifetime, Ttl},
};
use crate::{
    heap::Table,
    snapshot::{Entry, StateKind},
};

/// Takes the sub key, the value and the expiry of an entry.
pub(super) type EmitEntry<'a> = dyn FnMut(Option<&[u8]>, &[u8], Option<u64>) -> Result<()> + 'a;

/// An entry of a snapshot, and the ways from its writer's types to today's.
pub(super) struct Restored<'a> {
    pub(super) entry: &'a Entry<'a>,
    pub(super) migrations: &'a [Migration],
}

impl Restored<'_> {
    /// Decodes something of the writer's type of this number.
    fn decode<T: StateValue>(&self, of: usize, bytes: &[u8]) -> Result<T> {
        match self.migrations.get(of) {
            Some(migration) => migration.decode(bytes),
            None => codec::decode(bytes),
        }
    }

    /// The encoding of today.
    fn recode<'a, T: StateValue>(&self, of: usize, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        match self.migrations.get(of) {
            Some(migration) if migration.is_needed() => codec::encode(&migration.decode::<T>(bytes)?).map(Cow::Owned),
            _ => Ok(Cow::Borrowed(bytes)),
        }
    }

    /// The expiry of the whole entry where it goes on in a backend of bytes.
    fn expiry(&self, ttl: Option<&Ttl>) -> Option<u64> {
        ttl.map(|ttl| self.entry.expiry.unwrap_or_else(|| ttl.new_expiry()))
    }
}

/// A kind of state, with its types.
pub(super) trait Layout: 'static {
    /// What a heap table holds for a key.
    type Stored<H: Lifetime>: Clone + Send + Sync + 'static;
    /// The kind.
    const KIND: StateKind;

    /// The handle's type as a user writes it, for messages.
    fn type_name() -> String;

    /// The schemas of its types.
    fn schemas() -> Result<Vec<Schema>>;

    /// The ways from the types that a snapshot was written with; where there is none, why not.
    fn migrations(written: &[Schema]) -> Result<Vec<Migration>, String>;

    /// Hands the entries of a key to `emit`, in order, but for what has expired `now`. `scratch` is a buffer to encode
    /// into.
    fn write<H: Lifetime>(
        stored: &Self::Stored<H>,
        now: u64,
        scratch: &mut Vec<u8>,
        emit: &mut EmitEntry<'_>,
    ) -> Result<()>;

    /// Takes in an entry of a snapshot.
    fn absorb<H: Lifetime>(
        lifetime: &H,
        table: &mut Table<Self::Stored<H>>,
        hash: KeyHash,
        restored: &Restored<'_>,
    ) -> Result<()>;

    /// Value and expiry of an entry of a snapshot as they go into a backend of bytes.
    fn recode<'a>(restored: &Restored<'a>, ttl: Option<&Ttl>) -> Result<(Cow<'a, [u8]>, Option<u64>)>;

    /// Checks that an encoded entry (one that expires or not) decodes to something that has the same encoding.
    fn check(sub_key: Option<&[u8]>, value: &[u8], expires: bool) -> Result<()>;

    /// Whether [`Self::shrink`] would drop something, as far as a short look can tell.
    fn is_stale<H: Lifetime>(lifetime: &H, stored: &Self::Stored<H>) -> bool;

    /// Drops what has expired and tells whether nothing is left.
    fn shrink<H: Lifetime>(lifetime: &H, stored: &mut Self::Stored<H>) -> bool;
}

/// So many elements of a list or a map are looked at to tell whether it is stale.
const SHORT_LOOK: usize = 32;

/// Encodes into a buffer that is there.
fn encode_to<T: serde::Serialize>(value: &T, scratch: &mut Vec<u8>) -> Result<()> {
    scratch.clear();
    codec::encode_into(value, scratch)
}

fn unexpected(kind: StateKind, with: &str) -> Error {
    Error::external(format!("the snapshot is damaged: an entry of a {kind} state is {with} sub key")).fatal()
}

/// Whether something has expired; what never does has no expiry.
fn has_expired(expiry: Option<u64>, now: u64) -> bool {
    expiry.is_some_and(|expiry| expiry <= now)
}
