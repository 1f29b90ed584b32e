//! RocksDB's memory under load: state four times its memory setting, random updates and checkpoints for five minutes
//! (`SECONDS_UNDER_LOAD` changes how long). A test program of its own, since what is measured is the whole process.

use std::{
    fs, io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use millrace_core::key::{DEFAULT_MAX_PARALLELISM, KeyColumn};
use millrace_state::{KeyedBackendContext, KeyedStateStore, StateBackend, ValueState};
use millrace_state_rocksdb::RocksDBStateBackend;
use millrace_testkit::plot::Plot;
use rand::Rng;

const MEMORY: u64 = 64 << 20;
/// What a process takes beside the setting: batches and blocks in work, table readers, compactions, the allocator.
const OVERHEAD: u64 = 96 << 20;
const MB: f64 = (1 << 20) as f64;
const SUBTASKS: u32 = 4;
const VALUE: usize = 256;
const KEYS_PER_SUBTASK: u64 = 4 * MEMORY / SUBTASKS as u64 / VALUE as u64;
const BATCH: usize = 256;
const CHECKPOINTS: Duration = Duration::from_secs(10);

type Value = Vec<u8>;

fn open(backend: &dyn StateBackend, subtask: u32) -> KeyedStateStore {
    let context = KeyedBackendContext { subtask, ..KeyedBackendContext::alone("load", DEFAULT_MAX_PARALLELISM) };
    KeyedStateStore::open(backend, context).expect("state opens")
}

/// Updates the state of a batch of keys: each value counts in its first bytes and is otherwise incompressible.
fn update(store: &KeyedStateStore, state: &ValueState<Value>, keys: &[u64], random: &mut impl Rng) {
    let mut column = KeyColumn::default();
    for key in keys {
        column.push(key).expect("a key is encoded");
    }
    store.begin_batch(column);
    for (index, key) in keys.iter().enumerate() {
        store.select(index);
        let change = |value: &mut Value| {
            value.resize(VALUE, 0);
            random.fill(&mut value[..]);
            value[..8].copy_from_slice(&key.to_le_bytes());
        };
        state.modify(change).expect("state is updated");
    }
    store.end_batch();
}

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("the process knows its memory");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

struct Load {
    stop: AtomicBool,
    updates: AtomicU64,
    checkpoints: AtomicU64,
    longest_pause_us: AtomicU64,
}

fn run(subtask: u32, backend: &dyn StateBackend, load: &Load) {
    let mut random = rand::rng();
    let store = open(backend, subtask);
    let state = store.value("value", Value::new()).expect("a state");
    for first in (0..KEYS_PER_SUBTASK).step_by(BATCH) {
        let keys: Vec<_> = (first..(first + BATCH as u64).min(KEYS_PER_SUBTASK)).collect();
        update(&store, &state, &keys, &mut random);
    }
    let mut last = Instant::now();
    while !load.stop.load(Ordering::Relaxed) {
        let keys: Vec<_> = (0..BATCH).map(|_| random.random_range(0..KEYS_PER_SUBTASK)).collect();
        update(&store, &state, &keys, &mut random);
        load.updates.fetch_add(BATCH as u64, Ordering::Relaxed);
        if last.elapsed() >= CHECKPOINTS {
            last = Instant::now();
            let snapshot = store.snapshot().expect("a snapshot begins");
            load.longest_pause_us.fetch_max(last.elapsed().as_micros() as u64, Ordering::Relaxed);
            thread::scope(|scope| {
                let written = scope.spawn(move || snapshot.write(&mut io::sink()).expect("a snapshot is written"));
                while !written.is_finished() {
                    let keys: Vec<_> = (0..BATCH).map(|_| random.random_range(0..KEYS_PER_SUBTASK)).collect();
                    update(&store, &state, &keys, &mut random);
                    load.updates.fetch_add(BATCH as u64, Ordering::Relaxed);
                }
            });
            load.checkpoints.fetch_add(1, Ordering::Relaxed);
        }
    }
    // What was written is what is there.
    for key in (0..KEYS_PER_SUBTASK).step_by(997) {
        let mut column = KeyColumn::default();
        column.push(&key).expect("a key is encoded");
        store.begin_batch(column);
        store.select(0);
        assert_eq!(state.get().expect("state is read")[..8], key.to_le_bytes());
    }
}

#[test]
fn memory_stays_within_its_setting() {
    let seconds: u64 = std::env::var("SECONDS_UNDER_LOAD").map_or(300, |text| text.parse().expect("a number"));
    let backend = RocksDBStateBackend::configured().with_memory_size(MEMORY);
    let before = resident();
    let load = Load {
        stop: AtomicBool::new(false),
        updates: AtomicU64::new(0),
        checkpoints: AtomicU64::new(0),
        longest_pause_us: AtomicU64::new(0),
    };
    let (mut highest, mut samples) = (0, Vec::<(f64, f64)>::new());
    thread::scope(|scope| {
        let (backend, load) = (&backend, &load);
        let tasks: Vec<_> = (0..SUBTASKS).map(|subtask| scope.spawn(move || run(subtask, backend, load))).collect();
        let start = Instant::now();
        let mut told = Duration::ZERO;
        while start.elapsed() < Duration::from_secs(seconds) && !tasks.iter().any(|task| task.is_finished()) {
            thread::sleep(Duration::from_millis(100));
            let now = resident().saturating_sub(before);
            highest = highest.max(now);
            // The picture has the highest of each second.
            let (second, mb) = (start.elapsed().as_secs() as f64, now as f64 / MB);
            match samples.last_mut() {
                Some((of, most)) if *of == second => *most = mb.max(*most),
                _ => samples.push((second, mb)),
            }
            if start.elapsed() >= told {
                told += Duration::from_secs(10);
                let updates = load.updates.load(Ordering::Relaxed);
                println!("{:>4} s {:>5} MB {updates:>10} updates", start.elapsed().as_secs(), now >> 20);
            }
        }
        load.stop.store(true, Ordering::Relaxed);
    });
    println!(
        "state {} MB, setting {} MB, highest {} MB, {} updates, {} checkpoints, longest pause {} us",
        (4 * MEMORY) >> 20,
        MEMORY >> 20,
        highest >> 20,
        load.updates.load(Ordering::Relaxed),
        load.checkpoints.load(Ordering::Relaxed),
        load.longest_pause_us.load(Ordering::Relaxed),
    );
    let end = seconds as f64;
    let bound = |name: &str, bytes: u64| (name.to_string(), vec![(0.0, bytes as f64 / MB), (end, bytes as f64 / MB)]);
    let plot = Plot {
        title: format!("Resident memory under load: {} MB of state, random updates", (4 * MEMORY) >> 20),
        x: "seconds".to_string(),
        y: "MB above the empty process".to_string(),
        lines: vec![
            ("resident".to_string(), samples),
            bound("state.backend.rocksdb.memory.size + stated overhead", MEMORY + OVERHEAD),
            bound("state.backend.rocksdb.memory.size", MEMORY),
        ],
        ..Plot::default()
    };
    plot.write("rocksdb-memory.svg");
    assert!(load.updates.load(Ordering::Relaxed) > 0 && load.checkpoints.load(Ordering::Relaxed) > 0);
    assert!(highest <= MEMORY + OVERHEAD, "{highest} bytes are resident");
}
