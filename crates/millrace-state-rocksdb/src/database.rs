//! A database with its directory.

use std::{
    ffi::CStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use millrace_core::{Result, clock::Clock, key::KeyGroupRange};
use millrace_state::{KeyedBackendContext, backend::LocalFiles};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, ColumnFamilyDescriptor, CompactionDecision, DB, DBCompressionType,
    DEFAULT_COLUMN_FAMILY_NAME, IngestExternalFileOptions, LogLevel, Options, SliceTransform, SstFileWriter,
    WriteBatch, WriteOptions,
    checkpoint::Checkpoint,
    compaction_filter::CompactionFilter,
    compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory},
    properties::{BACKGROUND_ERRORS, ESTIMATE_NUM_KEYS, PropName, TOTAL_SST_FILES_SIZE, num_files_at_level},
};

use crate::{
    backend::Process,
    encoding,
    error::{local_error, rocksdb_error},
    local_dir::LocalDirectory,
    memory::SharedMemory,
    run::Run,
    trail::{Trail, files_in, take_runs},
};

/// Files of table readers that a database keeps open; their blocks are in the cache.
const OPEN_FILES: i32 = 512;
/// The size of a file, which is what an incremental checkpoint writes or does not write.
const FILE_BYTES: u64 = 32 << 20;
/// So many files are compacted at once. Each time, the next level is written anew: with fewer that costs more than reads gain.
const COMPACTED_AT_ONCE: i32 = 16;
/// So many may wait for compaction.
const MOST_UNCOMPACTED: u64 = 32;
const COMPACTION_POLL: Duration = Duration::from_millis(5);
const WRITE_BUFFER: usize = 1 << 20;
const BLOCK_BYTES: usize = 8 << 10;
const BLOOM_BITS: f64 = 10.0;

/// An open database. Its directory, with everything below, goes with it.
pub(crate) struct Database {
    /// `None` only while it is dropped: RocksDB must be closed before its files go.
    db: Option<DB>,
    files: LocalFiles,
    /// Where snapshots are incremental.
    trail: Option<Trail>,
    memory: Arc<SharedMemory>,
    /// New files have their filters and indexes in pieces.
    in_pieces: AtomicBool,
    /// Locked as long as anybody works in it.
    _process: Arc<LocalDirectory>,
}

impl Database {
    /// Opens a database: an empty one, or the one whose files are there.
    pub(crate) fn open(files: LocalFiles, process: Process, dead: Dead, incremental: bool) -> Result<Self> {
        let Process { memory, directory } = process;
        let runs = take_runs(files.directory(), files.root())?;
        let is_new = runs.is_empty() && files_in(files.directory())?.is_empty();
        let trail = incremental.then(|| Trail::new(files.root(), memory.size() / 8)).transpose()?;
        if let Some(trail) = trail.as_ref().filter(|_| !is_new) {
            trail.start_from(files.directory(), &runs)?;
        }
        memory.join();
        let mut database =
            Self { db: None, files, trail, memory, in_pieces: AtomicBool::new(false), _process: directory };
        let path = database.files.directory();
        let opened = options(&database.memory, false, Some(dead)).and_then(|mut options| {
            options.create_if_missing(is_new);
            // Named, since reading several entries at once asks for it.
            let states = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.clone());
            DB::open_cf_descriptors(&options, path, [states])
        });
        database.db = Some(opened.map_err(|error| rocksdb_error("opening local state", path, &error))?);
        ingest(database.db(), &runs).map_err(|error| database.error("opening local state", &error))?;
        database.divide_filters()?;
        Ok(database)
    }

    /// Has new files with their filters and indexes in pieces, once those of all entries would take too much of the cache:
    /// then only the pieces that are looked into are read. While all have room, a file's only piece is found sooner.
    fn divide_filters(&self) -> Result<()> {
        let whole = || self.number(ESTIMATE_NUM_KEYS) as f64 * BLOOM_BITS / 8.0;
        if self.in_pieces.load(Ordering::Relaxed) || whole() <= self.memory.filter_share() as f64 {
            return Ok(());
        }
        let pieces = "{index_type=kTwoLevelIndexSearch;partition_filters=true}";
        let set = self.db().set_options(&[("block_based_table_factory", pieces)]);
        set.map_err(|error| self.error("setting options of local state", &error))?;
        self.in_pieces.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn number(&self, property: &PropName) -> u64 {
        self.db().property_int_value(property).ok().flatten().unwrap_or(0)
    }

    pub(crate) fn db(&self) -> &DB {
        self.db.as_ref().expect("a database is open until it is dropped")
    }

    /// The bytes of its files.
    pub(crate) fn size(&self) -> u64 {
        self.number(TOTAL_SST_FILES_SIZE)
    }

    /// The directory that belongs to it.
    pub(crate) fn directory(&self) -> &Path {
        self.files.root()
    }

    pub(crate) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Takes a sorted run as a file of its own, without a detour through write buffers.
    pub(crate) fn ingest(&self, run: &Run) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        self.await_compaction();
        self.divide_filters()?;
        // One at a time: each waits for the one before.
        let path = self.directory().join("run.sst");
        self.remove_run(&path)?;
        let taken = self.write(run, &path).and_then(|()| self.take(&path));
        if taken.is_err() {
            // It may be what the disk is full of.
            let _ = self.remove_run(&path);
        }
        taken
    }

    /// Writes a run as a sorted file.
    fn write(&self, run: &Run, path: &Path) -> Result<()> {
        let write = || {
            let options = options(&self.memory, self.in_pieces.load(Ordering::Relaxed), None)?;
            let mut writer = SstFileWriter::create(&options);
            writer.open(path)?;
            for (key, value) in run.iter() {
                match value {
                    Some(value) => writer.put(key, value)?,
                    None => writer.delete(key)?,
                }
            }
            writer.finish()
        };
        write().map_err(|error| self.error("writing local state", &error))
    }

    /// Gives the database a sorted file, which snapshots then consist of too.
    fn take(&self, path: &PathBuf) -> Result<()> {
        let kept = self.trail.as_ref().map_or(Ok(None), |trail| trail.keep(path))?;
        ingest(self.db(), slice::from_ref(path)).map_err(|error| self.error("writing local state", &error))?;
        if let (Some(trail), Some(run)) = (&self.trail, kept) {
            trail.add(run, self.size());
        }
        Ok(())
    }

    /// What a failed run has left may be a file of the database by another name: it is not to be written over.
    fn remove_run(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(local_error("removing", path, &error)),
            _ => Ok(()),
        }
    }

    /// Ingestion does not wait for compaction by itself, and reads become slower with each file that waits for it.
    fn await_compaction(&self) {
        while self.number(&num_files_at_level(0)) > MOST_UNCOMPACTED && self.number(BACKGROUND_ERRORS) == 0 {
            thread::sleep(COMPACTION_POLL);
        }
    }

    /// Removes what lies between two keys.
    pub(crate) fn remove(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        let mut options = WriteOptions::default();
        // Nothing of it outlives the process: that is what checkpoints are for.
        options.disable_wal(true);
        self.db().write_opt(batch, &options).map_err(|error| self.error("writing local state", &error))?;
        if let Some(trail) = &self.trail {
            trail.forget();
        }
        Ok(())
    }

    /// What its incremental snapshots consist of.
    pub(crate) fn trail(&self) -> Option<&Trail> {
        self.trail.as_ref()
    }

    /// Makes a directory with all that is written now: hard links to its files, after a flush.
    pub(crate) fn link(&self, to: &Path) -> Result<()> {
        let checkpoint = Checkpoint::new(self.db()).and_then(|checkpoint| checkpoint.create_checkpoint(to));
        checkpoint.map_err(|error| self.error("linking the files of local state", &error))
    }

    pub(crate) fn error(&self, what: &str, error: &rocksdb::Error) -> millrace_core::Error {
        rocksdb_error(what, self.files.directory(), error)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            // What is compacted now is of no use to anybody.
            db.cancel_all_background_work(true);
        }
        self.memory.leave();
    }
}

/// Gives sorted files to a database, the newest last. They are gone then.
fn ingest(db: &DB, files: &[PathBuf]) -> Result<(), rocksdb::Error> {
    if files.is_empty() {
        return Ok(());
    }
    let mut ingestion = IngestExternalFileOptions::default();
    ingestion.set_move_files(true);
    db.ingest_external_file_opts(&ingestion, files.to_vec())
}

/// Opens the files of a snapshot, to read them; runs among them are taken to `root`.
pub(crate) fn open_fetched(files: &LocalFiles, memory: &SharedMemory) -> Result<DB> {
    let directory = files.directory();
    let runs = take_runs(directory, files.root())?;
    if runs.is_empty() {
        return open_linked(directory, memory);
    }
    let opened = options(memory, false, None).and_then(|mut options| {
        options.set_disable_auto_compactions(true);
        let db = DB::open(&options, directory)?;
        ingest(&db, &runs)?;
        Ok(db)
    });
    opened.map_err(|error| rocksdb_error("opening the files of local state", directory, &error))
}

/// Opens files that [`Database::link`] made, to read them.
pub(crate) fn open_linked(directory: &Path, memory: &SharedMemory) -> Result<DB> {
    let opened = options(memory, false, None).and_then(|options| DB::open_for_read_only(&options, directory, false));
    opened.map_err(|error| rocksdb_error("opening the files of local state", directory, &error))
}

fn options(memory: &SharedMemory, in_pieces: bool, dead: Option<Dead>) -> Result<Options, rocksdb::Error> {
    // There is no setter for this one. What is not checkpointed is lost on purpose when a task ends.
    let mut options = Options::default().get_options_from_string("avoid_flush_during_shutdown=true")?;
    options.set_max_open_files(OPEN_FILES);
    options.set_max_background_jobs(std::thread::available_parallelism().map_or(2, |cores| cores.get() as i32).max(2));
    // Only removals of whole states go through it.
    options.set_write_buffer_size(WRITE_BUFFER);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_prefix_extractor(SliceTransform::create(
        "millrace.key",
        encoding::prefix_of,
        Some(encoding::has_prefix),
    ));
    options.set_target_file_size_base(FILE_BYTES);
    options.set_level_zero_file_num_compaction_trigger(COMPACTED_AT_ONCE);
    if let Some(dead) = dead {
        options.set_compaction_filter_factory(dead);
    }
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);

    // Indexes and filters are in the cache, so that they too stay within the memory setting.
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_cache_index_and_filter_blocks(true);
    if in_pieces {
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
    }
    table.set_bloom_filter(BLOOM_BITS, false);
    table.set_optimize_filters_for_memory(true);
    table.set_format_version(6);
    options.set_block_based_table_factory(&table);
    Ok(options)
}

/// Which entries are not needed any more: the expired ones and, where the state goes on from the files of a subtask that
/// had more key groups, those of others. They go while files are compacted.
#[derive(Clone)]
pub(crate) struct Dead {
    clock: Clock,
    range: KeyGroupRange,
}

impl Dead {
    pub(crate) fn new(context: &KeyedBackendContext) -> Self {
        Self { clock: context.clock.clone(), range: context.range }
    }

    fn has(&self, key: &[u8], value: &[u8]) -> bool {
        let foreign = encoding::key_group_of(key).is_some_and(|key_group| !self.range.contains(key_group));
        foreign || matches!(encoding::decode_value(value), Ok((_, Some(expiry))) if expiry <= self.clock.now())
    }
}

impl CompactionFilterFactory for Dead {
    type Filter = Self;

    fn create(&mut self, _context: CompactionFilterContext) -> Self {
        self.clone()
    }

    fn name(&self) -> &CStr {
        c"millrace.dead"
    }
}

impl CompactionFilter for Dead {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        match self.has(key, value) {
            true => CompactionDecision::Remove,
            false => CompactionDecision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        c"millrace.dead"
    }
}
