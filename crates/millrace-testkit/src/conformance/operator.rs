//! A keyed operator with state of every kind, spread over its subtasks.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use millrace_core::{
    Result,
    clock::Clock,
    ids::OperatorUid,
    key::{KeyColumn, KeyGroupRange, KeyHash, subtask_of_key_group},
};
use millrace_state::{
    AggregateFunction, AggregatingState, KeyedBackendContext, KeyedSnapshot, KeyedStateStore, ListState, MapState,
    ReducingState, StateBackend, ValueState,
};

/// Neither a power of two nor a multiple of the parallelisms in the checks.
pub(super) const MAX_PARALLELISM: u32 = 53;

/// The state of one subtask.
pub(super) struct Subtask {
    pub(super) store: KeyedStateStore,
    pub(super) count: ValueState<i64>,
    pub(super) list: ListState<String>,
    pub(super) map: MapState<u32, Vec<u8>>,
    pub(super) longest: ReducingState<String>,
    pub(super) average: AggregatingState<Average>,
}

/// The average of what was added, rounded down.
#[derive(Clone)]
pub(super) struct Average;

impl AggregateFunction for Average {
    type In = i64;
    type Accumulator = (i64, u32);
    type Out = i64;

    fn create_accumulator(&self) -> (i64, u32) {
        (0, 0)
    }

    fn add(&self, value: i64, (sum, count): &mut (i64, u32)) {
        *sum = sum.wrapping_add(value);
        *count += 1;
    }

    fn get_result(&self, (sum, count): &(i64, u32)) -> i64 {
        sum.div_euclid(i64::from(*count))
    }
}

/// The longer of two texts, the later one among equally long ones.
pub(super) fn longer(a: String, b: String) -> String {
    if a.len() > b.len() { a } else { b }
}

/// All subtasks of an operator.
pub(super) struct Operator(pub(super) Vec<Subtask>);

/// Everything that the operator's states hold for a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) count: i64,
    pub(super) list: Vec<String>,
    pub(super) map: BTreeMap<u32, Vec<u8>>,
    pub(super) longest: Option<String>,
    pub(super) average: Option<i64>,
}

pub(super) fn open_store(backend: &dyn StateBackend, subtask: u32, parallelism: u32) -> KeyedStateStore {
    open_store_with(backend, subtask, parallelism, Clock::system())
}

pub(super) fn open_store_with(
    backend: &dyn StateBackend,
    subtask: u32,
    parallelism: u32,
    clock: Clock,
) -> KeyedStateStore {
    let context = KeyedBackendContext {
        uid: OperatorUid("conformance".to_string()),
        operator: "Conformance".to_string(),
        subtask,
        max_parallelism: MAX_PARALLELISM,
        range: KeyGroupRange::of_subtask(MAX_PARALLELISM, parallelism, subtask),
        key_schema: None,
        clock,
    };
    KeyedStateStore::open(backend, context).expect("the backend opens")
}

pub(super) fn key_column(keys: &[&str]) -> KeyColumn {
    let mut column = KeyColumn::default();
    for key in keys {
        column.push(*key).expect("a key is encoded");
    }
    column
}

/// Makes `key` the current one.
pub(super) fn on_key(store: &KeyedStateStore, key: &str) {
    store.begin_batch(key_column(&[key]));
    store.select(0);
}

/// The asynchronous part of a snapshot, on another thread as it is in a task.
pub(super) fn write(snapshot: Box<dyn KeyedSnapshot>) -> Result<Vec<u8>> {
    let write = move || {
        let mut file = Vec::new();
        let summary = snapshot.write(&mut file)?;
        assert_eq!(summary.size, file.len() as u64, "the summary tells the size");
        Ok(file)
    };
    std::thread::spawn(write).join().expect("the snapshot is written without a panic")
}

impl Operator {
    pub(super) fn open(backend: &Arc<dyn StateBackend>, parallelism: u32) -> Self {
        Self::restored(backend, parallelism, &[])
    }

    /// Opens it with the snapshots of all old subtasks, whatever their key groups: the store takes what is its own.
    pub(super) fn restored(backend: &Arc<dyn StateBackend>, parallelism: u32, files: &[Vec<u8>]) -> Self {
        let open = |subtask| {
            let store = open_store(&**backend, subtask, parallelism);
            for (number, file) in files.iter().enumerate() {
                let origin = format!("file {number}");
                store.restore(&origin, Bytes::copy_from_slice(file)).expect("a snapshot is accepted");
            }
            let subtask = Subtask {
                count: store.value("count", 0).expect("a value state"),
                list: store.list("list").expect("a list state"),
                map: store.map("map").expect("a map state"),
                longest: store.reducing("longest", longer).expect("a reducing state"),
                average: store.aggregating("average", Average).expect("an aggregating state"),
                store,
            };
            assert!(subtask.store.unclaimed().is_empty(), "every state was claimed");
            subtask
        };
        Self((0..parallelism).map(open).collect())
    }

    /// The subtask that owns `key`, with it as the current one.
    pub(super) fn at(&self, key: &str) -> &Subtask {
        let hash = KeyHash::of(&millrace_core::codec::encode(key).expect("a key is encoded"));
        let owner = subtask_of_key_group(MAX_PARALLELISM, self.0.len() as u32, hash.key_group(MAX_PARALLELISM));
        let subtask = &self.0[owner as usize];
        on_key(&subtask.store, key);
        subtask
    }

    pub(super) fn contents(&self, key: &str) -> Result<Contents> {
        let subtask = self.at(key);
        Ok(Contents {
            count: subtask.count.get()?,
            list: subtask.list.get()?,
            map: subtask.map.entries()?.into_iter().collect(),
            longest: subtask.longest.get()?,
            average: subtask.average.get()?,
        })
    }

    /// Adds to every state of `key`.
    pub(super) fn fill(&self, key: &str, amount: i64) -> Result<()> {
        let subtask = self.at(key);
        subtask.count.modify(|count| *count += amount)?;
        subtask.list.add(format!("{key}+{amount}"))?;
        subtask.map.put(amount as u32, vec![7; amount as usize % 50])?;
        subtask.longest.add("l".repeat(amount as usize % 7))?;
        subtask.average.add(amount)
    }

    /// Clears every state of `key`.
    pub(super) fn clear(&self, key: &str) -> Result<()> {
        let subtask = self.at(key);
        subtask.count.clear()?;
        subtask.list.clear()?;
        subtask.map.clear()?;
        subtask.longest.clear()?;
        subtask.average.clear()
    }

    /// The synchronous part of a snapshot of every subtask.
    pub(super) fn freeze(&self) -> Vec<Box<dyn KeyedSnapshot>> {
        self.0.iter().map(|subtask| subtask.store.snapshot().expect("a snapshot begins")).collect()
    }

    pub(super) fn files(&self) -> Vec<Vec<u8>> {
        self.freeze().into_iter().map(|snapshot| write(snapshot).expect("a snapshot is written")).collect()
    }
}
