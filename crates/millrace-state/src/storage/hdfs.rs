//! HDFS, by its own protocol, without Java.
//!
//! A create is a rename that the NameNode refuses where the name is taken. Directories are not objects: they go with the
//! last file in them, or a NameNode would have one more for each checkpoint that ever was.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use hdfs_native_object_store::HdfsObjectStore;
use millrace_core::{Error, Result};
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, path::Path,
};

use super::UNFINISHED;

/// A client for a NameNode or, where Hadoop's own configuration names one, a nameservice. Nothing is sent yet.
pub(super) fn open(authority: &str, root: &Path) -> Result<HdfsStore> {
    let built = ClientBuilder::new().with_url(format!("hdfs://{authority}")).build();
    let client = built.map_err(|error| Error::invalid(format!("checkpoint directory hdfs://{authority}: {error}")))?;
    Ok(HdfsStore { files: HdfsObjectStore::new(client.clone()), client: Arc::new(client), root: absolute(root) })
}

/// A file system of HDFS as an object store.
#[derive(Clone, Debug)]
pub(super) struct HdfsStore {
    files: HdfsObjectStore,
    client: Arc<Client>,
    /// The checkpoint directory: it and what is above it is not ours to remove.
    root: String,
}

impl fmt::Display for HdfsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HdfsStore")
    }
}

fn absolute(path: &Path) -> String {
    format!("/{path}")
}

fn store_error(error: HdfsError) -> StoreError {
    match error {
        HdfsError::FileNotFound(ref path) => StoreError::NotFound { path: path.clone(), source: Box::new(error) },
        HdfsError::AlreadyExists(ref path) => StoreError::AlreadyExists { path: path.clone(), source: Box::new(error) },
        error => StoreError::Generic { store: "HDFS", source: Box::new(error) },
    }
}

impl HdfsStore {
    /// Writes a file that nobody else knows yet.
    async fn stage(&self, path: &str, payload: PutPayload) -> Result<(), HdfsError> {
        let mut writer = self.client.create(path, WriteOptions::default()).await?;
        for bytes in payload {
            writer.write(bytes).await?;
        }
        writer.close().await
    }

    /// Removes a file, and the directories above it that are empty then.
    async fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.client.delete(&absolute(path), false).await.map_err(store_error)?;
        let mut above = absolute(path);
        while let Some((directory, _)) = above.rsplit_once('/')
            && directory.len() > self.root.len()
        {
            above = directory.to_string();
            // The NameNode refuses where anything is in it.
            if !matches!(self.client.delete(&above, false).await, Ok(true)) {
                break;
            }
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for HdfsStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult, StoreError> {
        let overwrite = match options.mode {
            PutMode::Create => false,
            PutMode::Overwrite => true,
            PutMode::Update(_) => {
                return Err(StoreError::NotImplemented {
                    operation: "conditional update".to_string(),
                    implementer: self.to_string(),
                });
            }
        };
        let target = absolute(location);
        let staged = format!("{target}.{}{UNFINISHED}", uuid::Uuid::new_v4().simple());
        let written = match self.stage(&staged, payload).await {
            Ok(()) => self.client.rename(&staged, &target, overwrite).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            // What stays is swept.
            let _ = self.client.delete(&staged, false).await;
            return Err(store_error(error));
        }
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, StoreError> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult, StoreError> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path, StoreError>>,
    ) -> BoxStream<'static, Result<Path, StoreError>> {
        let store = self.clone();
        let remove = move |location: Path| {
            let store = store.clone();
            async move { store.remove(&location).await.map(|()| location) }
        };
        locations.and_then(remove).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, StoreError> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<(), StoreError> {
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<(), StoreError> {
        self.files.rename_opts(from, to, options).await
    }
}
