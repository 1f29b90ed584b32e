//! Part files on S3: objects below `.millrace/staged/` in the sink's place, which the store copies to their own names when
//! they are committed.
//!
//! To complete a multipart upload would be a commit without a copy, but not one that can be tried again everywhere: MinIO
//! forgets an upload's parts just before it names the object, and where the client dies in that moment it stops there, for
//! good. So an upload, which only a large part file takes, is completed while the checkpoint is prepared, when it may fail.
//! While it is open it can't be found by its prefix on every S3, so it has a *marker*, an object below `.millrace/` that
//! names it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::TryStreamExt;
use millrace_core::{Error, Result, codec, sink::lost};
use object_store::{
    ClientOptions, Error as StoreError, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    multipart::{MultipartStore, PartId},
    path::Path,
};
use tokio::runtime::{Builder, Runtime};

use super::store::{FileCommittable, OpenPart, PartStore, Waiting};

/// S3 takes no smaller part than 5 MiB, except the last.
const PART_SIZE: usize = 8 << 20;
/// A task that is cancelled must not wait for longer than its taskmanager waits for it.
const RETRY_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
const MARKERS: &str = ".millrace";
const STAGED: &str = "staged";
/// What the store must be able to copy within [`ANSWER_LIMIT`].
pub(super) const LARGEST_PART: u64 = 256 << 20;

/// `s3://bucket/prefix`, and how to get there.
#[derive(Clone, Debug)]
pub(super) struct S3Location {
    bucket: String,
    prefix: Path,
    pub options: Vec<(String, String)>,
}

impl S3Location {
    pub fn parse(uri: &str, rest: &str) -> Result<Self> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let wrong = |why: &str| Error::invalid(format!("{uri:?} is no place for a file sink: {why}"));
        if bucket.is_empty() {
            return Err(wrong("it names no bucket: s3://bucket/prefix"));
        }
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { bucket: bucket.to_string(), prefix, options: Vec::new() })
    }

    fn client(&self) -> Result<AmazonS3> {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.bucket);
        for (name, value) in &self.options {
            let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().map_err(|_| {
                Error::invalid(format!(
                    "the file sink's S3 option {name:?} is unknown: aws_endpoint is one, for example"
                ))
            })?;
            builder = builder.with_config(key, value);
        }
        let endpoint = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint];
        let endpoint = endpoint.iter().find_map(|key| builder.get_config_value(key));
        let allow_http = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        builder = builder.with_retry(RetryConfig { retry_timeout: RETRY_LIMIT, ..RetryConfig::default() });
        builder = builder.with_client_options(ClientOptions::new().with_timeout(ANSWER_LIMIT));
        builder = builder.with_allow_http(allow_http);
        builder.build().map_err(|error| Error::invalid(format!("the file sink's s3://{}: {error}", self.bucket)))
    }
}

/// Where all S3 clients of the process run: tasks wait for them.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let make = || Builder::new_multi_thread().worker_threads(2).thread_name("file-sink-s3").enable_all().build().ok();
    RUNTIME.get_or_init(make).as_ref().ok_or_else(|| Error::external("no threads for the file sink's S3 client"))
}

#[derive(Clone)]
struct Client {
    store: Arc<AmazonS3>,
    bucket: String,
}

impl Client {
    fn new(location: &S3Location) -> Result<Self> {
        Ok(Self { store: Arc::new(location.client()?), bucket: location.bucket.clone() })
    }

    fn wait<O>(&self, what: &str, key: &Path, call: impl Future<Output = Result<O, StoreError>>) -> Result<O> {
        runtime()?.block_on(call).map_err(|error| failed(what, &self.bucket, key, &error))
    }

    /// What is gone already is success: a dead start may be about to do the same.
    fn abort(&self, key: &Path, upload: &String) -> Result<()> {
        let aborted = runtime()?.block_on(self.store.abort_multipart(key, upload));
        gone_is_fine(aborted).map_err(|error| failed("aborting the upload of", &self.bucket, key, &error))
    }

    /// What an object was to be made of is gone: fine where the object is there, as long as it should be.
    fn find(&self, gone: &str, key: &Path, size: u64) -> Result<()> {
        let bucket = &self.bucket;
        match runtime()?.block_on(self.store.head(key)) {
            Ok(found) if found.size == size => Ok(()),
            Ok(found) => Err(lost(format!(
                "{gone} of s3://{bucket}/{key} is gone, and the object has {} bytes instead of {size}",
                found.size
            ))),
            Err(StoreError::NotFound { .. }) => Err(lost(format!(
                "{gone} of s3://{bucket}/{key} is gone, and there is no such object: it was removed, by a lifecycle rule \
                 of the bucket or by another job with a sink of the same uid in this place"
            ))),
            Err(error) => Err(failed("looking up", bucket, key, &error)),
        }
    }

    fn delete(&self, key: &Path) -> Result<()> {
        let deleted = runtime()?.block_on(self.store.delete(key));
        gone_is_fine(deleted).map_err(|error| failed("deleting", &self.bucket, key, &error))
    }
}

fn gone_is_fine(outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Err(StoreError::NotFound { .. }) => Ok(()),
        outcome => outcome,
    }
}

/// A key that [`Path`] has encoded already: it would encode it once more.
fn parsed(key: &str) -> Result<Path> {
    Path::parse(key).map_err(|error| Error::invalid(format!("{key:?} is no key of an object: {error}")))
}

fn failed(what: &str, bucket: &str, key: &Path, error: &StoreError) -> Error {
    let failed = Error::external(format!("{what} s3://{bucket}/{key} failed: {error}"));
    match error {
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => failed.fatal(),
        _ => failed,
    }
}

/// The upload of an object.
struct Upload {
    id: String,
    parts: Vec<PartId>,
}

pub(super) struct S3Store {
    client: Client,
    prefix: Path,
    label: String,
}

impl S3Store {
    pub fn open(location: &S3Location, label: String) -> Result<Self> {
        Ok(Self { client: Client::new(location)?, prefix: location.prefix.clone(), label })
    }

    fn place(&self) -> Path {
        self.prefix.clone().join(MARKERS)
    }

    /// Aborts the upload that a marker names.
    fn clean_up(&self, marker: &Path) -> Result<()> {
        let read = runtime()?.block_on(async { self.client.store.get(marker).await?.bytes().await });
        let bytes = match read {
            Err(StoreError::NotFound { .. }) => return Ok(()),
            read => read.map_err(|error| failed("reading", &self.client.bucket, marker, &error))?,
        };
        let (key, upload): (String, String) = codec::decode(&bytes)?;
        self.client.abort(&parsed(&key)?, &upload)?;
        self.client.delete(marker)
    }
}

impl PartStore for S3Store {
    fn begin(&self, path: &str) -> Result<Box<dyn OpenPart>> {
        let key = path.split('/').fold(self.prefix.clone(), Path::join);
        let name = format!("{}{}", self.label, key.filename().unwrap_or_default());
        Ok(Box::new(S3Part {
            client: self.client.clone(),
            marker: self.place().join(name.as_str()),
            staged: self.place().join(STAGED).join(name),
            key,
            upload: None,
            buffer: vec![],
            size: 0,
        }))
    }

    fn remove(&self, is_left: &dyn Fn(&Waiting<'_>) -> bool) -> Result<()> {
        let place = self.place();
        let listed = self.client.store.list(Some(&place)).map_ok(|object| object.location).try_collect::<Vec<_>>();
        let staged = place.clone().join(STAGED);
        for key in self.client.wait("listing", &place, listed)? {
            let labelled = key.filename().unwrap_or_default();
            if !is_left(&Waiting { name: key.as_ref(), labelled }) {
                continue;
            }
            if key.prefix_matches(&staged) {
                self.client.delete(&key)?;
            } else {
                self.clean_up(&key)?;
            }
        }
        Ok(())
    }
}

struct S3Part {
    client: Client,
    key: Path,
    staged: Path,
    marker: Path,
    /// There from the first full piece on until it is completed.
    upload: Option<Upload>,
    buffer: Vec<u8>,
    size: u64,
}

impl S3Part {
    fn put_piece(&mut self) -> Result<()> {
        let Self { client, staged, marker, upload, buffer, .. } = self;
        let upload = match upload {
            Some(upload) => upload,
            none => {
                let id = client.wait("uploading", staged, client.store.create_multipart(staged))?;
                let named = codec::encode(&(staged.as_ref(), &id))?;
                let upload = none.insert(Upload { id, parts: vec![] });
                client.wait("writing", marker, client.store.put(marker, PutPayload::from(named)))?;
                upload
            }
        };
        let bytes = PutPayload::from(std::mem::take(buffer));
        let put = client.store.put_part(staged, &upload.id, upload.parts.len(), bytes);
        upload.parts.push(client.wait("uploading", staged, put)?);
        Ok(())
    }
}

impl OpenPart for S3Part {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.size += bytes.len() as u64;
        if self.buffer.len() >= PART_SIZE { self.put_piece() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<FileCommittable> {
        if self.upload.is_some() && !self.buffer.is_empty() {
            self.put_piece()?;
        }
        let Self { client, staged, size, .. } = &*self;
        match &self.upload {
            Some(Upload { id, parts }) => {
                complete(client, staged, id, parts.clone(), *size)?;
                client.delete(&self.marker)?;
            }
            None => {
                let bytes = PutPayload::from(std::mem::take(&mut self.buffer));
                self.client.wait("writing", &self.staged, self.client.store.put(&self.staged, bytes))?;
            }
        }
        self.upload = None;
        Ok(FileCommittable::Copy {
            bucket: self.client.bucket.clone(),
            from: self.staged.to_string(),
            to: self.key.to_string(),
            size: self.size,
        })
    }
}

impl Drop for S3Part {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        let removed = self.client.abort(&self.staged, &upload.id).and_then(|()| self.client.delete(&self.marker));
        if let Err(error) = removed {
            tracing::warn!("an upload in progress is left to the next start: {error}");
        }
    }
}

/// Completes an upload. One that is gone was completed if the object is there, as long as it should be.
fn complete(client: &Client, key: &Path, upload: &String, parts: Vec<PartId>, size: u64) -> Result<()> {
    match runtime()?.block_on(client.store.complete_multipart(key, upload, parts)) {
        Ok(_) => Ok(()),
        Err(StoreError::NotFound { .. }) => client.find("the upload", key, size),
        Err(error) => Err(failed("completing the upload of", &client.bucket, key, &error)),
    }
}

/// Makes objects visible.
#[derive(Default)]
pub(super) struct S3Committer {
    client: Option<Client>,
}

impl S3Committer {
    fn client(&mut self, location: &S3Location, bucket: &str) -> Result<Client> {
        let client = match self.client.take() {
            Some(client) if client.bucket == bucket => client,
            _ => Client::new(&S3Location { bucket: bucket.to_string(), ..location.clone() })?,
        };
        Ok(self.client.insert(client).clone())
    }

    /// Copies what is staged to its own name, however often it is asked to.
    pub fn copy(&mut self, location: &S3Location, bucket: &str, from: &str, to: &str, size: u64) -> Result<()> {
        let client = self.client(location, bucket)?;
        let (from, to) = (parsed(from)?, parsed(to)?);
        // After a recovery each subtask commits everything: a look is cheaper than a copy.
        let is_there = runtime()?.block_on(client.store.head(&to)).is_ok_and(|found| found.size == size);
        if !is_there {
            match runtime()?.block_on(client.store.copy(&from, &to)) {
                Ok(()) => {}
                Err(StoreError::NotFound { .. }) => client.find("what was staged", &to, size)?,
                Err(error) => return Err(failed(&format!("copying {from} to"), bucket, &to, &error)),
            }
        }
        client.delete(&from)
    }

    /// Completes an upload, as versions did that staged nothing.
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a committable")]
    pub fn complete(
        &mut self,
        location: &S3Location,
        bucket: &str,
        key: &str,
        upload: &String,
        parts: &[String],
        size: u64,
        marker: &str,
    ) -> Result<()> {
        let client = self.client(location, bucket)?;
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        complete(&client, &parsed(key)?, upload, parts, size)?;
        client.delete(&parsed(marker)?)
    }
}
