//! Queues are bounded: a producer stops where its consumer does.

use std::sync::Arc;

use millrace_runtime::{graph::Partitioning, task::TaskSettings};

use crate::{
    cluster::{Cluster, split, task, until},
    graphs::Builder,
    numbers::Numbers,
    operators::{Seen, Sink, Turnstile},
};

#[test]
fn a_slow_consumer_stops_its_producer() {
    for taskmanagers in [1, 2] {
        let (numbers, seen, turnstile) = (Numbers::new(1), Arc::<Seen>::default(), Arc::<Turnstile>::default());
        let graph = Builder::source(&numbers, 1)
            .then(Partitioning::Forward, "sink", 1, Sink::factory(&seen, Some(&turnstile)))
            .build();
        let mut cluster = Cluster::new(taskmanagers);
        let (queue, batch) = (4, 16);
        cluster.settings = TaskSettings { queue_capacity: queue, max_batch_size: batch, ..TaskSettings::default() };
        cluster.run(&graph, |spec| {
            if spec.task.vertex.0 == 0 {
                spec.splits = vec![split(0, 0..1_000_000)];
            }
        });
        let waits = |cluster: &Cluster| cluster.handles[&task(0, 0)].metrics().snapshot().backpressured_ms;
        let mut passed = 0;
        for calls in [0u64, 1, 5, 20] {
            turnstile.let_pass(calls);
            passed += calls;
            until("the sink stops again", || turnstile.arrived() == passed + 1);
            let before = waits(&cluster);
            until("the source waits", || waits(&cluster) > before + 5);
            // In the sink's hands, in its queue, on its way: there is credit for a queue full of batches only.
            let arrived = seen.len() as u64;
            let bound = arrived + ((1 + 2 * queue + 1) * batch) as u64;
            assert!(numbers.0.read(0) <= bound, "{} were read, {arrived} arrived", numbers.0.read(0));
        }
        turnstile.let_pass(u64::MAX);
        cluster.cancel();
    }
}
