//! The hot entries in front of a database: what was read last, and what was written and is not in the database yet.
//!
//! What is unwritten goes to the database all at once, as a sorted [`Run`]. The task only [freezes](HotEntries::freeze)
//! it. Another thread copies the frozen entries, some at a time; the task copies one before it changes it.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::BuildHasher,
    hint::black_box,
    ops::{Bound, Range},
};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::run::Run;

/// So many bytes are copied before the task may go on.
const SLICE_BYTES: usize = 256 << 10;
/// What an entry takes beside its key and value: its slot, its place in the table, what the allocator adds.
const OVERHEAD: usize = 112;
/// What an entry with a sub key takes beside its key once more, while it is unwritten.
const SUB_KEY_OVERHEAD: usize = 64;

/// Entries by their encoded key. An entry that is known to be absent from the state has no value.
pub(crate) struct HotEntries {
    hasher: DefaultHashBuilder,
    table: HashTable<Place>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The slot that is looked at next when one must go.
    hand: usize,
    bytes: usize,
    /// Each freeze begins another.
    era: u64,
    /// What was written in this era.
    unwritten: Vec<u32>,
    unwritten_bytes: usize,
    /// By era. There are several where one is frozen before the one before is written.
    frozen: VecDeque<Frozen>,
    /// The keys of entries with sub keys that the database lacks: a scan must find them in order.
    unwritten_sub_keys: BTreeSet<Vec<u8>>,
    sub_key_bytes: usize,
}

/// Where an entry is. Its hash is here too, so that few slots are looked at in vain and the table grows without a look at
/// any.
struct Place {
    hash: u32,
    slot: u32,
}

impl Place {
    /// The hash that the table needs, which looks at the highest and the lowest bits.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

#[derive(Default)]
struct Slot {
    /// The key and, where there is one, the value: one look at memory for both.
    bytes: Vec<u8>,
    key_length: u32,
    has_value: bool,
    /// The era in which it was written last, and whether the run of that era has it. An entry that was written neither in
    /// this era nor in a frozen one is in the database.
    written: u64,
    copied: bool,
    /// Used since the hand has passed it.
    used: bool,
}

/// The entries that are on their way to the database.
pub(crate) struct Frozen {
    era: u64,
    slots: Vec<u32>,
    /// How many of them have been looked at.
    looked_at: usize,
    /// Until it is handed out.
    run: Option<Run>,
    /// As [`HotEntries::unwritten_sub_keys`].
    sub_keys: BTreeSet<Vec<u8>>,
    sub_key_bytes: usize,
}

impl Slot {
    fn new(key: &[u8], value: Option<&[u8]>) -> Self {
        let mut bytes = Vec::with_capacity(key.len() + value.map_or(0, <[u8]>::len));
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value.unwrap_or_default());
        // No entry reaches 4 GiB: who writes one is refused.
        Self { bytes, key_length: key.len() as u32, has_value: value.is_some(), used: true, ..Self::default() }
    }

    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_length as usize]
    }

    fn value(&self) -> Option<&[u8]> {
        self.has_value.then(|| &self.bytes[self.key_length as usize..])
    }

    fn set_value(&mut self, value: Option<&[u8]>) {
        self.bytes.truncate(self.key_length as usize);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.has_value = value.is_some();
    }

    fn size(&self) -> usize {
        OVERHEAD + self.bytes.capacity()
    }
}

/// Nothing is frozen of that era.
#[derive(Debug)]
pub(crate) struct NotFrozen;

impl Frozen {
    /// Has the run take an entry as it was.
    fn take(&mut self, slot: &mut Slot) {
        if let (false, Some(run)) = (slot.copied, &mut self.run) {
            run.push(slot.key(), slot.value());
            slot.copied = true;
        }
    }
}

impl Default for HotEntries {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            // No slot was written in era 0.
            era: 1,
            unwritten: Vec::new(),
            unwritten_bytes: 0,
            frozen: VecDeque::new(),
            unwritten_sub_keys: BTreeSet::new(),
            sub_key_bytes: 0,
        }
    }
}

impl HotEntries {
    /// What is known of an entry: its value, or that it has none.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Option<&[u8]>> {
        let index = self.find(key)?;
        let slot = &mut self.slots[index as usize];
        slot.used = true;
        Some(slot.value())
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
                if let Some(frozen) = self.frozen.iter_mut().find(|frozen| frozen.era == slot.written) {
                    frozen.take(slot);
                }
                let before = slot.size();
                slot.set_value(value);
                let after = slot.size();
                self.bytes = self.bytes - before + after;
                if slot.written == self.era {
                    self.unwritten_bytes = self.unwritten_bytes - before + after;
                }
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.used = true;
        if slot.written != self.era {
            (slot.written, slot.copied) = (self.era, false);
            self.unwritten.push(index);
            self.unwritten_bytes += slot.size();
            if has_sub_key && self.unwritten_sub_keys.insert(key.to_vec()) {
                self.sub_key_bytes += SUB_KEY_OVERHEAD + key.len();
            }
        }
    }

    /// The bytes of what was written in this era.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes + self.sub_key_bytes
    }

    /// Freezes what is unwritten; the number of its era.
    pub(crate) fn freeze(&mut self) -> u64 {
        let slots = std::mem::take(&mut self.unwritten);
        let bytes = std::mem::take(&mut self.unwritten_bytes).saturating_sub(slots.len() * OVERHEAD);
        let era = self.era;
        self.frozen.push_back(Frozen {
            era,
            looked_at: 0,
            run: Some(Run::with_capacity(slots.len(), bytes)),
            slots,
            sub_keys: std::mem::take(&mut self.unwritten_sub_keys),
            sub_key_bytes: std::mem::take(&mut self.sub_key_bytes),
        });
        self.era += 1;
        era
    }

    /// Copies up to so many of the entries that were frozen in this era, and fewer where they are large; hands out all once
    /// they are copied. `Err` where they are not frozen any more, or were handed out.
    pub(crate) fn copy_frozen(&mut self, era: u64, most: usize) -> Result<Option<Run>, NotFrozen> {
        let is_it = |frozen: &&mut Frozen| frozen.era == era && frozen.run.is_some();
        let frozen = self.frozen.iter_mut().find(is_it).ok_or(NotFrozen)?;
        let end = frozen.slots.len().min(frozen.looked_at.saturating_add(most));
        let mut bytes = 0;
        while frozen.looked_at < end && bytes < SLICE_BYTES {
            let slot = &mut self.slots[frozen.slots[frozen.looked_at] as usize];
            // What was written again was copied before that.
            if slot.written == era {
                bytes += slot.bytes.len();
                frozen.take(slot);
            }
            frozen.looked_at += 1;
        }
        Ok(if frozen.looked_at == frozen.slots.len() { frozen.run.take() } else { None })
    }

    /// Lets go of the entries that were frozen in this era: the database has them, or they are unwritten again, and what
    /// was frozen later is not to be written without them. What is left of them is the caller's to drop.
    #[must_use = "it is dropped once the lock is free"]
    pub(crate) fn release(&mut self, era: u64, written: bool) -> Option<Frozen> {
        let place = self.frozen.iter().position(|frozen| frozen.era == era)?;
        let mut frozen = self.frozen.remove(place)?;
        if !written {
            for &index in &frozen.slots {
                let slot = &mut self.slots[index as usize];
                if slot.written == era {
                    (slot.written, slot.copied) = (self.era, false);
                    self.unwritten.push(index);
                    self.unwritten_bytes += slot.size();
                }
            }
            self.unwritten_sub_keys.append(&mut frozen.sub_keys);
            self.sub_key_bytes = self.unwritten_sub_keys.iter().map(|key| SUB_KEY_OVERHEAD + key.len()).sum();
        }
        Some(frozen)
    }

    /// Forgets all entries. Eras go on: a cut has its number from them.
    pub(crate) fn clear(&mut self) {
        *self = Self { era: self.era, ..Self::default() };
    }

    /// The entries with sub keys in this range that the database lacks, or has lacked until now, in order.
    pub(crate) fn unwritten_between(&self, range: Range<&[u8]>) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
        let frozen = self.frozen.iter().flat_map(move |frozen| frozen.sub_keys.range::<[u8], _>(bounds));
        let mut keys: Vec<_> = self.unwritten_sub_keys.range::<[u8], _>(bounds).chain(frozen).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().map(|key| {
            let slot = self.find(key).map(|index| &self.slots[index as usize]);
            (key.as_slice(), slot.and_then(Slot::value))
        })
    }

    /// What all entries take, without the copies of frozen ones.
    pub(crate) fn size(&self) -> usize {
        self.bytes + self.sub_key_bytes + self.frozen.iter().map(|frozen| frozen.sub_key_bytes).sum::<usize>()
    }

    /// Lets go of entries that were not used lately, down to `size` where what is unwritten allows it.
    pub(crate) fn shrink_to(&mut self, size: usize) {
        // Twice round: the first time takes away the marks.
        let oldest = self.frozen.front().map_or(self.era, |frozen| frozen.era);
        for _ in 0..self.slots.len() * 2 {
            if self.size() <= size {
                return;
            }
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let slot = &mut self.slots[self.hand];
            if slot.used {
                slot.used = false;
            } else if slot.written < oldest && slot.bytes.capacity() > 0 {
                self.remove(self.hand as u32);
            }
        }
    }

    /// Has the processor fetch what is known of these entries. One after the other they would wait for memory several
    /// times each; these waits overlap.
    pub(crate) fn touch<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let place = |key| {
            let hash = self.hash(key);
            self.table.find(Place::spread(hash), |place| place.hash == hash)
        };
        let slots: Vec<u32> = keys.filter_map(place).map(|place| place.slot).collect();
        let bytes: Vec<&[u8]> = slots.iter().map(|slot| self.slots[*slot as usize].bytes.as_slice()).collect();
        black_box(bytes.iter().filter_map(|bytes| bytes.first()).fold(0, |all, byte| all ^ byte));
    }

    fn hash(&self, key: &[u8]) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hash(key);
        let is = |place: &Place| place.hash == hash && self.slots[place.slot as usize].key() == key;
        self.table.find(Place::spread(hash), is).map(|place| place.slot)
    }

    fn insert(&mut self, key: &[u8], value: Option<&[u8]>) -> u32 {
        let entry = Slot::new(key, value);
        self.bytes += entry.size();
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as u32
            }
        };
        let hash = self.hash(key);
        self.table.insert_unique(Place::spread(hash), Place { hash, slot }, |place| Place::spread(place.hash));
        slot
    }

    fn remove(&mut self, slot: u32) {
        let entry = std::mem::take(&mut self.slots[slot as usize]);
        self.bytes -= entry.size();
        let hash = self.hash(entry.key());
        if let Ok(place) = self.table.find_entry(Place::spread(hash), |place| place.slot == slot) {
            place.remove();
        }
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    /// Has the database write everything; what that is.
    fn written(hot: &mut HotEntries) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let era = hot.freeze();
        let mut run = hot.copy_frozen(era, usize::MAX).unwrap().unwrap();
        run.sort();
        drop(hot.release(era, true));
        run.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect()
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
        assert_eq!(written(&mut hot), [(b"a".to_vec(), None)], "one entry however often it was written");
        assert_eq!((written(&mut hot).len(), hot.unwritten_bytes()), (0, 0));
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
        let era = hot.freeze();
        hot.shrink_to(0);
        assert_eq!(hot.size() / each, 10, "on their way");
        drop(hot.release(era, true));
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
        let era = hot.freeze();
        hot.write(b"k1", Some(b"new"), true);
        assert_eq!(hot.unwritten_between(b"k"..b"l").count(), 3, "on their way");
        assert_eq!(hot.copy_frozen(era, usize::MAX).unwrap().unwrap().len(), 6);
        drop(hot.release(era, true));
        let left: Vec<_> = hot.unwritten_between(b"a"..b"z").collect();
        assert_eq!(left, [(&b"k1"[..], Some(b"new".as_slice()))], "written again meanwhile");
    }

    #[test]
    fn what_is_frozen_is_what_was_there_whoever_copies_it() {
        let mut hot = HotEntries::default();
        for number in 0..10 {
            hot.write(&key(number), Some(b"old"), false);
        }
        let era = hot.freeze();
        assert!(hot.copy_frozen(era, 3).unwrap().is_none(), "there are more");
        for number in 0..6 {
            hot.write(&key(number), Some(b"new"), false);
            hot.write(&key(number), None, false);
        }
        hot.write(&key(10), Some(b"new"), false);
        let mut run = hot.copy_frozen(era, 100).unwrap().unwrap();
        run.sort();
        let frozen: Vec<_> = run.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
        assert!(frozen.into_iter().eq((0..10).map(|number| (key(number), Some(b"old".to_vec())))));
        assert!(hot.release(era + 1, true).is_none());
        assert!(hot.copy_frozen(era + 1, 100).is_err(), "another era");
        drop(hot.release(era, true));
        let again: Vec<_> = written(&mut hot).into_iter().map(|(key, _)| key).collect();
        assert_eq!(again, [0, 1, 2, 3, 4, 5, 10].map(key));
    }

    #[test]
    fn what_could_not_be_written_is_unwritten_again() {
        let mut hot = HotEntries::default();
        hot.write(b"a", Some(b"1"), true);
        hot.write(b"b", Some(b"1"), true);
        let bytes = hot.unwritten_bytes();
        let era = hot.freeze();
        hot.write(b"b", Some(b"2"), true);
        assert!(hot.copy_frozen(era, 100).unwrap().is_some());
        drop(hot.release(era, false));
        assert_eq!(hot.unwritten_bytes(), bytes);
        let all = [(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), Some(b"2".to_vec()))];
        assert_eq!(written(&mut hot), all);
    }

    #[test]
    fn each_era_is_what_was_written_in_it() {
        let mut hot = HotEntries::default();
        let mut eras = Vec::new();
        for round in 0u32..3 {
            // Each number is written in two eras.
            for number in round * 10..round * 10 + 20 {
                hot.write(&key(number), Some(&key(round)), true);
            }
            eras.push(hot.freeze());
        }
        hot.write(&key(0), None, true);
        hot.shrink_to(0);
        assert_eq!(hot.unwritten_between(&key(0)..&key(100)).count(), 40);
        for round in [2u32, 0, 1] {
            let era = eras[round as usize];
            let mut run = hot.copy_frozen(era, usize::MAX).unwrap().unwrap();
            run.sort();
            let expected = (round * 10..round * 10 + 20).map(|number| (key(number), Some(key(round))));
            let copied = run.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
            assert!(copied.eq(expected), "round {round}");
        }
        for era in eras {
            drop(hot.release(era, true));
        }
        hot.shrink_to(0);
        assert_eq!(hot.table.len(), 1);
        assert_eq!(written(&mut hot), [(key(0), None)]);
    }
}
