//! State that was restored from a backend's files.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{Error, Result};

use super::{KeyedStateStore, bytes_access::SharedBackend};
use crate::{
    backend::{BytesSnapshot, FileBackend, KeyedBackend, KeyedBackendContext, LocalFiles, StateBackend},
    snapshot::Entry,
    storage::{LocalCopies, UploadedFiles},
};

/// Where the part of a snapshot is that its backend had in files.
pub enum RestoredFiles {
    /// There is none.
    None,
    /// It is read entry by entry.
    Read(Box<dyn BytesSnapshot>),
    /// The store's own backend has gone on from the files.
    Adopted {
        /// The states whose entries expire, by their ids in the snapshot.
        expiring: Vec<u16>,
    },
}

impl KeyedStateStore {
    /// Opens the state of a subtask in a backend that goes on from the files of one snapshot; `snapshot` is what is not in
    /// them. They may hold more key groups than the subtask's, but not fewer.
    pub fn adopt(
        backend: &dyn StateBackend,
        context: KeyedBackendContext,
        origin: &str,
        snapshot: Bytes,
        files: LocalFiles,
        expiring: Vec<u16>,
    ) -> Result<Self> {
        let opened = files_of(backend)?.adopt(&context, files).map_err(|error| error.context(origin))?;
        let store = Self::over(backend, KeyedBackend::Bytes(opened), context)?;
        store.restore_with(origin, snapshot, RestoredFiles::Adopted { expiring })?;
        Ok(store)
    }

    /// Adds a snapshot that is partly in files of `written_by`, as [`Self::restore`] does one that is not.
    pub fn restore_files(
        &self,
        origin: &str,
        snapshot: Bytes,
        written_by: &dyn StateBackend,
        files: LocalFiles,
    ) -> Result<()> {
        let read = Self::read_files(written_by, &self.inner.context, files).map_err(|error| error.context(origin))?;
        self.restore_with(origin, snapshot, RestoredFiles::Read(read))
    }

    /// Reads the files that a backend has written for a snapshot.
    pub fn read_files(
        written_by: &dyn StateBackend,
        context: &KeyedBackendContext,
        files: LocalFiles,
    ) -> Result<Box<dyn BytesSnapshot>> {
        files_of(written_by)?.read(context, files)
    }

    /// A directory to fetch the files into that a backend has written, and what it has of them already.
    pub fn place_for_files(
        written_by: &dyn StateBackend,
        context: &KeyedBackendContext,
    ) -> Result<(LocalFiles, Option<Arc<LocalCopies>>)> {
        let files = files_of(written_by)?;
        Ok((files.directory(context)?, files.copies()?))
    }

    /// What of the backend's files is in the store.
    pub fn uploaded_files(&self) -> &UploadedFiles {
        &self.inner.uploaded
    }
}

fn files_of(backend: &dyn StateBackend) -> Result<&dyn FileBackend> {
    backend.files().ok_or_else(|| {
        Error::invalid(format!("state backend {:?} is said to have written files, and has none", backend.name()))
    })
}

impl RestoredFiles {
    /// Hands the entries that state `written` has in these key groups to `absorb`, unless the backend has them as state
    /// `id` already.
    pub(super) fn load(
        &mut self,
        written: u16,
        id: u16,
        groups: impl Iterator<Item = u16>,
        backend: Option<&SharedBackend>,
        absorb: &mut dyn FnMut(u16, &Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut scan = |files: &mut dyn BytesSnapshot, groups: &mut dyn Iterator<Item = u16>| {
            for key_group in groups {
                files.scan(written, key_group, &mut |at, value, expiry| {
                    absorb(key_group, &Entry { expiry, ..Entry::new(at.key, at.sub_key, value) })
                })?;
            }
            Ok(())
        };
        let mut groups = groups;
        match (self, backend) {
            (Self::Read(files), _) => scan(&mut **files, &mut groups),
            // It has them in another encoding, or under another id: they are moved.
            (Self::Adopted { .. }, Some(backend)) if written != id => {
                let mut before = backend.borrow_mut().snapshot()?;
                scan(&mut *before, &mut groups)?;
                drop(before);
                backend.borrow_mut().clear_state(written)
            }
            _ => Ok(()),
        }
    }
}
