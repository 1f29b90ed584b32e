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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millrace_core::{Error, Result};
use millrace_state::backend::{BackendFile, SnapshotFiles};

use crate::{error::local_error, local_dir};

const RUN: &str = "run-";
const TABLE: &str = ".sst";
/// For each byte that has changed, a snapshot may write so many of files that compactions have made. With fewer there are
/// more runs beside the base: a restore reads them all.
const AHEAD: u64 = 8;
/// A snapshot may always write so many.
const LEAST_AHEAD: u64 = 32 << 20;
/// Runs may hold so many bytes, or as many as the database has, until the next snapshot begins without any.
const MOST_IN_RUNS: u64 = 256 << 20;

/// The base and the runs of one database.
pub(crate) struct Trail {
    directory: PathBuf,
    parts: Mutex<Parts>,
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
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let directory = root.join("trail");
        fs::create_dir(&directory).map_err(|error| local_error("making a directory for", &directory, &error))?;
        Ok(Self { directory, parts: Mutex::default() })
    }

    /// Begins with the files of a snapshot: those in the directory `base`, and runs.
    pub(crate) fn start_from(&self, base: &Path, runs: &[PathBuf]) -> Result<()> {
        let mut parts = self.lock();
        for run in runs {
            let position = position_of(run)
                .ok_or_else(|| Error::internal(format!("{} does not have the name of a run", run.display())))?;
            parts.runs.push(Arc::new(self.keep_run(run, position)?));
            parts.position = position;
        }
        parts.listed = parts.position;
        parts.base = Some(self.link(&mut parts.bases, 0, &list(base)?)?);
        Ok(())
    }

    /// Adds a run that the database, which has `size` bytes, has taken.
    pub(crate) fn add(&self, run: RunFile, size: u64) {
        let mut parts = self.lock();
        parts.position = run.position;
        parts.runs.push(Arc::new(run));
        if parts.runs.iter().map(|run| run.file.size).sum::<u64>() > MOST_IN_RUNS.max(size) {
            parts.forget();
        }
    }

    /// Keeps a link to a run that the database is about to take.
    pub(crate) fn keep(&self, run: &Path) -> Result<RunFile> {
        let position = self.lock().position + 1;
        self.keep_run(run, position)
    }

    fn keep_run(&self, run: &Path, position: u64) -> Result<RunFile> {
        let name = format!("{RUN}{position:020}{TABLE}");
        let path = self.directory.join(&name);
        let kept = fs::hard_link(run, &path).and_then(|()| fs::metadata(&path));
        let size = kept.map_err(|error| local_error("linking", run, &error))?.len();
        Ok(RunFile { position, file: BackendFile { name, path, size, immutable: true } })
    }

    /// The number of the last run.
    pub(crate) fn position(&self) -> u64 {
        self.lock().position
    }

    /// The database was changed otherwise: the next snapshot begins with its files.
    pub(crate) fn forget(&self) {
        self.lock().forget();
    }

    /// What a snapshot consists of whose cut was behind run `position` and whose files are `own`.
    pub(crate) fn list(&self, position: u64, own: Vec<BackendFile>) -> Result<Listed> {
        let mut parts = self.lock();
        if parts.base.as_ref().is_some_and(|base| base.position > position) {
            // A later one was faster.
            let files = SnapshotFiles { files: own, ahead: Vec::new() };
            return Ok(Listed { files, _bases: Vec::new(), _runs: Vec::new() });
        }
        let changed = parts.runs_between(parts.listed, position).map(|run| run.file.size).sum::<u64>();
        let allowed = LEAST_AHEAD.max(AHEAD * changed);
        parts.listed = parts.listed.max(position);
        if let Some(next) = parts.next.take_if(|next| next.is_sent() && next.base.position <= position) {
            parts.go_on(next.base);
        }
        if parts.unknown(&own).map(|file| file.size).sum::<u64>() <= allowed || parts.base.is_none() {
            let base = self.link(&mut parts.bases, position, &own)?;
            parts.go_on(base);
        } else if parts.next.is_none() {
            let base = self.link(&mut parts.bases, position, &own)?;
            let missing = parts.unknown(&base.files).cloned().collect();
            parts.next = Some(Next { base, missing, sent: 0 });
        }
        if let Some(next) = &mut parts.next {
            next.send(allowed);
        }
        Ok(parts.snapshot(position))
    }

    /// Links files into the directory of a new base.
    fn link(&self, bases: &mut u64, position: u64, files: &[BackendFile]) -> Result<Arc<Base>> {
        *bases += 1;
        let directory = self.directory.join(format!("base-{bases}"));
        fs::create_dir(&directory).map_err(|error| local_error("making a directory for", &directory, &error))?;
        let mut base = Base { position, directory, files: Vec::with_capacity(files.len()) };
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

    fn runs_between(&self, after: u64, last: u64) -> impl Iterator<Item = &Arc<RunFile>> {
        self.runs.iter().filter(move |run| after < run.position && run.position <= last)
    }

    /// Which of these files are in no snapshot yet.
    fn unknown<'a>(&self, files: &'a [BackendFile]) -> impl Iterator<Item = &'a BackendFile> {
        let base = self.base.iter().flat_map(|base| &base.files);
        let sent = self.next.iter().flat_map(|next| &next.missing[..next.sent]);
        let known: BTreeSet<_> = base.chain(sent).map(|file| file.name.clone()).collect();
        files.iter().filter(move |file| file.immutable && !known.contains(&file.name))
    }

    fn snapshot(&self, position: u64) -> Listed {
        let base = self.base.iter();
        let next = self.next.iter();
        let behind = self.base.as_ref().map_or(0, |base| base.position);
        let runs: Vec<_> = self.runs_between(behind, position).cloned().collect();
        let files =
            base.clone().flat_map(|base| &base.files).chain(runs.iter().map(|run| &run.file)).cloned().collect();
        let ahead = next.clone().flat_map(|next| &next.missing[..next.sent]).cloned().collect();
        let bases = base.chain(next.map(|next| &next.base)).cloned().collect();
        Listed { files: SnapshotFiles { files, ahead }, _bases: bases, _runs: runs }
    }
}

impl Next {
    fn is_sent(&self) -> bool {
        self.sent == self.missing.len()
    }

    /// Sends files of so many bytes, but one at least.
    fn send(&mut self, bytes: u64) {
        let mut left = bytes;
        while let Some(file) = self.missing.get(self.sent) {
            self.sent += 1;
            match left.checked_sub(file.size) {
                Some(less) => left = less,
                None => break,
            }
        }
    }
}

/// Takes the runs of a snapshot out of the directory of its files, into `to`. In their order.
pub(crate) fn take_runs(directory: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| local_error("taking the runs of a snapshot from", directory, &error);
    let mut runs = Vec::new();
    for file in list(directory)?.into_iter().filter(|file| position_of(&file.path).is_some()) {
        let run = to.join(&file.name);
        fs::rename(&file.path, &run).map_err(failed)?;
        runs.push(run);
    }
    // The numbers have as many digits each.
    runs.sort();
    Ok(runs)
}

/// The files of a database in a directory.
pub(crate) fn list(directory: &Path) -> Result<Vec<BackendFile>> {
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
    use super::*;

    const MB: u64 = 1 << 20;

    /// A database as a trail sees it: its files, some of which compactions write anew, and the runs that it takes.
    struct Model {
        directory: tempfile::TempDir,
        trail: Trail,
        tables: Vec<(String, u64)>,
        numbers: u64,
        stored: BTreeSet<String>,
    }

    impl Model {
        fn new(tables: usize, size: u64) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let trail = Trail::new(directory.path()).unwrap();
            let mut model = Self { directory, trail, tables: Vec::new(), numbers: 0, stored: BTreeSet::new() };
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
            let kept = self.trail.keep(&path).unwrap();
            fs::remove_file(&path).unwrap();
            self.trail.add(kept, self.tables.iter().map(|(_, size)| size).sum());
        }

        /// A snapshot that completes; how many bytes were not stored before.
        fn snapshot(&mut self) -> (Listed, u64) {
            let cut = self.directory.path().join("cut");
            fs::create_dir(&cut).unwrap();
            self.tables.iter().for_each(|(name, size)| write(&cut.join(name), *size));
            write(&cut.join(CURRENT), 10);
            let listed = self.trail.list(self.trail.position(), list(&cut).unwrap()).unwrap();
            fs::remove_dir_all(&cut).unwrap();
            let all = || listed.files.files.iter().chain(&listed.files.ahead);
            assert!(all().all(|file| fs::metadata(&file.path).unwrap().len() == file.size), "they are there");
            let new = all().filter(|file| file.immutable && !self.stored.contains(&file.name));
            let written = new.map(|file| file.size).sum();
            self.stored = all().map(|file| file.name.clone()).collect();
            assert_eq!(self.stored.len(), all().count(), "each once");
            (listed, written)
        }

        fn left(&self) -> usize {
            fs::read_dir(&self.trail.directory).unwrap().count()
        }
    }

    const CURRENT: &str = "CURRENT";

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

    #[test]
    fn a_snapshot_whose_cut_is_older_than_the_base_consists_of_its_own_files() {
        let mut model = Model::new(2, MB);
        model.run(MB);
        model.snapshot();
        let own = vec![BackendFile { name: "x.sst".into(), path: "x.sst".into(), size: 1, immutable: true }];
        assert_eq!(model.trail.list(0, own.clone()).unwrap().files.files, own);
    }
}
