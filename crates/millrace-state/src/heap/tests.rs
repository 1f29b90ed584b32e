use std::collections::BTreeMap;

use millrace_core::key::{KeyGroupRange, KeyHash};
use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, i64>;

fn table(max_parallelism: u32) -> Table<i64> {
    Table::new(max_parallelism, KeyGroupRange::all(max_parallelism))
}

fn put(table: &mut Table<i64>, key: &[u8], value: i64) {
    *table.get_or_insert_with(KeyHash::of(key), key, || 0).unwrap() = value;
}

fn contents(frozen: &FrozenTable<i64>) -> Model {
    frozen.iter().flat_map(|(_, group)| group.sorted()).map(|(key, value)| (key.to_vec(), *value)).collect()
}

fn assert_holds(table: &Table<i64>, model: &Model) {
    assert_eq!(table.len(), model.len());
    for (key, value) in model {
        assert_eq!(table.get(KeyHash::of(key), key).unwrap(), Some(value), "{key:?}");
    }
}

/// Some short, some at the edge of what lies in a slot, some longer.
fn key(number: u32) -> Vec<u8> {
    let length = [4, 17, 18, 19, 40][number as usize % 5];
    number.to_le_bytes().iter().copied().cycle().take(length).collect()
}

#[test]
fn many_keys_of_all_lengths_are_found_removed_and_added_again() {
    let (mut table, mut model) = (table(4), Model::new());
    for round in 0..3 {
        for number in 0..20_000 {
            put(&mut table, &key(number), i64::from(number) + round);
            model.insert(key(number), i64::from(number) + round);
        }
        assert_holds(&table, &model);
        for number in (0..20_000).filter(|number| number % 7 != 0) {
            let key = key(number);
            assert_eq!(table.remove(KeyHash::of(&key), &key).unwrap(), model.remove(&key));
            assert_eq!(table.remove(KeyHash::of(&key), &key).unwrap(), None);
        }
        assert_holds(&table, &model);
    }
}

#[test]
fn an_empty_table_costs_no_slots_and_one_key_few() {
    let mut table = table(128);
    assert!(table.groups.iter().all(|group| group.capacity() == 0));
    assert_eq!(table.get(KeyHash::of(b"k"), b"k").unwrap(), None);
    assert_eq!(table.remove(KeyHash::of(b"k"), b"k").unwrap(), None);
    put(&mut table, b"k", 1);
    assert_eq!(table.groups.iter().map(Group::capacity).sum::<usize>(), 8);
}

#[test]
fn a_table_that_was_emptied_has_given_its_slots_back() {
    let mut table = table(1);
    (0..10_000).for_each(|number| put(&mut table, &key(number), 1));
    assert_eq!(table.groups[0].capacity(), 16_384);
    for number in 0..10_000 {
        let key = key(number);
        table.remove(KeyHash::of(&key), &key).unwrap();
    }
    assert_eq!((table.len(), table.groups[0].capacity()), (0, 8));
}

#[test]
fn a_frozen_table_keeps_what_it_had_and_costs_copies_only_of_what_is_written() {
    let (mut table, mut model) = (table(2), Model::new());
    for number in 0..5_000 {
        put(&mut table, &key(number), 1);
        model.insert(key(number), 1);
    }
    let first = table.freeze();
    put(&mut table, &key(17), 2);
    let second = table.freeze();
    for number in 0..5_000 {
        put(&mut table, &key(number), 3);
    }
    for number in 0..4_900 {
        let key = key(number);
        table.remove(KeyHash::of(&key), &key).unwrap();
    }
    assert_eq!(contents(&first), model);
    drop(first);
    model.insert(key(17), 2);
    assert_eq!(contents(&second), model);
    assert_eq!(table.len(), 100);
    drop(second);
    put(&mut table, &key(4_950), 4);
    assert_eq!(table.get(KeyHash::of(&key(4_950)), &key(4_950)).unwrap(), Some(&4));
}

#[test]
fn pages_come_back_without_a_copy_when_the_snapshot_is_done() {
    let mut table = table(1);
    (0..300).for_each(|number| put(&mut table, &key(number), 1));
    let address =
        |table: &Table<i64>| table.get(KeyHash::of(&key(5)), &key(5)).unwrap().map(std::ptr::from_ref).unwrap();
    let before = address(&table);
    drop(table.freeze());
    put(&mut table, &key(5), 2);
    assert_eq!(address(&table), before);
    let frozen = table.freeze();
    put(&mut table, &key(5), 3);
    assert_ne!(address(&table), before);
    assert_eq!(contents(&frozen)[&key(5)], 2);
}

#[test]
fn a_key_of_another_subtask_is_an_error() {
    let range = KeyGroupRange { start: 3, end: 4 };
    let mut table: Table<i64> = Table::new(8, range);
    let (mut inside, mut outside) = (0, 0);
    for number in 0..100 {
        let (key, hash) = (key(number), KeyHash::of(&key(number)));
        let result = table.get_or_insert_with(hash, &key, || 1);
        if range.contains(hash.key_group(8)) {
            result.unwrap();
            inside += 1;
        } else {
            assert!(result.unwrap_err().message.contains("3 to 4"));
            assert!(table.get(hash, &key).is_err());
            outside += 1;
        }
    }
    table.prefetch(&[KeyHash(0), KeyHash(u64::MAX)]);
    assert!(inside > 0 && outside > 0);
}

#[test]
fn sweeping_removes_what_is_stale_a_few_slots_at_a_time() {
    let mut table = table(5);
    let mut position = SweepPosition::default();
    table.sweep(&mut position, |_| true, |_| true);
    for number in 0..3_000 {
        put(&mut table, &key(number), i64::from(number));
    }
    let frozen = table.freeze();
    let slots: usize = table.groups.iter().map(Group::capacity).sum();
    for _ in 0..slots / SWEPT * 2 {
        let before = table.len();
        // Odd numbers are removed, those that 4 divides are halved and stay.
        table.sweep(
            &mut position,
            |value| value % 2 == 1 || value % 4 == 0,
            |value| {
                let odd = *value % 2 == 1;
                *value /= 2;
                odd
            },
        );
        assert!(before - table.len() <= SWEPT);
    }
    assert_eq!(table.len(), 1_500);
    for number in 0..3_000 {
        let found = table.get(KeyHash::of(&key(number)), &key(number)).unwrap().copied();
        match number % 4 {
            2 => assert_eq!(found, Some(i64::from(number))),
            0 => assert!(found.is_some()),
            _ => assert_eq!(found, None),
        }
    }
    assert_eq!(contents(&frozen).len(), 3_000, "a snapshot keeps what it had");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32, i64),
    Remove(u32),
    Freeze,
    DropOldest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u32..200, any::<i64>()).prop_map(|(key, value)| Step::Put(key, value)),
        6 => (0u32..200).prop_map(Step::Remove),
        1 => Just(Step::Freeze),
        1 => Just(Step::DropOldest),
    ];
    proptest::collection::vec(step, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_table_and_its_frozen_copies_agree_with_a_model(steps in steps(), colliding in any::<bool>()) {
        let (mut table, mut model) = (table(1), Model::new());
        let mut frozen = Vec::new();
        // Few different hashes make long runs of slots that wrap around.
        let hash = |key: &[u8]| if colliding { KeyHash(KeyHash::of(key).0 & 0x3 | 0x6) } else { KeyHash::of(key) };
        for step in steps {
            match step {
                Step::Put(number, value) => {
                    let key = key(number);
                    *table.get_or_insert_with(hash(&key), &key, || 0).unwrap() = value;
                    model.insert(key, value);
                }
                Step::Remove(number) => {
                    let key = key(number);
                    prop_assert_eq!(table.remove(hash(&key), &key).unwrap(), model.remove(&key));
                }
                Step::Freeze => frozen.push((table.freeze(), model.clone())),
                Step::DropOldest => drop((!frozen.is_empty()).then(|| frozen.remove(0))),
            }
        }
        prop_assert_eq!(table.len(), model.len());
        for (key, value) in &model {
            prop_assert_eq!(table.get(hash(key), key).unwrap(), Some(value));
        }
        for (frozen, then) in frozen {
            prop_assert_eq!(contents(&frozen), then);
        }
    }
}
