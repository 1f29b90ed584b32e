//! Snapshots are consistent where barriers are aligned.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{
    checkpoint::{CheckpointBarrier, CheckpointingMode},
    codec,
    ids::{CheckpointId, TaskId},
};
use millrace_runtime::{
    graph::{JobGraph, Partitioning},
    source::EncodedSplit,
    task::{BarrierHandling, TaskCommand, TaskEvent, decode_splits},
};
use millrace_state::{OperatorSubtaskState, SOURCE_SPLITS};

use crate::{
    cluster::{Cluster, split, task, until},
    graphs::Builder,
    numbers::{NumberSplit, Numbers},
    operators::{Map, Seen, Sink},
};

type Checkpoint = BTreeMap<TaskId, Vec<OperatorSubtaskState>>;

pub fn splits(state: &[OperatorSubtaskState]) -> Vec<EncodedSplit> {
    let lists = state.iter().flat_map(|operator| &operator.lists);
    let list = lists.into_iter().find(|list| list.name == SOURCE_SPLITS).expect("a source's splits");
    decode_splits(list).unwrap()
}

/// How many records of its splits a source task had read.
pub fn position(state: &[OperatorSubtaskState]) -> u64 {
    splits(state).iter().map(|split| codec::decode::<NumberSplit>(&split.bytes).unwrap().next).sum()
}

fn counted(state: &[OperatorSubtaskState]) -> u64 {
    let lists = state.iter().flat_map(|operator| &operator.lists).filter(|list| list.name == "count");
    lists.flat_map(|list| &list.items).map(|item| codec::decode::<u64>(item).unwrap()).sum()
}

/// Records read and records counted, in one checkpoint.
fn totals(checkpoint: &Checkpoint, sink: u32) -> (u64, u64) {
    let of = |vertex: u32| checkpoint.iter().filter(move |(task, _)| task.vertex.0 == vertex);
    (of(0).map(|(_, state)| position(state)).sum(), of(sink).map(|(_, state)| counted(state)).sum())
}

#[test]
fn aligned_snapshots_hold_what_was_read_and_nothing_else() {
    for taskmanagers in [1, 2] {
        let (numbers, seen) = (Numbers::new(2), Arc::<Seen>::default());
        let graph = Builder::source(&numbers, 2)
            .then(Partitioning::Rebalance, "map", 2, Map::factory())
            .then(Partitioning::Hash, "sink", 2, Sink::factory(&seen, None))
            .build();
        let mut cluster = Cluster::new(taskmanagers);
        // One producer is fast, the other gets a few records at a time.
        numbers.0.allow(0, 0);
        numbers.0.allow(1, 0);
        cluster.run(&graph, |spec| {
            if spec.task.vertex.0 == 0 {
                spec.splits = vec![split(spec.task.subtask, 0..u64::MAX)];
            }
        });
        let mut last = 0;
        for round in 1..=20 {
            numbers.0.allow(0, round * 3000);
            numbers.0.allow(1, round * 3);
            until("records flow", || numbers.0.read(0) + numbers.0.read(1) > last);
            let id = cluster.trigger(&[task(0, 0), task(0, 1)]);
            let checkpoint = cluster.checkpoint(id);
            let (read, counted) = totals(&checkpoint, 2);
            assert_eq!(read, counted, "checkpoint {id}");
            assert!(read > last);
            last = read;
        }
        cluster.cancel();
    }
}

/// Two sources into one sink; `first` has passed its barrier with 10 records, the other has not.
fn half_aligned(taskmanagers: u32, first: u32, mode: CheckpointingMode) -> (Cluster, Numbers, Arc<Seen>, CheckpointId) {
    let (numbers, seen) = (Numbers::new(2), Arc::<Seen>::default());
    let graph: Arc<JobGraph> =
        Builder::source(&numbers, 2).then(Partitioning::Rebalance, "sink", 1, Sink::factory(&seen, None)).build();
    numbers.0.allow(0, 10);
    numbers.0.allow(1, 10);
    let mut cluster = Cluster::new(taskmanagers);
    cluster.run(&graph, |spec| {
        spec.barriers = Some(BarrierHandling { mode, aligned_timeout: None });
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(spec.task.subtask, 0..1000)];
        }
    });
    until("all arrived", || seen.len() == 20);
    let id = cluster.trigger(&[task(0, first)]);
    let state = cluster.acknowledged(task(0, first), id);
    assert_eq!(position(&state), 10);
    (cluster, numbers, seen, id)
}

fn trigger_second(cluster: &mut Cluster, id: CheckpointId) -> u64 {
    let barrier = CheckpointBarrier { id, triggered_at_ms: 0 };
    cluster.handles[&task(0, 1)].command(TaskCommand::TriggerCheckpoint(barrier));
    cluster.acknowledged(task(0, 1), id);
    counted(&cluster.acknowledged(task(1, 0), id))
}

#[test]
fn exactly_once_a_channel_waits_behind_its_barrier() {
    let (mut cluster, numbers, seen, id) = half_aligned(1, 0, CheckpointingMode::ExactlyOnce);
    numbers.0.allow(0, 30);
    until("the first source is ahead", || numbers.0.read(0) == 30);
    numbers.0.allow(1, 15);
    until("the second source goes on", || seen.len() == 25);
    assert_eq!(trigger_second(&mut cluster, id), 25, "10 before the first barrier, 15 before the second");
    until("what waited follows", || seen.len() == 45);
    cluster.cancel();
}

#[test]
fn what_is_taken_between_two_barriers_is_measured_where_it_comes_from_another_process() {
    // The second source is on another taskmanager than the sink, where there is one.
    for (taskmanagers, crosses) in [(1, false), (2, true)] {
        let (mut cluster, numbers, seen, id) = half_aligned(taskmanagers, 1, CheckpointingMode::ExactlyOnce);
        // One at a time: channels are taken in turn, so the barrier is taken between two of them.
        for next in 11..=15 {
            numbers.0.allow(0, next);
            until("the second source goes on", || seen.len() as u64 == 10 + next);
        }
        let barrier = CheckpointBarrier { id, triggered_at_ms: 0 };
        cluster.handles[&task(0, 0)].command(TaskCommand::TriggerCheckpoint(barrier));
        let measured = cluster.expect("that the sink acknowledges", |from, event| match event {
            TaskEvent::Acknowledged { metrics, .. } if from == task(1, 0) => Some(*metrics),
            _ => None,
        });
        let all = cluster.handles[&task(1, 0)].metrics().num_bytes_in();
        assert_eq!((measured.persisted_bytes, measured.unaligned), (0, false));
        assert_eq!(measured.processed_bytes > 0, crosses, "some of 5 records");
        assert_eq!(measured.processed_bytes < all, crosses, "10 records came before");
        cluster.cancel();
    }
}

#[test]
fn at_least_once_nothing_waits_and_records_are_in_twice() {
    let (mut cluster, numbers, seen, id) = half_aligned(1, 0, CheckpointingMode::AtLeastOnce);
    numbers.0.allow(0, 30);
    until("the first source's records overtake", || seen.len() == 40);
    assert_eq!(trigger_second(&mut cluster, id), 40, "20 of them will be read again after a failure");
    cluster.cancel();
}

#[test]
fn an_aborted_alignment_lets_the_channel_go_on() {
    let (mut cluster, numbers, seen, id) = half_aligned(1, 0, CheckpointingMode::ExactlyOnce);
    numbers.0.allow(0, 30);
    cluster.command(&TaskCommand::NotifyAborted(id));
    until("the channel goes on", || seen.len() == 40);
    let next = cluster.trigger(&[task(0, 0), task(0, 1)]);
    let checkpoint = cluster.checkpoint(next);
    assert_eq!(totals(&checkpoint, 1), (40, 40));
    cluster.cancel();
}

#[test]
fn an_overtaken_checkpoint_is_declined() {
    let (mut cluster, _numbers, _seen, old) = half_aligned(1, 0, CheckpointingMode::ExactlyOnce);
    let new = cluster.trigger(&[task(0, 0), task(0, 1)]);
    let reason = cluster.expect("that the old one is declined", |_, event| match event {
        TaskEvent::Declined { checkpoint, reason } if *checkpoint == old => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.message.contains("overtaken"), "{reason}");
    cluster.checkpoint(new);
    cluster.cancel();
}

#[test]
fn tasks_answer_barriers_after_the_end_of_their_input() {
    let (numbers, seen) = (Numbers::new(2), Arc::<Seen>::default());
    let graph = Builder::source(&numbers, 2).then(Partitioning::Hash, "sink", 2, Sink::factory(&seen, None)).build();
    // One source ends long before the other.
    numbers.0.allow(1, 50);
    let mut cluster = Cluster::new(2);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(spec.task.subtask, 0..100)];
        }
    });
    cluster.expect("that the first ends", |of, event| {
        (of == task(0, 0) && matches!(event, TaskEvent::EndOfInput)).then_some(())
    });
    until("the rest arrived", || seen.len() == 150);
    let id = cluster.trigger(&[task(0, 0), task(0, 1)]);
    assert_eq!(totals(&cluster.checkpoint(id), 1), (150, 150));
    numbers.0.allow(1, 100);
    for ended in [task(0, 1), task(1, 0), task(1, 1)] {
        cluster
            .expect("that all end", |of, event| (of == ended && matches!(event, TaskEvent::EndOfInput)).then_some(()));
    }
    let last = cluster.trigger(&[task(0, 0), task(0, 1)]);
    assert_eq!(totals(&cluster.checkpoint(last), 1), (200, 200));
    cluster.command(&TaskCommand::Finish);
    cluster.each("has finished", |event| matches!(event, TaskEvent::Finished));
}
