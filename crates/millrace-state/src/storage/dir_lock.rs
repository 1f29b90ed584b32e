//! Which process a directory belongs to.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

/// The file in a directory whose lock its process holds while it lives.
pub const LOCK: &str = "lock";

/// Takes a directory's lock, which goes with the file. `None` where another process has it.
pub fn try_lock(directory: &Path) -> io::Result<Option<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(directory.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
