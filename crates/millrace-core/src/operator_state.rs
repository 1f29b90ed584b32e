//! State that belongs to an operator's subtask rather than to a key: lists, dealt out again when a job restarts at
//! another parallelism, and maps of which every subtask has a copy. It is small (splits, offsets, transaction ids) and travels inside the checkpoint's metadata.

mod broadcast;

pub use broadcast::BroadcastState;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Record, Result, codec,
    schema::{Migration, Schema},
};

/// How a list is dealt out when the parallelism changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redistribution {
    /// Each item goes to one subtask.
    Split,
    /// Every subtask gets all items.
    Union,
    /// All subtasks had the same items; each gets those of one of them.
    Broadcast,
}

/// One operator list of one subtask, as it is in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorListSnapshot {
    /// The state's name.
    pub name: String,
    /// How it is dealt out.
    pub redistribution: Redistribution,
    /// The schema of an item.
    pub schema: Schema,
    /// The encoded items.
    pub items: Vec<Vec<u8>>,
}

/// A list that belongs to an operator's subtask. Clones share it.
#[derive(Debug)]
pub struct OperatorListState<T> {
    items: Arc<Mutex<Vec<T>>>,
}

impl<T> Clone for OperatorListState<T> {
    fn clone(&self) -> Self {
        Self { items: Arc::clone(&self.items) }
    }
}

impl<T: Record> OperatorListState<T> {
    /// A copy of the items.
    pub fn get(&self) -> Vec<T> {
        self.lock().clone()
    }

    /// Appends an item.
    pub fn add(&self, item: T) {
        self.lock().push(item);
    }

    /// Replaces all items.
    pub fn update(&self, items: Vec<T>) {
        *self.lock() = items;
    }

    /// Removes all items.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

trait SnapshotItems: Send {
    fn items(&self) -> Result<Vec<Vec<u8>>>;
}

impl<T: Record> SnapshotItems for OperatorListState<T> {
    fn items(&self) -> Result<Vec<Vec<u8>>> {
        self.lock().iter().map(codec::encode).collect()
    }
}

struct Registered {
    redistribution: Redistribution,
    schema: Schema,
    handle: Box<dyn SnapshotItems>,
}

/// The operator lists of one subtask of one operator.
#[derive(Default)]
pub struct OperatorStateStore {
    restored: BTreeMap<String, OperatorListSnapshot>,
    lists: BTreeMap<String, Registered>,
}

impl OperatorStateStore {
    /// A store that hands out what a checkpoint holds.
    pub fn restored(lists: Vec<OperatorListSnapshot>) -> Self {
        let restored = lists.into_iter().map(|list| (list.name.clone(), list)).collect();
        Self { restored, lists: BTreeMap::new() }
    }

    /// The list of this name; each item goes to one subtask when the parallelism changes.
    pub fn list<T: Record>(&mut self, name: &str) -> Result<OperatorListState<T>> {
        self.list_of(name, Redistribution::Split)
    }

    /// The list of this name; every subtask gets all items after a restore.
    pub fn union_list<T: Record>(&mut self, name: &str) -> Result<OperatorListState<T>> {
        self.list_of(name, Redistribution::Union)
    }

    /// The broadcast state of this name: a map that is the same in every subtask.
    pub fn broadcast<K: Record + Eq + Hash, V: Record>(&mut self, name: &str) -> Result<BroadcastState<K, V>> {
        let (schema, items) = self.restore::<(K, V)>(name, Redistribution::Broadcast)?;
        let state = BroadcastState::new(items.into_iter().collect());
        self.register(name, Redistribution::Broadcast, schema, state.clone());
        Ok(state)
    }

    fn list_of<T: Record>(&mut self, name: &str, redistribution: Redistribution) -> Result<OperatorListState<T>> {
        let (schema, items) = self.restore::<T>(name, redistribution)?;
        let state = OperatorListState { items: Arc::new(Mutex::new(items)) };
        self.register(name, redistribution, schema, state.clone());
        Ok(state)
    }

    fn register(
        &mut self,
        name: &str,
        redistribution: Redistribution,
        schema: Schema,
        handle: impl SnapshotItems + 'static,
    ) {
        self.lists.insert(name.to_string(), Registered { redistribution, schema, handle: Box::new(handle) });
    }

    /// What a checkpoint holds for a list that the program has, and the schema of an item.
    fn restore<T: Record>(&mut self, name: &str, redistribution: Redistribution) -> Result<(Schema, Vec<T>)> {
        if self.lists.contains_key(name) {
            return Err(Error::invalid(format!("operator state {name:?} is registered twice in one operator")));
        }
        let schema = Schema::of::<T>()?;
        let Some(list) = self.restored.remove(name) else { return Ok((schema, Vec::new())) };
        let migration = match list.redistribution == redistribution {
            true => Migration::to::<T>(&list.schema),
            false => Err("a state's kind can't change".to_string()),
        };
        let migration = migration.map_err(|why| {
            Error::invalid(format!(
                "operator state {name:?} of the checkpoint is a {:?} list of {}, the program's a {redistribution:?} list \
                 of {schema}: {why}; use another state name or the old type",
                list.redistribution, list.schema
            ))
        })?;
        let items = list.items.iter().map(|item| migration.decode(item)).collect::<Result<_>>();
        Ok((schema, items.map_err(|error| error.context(format_args!("operator state {name:?}")))?))
    }

    /// The names of restored lists that nothing has asked for.
    pub fn unclaimed(&self) -> BTreeSet<String> {
        self.restored.keys().cloned().collect()
    }

    /// All lists as they stand.
    pub fn snapshot(&self) -> Result<Vec<OperatorListSnapshot>> {
        let snapshot = |(name, list): (&String, &Registered)| {
            Ok(OperatorListSnapshot {
                name: name.clone(),
                redistribution: list.redistribution,
                schema: list.schema.clone(),
                items: list.handle.items()?,
            })
        };
        self.lists.iter().map(snapshot).collect()
    }
}

/// Deals the lists of all old subtasks (in order) out to `parallelism` new ones. Unchanged parallelism leaves split
/// lists where they were.
pub fn redistribute(old: &[Vec<OperatorListSnapshot>], parallelism: u32) -> Vec<Vec<OperatorListSnapshot>> {
    let parallelism = parallelism as usize;
    let mut new = vec![BTreeMap::<String, OperatorListSnapshot>::new(); parallelism];
    let mut next = 0;
    for (subtask, list) in old.iter().enumerate().flat_map(|(i, lists)| lists.iter().map(move |l| (i, l))) {
        let empty = || OperatorListSnapshot { items: Vec::new(), ..list.clone() };
        for target in &mut new {
            target.entry(list.name.clone()).or_insert_with(empty);
        }
        for item in &list.items {
            let targets = match list.redistribution {
                Redistribution::Union => (0..parallelism).step_by(1),
                Redistribution::Broadcast => (subtask..subtask.max(parallelism)).step_by(old.len()),
                Redistribution::Split if old.len() == parallelism => (subtask..subtask + 1).step_by(1),
                Redistribution::Split => {
                    next = (next + 1) % parallelism;
                    (next..next + 1).step_by(1)
                }
            };
            for target in targets {
                new[target].get_mut(&list.name).expect("made above").items.push(item.clone());
            }
        }
    }
    new.into_iter().map(|lists| lists.into_values().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_with(items: &[i64]) -> Vec<OperatorListSnapshot> {
        let mut store = OperatorStateStore::default();
        store.list::<i64>("split").unwrap().update(items.to_vec());
        store.union_list::<i64>("union").unwrap().update(items.to_vec());
        store.snapshot().unwrap()
    }

    fn restore(lists: Vec<OperatorListSnapshot>) -> (Vec<i64>, Vec<i64>) {
        let mut store = OperatorStateStore::restored(lists);
        (store.list("split").unwrap().get(), store.union_list("union").unwrap().get())
    }

    #[test]
    fn split_lists_are_dealt_out_once_and_union_lists_to_all() {
        let old = [store_with(&[1, 2, 3]), store_with(&[4])];
        for parallelism in [1u32, 2, 3, 7] {
            let mut all = Vec::new();
            for lists in redistribute(&old, parallelism) {
                let (split, union) = restore(lists);
                all.extend(split);
                assert_eq!(union, [1, 2, 3, 4]);
            }
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3, 4], "parallelism {parallelism}");
        }
    }

    #[test]
    fn unchanged_parallelism_leaves_items_in_place() {
        let new = redistribute(&[store_with(&[1, 2, 3]), store_with(&[4])], 2);
        assert_eq!(restore(new[0].clone()).0, [1, 2, 3]);
        assert_eq!(restore(new[1].clone()).0, [4]);
    }

    #[test]
    fn another_type_or_kind_under_the_same_name_is_refused() {
        let lists = store_with(&[1]);
        let mut store = OperatorStateStore::restored(lists.clone());
        let error = store.list::<String>("split").unwrap_err();
        for part in ["\"split\"", "i64", "str"] {
            assert!(error.message.contains(part) && !error.retryable, "{error}");
        }
        let mut store = OperatorStateStore::restored(lists);
        assert!(store.union_list::<i64>("split").is_err());
        assert!(store.list::<i64>("twice").is_ok());
        assert!(store.list::<i64>("twice").unwrap_err().message.contains("twice"));
    }

    #[test]
    fn items_of_an_older_type_are_read_as_the_type_of_today() {
        let mut store = OperatorStateStore::default();
        store.list::<(u8, i32)>("list").unwrap().add((255, -1));
        store.broadcast::<String, u16>("rules").unwrap().put("a".into(), 7);
        let mut store = OperatorStateStore::restored(store.snapshot().unwrap());
        assert_eq!(store.list::<(u64, i64)>("list").unwrap().get(), [(255, -1)]);
        assert_eq!(store.broadcast::<String, u32>("rules").unwrap().get(&"a".into()), Some(7));
    }

    #[test]
    fn every_subtask_has_the_broadcast_state_at_any_parallelism() {
        let subtask = |_| {
            let mut store = OperatorStateStore::default();
            let rules = store.broadcast::<i32, String>("rules").unwrap();
            (0..20).for_each(|rule| rules.put(rule, format!("rule {rule}")));
            rules.remove(&3);
            store.snapshot().unwrap()
        };
        for before in 1..4 {
            let old: Vec<_> = (0..before).map(subtask).collect();
            assert!(old.windows(2).all(|pair| pair[0] == pair[1]), "the same state gives the same bytes");
            for after in [1, 2, 3, 7] {
                let new = redistribute(&old, after);
                assert_eq!(new.len(), after as usize);
                for lists in new {
                    let rules = OperatorStateStore::restored(lists).broadcast::<i32, String>("rules").unwrap();
                    assert_eq!(rules.with(|rules| rules.len()), 19);
                    assert!(rules.contains(&19) && !rules.contains(&3));
                    rules.clear();
                    assert_eq!(rules.get(&19), None);
                }
            }
        }
    }

    #[test]
    fn what_nothing_claims_is_known() {
        let mut store = OperatorStateStore::restored(store_with(&[1]));
        store.list::<i64>("split").unwrap();
        assert_eq!(store.unclaimed(), BTreeSet::from(["union".to_string()]));
    }
}
