//! What an incremental checkpoint costs when a share of the keys has changed since the one before.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use millrace_core::{
    clock::Clock,
    ids::{CheckpointId, JobId, OperatorUid},
    key::{KeyColumn, KeyGroupRange},
};
use millrace_state::{
    KeyedBackendContext, KeyedStateStore, ValueState,
    keyed::SnapshotFiles,
    storage::{CheckpointStorage, StorageOptions},
};
use millrace_state_rocksdb::RocksDBStateBackend;
use millrace_testkit::plot::Plot;
use rand::{Rng, seq::SliceRandom};

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

#[test]
fn a_checkpoint_costs_what_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let storage = format!("file://{}", directory.path().display());
    let storage = CheckpointStorage::open(&storage, &StorageOptions::default()).unwrap();
    let shared = directory.path().join(JOB.to_string()).join("shared");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let backend = RocksDBStateBackend::configured().with_memory_size(256 << 20).with_incremental_checkpoints(true);
    let context = KeyedBackendContext {
        uid: OperatorUid("cost".to_string()),
        operator: "Cost".to_string(),
        subtask: 0,
        max_parallelism: 128,
        range: KeyGroupRange::all(128),
        key_schema: None,
        clock: Clock::system(),
    };
    let store = KeyedStateStore::open(&backend, context).unwrap();
    let state = store.value("value", Vec::<u8>::new()).unwrap();
    let mut id = 0;
    let mut checkpoint = || {
        id += 1;
        let before = if shared.exists() { size(&shared) } else { 0 };
        let started = Instant::now();
        let mut snapshot = store.snapshot().unwrap();
        let paused = started.elapsed();
        let SnapshotFiles { files, .. } = snapshot.files().unwrap().expect("incremental snapshots are files");
        let written = storage.write_shared(JOB, CheckpointId(id), &files, store.uploaded_files());
        runtime.block_on(written).unwrap();
        let took = started.elapsed();
        store.uploaded_files().checkpoint_completed(CheckpointId(id));
        (size(&shared) - before, took, paused)
    };

    let mut random = rand::rng();
    let mut keys: Vec<u64> = (0..KEYS).collect();
    update(&store, &state, &keys, &mut random);
    let (full, took, _) = checkpoint();
    println!("{KEYS} keys, the first checkpoint {:.0} MB in {took:?}", full as f64 / MB);
    let (mut bytes, mut seconds) = (vec![(0.0, 0.0)], vec![]);
    for share in SHARES {
        let (mut of_bytes, mut of_time, mut longest) = (Vec::new(), Vec::new(), Duration::ZERO);
        for _ in 0..ROUNDS {
            keys.shuffle(&mut random);
            update(&store, &state, &keys[..(KEYS * share / 100) as usize], &mut random);
            let (written, took, paused) = checkpoint();
            of_bytes.push(written as f64 / MB);
            of_time.push(took.as_secs_f64());
            longest = longest.max(paused);
        }
        println!(
            "{share:>3} % changed: {of_bytes:.1?} MB in {of_time:.2?} s, the task stood still {longest:?} at most"
        );
        of_bytes.sort_by(f64::total_cmp);
        of_time.sort_by(f64::total_cmp);
        bytes.push((share as f64, of_bytes[ROUNDS / 2]));
        seconds.push((share as f64, of_time[ROUNDS / 2]));
        // What compactions write again comes on top.
        assert!(share > 1 || of_bytes[0] < full as f64 / MB / 10.0, "{of_bytes:?} MB of {full} bytes");
    }
    let title =
        |what: &str| format!("{what} of an incremental checkpoint of {:.0} MB, median of {ROUNDS}", full as f64 / MB);
    let plot = |what: &str, y: &str, points| Plot {
        title: title(what),
        x: "share of the keys that has changed, %".to_string(),
        y: y.to_string(),
        lines: vec![(y.to_string(), points)],
        ..Plot::default()
    };
    plot("Written bytes", "MB written", bytes).write("incremental-bytes.svg");
    plot("Duration", "seconds", seconds).write("incremental-duration.svg");
}
