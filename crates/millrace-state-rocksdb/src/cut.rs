//! A cut through a database: its files as they were when a snapshot began.
//!
//! The task only marks the cut. Its files are linked, after a flush, by whoever comes first: the thread that writes the
//! snapshot, or the task itself when it has so much unwritten that it must write to the database. Until then the task's
//! writes stay among the hot entries.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use millrace_core::{Error, Result};
use millrace_state::backend::{BackendFile, BytesSnapshot, StateKey};

use crate::{database::Database, error::local_error, local_dir, reader::EntryReader};

/// A cut. Its directory goes with it.
pub(crate) struct Cut {
    database: Arc<Database>,
    directory: PathBuf,
    linked: Mutex<Option<Result<()>>>,
}

impl Cut {
    /// Marks a cut: nothing may be written to the database before it is linked.
    pub(crate) fn new(database: Arc<Database>, number: u64) -> Self {
        let directory = database.directory().join(format!("cut-{number}"));
        Self { database, directory, linked: Mutex::new(None) }
    }

    /// Links the files if nobody has; waits where somebody does.
    pub(crate) fn link(&self) -> Result<()> {
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.get_or_insert_with(|| self.database.link(&self.directory)).clone()
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Err(error) = local_dir::remove(&self.directory) {
            tracing::warn!("{} could not be removed: {error}", self.directory.display());
        }
    }
}

/// A snapshot over a cut.
pub(crate) struct CutSnapshot {
    /// Closed before the files go.
    reader: Option<EntryReader>,
    cut: Arc<Cut>,
    incremental: bool,
}

impl CutSnapshot {
    pub(crate) fn new(cut: Arc<Cut>, incremental: bool) -> Self {
        Self { reader: None, cut, incremental }
    }

    fn list(&self) -> Result<Vec<BackendFile>> {
        let directory = &self.cut.directory;
        let failed = |error| local_error("listing the files of a snapshot", directory, &error);
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().map_err(|name| {
                Error::internal(format!("RocksDB has a file {} in {}", name.display(), directory.display()))
            })?;
            // Options are ours to know.
            if !name.starts_with("OPTIONS") {
                let size = entry.metadata().map_err(failed)?.len();
                let immutable = name.ends_with(".sst");
                files.push(BackendFile { path: entry.path(), size, immutable, name });
            }
        }
        Ok(files)
    }
}

impl BytesSnapshot for CutSnapshot {
    fn scan(
        &mut self,
        state: u16,
        key_group: u16,
        visit: &mut dyn FnMut(StateKey<'_>, &[u8], Option<u64>) -> Result<()>,
    ) -> Result<()> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                self.cut.link()?;
                none.insert(EntryReader::open(&self.cut.directory, self.cut.database.memory())?)
            }
        };
        reader.scan(state, key_group, visit)
    }

    fn files(&mut self) -> Result<Option<Vec<BackendFile>>> {
        if !self.incremental {
            return Ok(None);
        }
        self.cut.link()?;
        self.list().map(Some)
    }
}
