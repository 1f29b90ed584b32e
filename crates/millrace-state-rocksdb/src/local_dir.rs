//! The directory of this process in which RocksDB works.
//!
//! ```text
//! <localdir>/lock                        held while the process lives
//!           /attempts/<uid>-<subtask>-<n>/  one open state, gone with it
//!           /copies/<name in the store>     files of the newest checkpoint, so that a restore need not fetch them
//! ```
//!
//! The attempts of a process that was killed are swept by the next one that gets the lock.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use millrace_core::{Error, Result};
use millrace_state::{
    backend::LocalFiles,
    storage::{LOCK, LocalCopies, lock_of_dead, make_locked, try_lock},
};

use crate::error::{LOCAL_DIRECTORY, local_error};

const ATTEMPTS: &str = "attempts";
const COPIES: &str = "copies";
/// What the directories of processes begin with that were given none.
const TEMPORARY: &str = "millrace-rocksdb-";
const OPENING: &str = "opening the local state directory";

/// A directory that no other process uses.
#[derive(Debug)]
pub(crate) struct LocalDirectory {
    path: PathBuf,
    /// The lock goes with the file.
    _lock: File,
    temporary: bool,
    opened: AtomicU64,
    copies: Arc<LocalCopies>,
}

impl LocalDirectory {
    /// Takes `configured`, or a directory of its own among the system's temporary files, and sweeps what dead processes
    /// have left there.
    pub(crate) fn open(configured: Option<&Path>) -> Result<Self> {
        match configured {
            Some(path) => Self::configured(path),
            None => Self::temporary(&std::env::temp_dir()),
        }
    }

    fn configured(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| local_error(OPENING, path, &error))?;
        // Whatever the process's working directory is later.
        let path = path.canonicalize().map_err(|error| local_error(OPENING, path, &error))?;
        let Some(lock) = try_lock(&path).map_err(|error| local_error(OPENING, &path, &error))? else {
            return Err(in_use(&path));
        };
        remove(&path.join(ATTEMPTS)).map_err(|error| local_error("sweeping dead attempts", &path, &error))?;
        Self::locked(path, lock, false)
    }

    fn temporary(parent: &Path) -> Result<Self> {
        sweep_temporary(parent);
        let (path, lock) = make_locked(parent, TEMPORARY).map_err(|error| local_error(OPENING, parent, &error))?;
        Self::locked(path, lock, true)
    }

    fn locked(path: PathBuf, mut lock: File, temporary: bool) -> Result<Self> {
        let failed = |error| local_error(OPENING, &path, &error);
        lock.set_len(0).map_err(failed)?;
        write!(lock, "{}", std::process::id()).map_err(failed)?;
        fs::create_dir_all(path.join(ATTEMPTS)).map_err(failed)?;
        let copies = Arc::new(LocalCopies::open(path.join(COPIES))?);
        Ok(Self { path, _lock: lock, temporary, opened: AtomicU64::new(0), copies })
    }

    /// The local copies of files that are in the store.
    pub(crate) fn copies(&self) -> &Arc<LocalCopies> {
        &self.copies
    }

    /// A new directory for the state of one subtask.
    pub(crate) fn attempt(&self, uid: &str, subtask: u32) -> Result<LocalFiles> {
        let name: String = uid.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let root = self.path.join(ATTEMPTS).join(format!("{name}-{subtask}-{number}"));
        let files = root.join("db");
        fs::create_dir_all(&files)
            .map_err(|error| local_error("making a directory for local state", &files, &error))?;
        Ok(LocalFiles::new(root, files))
    }
}

impl Drop for LocalDirectory {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!("local state directory {} could not be removed: {error}", self.path.display());
        }
    }
}

/// Removes a directory; one that is absent is removed already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn in_use(directory: &Path) -> Error {
    let mut holder = String::new();
    let read = File::open(directory.join(LOCK)).and_then(|mut lock| lock.read_to_string(&mut holder));
    let holder = match read {
        Ok(_) if !holder.is_empty() => format!("process {holder}"),
        _ => "another process".to_string(),
    };
    // Not for ever: it may be the taskmanager that this one replaces, and still ending.
    Error::external(format!(
        "local state directory {} is in use by {holder}: give each taskmanager a {LOCAL_DIRECTORY} of its own",
        directory.display()
    ))
}

/// Removes the temporary directories of processes that are gone.
fn sweep_temporary(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY));
        let path = entry.path();
        if ours
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(_lock) = lock_of_dead(&path)
        {
            let _ = remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_by_name_and_may_come_after_the_first() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = LocalDirectory::open(Some(&path)).unwrap();
        let refused = LocalDirectory::open(Some(&path)).unwrap_err();
        let process = format!("process {}", std::process::id());
        assert!(refused.message.contains("state") && refused.message.contains(&process), "{refused}");
        assert!(refused.message.contains(LOCAL_DIRECTORY) && refused.retryable, "{refused}");
        drop(first);
        LocalDirectory::open(Some(&path)).unwrap();
    }

    #[test]
    fn dead_attempts_are_swept_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let left = {
            let directory = LocalDirectory::open(Some(parent.path())).unwrap();
            fs::write(parent.path().join("users-own"), "x").unwrap();
            let left = directory.attempt("an operator/../", 3).unwrap();
            fs::write(left.directory().join("file"), "x").unwrap();
            assert_eq!(left.root().parent().unwrap(), parent.path().canonicalize().unwrap().join(ATTEMPTS));
            let root = left.root().to_path_buf();
            std::mem::forget(left);
            root
        };
        assert!(left.exists());
        let directory = LocalDirectory::open(Some(parent.path())).unwrap();
        assert!(!left.exists() && parent.path().join("users-own").exists());
        let (one, other) = (directory.attempt("a", 0).unwrap(), directory.attempt("a", 0).unwrap());
        assert_ne!(one.root(), other.root());
    }

    #[test]
    fn temporary_directories_go_with_their_process() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join(format!("{TEMPORARY}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "1").unwrap();
        let living = LocalDirectory::temporary(parent.path()).unwrap();
        let other = LocalDirectory::temporary(parent.path()).unwrap();
        assert!(!dead.exists() && living.path.exists() && other.path.exists());
        let path = living.path.clone();
        drop(living);
        assert!(!path.exists() && other.path.exists());
    }

    #[test]
    fn a_path_that_is_no_directory_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = LocalDirectory::open(Some(file.path())).unwrap_err();
        assert!(error.message.contains(file.path().to_str().unwrap()), "{error}");
        assert!(error.message.contains(LOCAL_DIRECTORY), "{error}");
    }
}
