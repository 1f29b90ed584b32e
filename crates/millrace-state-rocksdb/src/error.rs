//! RocksDB's errors with their class.

use std::{io, path::Path};

use millrace_core::Error;
use rocksdb::ErrorKind;

/// The setting that names the local directory.
pub(crate) const LOCAL_DIRECTORY: &str = "state.backend.rocksdb.localdir";

/// An error of RocksDB on the database in `directory`. All that a restart from a checkpoint can cure, with state that is
/// fetched anew into another directory, may be tried again.
pub(crate) fn rocksdb_error(what: &str, directory: &Path, error: &rocksdb::Error) -> Error {
    let (shown, text) = (directory.display(), error.to_string());
    match error.kind() {
        ErrorKind::Corruption => {
            Error::external(format!("{what}: the local state in {shown} is damaged, check the disk: {text}"))
        }
        ErrorKind::IOError if text.contains("No space left on device") => disk_full(what, directory),
        ErrorKind::IOError | ErrorKind::TimedOut | ErrorKind::Busy | ErrorKind::TryAgain | ErrorKind::Aborted => {
            Error::external(format!("{what}: RocksDB in {shown}: {text}"))
        }
        _ => Error::internal(format!("{what}: RocksDB in {shown}: {text}")),
    }
}

/// An error of the local file system.
pub(crate) fn local_error(what: &str, path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::StorageFull {
        return disk_full(what, path);
    }
    Error::external(format!(
        "{what}: local path {} can't be used: {error}; {LOCAL_DIRECTORY} must be a directory that this process may write",
        path.display()
    ))
}

fn disk_full(what: &str, path: &Path) -> Error {
    Error::external(format!(
        "{what}: the disk of {} is full: free space on it, or set {LOCAL_DIRECTORY} to a larger one",
        path.display()
    ))
}
