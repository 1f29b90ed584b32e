//! The interface of a backend that holds bytes: a user's own, or one over an embedded database.

use millrace_core::Result;

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

/// Takes the sub key and the value of an entry.
pub type VisitEntry<'a> = dyn FnMut(Option<&[u8]>, &[u8]) -> Result<()> + 'a;

/// The keyed state of one subtask of one operator, as bytes. Lives on its task's thread.
pub trait BytesBackend {
    /// The value at this address.
    fn get(&mut self, at: StateKey<'_>) -> Result<Option<Vec<u8>>>;

    /// Stores a value, replacing what was there.
    fn put(&mut self, at: StateKey<'_>, value: &[u8]) -> Result<()>;

    /// Removes the value at this address, where there is one.
    fn delete(&mut self, at: StateKey<'_>) -> Result<()>;

    /// Hands the sub key and value of every entry of one key to `visit`, ordered by sub key. `key.sub_key` is `None`
    /// and matches every entry.
    fn scan(&mut self, key: StateKey<'_>, visit: &mut VisitEntry<'_>) -> Result<()>;

    /// The synchronous part of a snapshot: a view of all entries as they are now, which later writes don't change. Must
    /// take no longer than milliseconds, whatever the size.
    fn snapshot(&mut self) -> Result<Box<dyn BytesSnapshot>>;
}

/// A frozen view of a [`BytesBackend`]; read on another thread while the backend goes on.
pub trait BytesSnapshot: Send {
    /// Hands every entry of one state and key group to `visit`, ordered by key and sub key.
    fn scan(
        &mut self,
        state: u16,
        key_group: u16,
        visit: &mut dyn FnMut(StateKey<'_>, &[u8]) -> Result<()>,
    ) -> Result<()>;
}
