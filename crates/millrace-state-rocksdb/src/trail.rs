//! What incremental snapshots consist of: the database's files as they were at a cut, its *base*, and the runs that the
//! database was given since.
//!
//! A compaction writes what it finds anew, whatever has changed: where the base of each snapshot were the files of its own
//! cut, it would have to upload what all compactions since the last one have written, at times a multiple of what has
//! changed, at times everything at once. A run is uploaded once, and the base goes on only as fast as a share of what is
//! uploaded allows: the files of the next one go ahead, some with each snapshot, until all are there. Flink's changelog
//! over its materialized state (FLIP-158) has the same parts.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use millrace_core::{Error, Result};
use millrace_state::{
    backend::{BackendFile, SnapshotFiles},
    storage::UploadedFiles,
};

use crate::{error::local_error, local_dir};

const RUN: &str = "run-";
const TABLE: &str = ".sst";
/// For each byte that has changed, a snapshot may write so many of files that compactions have made. With fewer there are
/// more runs beside the base: a restore reads them all.
const AHEAD: u64 = 8;
/// Runs may hold so many bytes, or as many as the database has, until the next snapshot begins without any.
const MOST_RUN_BYTES: u64 = 256 << 20;
/// So many they may be. Each is an object in the store.
const MOST_RUNS: usize = 500;

/// The base and the runs of one database.
pub(crate) struct Trail {
    directory: PathBuf,
    parts: Mutex<Parts>,
    /// So many bytes of other files a snapshot may write, however little has changed.
    least_ahead: u64,
    /// What completed checkpoints have.
    uploaded: OnceLock<UploadedFiles>,
}

#[derive(Default)]
struct Parts {
    /// The number of the last run.
    position: u64,
    runs: Vec<Arc<RunFile>>,
    base: Option<Arc<Base>>,
    next: Option<Next>,
    /// How many bases there were.
    bases: u64,
    /// Up to which run there are snapshots.
    listed: u64,
}

/// A run on the disk. The file goes with it.
pub(crate) struct RunFile {
    position: u64,
    file: BackendFile,
}

impl Drop for RunFile {
    fn drop(&mut self) {
        told(&self.file.path, fs::remove_file(&self.file.path));
    }
}

/// The files of a database with all runs up to one. They are links, which go with it.
struct Base {
    position: u64,
    directory: PathBuf,
    files: Vec<BackendFile>,
}

impl Drop for Base {
    fn drop(&mut self) {
        told(&self.directory, local_dir::remove(&self.directory));
    }
}

/// A base that is on its way to the store.
struct Next {
    base: Arc<Base>,
    /// Those of its files that the present base has not.
    missing: Vec<BackendFile>,
    /// So many of them are in snapshots.
    sent: usize,
}

/// The files of one snapshot, which stay as long as it does.
pub(crate) struct Listed {
    pub(crate) files: SnapshotFiles,
    _bases: Vec<Arc<Base>>,
    _runs: Vec<Arc<RunFile>>,
}

impl Trail {
    /// One without a base, in a directory of its own below `root`.
    pub(crate) fn new(root: &Path, least_ahead: u64) -> Result<Self> {
        let directory = root.join("trail");
        fs::create_dir(&directory).map_err(|error| local_error("making a directory for", &directory, &error))?;
        Ok(Self { directory, parts: Mutex::default(), least_ahead, uploaded: OnceLock::new() })
    }

    /// Begins with the files of a snapshot: those in the directory `base`, and runs.
    pub(crate) fn start_from(&self, base: &Path, runs: &[PathBuf]) -> Result<()> {
        let mut parts = self.lock();
        parts.base = Some(self.link(&mut parts, &files_in(base)?)?);
        for run in runs {
            let position = position_of(run)
                .ok_or_else(|| Error::internal(format!("{} does not have the name of a run", run.display())))?;
            parts.runs.push(Arc::new(self.keep_run(run, position)?));
            parts.position = position;
        }
        parts.listed = parts.position;
        Ok(())
    }

    /// From here on, this is what completed checkpoints have.
    pub(crate) fn know(&self, uploaded: &UploadedFiles) {
        let _ = self.uploaded.set(uploaded.clone());
    }

    /// Keeps a link to a run that the database is about to take; none where the next snapshot begins without runs.
    pub(crate) fn keep(&self, run: &Path) -> Result<Option<RunFile>> {
        let parts = self.lock();
        parts.base.is_some().then(|| self.keep_run(run, parts.position + 1)).transpose()
    }

    /// Adds a run that the database, which has `size` bytes, has taken.
    pub(crate) fn add(&self, run: RunFile, size: u64) {
        let mut parts = self.lock();
        parts.position = run.position;
        parts.runs.push(Arc::new(run));
        let bytes = parts.runs.iter().map(|run| run.file.size).sum::<u64>();
        if bytes > MOST_RUN_BYTES.max(size) || parts.runs.len() > MOST_RUNS {
            parts.forget();
        }
    }

    fn keep_run(&self, run: &Path, position: u64) -> Result<RunFile> {
        let name = format!("{RUN}{position:020}{TABLE}");
        let path = self.directory.join(&name);
        let kept = fs::hard_link(run, &path).and_then(|()| fs::metadata(&path));
        let size = kept.map_err(|error| local_error("linking", run, &error))?.len();
        Ok(RunFile { position, file: BackendFile { name, path, size, immutable: true } })
    }

    /// The database was changed otherwise: the next snapshot begins with its files.
    pub(crate) fn forget(&self) {
        self.lock().forget();
    }

    /// What a snapshot consists of whose cut has these files and all runs so far. Snapshots are listed in their order, and what
    /// one has left out none after it names: its checkpoint may have completed, and the store's copy be gone.
    pub(crate) fn list(&self, own: &[BackendFile]) -> Result<Listed> {
        let mut parts = self.lock();
        let changed = parts.runs.iter().filter(|run| run.position > parts.listed).map(|run| run.file.size).sum::<u64>();
        let allowed = self.least_ahead.max(AHEAD * changed);
        parts.listed = parts.position;
        if let Some(next) = parts.next.take_if(|next| next.is_sent()) {
            parts.go_on(next.base);
        } else if parts.base.is_none() || self.to_upload(own) <= allowed {
            let base = self.link(&mut parts, own)?;
            parts.go_on(base);
        } else if parts.next.is_none() {
            let base = self.link(&mut parts, own)?;
            let missing = parts.missing(&base);
            parts.next = Some(Next { base, missing, sent: 0 });
        }
        if let Some(next) = &mut parts.next {
            // What a checkpoint that failed has sent is to be uploaded again.
            next.send(allowed.saturating_sub(self.to_upload(next.ahead())));
        }
        Ok(parts.snapshot())
    }

    /// How many bytes of these no completed checkpoint has.
    fn to_upload(&self, files: &[BackendFile]) -> u64 {
        let is_there = |file: &BackendFile| self.uploaded.get().is_some_and(|uploaded| uploaded.has(file));
        files.iter().filter(|file| file.immutable && !is_there(file)).map(|file| file.size).sum()
    }

    /// Links files into the directory of a new base.
    fn link(&self, parts: &mut Parts, files: &[BackendFile]) -> Result<Arc<Base>> {
        parts.bases += 1;
        let directory = self.directory.join(format!("base-{}", parts.bases));
        fs::create_dir(&directory).map_err(|error| local_error("making a directory for", &directory, &error))?;
        let mut base = Base { position: parts.position, directory, files: Vec::with_capacity(files.len()) };
        for file in files {
            let path = base.directory.join(&file.name);
            // RocksDB may go on writing to the others.
            let linked = match file.immutable {
                true => fs::hard_link(&file.path, &path),
                false => fs::copy(&file.path, &path).map(drop),
            };
            linked.map_err(|error| local_error("linking", &file.path, &error))?;
            base.files.push(BackendFile { path, ..file.clone() });
        }
        Ok(Arc::new(base))
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    fn forget(&mut self) {
        (self.base, self.next) = (None, None);
        self.runs.clear();
    }

    /// Takes another base.
    fn go_on(&mut self, base: Arc<Base>) {
        self.runs.retain(|run| run.position > base.position);
        (self.base, self.next) = (Some(base), None);
    }

    /// Which files of a base the present one has not.
    fn missing(&self, next: &Base) -> Vec<BackendFile> {
        let known: BTreeSet<_> = self.base.iter().flat_map(|base| &base.files).map(|file| &file.name).collect();
        next.files.iter().filter(|file| file.immutable && !known.contains(&file.name)).cloned().collect()
    }

    fn snapshot(&self) -> Listed {
        let base = self.base.iter().flat_map(|base| &base.files);
        let files = base.chain(self.runs.iter().map(|run| &run.file)).cloned().collect();
        let ahead = self.next.iter().flat_map(Next::ahead).cloned().collect();
        let bases = self.base.iter().chain(self.next.iter().map(|next| &next.base)).cloned().collect();
        Listed { files: SnapshotFiles { files, ahead }, _bases: bases, _runs: self.runs.clone() }
    }
}

impl Next {
    fn is_sent(&self) -> bool {
        self.sent == self.missing.len()
    }

    /// Those of its files that are in snapshots.
    fn ahead(&self) -> &[BackendFile] {
        &self.missing[..self.sent]
    }

    /// Sends files until they have so many bytes.
    fn send(&mut self, bytes: u64) {
        let mut left = bytes;
        while let Some(file) = self.missing.get(self.sent).filter(|_| left > 0) {
            left = left.saturating_sub(file.size);
            self.sent += 1;
        }
    }
}

/// Takes the runs of a snapshot out of the directory of its files, into `to`. In their order.
pub(crate) fn take_runs(directory: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| local_error("taking the runs of a snapshot from", directory, &error);
    let mut runs = Vec::new();
    for file in files_in(directory)?.into_iter().filter(|file| position_of(&file.path).is_some()) {
        let run = to.join(&file.name);
        fs::rename(&file.path, &run).map_err(failed)?;
        runs.push(run);
    }
    runs.sort_by_key(|run| position_of(run));
    Ok(runs)
}

/// The files of a database in a directory.
pub(crate) fn files_in(directory: &Path) -> Result<Vec<BackendFile>> {
    let failed = |error| local_error("listing the files of a snapshot", directory, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::internal(format!("RocksDB has a file {} in {}", name.display(), directory.display()))
        })?;
        // Options are ours to know.
        if !name.starts_with("OPTIONS") {
            let size = entry.metadata().map_err(failed)?.len();
            files.push(BackendFile { path: entry.path(), size, immutable: name.ends_with(TABLE), name });
        }
    }
    Ok(files)
}

fn position_of(run: &Path) -> Option<u64> {
    run.file_name()?.to_str()?.strip_prefix(RUN)?.strip_suffix(TABLE)?.parse().ok()
}

fn told(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("{} could not be removed: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use millrace_state::{SharedFile, StateFile};

    use super::*;

    const MB: u64 = 1 << 20;

    /// A database as a trail sees it: its files, some of which compactions write anew, and the runs that it takes.
    struct Model {
        directory: tempfile::TempDir,
        trail: Trail,
        tables: Vec<(String, u64)>,
        numbers: u64,
        uploaded: UploadedFiles,
        /// Whether checkpoints complete.
        completes: bool,
    }

    impl Model {
        fn new(tables: usize, size: u64) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let trail = Trail::new(directory.path(), 32 * MB).unwrap();
            let uploaded = UploadedFiles::default();
            trail.know(&uploaded);
            let mut model = Self { directory, trail, tables: Vec::new(), numbers: 0, uploaded, completes: true };
            model.compact(0, tables, size);
            model
        }

        /// Writes the first so many tables anew, as others.
        fn compact(&mut self, from: usize, to: usize, size: u64) {
            self.tables.drain(..from);
            for _ in 0..to {
                self.numbers += 1;
                self.tables.push((format!("{:06}.sst", self.numbers), size));
            }
        }

        fn run(&self, size: u64) {
            let path = self.directory.path().join("run.sst");
            write(&path, size);
            if let Some(kept) = self.trail.keep(&path).unwrap() {
                self.trail.add(kept, self.tables.iter().map(|(_, size)| size).sum());
            }
            fs::remove_file(&path).unwrap();
        }

        /// A snapshot, and how many bytes of its checkpoint were not uploaded before.
        fn snapshot(&mut self) -> (Listed, u64) {
            let cut = self.directory.path().join("cut");
            fs::create_dir(&cut).unwrap();
            self.tables.iter().for_each(|(name, size)| write(&cut.join(name), *size));
            write(&cut.join("CURRENT"), 10);
            let listed = self.trail.list(&files_in(&cut).unwrap()).unwrap();
            fs::remove_dir_all(&cut).unwrap();
            let all: Vec<_> = listed.files.files.iter().chain(&listed.files.ahead).cloned().collect();
            assert!(all.iter().all(|file| fs::metadata(&file.path).unwrap().len() == file.size), "they are there");
            assert_eq!(all.iter().map(|file| &file.name).collect::<BTreeSet<_>>().len(), all.len(), "each once");
            let written = self.trail.to_upload(&all);
            if self.completes {
                let stored = |BackendFile { name, size, .. }: &BackendFile| SharedFile {
                    local_name: name.clone(),
                    file: StateFile { directory: String::new(), name: name.clone(), size: *size, crc32: 0 },
                };
                let stored: Vec<_> = all.iter().filter(|file| file.immutable).map(stored).collect();
                self.uploaded.start_from(&stored);
            }
            (listed, written)
        }

        fn left(&self) -> usize {
            fs::read_dir(&self.trail.directory).unwrap().count()
        }
    }

    fn write(path: &Path, size: u64) {
        fs::File::create_new(path).unwrap().set_len(size).unwrap();
    }

    fn names(listed: &Listed, start: &str) -> usize {
        listed.files.files.iter().filter(|file| file.name.starts_with(start)).count()
    }

    #[test]
    fn small_databases_are_their_own_base() {
        let mut model = Model::new(4, MB);
        for _ in 0..5 {
            let (listed, written) = model.snapshot();
            assert_eq!((names(&listed, RUN), listed.files.ahead.len(), listed.files.files.len()), (0, 0, 5));
            assert!(written <= 4 * MB);
            drop(listed);
            assert_eq!(model.left(), 1, "one base");
            model.run(MB);
            model.compact(2, 2, MB);
        }
    }

    #[test]
    fn a_large_base_goes_ahead_by_pieces_while_runs_are_stored_once() {
        let mut model = Model::new(20, 32 * MB);
        let (first, written) = model.snapshot();
        assert_eq!((written, first.files.ahead.len()), (640 * MB, 0), "there is nothing to go on from");
        let mut changed = 0;
        for round in 0..40 {
            // All is written anew again and again.
            model.compact(10, 10, 32 * MB);
            model.run(8 * MB);
            let (listed, written) = model.snapshot();
            assert!(written <= (8 + 64 + 32) * MB, "round {round}: {} MB", written / MB);
            // Twice what it takes to send a base ahead.
            assert!(names(&listed, RUN) <= 22, "round {round}: {} runs", names(&listed, RUN));
            let runs = listed.files.files.iter().filter(|file| file.name.starts_with(RUN));
            let positions: Vec<_> = runs.map(|file| position_of(&file.path).unwrap()).collect();
            assert!(positions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{positions:?}");
            assert!(positions.last().is_none_or(|last| *last == round + 1), "{positions:?}");
            changed += usize::from(positions.first().is_none_or(|first| *first > 1));
        }
        assert!(changed > 20, "the base has gone on");
        drop(first);
        assert!(model.left() <= 2 + 22, "two bases and the runs behind the first");
    }

    #[test]
    fn runs_end_where_nobody_takes_snapshots() {
        let mut model = Model::new(1, MB);
        for _ in 0..40 {
            model.run(8 * MB);
            assert!(model.left() <= 32, "{} files", model.left());
        }
        let (listed, _) = model.snapshot();
        assert_eq!((names(&listed, RUN), listed.files.files.len()), (0, 2));
        model.trail.forget();
        model.compact(1, 1, MB);
        assert_eq!(names(&model.snapshot().0, "000002"), 1);
    }

    /// They are uploaded again, and nothing beside them.
    #[test]
    fn what_failed_checkpoints_have_sent_is_not_added_to() {
        let mut model = Model::new(20, 32 * MB);
        model.snapshot();
        model.compact(20, 20, 32 * MB);
        model.completes = false;
        let (first, _) = model.snapshot();
        let ahead: u64 = first.files.ahead.iter().map(|file| file.size).sum();
        assert_eq!(ahead, 32 * MB);
        assert_eq!(model.snapshot().0.files.ahead, first.files.ahead);
        model.completes = true;
        assert_eq!(model.snapshot().0.files.ahead, first.files.ahead);
        assert_eq!(model.snapshot().0.files.ahead.len(), first.files.ahead.len() + 1);
    }
}
