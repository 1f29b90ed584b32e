//! Snapshots that are files of the backend: what one checkpoint has written, the next only refers to.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use millrace_core::Result;

use super::{BytesBackend, BytesSnapshot, KeyedBackendContext};
use crate::storage::LocalCopies;

/// A file of a snapshot on the local disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendFile {
    /// What the backend calls it; unique within the snapshot.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Whether a file of this name never changes, in this state's whole life and that of states that go on from it.
    pub immutable: bool,
}

/// The files of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// Those that hold all entries.
    pub files: Vec<BackendFile>,
    /// Immutable ones that only later snapshots will need. They are written ahead, so that none of these has to write them
    /// all.
    pub ahead: Vec<BackendFile>,
}

/// Files on the local disk. They go with it.
#[derive(Debug)]
pub struct LocalFiles {
    root: PathBuf,
    files: PathBuf,
}

impl LocalFiles {
    /// Files that are, or are to be, in the directory `files`; below `root`, which goes with them.
    pub fn new(root: PathBuf, files: PathBuf) -> Self {
        Self { root, files }
    }

    /// The directory with the files.
    pub fn directory(&self) -> &Path {
        &self.files
    }

    /// The directory that goes with them.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for LocalFiles {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("local directory {} could not be removed: {error}", self.root.display());
            }
            _ => {}
        }
    }
}

/// A backend that takes snapshots as files.
pub trait FileBackend {
    /// A new, empty directory to fetch the files of one snapshot into.
    fn directory(&self, context: &KeyedBackendContext) -> Result<LocalFiles>;

    /// Opens state that goes on from the files of a snapshot. Entries outside the context's key groups may be in them.
    fn adopt(&self, context: &KeyedBackendContext, files: LocalFiles) -> Result<Box<dyn BytesBackend>>;

    /// Reads the files of a snapshot.
    fn read(&self, context: &KeyedBackendContext, files: LocalFiles) -> Result<Box<dyn BytesSnapshot>>;

    /// Where copies of files are kept that are in the store, so that a restore need not fetch them.
    fn copies(&self) -> Result<Option<Arc<LocalCopies>>> {
        Ok(None)
    }
}
