//! What RocksDB may hold in memory, for the whole process.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use millrace_core::{Error, Result};
use rocksdb::Cache;

use crate::shared::SharedEntries;

/// The setting in bytes.
pub(crate) const MEMORY_SIZE: &str = "state.backend.rocksdb.memory.size";
/// The least that it can be.
pub const LEAST_MEMORY_SIZE: u64 = 8 << 20;

/// What each database has for its hot entries, however many there are: with less, each few writes would be a file. The least
/// setting has room for 16 of that, the default for 512.
const LEAST_SHARE: usize = 256 << 10;

/// The memory that all databases of the process share: half for hot entries, half for RocksDB's one cache of blocks, their
/// indexes and filters among them.
pub(crate) struct SharedMemory {
    /// Not strict: blocks that are being read may be more than it has room for, and go afterwards.
    pub(crate) cache: Cache,
    cache_size: usize,
    hot_size: usize,
    open: AtomicUsize,
    /// That there are too many databases was told.
    warned: AtomicBool,
    hot: Mutex<Vec<Weak<SharedEntries>>>,
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
        let cache_size = bytes - hot_size;
        Ok(Self {
            // Without a lock, and of itself as large as its blocks need.
            cache: Cache::new_hyper_clock_cache(cache_size, 0),
            cache_size,
            hot_size,
            open: AtomicUsize::new(0),
            warned: AtomicBool::new(false),
            hot: Mutex::default(),
        })
    }

    /// What all may take.
    pub(crate) fn size(&self) -> u64 {
        (self.cache_size + self.hot_size) as u64
    }

    /// Counts these hot entries among what is used, as long as they are there.
    pub(crate) fn count(&self, entries: &Arc<SharedEntries>) {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        hot.retain(|entries| entries.strong_count() > 0);
        hot.push(Arc::downgrade(entries));
    }

    /// What RocksDB's one cache and the hot entries hold, without copies on their way to a database.
    pub(crate) fn used(&self) -> u64 {
        (self.cache.get_usage() + self.hot_bytes()) as u64
    }

    fn hot_bytes(&self) -> usize {
        let hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hot.iter().filter_map(Weak::upgrade).map(|entries| entries.lock_after_task().size()).sum()
    }

    /// One database more shares the memory.
    pub(crate) fn join(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(told) = self.too_many(open)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{told}");
        }
    }

    /// What is to be told where so many databases take more than the setting.
    fn too_many(&self, open: usize) -> Option<String> {
        let need = open * LEAST_SHARE;
        (need > self.hot_size).then(|| {
            format!(
                "{MEMORY_SIZE} is too small for {open} databases in this taskmanager, one for each subtask with state: they may \
                 take {} bytes more. Set it to {} bytes at least",
                need - self.hot_size,
                2 * need
            )
        })
    }

    /// One database less does.
    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// How much one database's hot entries may take: three quarters of its share. In the fourth there is room for copies of
    /// what is on its way to the database.
    pub(crate) fn hot_share(&self) -> usize {
        self.share() / 4 * 3
    }

    /// How much of them may be unwritten before it goes to the database.
    pub(crate) fn unwritten_share(&self) -> usize {
        self.share() / 4
    }

    /// How much of the cache one database's filters may take as whole blocks: a quarter of its share.
    pub(crate) fn filter_share(&self) -> usize {
        self.cache_size / 4 / self.databases()
    }

    fn share(&self) -> usize {
        (self.hot_size / self.databases()).max(LEAST_SHARE)
    }

    fn databases(&self) -> usize {
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
        assert_eq!((memory.hot_share(), memory.unwritten_share()), (45 << 20, 15 << 20));
        memory.join();
        memory.join();
        assert_eq!((memory.hot_share(), memory.unwritten_share()), (15 << 20, 5 << 20));
        memory.leave();
        assert_eq!(memory.hot_share(), (120 << 20) / 16 * 3);
    }

    #[test]
    fn any_number_of_databases_stays_within_the_setting_or_is_told() {
        let memory = SharedMemory::new(128 << 20).unwrap();
        for open in 1..=300 {
            memory.join();
            let all = open * (memory.hot_share() + memory.unwritten_share());
            let told = memory.too_many(open);
            assert_eq!(told.is_none(), all <= 64 << 20, "{open} databases take {all} bytes");
            assert_eq!(told.is_none(), open <= 256, "{told:?}");
        }
        let told = memory.too_many(300).unwrap();
        let (more, enough) = ((300 * LEAST_SHARE - (64 << 20)).to_string(), 600 * LEAST_SHARE);
        assert!(told.contains(MEMORY_SIZE) && told.contains("300") && told.contains(&more), "{told}");
        assert!(told.contains(&enough.to_string()), "{told}");
        assert_eq!(SharedMemory::new(enough as u64).unwrap().too_many(300), None, "what it says is enough");
    }

    #[test]
    fn too_little_memory_is_refused_by_its_setting() {
        let error = SharedMemory::new(1000).err().unwrap();
        assert!(error.message.contains(MEMORY_SIZE) && error.message.contains("1000") && !error.retryable, "{error}");
    }
}
