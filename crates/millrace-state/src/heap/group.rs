//! The table of one key group: open addressing, linear probing, removal by shifting back.

use triomphe::Arc;

use super::{
    page::{PAGE_SLOTS, Page, Slots},
    prefetch::prefetch,
    slot::Slot,
};

const PAGE_BITS: u32 = PAGE_SLOTS.trailing_zeros();
/// Slots of the smallest table that is not empty.
const SMALLEST: usize = 8;

/// The entries of one key group. Its capacity is a power of two, or zero while there was never an entry.
pub(super) struct Group<V> {
    pages: Vec<Page<V>>,
    /// Capacity less one; zero without pages.
    mask: usize,
    len: usize,
}

impl<V> Default for Group<V> {
    fn default() -> Self {
        Self { pages: Vec::new(), mask: 0, len: 0 }
    }
}

impl<V> Group<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn capacity(&self) -> usize {
        if self.pages.is_empty() { 0 } else { self.mask + 1 }
    }

    #[inline]
    fn slot(&self, at: usize) -> &Slot<V> {
        &self.pages[at >> PAGE_BITS].slots()[at & (PAGE_SLOTS - 1)]
    }

    #[inline]
    pub(super) fn prefetch(&self, hash: u32) {
        let at = hash as usize & self.mask;
        if let Some(slot) = self.pages.get(at >> PAGE_BITS).and_then(|page| page.slots().get(at & (PAGE_SLOTS - 1))) {
            prefetch(std::ptr::from_ref(slot).cast());
        }
    }

    /// Where the key is, or the free place where it would go. `None` without pages.
    #[inline]
    fn find(&self, hash: u32, key: &[u8]) -> Option<Result<usize, usize>> {
        let mut at = hash as usize & self.mask;
        loop {
            let slots = self.pages.get(at >> PAGE_BITS)?.slots();
            for slot in &slots[at & (PAGE_SLOTS - 1)..] {
                if slot.holds(hash, key) {
                    return Some(Ok(at));
                }
                if slot.is_empty() {
                    return Some(Err(at));
                }
                at += 1;
            }
            at &= self.mask;
        }
    }

    #[inline]
    pub(super) fn get(&self, hash: u32, key: &[u8]) -> Option<&V> {
        let at = self.find(hash, key)?.ok()?;
        self.slot(at).entry().map(|(_, value)| value)
    }

    /// The pages as they are now, for a snapshot.
    pub(super) fn freeze(&mut self) -> FrozenGroup<V> {
        const AHEAD: usize = 16;
        let mut pages = Vec::with_capacity(self.pages.len());
        for at in 0..self.pages.len() {
            if let Some(later) = self.pages.get(at + AHEAD) {
                later.prefetch_count();
            }
            pages.extend(self.pages[at].share());
        }
        FrozenGroup { pages, len: self.len }
    }
}

impl<V: Clone> Group<V> {
    #[inline]
    fn slot_mut(&mut self, at: usize) -> &mut Slot<V> {
        &mut self.pages[at >> PAGE_BITS].slots_mut()[at & (PAGE_SLOTS - 1)]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, hash: u32, key: &[u8]) -> Option<&mut V> {
        let at = self.find(hash, key)?.ok()?;
        self.slot_mut(at).value_mut()
    }

    #[inline]
    pub(super) fn get_or_insert_with(&mut self, hash: u32, key: &[u8], make: impl FnOnce() -> V) -> &mut V {
        let at = match self.find(hash, key) {
            Some(Ok(at)) => at,
            free => self.insert_new(hash, key, free.and_then(Result::err), make()),
        };
        self.slot_mut(at).value_mut().expect("a slot that was found or filled")
    }

    /// Fills the free place (or another, when the table grows first) and returns where.
    #[cold]
    fn insert_new(&mut self, hash: u32, key: &[u8], free: Option<usize>, value: V) -> usize {
        let fits = (self.len + 1) * 4 <= self.capacity() * 3;
        let at = match free {
            Some(at) if fits => at,
            _ => {
                self.resize((self.capacity() * 2).max(SMALLEST));
                self.free_place(hash)
            }
        };
        *self.slot_mut(at) = Slot::new(hash, key, value);
        self.len += 1;
        at
    }

    /// Makes room for so many entries more.
    pub(super) fn reserve(&mut self, more: usize) {
        let needed = ((self.len + more) * 4).div_ceil(3);
        if more > 0 && needed > self.capacity() {
            self.resize(needed.next_power_of_two().max(SMALLEST));
        }
    }

    fn free_place(&self, hash: u32) -> usize {
        let mut at = hash as usize & self.mask;
        while !self.slot(at).is_empty() {
            at = (at + 1) & self.mask;
        }
        at
    }

    pub(super) fn remove(&mut self, hash: u32, key: &[u8]) -> Option<V> {
        let at = self.find(hash, key)?.ok()?;
        self.remove_at(at)
    }

    fn remove_at(&mut self, at: usize) -> Option<V> {
        let removed = std::mem::replace(self.slot_mut(at), Slot::Empty);
        self.len -= 1;
        self.close_gap(at);
        if self.capacity() > SMALLEST && self.len * 8 < self.capacity() {
            self.resize(self.capacity() / 2);
        }
        removed.into_value()
    }

    /// Shrinks the entry of a slot where it is stale. Tells whether it was removed: then another may be in its place.
    pub(super) fn sweep_slot(
        &mut self,
        at: usize,
        stale: &impl Fn(&V) -> bool,
        shrink: &impl Fn(&mut V) -> bool,
    ) -> bool {
        let is_stale = self.slot(at).entry().is_some_and(|(_, value)| stale(value));
        let is_empty = is_stale && self.slot_mut(at).value_mut().is_some_and(shrink);
        if is_empty {
            self.remove_at(at);
        }
        is_empty
    }

    /// Moves entries back whose probing would end at the gap.
    fn close_gap(&mut self, mut gap: usize) {
        let mut at = (gap + 1) & self.mask;
        while let Some(hash) = self.slot(at).hash() {
            let home = hash as usize & self.mask;
            let distance = |from: usize| at.wrapping_sub(from) & self.mask;
            if distance(home) >= distance(gap) {
                let moved = std::mem::replace(self.slot_mut(at), Slot::Empty);
                *self.slot_mut(gap) = moved;
                gap = at;
            }
            at = (at + 1) & self.mask;
        }
    }

    fn resize(&mut self, capacity: usize) {
        let page = capacity.min(PAGE_SLOTS);
        let pages = (0..capacity / page).map(|_| Page::empty(page)).collect();
        let old = std::mem::replace(&mut self.pages, pages);
        self.mask = capacity - 1;
        for page in old {
            page.drain(|slot| {
                if let Some(hash) = slot.hash() {
                    let at = self.free_place(hash);
                    *self.slot_mut(at) = slot;
                }
            });
        }
    }
}

/// A key group as it was when a snapshot began.
pub(crate) struct FrozenGroup<V> {
    pages: Vec<Arc<Slots<V>>>,
    len: usize,
}

impl<V> FrozenGroup<V> {
    /// The entries in the order of their keys.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (&[u8], &V)> {
        let mut entries = Vec::with_capacity(self.len);
        let filled = self.pages.iter().flat_map(|page| page.slice.iter()).filter_map(Slot::entry);
        entries.extend(filled.map(|(key, value)| (prefix(key), key, value)));
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        entries.into_iter().map(|(_, key, value)| (key, value))
    }
}

/// A key's first 16 bytes as a number in the same order: most comparisons need not look at the key, which is far away.
fn prefix(key: &[u8]) -> u128 {
    let mut first = [0; 16];
    let length = key.len().min(first.len());
    first[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(first)
}
