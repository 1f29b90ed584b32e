//! State that a backend has in files of its own, as a snapshot that any program reads.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::Bytes;
use millrace_core::{Error, Result, clock::Clock};
use tokio::runtime::Handle;

use crate::{
    KeyedStateStore, SharedFile,
    backend::{BytesSnapshot, KeyedBackendContext, StateBackend},
    snapshot::{Entry, SnapshotBytes, SnapshotHeader, SnapshotReader, SnapshotWriter, StateKind},
    storage::CheckpointStorage,
};

/// What is needed to read a subtask's files.
pub(super) struct FilesOfBackend {
    pub(super) backend: std::sync::Arc<dyn StateBackend>,
    pub(super) files: Vec<SharedFile>,
    pub(super) storage: CheckpointStorage,
    pub(super) runtime: Handle,
}

impl FilesOfBackend {
    /// Fetches the files, and writes what is in them as a snapshot, which goes with its reader. It lies where the backend
    /// has its files.
    pub(super) fn translate(&self, header: &SnapshotHeader, subtask: u32) -> Result<SnapshotReader> {
        let context = KeyedBackendContext {
            uid: header.uid.clone(),
            operator: header.uid.to_string(),
            subtask,
            max_parallelism: header.max_parallelism,
            range: header.range,
            key_schema: None,
            clock: Clock::system(),
        };
        let (files, copies) = KeyedStateStore::place_for_files(&*self.backend, &context)?;
        self.runtime.block_on(self.storage.fetch_shared(&self.files, files.directory(), copies.as_ref()))?;
        let path = files.root().join("translated");
        let mut entries = KeyedStateStore::read_files(&*self.backend, &context, files)?;
        SnapshotReader::open(write(header, &mut *entries, &path)?)
    }
}

/// Writes all that is in the files to a file that nobody else sees.
fn write(header: &SnapshotHeader, entries: &mut dyn BytesSnapshot, path: &Path) -> Result<TranslatedSnapshot> {
    let failed = |error| Error::external(format!("writing {}: {error}", path.display()));
    let file = File::options().read(true).write(true).create_new(true).open(path).map_err(failed)?;
    fs::remove_file(path).map_err(failed)?;
    let mut buffered = BufWriter::new(&file);
    let mut writer = SnapshotWriter::new(&mut buffered, header)?;
    for state in header.states.iter().filter(|state| state.kind != StateKind::Timer) {
        for key_group in header.range.iter() {
            entries.scan(state.id, key_group, &mut |at, value, expiry| {
                writer.entry(state.id, key_group, &Entry { expiry, ..Entry::new(at.key, at.sub_key, value) })
            })?;
        }
    }
    let size = writer.finish()?.size;
    buffered.flush().map_err(failed)?;
    drop(buffered);
    Ok(TranslatedSnapshot { file, size })
}

struct TranslatedSnapshot {
    file: File,
    size: u64,
}

impl SnapshotBytes for TranslatedSnapshot {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        let read = self.file.read_exact_at(&mut bytes, range.start);
        read.map_err(|error| Error::external(format!("reading a snapshot's translation: {error}")))?;
        Ok(bytes.into())
    }
}
