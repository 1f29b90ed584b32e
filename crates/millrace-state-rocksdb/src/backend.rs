//! The factory.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use millrace_core::Result;
use millrace_state::{
    BytesBackend, KeyedBackend, KeyedBackendContext, SnapshotTarget, StateBackend,
    backend::{BytesSnapshot, FileBackend, LocalFiles, ManagedMemory},
    storage::LocalCopies,
};

use crate::{
    database::{Database, Dead},
    local_dir::LocalDirectory,
    memory::SharedMemory,
    reader::FetchedFiles,
    state::RocksDBBackend,
};

/// What RocksDB may hold in memory by default: 256 MiB.
pub const DEFAULT_MEMORY_SIZE: u64 = 256 << 20;

/// Holds state in RocksDB, on the taskmanager's disk, and writes its snapshots to the checkpoint directory: for state
/// that is larger than memory. Each access encodes or decodes.
pub struct RocksDBStateBackend {
    checkpoint_dir: Option<String>,
    memory_size: u64,
    local_directory: Option<PathBuf>,
    incremental: bool,
    /// What all its databases share, from the first on.
    process: Mutex<Option<Process>>,
}

/// What all databases of a process share.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) memory: Arc<SharedMemory>,
    pub(crate) directory: Arc<LocalDirectory>,
}

impl RocksDBStateBackend {
    /// Checkpoints go to this directory: `file:///…`, `s3://bucket/…` or, with the feature `hdfs`,
    /// `hdfs://namenode:port/…`.
    pub fn new(checkpoint_dir: impl Into<String>) -> Self {
        Self { checkpoint_dir: Some(checkpoint_dir.into()), ..Self::configured() }
    }

    /// Checkpoints go to the directory that the configuration names (`state.checkpoints.dir`).
    pub fn configured() -> Self {
        Self {
            checkpoint_dir: None,
            memory_size: DEFAULT_MEMORY_SIZE,
            local_directory: None,
            incremental: false,
            process: Mutex::new(None),
        }
    }

    /// What RocksDB may hold in memory in the whole process, whatever the number of operators and subtasks, in bytes:
    /// its cache of blocks, indexes and filters, and the hot entries in front of it. Each subtask with keyed state needs
    /// 512 KiB of it.
    #[must_use]
    pub fn with_memory_size(mut self, bytes: u64) -> Self {
        self.memory_size = bytes;
        self
    }

    /// Where RocksDB works. No two taskmanagers can share it. Without it each taskmanager takes a directory among the
    /// system's temporary files.
    #[must_use]
    pub fn with_local_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.local_directory = Some(directory.into());
        self
    }

    /// Whether a checkpoint writes only the files that the last one has not, instead of all entries.
    #[must_use]
    pub fn with_incremental_checkpoints(mut self, incremental: bool) -> Self {
        self.incremental = incremental;
        self
    }

    /// Whether checkpoints are incremental.
    pub fn incremental_checkpoints(&self) -> bool {
        self.incremental
    }

    /// The checkpoint directory that the program names.
    pub fn checkpoint_dir(&self) -> Option<&str> {
        self.checkpoint_dir.as_deref()
    }

    /// The memory, in bytes.
    pub fn memory_size(&self) -> u64 {
        self.memory_size
    }

    /// The local directory that the program names.
    pub fn local_directory(&self) -> Option<&Path> {
        self.local_directory.as_deref()
    }

    pub(crate) fn process(&self) -> Result<Process> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = &*process {
            return Ok(process.clone());
        }
        let opened = Process {
            memory: Arc::new(SharedMemory::new(self.memory_size)?),
            directory: Arc::new(LocalDirectory::open(self.local_directory.as_deref())?),
        };
        Ok(process.insert(opened).clone())
    }
}

impl StateBackend for RocksDBStateBackend {
    fn name(&self) -> &str {
        "rocksdb"
    }

    fn snapshot_target(&self) -> SnapshotTarget {
        SnapshotTarget::Files
    }

    fn open(&self, context: &KeyedBackendContext) -> Result<KeyedBackend> {
        let files = self.directory(context)?;
        Ok(KeyedBackend::Bytes(self.adopt(context, files)?))
    }

    fn managed_memory(&self) -> Option<ManagedMemory> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let used = process.as_ref().map_or(0, |process| process.memory.used());
        Some(ManagedMemory { total: self.memory_size, used })
    }

    fn files(&self) -> Option<&dyn FileBackend> {
        Some(self)
    }
}

impl FileBackend for RocksDBStateBackend {
    fn directory(&self, context: &KeyedBackendContext) -> Result<LocalFiles> {
        self.process()?.directory.attempt(&context.uid.0, context.subtask)
    }

    fn adopt(&self, context: &KeyedBackendContext, files: LocalFiles) -> Result<Box<dyn BytesBackend>> {
        let database = Database::open(files, self.process()?, Dead::new(context), self.incremental)?;
        Ok(Box::new(RocksDBBackend::new(database)))
    }

    fn copies(&self) -> Result<Option<Arc<LocalCopies>>> {
        Ok(Some(Arc::clone(self.process()?.directory.copies())))
    }

    fn read(&self, _context: &KeyedBackendContext, files: LocalFiles) -> Result<Box<dyn BytesSnapshot>> {
        Ok(Box::new(FetchedFiles::open(files, &self.process()?.memory)?))
    }
}
