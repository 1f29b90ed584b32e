//! One place in a table.

use triomphe::Arc;

/// The longest key that lies in its slot. Chosen so that slot and eight-byte value are half a cache line.
pub(super) const INLINE_KEY: usize = 18;

/// One place in a table: free, or a key with the lower half of its hash, and its value.
#[derive(Clone)]
pub(super) enum Slot<V> {
    Empty,
    Inline { len: u8, key: [u8; INLINE_KEY], hash: u32, value: V },
    Long { hash: u32, key: Arc<[u8]>, value: V },
}

const _: () = assert!(size_of::<Slot<i64>>() == 32);

/// Whether two keys are equal. Most are 4 to 16 bytes, and two overlapping words decide without a call of `memcmp`.
#[inline]
fn short_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        8..=16 => a.first_chunk::<8>() == b.first_chunk() && a.last_chunk::<8>() == b.last_chunk(),
        4..=7 => a.first_chunk::<4>() == b.first_chunk() && a.last_chunk::<4>() == b.last_chunk(),
        _ => a == b,
    }
}

impl<V> Slot<V> {
    pub(super) fn new(hash: u32, key: &[u8], value: V) -> Self {
        match u8::try_from(key.len()) {
            Ok(len) if key.len() <= INLINE_KEY => {
                let mut inline = [0; INLINE_KEY];
                inline[..key.len()].copy_from_slice(key);
                Self::Inline { len, key: inline, hash, value }
            }
            _ => Self::Long { hash, key: Arc::from(key), value },
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    #[inline]
    pub(super) fn hash(&self) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::Inline { hash, .. } | Self::Long { hash, .. } => Some(*hash),
        }
    }

    #[inline]
    pub(super) fn holds(&self, wanted: u32, wanted_key: &[u8]) -> bool {
        match self {
            Self::Empty => false,
            Self::Inline { len, key, hash, .. } => {
                *hash == wanted && short_eq(&key[..usize::from(*len).min(INLINE_KEY)], wanted_key)
            }
            Self::Long { hash, key, .. } => *hash == wanted && **key == *wanted_key,
        }
    }

    /// Key and value, where it is not empty.
    #[inline]
    pub(super) fn entry(&self) -> Option<(&[u8], &V)> {
        match self {
            Self::Empty => None,
            Self::Inline { len, key, value, .. } => Some((&key[..usize::from(*len)], value)),
            Self::Long { key, value, .. } => Some((key, value)),
        }
    }

    #[inline]
    pub(super) fn value_mut(&mut self) -> Option<&mut V> {
        match self {
            Self::Empty => None,
            Self::Inline { value, .. } | Self::Long { value, .. } => Some(value),
        }
    }

    pub(super) fn into_value(self) -> Option<V> {
        match self {
            Self::Empty => None,
            Self::Inline { value, .. } | Self::Long { value, .. } => Some(value),
        }
    }
}
