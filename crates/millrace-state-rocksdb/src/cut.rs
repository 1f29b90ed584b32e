//! A cut through a database: its files as they were when a snapshot began.
//!
//! The task only marks the cut, with what it has not written yet. This is written, and the files are linked after a
//! flush, by whoever comes first: the thread that writes the snapshot, or the task itself when it has so much unwritten
//! again that it must write to the database. Until then the task's writes stay among the hot entries.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use millrace_core::{Error, Result};
use millrace_state::backend::{BackendFile, BytesSnapshot, VisitStored};
use rocksdb::WriteBatch;

use crate::{database::Database, error::local_error, local_dir, reader::EntryReader};

/// A cut. Its directory goes with it.
pub(crate) struct Cut {
    database: Arc<Database>,
    directory: PathBuf,
    /// The one before, if that may still be needed: it must be linked first.
    previous: Weak<Cut>,
    link: Mutex<Link>,
}

enum Link {
    /// To be written first.
    Pending(WriteBatch),
    Done(Result<()>),
}

impl Cut {
    /// Marks a cut behind `unwritten`: nothing else may be written to the database before it is linked.
    pub(crate) fn new(database: Arc<Database>, number: u64, unwritten: WriteBatch, previous: Weak<Self>) -> Self {
        let directory = database.directory().join(format!("cut-{number}"));
        Self { database, directory, previous, link: Mutex::new(Link::Pending(unwritten)) }
    }

    /// Links the files if nobody has; waits where somebody does.
    pub(crate) fn link(&self) -> Result<()> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Link::Pending(unwritten) = &mut *link {
            let unwritten = std::mem::take(unwritten);
            if let Some(previous) = self.previous.upgrade() {
                // What it has to tell it tells its own snapshot; what it had to write is among ours.
                let _ = previous.link();
            }
            *link = Link::Done(self.database.write(unwritten).and_then(|()| self.database.link(&self.directory)));
        }
        match &*link {
            Link::Done(linked) => linked.clone(),
            Link::Pending(_) => Err(Error::internal("a cut is not linked")),
        }
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
    fn scan(&mut self, state: u16, key_group: u16, visit: VisitStored<'_>) -> Result<()> {
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
