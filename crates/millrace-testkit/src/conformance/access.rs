//! Reading and writing state.

use std::sync::Arc;

use millrace_core::Result;
use millrace_state::StateBackend;

use super::{
    Check,
    operator::{Average, Contents, Operator, key_column, longer, on_key, open_store},
    run,
};

pub(super) fn check(backend: &Arc<dyn StateBackend>) {
    let checks: &[(&str, Check)] = &[
        ("value state", value_state),
        ("list state", list_state),
        ("map state", map_state),
        ("reducing state", reducing_state),
        ("aggregating state", aggregating_state),
        ("states and keys are apart", states_and_keys_are_apart),
        ("batches", batches),
        ("many keys", many_keys),
        ("conflicts", conflicts),
    ];
    run(backend, checks);
}

fn value_state(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let store = open_store(&**backend, 0, 1);
    let (count, text) = (store.value("count", 5i64)?, store.value("text", "none".to_string())?);
    on_key(&store, "a");
    assert_eq!((count.get()?, text.get()?), (5, "none".to_string()), "the defaults");
    assert_eq!(count.modify(|count| std::mem::replace(count, 6))?, 5, "modify begins with the default");
    text.set(String::new())?;
    assert_eq!((count.get()?, text.get()?), (6, String::new()));
    count.clear()?;
    count.clear()?;
    assert_eq!((count.get()?, text.get()?), (5, String::new()), "cleared: the default again");
    count.set(9)?;
    assert_eq!(store.value("count", 100i64)?.get()?, 9, "the same state under the same name");
    Ok(())
}

fn list_state(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let store = open_store(&**backend, 0, 1);
    let list = store.list::<Option<String>>("list")?;
    on_key(&store, "a");
    assert!(list.get()?.is_empty());
    list.add(None)?;
    list.add(Some("x".repeat(300)))?;
    list.add(None)?;
    assert_eq!(list.get()?, [None, Some("x".repeat(300)), None], "in the order in which they were added");
    list.update(vec![Some(String::new())])?;
    assert_eq!(list.get()?, [Some(String::new())]);
    list.update(vec![])?;
    assert!(list.get()?.is_empty());
    list.add(None)?;
    list.clear()?;
    list.clear()?;
    assert!(list.get()?.is_empty());
    Ok(())
}

fn map_state(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let store = open_store(&**backend, 0, 1);
    let map = store.map::<String, (i32, bool)>("map")?;
    let key = |text: &str| text.to_string();
    on_key(&store, "a");
    assert!(map.is_empty()? && map.entries()?.is_empty() && !map.contains(&key(""))?);
    map.put(key(""), (0, false))?;
    map.put(key("b"), (1, true))?;
    map.put(key("a"), (2, true))?;
    map.put(key("b"), (3, false))?;
    assert_eq!(map.get(&key("b"))?, Some((3, false)));
    assert_eq!(map.get(&key("c"))?, None);
    assert!(map.contains(&key(""))? && !map.is_empty()?);
    let sorted = |mut all: Vec<_>| {
        all.sort();
        all
    };
    assert_eq!(sorted(map.entries()?), [(key(""), (0, false)), (key("a"), (2, true)), (key("b"), (3, false))]);
    let (mut keys, mut values) = (map.keys()?, map.values()?);
    keys.sort();
    values.sort();
    assert_eq!((keys, values), (vec![key(""), key("a"), key("b")], vec![(0, false), (2, true), (3, false)]));
    map.remove(&key("b"))?;
    map.remove(&key("b"))?;
    assert_eq!(sorted(map.entries()?), [(key(""), (0, false)), (key("a"), (2, true))]);
    map.remove(&key(""))?;
    map.remove(&key("a"))?;
    assert!(map.is_empty()?);
    map.put(key("x"), (4, true))?;
    map.clear()?;
    map.clear()?;
    assert!(map.is_empty()? && map.get(&key("x"))?.is_none());
    Ok(())
}

fn reducing_state(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let store = open_store(&**backend, 0, 1);
    let (sum, longest) = (store.reducing::<i64>("sum", |a, b| a + b)?, store.reducing("longest", longer)?);
    on_key(&store, "a");
    assert_eq!((sum.get()?, longest.get()?), (None, None));
    for word in ["be", "or", "not", "to"] {
        sum.add(word.len() as i64)?;
        longest.add(word.to_string())?;
    }
    assert_eq!((sum.get()?, longest.get()?), (Some(9), Some("not".to_string())));
    on_key(&store, "b");
    sum.add(-1)?;
    on_key(&store, "a");
    sum.clear()?;
    sum.clear()?;
    assert_eq!((sum.get()?, longest.get()?), (None, Some("not".to_string())));
    on_key(&store, "b");
    assert_eq!(sum.get()?, Some(-1));
    Ok(())
}

fn aggregating_state(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let store = open_store(&**backend, 0, 1);
    let average = store.aggregating("average", Average)?;
    on_key(&store, "a");
    assert_eq!(average.get()?, None);
    for value in [1, 2, 6] {
        average.add(value)?;
    }
    assert_eq!(average.get()?, Some(3));
    average.clear()?;
    average.clear()?;
    assert_eq!(average.get()?, None);
    average.add(-7)?;
    assert_eq!(average.get()?, Some(-7), "a cleared accumulator begins anew");
    Ok(())
}

/// One key's clearing or another state's writing changes nothing else, also where encodings are prefixes of one another.
fn states_and_keys_are_apart(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let operator = Operator::open(backend, 1);
    let keys = ["", "a", "aa", "aaa", "b", "a\0", "\0"];
    for (key, amount) in keys.iter().zip(1..) {
        operator.fill(key, amount)?;
    }
    let before: Vec<_> = keys.iter().map(|key| operator.contents(key)).collect::<Result<_>>()?;
    operator.clear("aa")?;
    for (key, before) in keys.iter().zip(before) {
        let expected = if *key == "aa" { Contents::default() } else { before };
        assert_eq!(operator.contents(key)?, expected, "{key:?}");
    }
    Ok(())
}

/// Records of a batch are selected in any order; a batch may be empty, and longer than what is prefetched at once.
fn batches(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let store = open_store(&**backend, 0, 1);
    let count = store.value("count", 0i64)?;
    let names: Vec<_> = (0..300).map(|number| format!("key {}", number % 100)).collect();
    let keys: Vec<_> = names.iter().map(String::as_str).collect();
    store.begin_batch(key_column(&keys));
    for index in (0..300).rev() {
        store.select(index);
        count.modify(|count| *count += 1)?;
    }
    assert_eq!(store.end_batch(), key_column(&keys), "the keys are given back");
    store.begin_batch(key_column(&[]));
    assert!(count.get().is_err(), "there is no record");
    store.end_batch();
    for key in &keys[..100] {
        on_key(&store, key);
        assert_eq!(count.get()?, 3, "{key}");
    }
    Ok(())
}

fn many_keys(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let operator = Operator::open(backend, 3);
    let keys: Vec<_> = (0..3000).map(|number| format!("{number}{}", "-".repeat(number % 40))).collect();
    for round in 1..=2 {
        for key in &keys {
            operator.at(key).count.modify(|count| *count += round)?;
        }
    }
    for key in keys.iter().step_by(2) {
        operator.at(key).count.clear()?;
    }
    for key in keys.iter().step_by(4) {
        operator.at(key).count.set(10)?;
    }
    for (number, key) in keys.iter().enumerate() {
        let expected = [10, 3, 0, 3][number % 4];
        assert_eq!(operator.at(key).count.get()?, expected, "{key}");
    }
    Ok(())
}

fn conflicts(backend: &Arc<dyn StateBackend>) -> Result<()> {
    let store = open_store(&**backend, 0, 1);
    let count = store.value("state", 0i64)?;
    let refused = [
        store.value("state", 0i32).err(),
        store.value("state", String::new()).err(),
        store.list::<i64>("state").err(),
        store.map::<i64, i64>("state").err(),
        store.reducing::<i64>("state", |a, b| a + b).err(),
        store.aggregating("state", Average).err(),
    ];
    for error in refused {
        let error = error.expect("another type under the same name is refused");
        assert!(error.message.contains("\"state\"") && error.message.contains("ValueState<i64>"), "{error}");
    }
    on_key(&store, "a");
    let inner = count.modify(|_| count.get())?;
    assert!(inner.is_err(), "a state inside its own modify is refused");
    count.set(3)?;
    assert_eq!(count.get()?, 3, "and usable after it");
    Ok(())
}
