//! Random histories against a model: an ordered map of what each key should hold.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::Result;
use millrace_state::{KeyedSnapshot, StateBackend};
use proptest::{prelude::*, test_runner::TestRunner};

use super::operator::{Contents, Operator, longer, write};

const KEYS: u32 = 40;
const HISTORIES: u32 = 48;

#[derive(Clone, Debug)]
enum Step {
    Set(u32, i64),
    Modify(u32, i64),
    ClearValue(u32),
    Add(u32, String),
    Update(u32, Vec<String>),
    ClearList(u32),
    Put(u32, u32, Vec<u8>),
    Remove(u32, u32),
    ClearMap(u32),
    Reduce(u32, String),
    ClearReduced(u32),
    Aggregate(u32, i64),
    ClearAggregate(u32),
    /// Begins a snapshot that is written when the history is over.
    Snapshot,
    /// Goes on from a snapshot of now, at this parallelism.
    Restart(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let text = || "[a-z]{0,4}";
    prop_oneof![
        3 => (key(), any::<i64>()).prop_map(|(key, value)| Step::Set(key, value)),
        6 => (key(), -9i64..9).prop_map(|(key, amount)| Step::Modify(key, amount)),
        3 => key().prop_map(Step::ClearValue),
        4 => (key(), text()).prop_map(|(key, text)| Step::Add(key, text)),
        2 => (key(), proptest::collection::vec(text(), 0..4)).prop_map(|(key, list)| Step::Update(key, list)),
        2 => key().prop_map(Step::ClearList),
        6 => (key(), 0u32..6, proptest::collection::vec(any::<u8>(), 0..6))
            .prop_map(|(key, entry, value)| Step::Put(key, entry, value)),
        4 => (key(), 0u32..6).prop_map(|(key, entry)| Step::Remove(key, entry)),
        1 => key().prop_map(Step::ClearMap),
        3 => (key(), text()).prop_map(|(key, text)| Step::Reduce(key, text)),
        1 => key().prop_map(Step::ClearReduced),
        3 => (key(), -99i64..99).prop_map(|(key, value)| Step::Aggregate(key, value)),
        1 => key().prop_map(Step::ClearAggregate),
        1 => Just(Step::Snapshot),
        1 => prop_oneof![Just(1u32), Just(2), Just(3), Just(7)].prop_map(Step::Restart),
    ]
}

/// What each key should hold, and the accumulators of its averages.
#[derive(Clone, Default)]
struct Model {
    contents: BTreeMap<u32, Contents>,
    sums: BTreeMap<u32, (i64, i64)>,
}

/// Short keys, and long ones.
fn name(key: u32) -> String {
    format!("{key}{}", "~".repeat(key as usize))
}

pub(super) fn check(backend: &Arc<dyn StateBackend>) {
    // Always the same histories: a failure is found again by running the test again.
    let config = ProptestConfig { cases: HISTORIES, failure_persistence: None, ..ProptestConfig::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let histories = proptest::collection::vec(step(), 0..250);
    let result = runner.run(&histories, |steps| {
        run(backend, steps).map_err(|error| TestCaseError::fail(error.message))?;
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("a random history on {}: {error}", backend.name()));
}

fn run(backend: &Arc<dyn StateBackend>, steps: Vec<Step>) -> Result<()> {
    let mut operator = Operator::open(backend, 2);
    let mut model = Model::default();
    let mut snapshots: Vec<(Vec<Box<dyn KeyedSnapshot>>, Model)> = Vec::new();
    for step in steps {
        match step {
            Step::Snapshot => snapshots.push((operator.freeze(), model.clone())),
            Step::Restart(parallelism) => operator = Operator::restored(backend, parallelism, &operator.files()),
            step => {
                apply(&operator, &step)?;
                apply_to_model(&mut model, step);
            }
        }
    }
    assert_agrees(&operator, &model)?;
    for (snapshot, then) in snapshots {
        let files: Vec<_> = snapshot.into_iter().map(write).collect::<Result<_>>()?;
        assert_agrees(&Operator::restored(backend, 3, &files), &then)?;
    }
    Ok(())
}

fn apply(operator: &Operator, step: &Step) -> Result<()> {
    let at = |key: &u32| operator.at(&name(*key));
    match step {
        Step::Set(key, value) => at(key).count.set(*value),
        Step::Modify(key, amount) => at(key).count.modify(|count| *count = count.wrapping_add(*amount)),
        Step::ClearValue(key) => at(key).count.clear(),
        Step::Add(key, text) => at(key).list.add(text.clone()),
        Step::Update(key, list) => at(key).list.update(list.clone()),
        Step::ClearList(key) => at(key).list.clear(),
        Step::Put(key, entry, value) => at(key).map.put(*entry, value.clone()),
        Step::Remove(key, entry) => at(key).map.remove(entry),
        Step::ClearMap(key) => at(key).map.clear(),
        Step::Reduce(key, text) => at(key).longest.add(text.clone()),
        Step::ClearReduced(key) => at(key).longest.clear(),
        Step::Aggregate(key, value) => at(key).average.add(*value),
        Step::ClearAggregate(key) => at(key).average.clear(),
        Step::Snapshot | Step::Restart(_) => Ok(()),
    }
}

fn apply_to_model(model: &mut Model, step: Step) {
    let Model { contents, sums } = model;
    let mut change = |key, change: &dyn Fn(&mut Contents)| change(contents.entry(key).or_default());
    match step {
        Step::Set(key, value) => change(key, &|at| at.count = value),
        Step::Modify(key, amount) => change(key, &|at| at.count = at.count.wrapping_add(amount)),
        Step::ClearValue(key) => change(key, &|at| at.count = 0),
        Step::Add(key, text) => change(key, &|at| at.list.push(text.clone())),
        Step::Update(key, list) => change(key, &|at| at.list = list.clone()),
        Step::ClearList(key) => change(key, &|at| at.list.clear()),
        Step::Put(key, entry, value) => change(key, &|at| drop(at.map.insert(entry, value.clone()))),
        Step::Remove(key, entry) => change(key, &|at| drop(at.map.remove(&entry))),
        Step::ClearMap(key) => change(key, &|at| at.map.clear()),
        Step::Reduce(key, text) => change(key, &|at| {
            at.longest = Some(at.longest.take().map_or(text.clone(), |longest| longer(longest, text.clone())));
        }),
        Step::ClearReduced(key) => change(key, &|at| at.longest = None),
        Step::Aggregate(key, value) => {
            let (sum, count) = sums.entry(key).or_default();
            (*sum, *count) = (*sum + value, *count + 1);
            change(key, &|at| at.average = Some(sum.div_euclid(*count)));
        }
        Step::ClearAggregate(key) => {
            sums.remove(&key);
            change(key, &|at| at.average = None);
        }
        Step::Snapshot | Step::Restart(_) => {}
    }
}

fn assert_agrees(operator: &Operator, model: &Model) -> Result<()> {
    for key in 0..KEYS {
        let expected = model.contents.get(&key).cloned().unwrap_or_default();
        assert_eq!(operator.contents(&name(key))?, expected, "key {:?}", name(key));
    }
    Ok(())
}
