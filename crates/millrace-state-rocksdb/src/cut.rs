//! A cut through a subtask's state: all that was written before it goes to the database.
//!
//! The task only marks the cut, by freezing what is unwritten, and goes on, whatever becomes of the cuts before. The rest is
//! done by whoever comes first: the thread that writes the snapshot, or the one that finishes a later cut.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use millrace_core::{Error, Result};
use millrace_state::backend::{BytesSnapshot, SnapshotFiles, VisitStored};

use crate::{
    database::Database,
    hot::NotFrozen,
    local_dir,
    reader::EntryReader,
    run::Run,
    shared::SharedEntries,
    trail::{self, Listed},
};

/// So many entries are copied before the task may go on: about a tenth of a millisecond.
const SLICE: usize = 1024;

/// A cut.
pub(crate) struct Cut {
    database: Arc<Database>,
    hot: Arc<SharedEntries>,
    /// The era of the hot entries that it freezes.
    era: u64,
    progress: Mutex<Progress>,
}

struct Progress {
    /// The cut before, which is finished before this one: the database has what was written in the order of the cuts.
    before: Option<Arc<Cut>>,
    /// The database's files are to be linked, or are.
    links: bool,
    /// `None` until it is finished.
    done: Option<Done>,
    /// What an incremental snapshot consists of.
    listed: Option<Listed>,
}

#[derive(Clone)]
struct Done {
    written: Result<()>,
    /// As `written` where nothing was to be linked.
    linked: Result<()>,
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
    /// Marks a cut after the one before, which may be unfinished.
    pub(crate) fn new(
        database: &Arc<Database>,
        hot: &Arc<SharedEntries>,
        purpose: Purpose,
        before: Option<Arc<Self>>,
    ) -> Self {
        let era = hot.lock().freeze();
        let progress = Progress { before, links: matches!(purpose, Purpose::Snapshot), done: None, listed: None };
        Self { database: Arc::clone(database), hot: Arc::clone(hot), era, progress: Mutex::new(progress) }
    }

    /// This cut, if anybody else wants it, or else the last one before it that somebody wants. What the others froze is
    /// unwritten again, and goes with the next cut.
    pub(crate) fn wanted(self: Arc<Self>) -> Option<Arc<Self>> {
        match Arc::try_unwrap(self) {
            Ok(cut) => cut.progress().before.take().and_then(Self::wanted),
            Err(shared) => Some(shared),
        }
    }

    #[cfg(test)]
    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the database's files are linked to.
    fn directory(&self) -> PathBuf {
        self.database.directory().join(format!("cut-{}", self.era))
    }

    /// Writes what was frozen and links the files if nobody has; waits where somebody does.
    pub(crate) fn finish(&self) -> Result<()> {
        self.finished().linked
    }

    fn finished(&self) -> Done {
        let mut progress = self.progress();
        let Progress { before, links, done, listed } = &mut *progress;
        done.get_or_insert_with(|| {
            // Where the one before fails, what it froze is missing in this one too.
            let written = before.take().map_or(Ok(()), |before| before.finished().written);
            let written = written.and_then(|()| self.copy()).and_then(|run| self.database.ingest(&run));
            let linked = written.clone().and_then(|()| {
                if *links {
                    *listed = self.link()?;
                }
                Ok(())
            });
            self.release(written.is_ok());
            Done { written, linked }
        })
        .clone()
    }

    /// Links the files, and lists them for an incremental snapshot: so these are listed in the order of their cuts, before the
    /// database takes another run.
    fn link(&self) -> Result<Option<Listed>> {
        let directory = self.directory();
        self.database.link(&directory)?;
        self.database.trail().map(|trail| trail.list(&trail::files_in(&directory)?)).transpose()
    }

    /// Removes the links: nobody needs them any more.
    fn unlink(&self) {
        let mut progress = self.progress();
        progress.links = false;
        progress.listed = None;
        if progress.done.is_some()
            && let Err(error) = local_dir::remove(&self.directory())
        {
            tracing::warn!("the files of cut {} could not be removed: {error}", self.era);
        }
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
        if self.progress().done.is_none() {
            self.release(false);
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

/// A snapshot over a cut, whose links go with it.
pub(crate) struct CutSnapshot {
    reader: Option<EntryReader>,
    cut: Arc<Cut>,
}

impl CutSnapshot {
    pub(crate) fn new(cut: Arc<Cut>) -> Self {
        Self { reader: None, cut }
    }

    /// Where the files are, once the cut is finished.
    fn directory(&self) -> Result<PathBuf> {
        self.cut.finish().map(|()| self.cut.directory())
    }
}

impl BytesSnapshot for CutSnapshot {
    fn scan(&mut self, state: u16, key_group: u16, visit: VisitStored<'_>) -> Result<()> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => EntryReader::open(&self.directory()?, self.cut.database.memory())?,
        };
        self.reader.insert(reader).scan(state, key_group, visit)
    }

    fn files(&mut self) -> Result<Option<SnapshotFiles>> {
        self.cut.finish()?;
        Ok(self.cut.progress().listed.as_ref().map(|listed| listed.files.clone()))
    }
}

impl Drop for CutSnapshot {
    fn drop(&mut self) {
        // It reads them.
        self.reader = None;
        self.cut.unlink();
    }
}
