//! Timers: on the heap for every backend, and in the snapshots of each.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use millrace_core::{
    Result, codec,
    key::{KeyHash, subtask_of_key_group},
};
use millrace_state::{KeyedStateStore, StateBackend, TIMERS};

use super::{
    Check,
    operator::{MAX_PARALLELISM, on_key, open_store, write},
    run,
};

/// The timers of an operator: when, and whose.
type Timers = BTreeSet<(u64, String)>;

pub(super) fn check(backend: &Arc<dyn StateBackend>) {
    let checks: &[(&str, Check)] = &[
        ("timers are coalesced, deleted and due in order", timers),
        ("a snapshot keeps its timers", snapshots_are_isolated),
        ("timers that nothing claims", unclaimed),
    ];
    run(backend, checks);
    check_from_to(backend, backend);
}

fn open(backend: &Arc<dyn StateBackend>, parallelism: u32, files: &[Vec<u8>]) -> Result<Vec<KeyedStateStore>> {
    let open = |subtask| {
        let store = open_store(&**backend, subtask, parallelism);
        for (number, file) in files.iter().enumerate() {
            store.restore(&format!("file {number}"), Bytes::copy_from_slice(file))?;
        }
        store.enable_timers()?;
        Ok(store)
    };
    (0..parallelism).map(open).collect()
}

/// The store that owns a key, with it as the current one.
fn at<'a>(stores: &'a [KeyedStateStore], key: &str) -> Result<&'a KeyedStateStore> {
    let group = KeyHash::of(&codec::encode(key)?).key_group(MAX_PARALLELISM);
    let store = &stores[subtask_of_key_group(MAX_PARALLELISM, stores.len() as u32, group) as usize];
    on_key(store, key);
    Ok(store)
}

/// Fires all timers up to `now`, each where it belongs.
fn fire(stores: &[KeyedStateStore], now: u64) -> Result<Vec<(u64, String)>> {
    let mut fired = Vec::new();
    for store in stores {
        while store.next_timer().is_some_and(|next| next <= now) {
            let due = store.due_timers(now, 7)?;
            assert!(!due.times.is_empty() && due.times.len() == due.keys.len());
            assert!(due.times.is_sorted(), "the earliest first");
            store.begin_batch(due.keys);
            for (index, time) in due.times.into_iter().enumerate() {
                store.select(index);
                assert!(store.take_timer(time)?);
                assert!(!store.take_timer(time)?, "it fires once");
                fired.push((time, store.current_key::<String>()?));
            }
            store.end_batch();
        }
        assert!(store.due_timers(now, 7)?.times.is_empty());
    }
    Ok(fired)
}

fn timers(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let stores = open(backend, 1, &[])?;
    let store = &stores[0];
    assert_eq!(store.next_timer(), None);
    on_key(store, "a");
    for time in [50, 10, 50, 30, 10, u64::MAX] {
        store.register_timer(time)?;
    }
    on_key(store, "b");
    store.register_timer(10)?;
    store.register_timer(20)?;
    store.delete_timer(20)?;
    store.delete_timer(30)?;
    assert_eq!(store.next_timer(), Some(10));
    assert!(fire(&stores, 9)?.is_empty());
    let named = |timers: &[(u64, &str)]| -> Vec<_> { timers.iter().map(|(at, key)| (*at, key.to_string())).collect() };
    assert_eq!(fire(&stores, 49)?, named(&[(10, "a"), (10, "b"), (30, "a")]));
    assert_eq!(store.next_timer(), Some(50));
    on_key(store, "a");
    store.delete_timer(50)?;
    assert_eq!(store.next_timer(), Some(u64::MAX));
    store.register_timer(40)?;
    assert_eq!(fire(&stores, 100)?, named(&[(40, "a")]), "one that is registered late fires at once");
    store.end_batch();
    assert!(store.register_timer(1).is_err(), "there is no key");
    Ok(())
}

fn keys() -> impl Iterator<Item = (u64, String)> {
    (0..300u64).map(|number| (number % 40, format!("{}{}", number % 120, "=".repeat(number as usize % 30))))
}

fn filled(backend: &Arc<dyn StateBackend>, parallelism: u32) -> Result<(Vec<KeyedStateStore>, Timers)> {
    let stores = open(backend, parallelism, &[])?;
    for (time, key) in keys() {
        at(&stores, &key)?.register_timer(time)?;
    }
    Ok((stores, keys().collect()))
}

fn files(stores: &[KeyedStateStore]) -> Result<Vec<Vec<u8>>> {
    stores.iter().map(|store| write(store.snapshot()?)).collect()
}

fn snapshots_are_isolated(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let (stores, timers) = filled(backend, 2)?;
    let snapshots = stores.iter().map(KeyedStateStore::snapshot).collect::<Result<Vec<_>>>()?;
    fire(&stores, 20)?;
    at(&stores, "new")?.register_timer(1)?;
    let files = snapshots.into_iter().map(write).collect::<Result<Vec<_>>>()?;
    let restored = open(backend, 3, &files)?;
    assert_eq!(fire(&restored, u64::MAX)?.into_iter().collect::<Timers>(), timers);
    Ok(())
}

fn unclaimed(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let (stores, _) = filled(backend, 1)?;
    let store = open_store(&**backend, 0, 1);
    store.restore("the file", Bytes::from(files(&stores)?.remove(0)))?;
    assert!(store.unclaimed().into_iter().eq([TIMERS]));
    assert!(store.value(TIMERS, 0i64).is_err(), "timers are no value state");
    Ok(())
}

/// Timers restore at every parallelism, those that were due as well.
pub(super) fn check_from_to(from: &Arc<dyn StateBackend>, to: &Arc<dyn StateBackend>) {
    for before in [1, 2, 3, 7] {
        for after in [1, 2, 3, 7] {
            restores(from, before, to, after).unwrap_or_else(|error| {
                panic!("timers from {} at {before} to {} at {after}: {error}", from.name(), to.name())
            });
        }
    }
}

fn restores(from: &Arc<dyn StateBackend>, before: u32, to: &Arc<dyn StateBackend>, after: u32) -> Result<()> {
    let (old, timers) = filled(from, before)?;
    let written = files(&old)?;
    let new = open(to, after, &written)?;
    if before == after {
        assert_eq!(files(&new)?, written, "the same timers give the same bytes");
    }
    let early = fire(&new, 15)?;
    assert!(early.iter().all(|(time, _)| *time <= 15));
    let late = fire(&new, 39)?;
    assert_eq!(early.len() + late.len(), timers.len(), "each fires once");
    assert_eq!(early.into_iter().chain(late).collect::<Timers>(), timers);
    Ok(())
}
