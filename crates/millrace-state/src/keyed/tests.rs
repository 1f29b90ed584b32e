use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{clock::Clock, ids::OperatorUid, schema::Schema};
use serde::{Deserialize, Serialize};

use super::*;
use crate::backend::{FsStateBackend, MemoryStateBackend};

fn context() -> KeyedBackendContext {
    KeyedBackendContext { operator: "Flat Map".to_string(), ..KeyedBackendContext::alone("counter", 8) }
}

fn store() -> KeyedStateStore {
    KeyedStateStore::open(&FsStateBackend::configured(), context()).unwrap()
}

fn on_key(store: &KeyedStateStore, key: &str) {
    let mut keys = KeyColumn::default();
    keys.push(key).unwrap();
    store.begin_batch(keys);
    store.select(0);
}

fn file(store: &KeyedStateStore) -> Vec<u8> {
    let mut file = Vec::new();
    store.snapshot().unwrap().write(&mut file).unwrap();
    file
}

fn counted() -> Vec<u8> {
    let store = store();
    let count = store.value("count", 0i64).unwrap();
    for key in ["a", "b", "c"] {
        on_key(&store, key);
        count.set(7).unwrap();
    }
    file(&store)
}

#[test]
fn a_handle_that_was_not_obtained_says_so() {
    let error = ValueState::<i32>::default().get().unwrap_err();
    assert!(error.message.contains("ValueState<i32>") && error.message.contains("open"), "{error}");
    assert!(ListState::<i32>::default().add(1).is_err());
    assert!(MapState::<i32, i32>::default().put(1, 1).is_err());
}

#[test]
fn a_handle_does_not_work_on_another_thread() {
    let store = store();
    let count = store.value("count", 0).unwrap();
    on_key(&store, "a");
    let travelled = count.clone();
    let elsewhere = std::thread::spawn(move || (travelled.get().unwrap_err(), travelled.clone().get().unwrap_err()));
    let (error, of_clone) = elsewhere.join().unwrap();
    assert!(error.message.contains("another thread"), "{error}");
    assert!(of_clone.message.contains("thread"), "{of_clone}");
    count.set(1).unwrap();
}

#[test]
fn without_a_record_there_is_no_key() {
    let store = store();
    let count = store.value("count", 0).unwrap();
    assert!(count.get().unwrap_err().message.contains("\"count\""));
    on_key(&store, "a");
    count.set(1).unwrap();
    assert_eq!(store.end_batch().len(), 1);
    assert!(count.get().unwrap_err().message.contains("no key"));
}

#[test]
fn a_state_inside_its_own_modify_is_an_error_and_another_is_not() {
    let store = store();
    let (a, b) = (store.value("a", 0).unwrap(), store.value("b", 0).unwrap());
    on_key(&store, "k");
    let inner = a.modify(|_| a.get()).unwrap();
    assert!(inner.unwrap_err().message.contains("its own modify"));
    a.modify(|a| {
        b.set({
            *a += 1;
            *a
        })
    })
    .unwrap()
    .unwrap();
    assert_eq!((a.get().unwrap(), b.get().unwrap()), (1, 1));
}

#[test]
fn one_name_is_one_state_of_one_type() {
    let store = store();
    let count = store.value("count", 1i64).unwrap();
    on_key(&store, "k");
    count.set(5).unwrap();
    assert_eq!(store.value("count", 9i64).unwrap().get().unwrap(), 5);
    for error in [store.value("count", 1i32).err(), store.list::<i64>("count").err()] {
        let error = error.unwrap();
        let known = ["\"count\"", "ValueState<i64>", "Flat Map"].iter().all(|part| error.message.contains(part));
        assert!(known && !error.retryable, "{error}");
    }
}

#[test]
fn types_without_a_schema_are_refused_by_name() {
    let error = store().value("free", serde_json::Value::Null).err().unwrap();
    assert!(error.message.contains("\"free\"") && error.message.contains("Value"), "{error}");
}

#[test]
fn another_type_than_the_writers_is_refused_showing_both() {
    let restored = || {
        let store = store();
        store.restore("chk-3/a.state", Bytes::from(counted())).unwrap();
        store
    };
    assert_eq!(restored().unclaimed(), BTreeSet::from(["count".to_string()]));
    let error = restored().value("count", String::new()).err().unwrap();
    for part in ["chk-3/a.state", "\"count\"", "i64", "str", "ValueState<alloc::string::String>"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    let error = restored().list::<i64>("count").err().unwrap();
    assert!(error.message.contains("value state of i64") && error.message.contains("list state of i64"), "{error}");
    let right = restored();
    right.value("count", 0i64).unwrap();
    assert!(right.unclaimed().is_empty());
}

#[test]
fn state_keyed_by_another_type_is_refused() {
    let keyed_by = |schema: Schema| KeyedBackendContext { key_schema: Some(schema), ..context() };
    let open = |context| KeyedStateStore::open(&FsStateBackend::configured(), context).unwrap();
    let store = open(keyed_by(Schema::of::<String>().unwrap()));
    store.value("count", 0i64).unwrap();
    let snapshot = Bytes::from(file(&store));
    for (context, fits) in [
        (context(), true),
        (keyed_by(Schema::of::<String>().unwrap()), true),
        (keyed_by(Schema::of::<u64>().unwrap()), false),
    ] {
        let store = open(context);
        store.restore("it", snapshot.clone()).unwrap();
        assert_eq!(store.value("count", 0i64).is_ok(), fits);
    }
}

#[test]
fn a_foreign_snapshot_is_refused_by_name() {
    let snapshot = Bytes::from(counted());
    let other = KeyedBackendContext { uid: OperatorUid("other".to_string()), ..context() };
    let wider = KeyedBackendContext { max_parallelism: 128, ..context() };
    for (context, part) in [(other, "operator counter"), (wider, "maximum parallelism of 8")] {
        let store = KeyedStateStore::open(&FsStateBackend::configured(), context).unwrap();
        let error = store.restore("chk-3/a.state", snapshot.clone()).unwrap_err();
        assert!(error.message.contains("chk-3/a.state") && error.message.contains(part), "{error}");
    }
    let store = store();
    store.restore("first", snapshot.clone()).unwrap();
    let error = store.restore("second", snapshot.clone()).unwrap_err();
    assert!(error.message.contains("first") && error.message.contains("second"), "{error}");
    let error = store.restore("cut", snapshot.slice(..40)).unwrap_err();
    assert!(error.message.starts_with("cut"), "{error}");
}

#[test]
fn damage_in_a_state_names_its_file_when_the_state_is_obtained() {
    let mut damaged = counted();
    let trailer = damaged.len() - 20;
    let footer = u64::from_le_bytes(damaged[trailer..trailer + 8].try_into().unwrap()) as usize;
    damaged[footer - 1] ^= 1;
    let store = store();
    store.restore("chk-3/a.state", Bytes::from(damaged)).unwrap();
    let error = store.value("count", 0i64).err().unwrap();
    assert!(error.message.contains("chk-3/a.state") && error.message.contains("checksum"), "{error}");
}

#[test]
fn a_key_in_the_wrong_group_is_refused() {
    use crate::snapshot::{Entry, SnapshotHeader, SnapshotWriter, StateKind, StateMeta};
    let schemas = vec![Schema::of::<i64>().unwrap()];
    let meta = StateMeta { id: 0, name: "count".to_string(), kind: StateKind::Value, key_schema: None, schemas };
    let KeyedBackendContext { uid, max_parallelism, range, .. } = context();
    let header = SnapshotHeader { uid, max_parallelism, range, states: vec![meta] };
    let group = millrace_core::key::KeyHash::of(b"key").key_group(8);
    let restore = |group, entry: Entry<'_>| {
        let mut file = Vec::new();
        let mut writer = SnapshotWriter::new(&mut file, &header).unwrap();
        writer.entry(0, group, &entry).unwrap();
        writer.finish().unwrap();
        let store = store();
        store.restore("it", Bytes::from(file)).unwrap();
        store.value("count", 0i64).map(drop)
    };
    let entry = Entry::new(b"key", None, &[2]);
    restore(group, entry).unwrap();
    assert!(restore((group + 1) % 8, entry).unwrap_err().message.contains("does not belong to key group"));
    assert!(restore(group, Entry { value: &[0xff], ..entry }).unwrap_err().message.contains("\"count\""));
    assert!(restore(group, Entry { sub_key: Some(b"s"), ..entry }).unwrap_err().message.contains("sub key"));
    assert!(restore(group, Entry { namespace: Some(b"w"), ..entry }).unwrap_err().message.contains("namespaces"));
    assert!(restore(group, Entry { timer_domain: Some(1), ..entry }).unwrap_err().message.contains("timers"));
}

#[derive(Clone, Serialize, Deserialize)]
struct Skipping {
    kept: u32,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    sometimes: Vec<u8>,
}

#[test]
fn a_serializer_that_does_not_invert_fails_the_snapshot_by_name() {
    let store = store();
    let state = store.value("skipping", Skipping { kept: 1, sometimes: vec![] }).unwrap();
    on_key(&store, "a");
    state.modify(|value| value.kept = 2).unwrap();
    let error = store.snapshot().unwrap().write(&mut Vec::new()).unwrap_err();
    assert!(error.message.contains("Skipping") && error.message.contains("\"skipping\""), "{error}");
}

#[test]
fn a_memory_backend_refuses_a_large_state_when_it_is_written_and_stays_usable() {
    let backend = MemoryStateBackend::with_max_state_size(1000);
    let store = KeyedStateStore::open(&backend, context()).unwrap();
    let state = store.value("large", String::new()).unwrap();
    on_key(&store, "a");
    state.set("x".repeat(2000)).unwrap();
    let error = store.snapshot().unwrap().write(&mut Vec::new()).unwrap_err();
    assert!(error.message.contains("\"large\"") && error.message.contains("1000"), "{error}");
    state.set("small".to_string()).unwrap();
    assert!(file(&store).len() < 1000);
}

#[test]
fn ids_follow_from_names_so_that_the_same_state_gives_the_same_bytes() {
    let build = |names: [&str; 3]| {
        let store = store();
        for name in names {
            let state = store.value(name, 0u8).unwrap();
            on_key(&store, "k");
            state.set(1).unwrap();
        }
        file(&store)
    };
    assert_eq!(build(["a", "b", "c"]), build(["c", "a", "b"]));
}

#[test]
fn what_nothing_obtains_is_gone_after_the_first_snapshot() {
    let store = store();
    store.restore("it", Bytes::from(counted())).unwrap();
    file(&store);
    assert!(store.unclaimed().is_empty());
    let count = store.value("count", 0i64).unwrap();
    on_key(&store, "a");
    assert_eq!(count.get().unwrap(), 0);
}

#[test]
fn handles_and_snapshots_can_be_sent() {
    fn sendable<T: Send>(_: &T) {}
    let store = store();
    sendable(&store.value("v", Arc::<str>::from("x").to_string()).unwrap());
    sendable(&store.map::<String, i32>("m").unwrap());
    sendable(&store.snapshot().unwrap());
}

/// How many keys of an expiring value state are on the heap.
fn held(store: &KeyedStateStore, name: &str) -> usize {
    let state = Rc::clone(&store.inner.states.borrow()[name].state) as Rc<dyn Any>;
    let cell = state.downcast::<StateCell<OneLayout<i64, Value>>>().ok().unwrap();
    match &cell.data {
        Data::Expiring(state) => state.table.borrow().len(),
        _ => panic!("it is not held with its expiry"),
    }
}

#[test]
fn expired_state_is_cleaned_up_although_nobody_asks_for_it() {
    let (clock, hand) = Clock::manual(0);
    let context = KeyedBackendContext { clock, ..context() };
    let store = KeyedStateStore::open(&FsStateBackend::configured(), context).unwrap();
    let ttl = StateTtlConfig::new(std::time::Duration::from_millis(10));
    let count = store.with_ttl(ttl).value("count", 0i64).unwrap();
    for key in 0..1000 {
        on_key(&store, &key.to_string());
        count.set(1).unwrap();
    }
    assert_eq!(held(&store, "count"), 1000);
    hand.set(10);
    let another = || {
        on_key(&store, "another");
        count.get().unwrap();
    };
    another();
    assert!(held(&store, "count") >= 990, "an access cleans a little");
    (0..2000).for_each(|_| another());
    assert_eq!(held(&store, "count"), 0);
}

#[test]
fn a_list_and_a_map_that_are_only_written_do_not_grow_for_ever() {
    let (clock, hand) = Clock::manual(0);
    let context = KeyedBackendContext { clock, ..context() };
    let store = KeyedStateStore::open(&FsStateBackend::configured(), context).unwrap();
    let expiring = store.with_ttl(StateTtlConfig::new(std::time::Duration::from_millis(100)));
    let (list, map) = (expiring.list::<u64>("list").unwrap(), expiring.map::<u64, u64>("map").unwrap());
    on_key(&store, "a");
    for now in 0..100_000 {
        hand.set(now);
        list.add(now).unwrap();
        map.put(now, now).unwrap();
    }
    let held = |name: &str| Rc::clone(&store.inner.states.borrow()[name].state) as Rc<dyn Any>;
    let listed = held("list").downcast::<StateCell<ListLayout<u64>>>().ok().unwrap();
    let mapped = held("map").downcast::<StateCell<MapLayout<u64, u64>>>().ok().unwrap();
    let (Data::Expiring(listed), Data::Expiring(mapped)) = (&listed.data, &mapped.data) else { panic!() };
    let mut keys = KeyColumn::default();
    let hash = keys.push("a").unwrap();
    let listed = listed.table.borrow().get(hash, keys.key(0)).unwrap().unwrap().len();
    let mapped = mapped.table.borrow().get(hash, keys.key(0)).unwrap().unwrap().len();
    assert!((100..1000).contains(&listed) && (100..1000).contains(&mapped), "{listed} and {mapped} of 100 that live");
    assert_eq!(list.get().unwrap().len(), 100);
    assert_eq!(map.keys().unwrap().len(), 100);
}

#[test]
fn a_handle_of_every_kind_says_that_it_was_not_obtained() {
    #[derive(Clone)]
    struct Count;
    impl AggregateFunction for Count {
        type In = ();
        type Accumulator = u64;
        type Out = u64;
        fn create_accumulator(&self) -> u64 {
            0
        }
        fn add(&self, (): (), count: &mut u64) {
            *count += 1;
        }
        fn get_result(&self, count: &u64) -> u64 {
            *count
        }
    }
    let error = ReducingState::<i32>::default().add(1).unwrap_err();
    assert!(error.message.contains("ReducingState<i32>") && error.message.contains("open"), "{error}");
    let error = AggregatingState::<Count>::default().add(()).unwrap_err();
    assert!(error.message.contains("AggregatingState") && error.message.contains("u64"), "{error}");
}
