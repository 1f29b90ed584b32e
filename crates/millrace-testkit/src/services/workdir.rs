//! Folders for the data and logs of services.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use super::{Result, cache_dir, io_error};

/// A folder of a test process.
///
/// It goes when it is dropped, but stays when a test fails, for a look at the
/// logs. What stays, or belonged to a process that was killed or to a service
/// shared by a whole process, goes when the next one is made: each is locked
/// for as long as its process lives.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    _lock: File,
}

impl WorkDir {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let root = cache_dir().join("run");
        let failed = || io_error(format!("making a folder in {}", root.display()));
        fs::create_dir_all(&root).map_err(failed())?;

        // Held while an unlocked folder is either swept or not locked yet.
        let root_lock = File::create(root.join("lock")).map_err(failed())?;
        root_lock.lock().map_err(failed())?;
        sweep(&root);

        let path = root.join(format!("{name}-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&path).map_err(failed())?;
        let lock = File::create(path.join("lock")).map_err(failed())?;
        lock.lock().map_err(failed())?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes the folders of processes that are gone.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if File::open(entry.path().join("lock")).is_ok_and(|lock| lock.try_lock().is_ok()) {
            // One that cannot be removed is only in the way of disk space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("logs are in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
