//! Looking into a checkpoint store that jobs have written to. Nothing is created.

use millrace_core::{
    Error, Result,
    ids::{CheckpointId, JobId},
};
use object_store::{ObjectStoreExt, path::Path};

use super::{
    CheckpointStorage, StorageOptions, StorageUri, checkpoint_directory, checkpoint_of, state_files::cannot_read,
    store_error,
};
use crate::{
    StateHandle,
    log::entry::damaged,
    metadata::CheckpointMetadata,
    storage::checkpoints::{METADATA, open_checkpoint},
};

/// What a URI points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Browsed {
    /// A checkpoint directory, with the jobs in it.
    Root(Vec<JobId>),
    /// The directory of a job, in the checkpoint directory that was opened.
    Job(JobId),
    /// A checkpoint of a job, in the checkpoint directory that was opened.
    Checkpoint(JobId, CheckpointId),
    /// A checkpoint that lies outside a job's directory, in the directory that was opened.
    MovedCheckpoint(Box<CheckpointMetadata>),
}

impl CheckpointStorage {
    /// Opens the checkpoint directory that a URI points at, or into: a checkpoint directory, a job's directory, a
    /// checkpoint's directory or its `_metadata`.
    pub async fn browse(uri: &str, options: &StorageOptions) -> Result<(Self, Browsed)> {
        let mut place = StorageUri::parse(uri)?;
        if let Some((directory, name)) = place.split_last()
            && name == METADATA
        {
            place = directory;
        }
        let Some((above, name)) = place.split_last() else { return Self::browse_root(place, options).await };
        if let Some(job) = job_of(&name) {
            return Ok((Self::open_to_read(above, options)?, Browsed::Job(job)));
        }
        let Some(checkpoint) = checkpoint_of(&name) else { return Self::browse_root(place, options).await };
        match above.split_last().and_then(|(root, name)| Some((root, job_of(&name)?))) {
            Some((root, job)) => Ok((Self::open_to_read(root, options)?, Browsed::Checkpoint(job, checkpoint))),
            None => {
                let metadata = open_checkpoint(uri, options).await?;
                Ok((Self::open_to_read(above, options)?, Browsed::MovedCheckpoint(Box::new(metadata))))
            }
        }
    }

    async fn browse_root(uri: StorageUri, options: &StorageOptions) -> Result<(Self, Browsed)> {
        let storage = Self::open_to_read(uri, options)?;
        let jobs = storage.list_jobs().await?;
        if jobs.is_empty() {
            return Err(Error::invalid(format!(
                "{} holds no job and no checkpoint: give a checkpoint directory, the directory of a job in it \
                 (<job-id>) or that of a checkpoint (<job-id>/chk-<n>)",
                storage.uri()
            )));
        }
        Ok((storage, Browsed::Root(jobs)))
    }

    /// Opens a directory that must be there.
    pub(crate) fn open_to_read(uri: StorageUri, options: &StorageOptions) -> Result<Self> {
        match &uri {
            StorageUri::Memory => Err(Error::invalid(
                "memory: is inside a jobmanager: no other program can look at the checkpoints in it. Give a job \
                 state.checkpoints.dir to keep them elsewhere",
            )),
            StorageUri::File(path) if !path.is_dir() => {
                Err(Error::invalid(format!("{uri}: there is no such directory on this machine")))
            }
            _ => Self::open_existing(uri, options),
        }
    }

    /// The jobs that have a directory.
    pub async fn list_jobs(&self) -> Result<Vec<JobId>> {
        let root = self.inner.place.prefix.clone();
        let listing = self.bounded(self.store().list_with_delimiter(Some(&root))).await;
        let listing = listing.map_err(|error| store_error(format!("listing {}", self.inner.uri), &error))?;
        let mut jobs: Vec<_> = listing.common_prefixes.iter().filter_map(|path| job_of(path.filename()?)).collect();
        jobs.sort_unstable();
        Ok(jobs)
    }

    /// The metadata of a checkpoint, whatever the log says; `None` where there is none.
    pub async fn find_metadata(&self, job: JobId, checkpoint: CheckpointId) -> Result<Option<CheckpointMetadata>> {
        let path: Path = self.job_path(job, &format!("{}/{METADATA}", checkpoint_directory(checkpoint)));
        let Some(bytes) = self.read(&path).await? else { return Ok(None) };
        let name = self.shown(&path);
        let metadata = CheckpointMetadata::decode(&name, &bytes, &self.checkpoint_uri(job, checkpoint))?;
        if (metadata.job, metadata.checkpoint) != (job, checkpoint) {
            return Err(damaged(format!(
                "checkpoint {name} is foreign: it is checkpoint {} of job {}",
                metadata.checkpoint, metadata.job
            )));
        }
        Ok(Some(metadata))
    }

    /// Checks that a state file is there and has its size, before parts of it are read.
    pub(crate) async fn check_size(&self, handle: &StateHandle) -> Result<()> {
        let StateHandle::File { directory, name, size, .. } = handle else { return Ok(()) };
        let place = self.locate(directory)?;
        let shown = format!("{directory}/{name}");
        let found = self.bounded(place.store.head(&place.prefix.clone().join(name.as_str()))).await;
        match found.map_err(|error| cannot_read(&shown, &error))?.size {
            found if found == *size => Ok(()),
            found => Err(damaged(format!("state file {shown} is damaged: it has {found} bytes instead of {size}"))),
        }
    }
}

/// The job whose directory has this name.
fn job_of(directory: &str) -> Option<JobId> {
    directory.parse().ok().filter(|job: &JobId| job.to_string() == directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(0xbeef);

    #[tokio::test]
    async fn a_uri_is_told_by_its_last_parts() {
        let dir = tempfile::tempdir().unwrap();
        let root = format!("file://{}", dir.path().display());
        std::fs::create_dir_all(dir.path().join(format!("{JOB}/chk-3"))).unwrap();
        for (below, found) in [
            (String::new(), Browsed::Root(vec![JOB])),
            (format!("/{JOB}"), Browsed::Job(JOB)),
            (format!("/{JOB}/"), Browsed::Job(JOB)),
            (format!("/{JOB}/chk-3"), Browsed::Checkpoint(JOB, CheckpointId(3))),
            (format!("/{JOB}/chk-3/_metadata"), Browsed::Checkpoint(JOB, CheckpointId(3))),
        ] {
            let (storage, browsed) =
                CheckpointStorage::browse(&format!("{root}{below}"), &StorageOptions::default()).await.unwrap();
            assert_eq!((storage.uri().to_string(), browsed), (root.clone(), found), "{below}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_named_and_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let root = format!("file://{}", dir.path().display());
        for (uri, why) in [
            (root.clone(), "holds no job"),
            (format!("{root}/nowhere"), "no such directory"),
            (format!("{root}/nowhere/{JOB}"), "no such directory"),
            (format!("{root}/nowhere/{JOB}/chk-1"), "no such directory"),
            (format!("{root}/chk-1"), "is no checkpoint"),
            ("memory:".to_string(), "inside a jobmanager"),
            ("/var/x".to_string(), "no scheme"),
        ] {
            let error = CheckpointStorage::browse(&uri, &StorageOptions::default()).await.unwrap_err();
            assert!(error.message.contains(why) && !error.retryable, "{uri}: {error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
