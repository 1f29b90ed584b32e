//! What a source task is told, and what it does when there is nothing to read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use millrace_runtime::{
    graph::Partitioning,
    task::{TaskCommand, TaskEvent},
};

use crate::{
    cluster::{Cluster, split, task, until},
    graphs::Builder,
    numbers::Numbers,
    operators::{Seen, Sink},
};

fn job(numbers: &Numbers) -> (Arc<Seen>, Arc<millrace_runtime::graph::JobGraph>) {
    let seen = Arc::<Seen>::default();
    let graph = Builder::source(numbers, 1).then(Partitioning::Forward, "sink", 1, Sink::factory(&seen, None)).build();
    (seen, graph)
}

#[test]
fn a_held_source_answers_barriers_and_reads_after_resume() {
    let numbers = Numbers::new(1);
    let (seen, graph) = job(&numbers);
    let mut cluster = Cluster::new(1);
    cluster.run(&graph, |spec| {
        spec.hold_source = true;
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(0, 0..10)];
        }
    });
    let id = cluster.trigger(&[task(0, 0)]);
    cluster.checkpoint(id);
    assert_eq!(numbers.0.read(0), 0);
    cluster.command(&TaskCommand::NotifyComplete(id));
    cluster.command(&TaskCommand::Resume);
    cluster.finish();
    assert_eq!(seen.len(), 10);
    assert_eq!(numbers.0.completed.load(Ordering::SeqCst), id.0);
}

#[test]
fn new_splits_are_read_until_no_more_come() {
    let numbers = Numbers::new(2);
    let (seen, graph) = job(&numbers);
    let mut cluster = Cluster::new(1);
    cluster.run(&graph, |spec| spec.more_splits = true);
    cluster.command(&TaskCommand::AddSplits(vec![split(0, 0..10)]));
    until("the first split was read", || seen.len() == 10);
    cluster.command(&TaskCommand::AddSplits(vec![split(1, 5..10)]));
    cluster.command(&TaskCommand::NoMoreSplits);
    cluster.finish();
    assert_eq!(seen.len(), 15);
}

#[test]
fn a_drained_source_ends_and_its_position_is_in_the_final_checkpoint() {
    let numbers = Numbers::new(1);
    let (seen, graph) = job(&numbers);
    numbers.0.allow(0, 7);
    let mut cluster = Cluster::new(1);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(0, 0..1000)];
        }
    });
    until("what is allowed was read", || seen.len() == 7);
    cluster.command(&TaskCommand::Drain);
    cluster.each("has ended its input", |event| matches!(event, TaskEvent::EndOfInput));
    numbers.0.allow(0, 1000);
    let id = cluster.trigger(&[task(0, 0)]);
    let checkpoint = cluster.checkpoint(id);
    assert_eq!(crate::checkpoints::position(&checkpoint[&task(0, 0)]), 7);
    cluster.command(&TaskCommand::Finish);
    cluster.each("has finished", |event| matches!(event, TaskEvent::Finished));
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.closed.load(Ordering::SeqCst), 1);
}

#[test]
fn an_idle_source_does_not_spin() {
    let numbers = Numbers::new(1);
    let (_seen, graph) = job(&numbers);
    let mut cluster = Cluster::new(1);
    cluster.run(&graph, |spec| spec.more_splits = true);
    until("it was asked", || numbers.0.calls.load(Ordering::SeqCst) > 0);
    let (started, before) = (Instant::now(), numbers.0.calls.load(Ordering::SeqCst));
    until("it was asked again and again", || numbers.0.calls.load(Ordering::SeqCst) >= before + 20);
    assert!(started.elapsed() >= Duration::from_millis(150), "20 calls took {:?}", started.elapsed());
    assert!(cluster.handles[&task(0, 0)].metrics().snapshot().idle_ms >= 100);
    cluster.cancel();
}
