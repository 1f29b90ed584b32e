//! Proof that a store has what the log stands on.

use bytes::Bytes;
use futures::TryStreamExt;
use millrace_core::{Error, Result};
use object_store::{Error as StoreError, ObjectStoreExt};

use super::{CheckpointStorage, Created, start_error};

impl CheckpointStorage {
    /// Proves at a job's start that the store can be written, and that creating an object that exists is refused:
    /// without that, two jobmanagers could both believe to be the only one.
    pub async fn probe(&self) -> Result<()> {
        let name = format!(".probe-{}", uuid::Uuid::new_v4().simple());
        let path = self.inner.place.prefix.clone().join(name);
        let uri = &self.inner.uri;
        let explained = |error: StoreError| start_error(format!("checkpoint storage {uri}"), &error);
        let create = |text: &'static [u8]| self.try_create(&path, Bytes::from_static(text));
        let (first, second) = (b"first", b"second");
        // A conflict on a name that nobody else has is the answer to a repeated request.
        create(first).await.map_err(explained)?;
        let conflict = create(second).await.map_err(explained)?;
        let kept = self.bounded(async { self.store().get(&path).await?.bytes().await }).await.map_err(explained)?;
        // What a running job needs as well: where it is not allowed, better to say so now.
        self.bounded(self.store().delete(&path)).await.map_err(explained)?;
        self.bounded(async { self.store().list(Some(&self.inner.place.prefix)).try_next().await })
            .await
            .map_err(explained)?;
        if conflict != Created::Exists || kept.as_ref() != first {
            return Err(Error::invalid(format!(
                "checkpoint storage {uri}: the store does not refuse to create what exists \
                 (If-None-Match on S3, hard links on a file system, renames on HDFS), and without that two jobmanagers could write \
                 over each other. Use another store, or a newer version of it"
            )));
        }
        Ok(())
    }
}
