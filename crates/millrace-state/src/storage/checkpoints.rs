//! Checkpoints in the store: metadata, what is there, and what may go.
//!
//! A crash between any two steps leaks at most files that nothing refers to, and [`CheckpointStorage::sweep`] removes
//! these later. So an entry leaves the log before its checkpoint's files are deleted, and the metadata goes before the
//! files that it names.

use std::collections::BTreeSet;

use millrace_core::{
    Error, Result,
    ids::{CheckpointId, JobId},
};
use object_store::path::Path;

use super::{
    CheckpointStorage, Created, SHARED, StorageOptions, StorageUri, UNFINISHED, checkpoint_directory, checkpoint_of,
    shared_files::writer_of_shared, store_error,
};
use crate::{
    log::{CheckpointRecord, LogView, entry::damaged, older_checkpoint},
    metadata::CheckpointMetadata,
};

/// The name of the metadata file in a checkpoint's directory.
pub(super) const METADATA: &str = "_metadata";

/// What became of a checkpoint's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataWrite {
    /// It is in the store. This is what the log must say about it.
    Written(CheckpointRecord),
    /// Another incarnation has used this checkpoint id: the checkpoint must take a higher one.
    Conflict,
}

impl CheckpointStorage {
    /// Writes a checkpoint's metadata if there is none. `commits` says whether a sink makes records visible when the
    /// checkpoint completes. May be repeated after an error.
    pub async fn write_metadata(&self, metadata: &CheckpointMetadata, commits: bool) -> Result<MetadataWrite> {
        let bytes = metadata.encode()?;
        let relative = format!("{}/{METADATA}", checkpoint_directory(metadata.checkpoint));
        let path = self.job_path(metadata.job, &relative);
        let record = CheckpointRecord {
            id: metadata.checkpoint,
            metadata: relative,
            metadata_size: bytes.len() as u64,
            metadata_crc32: crc32fast::hash(&bytes),
            created_at_ms: metadata.created_at_ms,
            commits,
        };
        if self.create(&path, bytes.clone().into()).await? == Created::New {
            return Ok(MetadataWrite::Written(record));
        }
        // It may be our own, whose answer was lost.
        match self.read(&path).await? {
            Some(found) if found == bytes => Ok(MetadataWrite::Written(record)),
            Some(_) => Ok(MetadataWrite::Conflict),
            None => Err(Error::external(format!(
                "{} was refused as existing and is not there: another write of it is under way",
                self.shown(&path)
            ))),
        }
    }

    /// Reads the metadata that the log speaks of. One that is missing, torn, altered or another's is refused by name.
    pub async fn read_metadata(&self, job: JobId, record: &CheckpointRecord) -> Result<CheckpointMetadata> {
        let path = self.job_path(job, &record.metadata);
        let name = self.shown(&path);
        let bytes = self.read(&path).await?.ok_or_else(|| damaged(format!("checkpoint {name} is missing")))?;
        if bytes.len() as u64 != record.metadata_size || crc32fast::hash(&bytes) != record.metadata_crc32 {
            return Err(damaged(format!(
                "checkpoint {name} is damaged: the log says {} bytes with checksum {:08x}, it has {} with {:08x}",
                record.metadata_size,
                record.metadata_crc32,
                bytes.len(),
                crc32fast::hash(&bytes)
            )));
        }
        let metadata = CheckpointMetadata::decode(&name, &bytes, &self.checkpoint_uri(job, record.id))?;
        if (metadata.job, metadata.checkpoint) != (job, record.id) {
            return Err(damaged(format!(
                "checkpoint {name} is foreign: it is checkpoint {} of job {}",
                metadata.checkpoint, metadata.job
            )));
        }
        Ok(metadata)
    }

    /// The checkpoint to start from: the newest in the log or, where that is damaged, an older one if that is
    /// [allowed](older_checkpoint); `None` if there is none yet. Those in `damaged` are known to be: a state file of
    /// theirs could not be read.
    pub async fn latest_checkpoint(
        &self,
        job: JobId,
        view: &LogView,
        damaged: &[CheckpointId],
        allow_older: bool,
    ) -> Result<Option<CheckpointMetadata>> {
        let Some(mut record) = view.newest_checkpoint() else {
            return Ok(None);
        };
        let mut damaged = damaged.to_vec();
        if damaged.contains(&record.id) {
            record = older_checkpoint(view, &damaged, allow_older)?;
        }
        loop {
            match self.read_metadata(job, record).await {
                Ok(metadata) => return Ok(Some(metadata)),
                // An unreachable store is never stepped over.
                Err(error) if error.retryable => return Err(error),
                Err(error) => {
                    damaged.push(record.id);
                    record = older_checkpoint(view, &damaged, allow_older).map_err(|why| why.context(&error))?;
                    tracing::warn!(%job, "{error}; going back to checkpoint {}", record.id);
                }
            }
        }
    }

    /// The checkpoints that have a directory, completed or not. New ids must exceed all of these.
    pub async fn list_checkpoints(&self, job: JobId) -> Result<BTreeSet<CheckpointId>> {
        let directories = self.directories(job).await?;
        Ok(directories.iter().filter_map(|path| checkpoint_of(path.filename()?)).collect())
    }

    /// Deletes everything of a checkpoint.
    ///
    /// Only for checkpoints older than the newest completed one that the log has ceased to name (a log's
    /// `released`), or of a job that has ended: a later incarnation may be using a higher id. What an abandoned
    /// checkpoint has written stays until a later one is complete and [`Self::sweep`] finds it.
    pub async fn delete_checkpoint(&self, job: JobId, checkpoint: CheckpointId) -> Result<()> {
        let directory = checkpoint_directory(checkpoint);
        self.delete(&self.job_path(job, &format!("{directory}/{METADATA}"))).await?;
        let files = self.list(&self.job_path(job, &directory), None).await?;
        self.delete_all(files).await
    }

    /// Deletes all checkpoints of a job that has ended, and keeps its log, which says so.
    pub async fn delete_checkpoints(&self, job: JobId) -> Result<()> {
        for checkpoint in self.list_checkpoints(job).await? {
            self.delete_checkpoint(job, checkpoint).await?;
        }
        let log = self.job_path(job, "log");
        let files = self.list(&self.job_path(job, ""), None).await?;
        self.delete_all(files.into_iter().filter(|path| !path.prefix_matches(&log)).collect()).await
    }

    /// Deletes everything of a job, its log too: a jobmanager of this job that starts now runs it from the beginning.
    pub async fn delete_job(&self, job: JobId) -> Result<()> {
        self.delete_checkpoints(job).await?;
        let mut log = self.list(&self.job_path(job, "log"), None).await?;
        // In order, so that the newest entry, which may say that the job has ended, goes last.
        log.sort();
        for entry in log {
            self.delete(&entry).await?;
        }
        Ok(())
    }

    /// Deletes what dead attempts have left: the checkpoints below `newest`, the newest completed one, that the log
    /// does not name and that are not in `live` (those under way). Only after a check that the caller still leads the
    /// job. Returns what was deleted.
    pub async fn sweep(&self, job: JobId, view: &LogView, live: &BTreeSet<CheckpointId>) -> Result<Vec<CheckpointId>> {
        let log = self.list(&self.job_path(job, "log"), None).await?;
        self.delete_all(log.into_iter().filter(|path| path.as_ref().ends_with(UNFINISHED)).collect()).await?;
        // Ids only grow: nobody will ever use one below the newest that is complete.
        let Some(newest) = view.newest_checkpoint().map(|record| record.id) else {
            return Ok(Vec::new());
        };
        let mut swept = Vec::new();
        for checkpoint in self.list_checkpoints(job).await? {
            if checkpoint < newest && !view.names(checkpoint) && !live.contains(&checkpoint) {
                self.delete_checkpoint(job, checkpoint).await?;
                swept.push(checkpoint);
            }
        }
        Ok(swept)
    }

    /// Deletes the shared files that no checkpoint in the log refers to and no checkpoint under way can: those of
    /// checkpoints below the newest completed one that are not in `live`. Only after a check that the caller still leads
    /// the job. Returns how many there were.
    ///
    /// A checkpoint under way may refer to a file of an older one, if that has completed. Such a file is in the newest
    /// completed checkpoint too, since a backend that has given up a file never takes it up again.
    pub async fn sweep_shared(&self, job: JobId, view: &LogView, live: &BTreeSet<CheckpointId>) -> Result<usize> {
        let files = self.list(&self.job_path(job, SHARED), None).await?;
        let Some(newest) = view.newest_checkpoint().map(|record| record.id).filter(|_| !files.is_empty()) else {
            return Ok(0);
        };
        let mut referred_to = BTreeSet::new();
        for record in view.checkpoints() {
            let metadata = self.read_metadata(job, record).await?;
            referred_to.extend(metadata.shared_file_names().map(str::to_string));
        }
        let is_garbage = |path: &Path| {
            let Some(name) = path.filename() else { return false };
            let by = writer_of_shared(name);
            by.is_some_and(|by| by < newest && !live.contains(&by)) && !referred_to.contains(name)
        };
        let garbage: Vec<_> = files.into_iter().filter(is_garbage).collect();
        let count = garbage.len();
        self.delete_all(garbage).await?;
        Ok(count)
    }

    async fn directories(&self, job: JobId) -> Result<Vec<Path>> {
        let path = self.job_path(job, "");
        let listing = self.bounded(self.store().list_with_delimiter(Some(&path))).await;
        let listing = listing.map_err(|error| store_error(format!("listing {}", self.shown(&path)), &error))?;
        Ok(listing.common_prefixes)
    }
}

/// Reads a checkpoint for `--from-checkpoint`: `uri` is a `chk-<n>` directory or the `_metadata` file in it, in any
/// store. Nothing of the job that wrote it is touched.
pub async fn open_checkpoint(uri: &str, options: &StorageOptions) -> Result<CheckpointMetadata> {
    let place = StorageUri::parse(uri)?;
    let directory = match place.split_last() {
        Some((directory, name)) if name == METADATA => directory,
        _ => place,
    };
    if directory == StorageUri::Memory {
        return Err(Error::invalid("a checkpoint in memory: can't be started from: it died with its job"));
    }
    let missing = || {
        Error::invalid(format!(
            "{directory} is no checkpoint: there is no {METADATA} in it. Give the chk-<n> directory of a completed \
             checkpoint; `millrace state list` shows those of a directory or a job"
        ))
    };
    if let StorageUri::File(path) = &directory
        && !path.is_dir()
    {
        return Err(missing());
    }
    let storage = CheckpointStorage::open_existing(directory.clone(), options)?;
    let path = storage.inner.place.prefix.clone().join(METADATA);
    let bytes = storage.read(&path).await?.ok_or_else(missing)?;
    CheckpointMetadata::decode(&storage.shown(&path), &bytes, &directory.to_string())
}
