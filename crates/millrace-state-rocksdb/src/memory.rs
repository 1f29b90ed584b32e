//! What RocksDB may hold in memory, for the whole process.

use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{Error, Result};
use rocksdb::{Cache, WriteBufferManager};

/// The setting in bytes.
pub(crate) const MEMORY_SIZE: &str = "state.backend.rocksdb.memory.size";
/// The least that it can be.
pub const LEAST_MEMORY_SIZE: u64 = 8 << 20;

/// No database's write buffer is larger, or its flush would take long.
const MOST_WRITE_BUFFER: usize = 64 << 20;
const LEAST_WRITE_BUFFER: usize = 1 << 20;

/// The memory that all databases of the process share: a quarter for hot entries, the rest for RocksDB's one cache. The
/// write buffers are charged to that cache and may take a third of it, so that with those that are being flushed it holds
/// still; what they don't take holds blocks, their indexes and filters among them.
pub(crate) struct SharedMemory {
    pub(crate) cache: Cache,
    pub(crate) write_buffers: WriteBufferManager,
    write_buffers_size: usize,
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
        let hot_size = bytes / 4;
        let write_buffers_size = (bytes - hot_size) / 3;
        let cache = Cache::new_lru_cache(bytes - hot_size);
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(write_buffers_size, false, cache.clone());
        Ok(Self { cache, write_buffers, write_buffers_size, hot_size, open: AtomicUsize::new(0) })
    }

    /// What RocksDB's one cache holds, write buffers included. The hot entries, a database's own, are not in it.
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

    /// How much one database's hot entries may take.
    pub(crate) fn hot_share(&self) -> usize {
        self.hot_size / self.sharing()
    }

    /// The write buffer of a database that is opened now.
    pub(crate) fn write_buffer(&self) -> usize {
        (self.write_buffers_size / self.sharing()).clamp(LEAST_WRITE_BUFFER, MOST_WRITE_BUFFER)
    }

    fn sharing(&self) -> usize {
        self.open.load(Ordering::Relaxed).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_share_what_there_is() {
        let memory = SharedMemory::new(120 << 20).unwrap();
        memory.join();
        assert_eq!((memory.hot_share(), memory.write_buffer()), (30 << 20, 30 << 20));
        memory.join();
        memory.join();
        assert_eq!((memory.hot_share(), memory.write_buffer()), (10 << 20, 10 << 20));
        memory.leave();
        assert_eq!(memory.hot_share(), 15 << 20);
    }

    #[test]
    fn too_little_memory_is_refused_by_its_setting() {
        let error = SharedMemory::new(1000).err().unwrap();
        assert!(error.message.contains(MEMORY_SIZE) && error.message.contains("1000") && !error.retryable, "{error}");
    }
}
