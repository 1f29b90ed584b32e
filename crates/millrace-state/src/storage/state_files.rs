//! The files that hold snapshots.

use bytes::Bytes;
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use millrace_core::{
    Error, Result,
    ids::{CheckpointId, JobId},
};
use object_store::{Error as StoreError, MultipartUpload, ObjectStoreExt, path::Path};

use super::{CheckpointStorage, Place, checkpoint_directory, is_file_name, store_error, stored_file::StoredFile};
use crate::{StateFile, StateHandle, log::entry::damaged};

/// The size of an upload's parts. S3 takes ten thousand of them.
const PART_BYTES: usize = 16 << 20;
/// How many parts are under way at once, at most.
const PARTS_IN_FLIGHT: usize = 3;

/// A file name that no other file ever has.
pub fn unique_state_name(hint: &str) -> String {
    let hint: String = hint.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    format!("{hint}-{}.state", uuid::Uuid::new_v4().simple())
}

impl CheckpointStorage {
    /// Writes a snapshot that is in memory already into a checkpoint's directory. The name must be
    /// [unique](unique_state_name).
    pub async fn write_state(
        &self,
        job: JobId,
        checkpoint: CheckpointId,
        name: &str,
        bytes: Bytes,
    ) -> Result<StateHandle> {
        let mut writer = self.state_writer(job, checkpoint, name)?;
        if bytes.len() <= PART_BYTES {
            writer.count(&bytes);
            writer.put_whole(bytes).await?;
            return Ok(writer.file().handle());
        }
        writer.write(&bytes).await?;
        writer.finish().await
    }

    /// Writes a snapshot piece by piece: memory holds a few parts of it, never all.
    pub fn state_writer(&self, job: JobId, checkpoint: CheckpointId, name: &str) -> Result<StateWriter> {
        self.writer(job, &checkpoint_directory(checkpoint), name)
    }

    /// Writes a file into a directory of the job.
    pub(super) fn writer(&self, job: JobId, directory: &str, name: &str) -> Result<StateWriter> {
        if !is_file_name(name) {
            return Err(Error::internal(format!("{name:?} is no name for a state file")));
        }
        Ok(StateWriter {
            storage: self.clone(),
            directory: self.job_uri(job, directory),
            name: name.to_string(),
            path: self.job_path(job, &format!("{directory}/{name}")),
            upload: None,
            parts: FuturesUnordered::new(),
            buffer: Vec::new(),
            size: 0,
            crc: crc32fast::Hasher::new(),
        })
    }

    /// Reads a whole snapshot and checks it: one that is missing, truncated or altered is refused by its file's name.
    pub async fn read_state(&self, handle: &StateHandle) -> Result<Bytes> {
        let mut reader = self.state_reader(handle)?;
        let Some(first) = reader.next().await? else {
            return Ok(Bytes::new());
        };
        if first.len() as u64 == handle.size() {
            reader.next().await?;
            return Ok(first);
        }
        // What a handle says about sizes comes from a file: memory grows with what really arrives.
        let mut whole = first.to_vec();
        while let Some(piece) = reader.next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    /// Reads a snapshot piece by piece and checks it; see [`StateReader::next`].
    pub fn state_reader(&self, handle: &StateHandle) -> Result<StateReader> {
        let (directory, name, size, crc32) = match handle {
            StateHandle::Inline(bytes) => return Ok(StateReader::inline(bytes)),
            StateHandle::File { directory, name, size, crc32 } => (directory, name, *size, *crc32),
            StateHandle::Shared(_) => return Err(shared_at_once()),
        };
        let file = self.stored_file(directory, name, size)?;
        let (name, pieces) = (file.shown.clone(), file.stream());
        Ok(StateReader { name, size, crc32, pieces, read: 0, crc: crc32fast::Hasher::new() })
    }

    /// Reads a part of a snapshot, unchecked but for its length.
    pub async fn read_state_range(&self, handle: &StateHandle, range: std::ops::Range<u64>) -> Result<Bytes> {
        let outside = || Error::internal(format!("bytes {range:?} are asked of a state of {} bytes", handle.size()));
        if range.start > range.end || range.end > handle.size() {
            return Err(outside());
        }
        match handle {
            StateHandle::Inline(bytes) => Ok(Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize])),
            StateHandle::File { .. } if range.is_empty() => Ok(Bytes::new()),
            StateHandle::File { directory, name, .. } => {
                let (place, path) = self.state_place(directory, name)?;
                let shown = format!("{directory}/{name}");
                match self.bounded(place.store.get_range(&path, range.clone())).await {
                    Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
                    Ok(_) => Err(damaged(format!("state file {shown} is damaged: it is too short"))),
                    Err(error) => Err(cannot_read(&shown, &error)),
                }
            }
            StateHandle::Shared(_) => Err(shared_at_once()),
        }
    }

    /// A state file of this size.
    pub(super) fn stored_file(&self, directory: &str, name: &str, size: u64) -> Result<StoredFile> {
        let (place, path) = self.state_place(directory, name)?;
        let shown = format!("{directory}/{name}");
        Ok(StoredFile { storage: self.clone(), store: place.store, path, shown, size })
    }

    fn state_place(&self, directory: &str, name: &str) -> Result<(Place, Path)> {
        if !is_file_name(name) {
            return Err(damaged(format!("{name:?} is no name of a state file")));
        }
        let place = self.locate(directory)?;
        let path = place.prefix.clone().join(name);
        Ok((place, path))
    }
}

/// A snapshot that is being written.
pub struct StateWriter {
    storage: CheckpointStorage,
    directory: String,
    name: String,
    path: Path,
    upload: Option<Box<dyn MultipartUpload>>,
    parts: FuturesUnordered<BoxFuture<'static, Result<(), StoreError>>>,
    buffer: Vec<u8>,
    size: u64,
    crc: crc32fast::Hasher,
}

impl StateWriter {
    /// Appends bytes; waits while enough parts are under way.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.count(bytes);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == PART_BYTES {
                let part = std::mem::take(&mut self.buffer);
                self.put_part(part.into()).await?;
            }
        }
        Ok(())
    }

    /// Completes the file. It appears under its name now, whole.
    pub async fn finish(self) -> Result<StateHandle> {
        Ok(self.finish_file().await?.handle())
    }

    pub(super) async fn finish_file(mut self) -> Result<StateFile> {
        let rest = std::mem::take(&mut self.buffer);
        if self.upload.is_none() {
            self.put_whole(rest.into()).await?;
            return Ok(self.file());
        }
        if !rest.is_empty() {
            self.put_part(rest.into()).await?;
        }
        while let Some(part) = self.parts.next().await {
            part.map_err(|error| self.failed(&error))?;
        }
        if let Some(upload) = self.upload.as_mut() {
            let completed = self.storage.inner.options.bounded(upload.complete()).await;
            completed.map_err(|error| self.failed(&error))?;
        }
        self.upload = None;
        Ok(self.file())
    }

    async fn put_part(&mut self, bytes: Bytes) -> Result<()> {
        while self.parts.len() >= PARTS_IN_FLIGHT {
            if let Some(part) = self.parts.next().await {
                part.map_err(|error| self.failed(&error))?;
            }
        }
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let started = self.storage.bounded(self.storage.store().put_multipart(&self.path)).await;
                none.insert(started.map_err(|error| failed(&self.directory, &self.name, &error))?)
            }
        };
        let (part, options) = (upload.put_part(bytes.into()), self.storage.inner.options.clone());
        let part = async move { options.bounded(part).await };
        // Spawned, so that it goes on while the snapshot is being made.
        let running = tokio::spawn(part);
        self.parts.push(Box::pin(async move { running.await? }));
        Ok(())
    }

    /// Names are unique, so that writing the same file again after a lost answer does no harm.
    async fn put_whole(&self, bytes: Bytes) -> Result<()> {
        let put = self.storage.bounded(self.storage.store().put(&self.path, bytes.into())).await;
        put.map(drop).map_err(|error| self.failed(&error))
    }

    fn count(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.crc.update(bytes);
    }

    fn file(&self) -> StateFile {
        StateFile {
            directory: self.directory.clone(),
            name: self.name.clone(),
            size: self.size,
            crc32: self.crc.clone().finalize(),
        }
    }

    fn failed(&self, error: &StoreError) -> Error {
        failed(&self.directory, &self.name, error)
    }
}

impl Drop for StateWriter {
    fn drop(&mut self) {
        // Parts of an upload that was not completed cost money on S3 until it is aborted.
        if let (Some(mut upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let parts = std::mem::take(&mut self.parts);
            runtime.spawn(async move {
                let _ = parts.collect::<Vec<_>>().await;
                if let Err(error) = upload.abort().await {
                    tracing::warn!("an upload could not be aborted: {error}");
                }
            });
        }
    }
}

/// A state in shared files has no bytes of its own but those of its snapshot and its files.
fn shared_at_once() -> Error {
    Error::internal("a state in shared files was read as one")
}

fn failed(directory: &str, name: &str, error: &StoreError) -> Error {
    store_error(format!("writing state file {directory}/{name}"), error)
}

pub(super) fn cannot_read(shown: &str, error: &StoreError) -> Error {
    match error {
        StoreError::NotFound { .. } => damaged(format!("state file {shown} is missing")),
        other => store_error(format!("reading state file {shown}"), other),
    }
}

/// A snapshot that is being read.
pub struct StateReader {
    name: String,
    size: u64,
    crc32: u32,
    pieces: BoxStream<'static, Result<Bytes>>,
    read: u64,
    crc: crc32fast::Hasher,
}

impl StateReader {
    fn inline(bytes: &[u8]) -> Self {
        let copy = Bytes::copy_from_slice(bytes);
        Self {
            name: "inside the metadata".to_string(),
            size: copy.len() as u64,
            crc32: crc32fast::hash(&copy),
            pieces: futures::stream::iter([Ok(copy)]).boxed(),
            read: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// The next piece. The end, `None`, is reached only if size and checksum were right: what was read must not be
    /// used before.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.pieces.next().await.transpose()? {
            Some(bytes) => {
                self.read += bytes.len() as u64;
                self.crc.update(&bytes);
                Ok(Some(bytes))
            }
            None if self.read != self.size => Err(damaged(format!(
                "state file {} is damaged: it has {} bytes instead of {}",
                self.name, self.read, self.size
            ))),
            None if self.crc.clone().finalize() != self.crc32 => {
                Err(damaged(format!("state file {} is damaged: its checksum is wrong", self.name)))
            }
            None => Ok(None),
        }
    }
}
