//! Snapshots as files: what is written, and what of them comes back, on the same and on other backends.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use millrace_core::{
    Result,
    ids::{CheckpointId, JobId},
    key::{KeyColumn, KeyGroupRange, KeyHash},
};
use millrace_state::{
    FsStateBackend, KeyedBackendContext, KeyedStateStore, SharedFile, StateBackend,
    backend::LocalFiles,
    keyed::StateInFiles,
    storage::{CheckpointStorage, StorageOptions},
};
use millrace_state_rocksdb::{LEAST_MEMORY_SIZE, RocksDBStateBackend};
use tempfile::TempDir;

const JOB: JobId = JobId(7);
const GROUPS: u32 = 16;

/// What one subtask has put into a checkpoint.
struct Snapshot {
    bytes: Bytes,
    files: Vec<SharedFile>,
    expiring: Vec<u16>,
}

struct Store {
    runtime: tokio::runtime::Runtime,
    storage: CheckpointStorage,
    directory: TempDir,
}

impl Store {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let uri = format!("file://{}", directory.path().display());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, storage: CheckpointStorage::open(&uri, &StorageOptions::default()).unwrap(), directory }
    }

    /// Takes a checkpoint of a store and completes it.
    fn checkpoint(&self, store: &KeyedStateStore, id: u64) -> Snapshot {
        let mut snapshot = store.snapshot().unwrap();
        let StateInFiles { files, expiring } = snapshot.files().unwrap().expect("incremental snapshots are files");
        let all = [files.files.as_slice(), &files.ahead].concat();
        let written = self.storage.write_shared(JOB, CheckpointId(id), &all, store.uploaded_files());
        let mut written = self.runtime.block_on(written).unwrap();
        written.truncate(files.files.len());
        let mut bytes = Vec::new();
        snapshot.write(&mut bytes).unwrap();
        store.uploaded_files().checkpoint_completed(CheckpointId(id));
        Snapshot { bytes: bytes.into(), files: written, expiring }
    }

    fn fetch(
        &self,
        backend: &dyn StateBackend,
        context: &KeyedBackendContext,
        snapshot: &Snapshot,
    ) -> Result<LocalFiles> {
        let (files, copies) = KeyedStateStore::place_for_files(backend, context)?;
        let fetch = self.storage.fetch_shared(&snapshot.files, files.directory(), copies.as_ref());
        self.runtime.block_on(fetch)?;
        Ok(files)
    }

    fn adopt(&self, backend: &dyn StateBackend, range: KeyGroupRange, snapshot: &Snapshot) -> KeyedStateStore {
        let files = self.fetch(backend, &context(range), snapshot).unwrap();
        let (bytes, expiring) = (snapshot.bytes.clone(), snapshot.expiring.clone());
        let store = KeyedStateStore::adopt(backend, context(range), "it", bytes, files, expiring).unwrap();
        store.uploaded_files().start_from(&snapshot.files);
        store
    }

    /// How many bytes of shared files there are.
    fn size(&self) -> u64 {
        let shared = self.directory.path().join(JOB.to_string()).join("shared");
        std::fs::read_dir(shared).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }
}

fn context(range: KeyGroupRange) -> KeyedBackendContext {
    KeyedBackendContext { range, ..KeyedBackendContext::alone("operator", GROUPS) }
}

fn incremental() -> Arc<RocksDBStateBackend> {
    Arc::new(RocksDBStateBackend::configured().with_memory_size(LEAST_MEMORY_SIZE).with_incremental_checkpoints(true))
}

fn open(backend: &RocksDBStateBackend) -> KeyedStateStore {
    KeyedStateStore::open(backend, context(KeyGroupRange::all(GROUPS))).unwrap()
}

fn on_key(store: &KeyedStateStore, key: u32) {
    let mut keys = KeyColumn::default();
    keys.push(&key).unwrap();
    store.begin_batch(keys);
    store.select(0);
}

fn fill(store: &KeyedStateStore, keys: impl IntoIterator<Item = u32>, amount: i64) {
    let (count, map) = (store.value("count", 0i64).unwrap(), store.map::<u8, String>("map").unwrap());
    for key in keys {
        on_key(store, key);
        count.modify(|count| *count += amount).unwrap();
        map.put(amount as u8, format!("{key} is here {}", "and is long ".repeat(8))).unwrap();
    }
}

/// The counts of the keys that the range owns.
fn counts(store: &KeyedStateStore, range: KeyGroupRange, keys: u32) -> BTreeMap<u32, i64> {
    let (count, map) = (store.value("count", 0i64).unwrap(), store.map::<u8, String>("map").unwrap());
    (0..keys)
        .filter(|key| owns(range, *key))
        .map(|key| {
            on_key(store, key);
            let entries = map.entries().unwrap();
            assert!(entries.iter().all(|(_, text)| text.starts_with(&format!("{key} is here"))));
            (key, count.get().unwrap() + 1000 * entries.len() as i64)
        })
        .collect()
}

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: GROUPS as u16 - 1 };

#[test]
fn a_checkpoint_costs_what_has_changed() {
    let (store, backend) = (Store::new(), incremental());
    let state = open(&backend);
    fill(&state, 0..60_000, 1);
    store.checkpoint(&state, 1);
    let first = store.size();
    let mut id = 1;
    // Files that a compaction writes anew are in the next checkpoint: these come to an end.
    let end = Instant::now() + Duration::from_secs(60);
    let mut cost_below = |most: u64, change: &dyn Fn()| {
        loop {
            change();
            let before = store.size();
            id += 1;
            store.checkpoint(&state, id);
            let cost = store.size() - before;
            if cost < most {
                return cost;
            }
            assert!(Instant::now() < end, "checkpoint {id} wrote {cost} bytes, {most} are allowed");
        }
    };
    let nothing = cost_below(first / 50, &|| {});
    let one_percent = cost_below(first / 10, &|| fill(&state, 0..600, 2));
    println!("first checkpoint {first} bytes, nothing changed {nothing}, one of a hundred keys {one_percent}");
}

#[test]
fn state_goes_on_from_files_and_refers_to_them_again() {
    let (store, backend) = (Store::new(), incremental());
    let state = open(&backend);
    fill(&state, 0..20_000, 1);
    let first = store.checkpoint(&state, 1);
    fill(&state, 0..20_000, 5);
    let before = store.size();
    drop(state);

    let restored = store.adopt(&*backend, ALL, &first);
    assert!(restored.unclaimed().into_iter().eq(["count", "map"]));
    fill(&restored, 0..10, 2);
    assert!(restored.unclaimed().is_empty());
    let second = store.checkpoint(&restored, 2);
    assert!(store.size() - before < before / 10, "the files of the checkpoint are not written again");
    let again = store.adopt(&*backend, ALL, &second);
    let found = counts(&again, ALL, 20_001);
    let expected = (0..20_001).map(|key| (key, [2003, 1001, 0][usize::from(key >= 10) + usize::from(key == 20_000)]));
    assert!(found.into_iter().eq(expected));
}

#[test]
fn files_restore_at_other_parallelisms_and_on_other_backends() {
    let (store, backend) = (Store::new(), incremental());
    let state = open(&backend);
    fill(&state, 0..5000, 1);
    let snapshot = store.checkpoint(&state, 1);
    let expected = counts(&state, ALL, 5000);
    let heap = FsStateBackend::configured();
    for parallelism in [1, 2, 3, 7] {
        let mut of_heap = BTreeMap::new();
        let mut of_rocksdb = BTreeMap::new();
        let mut snapshots = Vec::new();
        for subtask in 0..parallelism {
            let range = KeyGroupRange::of_subtask(GROUPS, parallelism, subtask);
            // Another backend reads entry by entry, the own one goes on from the files.
            let read = KeyedStateStore::open(&heap, context(range)).unwrap();
            let files = store.fetch(&*backend, &context(range), &snapshot).unwrap();
            read.restore_files("it", snapshot.bytes.clone(), &*backend, files).unwrap();
            of_heap.extend(counts(&read, range, 5000));
            let adopted = store.adopt(&*backend, range, &snapshot);
            of_rocksdb.extend(counts(&adopted, range, 5000));
            fill(&adopted, (0..5000).filter(|key| owns(range, *key)), 3);
            snapshots.push(store.checkpoint(&adopted, 2));
        }
        assert_eq!(of_heap, expected);
        assert_eq!(of_rocksdb, expected);
        // Back to one subtask: the files of all, of which each still holds what it held before, also of other groups.
        let joined = open(&backend);
        for snapshot in &snapshots {
            let files = store.fetch(&*backend, &context(ALL), snapshot).unwrap();
            joined.restore_files("it", snapshot.bytes.clone(), &*backend, files).unwrap();
        }
        let found = counts(&joined, ALL, 5000);
        assert!(found.iter().all(|(key, count)| *count == expected[key] + 1003), "from parallelism {parallelism}");
    }
}

fn owns(range: KeyGroupRange, key: u32) -> bool {
    range.contains(KeyHash::of(&millrace_core::codec::encode(&key).unwrap()).key_group(GROUPS))
}

/// A state that nothing claims any more goes, and its number with it; one whose type has grown is moved.
#[test]
fn states_that_go_or_change_leave_nothing_in_the_files() {
    let (store, backend) = (Store::new(), incremental());
    let state = open(&backend);
    let (gone, grown) = (state.value("gone", 0u32).unwrap(), state.value("grown", 0u32).unwrap());
    for key in 0..1000 {
        on_key(&state, key);
        gone.set(key).unwrap();
        grown.set(key).unwrap();
    }
    let first = store.checkpoint(&state, 1);
    let restored = store.adopt(&*backend, ALL, &first);
    let grown = restored.value("grown", 0u64).unwrap();
    let second = store.checkpoint(&restored, 2);
    for key in 0..1000 {
        on_key(&restored, key);
        assert_eq!(grown.get().unwrap(), u64::from(key));
    }
    let last = store.adopt(&*backend, ALL, &second);
    let (grown, new) = (last.value("grown", 0u64).unwrap(), last.value("new", 9u32).unwrap());
    let gone = last.value("gone", 8u32).unwrap();
    for key in 0..1000 {
        on_key(&last, key);
        assert_eq!((grown.get().unwrap(), new.get().unwrap(), gone.get().unwrap()), (u64::from(key), 9, 8));
    }
}

#[test]
fn damaged_files_are_refused_by_name() {
    let (store, backend) = (Store::new(), incremental());
    let state = open(&backend);
    fill(&state, 0..1000, 1);
    let mut snapshot = store.checkpoint(&state, 1);
    let manifest = snapshot.files.iter().position(|file| file.local_name.starts_with("MANIFEST")).unwrap();
    let listed = snapshot.files.remove(manifest);
    let files = store.fetch(&*backend, &context(ALL), &snapshot).unwrap();
    let root = files.root().to_path_buf();
    let (bytes, expiring) = (snapshot.bytes.clone(), snapshot.expiring.clone());
    let adopted = KeyedStateStore::adopt(&*backend, context(ALL), "the checkpoint", bytes, files, expiring);
    let error = adopted.err().expect("files without their list are refused");
    assert!(error.message.contains("the checkpoint"), "{error}");
    assert!(!root.exists(), "what was fetched goes");
    snapshot.files.push(listed);
    store.adopt(&*backend, ALL, &snapshot);
}

/// Tables that the disk has spoilt under open state: reading them is an error that a restart cures, from the checkpoint.
#[test]
fn tables_that_are_damaged_under_open_state_are_told_and_restored() {
    let (store, local) = (Store::new(), tempfile::tempdir().unwrap());
    let backend = RocksDBStateBackend::configured().with_memory_size(LEAST_MEMORY_SIZE);
    let backend = backend.with_incremental_checkpoints(true).with_local_directory(local.path());
    let state = open(&backend);
    // More than memory has room for.
    const KEYS: u32 = 60_000;
    fill(&state, 0..KEYS, 1);
    let snapshot = store.checkpoint(&state, 1);
    let mut damaged = 0;
    for attempt in std::fs::read_dir(local.path().join("attempts")).unwrap() {
        for file in std::fs::read_dir(attempt.unwrap().path().join("db")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sst") {
                let size = std::fs::metadata(&path).unwrap().len();
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x5a; size as usize], 0).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
    let count = state.value("count", 0i64).unwrap();
    let read = (0..KEYS).try_for_each(|key| {
        on_key(&state, key);
        count.get().map(drop)
    });
    let error = read.unwrap_err();
    let told = error.message.contains("is damaged, check the disk") && error.message.contains("attempts");
    assert!(told && error.retryable, "{error}");
    drop((count, state));
    // The local copies are the same files: they are not taken.
    let restored = store.adopt(&backend, ALL, &snapshot);
    assert!(counts(&restored, ALL, KEYS).values().all(|count| *count == 1001));
}

/// A process that comes back to its local directory links the files that the one before has left.
#[test]
fn local_copies_are_linked_after_a_restart_of_the_process() {
    let (store, local) = (Store::new(), tempfile::tempdir().unwrap());
    let backend = || {
        let backend = RocksDBStateBackend::configured().with_memory_size(LEAST_MEMORY_SIZE);
        backend.with_incremental_checkpoints(true).with_local_directory(local.path())
    };
    let first = {
        let backend = backend();
        let state = open(&backend);
        fill(&state, 0..1000, 1);
        store.checkpoint(&state, 1)
    };
    let table = first.files.iter().find(|file| file.local_name.ends_with(".sst")).unwrap();
    let in_store = store.directory.path().join(JOB.to_string()).join("shared").join(&table.file.name);
    std::fs::remove_file(in_store).unwrap();
    let restored = store.adopt(&backend(), ALL, &first);
    assert!(counts(&restored, ALL, 1000).values().all(|count| *count == 1001));
}
