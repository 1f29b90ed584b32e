//! What an incremental checkpoint costs when a share of the keys has changed since the one before, and what it takes to go
//! back to one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use millrace_core::{
    ids::{CheckpointId, JobId},
    key::{DEFAULT_MAX_PARALLELISM, KeyColumn},
};
use millrace_state::{
    KeyedBackendContext, KeyedStateStore, SharedFile, ValueState,
    backend::BackendFile,
    keyed::StateInFiles,
    storage::{CheckpointStorage, StorageOptions, UploadedFiles},
};
use millrace_state_rocksdb::RocksDBStateBackend;
use millrace_testkit::{plot::Plot, services::minio::Minio};
use rand::{Rng, seq::SliceRandom};
use tokio::runtime::{self, Runtime};

const JOB: JobId = JobId(7);
const KEYS: u64 = 1 << 20;
const VALUE: usize = 256;
/// What one key's change is: its key group, key and value, as they are written.
const CHANGE: usize = VALUE + 16;
const BATCH: usize = 256;
const MB: f64 = (1 << 20) as f64;
/// In percent. Each is measured so many times.
const SHARES: [u64; 6] = [1, 5, 10, 25, 50, 100];
const ROUNDS: usize = 5;
/// All checkpoints together write at most so many times what has changed.
const FACTOR: f64 = 4.0;

fn update(store: &KeyedStateStore, state: &ValueState<Vec<u8>>, keys: &[u64], random: &mut impl Rng) {
    for batch in keys.chunks(BATCH) {
        select(store, batch);
        for index in 0..batch.len() {
            store.select(index);
            let mut value = vec![0; VALUE];
            random.fill(&mut value[..]);
            state.set(value).unwrap();
        }
        store.end_batch();
    }
}

fn select(store: &KeyedStateStore, batch: &[u64]) {
    let mut column = KeyColumn::default();
    for key in batch {
        column.push(key).unwrap();
    }
    store.begin_batch(column);
}

fn size(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Whether a table is one that RocksDB was given, with what was written; the others it has written itself while it
/// compacted.
fn was_given(table: &Path) -> bool {
    let mark = b"external_sst_file.global_seqno";
    fs::read(table).unwrap().windows(mark.len()).any(|part| part == mark)
}

fn context() -> KeyedBackendContext {
    KeyedBackendContext::alone("cost", DEFAULT_MAX_PARALLELISM)
}

/// Keyed state whose checkpoints go to a directory.
struct Checkpoints {
    storage: CheckpointStorage,
    shared: PathBuf,
    runtime: Runtime,
    backend: RocksDBStateBackend,
    store: KeyedStateStore,
    newest: CheckpointId,
    /// The tables that the newest one refers to.
    tables: BTreeSet<String>,
}

/// What one cost.
struct Cost {
    mb: f64,
    /// How much of it are files of compactions.
    compacted_mb: f64,
    took: Duration,
    /// How long the task stood still.
    paused: Duration,
}

impl Checkpoints {
    fn new(directory: &Path) -> Self {
        let storage = format!("file://{}", directory.display());
        let backend = RocksDBStateBackend::configured().with_memory_size(256 << 20).with_incremental_checkpoints(true);
        Self {
            storage: CheckpointStorage::open(&storage, &StorageOptions::default()).unwrap(),
            shared: directory.join(JOB.to_string()).join("shared"),
            runtime: runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            store: KeyedStateStore::open(&backend, context()).unwrap(),
            backend,
            newest: CheckpointId(0),
            tables: BTreeSet::new(),
        }
    }

    fn take(&mut self) -> Cost {
        self.newest = self.newest.next();
        let before = if self.shared.exists() { size(&self.shared) } else { 0 };
        let started = Instant::now();
        let mut snapshot = self.store.snapshot().unwrap();
        let paused = started.elapsed();
        let StateInFiles { files, .. } = snapshot.files().unwrap().expect("incremental snapshots are files");
        let files = [files.files, files.ahead].concat();
        let written = self.storage.write_shared(JOB, self.newest, &files, self.store.uploaded_files());
        self.runtime.block_on(written).unwrap();
        let took = started.elapsed();
        self.store.uploaded_files().checkpoint_completed(self.newest);
        let tables = || files.iter().filter(|file| file.immutable);
        let new = tables().filter(|file| !self.tables.contains(&file.name));
        let compacted: u64 = new.filter(|file| !was_given(&file.path)).map(|file| file.size).sum();
        self.tables = tables().map(|file| file.name.clone()).collect();
        Cost { mb: (size(&self.shared) - before) as f64 / MB, compacted_mb: compacted as f64 / MB, took, paused }
    }

    /// The files of now, in a store of any kind.
    fn write_to(&self, storage: &CheckpointStorage, uploaded: &UploadedFiles) -> (Vec<SharedFile>, Vec<u8>, Vec<u16>) {
        let mut snapshot = self.store.snapshot().unwrap();
        let StateInFiles { files, expiring } = snapshot.files().unwrap().expect("incremental snapshots are files");
        let files: Vec<BackendFile> = files.files;
        let shared = self.runtime.block_on(storage.write_shared(JOB, CheckpointId(1), &files, uploaded)).unwrap();
        let mut rest = Vec::new();
        snapshot.write(&mut rest).unwrap();
        (shared, rest, expiring)
    }

    /// Goes back to files, by links where there are any, and reads a key.
    fn restore(&self, storage: &CheckpointStorage, (files, rest, expiring): &Written, links: bool) {
        let bytes: u64 = files.iter().map(|file| file.file.size).sum();
        let started = Instant::now();
        let (place, copies) = KeyedStateStore::place_for_files(&self.backend, &context()).unwrap();
        let copies = copies.filter(|_| links);
        let fetched = self.runtime.block_on(storage.fetch_shared(files, place.directory(), copies.as_ref()));
        let (linked, brought) = (fetched.unwrap(), started.elapsed());
        let (rest, expiring) = (rest.clone().into(), expiring.clone());
        let store = KeyedStateStore::adopt(&self.backend, context(), "the checkpoint", rest, place, expiring).unwrap();
        let state = store.value("value", Vec::<u8>::new()).unwrap();
        select(&store, &[1]);
        store.select(0);
        assert_eq!(state.get().unwrap().len(), VALUE);
        println!(
            "restore of {:.1} MB in {} files: {:.1} MB linked, files there after {brought:.2?}, the first key read after {:.2?}",
            bytes as f64 / MB,
            files.len(),
            linked as f64 / MB,
            started.elapsed()
        );
        // Lists of files change, and are always fetched.
        assert_eq!(linked > bytes / 10 * 9, links, "{linked} of {bytes} bytes were linked");
    }
}

type Written = (Vec<SharedFile>, Vec<u8>, Vec<u16>);

fn sum(of: &[Cost], figure: fn(&Cost) -> f64) -> f64 {
    of.iter().map(figure).sum()
}

#[test]
fn a_checkpoint_costs_what_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(directory.path());
    let state = checkpoints.store.value("value", Vec::<u8>::new()).unwrap();
    let mut random = rand::rng();
    let mut keys: Vec<u64> = (0..KEYS).collect();
    update(&checkpoints.store, &state, &keys, &mut random);
    let Cost { mb: full, took, .. } = checkpoints.take();
    println!("{KEYS} keys, the first checkpoint {full:.0} MB in {took:?}");
    let (mut measured, mut changes) = (Vec::new(), 0.0);
    for share in SHARES {
        let changed = (KEYS * share / 100) as usize;
        let mut change_and_take = || {
            keys.shuffle(&mut random);
            update(&checkpoints.store, &state, &keys[..changed], &mut random);
            checkpoints.take()
        };
        let costs: Vec<_> = (0..ROUNDS).map(|_| change_and_take()).collect();
        let each = |figure: fn(&Cost) -> f64| costs.iter().map(figure).collect::<Vec<_>>();
        let change = (changed * CHANGE) as f64 / MB;
        println!(
            "{share:>3} % changed, {change:.1} MB: wrote {:.1?} MB, of which compactions {:.1?}; {:.2?} s; the task stood still \
             {:.2?} ms",
            each(|cost| cost.mb),
            each(|cost| cost.compacted_mb),
            each(|cost| cost.took.as_secs_f64()),
            each(|cost| cost.paused.as_secs_f64() * 1000.0),
        );
        let written = sum(&costs, |cost| cost.mb);
        // A compaction may write all that there is once more, however little has changed.
        let most = FACTOR * ROUNDS as f64 * change + 1.5 * full;
        assert!(written <= most, "{written:.1} MB written for {ROUNDS} times {change:.1} MB");
        changes += ROUNDS as f64 * change;
        measured.push((share as f64, costs));
    }
    let written: f64 = measured.iter().map(|(_, costs)| sum(costs, |cost| cost.mb)).sum();
    println!("all: {changes:.0} MB changed, {written:.0} MB written, {:.2} times as much", written / changes);
    assert!(written <= FACTOR * changes, "{written} MB written for {changes} MB");
    let uncompacted: f64 = measured.iter().map(|(_, costs)| sum(costs, |cost| cost.mb - cost.compacted_mb)).sum();
    assert!(
        uncompacted <= 2.2 * changes,
        "what was written is there as a run, and once more as a file of a base at most"
    );
    let points = |figure: fn(&Cost) -> f64| -> Vec<(f64, f64)> {
        measured.iter().flat_map(|(share, costs)| costs.iter().map(move |cost| (*share, figure(cost)))).collect()
    };
    let plot = |what: &str, y: &str| Plot {
        title: format!("{what} of incremental checkpoints of {full:.0} MB, each of {ROUNDS}"),
        x: "share of the keys that has changed, %".to_string(),
        y: y.to_string(),
        ..Plot::default()
    };
    let change = (100.0, KEYS as f64 * CHANGE as f64 / MB);
    Plot {
        lines: vec![("what has changed".to_string(), vec![(0.0, 0.0), change])],
        dots: vec![
            ("written".to_string(), points(|cost| cost.mb)),
            ("without files of compactions".to_string(), points(|cost| cost.mb - cost.compacted_mb)),
        ],
        ..plot("Written bytes", "MB written")
    }
    .write("incremental-bytes.svg");
    let seconds = points(|cost| cost.took.as_secs_f64());
    Plot { dots: vec![("each checkpoint".to_string(), seconds)], ..plot("Duration", "seconds") }
        .write("incremental-duration.svg");

    // Its store is an object store on this machine. The local copies are those of files with these names.
    let minio = Minio::shared();
    minio.create_bucket("restore").unwrap();
    let options = StorageOptions {
        s3_endpoint: Some(minio.endpoint()),
        s3_access_key: Some(minio.access_key().to_string()),
        s3_secret_key: Some(minio.secret_key().into()),
        s3_path_style: true,
        ..StorageOptions::default()
    };
    let storage = CheckpointStorage::open("s3://restore/c", &options).unwrap();
    let (_, copies) = KeyedStateStore::place_for_files(&checkpoints.backend, &context()).unwrap();
    let written = checkpoints.write_to(&storage, &UploadedFiles::new(copies));
    for _ in 0..3 {
        checkpoints.restore(&storage, &written, true);
        checkpoints.restore(&storage, &written, false);
    }
}
