//! The checkpoint store: a directory or a bucket that all processes of a job reach, over `object_store`.
//!
//! ```text
//! <checkpoint dir>/<job-id>/chk-<n>/_metadata       created if absent, see `metadata`
//!                          /chk-<n>/<unique>.state  a snapshot's bytes
//!                          /shared/<n>-<unique>     a file that checkpoints from <n> on may refer to
//!                          /log/<position>          see `log`
//! ```
//!
//! Only create-if-absent is relied on, never rename or conditional update; [`CheckpointStorage::probe`] proves that
//! the store has it.

mod browse;
mod checkpoints;
mod dir_lock;
mod errors;
mod fetched_state;
#[cfg(feature = "hdfs")]
mod hdfs;
mod local;
mod local_copies;
mod local_state;
mod options;
mod probe;
mod profile;
mod s3;
mod shared_files;
#[cfg(test)]
mod shared_tests;
mod state_files;
mod stored_file;
#[cfg(test)]
mod tests;
mod uri;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::Path as FsPath,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use millrace_core::{
    Error, Result,
    ids::{CheckpointId, JobId},
};
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, memory::InMemory, path::Path,
};

pub use browse::Browsed;
pub use checkpoints::{MetadataWrite, open_checkpoint};
pub use dir_lock::{LOCK, lock_of_dead, make_locked, try_lock};
pub use fetched_state::{FetchMeter, FetchedState};
pub use local_copies::LocalCopies;
pub use local_state::{LocalState, LocalStateWriter};
pub use options::{RetryPolicy, Secret, StorageOptions};
pub use shared_files::{UploadedFiles, written_by};
pub use state_files::{StateReader, StateWriter, unique_state_name};
pub use uri::StorageUri;

use errors::{start_error, store_error};
use local::{LocalStore, UNFINISHED};

/// A checkpoint store. Clones share its connections.
#[derive(Clone)]
pub struct CheckpointStorage {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    uri: StorageUri,
    options: StorageOptions,
    /// Other places that checkpoints are restored from, by the URI that they were opened with.
    others: Mutex<BTreeMap<String, Place>>,
}

/// A store, and the directory in it that a URI means.
#[derive(Clone)]
struct Place {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// What became of a create-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was absent and is there now.
    New,
    /// It exists, or another create is under way. It may be one's own, whose answer was lost: read it and compare.
    Exists,
}

impl fmt::Debug for CheckpointStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointStorage").field("uri", &self.inner.uri.to_string()).finish_non_exhaustive()
    }
}

impl CheckpointStorage {
    /// Opens the checkpoint directory of a job: `file:///…` (created if absent), `s3://bucket/prefix`,
    /// `hdfs://namenode:port/path` or `memory:` (what a job without a checkpoint directory has). Nothing is sent over a
    /// network yet: [`Self::probe`] is next.
    pub fn open(uri: &str, options: &StorageOptions) -> Result<Self> {
        let uri = StorageUri::parse(uri)?;
        if let StorageUri::File(path) = &uri {
            std::fs::create_dir_all(path).map_err(|error| {
                Error::invalid(format!(
                    "checkpoint directory {uri} can't be created: {error}; state.checkpoints.dir names it"
                ))
            })?;
        }
        Self::open_existing(uri, options)
    }

    /// Opens a place that must be there already.
    fn open_existing(uri: StorageUri, options: &StorageOptions) -> Result<Self> {
        let place = match &uri {
            StorageUri::Memory => Place { store: Arc::new(InMemory::new()), prefix: Path::default() },
            other => Place::open(other, options)?,
        };
        Ok(Self { inner: Arc::new(Inner { place, uri, options: options.clone(), others: Mutex::default() }) })
    }

    /// A checkpoint store over any object store, whose top is what `uri` means. For decorated stores in tests.
    pub fn over(store: Arc<dyn ObjectStore>, uri: &str, options: &StorageOptions) -> Result<Self> {
        let (uri, place) = (StorageUri::parse(uri)?, Place { store, prefix: Path::default() });
        Ok(Self { inner: Arc::new(Inner { place, uri, options: options.clone(), others: Mutex::default() }) })
    }

    /// The checkpoint directory.
    pub fn uri(&self) -> &StorageUri {
        &self.inner.uri
    }

    /// Whether it is a directory of this machine, as far as can be told: local copies of its files are of no use.
    pub fn is_local(&self) -> bool {
        matches!(self.inner.uri, StorageUri::File(_))
    }

    /// Whether its content dies with this process.
    pub fn is_volatile(&self) -> bool {
        self.inner.uri == StorageUri::Memory
    }

    /// The URI of a checkpoint's directory.
    pub fn checkpoint_uri(&self, job: JobId, checkpoint: CheckpointId) -> String {
        self.job_uri(job, &checkpoint_directory(checkpoint))
    }

    /// The URI of a directory of a job.
    fn job_uri(&self, job: JobId, directory: &str) -> String {
        format!("{}/{job}/{directory}", self.inner.uri)
    }

    /// Something in a job's directory.
    pub(crate) fn job_path(&self, job: JobId, relative: &str) -> Path {
        let job = self.inner.place.prefix.clone().join(job.to_string());
        relative.split('/').filter(|part| !part.is_empty()).fold(job, |path, part| path.join(part))
    }

    /// Reads a whole object; `None` if it is absent.
    pub(crate) async fn read(&self, path: &Path) -> Result<Option<Bytes>> {
        let read = async { self.store().get(path).await?.bytes().await };
        match self.bounded(read).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(format!("reading {}", self.shown(path)), &error)),
        }
    }

    /// Creates an object if it is absent.
    pub(crate) async fn create(&self, path: &Path, bytes: Bytes) -> Result<Created> {
        self.try_create(path, bytes)
            .await
            .map_err(|error| store_error(format!("creating {}", self.shown(path)), &error))
    }

    async fn try_create(&self, path: &Path, bytes: Bytes) -> Result<Created, StoreError> {
        let options = PutOptions::from(PutMode::Create);
        match self.bounded(self.store().put_opts(path, bytes.into(), options)).await {
            Ok(_) => Ok(Created::New),
            Err(StoreError::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object; one that is absent is deleted already.
    pub(crate) async fn delete(&self, path: &Path) -> Result<()> {
        match self.bounded(self.store().delete(path)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(format!("deleting {}", self.shown(path)), &error)),
        }
    }

    /// The objects below a directory, in any order; only those behind `after` where that is given.
    pub(crate) async fn list(&self, directory: &Path, after: Option<&Path>) -> Result<Vec<Path>> {
        let listing = match after {
            Some(after) => self.store().list_with_offset(Some(directory), after),
            None => self.store().list(Some(directory)),
        };
        self.bounded(listing.map_ok(|object| object.location).try_collect())
            .await
            .map_err(|error| store_error(format!("listing {}", self.shown(directory)), &error))
    }

    /// Deletes objects, several at a time.
    async fn delete_all(&self, paths: Vec<Path>) -> Result<()> {
        let mut deleted = self.store().delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
        loop {
            match self.bounded(async { Ok(deleted.next().await) }).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_) | Err(StoreError::NotFound { .. }))) => {}
                Ok(Some(Err(error))) | Err(error) => {
                    return Err(store_error(format!("deleting from {}", self.inner.uri), &error));
                }
            }
        }
    }

    fn store(&self) -> &dyn ObjectStore {
        &*self.inner.place.store
    }

    /// Waits for the store no longer than all its own retries may take.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.inner.options.bounded(work).await
    }

    /// A path as users know it.
    fn shown(&self, path: &Path) -> String {
        match &self.inner.uri {
            StorageUri::S3 { bucket, .. } => format!("s3://{bucket}/{path}"),
            StorageUri::Hdfs { authority, .. } => format!("hdfs://{authority}/{path}"),
            other => format!("{other}/{path}"),
        }
    }

    /// The place that a directory's URI means: below the checkpoint directory, or anywhere else.
    fn locate(&self, directory: &str) -> Result<Place> {
        let own = self.inner.uri.to_string();
        if let Some(below) = directory.strip_prefix(&own).and_then(|rest| rest.strip_prefix('/')) {
            let prefix = below.split('/').fold(self.inner.place.prefix.clone(), |path, part| path.join(part));
            return Ok(Place { store: Arc::clone(&self.inner.place.store), prefix });
        }
        let mut others = self.inner.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = others.get(directory) {
            return Ok(place.clone());
        }
        let place = Place::open(&StorageUri::parse(directory)?, &self.inner.options)?;
        others.insert(directory.to_string(), place.clone());
        Ok(place)
    }
}

impl Place {
    fn open(uri: &StorageUri, options: &StorageOptions) -> Result<Self> {
        match uri {
            StorageUri::Memory => Err(Error::invalid(
                "memory: holds nothing but what its own process wrote: its checkpoints can't be restored elsewhere",
            )),
            StorageUri::File(path) => {
                let store = LocalStore::open(FsPath::new(path)).map_err(|error| start_error(uri, &error))?;
                Ok(Self { store: Arc::new(store), prefix: Path::default() })
            }
            StorageUri::S3 { bucket, prefix } => {
                let prefix = Path::parse(prefix).map_err(|error| Error::invalid(format!("{uri}: {error}")))?;
                Ok(Self { store: Arc::new(s3::open(bucket, options)?), prefix })
            }
            #[cfg(feature = "hdfs")]
            StorageUri::Hdfs { authority, path } => {
                let prefix = Path::parse(path).map_err(|error| Error::invalid(format!("{uri}: {error}")))?;
                Ok(Self { store: Arc::new(hdfs::open(authority, &prefix)?), prefix })
            }
            #[cfg(not(feature = "hdfs"))]
            StorageUri::Hdfs { .. } => Err(Error::invalid(format!(
                "checkpoint directory {uri}: HDFS is not in this program: build it with the feature `hdfs` of millrace"
            ))),
        }
    }
}

impl StorageOptions {
    /// Waits for a store no longer than all its own retries may take.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        // The store's client ends its retries after `request_timeout`; the last of them may take that long again.
        let limit = self.connect_timeout + self.request_timeout * 2;
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(StoreError::Generic { store: "checkpoint", source: format!("no answer within {limit:?}").into() })
        })
    }
}

/// The directory of the files that a job's checkpoints share.
pub(crate) const SHARED: &str = "shared";

/// The name of a checkpoint's directory.
fn checkpoint_directory(checkpoint: CheckpointId) -> String {
    format!("chk-{checkpoint}")
}

/// The checkpoint whose directory has this name.
fn checkpoint_of(directory: &str) -> Option<CheckpointId> {
    let number = directory.strip_prefix("chk-")?.parse().ok().map(CheckpointId)?;
    // Nothing but the one way to write it: `chk-+7` and `chk-07` are not ours.
    (checkpoint_directory(number) == directory).then_some(number)
}

/// Whether a name that comes from outside stays in its directory.
pub(crate) fn is_file_name(name: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.bytes().all(safe)
}
