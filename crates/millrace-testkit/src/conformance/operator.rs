//! A keyed operator with state of every kind, spread over its subtasks.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use millrace_core::{
    Result,
    ids::OperatorUid,
    key::{KeyColumn, KeyGroupRange, KeyHash, subtask_of_key_group},
};
use millrace_state::{
    KeyedBackendContext, KeyedSnapshot, KeyedStateStore, ListState, MapState, StateBackend, ValueState,
};

/// Neither a power of two nor a multiple of the parallelisms in the checks.
pub(super) const MAX_PARALLELISM: u32 = 53;

/// The state of one subtask.
pub(super) struct Subtask {
    pub(super) store: KeyedStateStore,
    pub(super) count: ValueState<i64>,
    pub(super) list: ListState<String>,
    pub(super) map: MapState<u32, Vec<u8>>,
}

/// All subtasks of an operator.
pub(super) struct Operator(pub(super) Vec<Subtask>);

/// Everything that the operator's states hold for a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) count: i64,
    pub(super) list: Vec<String>,
    pub(super) map: BTreeMap<u32, Vec<u8>>,
}

pub(super) fn open_store(backend: &dyn StateBackend, subtask: u32, parallelism: u32) -> KeyedStateStore {
    let context = KeyedBackendContext {
        uid: OperatorUid("conformance".to_string()),
        operator: "Conformance".to_string(),
        subtask,
        max_parallelism: MAX_PARALLELISM,
        range: KeyGroupRange::of_subtask(MAX_PARALLELISM, parallelism, subtask),
        key_schema: None,
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
        })
    }

    /// Adds to every state of `key`.
    pub(super) fn fill(&self, key: &str, amount: i64) -> Result<()> {
        let subtask = self.at(key);
        subtask.count.modify(|count| *count += amount)?;
        subtask.list.add(format!("{key}+{amount}"))?;
        subtask.map.put(amount as u32, vec![7; amount as usize % 50])
    }

    /// The synchronous part of a snapshot of every subtask.
    pub(super) fn freeze(&self) -> Vec<Box<dyn KeyedSnapshot>> {
        self.0.iter().map(|subtask| subtask.store.snapshot().expect("a snapshot begins")).collect()
    }

    pub(super) fn files(&self) -> Vec<Vec<u8>> {
        self.freeze().into_iter().map(|snapshot| write(snapshot).expect("a snapshot is written")).collect()
    }
}
