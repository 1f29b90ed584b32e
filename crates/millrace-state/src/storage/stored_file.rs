//! Reading a file of the store in parts, several of which are under way at once.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use millrace_core::Result;
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectStore, ObjectStoreExt, path::Path};

use super::{CheckpointStorage, state_files::cannot_read};
use crate::log::entry::damaged;

/// The size of a part.
pub(super) const PART_BYTES: u64 = 4 << 20;
/// How many parts of a file are under way at once, at most.
pub(super) const PARTS_IN_FLIGHT: usize = 4;

/// A file in a store, of a size that is known.
#[derive(Clone)]
pub(super) struct StoredFile {
    pub(super) storage: CheckpointStorage,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    /// What messages call it.
    pub(super) shown: String,
    pub(super) size: u64,
}

impl StoredFile {
    /// How many parts it has: an empty file has one.
    pub(super) fn parts(&self) -> u64 {
        self.size.div_ceil(PART_BYTES).max(1)
    }

    fn range(&self, part: u64) -> Range<u64> {
        part * PART_BYTES..self.size.min((part + 1) * PART_BYTES)
    }

    /// Reads a part. A file of another size is refused; what it holds is not checked.
    pub(super) async fn part(self, part: u64) -> Result<Bytes> {
        let range = self.range(part);
        let wanted = (!range.is_empty()).then(|| GetRange::Bounded(range.clone()));
        let read = async {
            let found = self.store.get_opts(&self.path, GetOptions { range: wanted, ..GetOptions::default() }).await?;
            Ok((found.meta.size, found.bytes().await?))
        };
        let (size, bytes) = match self.storage.bounded(read).await {
            Ok(read) => read,
            Err(error) => return Err(self.cannot_read(&error).await),
        };
        match bytes.len() as u64 == range.end - range.start && size == self.size {
            true => Ok(bytes),
            false => Err(self.has_size(size)),
        }
    }

    /// All parts in their order.
    pub(super) fn stream(self) -> BoxStream<'static, Result<Bytes>> {
        let parts = (0..self.parts()).map(move |part| self.clone().part(part));
        stream::iter(parts).buffered(PARTS_IN_FLIGHT).boxed()
    }

    /// A range that a file does not have is an error of the store's own.
    async fn cannot_read(&self, error: &StoreError) -> millrace_core::Error {
        match error {
            StoreError::NotFound { .. } => {}
            _ => match self.storage.bounded(self.store.head(&self.path)).await {
                Ok(found) if found.size != self.size => return self.has_size(found.size),
                _ => {}
            },
        }
        cannot_read(&self.shown, error)
    }

    fn has_size(&self, size: u64) -> millrace_core::Error {
        damaged(format!("state file {} is damaged: it has {size} bytes instead of {}", self.shown, self.size))
    }
}
