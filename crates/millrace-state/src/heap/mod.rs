//! Keyed state on the heap: typed values in flat tables, nothing serialized on access.
//!
//! A state has one [`Table`]: for each key group of the subtask an open-addressing table whose slots hold the key (in
//! place up to 18 bytes), half of its hash and the value. The slots lie in pages of 512. A snapshot's synchronous part
//! ([`Table::freeze`]) is a pass over the pages' pointers, which makes every page shared; a page that is written after it
//! is copied first, unless the snapshot is done with it. The asynchronous part reads the shared pages on another thread.

mod group;
mod page;
mod prefetch;
mod slot;

#[cfg(test)]
mod tests;

use group::Group;
use millrace_core::{
    Error, Result,
    key::{KeyGroupRange, KeyHash},
};
use slot::Slot;

pub(crate) use group::FrozenGroup;

/// So many slots are looked at for what has expired, with each access to a table whose entries expire.
const SWEPT: usize = 4;

/// How far a table was looked through.
#[derive(Default)]
pub(crate) struct SweepPosition {
    group: usize,
    slot: usize,
}

/// The entries of one state of one subtask.
pub(crate) struct Table<V> {
    max_parallelism: u32,
    range: KeyGroupRange,
    groups: Vec<Group<V>>,
}

/// A table as it was when a snapshot began: its key groups in order.
pub(crate) type FrozenTable<V> = Vec<(u16, FrozenGroup<V>)>;

/// The part of the hash that picks a slot; the other half picked the key group.
#[inline]
fn slot_hash(hash: KeyHash) -> u32 {
    hash.0 as u32
}

impl<V> Table<V> {
    pub(crate) fn new(max_parallelism: u32, range: KeyGroupRange) -> Self {
        Self { max_parallelism, range, groups: (0..range.count()).map(|_| Group::default()).collect() }
    }

    #[inline]
    fn index(&self, hash: KeyHash) -> usize {
        usize::from(hash.key_group(self.max_parallelism)).wrapping_sub(usize::from(self.range.start))
    }

    #[inline]
    fn group(&self, hash: KeyHash) -> Result<&Group<V>> {
        let index = self.index(hash);
        self.groups.get(index).ok_or_else(|| self.foreign(hash))
    }

    #[inline]
    fn group_mut(&mut self, hash: KeyHash) -> Result<&mut Group<V>> {
        let index = self.index(hash);
        if index >= self.groups.len() {
            return Err(self.foreign(hash));
        }
        Ok(&mut self.groups[index])
    }

    #[cold]
    fn foreign(&self, hash: KeyHash) -> Error {
        Error::internal(format!(
            "a record of key group {} came to a subtask that owns the groups {} to {}",
            hash.key_group(self.max_parallelism),
            self.range.start,
            self.range.end
        ))
    }

    /// The bytes of the slots, filled or not: without what long keys and values own elsewhere.
    pub(crate) fn bytes(&self) -> u64 {
        let slots: usize = self.groups.iter().map(Group::capacity).sum();
        (slots * size_of::<Slot<V>>()) as u64
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(Group::len).sum()
    }

    #[inline]
    pub(crate) fn get(&self, hash: KeyHash, key: &[u8]) -> Result<Option<&V>> {
        Ok(self.group(hash)?.get(slot_hash(hash), key))
    }

    /// Asks for the slots of these keys, so that they are near when they are used.
    pub(crate) fn prefetch(&self, hashes: &[KeyHash]) {
        for hash in hashes {
            if let Some(group) = self.groups.get(self.index(*hash)) {
                group.prefetch(slot_hash(*hash));
            }
        }
    }

    /// The synchronous part of a snapshot.
    pub(crate) fn freeze(&mut self) -> FrozenTable<V> {
        let groups = self.range.iter().zip(&mut self.groups);
        groups.filter(|(_, group)| group.len() > 0).map(|(number, group)| (number, group.freeze())).collect()
    }
}

impl<V: Clone> Table<V> {
    #[inline]
    pub(crate) fn get_mut(&mut self, hash: KeyHash, key: &[u8]) -> Result<Option<&mut V>> {
        Ok(self.group_mut(hash)?.get_mut(slot_hash(hash), key))
    }

    /// The value of a key, made first where there is none.
    #[inline]
    pub(crate) fn get_or_insert_with(&mut self, hash: KeyHash, key: &[u8], make: impl FnOnce() -> V) -> Result<&mut V> {
        Ok(self.group_mut(hash)?.get_or_insert_with(slot_hash(hash), key, make))
    }

    /// Makes room in a key group for so many entries more.
    pub(crate) fn reserve(&mut self, key_group: u16, entries: u64) {
        let index = usize::from(key_group).wrapping_sub(usize::from(self.range.start));
        if let Some(group) = self.groups.get_mut(index) {
            group.reserve(entries as usize);
        }
    }

    pub(crate) fn remove(&mut self, hash: KeyHash, key: &[u8]) -> Result<Option<V>> {
        Ok(self.group_mut(hash)?.remove(slot_hash(hash), key))
    }

    /// Looks at the next few slots. What is stale is shrunk, and removed when nothing is left of it.
    pub(crate) fn sweep(
        &mut self,
        position: &mut SweepPosition,
        stale: impl Fn(&V) -> bool,
        shrink: impl Fn(&mut V) -> bool,
    ) {
        let mut left = SWEPT;
        // No more groups than there are, so that an empty table is no loop without an end.
        for _ in 0..=self.groups.len() {
            let Some(group) = self.groups.get_mut(position.group) else {
                position.group = 0;
                continue;
            };
            while position.slot < group.capacity() {
                if left == 0 {
                    return;
                }
                left -= 1;
                if !group.sweep_slot(position.slot, &stale, &shrink) {
                    position.slot += 1;
                }
            }
            *position = SweepPosition { group: position.group + 1, slot: 0 };
        }
    }
}
