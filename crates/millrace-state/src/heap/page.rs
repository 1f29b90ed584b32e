//! Pages: the unit of copy on write.

use std::mem;

use triomphe::{Arc, HeaderSlice, UniqueArc};

use super::{prefetch::prefetch, slot::Slot};

/// Slots in a page.
pub(super) const PAGE_SLOTS: usize = 512;

/// Has no size and puts what follows it at the start of a cache line, so that a slot of half a line lies in one.
#[repr(align(64))]
pub(super) struct CacheLine;

pub(super) type Slots<V> = HeaderSlice<CacheLine, [Slot<V>]>;

/// A run of slots: this table's alone and written in place without any atomic operation, or shared with snapshots and
/// copied before it is written.
pub(super) enum Page<V> {
    Owned(UniqueArc<Slots<V>>),
    Shared(Arc<Slots<V>>),
    /// Only while it changes from one to the other.
    Moving,
}

impl<V> Page<V> {
    pub(super) fn empty(slots: usize) -> Self {
        Self::owned((0..slots).map(|_| Slot::Empty))
    }

    fn owned(slots: impl ExactSizeIterator<Item = Slot<V>>) -> Self {
        match Arc::try_unique(Arc::from_header_and_iter(CacheLine, slots)) {
            Ok(unique) => Self::Owned(unique),
            Err(shared) => Self::Shared(shared),
        }
    }

    #[inline]
    pub(super) fn slots(&self) -> &[Slot<V>] {
        match self {
            Self::Owned(slots) => &slots.slice,
            Self::Shared(slots) => &slots.slice,
            Self::Moving => &[],
        }
    }

    /// Brings the reference count's cache line near, which [`Self::share`] writes.
    pub(super) fn prefetch_count(&self) {
        if let Some(first) = self.slots().first() {
            prefetch(std::ptr::from_ref(first).cast::<u8>().wrapping_sub(64));
        }
    }

    /// The page as it is now, for a snapshot.
    pub(super) fn share(&mut self) -> Option<Arc<Slots<V>>> {
        let shared = match mem::replace(self, Self::Moving) {
            Self::Owned(slots) => slots.shareable(),
            Self::Shared(slots) => slots,
            Self::Moving => return None,
        };
        *self = Self::Shared(Arc::clone(&shared));
        Some(shared)
    }
}

impl<V: Clone> Page<V> {
    #[inline]
    pub(super) fn slots_mut(&mut self) -> &mut [Slot<V>] {
        if !matches!(self, Self::Owned(_)) {
            self.unshare();
        }
        match self {
            Self::Owned(slots) => &mut slots.slice,
            Self::Shared(_) | Self::Moving => &mut [],
        }
    }

    /// Takes a shared page back, where the snapshots have let go of it, or copies it.
    #[cold]
    fn unshare(&mut self) {
        match self {
            Self::Shared(shared) if !shared.is_unique() => *self = Self::owned(shared.slice.iter().cloned()),
            _ => match mem::replace(self, Self::Moving) {
                Self::Shared(shared) => {
                    *self = match Arc::try_unique(shared) {
                        Ok(unique) => Self::Owned(unique),
                        Err(shared) => Self::Shared(shared),
                    }
                }
                other => *self = other,
            },
        }
    }

    /// Hands every slot that is not empty to `take` and leaves nothing.
    pub(super) fn drain(self, mut take: impl FnMut(Slot<V>)) {
        let unique = match self {
            Self::Owned(unique) => Ok(unique),
            Self::Shared(shared) => Arc::try_unique(shared),
            Self::Moving => return,
        };
        match unique {
            Ok(mut unique) => {
                unique.slice.iter_mut().filter(|slot| !slot.is_empty()).for_each(|slot| {
                    take(mem::replace(slot, Slot::Empty));
                });
            }
            Err(shared) => shared.slice.iter().filter(|slot| !slot.is_empty()).cloned().for_each(take),
        }
    }
}
