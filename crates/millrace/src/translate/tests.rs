use std::time::Duration;

use millrace_connectors::{CollectionSource, DiscardingSink, GeneratorSource};
use millrace_core::{
    Result,
    checkpoint::CheckpointConfig,
    sink::{Committer, CommitterContext, Sink, SinkWriter, WriterContext},
};
use millrace_runtime::graph::{JobGraph, Partitioning};

use super::{GraphSettings, job_graph};
use crate::{DataStream, StreamExecutionEnvironment};

fn settings(parallelism: u32, checkpoints: bool) -> GraphSettings {
    let interval = checkpoints.then_some(Duration::from_secs(1));
    let checkpoints = CheckpointConfig { interval, ..Default::default() };
    GraphSettings { parallelism, max_parallelism: 128, checkpoints }
}

fn graph_of(build: impl FnOnce(&StreamExecutionEnvironment)) -> Result<JobGraph> {
    graph_at(1, build)
}

fn graph_at(parallelism: u32, build: impl FnOnce(&StreamExecutionEnvironment)) -> Result<JobGraph> {
    let env = StreamExecutionEnvironment::new();
    build(&env);
    job_graph(env.into_plan(), "test", settings(parallelism, true))
}

fn message(result: Result<JobGraph>) -> String {
    let error = result.err().expect("an error");
    assert!(!error.retryable);
    error.message
}

/// A parallel source of numbers.
fn numbers(env: &StreamExecutionEnvironment, name: &str) -> DataStream<i64> {
    env.from_source(CollectionSource::new([1i64, 2, 3]), name)
}

fn discard(stream: &DataStream<i64>) {
    let _ = stream.sink_to(DiscardingSink::new());
}

fn names(graph: &JobGraph) -> Vec<&str> {
    graph.vertices.iter().map(|vertex| vertex.name.as_str()).collect()
}

fn edges(graph: &JobGraph) -> Vec<(u32, u32, Partitioning)> {
    graph.edges.iter().map(|edge| (edge.from.0, edge.to.0, edge.partitioning)).collect()
}

fn uids(graph: &JobGraph) -> Vec<String> {
    let of_vertex = |vertex: &millrace_runtime::graph::JobVertex| {
        let source = vertex.source.iter().map(|source| source.uid.0.clone());
        source.chain(vertex.operators.iter().map(|operator| operator.uid.0.clone())).collect::<Vec<_>>()
    };
    graph.vertices.iter().flat_map(of_vertex).collect()
}

#[derive(Clone)]
struct Beside;

impl crate::BroadcastProcessFunction<i64, i64, i64> for Beside {
    fn process_element(
        &mut self,
        record: i64,
        _: &crate::ProcessContext<'_>,
        out: &mut crate::Collector<i64>,
    ) -> millrace_core::FunctionResult {
        out.collect(record);
        Ok(())
    }

    fn process_broadcast_element(
        &mut self,
        _: i64,
        _: &crate::BroadcastContext<'_>,
        _: &mut crate::Collector<i64>,
    ) -> millrace_core::FunctionResult {
        Ok(())
    }
}

#[test]
fn a_broadcast_stream_is_a_second_input() {
    let graph = graph_at(2, |env| {
        let rules = numbers(env, "rules").map(|n| n + 1);
        let connected = numbers(env, "in").connect(&rules.broadcast()).process(Beside);
        discard(&connected.map(|n| n));
    })
    .unwrap();
    assert_eq!(names(&graph), ["Source: rules -> Map", "Source: in", "Broadcast Process -> Map -> Sink"]);
    assert_eq!(edges(&graph), [(1, 2, Partitioning::Forward), (0, 2, Partitioning::Broadcast)]);
    assert_eq!(graph.edges.iter().map(|edge| edge.input.0).collect::<Vec<_>>(), [0, 1]);
    let two = StreamExecutionEnvironment::new();
    let other = numbers(&two, "other").broadcast();
    let refused = graph_of(|env| discard(&numbers(env, "in").connect(&other).process(Beside)));
    assert!(message(refused).contains("another environment"));
}

#[test]
fn operators_are_chained_up_to_a_key_by() {
    let graph = graph_at(2, |env| {
        let counted = numbers(env, "in").map(|n| n + 1).filter(|n| *n > 0).key_by(|n| *n).reduce(|a, b| a + b);
        discard(&counted.name("Count"));
    })
    .unwrap();
    assert_eq!(names(&graph), ["Source: in -> Map -> Filter", "Count -> Sink"]);
    assert_eq!(edges(&graph), [(0, 1, Partitioning::Hash)]);
    let keyed: Vec<bool> = graph.vertices[1].operators.iter().map(|operator| operator.key.is_some()).collect();
    assert_eq!(keyed, [true, false]);
    assert_eq!(graph.vertices[0].operators.len(), 2);
    assert_eq!(graph.slots_needed(), 2);
}

#[test]
fn another_parallelism_breaks_the_chain_and_rebalances() {
    let graph = graph_at(2, |env| discard(&numbers(env, "in").map(|n| n).set_parallelism(3))).unwrap();
    assert_eq!(names(&graph), ["Source: in", "Map", "Sink"]);
    assert_eq!(edges(&graph), [(0, 1, Partitioning::Rebalance), (1, 2, Partitioning::Rebalance)]);
    let parallelisms: Vec<u32> = graph.vertices.iter().map(|vertex| vertex.parallelism).collect();
    assert_eq!(parallelisms, [2, 3, 2]);
}

#[test]
fn rebalance_and_broadcast_break_the_chain() {
    let graph = graph_of(|env| discard(&numbers(env, "in").rebalance().map(|n| n).broadcast().map(|n| n))).unwrap();
    assert_eq!(names(&graph), ["Source: in", "Map", "Map -> Sink"]);
    assert_eq!(edges(&graph), [(0, 1, Partitioning::Rebalance), (1, 2, Partitioning::Broadcast)]);
}

#[test]
fn a_stream_with_two_consumers_has_an_edge_to_each() {
    let graph = graph_of(|env| {
        let mapped = numbers(env, "in").map(|n| n);
        discard(&mapped);
        discard(&mapped.filter(|_| true));
    })
    .unwrap();
    assert_eq!(names(&graph), ["Source: in -> Map", "Sink", "Filter -> Sink"]);
    assert_eq!(edges(&graph), [(0, 1, Partitioning::Forward), (0, 2, Partitioning::Forward)]);
}

#[test]
fn a_union_is_several_edges_into_one_input() {
    let graph = graph_of(|env| {
        let left = numbers(env, "left");
        let right = numbers(env, "right").rebalance();
        discard(&left.union(&right).map(|n| n));
    })
    .unwrap();
    assert_eq!(names(&graph), ["Source: left", "Source: right", "Map -> Sink"]);
    assert_eq!(edges(&graph), [(0, 2, Partitioning::Forward), (1, 2, Partitioning::Rebalance)]);
    assert!(graph.edges.iter().all(|edge| edge.input.0 == 0));
}

#[test]
fn every_edge_goes_forward_whatever_the_order_of_the_program() {
    let graph = graph_of(|env| {
        let (first, second) = (numbers(env, "first"), numbers(env, "second"));
        let late = second.key_by(|n| *n).reduce(|a, _| a);
        let early = first.key_by(|n| *n).reduce(|a, _| a);
        discard(&late.union(&early));
    })
    .unwrap();
    assert!(graph.edges.iter().all(|edge| edge.from.0 < edge.to.0));
    assert!(graph.vertices.iter().enumerate().all(|(index, vertex)| vertex.id.0 as usize == index));
}

#[test]
fn a_uid_follows_from_the_place_and_not_from_name_or_parallelism() {
    let plain = uids(&graph_of(|env| discard(&numbers(env, "a").key_by(|n| *n).reduce(|a, _| a))).unwrap());
    let changed = graph_at(4, |env| {
        let reduced = numbers(env, "b").name("other").key_by(|n| *n).reduce(|a, _| a);
        discard(&reduced.name("x").set_parallelism(2));
    });
    assert_eq!(uids(&changed.unwrap()), plain);
    let longer = graph_of(|env| discard(&numbers(env, "a").map(|n| n).key_by(|n| *n).reduce(|a, _| a)));
    assert!(!uids(&longer.unwrap()).contains(&plain[1]));
}

#[test]
fn a_uid_of_the_programs_holds_its_place() {
    let build = |filtered: bool| {
        let graph = graph_of(|env| {
            let numbers = numbers(env, "a");
            let numbers = if filtered { numbers.filter(|_| true) } else { numbers };
            let reduced = numbers.key_by(|n| *n).reduce(|a, _| a).uid("sums");
            discard(&reduced.key_by(|n| *n).reduce(|_, b| b));
        });
        uids(&graph.unwrap())
    };
    let (plain, filtered) = (build(false), build(true));
    assert_eq!(plain[1], "sums");
    assert_eq!(filtered[2..], plain[1..], "what follows an operator with a uid keeps its own");
}

#[test]
fn siblings_of_one_kind_have_different_uids() {
    let graph = graph_of(|env| {
        let numbers = numbers(env, "a");
        discard(&numbers);
        discard(&numbers);
    });
    let uids = uids(&graph.unwrap());
    assert_eq!(uids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[test]
fn two_equal_uids_are_refused_with_both_operators() {
    let message = message(graph_of(|env| {
        let numbers = numbers(env, "a").uid("x");
        discard(&numbers.map(|n| n).name("Double").uid("x"));
    }));
    assert!(
        message.contains("\"Source: a\"") && message.contains("\"Double\"") && message.contains("\"x\""),
        "{message}"
    );
}

#[test]
fn parallelism_out_of_range_is_refused_with_the_operator() {
    let message = |parallelism| {
        message(graph_of(|env| discard(&numbers(env, "a").map(|n| n).name("Double").set_parallelism(parallelism))))
    };
    for parallelism in [0, 129] {
        let message = message(parallelism);
        assert!(
            message.contains("\"Double\"") && message.contains(&format!("parallelism {parallelism} ")),
            "{message}"
        );
    }
}

#[test]
fn a_collection_is_not_parallel() {
    let collection = |env: &StreamExecutionEnvironment| env.from_collection([1i64, 2]);
    let graph = graph_at(3, |env| discard(&collection(env))).unwrap();
    assert_eq!(edges(&graph), [(0, 1, Partitioning::Rebalance)]);
    assert_eq!((graph.vertices[0].parallelism, graph.vertices[1].parallelism), (1, 3));
    let message = message(graph_of(|env| discard(&collection(env).set_parallelism(2))));
    assert!(message.contains("parallelism 2") && message.contains("not parallel"), "{message}");
}

#[test]
fn a_job_without_an_end_is_refused() {
    assert!(message(graph_of(|_| ())).contains("no operators"));
    let message = message(graph_of(|env| drop(numbers(env, "a").map(|n| n).name("Double"))));
    assert!(message.contains("\"Double\"") && message.contains("sink_to"), "{message}");
}

#[test]
fn what_is_said_of_no_operator_is_refused() {
    let message = message(graph_of(|env| discard(&numbers(env, "a").rebalance().uid("x"))));
    assert!(message.contains("uid is called on"), "{message}");
}

#[test]
fn streams_of_two_environments_do_not_mix() {
    let other = StreamExecutionEnvironment::new();
    let message = message(graph_of(|env| discard(&numbers(env, "a").union(&numbers(&other, "b")))));
    assert!(message.contains("two different environments"), "{message}");
}

/// A sink that commits with the checkpoint.
struct Committing;

impl Sink for Committing {
    type Record = i64;
    type Committable = u64;

    fn create_writer(&self, _context: &mut WriterContext<u64>) -> Result<Box<dyn SinkWriter<i64, u64>>> {
        unreachable!("nothing runs")
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<u64>>> {
        unreachable!("nothing runs")
    }
}

#[test]
fn a_sink_that_commits_needs_checkpoints_unless_the_input_ends() {
    let graph = |count: Option<u64>, checkpoints| {
        let env = StreamExecutionEnvironment::new();
        let source = GeneratorSource::new(|n| n as i64);
        let source = count.map_or(source.clone(), |count| source.count(count));
        env.from_source(source, "numbers").sink_to(Committing).name("to the world");
        job_graph(env.into_plan(), "test", settings(1, checkpoints))
    };
    let refused = message(graph(None, false));
    for part in ["\"to the world\"", "\"Source: numbers\"", "execution.checkpointing.interval"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(graph(None, true).is_ok() && graph(Some(3), false).is_ok());
}
