//! Reading the entries of files that nobody writes to.

use std::path::{Path, PathBuf};

use millrace_core::Result;
use millrace_state::backend::{BytesSnapshot, LocalFiles, StateKey, VisitStored};
use rocksdb::{DB, ReadOptions};

use crate::{
    database::{open_fetched, open_linked},
    encoding::{decode_key, decode_value, key_group_end, key_group_start},
    error::rocksdb_error,
    memory::SharedMemory,
};

/// Reads files in order.
pub(crate) struct EntryReader {
    db: DB,
    directory: PathBuf,
}

impl EntryReader {
    pub(crate) fn open(directory: &Path, memory: &SharedMemory) -> Result<Self> {
        Ok(Self { db: open_linked(directory, memory)?, directory: directory.to_path_buf() })
    }

    /// Hands the entries of one state and key group to `visit`.
    pub(crate) fn scan(&self, state: u16, key_group: u16, visit: VisitStored<'_>) -> Result<()> {
        let (start, end) = (key_group_start(state, key_group), key_group_end(state, key_group));
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        options.set_iterate_upper_bound(end);
        let mut entries = self.db.raw_iterator_opt(options);
        let mut key = Vec::new();
        entries.seek(start);
        while let Some((stored_key, stored)) = entries.item() {
            let sub_key = decode_key(stored_key, &mut key)?;
            let (value, expiry) = decode_value(stored)?;
            visit(StateKey { state, key_group, key: &key, sub_key }, value, expiry)?;
            entries.next();
        }
        let read = entries.status();
        read.map_err(|error| rocksdb_error("reading the files of local state", &self.directory, &error))
    }
}

/// Files that were fetched from a checkpoint. They go with it.
pub(crate) struct FetchedFiles {
    /// Closed before the files go.
    reader: EntryReader,
    _files: LocalFiles,
}

impl FetchedFiles {
    pub(crate) fn open(files: LocalFiles, memory: &SharedMemory) -> Result<Self> {
        let reader = EntryReader { db: open_fetched(&files, memory)?, directory: files.directory().to_path_buf() };
        Ok(Self { reader, _files: files })
    }
}

impl BytesSnapshot for FetchedFiles {
    fn scan(&mut self, state: u16, key_group: u16, visit: VisitStored<'_>) -> Result<()> {
        self.reader.scan(state, key_group, visit)
    }
}
