//! A cut through a subtask's state: all that was written before it goes to the database.
//!
//! The task only marks the cut, by freezing what is unwritten. The rest is done by whoever comes first: the thread that
//! writes the snapshot, which links the database's files besides, or the task itself before the next cut.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use millrace_core::{Error, Result};
use millrace_state::backend::{BackendFile, BytesSnapshot, VisitStored};

use crate::{
    database::Database, error::local_error, hot::NotFrozen, local_dir, reader::EntryReader, run::Run,
    shared::SharedEntries,
};

/// So many entries are copied before the task may go on: about a tenth of a millisecond.
const SLICE: usize = 1024;

/// A cut. Its directory goes with it.
pub(crate) struct Cut {
    database: Arc<Database>,
    hot: Arc<SharedEntries>,
    /// The era of the hot entries that it freezes.
    era: u64,
    /// Where the database's files are linked to, for a snapshot.
    directory: Option<PathBuf>,
    /// `None` until it is done.
    done: Mutex<Option<Result<()>>>,
}

/// What a cut is for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The database's files are to be linked.
    Snapshot,
    /// Memory is to be emptied.
    Room,
}

impl Cut {
    /// Marks a cut. The one before must be finished or gone.
    pub(crate) fn new(database: &Arc<Database>, hot: &Arc<SharedEntries>, purpose: Purpose) -> Self {
        let era = hot.lock().freeze();
        let directory = match purpose {
            Purpose::Snapshot => Some(database.directory().join(format!("cut-{era}"))),
            Purpose::Room => None,
        };
        Self { database: Arc::clone(database), hot: Arc::clone(hot), era, directory, done: Mutex::default() }
    }

    #[cfg(test)]
    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// Writes what was frozen and links the files if nobody has; waits where somebody does.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.get_or_insert_with(|| {
            let written = self.copy().and_then(|run| self.database.ingest(&run));
            let linked = match &self.directory {
                Some(directory) => written.clone().and_then(|()| self.database.link(directory)),
                None => written.clone(),
            };
            self.release(written.is_ok());
            linked
        })
        .clone()
    }

    fn release(&self, written: bool) {
        let released = self.hot.lock_after_task().release(self.era, written);
        // It may be large, and the lock is free now.
        drop(released);
    }

    fn copy(&self) -> Result<Run> {
        loop {
            // Not within the match: the lock would be held while the run is sorted.
            let copied = self.hot.lock_after_task().copy_frozen(self.era, SLICE);
            match copied {
                Ok(None) => {}
                Ok(Some(mut run)) => {
                    run.sort();
                    return Ok(run);
                }
                Err(NotFrozen) => return Err(Error::internal("what was frozen for a cut is not frozen any more")),
            }
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Nobody wanted it: what it froze goes with the next one.
        if self.done.get_mut().is_ok_and(|done| done.is_none()) {
            self.release(false);
        }
        if let Some(Err(error)) = self.directory.as_deref().map(local_dir::remove) {
            tracing::warn!("the files of cut {} could not be removed: {error}", self.era);
        }
    }
}

/// Finishes a cut on a thread of its own.
pub(crate) fn finish_beside(cut: Arc<Cut>) -> Result<()> {
    let spawned = thread::Builder::new().name("rocksdb-spill".to_owned()).spawn(move || {
        // What fails is told to the task when it asks.
        let _ = cut.finish();
    });
    spawned.map(drop).map_err(|error| Error::external(format!("no thread to write local state: {error}")))
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

    /// Where the files are, once the cut is finished.
    fn directory(&self) -> Result<&Path> {
        self.cut.finish()?;
        self.cut.directory.as_deref().ok_or_else(|| Error::internal("a snapshot over a cut without files"))
    }

    fn list(&self) -> Result<Vec<BackendFile>> {
        let directory = self.directory()?;
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
    fn scan(&mut self, state: u16, key_group: u16, visit: VisitStored<'_>) -> Result<()> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => EntryReader::open(self.directory()?, self.cut.database.memory())?,
        };
        self.reader.insert(reader).scan(state, key_group, visit)
    }

    fn files(&mut self) -> Result<Option<Vec<BackendFile>>> {
        if !self.incremental {
            return Ok(None);
        }
        self.list().map(Some)
    }
}
