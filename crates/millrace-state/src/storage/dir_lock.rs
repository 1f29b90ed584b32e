//! Which process a directory belongs to.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
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

/// Makes a directory of this process's own below `parent`, with a name that begins with `prefix`, and takes its lock.
pub fn make_locked(parent: &Path, prefix: &str) -> io::Result<(PathBuf, File)> {
    loop {
        let path = parent.join(format!("{prefix}{}", uuid::Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&path)?;
        // A sweep of another process may have found the lock's file before it was locked.
        if let Some(lock) = try_lock(&path)?.filter(|_| path.join(LOCK).exists()) {
            return Ok((path, lock));
        }
    }
}

/// The lock of a directory that a process has made with [`make_locked`] and has died. Another user's can't be opened,
/// and is left alone; one without a lock's file is being made.
pub fn lock_of_dead(directory: &Path) -> Option<File> {
    if directory.join(LOCK).exists() { try_lock(directory).ok().flatten() } else { None }
}
