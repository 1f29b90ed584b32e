//! Files that several checkpoints of a job refer to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path as FsPath,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, TryStreamExt};
use millrace_core::{
    Error, Result,
    ids::{CheckpointId, JobId},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CheckpointStorage, LocalCopies, SHARED};
use crate::{SharedFile, StateFile, backend::BackendFile};

/// So many files are fetched, or written, at once.
const FILES_IN_FLIGHT: usize = 3;
const READ_BYTES: usize = 1 << 20;

impl CheckpointStorage {
    /// Writes the files of a snapshot into the job's directory of shared files, but for those that a completed
    /// checkpoint has left there. In the order of `files`.
    pub async fn write_shared(
        &self,
        job: JobId,
        checkpoint: CheckpointId,
        files: &[BackendFile],
        uploaded: &UploadedFiles,
    ) -> Result<Vec<SharedFile>> {
        let write = |file: &BackendFile| {
            let (file, known) = (file.clone(), uploaded.find(file));
            async move {
                let written = match known {
                    Some(written) => written,
                    None => self.write_shared_file(job, checkpoint, &file).await?,
                };
                if let Some(copies) = uploaded.copies.as_deref().filter(|_| file.immutable) {
                    copies.keep(&written, &file.path);
                }
                Ok::<_, Error>(SharedFile { local_name: file.name, file: written })
            }
        };
        let written: Vec<_> =
            futures::stream::iter(files.iter().map(write)).buffered(FILES_IN_FLIGHT).try_collect().await?;
        uploaded.add(checkpoint, files, &written);
        Ok(written)
    }

    async fn write_shared_file(&self, job: JobId, checkpoint: CheckpointId, file: &BackendFile) -> Result<StateFile> {
        let failed = |error| Error::external(format!("reading local state file {}: {error}", file.path.display()));
        let mut writer = self.writer(job, SHARED, &shared_name(checkpoint, &file.name))?;
        let mut source = tokio::fs::File::open(&file.path).await.map_err(failed)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match source.read(&mut buffer).await.map_err(failed)? {
                0 => return writer.finish_file().await,
                read => writer.write(&buffer[..read]).await?,
            }
        }
    }

    /// Fetches files into a directory, under the names that their backend knows; links those that have a local copy. What
    /// is missing, torn or altered is refused by name. Returns how many bytes were in local copies.
    pub async fn fetch_shared(
        &self,
        files: &[SharedFile],
        directory: &FsPath,
        copies: Option<&Arc<LocalCopies>>,
    ) -> Result<u64> {
        let fetch = |shared: &SharedFile| {
            let (file, to) = (shared.file.clone(), directory.join(&shared.local_name));
            async move {
                if let Some(copies) = copies.cloned() {
                    let (of, place) = (file.clone(), to.clone());
                    // It is read, to see whether it is whole.
                    if let Ok(true) = tokio::task::spawn_blocking(move || copies.link(&of, &place)).await {
                        return Ok(file.size);
                    }
                }
                let data = file.handle();
                let failed = |error| Error::external(format!("writing local state file {}: {error}", to.display()));
                let mut reader = self.state_reader(&data)?;
                let mut next = reader.next().await?;
                let mut target = tokio::fs::File::create_new(&to).await.map_err(failed)?;
                while let Some(piece) = next {
                    target.write_all(&piece).await.map_err(failed)?;
                    next = reader.next().await?;
                }
                target.flush().await.map_err(failed)?;
                Ok(0)
            }
        };
        let fetched = futures::stream::iter(files.iter().map(fetch)).buffer_unordered(FILES_IN_FLIGHT);
        fetched.try_fold(0, async |sum, local| Ok(sum + local)).await
    }

    /// Whether a file is one of the job's own shared files in this store.
    pub fn is_shared_by(&self, job: JobId, file: &SharedFile) -> bool {
        file.file.directory == self.job_uri(job, SHARED)
    }
}

/// A name that no other file ever has. It begins with the checkpoint that writes the file.
fn shared_name(checkpoint: CheckpointId, local_name: &str) -> String {
    format!("{checkpoint}-{}-{local_name}", uuid::Uuid::new_v4().simple())
}

/// How many bytes of shared files this checkpoint has written itself.
pub fn written_by(checkpoint: CheckpointId, files: &[SharedFile]) -> u64 {
    let own = files.iter().filter(|shared| writer_of_shared(&shared.file.name) == Some(checkpoint));
    own.map(|shared| shared.file.size).sum()
}

/// The checkpoint that has written a shared file.
pub(super) fn writer_of_shared(name: &str) -> Option<CheckpointId> {
    name.split_once('-')?.0.parse().ok().map(CheckpointId)
}

/// Which files of one subtask's backend are in the store, so that a checkpoint need not write them again. Clones share
/// it.
///
/// Only what a completed checkpoint refers to counts: what an abandoned one has written is swept.
#[derive(Clone, Debug, Default)]
pub struct UploadedFiles {
    uploaded: Arc<Mutex<Uploaded>>,
    copies: Option<Arc<LocalCopies>>,
}

type ByLocalName = BTreeMap<String, StateFile>;

#[derive(Debug, Default)]
pub(super) struct Uploaded {
    completed: ByLocalName,
    /// What checkpoints refer to that have not completed yet.
    pending: BTreeMap<CheckpointId, ByLocalName>,
}

impl Uploaded {
    /// Adds the names of all files that are referred to.
    pub(super) fn names(&self, to: &mut BTreeSet<String>) {
        let files = self.pending.values().chain([&self.completed]).flat_map(BTreeMap::values);
        to.extend(files.map(|file| file.name.clone()));
    }
}

impl UploadedFiles {
    /// Nothing is in the store yet. Local copies are kept where there is a place for them.
    pub fn new(copies: Option<Arc<LocalCopies>>) -> Self {
        let new = Self { copies, ..Self::default() };
        if let Some(copies) = &new.copies {
            copies.serve(&new.uploaded);
        }
        new
    }

    /// The state goes on from the files of a completed checkpoint of this job.
    pub fn start_from<'a>(&self, files: impl IntoIterator<Item = &'a SharedFile>) {
        self.lock().completed =
            files.into_iter().map(|shared| (shared.local_name.clone(), shared.file.clone())).collect();
    }

    /// A checkpoint has completed, and all before it are over.
    pub fn checkpoint_completed(&self, checkpoint: CheckpointId) {
        let mut uploaded = self.lock();
        let later = uploaded.pending.split_off(&CheckpointId(checkpoint.0 + 1));
        let past = std::mem::replace(&mut uploaded.pending, later);
        if let Some((_, files)) = past.into_iter().find(|(id, _)| *id == checkpoint) {
            uploaded.completed = files;
            drop(uploaded);
            if let Some(copies) = &self.copies {
                copies.prune();
            }
        }
    }

    /// Whether a completed checkpoint has this file.
    pub fn has(&self, file: &BackendFile) -> bool {
        self.find(file).is_some()
    }

    /// Where a file is that does not change and that a completed checkpoint has.
    pub(super) fn find(&self, file: &BackendFile) -> Option<StateFile> {
        let uploaded = self.lock();
        // Of another size it would be another file, whatever its name says.
        uploaded.completed.get(&file.name).filter(|known| file.immutable && known.size == file.size).cloned()
    }

    pub(super) fn add(&self, checkpoint: CheckpointId, files: &[BackendFile], written: &[SharedFile]) {
        let immutable = files.iter().zip(written).filter(|(file, _)| file.immutable);
        let refers_to = immutable.map(|(_, shared)| (shared.local_name.clone(), shared.file.clone())).collect();
        self.lock().pending.insert(checkpoint, refers_to);
    }

    fn lock(&self) -> MutexGuard<'_, Uploaded> {
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
