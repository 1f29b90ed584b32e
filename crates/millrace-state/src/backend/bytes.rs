//! The interface of a backend that holds bytes: a user's own, or one over an embedded database.

use millrace_core::{Error, Result};

use super::SnapshotFiles;
use crate::storage::UploadedFiles;

/// The address of one entry. Entries are ordered by these fields, in this order; a missing sub key comes before an
/// empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey<'a> {
    /// The state, numbered by the store that uses the backend; the number of a state may differ between two runs.
    pub state: u16,
    /// The key's group.
    pub key_group: u16,
    /// The encoded key.
    pub key: &'a [u8],
    /// The encoded key of a map's entry; value and list states have none.
    pub sub_key: Option<&'a [u8]>,
}

/// A value with the time from which on it no longer counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredValue {
    /// The encoded value.
    pub value: Vec<u8>,
    /// When it expires, milliseconds since the epoch; `None` where the state has no time to live.
    pub expiry: Option<u64>,
}

/// Takes the sub key, the value and the expiry of an entry.
pub type VisitEntry<'a> = dyn FnMut(Option<&[u8]>, &[u8], Option<u64>) -> Result<()> + 'a;

/// Takes the address, the value and the expiry of an entry.
pub type VisitStored<'a> = &'a mut dyn FnMut(StateKey<'_>, &[u8], Option<u64>) -> Result<()>;

/// The keyed state of one subtask of one operator, as bytes. Lives on its task's thread.
///
/// An expiry is kept beside its value and given back unchanged. A backend may drop an entry at any time once its expiry
/// is not later than the context's clock, never before; it need not, and it shows what it has not dropped: the store
/// decides what is still to be seen.
pub trait BytesBackend {
    /// The value at this address.
    fn get(&mut self, at: StateKey<'_>) -> Result<Option<StoredValue>>;

    /// Stores a value with its expiry, replacing what was there.
    fn put(&mut self, at: StateKey<'_>, value: &[u8], expiry: Option<u64>) -> Result<()>;

    /// Removes the value at this address, where there is one.
    fn delete(&mut self, at: StateKey<'_>) -> Result<()>;

    /// Hands sub key, value and expiry of every entry of one key to `visit`, ordered by sub key. `key.sub_key` is `None`
    /// and matches every entry.
    fn scan(&mut self, key: StateKey<'_>, visit: &mut VisitEntry<'_>) -> Result<()>;

    /// These entries are about to be read: a backend may fetch them together. They are those of the next records of a
    /// batch, equal ones included.
    fn prefetch(&mut self, _entries: &[StateKey<'_>]) -> Result<()> {
        Ok(())
    }

    /// Removes all entries of a state. Only asked of a backend that [goes on from files](super::FileBackend::adopt).
    fn clear_state(&mut self, state: u16) -> Result<()> {
        Err(Error::internal(format!("this state backend can't clear state {state}")))
    }

    /// Tells a backend that takes snapshots as files what of them completed checkpoints have, from here on.
    fn know_uploaded(&mut self, _files: &UploadedFiles) {}

    /// How many bytes it holds, on disk and in memory, for a person to see; `None` where it does not know.
    fn size(&self) -> Option<u64> {
        None
    }

    /// The synchronous part of a snapshot: a view of all entries as they are now, which later writes don't change. Must
    /// take no longer than milliseconds, whatever the size.
    fn snapshot(&mut self) -> Result<Box<dyn BytesSnapshot>>;
}

/// A frozen view of a [`BytesBackend`]; read on another thread while the backend goes on.
pub trait BytesSnapshot: Send {
    /// Hands every entry of one state and key group with its expiry to `visit`, ordered by key and sub key.
    fn scan(&mut self, state: u16, key_group: u16, visit: VisitStored<'_>) -> Result<()>;

    /// The files that hold all entries, where the backend takes snapshots as files: those that an earlier checkpoint has
    /// too are not written again. `None` where entries are written. The files stay until the view is dropped.
    fn files(&mut self) -> Result<Option<SnapshotFiles>> {
        Ok(None)
    }
}
