//! Barriers overtake what waits: checkpoints complete under backpressure, and what was in flight comes back, at another
//! parallelism too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use millrace_core::{checkpoint::CheckpointBarrier, codec, ids::TaskId, key::KeyHash};
use millrace_runtime::{
    graph::{JobGraph, Partitioning},
    source::EncodedSplit,
    task::{BarrierHandling, SubtaskCheckpointMetrics, TaskCommand, TaskEvent, TaskSettings, TaskSpec},
};
use millrace_state::{
    FsStateBackend, OperatorSubtaskState, StateHandle,
    storage::{CheckpointStorage, StorageOptions},
};

use crate::{
    checkpoints::splits,
    cluster::{Cluster, restore_of, split, task, until},
    graphs::Builder,
    numbers::{Event, Numbers},
    operators::{Map, Seen, Sink, Turnstile},
};

type Checkpoint = BTreeMap<TaskId, Vec<OperatorSubtaskState>>;

/// How many numbers each of the two splits has.
const NUMBERS: u64 = 2000;

/// What a test holds of a job: two splits of numbers, dealt out by number to mappers and on to sinks.
struct Job {
    graph: Arc<JobGraph>,
    seen: Arc<Seen>,
    turnstile: Arc<Turnstile>,
}

/// As the source, the mappers and the sinks have it.
fn job(partitioning: Partitioning, parallelism: [u32; 3]) -> Job {
    let (numbers, seen, turnstile) = (Numbers::new(2), Arc::<Seen>::default(), Arc::<Turnstile>::default());
    let graph = Builder::source(&numbers, parallelism[0])
        .then(partitioning, "map", parallelism[1], Map::factory())
        .then(Partitioning::Hash, "sink", parallelism[2], Sink::factory(&seen, Some(&turnstile)))
        .build();
    Job { graph, seen, turnstile }
}

fn unaligned(after: Duration) -> Option<BarrierHandling> {
    Some(BarrierHandling { aligned_timeout: Some(after), ..BarrierHandling::default() })
}

fn cluster(taskmanagers: u32) -> Cluster {
    let mut cluster = Cluster::new(taskmanagers);
    cluster.settings = TaskSettings { queue_capacity: 3, max_batch_size: 16, ..TaskSettings::default() };
    cluster
}

/// Starts the job from its first numbers and waits until every source waits for room behind sinks that stand still.
fn jammed(cluster: &mut Cluster, job: &Job) {
    jammed_aligned_for(cluster, job, Duration::ZERO);
}

/// The same, where barriers are aligned for so long.
fn jammed_aligned_for(cluster: &mut Cluster, job: &Job, timeout: Duration) {
    cluster.run(&job.graph, |spec| {
        spec.barriers = unaligned(timeout);
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(spec.task.subtask, 0..NUMBERS)];
        }
    });
    is_jammed(cluster);
}

/// Waits until the sources and a mapper wait for room and nothing moves any more.
fn is_jammed(cluster: &Cluster) {
    let moved = || cluster.handles.values().map(|handle| handle.metrics().num_records_in()).collect::<Vec<_>>();
    let waited = |of: TaskId| cluster.handles[&of].metrics().snapshot().backpressured_ms;
    until("nothing moves", || {
        let before = moved();
        for source in [task(0, 0), task(0, 1)] {
            let since = waited(source);
            until("the source waits", || waited(source) > since + 50);
        }
        // Or they wait for mappers that have not had their turn at the machine.
        let mappers = [task(1, 0), task(1, 1)];
        let since = mappers.map(waited);
        until("a mapper waits", || mappers.iter().zip(since).any(|(mapper, since)| waited(*mapper) > since + 50));
        moved() == before
    });
}

/// A checkpoint of all tasks while the sinks are let through one batch at a time.
fn under_pressure(cluster: &mut Cluster, job: &Job) -> (Checkpoint, BTreeMap<TaskId, SubtaskCheckpointMetrics>) {
    let id = cluster.trigger(&[task(0, 0), task(0, 1)]);
    let (mut states, mut metrics) = (Checkpoint::new(), BTreeMap::new());
    let tasks: Vec<_> = cluster.handles.keys().copied().collect();
    let all_have = |cluster: &mut Cluster, vertex| {
        let mut of = tasks.iter().filter(|task| task.vertex.0 == vertex);
        of.all(|task| cluster.has_acknowledged(*task, id))
    };
    // These need nothing from the sinks, and the sinks have their barriers then.
    while !all_have(cluster, 1) {
        std::thread::yield_now();
    }
    while !all_have(cluster, 2) {
        if job.turnstile.is_stopping() {
            // The batch that a sink has in its hands; behind it, it hears of the barriers.
            job.turnstile.let_pass(1);
        }
        std::thread::yield_now();
    }
    for of in tasks {
        let (state, measured) = cluster.expect(&format!("that {of} acknowledges"), |from, event| match event {
            TaskEvent::Acknowledged { checkpoint, state, metrics } if from == of && *checkpoint == id => {
                Some((state.clone(), *metrics))
            }
            _ => None,
        });
        states.insert(of, state);
        metrics.insert(of, measured);
    }
    (states, metrics)
}

fn in_flight(checkpoint: &Checkpoint, vertex: u32) -> u64 {
    let of = checkpoint.iter().filter(|(task, _)| task.vertex.0 == vertex);
    of.flat_map(|(_, state)| state).filter_map(|state| state.in_flight.as_ref()).map(StateHandle::size).sum()
}

fn counted(checkpoint: &Checkpoint) -> u64 {
    let sinks = checkpoint.iter().filter(|(task, _)| task.vertex.0 == 2).flat_map(|(_, state)| state);
    let items = sinks.flat_map(|state| &state.lists).flat_map(|list| &list.items);
    items.map(|item| codec::decode::<u64>(item).unwrap()).sum()
}

/// What a task of a restored job is told.
fn restored(spec: &mut TaskSpec, checkpoint: &Checkpoint, graph: &JobGraph) {
    let vertex = spec.task.vertex.0;
    let parallelism = graph.vertex(spec.task.vertex).parallelism;
    spec.barriers = unaligned(Duration::ZERO);
    if vertex == 0 {
        let all: Vec<EncodedSplit> =
            checkpoint.iter().filter(|(task, _)| task.vertex.0 == 0).flat_map(|(_, state)| splits(state)).collect();
        let own = (0..).zip(all).filter(|(at, _)| at % parallelism == spec.task.subtask);
        spec.splits = own.map(|(_, split)| split).collect();
        return;
    }
    let uid = ["", "map", "sink"][vertex as usize];
    spec.restore = vec![restore_of(checkpoint, vertex, uid, parallelism)[spec.task.subtask as usize].clone()];
}

/// Runs the rest of the job and expects every number to have its effect once, in order by key group.
fn finishes(cluster: &mut Cluster, job: &Job, checkpoint: &Checkpoint) {
    job.turnstile.let_pass(u64::MAX);
    cluster.finish();
    check(job, checkpoint);
}

fn check(job: &Job, checkpoint: &Checkpoint) {
    let events = job.seen.events.lock().unwrap();
    assert_eq!(counted(checkpoint) + events.len() as u64, 2 * NUMBERS, "nothing is lost, nothing is twice");
    let distinct: BTreeSet<_> = events.iter().map(|(_, event)| (event.split, event.number)).collect();
    assert_eq!(distinct.len(), events.len());
    let counts = job.seen.counts.lock().unwrap();
    assert!(counts.iter().all(|(_, count)| *count <= 2), "of every number there are two");
    let mut last = BTreeMap::new();
    for (_, Event { split, number, .. }) in events.iter() {
        let group = KeyHash::of(&codec::encode(number).unwrap()).key_group(128);
        let before = last.insert((*split, group), *number);
        assert!(before.is_none_or(|before| before < *number), "{number} of split {split} after {before:?}");
    }
}

#[test]
fn a_checkpoint_completes_behind_sinks_that_stand_still_and_restores_at_any_parallelism() {
    for (taskmanagers, partitioning) in [(1, Partitioning::Hash), (2, Partitioning::Hash), (2, Partitioning::Rebalance)]
    {
        let mut cluster = cluster(taskmanagers);
        let first = job(partitioning, [2, 2, 2]);
        jammed(&mut cluster, &first);
        let (checkpoint, metrics) = under_pressure(&mut cluster, &first);
        cluster.command(&TaskCommand::Cancel);
        first.turnstile.let_pass(u64::MAX);
        cluster.join();
        assert!(in_flight(&checkpoint, 1) > 0 && in_flight(&checkpoint, 2) > 0, "both queues were full");
        for (task, metrics) in &metrics {
            assert_eq!(metrics.unaligned, task.vertex.0 > 0);
            assert!(task.vertex.0 > 0 || metrics.persisted_bytes == 0, "a source has no input that could be in flight");
        }
        // Not each of its subtasks: one may stand between two batches.
        for vertex in [1, 2] {
            let of_vertex = metrics.iter().filter(|(task, _)| task.vertex.0 == vertex);
            assert!(of_vertex.map(|(_, metrics)| metrics.persisted_bytes).sum::<u64>() > 0);
        }
        for parallelism in [[1, 1, 1], [2, 2, 2], [1, 3, 2], [2, 1, 3]] {
            let job = job(partitioning, parallelism);
            cluster.run(&job.graph, |spec| restored(spec, &checkpoint, &job.graph));
            // Rebalanced records have no order by key.
            if partitioning == Partitioning::Hash {
                finishes(&mut cluster, &job, &checkpoint);
            } else {
                job.turnstile.let_pass(u64::MAX);
                cluster.finish();
                assert_eq!(counted(&checkpoint) + job.seen.len() as u64, 2 * NUMBERS);
            }
        }
    }
}

#[test]
fn what_was_restored_and_not_processed_is_in_the_next_checkpoint_again() {
    let mut cluster = cluster(1);
    let first = job(Partitioning::Hash, [2, 2, 2]);
    jammed(&mut cluster, &first);
    let (mut checkpoint, _) = under_pressure(&mut cluster, &first);
    cluster.command(&TaskCommand::Cancel);
    first.turnstile.let_pass(u64::MAX);
    cluster.join();
    for sinks in [3, 1, 2] {
        let job = job(Partitioning::Hash, [2, 2, sinks]);
        cluster.run(&job.graph, |spec| restored(spec, &checkpoint, &job.graph));
        is_jammed(&cluster);
        let (next, _) = under_pressure(&mut cluster, &job);
        assert!(in_flight(&next, 2) > 0);
        assert!(counted(&next) >= counted(&checkpoint));
        // The old checkpoint is still good: the job goes on from it to its end.
        finishes(&mut cluster, &job, &checkpoint);
        checkpoint = next;
    }
}

#[test]
fn data_in_flight_lies_in_files_of_its_own_where_it_is_large() {
    let directory = tempfile::tempdir().unwrap();
    let uri = format!("file://{}", directory.path().display());
    let mut cluster = cluster(1);
    cluster.storage = CheckpointStorage::open(&uri, &StorageOptions::default()).unwrap();
    cluster.backend = Arc::new(FsStateBackend::default());
    cluster.settings.inline_threshold = 100;
    let first = job(Partitioning::Hash, [2, 2, 2]);
    jammed(&mut cluster, &first);
    let (checkpoint, _) = under_pressure(&mut cluster, &first);
    cluster.command(&TaskCommand::Cancel);
    first.turnstile.let_pass(u64::MAX);
    cluster.join();
    let handles: Vec<_> = checkpoint.values().flatten().filter_map(|state| state.in_flight.clone()).collect();
    let files = handles.iter().filter_map(|handle| match handle {
        StateHandle::File { directory, name, .. } => Some((directory.clone(), name.clone())),
        _ => None,
    });
    let files = files.collect::<BTreeSet<_>>();
    assert!(!handles.is_empty() && files.len() == handles.len());
    let second = job(Partitioning::Hash, [1, 1, 3]);
    cluster.run(&second.graph, |spec| restored(spec, &checkpoint, &second.graph));
    finishes(&mut cluster, &second, &checkpoint);
    // A file that is damaged is named.
    let (place, name) = files.first().unwrap();
    let path = std::path::Path::new(place.strip_prefix("file://").unwrap()).join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let third = job(Partitioning::Hash, [1, 1, 1]);
    cluster.spawn(&third.graph, |spec| restored(spec, &checkpoint, &third.graph));
    let failed = cluster.expect("that the damage is found", |_, event| match event {
        TaskEvent::Failed(failure) => Some(failure.clone()),
        _ => None,
    });
    assert!(failed.error.message.contains(name.as_str()) && !failed.error.retryable, "{}", failed.error);
    cluster.cancel();
}

/// A jammed job and a barrier triggered now, which is to be aligned for so long.
fn aligned_at_first(timeout: Duration) -> (Cluster, Job, CheckpointBarrier) {
    let mut cluster = cluster(1);
    let job = job(Partitioning::Hash, [2, 2, 2]);
    jammed_aligned_for(&mut cluster, &job, timeout);
    let mut barrier = cluster.barrier();
    barrier.triggered_at_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    (cluster, job, barrier)
}

#[test]
fn until_its_time_is_over_a_checkpoint_is_aligned() {
    let (mut cluster, job, barrier) = aligned_at_first(Duration::from_secs(3600));
    for source in [task(0, 0), task(0, 1)] {
        cluster.handles[&source].command(TaskCommand::TriggerCheckpoint(barrier));
        // It hears of it although its consumers have no room.
        cluster.acknowledged(source, barrier.id);
    }
    job.turnstile.let_pass(u64::MAX);
    for of in [task(1, 0), task(1, 1), task(2, 0), task(2, 1)] {
        let state = cluster.acknowledged(of, barrier.id);
        assert!(state.iter().all(|operator| operator.in_flight.is_none()));
    }
    cluster.finish();
    check(&job, &Checkpoint::new());
}

#[test]
fn a_checkpoint_that_was_to_be_aligned_turns_unaligned_in_time() {
    let (mut cluster, job, barrier) = aligned_at_first(Duration::from_millis(200));
    for source in [task(0, 0), task(0, 1)] {
        cluster.handles[&source].command(TaskCommand::TriggerCheckpoint(barrier));
    }
    // The mappers wait for room: nothing reaches them but the end of that time.
    for of in [task(1, 0), task(1, 1)] {
        let state = cluster.acknowledged(of, barrier.id);
        assert!(state[0].in_flight.is_some());
    }
    job.turnstile.let_pass(u64::MAX);
    cluster.finish();
    check(&job, &Checkpoint::new());
}

#[test]
fn edges_that_are_not_all_to_all_stay_aligned() {
    for partitioning in [Partitioning::Forward, Partitioning::Broadcast] {
        let mut cluster = cluster(1);
        let job = job(partitioning, [2, 2, 2]);
        jammed(&mut cluster, &job);
        let id = cluster.trigger(&[task(0, 0), task(0, 1)]);
        job.turnstile.let_pass(u64::MAX);
        let checkpoint = cluster.checkpoint(id);
        assert_eq!(in_flight(&checkpoint, 1), 0);
        cluster.finish();
    }
}

#[test]
fn data_in_flight_that_no_edge_takes_is_refused_unless_that_is_allowed() {
    let mut cluster = cluster(1);
    let first = job(Partitioning::Hash, [2, 2, 2]);
    jammed(&mut cluster, &first);
    let (checkpoint, _) = under_pressure(&mut cluster, &first);
    cluster.command(&TaskCommand::Cancel);
    first.turnstile.let_pass(u64::MAX);
    cluster.join();
    for allowed in [false, true] {
        let second = job(Partitioning::Forward, [2, 2, 2]);
        cluster.spawn(&second.graph, |spec| {
            restored(spec, &checkpoint, &second.graph);
            spec.allow_non_restored = allowed;
        });
        if allowed {
            cluster.each("is deployed", |event| matches!(event, TaskEvent::Deployed(_)));
        } else {
            let failure = cluster.failure(task(1, 0));
            let message = &failure.error.message;
            assert!(!failure.error.retryable);
            for part in ["in flight from operator uid source to map", "allow-non-restored-state"] {
                assert!(message.contains(part), "{message}");
            }
        }
        cluster.cancel();
    }
}
