//! The hot entries in front of a database: what was read last, and what was written and is not in the database yet.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    ops::Range,
};

use hashbrown::HashTable;
use rocksdb::WriteBatch;

/// What an entry takes beside its key and value: its slot, its place in the table, what the allocator adds.
const OVERHEAD: usize = 128;
/// So many unwritten entries are a batch; a snapshot takes twice as many at most, while the task waits.
const MOST_UNWRITTEN: usize = 4096;
const MOST_UNWRITTEN_BYTES: usize = 4 << 20;

/// Entries by their encoded key. An entry that is known to be absent from the state has no value.
#[derive(Default)]
pub(crate) struct HotEntries {
    hasher: RandomState,
    table: HashTable<u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The slot that is looked at next when one must go.
    hand: usize,
    bytes: usize,
    unwritten: Vec<u32>,
    unwritten_bytes: usize,
    /// How many of these, and how many bytes, the last snapshot has taken: its thread writes them first.
    taken: usize,
    taken_bytes: usize,
    /// The keys of unwritten entries that have sub keys: a scan must find them in order.
    unwritten_sub_keys: BTreeSet<Vec<u8>>,
}

#[derive(Default)]
struct Slot {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    unwritten: bool,
    /// Used since the hand has passed it.
    used: bool,
}

impl Slot {
    fn size(&self) -> usize {
        OVERHEAD + self.key.capacity() + self.value.as_ref().map_or(0, Vec::capacity)
    }
}

impl HotEntries {
    /// What is known of an entry: its value, or that it has none.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Option<&[u8]>> {
        let index = self.find(key)?;
        let slot = &mut self.slots[index as usize];
        slot.used = true;
        Some(slot.value.as_deref())
    }

    /// Keeps what was read from the database. What is known already is newer.
    pub(crate) fn keep(&mut self, key: &[u8], value: Option<&[u8]>) {
        if self.find(key).is_none() {
            self.insert(key, value);
        }
    }

    /// Takes a write: a value, or that there is none any more.
    pub(crate) fn write(&mut self, key: &[u8], value: Option<&[u8]>, has_sub_key: bool) {
        let index = match self.find(key) {
            None => self.insert(key, value),
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                let before = slot.size();
                match (&mut slot.value, value) {
                    (Some(old), Some(new)) => {
                        old.clear();
                        old.extend_from_slice(new);
                    }
                    (old, new) => *old = new.map(<[u8]>::to_vec),
                }
                self.bytes = self.bytes - before + slot.size();
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.used = true;
        if !slot.unwritten {
            slot.unwritten = true;
            self.unwritten.push(index);
            self.unwritten_bytes += slot.size();
            if has_sub_key {
                self.unwritten_sub_keys.insert(key.to_vec());
            }
        }
    }

    /// Whether there is enough unwritten for a batch.
    pub(crate) fn should_write(&self) -> bool {
        let (entries, bytes) = (self.unwritten.len(), self.unwritten_bytes);
        let since = entries - self.taken >= MOST_UNWRITTEN || bytes - self.taken_bytes >= MOST_UNWRITTEN_BYTES;
        since || entries >= 2 * MOST_UNWRITTEN || bytes >= 2 * MOST_UNWRITTEN_BYTES
    }

    /// A snapshot takes what is unwritten now. It stays unwritten here: more may come before it is in the database.
    pub(crate) fn take_for_snapshot(&mut self) -> WriteBatch {
        (self.taken, self.taken_bytes) = (self.unwritten.len(), self.unwritten_bytes);
        self.unwritten()
    }

    /// Whether the database lacks anything.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The writes that the database lacks. They count as written with [`Self::all_written`].
    pub(crate) fn unwritten(&self) -> WriteBatch {
        let mut batch = WriteBatch::with_capacity_bytes(self.unwritten_bytes);
        for slot in self.unwritten.iter().map(|index| &self.slots[*index as usize]) {
            match &slot.value {
                Some(value) => batch.put(&slot.key, value),
                None => batch.delete(&slot.key),
            }
        }
        batch
    }

    /// The database has them now.
    pub(crate) fn all_written(&mut self) {
        for index in self.unwritten.drain(..) {
            self.slots[index as usize].unwritten = false;
        }
        self.unwritten_bytes = 0;
        (self.taken, self.taken_bytes) = (0, 0);
        self.unwritten_sub_keys.clear();
    }

    /// The unwritten entries with sub keys in this range, in order.
    pub(crate) fn unwritten_between(&self, range: Range<&[u8]>) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let Range { start, end } = range;
        let keys = self
            .unwritten_sub_keys
            .range::<[u8], _>((std::ops::Bound::Included(start), std::ops::Bound::Excluded(end)));
        keys.map(|key| {
            let slot = self.find(key).map(|index| &self.slots[index as usize]);
            (key.as_slice(), slot.and_then(|slot| slot.value.as_deref()))
        })
    }

    pub(crate) fn size(&self) -> usize {
        self.bytes
    }

    /// Lets go of entries that were not used lately, down to `size` where what is unwritten allows it.
    pub(crate) fn shrink_to(&mut self, size: usize) {
        // Twice round: the first time takes away the marks.
        for _ in 0..self.slots.len() * 2 {
            if self.bytes <= size {
                return;
            }
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let slot = &mut self.slots[self.hand];
            if slot.used {
                slot.used = false;
            } else if !slot.unwritten && slot.key.capacity() > 0 {
                self.remove(self.hand as u32);
            }
        }
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.table.find(hash, |index| self.slots[*index as usize].key == key).copied()
    }

    fn insert(&mut self, key: &[u8], value: Option<&[u8]>) -> u32 {
        let slot = Slot { key: key.to_vec(), value: value.map(<[u8]>::to_vec), unwritten: false, used: true };
        self.bytes += slot.size();
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        let (hasher, slots) = (&self.hasher, &self.slots);
        self.table.insert_unique(hasher.hash_one(key), index, |index| hasher.hash_one(&slots[*index as usize].key[..]));
        index
    }

    fn remove(&mut self, index: u32) {
        let slot = std::mem::take(&mut self.slots[index as usize]);
        self.bytes -= slot.size();
        let hash = self.hasher.hash_one(&slot.key[..]);
        if let Ok(entry) = self.table.find_entry(hash, |found| *found == index) {
            entry.remove();
        }
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    #[test]
    fn a_write_is_newer_than_what_was_read() {
        let mut hot = HotEntries::default();
        assert_eq!(hot.get(b"a"), None);
        hot.keep(b"a", None);
        assert_eq!(hot.get(b"a"), Some(None));
        hot.write(b"a", Some(b"1"), false);
        hot.keep(b"a", Some(b"old"));
        assert_eq!(hot.get(b"a"), Some(Some(b"1".as_slice())));
        hot.write(b"a", None, false);
        assert_eq!(hot.get(b"a"), Some(None));
        assert_eq!(hot.unwritten().len(), 1, "one entry however often it was written");
        hot.all_written();
        assert!(!hot.has_unwritten());
        assert_eq!(hot.get(b"a"), Some(None), "what was written is still known");
    }

    #[test]
    fn what_is_unwritten_stays_and_what_is_used_stays_longer() {
        let mut hot = HotEntries::default();
        for number in 0..100 {
            hot.keep(&key(number), Some(b"value"));
        }
        for number in 100..110 {
            hot.write(&key(number), Some(b"value"), false);
        }
        let each = hot.size() / 110;
        hot.shrink_to(60 * each);
        assert!(hot.size() <= 60 * each);
        let kept: Vec<_> = (0..100).filter(|number| hot.get(&key(*number)).is_some()).collect();
        assert!(kept.len() >= 45, "{kept:?}");
        // All that are left were used just now: a few, chosen by the hand, lose their mark and go; these are used again.
        for number in 0..100 {
            hot.keep(&key(1000 + number), None);
        }
        for number in &kept[..5] {
            hot.get(&key(*number));
        }
        hot.shrink_to(0);
        assert!((100..110).all(|number| hot.get(&key(number)) == Some(Some(b"value".as_slice()))), "unwritten");
        assert_eq!(hot.size() / each, 10);
        hot.all_written();
        hot.shrink_to(0);
        assert_eq!((hot.size(), hot.table.len()), (0, 0));
    }

    #[test]
    fn slots_are_used_again() {
        let mut hot = HotEntries::default();
        for round in 0..50 {
            for number in 0..100 {
                hot.keep(&key(round * 100 + number), Some(&[7; 20]));
            }
            hot.shrink_to(0);
        }
        assert_eq!(hot.slots.len(), 100);
    }

    #[test]
    fn unwritten_sub_keys_are_found_in_order() {
        let mut hot = HotEntries::default();
        for sub_key in [b"k2", b"k0", b"j9", b"k1", b"l0"] {
            hot.write(sub_key, Some(&sub_key[1..]), true);
        }
        hot.write(b"k1", None, true);
        hot.write(b"k5", Some(b"no sub key"), false);
        let found: Vec<_> = hot.unwritten_between(b"k"..b"l").collect();
        let value = |text: &'static str| Some(text.as_bytes());
        assert_eq!(found, [(&b"k0"[..], value("0")), (b"k1", None), (b"k2", value("2"))]);
        hot.all_written();
        assert_eq!(hot.unwritten_between(b"a"..b"z").count(), 0);
    }

    #[test]
    fn enough_unwritten_entries_or_bytes_are_a_batch() {
        let mut hot = HotEntries::default();
        for number in 0..MOST_UNWRITTEN as u32 {
            assert!(!hot.should_write());
            hot.write(&key(number), Some(b""), false);
        }
        assert!(hot.should_write());
        assert_eq!(hot.take_for_snapshot().len(), MOST_UNWRITTEN);
        for number in 0..MOST_UNWRITTEN as u32 {
            assert!(!hot.should_write(), "what a snapshot has taken is as good as written");
            hot.write(&key(number + 1_000_000), Some(b""), false);
        }
        assert!(hot.should_write());
        hot.take_for_snapshot();
        assert!(hot.should_write(), "but not for ever");
        let mut hot = HotEntries::default();
        hot.write(b"a", Some(&vec![0; MOST_UNWRITTEN_BYTES]), false);
        assert!(hot.should_write());
    }
}
