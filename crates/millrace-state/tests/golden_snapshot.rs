//! Snapshots of version 1, the only one so far, written once and never again: this version reads them, and writes the same state as the same
//! bytes. When a test here fails, checkpoints that users have cannot be read any more: the format needs a new version,
//! and a reader for this one.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use millrace_core::{
    clock::Clock,
    codec,
    ids::OperatorUid,
    key::{KeyColumn, KeyGroupRange, KeyHash},
    schema::Schema,
};
use millrace_state::{
    AggregateFunction, AggregatingState, FsStateBackend, KeyedBackendContext, KeyedStateStore, ListState, MapState,
    ReducingState, StateTtlConfig, ValueState,
    snapshot::{Entry, SnapshotHeader, SnapshotReader, SnapshotWriter, StateKind, StateMeta},
};
use serde::{Deserialize, Serialize};

const STORE: &[u8] = include_bytes!("golden/snapshot-v1-store.bin");
const ENTRIES: &[u8] = include_bytes!("golden/snapshot-v1-entries.bin");
const KINDS: &[u8] = include_bytes!("golden/snapshot-v1-kinds.bin");

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
    open_at(Clock::system())
}

fn open_at(clock: Clock) -> KeyedStateStore {
    let context = KeyedBackendContext {
        key_schema: Some(Schema::of::<String>().unwrap()),
        clock,
        ..KeyedBackendContext::alone("golden", 16)
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

/// The states that came later: reducing and aggregating ones, timers, and all kinds with a time to live.
struct LaterStates {
    sum: ReducingState<i64>,
    average: AggregatingState<Average>,
    value: ValueState<u32>,
    list: ListState<String>,
    map: MapState<u8, Status>,
    longest: ReducingState<String>,
    mean: AggregatingState<Average>,
}

#[derive(Clone)]
struct Average;

impl AggregateFunction for Average {
    type In = i32;
    type Accumulator = (i64, u32);
    type Out = i64;

    fn create_accumulator(&self) -> (i64, u32) {
        (0, 0)
    }

    fn add(&self, value: i32, (sum, count): &mut (i64, u32)) {
        *sum += i64::from(value);
        *count += 1;
    }

    fn get_result(&self, (sum, count): &(i64, u32)) -> i64 {
        sum / i64::from(*count)
    }
}

/// When the golden file was written, and how long its state lives.
const WRITTEN: u64 = 1_800_000_000_000;
const TTL: u64 = 60_000;

fn later_states(store: &KeyedStateStore) -> LaterStates {
    store.enable_timers().unwrap();
    let expiring = store.with_ttl(StateTtlConfig::new(Duration::from_millis(TTL)));
    let longer = |a: String, b: String| if b.len() > a.len() { b } else { a };
    LaterStates {
        sum: store.reducing("sum", |a, b| a + b).unwrap(),
        average: store.aggregating("average", Average).unwrap(),
        value: expiring.value("expiring value", 0).unwrap(),
        list: expiring.list("expiring list").unwrap(),
        map: expiring.map("expiring map").unwrap(),
        longest: expiring.reducing("expiring longest", longer).unwrap(),
        mean: expiring.aggregating("expiring mean", Average).unwrap(),
    }
}

fn write_kinds() -> Vec<u8> {
    let (clock, hand) = Clock::manual(WRITTEN);
    let store = open_at(clock);
    let states = later_states(&store);
    for (number, key) in KEYS.into_iter().enumerate() {
        on_key(&store, key);
        for step in 0..=number {
            hand.set(WRITTEN + 1000 * step as u64);
            states.sum.add(step as i64 - 10).unwrap();
            states.average.add(step as i32).unwrap();
            states.value.set(step as u32).unwrap();
            states.list.add("l".repeat(step)).unwrap();
            states.map.put(step as u8, Status::Named(key.to_string(), [0, 1])).unwrap();
            states.longest.add("m".repeat(step)).unwrap();
            states.mean.add(-(step as i32)).unwrap();
            store.register_timer(WRITTEN + (step as u64) * 77).unwrap();
        }
    }
    let mut file = Vec::new();
    store.snapshot().unwrap().write(&mut file).unwrap();
    file
}

#[test]
fn version_1_of_every_kind_of_state_is_read() {
    // One key's last access was 0 to 3 seconds after the first: state expires as late again.
    for (elapsed, alive) in [(0, 4), (TTL, 3), (TTL + 2000, 1), (TTL + 3000, 0)] {
        let (clock, _) = Clock::manual(WRITTEN + elapsed);
        let store = open_at(clock);
        store.restore("golden", Bytes::from_static(KINDS)).unwrap();
        let states = later_states(&store);
        for (number, key) in KEYS.into_iter().enumerate() {
            on_key(&store, key);
            let steps = 0..=number as i64;
            assert_eq!(states.sum.get().unwrap(), Some(steps.clone().map(|step| step - 10).sum()));
            assert_eq!(states.average.get().unwrap(), Some(steps.clone().sum::<i64>() / (number as i64 + 1)));
            let lives = number >= 4 - alive;
            assert_eq!(states.value.get().unwrap(), if lives { number as u32 } else { 0 });
            assert_eq!(states.longest.get().unwrap(), lives.then(|| "m".repeat(number)));
            assert_eq!(states.mean.get().unwrap(), lives.then(|| -steps.sum::<i64>() / (number as i64 + 1)));
            let expired = elapsed.checked_sub(TTL).map_or(0, |after| after as usize / 1000 + 1);
            let left: Vec<_> = (0..=number).skip(expired).collect();
            assert_eq!(states.list.get().unwrap(), left.iter().map(|step| "l".repeat(*step)).collect::<Vec<_>>());
            let mut keys = states.map.keys().unwrap();
            keys.sort_unstable();
            assert!(keys.into_iter().map(usize::from).eq(left));
        }
        let due = store.due_timers(u64::MAX, 100).unwrap();
        let expected = [vec![0; 4], vec![77; 3], vec![154; 2], vec![231]].concat();
        assert_eq!(due.times, expected.into_iter().map(|after| WRITTEN + after).collect::<Vec<_>>());
        store.begin_batch(due.keys);
        store.select(9);
        assert_eq!(store.current_key::<String>().unwrap(), KEYS[3]);
    }
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
    assert!(write_kinds() == KINDS, "the bytes of a store with every kind of state have changed");
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
    std::fs::write(format!("{directory}/snapshot-v1-kinds.bin"), write_kinds()).unwrap();
}
