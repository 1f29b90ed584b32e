//! What an incremental checkpoint costs when a share of the keys has changed since the one before.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use millrace_core::{
    ids::{CheckpointId, JobId},
    key::{DEFAULT_MAX_PARALLELISM, KeyColumn},
};
use millrace_state::{
    KeyedBackendContext, KeyedStateStore, ValueState,
    keyed::SnapshotFiles,
    storage::{CheckpointStorage, StorageOptions},
};
use millrace_state_rocksdb::RocksDBStateBackend;
use millrace_testkit::plot::Plot;
use rand::{Rng, seq::SliceRandom};
use tokio::runtime::{self, Runtime};

const JOB: JobId = JobId(7);
const KEYS: u64 = 1 << 20;
const VALUE: usize = 256;
const BATCH: usize = 256;
const MB: f64 = (1 << 20) as f64;
/// In percent. Each is measured so many times.
const SHARES: [u64; 6] = [1, 5, 10, 25, 50, 100];
const ROUNDS: usize = 3;

fn update(store: &KeyedStateStore, state: &ValueState<Vec<u8>>, keys: &[u64], random: &mut impl Rng) {
    for batch in keys.chunks(BATCH) {
        let mut column = KeyColumn::default();
        for key in batch {
            column.push(key).unwrap();
        }
        store.begin_batch(column);
        for index in 0..batch.len() {
            store.select(index);
            let mut value = vec![0; VALUE];
            random.fill(&mut value[..]);
            state.set(value).unwrap();
        }
        store.end_batch();
    }
}

fn size(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Keyed state whose checkpoints go to a directory.
struct Checkpoints {
    storage: CheckpointStorage,
    shared: PathBuf,
    runtime: Runtime,
    store: KeyedStateStore,
    newest: CheckpointId,
}

/// What one cost.
struct Cost {
    mb: f64,
    took: Duration,
    /// How long the task stood still.
    paused: Duration,
}

impl Checkpoints {
    fn new(directory: &Path) -> Self {
        let storage = format!("file://{}", directory.display());
        let backend = RocksDBStateBackend::configured().with_memory_size(256 << 20).with_incremental_checkpoints(true);
        let context = KeyedBackendContext::alone("cost", DEFAULT_MAX_PARALLELISM);
        Self {
            storage: CheckpointStorage::open(&storage, &StorageOptions::default()).unwrap(),
            shared: directory.join(JOB.to_string()).join("shared"),
            runtime: runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            store: KeyedStateStore::open(&backend, context).unwrap(),
            newest: CheckpointId(0),
        }
    }

    fn take(&mut self) -> Cost {
        self.newest = self.newest.next();
        let before = if self.shared.exists() { size(&self.shared) } else { 0 };
        let started = Instant::now();
        let mut snapshot = self.store.snapshot().unwrap();
        let paused = started.elapsed();
        let SnapshotFiles { files, .. } = snapshot.files().unwrap().expect("incremental snapshots are files");
        let written = self.storage.write_shared(JOB, self.newest, &files, self.store.uploaded_files());
        self.runtime.block_on(written).unwrap();
        let took = started.elapsed();
        self.store.uploaded_files().checkpoint_completed(self.newest);
        Cost { mb: (size(&self.shared) - before) as f64 / MB, took, paused }
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
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
    let (mut written, mut durations) = (vec![(0.0, 0.0)], vec![]);
    for share in SHARES {
        let mut change_and_take = || {
            keys.shuffle(&mut random);
            update(&checkpoints.store, &state, &keys[..(KEYS * share / 100) as usize], &mut random);
            checkpoints.take()
        };
        let costs: Vec<_> = (0..ROUNDS).map(|_| change_and_take()).collect();
        let mb: Vec<_> = costs.iter().map(|cost| cost.mb).collect();
        let seconds: Vec<_> = costs.iter().map(|cost| cost.took.as_secs_f64()).collect();
        let longest = costs.iter().map(|cost| cost.paused).max().unwrap_or_default();
        println!("{share:>3} % changed: {mb:.1?} MB in {seconds:.2?} s, the task stood still {longest:?} at most");
        // What compactions write again comes on top.
        let least = mb.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(share > 1 || least < full / 10.0, "{mb:?} MB of {full} MB");
        written.push((share as f64, median(mb)));
        durations.push((share as f64, median(seconds)));
    }
    let plot = |what: &str, y: &str, points| Plot {
        title: format!("{what} of an incremental checkpoint of {full:.0} MB, median of {ROUNDS}"),
        x: "share of the keys that has changed, %".to_string(),
        y: y.to_string(),
        lines: vec![(y.to_string(), points)],
        ..Plot::default()
    };
    plot("Written bytes", "MB written", written).write("incremental-bytes.svg");
    plot("Duration", "seconds", durations).write("incremental-duration.svg");
}
