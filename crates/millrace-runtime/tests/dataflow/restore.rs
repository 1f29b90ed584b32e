//! State comes back, at another parallelism too, and is never dropped silently.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::ids::TaskId;
use millrace_runtime::{
    graph::{JobGraph, Partitioning},
    task::{TaskEvent, TaskSettings},
};
use millrace_state::{
    FsStateBackend, OperatorSubtaskState, StateHandle,
    storage::{CheckpointStorage, StorageOptions},
};

use crate::{
    cluster::{Cluster, restore_of, split, task, until},
    graphs::Builder,
    numbers::Numbers,
    operators::{Map, Seen, Sink},
};

fn job(parallelism: u32) -> (Numbers, Arc<Seen>, Arc<JobGraph>) {
    let (numbers, seen) = (Numbers::new(1), Arc::<Seen>::default());
    let graph =
        Builder::source(&numbers, 1).then(Partitioning::Hash, "sink", parallelism, Sink::factory(&seen, None)).build();
    (numbers, seen, graph)
}

/// Runs 1000 keys and takes a checkpoint.
fn first_run(cluster: &mut Cluster) -> BTreeMap<TaskId, Vec<OperatorSubtaskState>> {
    let (numbers, seen, graph) = job(2);
    numbers.0.allow(0, 1000);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(0, 0..2000)];
        }
    });
    until("all arrived", || seen.len() == 1000);
    let id = cluster.trigger(&[task(0, 0)]);
    let checkpoint = cluster.checkpoint(id);
    cluster.cancel();
    checkpoint
}

/// Runs the same keys again from the checkpoint and expects each to be counted on.
fn second_run(cluster: &mut Cluster, checkpoint: &BTreeMap<TaskId, Vec<OperatorSubtaskState>>, parallelism: u32) {
    let (_numbers, seen, graph) = job(parallelism);
    let restore = restore_of(checkpoint, 1, "sink", parallelism);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(0, 0..1000)];
        } else {
            spec.restore = vec![restore[spec.task.subtask as usize].clone()];
        }
    });
    cluster.finish();
    let mut counts = seen.counts.lock().unwrap().clone();
    counts.sort_unstable();
    assert!(counts.into_iter().eq((0..1000).map(|number| (number, 2))), "every key goes on from one");
}

#[test]
fn keyed_state_is_restored_at_any_parallelism() {
    let mut cluster = Cluster::new(1);
    let checkpoint = first_run(&mut cluster);
    for parallelism in [1, 2, 3] {
        second_run(&mut cluster, &checkpoint, parallelism);
    }
}

#[test]
fn large_snapshots_are_files_and_small_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let uri = format!("file://{}", directory.path().display());
    let mut cluster = Cluster::new(1);
    cluster.storage = CheckpointStorage::open(&uri, &StorageOptions::default()).unwrap();
    cluster.backend = Arc::new(FsStateBackend::default());
    for (threshold, is_file) in [(100, true), (1 << 20, false)] {
        cluster.settings = TaskSettings { inline_threshold: threshold, ..TaskSettings::default() };
        let checkpoint = first_run(&mut cluster);
        for subtask in 0..2 {
            let state = &checkpoint[&task(1, subtask)][0];
            let data = &state.keyed.as_ref().unwrap().data;
            assert_eq!(matches!(data, StateHandle::File { .. }), is_file);
        }
        second_run(&mut cluster, &checkpoint, 3);
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_declined_and_the_job_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoints");
    let mut cluster = Cluster::new(1);
    cluster.storage =
        CheckpointStorage::open(&format!("file://{}", path.display()), &StorageOptions::default()).unwrap();
    cluster.backend = Arc::new(FsStateBackend::default());
    cluster.settings = TaskSettings { inline_threshold: 0, ..TaskSettings::default() };
    let (numbers, seen, graph) = job(1);
    numbers.0.allow(0, 10);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(0, 0..100)];
        }
    });
    until("all arrived", || seen.len() == 10);
    std::fs::remove_dir_all(&path).unwrap();
    let id = cluster.trigger(&[task(0, 0)]);
    cluster.expect("that it is declined", |of, event| match event {
        TaskEvent::Declined { checkpoint, .. } if of == task(1, 0) && *checkpoint == id => Some(()),
        _ => None,
    });
    numbers.0.allow(0, 100);
    cluster.finish();
    assert_eq!(seen.len(), 100);
}

#[test]
fn state_that_nothing_uses_is_refused_unless_that_is_allowed() {
    let mut cluster = Cluster::new(1);
    let checkpoint = first_run(&mut cluster);
    let restore = restore_of(&checkpoint, 1, "sink", 1);
    // The same uid, but an operator that asks for no state; and a uid that is gone.
    for (partitioning, uid, said) in [
        (Partitioning::Forward, "sink", "keyed state"),
        (Partitioning::Hash, "sink", "state \"by-key\", \"count\""),
        (Partitioning::Forward, "other", "operator that this task does not have"),
    ] {
        let graph = Builder::source(&Numbers::new(1), 1).then(partitioning, uid, 1, Map::factory()).build();
        for allowed in [false, true] {
            cluster.spawn(&graph, |spec| {
                spec.allow_non_restored = allowed;
                if spec.task.vertex.0 == 1 {
                    spec.restore = restore.clone();
                }
            });
            if allowed {
                cluster.each("is deployed", |event| matches!(event, TaskEvent::Deployed(_)));
            } else {
                let failure = cluster.failure(task(1, 0));
                assert!(!failure.error.retryable);
                assert!(
                    failure.error.message.contains("uid sink") && failure.error.message.contains(said),
                    "{}",
                    failure.error
                );
            }
            cluster.cancel();
        }
    }
}
