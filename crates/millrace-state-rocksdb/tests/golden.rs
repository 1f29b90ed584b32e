//! An incremental checkpoint's files, written once and never again: this version reads them. When a test here fails,
//! checkpoints that users have cannot be read any more.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use millrace_core::{
    clock::Clock,
    ids::OperatorUid,
    key::{KeyColumn, KeyGroupRange},
};
use millrace_state::{
    FsStateBackend, KeyedBackendContext, KeyedStateStore, ListState, MapState, ReducingState, StateTtlConfig,
    ValueState,
    backend::{BackendFile, LocalFiles},
    keyed::StateInFiles,
};
use millrace_state_rocksdb::{LEAST_MEMORY_SIZE, RocksDBStateBackend};

/// When the files were written, and how long their state lives.
const WRITTEN: u64 = 1_800_000_000_000;
const TTL: u64 = 60_000;
const GROUPS: u32 = 16;
/// Also such as are escaped in the files.
const KEYS: [&[u8]; 5] = [b"", b"\0", b"a\0\0b", b"key-1", b"a key that is longer than the others"];
/// The states that expire, by their ids in the snapshot.
const EXPIRING: [u16; 1] = [4];

struct States {
    value: ValueState<i64>,
    list: ListState<String>,
    map: MapState<u8, String>,
    longest: ReducingState<String>,
    expiring: ValueState<u32>,
}

/// The same state three times: tables that RocksDB wrote from its write buffers, those that it is given since, and a base with
/// other entries and the run that makes them these.
const WRITTEN_AS: [&str; 3] = ["v1", "v1-ingested", "v2-runs"];

fn directory(written_as: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(written_as)
}

fn backend() -> RocksDBStateBackend {
    RocksDBStateBackend::configured().with_memory_size(LEAST_MEMORY_SIZE).with_incremental_checkpoints(true)
}

fn context(now: u64) -> KeyedBackendContext {
    KeyedBackendContext {
        uid: OperatorUid("golden".to_string()),
        operator: "Golden".to_string(),
        subtask: 0,
        max_parallelism: GROUPS,
        range: KeyGroupRange::all(GROUPS),
        key_schema: None,
        clock: Clock::manual(now).0,
    }
}

fn states(store: &KeyedStateStore) -> States {
    let longer = |a: String, b: String| if b.len() > a.len() { b } else { a };
    let expiring = store.with_ttl(StateTtlConfig::new(Duration::from_millis(TTL)));
    States {
        value: store.value("value", 0).unwrap(),
        list: store.list("list").unwrap(),
        map: store.map("map").unwrap(),
        longest: store.reducing("longest", longer).unwrap(),
        expiring: expiring.value("expiring", 0).unwrap(),
    }
}

fn on_key(store: &KeyedStateStore, key: &[u8]) {
    let mut keys = KeyColumn::default();
    keys.push(key).unwrap();
    store.begin_batch(keys);
    store.select(0);
}

fn texts(number: usize) -> Vec<String> {
    (0..number).map(|length| "x".repeat(length)).collect()
}

fn check(store: &KeyedStateStore, is_alive: bool) {
    let states = states(store);
    for (number, key) in KEYS.into_iter().enumerate() {
        on_key(store, key);
        assert_eq!(states.value.get().unwrap(), number as i64 - 7);
        assert_eq!(states.list.get().unwrap(), texts(number));
        let entries: BTreeMap<_, _> = states.map.entries().unwrap().into_iter().collect();
        assert_eq!(entries, (0..).zip(texts(number)).collect());
        assert_eq!(states.longest.get().unwrap(), texts(number).pop());
        assert_eq!(states.expiring.get().unwrap(), if is_alive { number as u32 + 1 } else { 0 });
    }
    on_key(store, b"another");
    assert_eq!(states.value.get().unwrap(), 0);
}

/// The files at a place of the backend's own, and the snapshot beside them.
fn place(written_as: &str, backend: &RocksDBStateBackend, context: &KeyedBackendContext) -> (LocalFiles, Bytes) {
    let (place, _) = KeyedStateStore::place_for_files(backend, context).unwrap();
    let mut files = 0;
    for file in fs::read_dir(directory(written_as).join("files")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), place.directory().join(file.file_name())).unwrap();
        files += 1;
    }
    assert!(files >= 3, "tables, their list and its name");
    (place, fs::read(directory(written_as).join("snapshot.bin")).unwrap().into())
}

#[test]
fn all_versions_are_gone_on_from() {
    for (written_as, elapsed, is_alive) in WRITTEN_AS.iter().flat_map(|of| [(of, 0, true), (of, TTL, false)]) {
        let (backend, context) = (backend(), context(WRITTEN + elapsed));
        let (files, snapshot) = place(written_as, &backend, &context);
        let store = KeyedStateStore::adopt(&backend, context, "golden", snapshot, files, EXPIRING.to_vec()).unwrap();
        check(&store, is_alive);
    }
}

#[test]
fn all_versions_are_read_by_another_backend() {
    for written_as in WRITTEN_AS {
        let (backend, context) = (backend(), context(WRITTEN));
        let (files, snapshot) = place(written_as, &backend, &context);
        let store = KeyedStateStore::open(&FsStateBackend::configured(), context).unwrap();
        store.restore_files("golden", snapshot, &backend, files).unwrap();
        check(&store, true);
    }
}

/// RocksDB leaves a mark in the tables that it is given.
#[test]
fn the_files_are_what_their_directories_say() {
    for (written_as, ingested) in WRITTEN_AS.into_iter().zip([false, true, true]) {
        let files = fs::read_dir(directory(written_as).join("files")).unwrap().map(|file| file.unwrap().path());
        let tables: Vec<_> = files.filter(|path| path.extension().is_some_and(|its| its == "sst")).collect();
        assert!(!tables.is_empty());
        for table in tables {
            let content = fs::read(&table).unwrap();
            let mark = b"external_sst_file.global_seqno";
            assert_eq!(content.windows(mark.len()).any(|part| part == mark), ingested, "{}", table.display());
        }
    }
}

#[test]
#[ignore = "writes the golden files: only for a new version of the format"]
fn write_golden_files() {
    let store = KeyedStateStore::open(&backend(), context(WRITTEN)).unwrap();
    let states = states(&store);
    let directory = directory(WRITTEN_AS[2]);
    fs::create_dir_all(directory.join("files")).unwrap();
    let copy = |file: &BackendFile, name: &str| fs::copy(&file.path, directory.join("files").join(name)).unwrap();
    // What the run changes: entries that it replaces, and two that go.
    for key in KEYS.into_iter().chain([b"another".as_slice()]) {
        on_key(&store, key);
        states.value.set(77).unwrap();
        states.map.put(200, "goes".to_string()).unwrap();
    }
    let mut snapshot = store.snapshot().unwrap();
    let base = snapshot.files().unwrap().expect("incremental snapshots are files").files.files;
    for file in &base {
        copy(file, &file.name);
    }
    drop(snapshot);
    on_key(&store, b"another");
    states.value.clear().unwrap();
    for (number, key) in KEYS.into_iter().enumerate() {
        on_key(&store, key);
        states.value.set(number as i64 - 7).unwrap();
        states.list.update(texts(number)).unwrap();
        states.map.remove(&200).unwrap();
        for (key, text) in (0..).zip(texts(number)) {
            states.map.put(key, text.clone()).unwrap();
            states.longest.add(text).unwrap();
        }
        states.expiring.set(number as u32 + 1).unwrap();
    }
    let mut snapshot = store.snapshot().unwrap();
    let StateInFiles { files, expiring } = snapshot.files().unwrap().expect("incremental snapshots are files");
    assert_eq!(expiring, EXPIRING);
    // A run is a table that the database was given. So small a database has no runs beside its base by itself.
    let is_new = |file: &&BackendFile| file.immutable && base.iter().all(|old| old.name != file.name);
    let run: Vec<_> = files.files.iter().filter(is_new).collect();
    assert_eq!(run.len(), 1);
    copy(run[0], "run-00000000000000000001.sst");
    snapshot.write(&mut fs::File::create(directory.join("snapshot.bin")).unwrap()).unwrap();
}
