//! Every record arrives once, in order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millrace_runtime::graph::Partitioning;

use crate::{
    cluster::{Cluster, split, task},
    graphs::Builder,
    numbers::Numbers,
    operators::{Map, Seen, Sink, Slow},
};

const RECORDS: u64 = 20_000;

/// Runs source -> map -> sink to the end of the input and returns what the sinks saw.
fn run(taskmanagers: u32, first: Partitioning, second: Partitioning, parallelism: [u32; 3]) -> Arc<Seen> {
    let seen = Arc::<Seen>::default();
    let graph = Builder::source(&Numbers::new(parallelism[0]), parallelism[0])
        .then(first, "map", parallelism[1], Map::factory())
        .then(second, "sink", parallelism[2], Sink::factory(&seen, None))
        .build();
    let mut cluster = Cluster::new(taskmanagers);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(spec.task.subtask, 0..RECORDS)];
        }
    });
    cluster.finish();
    let metrics = |vertex, subtask| cluster.handles[&task(vertex, subtask)].metrics().snapshot();
    let read: u64 = (0..parallelism[0]).map(|subtask| metrics(0, subtask).records_in).sum();
    assert_eq!(read, RECORDS * u64::from(parallelism[0]));
    let sunk: u64 = (0..parallelism[2]).map(|subtask| metrics(2, subtask).records_in).sum();
    assert_eq!(sunk, seen.len() as u64);
    let over_network: u64 = (0..parallelism[1]).map(|subtask| metrics(1, subtask).bytes_in).sum();
    assert_eq!(over_network > 0, taskmanagers > 1, "neighbours are on different taskmanagers");
    seen
}

/// On each way through the job, numbers ascend.
fn assert_ordered(seen: &Seen) {
    let mut last = BTreeMap::new();
    for (sink, event) in &*seen.events.lock().unwrap() {
        if let Some(last) = last.insert((event.split, event.via, *sink), event.number) {
            assert!(last < event.number, "{event:?} came after {last}");
        }
    }
}

fn sorted(seen: &Seen) -> Vec<(u32, u64)> {
    let mut all: Vec<_> = seen.events.lock().unwrap().iter().map(|(_, event)| (event.split, event.number)).collect();
    all.sort_unstable();
    all
}

fn assert_complete(seen: &Seen, splits: u32) {
    let expected = (0..splits).flat_map(|split| (0..RECORDS).map(move |number| (split, number)));
    assert!(sorted(seen).into_iter().eq(expected), "every record once");
}

#[test]
fn inside_a_process_every_record_arrives_once_in_order() {
    for (first, second) in [
        (Partitioning::Rebalance, Partitioning::Hash),
        (Partitioning::Hash, Partitioning::Rebalance),
        (Partitioning::Forward, Partitioning::Forward),
    ] {
        let seen = run(1, first, second, [2, 2, 2]);
        assert_complete(&seen, 2);
        assert_ordered(&seen);
    }
}

#[test]
fn between_processes_every_record_arrives_once_in_order() {
    for (first, second) in [
        (Partitioning::Rebalance, Partitioning::Hash),
        (Partitioning::Hash, Partitioning::Rebalance),
        (Partitioning::Forward, Partitioning::Forward),
    ] {
        let seen = run(2, first, second, [2, 2, 2]);
        assert_complete(&seen, 2);
        assert_ordered(&seen);
    }
}

#[test]
fn any_parallelism_over_three_taskmanagers() {
    let seen = run(3, Partitioning::Rebalance, Partitioning::Hash, [3, 2, 5]);
    assert_complete(&seen, 3);
    assert_ordered(&seen);
    // Behind the hash edge a key lives in one sink.
    let mut home = BTreeMap::new();
    for (sink, event) in &*seen.events.lock().unwrap() {
        assert_eq!(*home.entry(event.number).or_insert(*sink), *sink);
    }
}

#[test]
fn broadcast_reaches_all() {
    for taskmanagers in [1, 2] {
        let seen = run(taskmanagers, Partitioning::Forward, Partitioning::Broadcast, [1, 1, 3]);
        for sink in 0..3 {
            let events = seen.events.lock().unwrap();
            let numbers = events.iter().filter(|(of, _)| *of == sink).map(|(_, event)| event.number);
            assert!(numbers.eq(0..RECORDS));
        }
    }
}

#[test]
fn a_slow_function_gets_small_batches() {
    let seen = Arc::<Seen>::default();
    let graph = Builder::source(&Numbers::new(1), 1)
        .then(Partitioning::Forward, "slow", 1, Slow::factory(Duration::from_millis(2)))
        .chain("sink", Sink::factory(&seen, None))
        .build();
    let mut cluster = Cluster::new(1);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(0, 0..300)];
        }
    });
    cluster.finish();
    assert!(seen.events.lock().unwrap().iter().map(|(_, event)| event.number).eq(0..300));
    assert!(*seen.batches.lock().unwrap().iter().max().unwrap() <= 4, "4 records take 8 ms");
}

#[test]
fn a_batch_that_is_too_large_for_a_frame_is_split() {
    let seen = Arc::<Seen>::default();
    let graph = Builder::source(&Numbers::with_ballast(1, 500), 1)
        .then(Partitioning::Forward, "sink", 1, Sink::factory(&seen, None))
        .build();
    let mut cluster = Cluster::with_network(2, |settings| settings.max_frame_size = 4000);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(0, 0..3000)];
        }
    });
    cluster.finish();
    assert!(seen.events.lock().unwrap().iter().map(|(_, event)| event.number).eq(0..3000));
    assert!(*seen.batches.lock().unwrap().iter().max().unwrap() <= 8, "no frame holds more than 7 records");
}
