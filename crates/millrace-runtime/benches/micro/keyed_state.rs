//! Keyed state on the heap: its changes, and a snapshot of it.

use millrace_core::key::{DEFAULT_MAX_PARALLELISM, KeyColumn};
use millrace_state::{FsStateBackend, KeyedBackendContext, KeyedStateStore, ValueState};

use super::{BATCH, Workload, key};

const BATCHES: usize = 64;

/// A counter for each key.
struct Counters {
    store: KeyedStateStore,
    count: ValueState<i64>,
    batches: Vec<KeyColumn>,
}

impl Counters {
    fn new() -> Self {
        let context = KeyedBackendContext::alone("bench", DEFAULT_MAX_PARALLELISM);
        let store = KeyedStateStore::open(&FsStateBackend::configured(), context).expect("a store can be opened");
        let count = store.value("count", 0).expect("a state can be had");
        let batches = (0..BATCHES).map(|batch| keys((batch * BATCH) as u64)).collect();
        Self { store, count, batches }
    }

    /// Counts every key of every batch once.
    fn count_all(&mut self) {
        for batch in &mut self.batches {
            self.store.begin_batch(std::mem::take(batch));
            for index in 0..BATCH {
                self.store.select(index);
                self.count.modify(|count| *count += 1).expect("a key is selected");
            }
            *batch = self.store.end_batch();
        }
    }
}

fn keys(first: u64) -> KeyColumn {
    let mut column = KeyColumn::with_capacity(BATCH);
    for number in first..first + BATCH as u64 {
        column.push(&key(number)).expect("a key can be encoded");
    }
    column
}

/// Counts records by key.
pub struct Modify(Counters);

impl Modify {
    pub fn new() -> Self {
        Self(Counters::new())
    }
}

impl Workload for Modify {
    fn round(&mut self) {
        self.0.count_all();
    }

    fn units(&self) -> usize {
        BATCH * BATCHES
    }
}

/// Takes a snapshot and writes it, to nowhere.
pub struct Snapshot(Counters);

impl Snapshot {
    pub fn new() -> Self {
        let mut counters = Counters::new();
        counters.count_all();
        Self(counters)
    }
}

impl Workload for Snapshot {
    fn round(&mut self) {
        let snapshot = self.0.store.snapshot().expect("a snapshot can be taken");
        snapshot.write(&mut std::io::sink()).expect("it can be written");
    }

    fn units(&self) -> usize {
        BATCH * BATCHES
    }
}
