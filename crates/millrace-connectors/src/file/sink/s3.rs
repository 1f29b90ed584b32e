//! Part files on S3: multipart uploads, which nobody sees before they are completed.
//!
//! An upload that is open can't be found by its prefix on every S3, so each has a *marker*, an object that names it, below
//! `.millrace/` in the sink's place. The next start of the job aborts the uploads whose markers it finds, except those
//! that a checkpoint holds.

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

use super::store::{FileCommittable, OpenPart, Owner, PartStore};

/// S3 takes no smaller part than 5 MiB, except the last.
const PART_SIZE: usize = 8 << 20;
/// A task that is cancelled must not wait for longer than its taskmanager waits for it.
const RETRY_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
const MARKERS: &str = ".millrace";

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

fn failed(what: &str, bucket: &str, key: &Path, error: &StoreError) -> Error {
    let failed = Error::external(format!("{what} s3://{bucket}/{key} failed: {error}"));
    match error {
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => failed.fatal(),
        _ => failed,
    }
}

pub(super) struct S3Store {
    client: Client,
    prefix: Path,
    owner: Owner,
}

impl S3Store {
    /// Aborts the uploads that dead starts have left open, except what a checkpoint holds.
    pub fn open(location: &S3Location, owner: Owner, restored: &[FileCommittable]) -> Result<Self> {
        let store = Self { client: Client::new(location)?, prefix: location.prefix.clone(), owner };
        let is_held = |key: &Path| {
            let key = key.as_ref();
            restored.iter().any(|held| matches!(held, FileCommittable::Upload { marker, .. } if marker == key))
        };
        for marker in store.markers()? {
            if !is_held(&marker) {
                store.clean_up(&marker)?;
            }
        }
        Ok(store)
    }

    fn markers(&self) -> Result<Vec<Path>> {
        let place = self.prefix.clone().join(MARKERS);
        let listed = self.client.store.list(Some(&place)).map_ok(|object| object.location).try_collect::<Vec<_>>();
        let listed = self.client.wait("listing", &place, listed)?;
        let is_ours = |marker: &Path| marker.filename().is_some_and(|label| self.owner.removes(label));
        Ok(listed.into_iter().filter(is_ours).collect())
    }

    fn clean_up(&self, marker: &Path) -> Result<()> {
        let read = runtime()?.block_on(async { self.client.store.get(marker).await?.bytes().await });
        let bytes = match read {
            Err(StoreError::NotFound { .. }) => return Ok(()),
            read => read.map_err(|error| failed("reading", &self.client.bucket, marker, &error))?,
        };
        let (key, upload): (String, String) = codec::decode(&bytes)?;
        self.client.abort(&Path::from(key), &upload)?;
        self.client.delete(marker)
    }
}

impl PartStore for S3Store {
    fn begin(&mut self, path: &str) -> Result<Box<dyn OpenPart>> {
        let key = path.split('/').fold(self.prefix.clone(), Path::join);
        let name = key.filename().unwrap_or_default().to_string();
        let marker = self.prefix.clone().join(MARKERS).join(format!("{}{name}", self.owner.label()));
        let upload = self.client.wait("uploading", &key, self.client.store.create_multipart(&key))?;
        let part = S3Part {
            client: self.client.clone(),
            marker,
            key,
            upload: Some(upload),
            parts: vec![],
            buffer: vec![],
            size: 0,
        };
        let named = codec::encode(&(part.key.as_ref(), &part.upload.clone().unwrap_or_default()))?;
        self.client.wait("writing", &part.marker, self.client.store.put(&part.marker, PutPayload::from(named)))?;
        Ok(Box::new(part))
    }
}

struct S3Part {
    client: Client,
    key: Path,
    marker: Path,
    /// There until it is finished.
    upload: Option<String>,
    parts: Vec<PartId>,
    buffer: Vec<u8>,
    size: u64,
}

impl S3Part {
    fn put(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.buffer);
        let Some(upload) = &self.upload else { return Err(Error::internal("a part file is written to after its end")) };
        let put = self.client.store.put_part(&self.key, upload, self.parts.len(), PutPayload::from(bytes));
        self.parts.push(self.client.wait("uploading", &self.key, put)?);
        Ok(())
    }
}

impl OpenPart for S3Part {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.size += bytes.len() as u64;
        if self.buffer.len() >= PART_SIZE { self.put() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<FileCommittable> {
        if !self.buffer.is_empty() || self.parts.is_empty() {
            self.put()?;
        }
        let upload = self.upload.take().ok_or_else(|| Error::internal("a part file is finished twice"))?;
        Ok(FileCommittable::Upload {
            bucket: self.client.bucket.clone(),
            key: self.key.to_string(),
            upload,
            parts: self.parts.drain(..).map(|part| part.content_id).collect(),
            size: self.size,
            marker: self.marker.to_string(),
        })
    }
}

impl Drop for S3Part {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        let removed = self.client.abort(&self.key, &upload).and_then(|()| self.client.delete(&self.marker));
        if let Err(error) = removed {
            tracing::warn!("an upload in progress is left to the next start: {error}");
        }
    }
}

/// Completes uploads.
#[derive(Default)]
pub(super) struct S3Committer {
    client: Option<Client>,
}

impl S3Committer {
    /// Completes an upload. One that is gone was completed if the object is there, as long as it should be.
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
        let client = match &self.client {
            Some(client) if client.bucket == bucket => client.clone(),
            _ => Client::new(&S3Location { bucket: bucket.to_string(), ..location.clone() })?,
        };
        self.client = Some(client.clone());
        let key = Path::from(key);
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        match runtime()?.block_on(client.store.complete_multipart(&key, upload, parts)) {
            Ok(_) => {}
            Err(StoreError::NotFound { .. }) => match runtime()?.block_on(client.store.head(&key)) {
                Ok(found) if found.size == size => {}
                Ok(found) => {
                    return Err(lost(format!(
                        "the upload of s3://{bucket}/{key} is gone, and the object has {} bytes instead of {size}",
                        found.size
                    )));
                }
                Err(StoreError::NotFound { .. }) => {
                    return Err(lost(format!(
                        "the upload of s3://{bucket}/{key} is gone, and there is no such object: it was aborted, by a \
                         lifecycle rule of the bucket or by another job with a sink of the same uid in this place"
                    )));
                }
                Err(error) => return Err(failed("looking up", bucket, &key, &error)),
            },
            Err(error) => return Err(failed("completing the upload of", bucket, &key, &error)),
        }
        client.delete(&Path::from(marker))
    }
}
