//! Local copies of shared files: what lies on this disk need not be fetched.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use millrace_core::{Error, Result};

use super::shared_files::Uploaded;
use crate::StateFile;

const READ_BYTES: usize = 1 << 20;

/// A directory with hard links to a backend's files, under the names that they have in the store. It belongs to one
/// process, and may be there from an earlier one.
#[derive(Debug)]
pub struct LocalCopies {
    directory: PathBuf,
    /// The subtasks of this process: what none of them refers to goes.
    users: Mutex<Vec<Weak<Mutex<Uploaded>>>>,
}

impl LocalCopies {
    /// Copies in this directory, which is made if it is absent. It must be on the disk of the backend's files.
    pub fn open(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).map_err(|error| {
            Error::external(format!("directory {} for local copies can't be made: {error}", directory.display()))
        })?;
        Ok(Self { directory, users: Mutex::default() })
    }

    pub(super) fn serve(&self, user: &Arc<Mutex<Uploaded>>) {
        self.users().push(Arc::downgrade(user));
    }

    /// Keeps a copy of a file that is in the store. Failing to is no failure of anybody.
    pub(super) fn keep(&self, file: &StateFile, path: &Path) {
        match fs::hard_link(path, self.directory.join(&file.name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                tracing::debug!(file = %path.display(), %error, "no local copy");
            }
            _ => {}
        }
    }

    /// Links the copy of a file to another place; false if there is no copy, or a damaged one.
    pub(super) fn link(&self, file: &StateFile, to: &Path) -> bool {
        let copy = self.directory.join(&file.name);
        // Also one of this process's own: it is the file whose damage may be why the state is restored.
        match is_whole(&copy, file) {
            Ok(true) => fs::hard_link(&copy, to).is_ok(),
            Ok(false) => {
                tracing::warn!(copy = %copy.display(), "a local copy is damaged: it is fetched anew");
                let _ = fs::remove_file(&copy);
                false
            }
            Err(_) => false,
        }
    }

    /// Removes the copies that no subtask refers to any more.
    pub(super) fn prune(&self) {
        let mut needed = BTreeSet::new();
        self.users().retain(|user| {
            let Some(user) = user.upgrade() else { return false };
            user.lock().unwrap_or_else(PoisonError::into_inner).names(&mut needed);
            true
        });
        let Ok(copies) = fs::read_dir(&self.directory) else { return };
        for copy in copies.flatten() {
            if copy.file_name().to_str().is_some_and(|name| !needed.contains(name)) {
                let _ = fs::remove_file(copy.path());
            }
        }
    }

    fn users(&self) -> MutexGuard<'_, Vec<Weak<Mutex<Uploaded>>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file is what was written. A machine that went down may have left anything.
fn is_whole(path: &Path, expected: &StateFile) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let (mut buffer, mut crc, mut size) = (vec![0; READ_BYTES], crc32fast::Hasher::new(), 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, crc.finalize()) == (expected.size, expected.crc32)),
            read => {
                crc.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}
