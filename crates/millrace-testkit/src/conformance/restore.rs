//! Snapshots and restores.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::Result;
use millrace_state::{KeyedStateStore, StateBackend};

use super::{
    Check,
    operator::{Contents, Operator, on_key, open_store, write},
    run,
};

const PARALLELISMS: [u32; 4] = [1, 2, 3, 7];

pub(super) fn check(backend: &Arc<dyn StateBackend>) {
    let checks: &[(&str, Check)] = &[
        ("snapshots are isolated", snapshots_are_isolated),
        ("empty state", empty_state),
        ("what nothing claims", what_nothing_claims),
        ("another type is refused", another_type_is_refused),
    ];
    run(backend, checks);
    check_from_to(backend, backend);
}

/// A checkpoint of one backend restores on another, at every parallelism, and goes on from there.
pub(super) fn check_from_to(from: &Arc<dyn StateBackend>, to: &Arc<dyn StateBackend>) {
    for before in PARALLELISMS {
        for after in PARALLELISMS {
            restores(from, before, to, after).unwrap_or_else(|error| {
                panic!("from {} at parallelism {before} to {} at {after}: {error}", from.name(), to.name())
            });
        }
    }
}

fn keys() -> Vec<String> {
    (0..200).map(|number| format!("{number}{}", "=".repeat(number % 30))).collect()
}

fn filled(backend: &Arc<dyn StateBackend>, parallelism: u32) -> Result<Operator> {
    let operator = Operator::open(backend, parallelism);
    for (number, key) in keys().iter().enumerate() {
        for amount in 1..=(number as i64 % 5) {
            operator.fill(key, amount)?;
        }
    }
    Ok(operator)
}

fn contents(operator: &Operator) -> Result<Vec<Contents>> {
    keys().iter().map(|key| operator.contents(key)).collect()
}

fn restores(from: &Arc<dyn StateBackend>, before: u32, to: &Arc<dyn StateBackend>, after: u32) -> Result<()> {
    let old = filled(from, before)?;
    let files = old.files();
    let new = Operator::restored(to, after, &files);
    assert_eq!(contents(&new)?, contents(&old)?);
    if before == after {
        assert_eq!(new.files(), files, "the same state gives the same bytes, whichever backend holds it");
    }
    for operator in [&old, &new] {
        for key in keys() {
            operator.fill(&key, 9)?;
        }
        operator.at("1=").count.clear()?;
    }
    let again = Operator::restored(from, before, &new.files());
    assert_eq!(contents(&again)?, contents(&old)?, "restored state goes on as the original does");
    Ok(())
}

/// Writes after a snapshot don't show in it, however many are under way.
fn snapshots_are_isolated(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let operator = filled(backend, 2)?;
    let first = (operator.freeze(), contents(&operator)?);
    for key in keys().iter().step_by(3) {
        operator.fill(key, 20)?;
    }
    let second = (operator.freeze(), contents(&operator)?);
    for key in keys() {
        let subtask = operator.at(&key);
        subtask.count.set(-1)?;
        subtask.list.clear()?;
        subtask.map.clear()?;
        subtask.map.put(77, vec![])?;
        subtask.longest.add("much longer".to_string())?;
        subtask.average.add(1000)?;
    }
    operator.fill("a new key", 3)?;
    for (snapshots, then) in [second, first] {
        let files: Vec<_> = snapshots.into_iter().map(write).collect::<Result<_>>()?;
        let restored = Operator::restored(backend, 3, &files);
        assert_eq!(contents(&restored)?, then);
        assert_eq!(restored.contents("a new key")?, Contents::default());
    }
    Ok(())
}

fn empty_state(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let none = open_store(&**backend, 0, 1);
    let nothing = write(none.snapshot()?)?;
    none.value("late", 1u8)?;
    let empty = write(none.snapshot()?)?;
    for file in [nothing, empty] {
        let store = restored(backend, &file);
        let late = store.value("late", 1u8)?;
        on_key(&store, "a");
        assert_eq!(late.get()?, 1);
    }
    let operator = filled(backend, 1)?;
    for key in keys() {
        operator.clear(&key)?;
    }
    let restored = Operator::restored(backend, 2, &operator.files());
    assert!(contents(&restored)?.iter().all(|contents| *contents == Contents::default()));
    assert_eq!(operator.files(), Operator::open(backend, 1).files(), "cleared state leaves nothing");
    Ok(())
}

fn restored(backend: &Arc<dyn StateBackend>, file: &[u8]) -> KeyedStateStore {
    let store = open_store(&**backend, 0, 1);
    store.restore("the file", Bytes::copy_from_slice(file)).expect("a snapshot is accepted");
    store
}

fn what_nothing_claims(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let files = filled(backend, 1)?.files();
    let store = restored(backend, &files[0]);
    assert!(store.unclaimed().into_iter().eq(["average", "count", "list", "longest", "map"]));
    store.value("count", 0i64)?;
    store.value("new", 0i64)?;
    assert!(store.unclaimed().into_iter().eq(["average", "list", "longest", "map"]));
    let kept = restored(backend, &write(store.snapshot()?)?);
    assert!(kept.unclaimed().into_iter().eq(["count", "new"]), "the rest was dropped by the snapshot");
    Ok(())
}

fn another_type_is_refused(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let files = filled(backend, 1)?.files();
    let refused = [
        restored(backend, &files[0]).value("count", 0i32).err(),
        restored(backend, &files[0]).value("count", Some(0i64)).err(),
        restored(backend, &files[0]).list::<i64>("count").err(),
        restored(backend, &files[0]).map::<String, i64>("count").err(),
        restored(backend, &files[0]).list::<u8>("list").err(),
        restored(backend, &files[0]).map::<u32, String>("map").err(),
    ];
    for error in refused {
        let error = error.expect("another type than the writer's is refused");
        assert!(error.message.contains("the file") && !error.retryable, "{error}");
    }
    Ok(())
}
