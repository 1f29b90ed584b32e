//! Local copies of state files: a task that goes back to the newest checkpoint on the machine where it ran reads them
//! instead of the store.
//!
//! ```text
//! <root>/millrace-local-<job>-<unique>/lock            held while the process lives
//!                                     /chk-<n>-<name>  a state file of checkpoint n, as it is in the store
//! ```
//!
//! Who starts takes over what dead processes of the same job have left there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use millrace_core::{
    Error, Result,
    ids::{CheckpointId, JobId},
};

use super::{checkpoint_directory, lock_of_dead, make_locked};

const PREFIX: &str = "millrace-local-";
/// What an unfinished copy ends with.
const PART: &str = ".part";
/// What a dead process of another job has left is nobody's after so long.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The local copies of one process. Failing to keep one is no failure of anybody: the store has it.
#[derive(Debug)]
pub struct LocalState {
    directory: PathBuf,
    /// The lock goes with the file.
    _lock: File,
    /// The copies, and the checkpoints that they belong to.
    copies: Mutex<BTreeMap<String, CheckpointId>>,
}

impl LocalState {
    /// Makes a directory for a job's copies below `root`, and takes over those of dead processes.
    pub fn open(root: &Path, job: JobId) -> Result<Self> {
        let failed = |what: &str, error: io::Error| {
            let why = format!("{what} in local state directory {}: {error}", root.display());
            Error::external(format!("{why}; taskmanager.state.local.root-dirs names it"))
        };
        let of_job = format!("{PREFIX}{job}-");
        let made = fs::create_dir_all(root).and_then(|()| make_locked(root, &of_job));
        let (directory, lock) = made.map_err(|error| failed("making a directory", error))?;
        let local = Self { directory, _lock: lock, copies: Mutex::default() };
        for entry in fs::read_dir(root).map_err(|error| failed("listing", error))?.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && path != local.directory) else {
                continue;
            };
            if let Some(_lock) = lock_of_dead(&path) {
                if name.starts_with(&of_job) {
                    local.take_over(&path);
                    let _ = fs::remove_dir_all(&path);
                } else if is_forgotten(&path) {
                    let _ = fs::remove_dir_all(&path);
                }
            }
        }
        Ok(local)
    }

    /// A copy that is about to be written; `None` where that is not possible.
    pub fn writer(&self, checkpoint: CheckpointId, name: &str) -> Option<LocalStateWriter> {
        let name = copy_name(&checkpoint_directory(checkpoint), name);
        let part = self.directory.join(format!("{name}{PART}"));
        match File::create(&part) {
            Ok(file) => Some(LocalStateWriter { file: BufWriter::new(file), part, checkpoint, name, whole: true }),
            Err(error) => {
                tracing::debug!(copy = %part.display(), %error, "no local copy");
                None
            }
        }
    }

    /// The copy is complete.
    pub fn keep(&self, writer: LocalStateWriter) {
        let LocalStateWriter { file, part, checkpoint, name, whole } = writer;
        let kept = match file.into_inner() {
            Ok(_) if whole => fs::rename(&part, self.directory.join(&name)),
            Ok(_) => Err(io::Error::other("it is not whole")),
            Err(error) => Err(error.into_error()),
        };
        match kept {
            Ok(()) => {
                self.copies().insert(name, checkpoint);
            }
            Err(error) => {
                tracing::debug!(copy = name, %error, "no local copy");
                let _ = fs::remove_file(&part);
            }
        }
    }

    /// Whether there is a copy of a state file.
    pub fn has(&self, directory: &str, name: &str) -> bool {
        directory.rsplit('/').next().is_some_and(|checkpoint| self.copies().contains_key(&copy_name(checkpoint, name)))
    }

    /// Reads the copy of a state file; `None` if there is none, or a damaged one.
    pub fn read(&self, directory: &str, name: &str, size: u64, crc32: u32) -> Option<Bytes> {
        let checkpoint = directory.rsplit('/').next()?;
        let path = self.directory.join(copy_name(checkpoint, name));
        let mut bytes = Vec::new();
        File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).ok()?;
        if (bytes.len() as u64, crc32fast::hash(&bytes)) == (size, crc32) {
            return Some(bytes.into());
        }
        tracing::warn!(copy = %path.display(), "a local copy is damaged: the store's file is read");
        let _ = fs::remove_file(&path);
        None
    }

    /// The checkpoint is complete: copies of earlier ones are of no use.
    pub fn completed(&self, checkpoint: CheckpointId) {
        let mut copies = self.copies();
        let past: Vec<_> = copies.iter().filter(|(_, of)| **of < checkpoint).map(|(name, _)| name.clone()).collect();
        for name in past {
            copies.remove(&name);
            let _ = fs::remove_file(self.directory.join(name));
        }
    }

    fn take_over(&self, from: &Path) {
        let Ok(entries) = fs::read_dir(from) else { return };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let checkpoint = name.strip_prefix("chk-").and_then(|rest| rest.split('-').next()?.parse().ok());
            let Some(checkpoint) = checkpoint.filter(|_| !name.ends_with(PART)) else { continue };
            if fs::rename(entry.path(), self.directory.join(&name)).is_ok() {
                self.copies().insert(name, CheckpointId(checkpoint));
            }
        }
    }

    fn copies(&self) -> MutexGuard<'_, BTreeMap<String, CheckpointId>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy that is being written.
#[derive(Debug)]
pub struct LocalStateWriter {
    file: BufWriter<File>,
    part: PathBuf,
    checkpoint: CheckpointId,
    name: String,
    whole: bool,
}

impl LocalStateWriter {
    /// Appends bytes. What can't be written makes no copy, and no error.
    pub fn write(&mut self, bytes: &[u8]) {
        self.whole = self.whole && self.file.write_all(bytes).is_ok();
    }
}

fn copy_name(checkpoint: &str, name: &str) -> String {
    format!("{checkpoint}-{name}")
}

fn is_forgotten(directory: &Path) -> bool {
    let modified = fs::metadata(directory).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > FORGOTTEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(7);
    const ONE: CheckpointId = CheckpointId(1);
    const TWO: CheckpointId = CheckpointId(2);

    fn keep(local: &LocalState, checkpoint: CheckpointId, bytes: &[u8]) {
        let mut writer = local.writer(checkpoint, "a.state").unwrap();
        writer.write(bytes);
        local.keep(writer);
    }

    fn read(local: &LocalState, checkpoint: CheckpointId, bytes: &[u8]) -> Option<Bytes> {
        let directory = format!("s3://bucket/{JOB}/chk-{checkpoint}");
        local.read(&directory, "a.state", bytes.len() as u64, crc32fast::hash(bytes))
    }

    #[test]
    fn copies_are_kept_until_a_later_checkpoint_is_complete() {
        let root = tempfile::tempdir().unwrap();
        let local = LocalState::open(root.path(), JOB).unwrap();
        keep(&local, ONE, b"one");
        keep(&local, TWO, b"two");
        local.completed(ONE);
        assert_eq!(
            (read(&local, ONE, b"one").as_deref(), read(&local, TWO, b"two").as_deref()),
            (Some(&b"one"[..]), Some(&b"two"[..]))
        );
        local.completed(TWO);
        assert_eq!((read(&local, ONE, b"one"), read(&local, TWO, b"two").is_some()), (None, true));
    }

    #[test]
    fn a_copy_that_is_not_what_the_store_has_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let local = LocalState::open(root.path(), JOB).unwrap();
        keep(&local, ONE, b"torn");
        assert_eq!(read(&local, ONE, b"whole"), None);
        assert_eq!(read(&local, ONE, b"torn"), None, "it was removed");
        let mut unfinished = local.writer(TWO, "a.state").unwrap();
        unfinished.write(b"two");
        drop(unfinished);
        assert_eq!(read(&local, TWO, b"two"), None);
    }

    #[test]
    fn what_a_dead_process_left_is_taken_over_and_that_of_a_living_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let living = LocalState::open(root.path(), JOB).unwrap();
        keep(&living, ONE, b"living");
        let dead = LocalState::open(root.path(), JOB).unwrap();
        keep(&dead, TWO, b"dead");
        drop(dead);
        let other = LocalState::open(root.path(), JobId(8)).unwrap();
        assert_eq!(read(&other, TWO, b"dead"), None, "another job's");
        let next = LocalState::open(root.path(), JOB).unwrap();
        assert_eq!(read(&next, TWO, b"dead").as_deref(), Some(&b"dead"[..]));
        assert_eq!(read(&next, ONE, b"living"), None);
        assert_eq!(read(&living, ONE, b"living").as_deref(), Some(&b"living"[..]));
        next.completed(CheckpointId(3));
        assert_eq!(read(&next, TWO, b"dead"), None);
    }

    #[test]
    fn those_that_start_at_once_leave_each_other_alone() {
        let root = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let open = || (0..200).for_each(|_| drop(LocalState::open(root.path(), JOB).unwrap()));
            for _ in 0..4 {
                scope.spawn(open);
            }
        });
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = LocalState::open(file.path(), JOB).unwrap_err();
        assert!(error.message.contains("taskmanager.state.local.root-dirs"), "{error}");
    }
}
