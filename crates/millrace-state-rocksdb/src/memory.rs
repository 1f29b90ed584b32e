//! What RocksDB may hold in memory, for the whole process.

use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{Error, Result};
use rocksdb::Cache;

/// The setting in bytes.
pub(crate) const MEMORY_SIZE: &str = "state.backend.rocksdb.memory.size";
/// The least that it can be.
pub const LEAST_MEMORY_SIZE: u64 = 8 << 20;

/// Files of less than that would be too many.
const LEAST_UNWRITTEN: usize = 1 << 20;

/// The memory that all databases of the process share: half for hot entries, half for RocksDB's one cache of blocks, their
/// indexes and filters among them.
pub(crate) struct SharedMemory {
    pub(crate) cache: Cache,
    hot_size: usize,
    open: AtomicUsize,
}

impl SharedMemory {
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        if bytes < LEAST_MEMORY_SIZE {
            return Err(Error::invalid(format!(
                "{MEMORY_SIZE} is {bytes} bytes, and RocksDB needs {LEAST_MEMORY_SIZE} at least"
            )));
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let hot_size = bytes / 2;
        let cache = Cache::new_lru_cache(bytes - hot_size);
        Ok(Self { cache, hot_size, open: AtomicUsize::new(0) })
    }

    /// What RocksDB's one cache holds. The hot entries, a database's own, are not in it.
    pub(crate) fn used(&self) -> u64 {
        self.cache.get_usage() as u64
    }

    /// One database more shares the memory.
    pub(crate) fn join(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One database less does.
    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// How much one database's hot entries may take: three quarters of its share. In the fourth there is room for copies of
    /// what is on its way to the database.
    pub(crate) fn hot_share(&self) -> usize {
        (self.share() / 4 * 3).max(2 * LEAST_UNWRITTEN)
    }

    /// How much of them may be unwritten before it goes to the database.
    pub(crate) fn unwritten_share(&self) -> usize {
        (self.share() / 4).max(LEAST_UNWRITTEN)
    }

    fn share(&self) -> usize {
        self.hot_size / self.open.load(Ordering::Relaxed).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_share_what_there_is() {
        let memory = SharedMemory::new(120 << 20).unwrap();
        memory.join();
        assert_eq!((memory.hot_share(), memory.unwritten_share()), (45 << 20, 15 << 20));
        memory.join();
        memory.join();
        assert_eq!((memory.hot_share(), memory.unwritten_share()), (15 << 20, 5 << 20));
        memory.leave();
        assert_eq!(memory.hot_share(), (120 << 20) / 16 * 3);
    }

    #[test]
    fn too_little_memory_is_refused_by_its_setting() {
        let error = SharedMemory::new(1000).err().unwrap();
        assert!(error.message.contains(MEMORY_SIZE) && error.message.contains("1000") && !error.retryable, "{error}");
    }
}
