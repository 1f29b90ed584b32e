//! Where a snapshot is read from.

use std::ops::Range;

use bytes::Bytes;
use millrace_core::Result;

/// Random access to a snapshot's bytes: in memory, or a reader of ranges over a store.
pub trait SnapshotBytes {
    /// The size in bytes.
    fn size(&self) -> u64;

    /// The bytes in this range, exactly. It is never asked for more than lies within [`Self::size`].
    fn read(&self, range: Range<u64>) -> Result<Bytes>;

    /// Says that this range is read next, in order: who has to fetch it may begin.
    fn expect(&self, _range: Range<u64>) {}
}

impl SnapshotBytes for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        match (usize::try_from(range.start), usize::try_from(range.end)) {
            (Ok(start), Ok(end)) if start <= end && end <= self.len() => Ok(self.slice(start..end)),
            _ => Err(super::damaged(format_args!("it has {} bytes, not {}", self.len(), range.end))),
        }
    }
}
