//! What fails is told once, with its reason; what is cancelled ends.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use millrace_core::{Error, ErrorDomain};
use millrace_runtime::{
    graph::Partitioning,
    task::{TaskCommand, TaskEvent},
};

use crate::{
    cluster::{Cluster, split, task, until},
    graphs::Builder,
    numbers::Numbers,
    operators::{FailOn, Map, Seen, Sink, Turnstile},
};

fn numbered(spec: &mut millrace_runtime::task::TaskSpec) {
    if spec.task.vertex.0 == 0 {
        spec.splits = vec![split(spec.task.subtask, 0..u64::MAX)];
    }
}

#[test]
fn an_error_and_a_panic_name_the_operator_and_the_records() {
    for (error, said) in
        [(Some(Error::invalid("a bad record")), "a bad record"), (None, "panicked: number 700 is cursed")]
    {
        let (numbers, seen) = (Numbers::new(1), Arc::<Seen>::default());
        numbers.0.allow(0, 1000);
        let graph = Builder::source(&numbers, 1)
            .chain("map", Map::factory())
            .then(Partitioning::Forward, "checker", 1, FailOn::factory(700, error.clone()))
            .chain("sink", Sink::factory(&seen, None))
            .build();
        for taskmanagers in [1, 2] {
            let mut cluster = Cluster::new(taskmanagers);
            cluster.run(&graph, numbered);
            let failure = cluster.failure(task(1, 0));
            let message = &failure.error.message;
            assert!(message.starts_with("operator \"checker\", subtask 1 of 1, records numbers-0@"), "{message}");
            assert!(message.ends_with(said), "{message}");
            assert_eq!(failure.error.retryable, error.is_none(), "the error keeps its class");
            let position = failure.position.unwrap();
            let range = position.strip_prefix("numbers-0@").unwrap().split_once("..").unwrap();
            let (from, to): (u64, u64) = (range.0.parse().unwrap(), range.1.parse().unwrap());
            assert!((from..to).contains(&700), "{position}");
            cluster.cancel();
        }
        assert_eq!(seen.closed.load(Ordering::SeqCst), 2, "operators are closed after a failure too");
    }
}

#[test]
fn a_reader_that_fails_is_named() {
    let numbers = Numbers::new(1);
    numbers.0.poison.store(50, Ordering::SeqCst);
    let graph = Builder::source(&numbers, 1).chain("map", Map::factory()).build();
    let mut cluster = Cluster::new(1);
    cluster.run(&graph, numbered);
    let failure = cluster.failure(task(0, 0));
    assert_eq!(failure.error.domain, ErrorDomain::External);
    assert!(failure.error.message.starts_with("operator \"numbers\""), "{}", failure.error);
    cluster.join();
}

#[test]
fn the_consumers_failure_is_told_before_its_producers() {
    let numbers = Numbers::new(1);
    let graph = Builder::source(&numbers, 1)
        .then(Partitioning::Forward, "checker", 1, FailOn::factory(700, Some(Error::user("bad"))))
        .build();
    let mut cluster = Cluster::new(1);
    cluster.run(&graph, numbered);
    let (first, _) = cluster.expect("that a task fails", |of, event| match event {
        TaskEvent::Failed(failure) => Some((of, failure.clone())),
        _ => None,
    });
    assert_eq!(first, task(1, 0));
    let secondary = cluster.failure(task(0, 0));
    assert!(secondary.error.retryable && secondary.error.message.contains("has ended"), "{}", secondary.error);
    cluster.join();
}

#[test]
fn cancelling_ends_tasks_wherever_they_wait() {
    for taskmanagers in [1, 2] {
        let (numbers, seen, turnstile) = (Numbers::new(2), Arc::<Seen>::default(), Arc::<Turnstile>::default());
        // The first source waits for room, the map too, the sinks in user code, the second source for records.
        numbers.0.allow(1, 0);
        let graph = Builder::source(&numbers, 2)
            .then(Partitioning::Forward, "map", 2, Map::factory())
            .then(Partitioning::Hash, "sink", 2, Sink::factory(&seen, Some(&turnstile)))
            .build();
        let mut cluster = Cluster::new(taskmanagers);
        cluster.run(&graph, numbered);
        until("the source waits for room", || cluster.handles[&task(0, 0)].metrics().snapshot().backpressured_ms > 0);
        until("a sink is in user code", || turnstile.arrived() > 0);
        cluster.command(&TaskCommand::Cancel);
        for (vertex, subtask) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            assert!(cluster.handles[&task(vertex, subtask)].join_timeout(Duration::from_secs(60)));
        }
        let stuck = (0..2).filter(|subtask| !cluster.handles[&task(2, *subtask)].join_timeout(Duration::ZERO)).count();
        assert!(stuck > 0, "user code is not interrupted");
        turnstile.let_pass(u64::MAX);
        cluster.each("was cancelled", |event| matches!(event, TaskEvent::Canceled));
        cluster.join();
    }
}

#[test]
fn tasks_can_be_cancelled_before_they_start() {
    let graph = Builder::source(&Numbers::new(1), 1).chain("map", Map::factory()).build();
    let mut cluster = Cluster::new(1);
    cluster.spawn(&graph, |_| {});
    cluster.cancel();
    cluster.each("was cancelled", |event| matches!(event, TaskEvent::Canceled));
}

#[test]
fn a_lost_taskmanager_fails_the_tasks_at_both_ends() {
    let (numbers, seen) = (Numbers::new(2), Arc::<Seen>::default());
    // Nothing is under way: the loss is noticed all the same.
    numbers.0.allow(0, 10);
    numbers.0.allow(1, 10);
    let graph = Builder::source(&numbers, 2).then(Partitioning::Hash, "sink", 2, Sink::factory(&seen, None)).build();
    let mut cluster = Cluster::new(2);
    cluster.run(&graph, numbered);
    until("all arrived", || seen.len() == 20);
    cluster.networks[1].shutdown();
    for (vertex, subtask) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let failure = cluster.failure(task(vertex, subtask));
        assert!(failure.error.message.contains("connection to taskmanager tm-"), "{}", failure.error);
        assert!(failure.error.message.contains("lost") && failure.error.retryable);
    }
    cluster.join();
}

#[test]
fn an_unreachable_consumer_fails_its_producer() {
    let numbers = Numbers::new(1);
    let graph = Builder::source(&numbers, 1).then(Partitioning::Forward, "map", 1, Map::factory()).build();
    let mut cluster = Cluster::new(2);
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    cluster.run(&graph, |spec| {
        numbered(spec);
        spec.consumers.iter_mut().flatten().for_each(|consumer| consumer.data_address = address.to_string());
    });
    let failure = cluster.failure(task(0, 0));
    assert!(failure.error.message.contains(&address.to_string()), "{}", failure.error);
    cluster.cancel();
}

#[test]
fn a_consumer_that_never_answers_does_not_keep_its_producer_from_being_cancelled() {
    let numbers = Numbers::new(1);
    let graph = Builder::source(&numbers, 1).then(Partitioning::Forward, "map", 1, Map::factory()).build();
    let mut cluster = Cluster::with_network(2, |settings| settings.connect_timeout = Duration::from_secs(3600));
    // The kernel takes connections, and what is sent; nobody reads it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    cluster.run(&graph, |spec| {
        numbered(spec);
        spec.consumers.iter_mut().flatten().for_each(|consumer| consumer.data_address = address.clone());
    });
    until("the source waits", || cluster.handles[&task(0, 0)].metrics().snapshot().backpressured_ms > 0);
    cluster.cancel();
    cluster.each("was cancelled", |event| matches!(event, TaskEvent::Canceled));
}

#[test]
fn a_record_larger_than_a_frame_is_the_users_error() {
    let numbers = Numbers::with_ballast(1, 5000);
    let graph = Builder::source(&numbers, 1).then(Partitioning::Forward, "map", 1, Map::factory()).build();
    let mut cluster = Cluster::with_network(2, |settings| settings.max_frame_size = 4000);
    cluster.run(&graph, numbered);
    let failure = cluster.failure(task(0, 0));
    assert!(!failure.error.retryable && failure.error.message.contains("largest frame"), "{}", failure.error);
    cluster.cancel();
}
