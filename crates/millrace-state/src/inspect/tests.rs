//! A checkpoint with every kind of state, as two subtasks of an operator write it.

use std::{path::PathBuf, time::Duration};

use millrace_core::{
    clock::Clock,
    codec,
    ids::{CheckpointId, OperatorUid},
    key::{KeyColumn, KeyGroupRange, KeyHash, subtask_of_key_group},
    operator_state::{OperatorListSnapshot, OperatorStateStore, Redistribution},
    schema::Schema,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::*;
use crate::{
    AggregateFunction, BackendRegistry, FsStateBackend, KeyedBackendContext, KeyedStateHandle, KeyedStateStore,
    OperatorSubtaskState, OwnState, SOURCE_SPLITS, StateHandle, StateTtlConfig,
    log::{Claim, JobLog},
    metadata::{
        CheckpointMetadata, OperatorStateMeta,
        tests::{sample, sharing},
    },
    storage::{CheckpointStorage, MetadataWrite, RetryPolicy, StorageOptions},
};

const GROUPS: u32 = 16;
const NOW: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

fn every_group() -> KeyGroupRange {
    KeyGroupRange::all(GROUPS)
}

#[derive(Clone, Serialize, Deserialize)]
enum Event {
    Click { x: u8 },
    Leave,
}

#[derive(Clone, Serialize, Deserialize)]
struct Split {
    topic: String,
    offset: i64,
}

#[derive(Clone)]
struct Average;

impl AggregateFunction for Average {
    type In = i64;
    type Accumulator = (i64, u32);
    type Out = i64;
    fn create_accumulator(&self) -> (i64, u32) {
        (0, 0)
    }
    fn add(&self, value: i64, (sum, count): &mut (i64, u32)) {
        *sum += value;
        *count += 1;
    }
    fn get_result(&self, (sum, count): &(i64, u32)) -> i64 {
        sum / i64::from(*count)
    }
}

fn options() -> StorageOptions {
    StorageOptions::default()
}

/// The state of one subtask: for each key a count; for `alice` something of every other kind too.
fn keyed(subtask: u32, parallelism: u32, counts: &[(&str, i32)]) -> Vec<u8> {
    let (clock, time) = Clock::manual(NOW);
    let range = KeyGroupRange::of_subtask(GROUPS, parallelism, subtask);
    let context = KeyedBackendContext {
        uid: OperatorUid("count".into()),
        operator: "Count".into(),
        subtask,
        max_parallelism: GROUPS,
        range,
        key_schema: Some(Schema::of::<String>().unwrap()),
        clock,
    };
    let store = KeyedStateStore::open(&FsStateBackend::configured(), context).unwrap();
    let lives = store.with_ttl(StateTtlConfig::new(Duration::from_millis(HOUR)));
    let count = store.value("count", 0i32).unwrap();
    let events = store.list::<Event>("events").unwrap();
    let map = store.map::<u32, Option<String>>("map").unwrap();
    let highest = store.reducing("highest", |a: f64, b: f64| a.max(b)).unwrap();
    let average = store.aggregating("average", Average).unwrap();
    let (fresh, visits) = (lives.value("fresh", 0u128).unwrap(), lives.list::<u8>("visits").unwrap());
    store.enable_timers().unwrap();
    for (key, number) in counts {
        if !range.contains(group_of(key)) {
            continue;
        }
        let mut keys = KeyColumn::default();
        keys.push(*key).unwrap();
        store.begin_batch(keys);
        store.select(0);
        count.set(*number).unwrap();
        if *key == "alice" {
            time.set(NOW);
            events.add(Event::Click { x: 1 }).unwrap();
            events.add(Event::Leave).unwrap();
            map.put(7, Some("seven".into())).unwrap();
            map.put(300, None).unwrap();
            highest.add(f64::INFINITY).unwrap();
            average.add(3).unwrap();
            average.add(4).unwrap();
            fresh.set(u128::MAX).unwrap();
            visits.add(1).unwrap();
            time.set(NOW + 5);
            visits.add(2).unwrap();
            store.register_timer(NOW + 9).unwrap();
        }
        store.end_batch();
    }
    let mut bytes = Vec::new();
    store.snapshot().unwrap().write(&mut bytes).unwrap();
    bytes
}

fn group_of(key: &str) -> u16 {
    let mut keys = KeyColumn::default();
    keys.push(key).unwrap();
    KeyHash::of(keys.key(0)).key_group(GROUPS)
}

/// A checkpoint in a directory of its own, the state of subtask 0 in a file.
async fn checkpoint(
    storage: &CheckpointStorage,
    id: u64,
    parallelism: u32,
    counts: &[(&str, i32)],
    offset: i64,
) -> String {
    let checkpoint = CheckpointId(id);
    let mut metadata = CheckpointMetadata { checkpoint, max_parallelism: GROUPS, ..sample("") };
    let split = |topic: &str, offset| {
        let split = codec::encode(&Split { topic: topic.into(), offset }).unwrap();
        codec::encode(&(format!("{topic}-0"), split)).unwrap()
    };
    let splits = OperatorListSnapshot {
        name: SOURCE_SPLITS.into(),
        redistribution: Redistribution::Split,
        schema: Schema::of::<Split>().unwrap(),
        items: vec![split("a", offset), split("b", 5)],
    };
    let mut other = OperatorStateStore::default();
    other.union_list::<u8>("other").unwrap().add(7);
    metadata.operators[0].subtasks[0].lists = [vec![splits], other.snapshot().unwrap()].concat();
    let mut subtasks = Vec::new();
    for subtask in 0..parallelism {
        let bytes = keyed(subtask, parallelism, counts);
        let data = match subtask {
            0 => storage.write_state(metadata.job, checkpoint, &format!("{id}.state"), bytes.into()).await.unwrap(),
            _ => StateHandle::Inline(bytes),
        };
        let range = KeyGroupRange::of_subtask(GROUPS, parallelism, subtask);
        let keyed = Some(KeyedStateHandle { range, data });
        subtasks.push(OperatorSubtaskState {
            uid: OperatorUid("count".into()),
            keyed,
            lists: vec![],
            in_flight: None,
            ahead: Vec::new(),
        });
    }
    metadata.operators[1] =
        OperatorStateMeta { uid: OperatorUid("count".into()), name: "Count".into(), parallelism, subtasks };
    assert!(matches!(storage.write_metadata(&metadata, false).await.unwrap(), MetadataWrite::Written(_)));
    storage.checkpoint_uri(metadata.job, checkpoint)
}

struct Place {
    dir: TempDir,
    storage: CheckpointStorage,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = CheckpointStorage::open(&format!("file://{}", dir.path().display()), &options()).unwrap();
        Self { dir, storage }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(format!("{}/{below}", sample("").job))
    }
}

/// Runs what blocks as the command does.
async fn blocking<T: Send + 'static>(work: impl FnOnce(&tokio::runtime::Handle) -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || work(&runtime)).await.unwrap()
}

/// All lines of a checkpoint's keyed state.
async fn lines(uri: &str) -> millrace_core::Result<Vec<String>> {
    let contents = CheckpointContents::open(uri, &options(), BackendRegistry::default()).await?;
    blocking(move |runtime| {
        let mut lines = Vec::new();
        for operator in &contents.metadata().operators {
            for state in contents.snapshots(operator, runtime)?.states() {
                for group in state.groups(every_group()).unwrap() {
                    let mut entries = group.read()?;
                    while let Some(entry) = entries.next()? {
                        lines.push(group.line(&entry)?);
                    }
                }
            }
        }
        Ok(lines)
    })
    .await
}

const COUNTS: [(&str, i32); 5] = [("alice", 3), ("bob", -1), ("carol", 0), ("dave", 7), ("", 1)];

#[tokio::test]
async fn every_kind_of_state_is_shown_without_its_types() {
    let place = Place::new();
    let uri = checkpoint(&place.storage, 1, 2, &COUNTS, 10).await;
    let alice = group_of("alice");
    let line = |state: &str, rest: &str| {
        format!("{{\"operator\":\"count\",\"state\":\"{state}\",\"keyGroup\":{alice},\"key\":\"alice\",{rest}}}")
    };
    let (hour, later) = (NOW + HOUR, NOW + HOUR + 5);
    let all = lines(&uri).await.unwrap();
    let of_alice: Vec<_> = all.iter().filter(|line| line.contains("alice")).cloned().collect();
    assert_eq!(
        of_alice,
        [
            line("average", "\"value\":[7,2]"),
            line("count", "\"value\":3"),
            line("events", "\"value\":[{\"Click\":{\"x\":1}},\"Leave\"]"),
            line("fresh", &format!("\"value\":\"{}\",\"expiry\":{hour}", u128::MAX)),
            line("highest", "\"value\":\"Infinity\""),
            line("map", "\"mapKey\":7,\"value\":\"seven\""),
            line("map", "\"mapKey\":300,\"value\":null"),
            line("millrace.timers", &format!("\"timer\":{}", NOW + 9)),
            line("visits", &format!("\"value\":[1,2],\"expiry\":[{hour},{later}]")),
        ]
    );
    let counts = all.iter().filter(|line| line.contains("\"state\":\"count\""));
    let groups: Vec<u64> = counts
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["keyGroup"].as_u64().unwrap())
        .collect();
    assert_eq!(groups.len(), COUNTS.len());
    assert!(groups.is_sorted(), "{groups:?}");
}

#[tokio::test]
async fn states_are_described_over_all_subtasks() {
    let place = Place::new();
    let uri = checkpoint(&place.storage, 1, 3, &COUNTS, 10).await;
    let contents =
        CheckpointContents::open(&format!("{uri}/_metadata"), &options(), BackendRegistry::default()).await.unwrap();
    assert_eq!(contents.uri(), uri);
    let StateHandle::File { .. } = &contents.metadata().operators[1].subtasks[0].keyed.as_ref().unwrap().data else {
        panic!("the state of subtask 0 is in a file")
    };
    let file = contents.metadata().operators[1].subtasks[0].keyed.as_ref().unwrap().data.clone();
    contents.verify(&file).await.unwrap();
    let described = blocking(move |runtime| {
        let snapshots = contents.snapshots(&contents.metadata().operators[1], runtime).unwrap();
        let describe = |state: &StateContents<'_>| {
            let entries: u64 = state.groups(every_group()).unwrap().iter().map(Group::entries).sum();
            assert!(state.in_files_of().is_none());
            assert_eq!(entries == 0, state.groups(every_group()).unwrap().iter().map(Group::bytes).sum::<u64>() == 0);
            format!("{}: {} ({entries})", state.meta.name, state.meta)
        };
        snapshots.states().iter().map(describe).collect::<Vec<_>>()
    });
    assert_eq!(
        described.await,
        [
            "average: aggregating state of (i64, u32) (1)",
            "count: value state of i32 (5)",
            "events: list state of Event where Event = Click{x: u8} | Leave (1)",
            "fresh: value state of u128 (1)",
            "highest: reducing state of f64 (1)",
            "map: map state of u32 to Option<str> (2)",
            "millrace.timers: timer state (1)",
            "visits: list state of u8 (1)",
        ]
    );
}

#[tokio::test]
async fn states_in_files_of_a_backend_are_named_and_the_rest_is_shown() {
    let place = Place::new();
    let mut metadata = CheckpointMetadata { max_parallelism: GROUPS, ..sharing("") };
    let count = &mut metadata.operators[1];
    (count.parallelism, count.subtasks) = (1, count.subtasks[..1].to_vec());
    let state = count.subtasks[0].keyed.as_mut().unwrap();
    state.range = KeyGroupRange::all(GROUPS);
    let StateHandle::Shared(shared) = &mut state.data else { panic!("a state in shared files") };
    shared.snapshot = OwnState::Inline(keyed(0, 1, &COUNTS));
    place.storage.write_metadata(&metadata, false).await.unwrap();
    let uri = place.storage.checkpoint_uri(metadata.job, metadata.checkpoint);
    let contents = CheckpointContents::open(&uri, &options(), BackendRegistry::default()).await.unwrap();
    let described = blocking(move |runtime| {
        let snapshots = contents.snapshots(&contents.metadata().operators[1], runtime).unwrap();
        let states = snapshots.states();
        states.iter().map(|s| (s.meta.name.clone(), s.in_files_of().map(str::to_string))).collect::<Vec<_>>()
    });
    for (name, files) in described.await {
        assert_eq!(files.as_deref(), (name != crate::TIMERS).then_some("rocksdb"), "{name}");
    }
}

#[tokio::test]
async fn operator_state_is_shown_and_compared_item_by_item() {
    let place = Place::new();
    let uris =
        [checkpoint(&place.storage, 1, 1, &COUNTS, 10).await, checkpoint(&place.storage, 2, 1, &COUNTS, 12).await];
    let mut sides = Vec::new();
    for uri in &uris {
        sides.push(CheckpointContents::open(uri, &options(), BackendRegistry::default()).await.unwrap());
    }
    let [first, second] = [0, 1].map(|side: usize| list_items(&sides[side].metadata().operators[0]));
    assert_eq!(first[2].line().unwrap(), "{\"operator\":\"source\",\"state\":\"other\",\"subtask\":0,\"value\":7}");
    assert_eq!(first[0].json().unwrap(), "{\"topic\":\"a\",\"offset\":10}");
    let mut told = Vec::new();
    let difference = diff_items(first, second, &mut |mark, item| {
        told.push(format!("{mark} {}", item.line()?));
        Ok(())
    });
    let line = |mark: char, offset: i64| {
        format!(
            "{mark} {{\"operator\":\"source\",\"state\":\"{SOURCE_SPLITS}\",\"subtask\":0,\
             \"split\":\"a-0\",\"value\":{{\"topic\":\"a\",\"offset\":{offset}}}}}"
        )
    };
    assert_eq!(told, [line('-', 10), line('+', 12)]);
    let meant = Difference { only_in_first: 1, only_in_second: 1, changed: 0, unchanged: 2 };
    assert_eq!(difference.unwrap(), meant);
}

/// What differs in state `count`, key group by key group.
async fn difference(first: &str, second: &str) -> (Difference, Vec<String>) {
    let first = CheckpointContents::open(first, &options(), BackendRegistry::default()).await.unwrap();
    let second = CheckpointContents::open(second, &options(), BackendRegistry::default()).await.unwrap();
    blocking(move |runtime| {
        let open =
            |contents: &CheckpointContents| contents.snapshots(&contents.metadata().operators[1], runtime).unwrap();
        let (first, second) = (open(&first), open(&second));
        let groups = |snapshots: &OperatorSnapshots, key_group: u16| {
            let states = snapshots.states();
            let count = states.iter().find(|state| state.meta.name == "count").unwrap();
            count.groups(every_group()).unwrap().iter().position(|group| group.key_group() == key_group)
        };
        let (mut all, mut told) = (Difference::default(), Vec::new());
        let (a, b) = (first.states(), second.states());
        let of = |states: &[StateContents<'_>]| states.iter().position(|state| state.meta.name == "count").unwrap();
        let (a, b) = (a[of(&a)].groups(every_group()).unwrap(), b[of(&b)].groups(every_group()).unwrap());
        for key_group in 0..GROUPS as u16 {
            let a = groups(&first, key_group).map(|at| &a[at]);
            let b = groups(&second, key_group).map(|at| &b[at]);
            all += diff_groups(a, b, &mut |(old, new)| {
                let value = |group: Option<&Group<'_>>, entry| {
                    let line = group.zip(entry).map(|(group, entry)| group.line(&entry).unwrap());
                    line.map_or("-".to_string(), |line| line.split_once("\"key\":").unwrap().1.to_string())
                };
                told.push(format!("{} {}", value(a, old), value(b, new)));
                Ok(true)
            })
            .unwrap();
        }
        told.sort();
        (all, told)
    })
    .await
}

#[tokio::test]
async fn two_checkpoints_are_compared_at_any_parallelism() {
    let place = Place::new();
    let first = checkpoint(&place.storage, 1, 1, &COUNTS, 10).await;
    let second = checkpoint(&place.storage, 2, 3, &COUNTS, 10).await;
    let (same, told) = difference(&first, &second).await;
    assert_eq!(same, Difference { unchanged: COUNTS.len() as u64, ..Difference::default() });
    assert!(same.is_none() && told.is_empty());
    let later = [("alice", 4), ("carol", 0), ("dave", 7), ("", 1), ("erin", 2)];
    let third = checkpoint(&place.storage, 3, 2, &later, 10).await;
    let (changed, told) = difference(&second, &third).await;
    assert_eq!(changed, Difference { only_in_first: 1, only_in_second: 1, changed: 1, unchanged: 3 });
    let meant = ["\"alice\",\"value\":3} \"alice\",\"value\":4}", "\"bob\",\"value\":-1} -", "- \"erin\",\"value\":2}"];
    let mut meant = meant.map(str::to_string);
    meant.sort();
    assert_eq!(told, meant);
}

#[tokio::test]
async fn damage_is_told_with_the_files_name() {
    let place = Place::new();
    let uri = checkpoint(&place.storage, 1, 2, &COUNTS, 10).await;
    let file = place.path("chk-1/1.state");
    let whole = std::fs::read(&file).unwrap();
    let mut subtasks: Vec<u32> = COUNTS.iter().map(|(key, _)| subtask_of_key_group(GROUPS, 2, group_of(key))).collect();
    subtasks.sort_unstable();
    assert!(subtasks[0] == 0 && subtasks[4] == 1, "both subtasks have entries: {subtasks:?}");
    let mut wrong = 0;
    for at in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x41;
        std::fs::write(&file, flipped).unwrap();
        let error = lines(&uri).await.unwrap_err();
        assert!(error.message.contains("1.state") && !error.retryable, "byte {at}: {error}");
        wrong += 1;
    }
    assert!(wrong > 10);
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let error = lines(&uri).await.unwrap_err();
    assert!(error.message.contains("1.state is damaged: it has") && !error.retryable, "{error}");
    let contents = CheckpointContents::open(&uri, &options(), BackendRegistry::default()).await.unwrap();
    let handle = contents.metadata().operators[1].subtasks[0].keyed.as_ref().unwrap().data.clone();
    assert!(contents.verify(&handle).await.unwrap_err().message.contains("1.state is damaged"));
    std::fs::remove_file(&file).unwrap();
    let error = lines(&uri).await.unwrap_err();
    assert!(error.message.contains("1.state is missing"), "{error}");

    // Another checkpoint's file under this one's name.
    let mut foreign =
        CheckpointContents::open(&uri, &options(), BackendRegistry::default()).await.unwrap().metadata().clone();
    foreign.checkpoint = CheckpointId(9);
    let [a, b] = &mut foreign.operators[1].subtasks[..] else { panic!("two subtasks") };
    std::mem::swap(&mut a.keyed.as_mut().unwrap().data, &mut b.keyed.as_mut().unwrap().data);
    std::fs::create_dir(place.path("chk-9")).unwrap();
    std::fs::write(place.path("chk-9/1.state"), &whole).unwrap();
    place.storage.write_metadata(&foreign, false).await.unwrap();
    let error = lines(&place.storage.checkpoint_uri(foreign.job, foreign.checkpoint)).await.unwrap_err();
    assert!(error.message.contains("foreign") && error.message.contains("key groups 0 to 7 of 16"), "{error}");
}

#[tokio::test]
async fn a_job_is_listed_with_what_its_log_says() {
    let place = Place::new();
    let job = sample("").job;
    for id in [3, 4, 5] {
        checkpoint(&place.storage, id, 1, &COUNTS, 10).await;
    }
    std::fs::create_dir_all(place.path("chk-6")).unwrap();
    let mut log = JobLog::open(&place.storage, job, RetryPolicy::NEVER);
    assert!(matches!(log.claim("host/1", 0).await.unwrap(), Claim::Leader(_)));
    for id in [4, 5] {
        let metadata = place.storage.find_metadata(job, CheckpointId(id)).await.unwrap().unwrap();
        let MetadataWrite::Written(record) = place.storage.write_metadata(&metadata, false).await.unwrap() else {
            panic!("it is the same")
        };
        log.append_checkpoint(record, 3).await.unwrap();
    }
    std::fs::write(place.path("chk-5/_metadata"), "torn").unwrap();
    let listing = list_job(&place.storage, job).await.unwrap();
    assert_eq!(listing.log.as_ref().unwrap(), log.view());
    let standings: Vec<_> = listing.checkpoints.iter().map(|found| (found.id.0, &found.standing)).collect();
    let [(3, Standing::NotInLog), (4, Standing::Complete), (5, Standing::Damaged(error)), (6, Standing::Incomplete)] =
        &standings[..]
    else {
        panic!("{standings:?}")
    };
    assert!(error.message.contains("chk-5/_metadata"), "{error}");
    let [_, fourth, fifth, sixth] = &listing.checkpoints[..] else { panic!("four") };
    assert!(fourth.completed_at_ms.is_some() && fifth.completed_at_ms.is_some() && sixth.completed_at_ms.is_none());
    assert_eq!(fourth.uri, place.storage.checkpoint_uri(job, CheckpointId(4)));

    std::fs::write(place.path("log/00000000000000000002"), "torn").unwrap();
    let listing = list_job(&place.storage, job).await.unwrap();
    assert!(listing.log.unwrap_err().message.contains("00000000000000000002"));
    let standings: Vec<_> = listing.checkpoints.iter().map(|found| &found.standing).collect();
    assert!(matches!(
        standings[..],
        [Standing::Unknown, Standing::Unknown, Standing::Damaged(_), Standing::Incomplete]
    ));
}
