//! Snapshots of version 1, written once and never again: this version reads them, and writes the same state as the same
//! bytes. When a test here fails, checkpoints that users have cannot be read any more: the format needs a new version,
//! and a reader for this one.

use std::collections::BTreeMap;

use bytes::Bytes;
use millrace_core::{
    codec,
    ids::OperatorUid,
    key::{KeyColumn, KeyGroupRange, KeyHash},
    schema::Schema,
};
use millrace_state::{
    FsStateBackend, KeyedBackendContext, KeyedStateStore, ListState, MapState, ValueState,
    snapshot::{Entry, SnapshotHeader, SnapshotReader, SnapshotWriter, StateKind, StateMeta},
};
use serde::{Deserialize, Serialize};

const STORE: &[u8] = include_bytes!("golden/snapshot-v1-store.bin");
const ENTRIES: &[u8] = include_bytes!("golden/snapshot-v1-entries.bin");

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Status {
    New,
    Seen { times: u32, last: Option<i64> },
    Named(String, [u8; 2]),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    status: Status,
    weights: Vec<f64>,
    flags: BTreeMap<String, bool>,
}

struct States {
    session: ValueState<Session>,
    history: ListState<(u8, String)>,
    totals: MapState<i64, Status>,
}

const KEYS: [&str; 4] = ["", "a", "key-1", "a key that is longer than what lies in its slot"];

fn default_session() -> Session {
    Session { status: Status::New, weights: vec![], flags: BTreeMap::new() }
}

fn open() -> KeyedStateStore {
    let context = KeyedBackendContext {
        uid: OperatorUid("golden".to_string()),
        operator: "Golden".to_string(),
        subtask: 0,
        max_parallelism: 16,
        range: KeyGroupRange::all(16),
        key_schema: Some(Schema::of::<String>().unwrap()),
    };
    KeyedStateStore::open(&FsStateBackend::configured(), context).unwrap()
}

fn states(store: &KeyedStateStore) -> States {
    States {
        session: store.value("session", default_session()).unwrap(),
        history: store.list("history").unwrap(),
        totals: store.map("totals").unwrap(),
    }
}

fn on_key(store: &KeyedStateStore, key: &str) {
    let mut keys = KeyColumn::default();
    keys.push(key).unwrap();
    store.begin_batch(keys);
    store.select(0);
}

fn session(number: usize) -> Session {
    let status = match number {
        0 => Status::New,
        1 => Status::Seen { times: 300, last: Some(-1) },
        _ => Status::Named(format!("n{number}"), [1, 255]),
    };
    let flags = BTreeMap::from([("x".to_string(), number.is_multiple_of(2))]);
    Session { status, weights: vec![0.5, -2.0, f64::MAX], flags }
}

fn history(number: usize) -> Vec<(u8, String)> {
    (0..number as u8).map(|step| (step, "h".repeat(number))).collect()
}

fn totals(number: usize) -> BTreeMap<i64, Status> {
    (0..number as i64).map(|step| (step * -1000, Status::Seen { times: step as u32, last: None })).collect()
}

/// The state of a store with every kind of state.
fn write_store() -> Vec<u8> {
    let store = open();
    let states = states(&store);
    for (number, key) in KEYS.into_iter().enumerate() {
        on_key(&store, key);
        states.session.set(session(number)).unwrap();
        states.history.update(history(number)).unwrap();
        totals(number).into_iter().try_for_each(|(key, value)| states.totals.put(key, value)).unwrap();
    }
    let mut file = Vec::new();
    store.snapshot().unwrap().write(&mut file).unwrap();
    file
}

fn header() -> SnapshotHeader {
    let schemas = |count| vec![Schema::of::<Session>().unwrap(); count];
    let state = |id, name: &str, kind, count| StateMeta {
        id,
        name: name.to_string(),
        kind,
        key_schema: None,
        schemas: schemas(count),
    };
    SnapshotHeader {
        uid: OperatorUid("golden".to_string()),
        max_parallelism: 16,
        range: KeyGroupRange { start: 4, end: 9 },
        states: vec![state(0, "a", StateKind::Value, 1), state(7, "b", StateKind::Map, 2)],
    }
}

/// Entries with every optional part.
fn entries() -> [(u16, u16, Entry<'static>); 5] {
    let entry = Entry::new(b"key", None, b"value");
    [
        (0, 4, entry),
        (0, 4, Entry { namespace: Some(b"window"), expiry: Some(1_700_000_000_000), ..entry }),
        (0, 4, Entry { namespace: Some(b"window"), timer_domain: Some(1), value: b"", ..entry }),
        (7, 9, Entry { sub_key: Some(b"sub"), ..entry }),
        (7, 9, Entry { sub_key: Some(b"sub 2"), value: &[0xff; 200], ..entry }),
    ]
}

fn write_entries() -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = SnapshotWriter::new(&mut file, &header()).unwrap();
    entries().iter().for_each(|(state, group, entry)| writer.entry(*state, *group, entry).unwrap());
    writer.finish().unwrap();
    file
}

#[test]
fn version_1_of_a_store_is_read() {
    let store = open();
    store.restore("golden", Bytes::from_static(STORE)).unwrap();
    let states = states(&store);
    for (number, key) in KEYS.into_iter().enumerate() {
        on_key(&store, key);
        assert_eq!(states.session.get().unwrap(), session(number));
        assert_eq!(states.history.get().unwrap(), history(number));
        assert_eq!(states.totals.entries().unwrap().into_iter().collect::<BTreeMap<_, _>>(), totals(number));
    }
    on_key(&store, "another");
    assert_eq!(states.session.get().unwrap(), default_session());
}

#[test]
fn version_1_of_every_kind_of_entry_is_read() {
    let reader = SnapshotReader::open(Bytes::from_static(ENTRIES)).unwrap();
    assert_eq!(*reader.header(), header());
    for (state, group) in [(0, 4), (7, 9)] {
        let section = *reader.sections(state, KeyGroupRange { start: group, end: group }).next().unwrap();
        let mut read = reader.read(&section).unwrap();
        for (_, _, entry) in entries().iter().filter(|(of, _, _)| *of == state) {
            assert_eq!(read.next().unwrap().as_ref(), Some(entry));
        }
        assert_eq!(read.next().unwrap(), None);
    }
}

#[test]
fn the_same_state_is_written_as_the_same_bytes() {
    assert!(write_store() == STORE, "the bytes of a store's snapshot have changed");
    assert!(write_entries() == ENTRIES, "the bytes of entries have changed");
}

#[test]
fn the_keys_of_the_golden_store_fall_into_the_groups_of_then() {
    let groups = KEYS.map(|key| KeyHash::of(&codec::encode(key).unwrap()).key_group(16));
    let reader = SnapshotReader::open(Bytes::from_static(STORE)).unwrap();
    let state = reader.header().states.iter().find(|state| state.name == "session").unwrap().id;
    let mut written: Vec<_> = reader.sections(state, KeyGroupRange::all(16)).map(|section| section.key_group).collect();
    let mut expected = groups.to_vec();
    expected.sort_unstable();
    expected.dedup();
    written.dedup();
    assert_eq!(written, expected);
}

#[test]
#[ignore = "writes the golden files: only for a new version of the format"]
fn write_golden_files() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::fs::write(format!("{directory}/snapshot-v1-store.bin"), write_store()).unwrap();
    std::fs::write(format!("{directory}/snapshot-v1-entries.bin"), write_entries()).unwrap();
}
