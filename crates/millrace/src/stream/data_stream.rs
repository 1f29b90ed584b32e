//! A stream of records.

use std::{marker::PhantomData, sync::Arc};

use millrace_connectors::PrintSink;
use millrace_core::{
    BoxError, Error, Record, Result, checkpoint::CheckpointConfig, key::Key, schema::Schema, sink::Sink,
};
use millrace_runtime::{
    exchange::{BroadcastExchange, HashExchange, RebalanceExchange},
    graph::Partitioning,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    BroadcastConnectedStream, BroadcastStream, DataStreamSink, KeyedStream,
    keyed_stream::{KeyBy, KeyByRef},
};
use crate::{
    functions::{Collector, FilterFunction, FlatMapFunction, FlatMapReturn, MapFunction, ProcessFunction},
    operators::{
        BroadcastFactory, BroadcastFunction, Filter, FlatMap, FunctionFactory, Map, Process, RecordFunction,
        SinkFactory, TryMap,
    },
    plan::{BROADCAST_INPUT, MAIN_INPUT, NodeBody, NodeId, PlanEdge, PlanNode, Route, SharedPlan, describe},
};

/// A stream of records of one type.
///
/// Methods take `&self`: a stream can have any number of consumers, each gets all records. Mistakes in values (a wrong
/// parallelism, two equal uids) are told by [`execute`](crate::StreamExecutionEnvironment::execute).
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct DataStream<T> {
    plan: SharedPlan,
    /// The operators whose results this is: several after a union.
    heads: Vec<PlanEdge>,
    /// The operator that `name`, `uid` and `set_parallelism` speak of.
    operator: Option<NodeId>,
    records: PhantomData<fn() -> T>,
}

impl<T> Clone for DataStream<T> {
    fn clone(&self) -> Self {
        Self { plan: self.plan.clone(), heads: self.heads.clone(), operator: self.operator, records: PhantomData }
    }
}

impl<T: Record> DataStream<T> {
    /// The results of a node that was added just now.
    pub(crate) fn of_node(plan: &SharedPlan, node: NodeId) -> Self {
        let heads = vec![PlanEdge { from: node, route: Route::auto::<T>(), input: MAIN_INPUT }];
        Self { plan: plan.clone(), heads, operator: Some(node), records: PhantomData }
    }

    /// Turns each record into one other.
    pub fn map<Out, F>(&self, function: F) -> DataStream<Out>
    where
        Out: Record,
        F: Fn(T) -> Out + Clone + Send + Sync + 'static,
    {
        self.map_with(function)
    }

    /// As [`map`](Self::map), with a type that has `open` and `close`.
    pub fn map_with<Out: Record, F: MapFunction<T, Out>>(&self, function: F) -> DataStream<Out> {
        self.function("Map", None, Map(function))
    }

    /// Turns each record into one other, or fails the job.
    pub fn try_map<Out, E, F>(&self, function: F) -> DataStream<Out>
    where
        Out: Record,
        E: Into<BoxError> + 'static,
        F: Fn(T) -> Result<Out, E> + Clone + Send + Sync + 'static,
    {
        self.function("Map", None, TryMap(function))
    }

    /// Keeps the records for which the closure is true.
    pub fn filter<F>(&self, function: F) -> DataStream<T>
    where
        F: Fn(&T) -> bool + Clone + Send + Sync + 'static,
    {
        self.filter_with(function)
    }

    /// As [`filter`](Self::filter), with a type that has `open` and `close`.
    pub fn filter_with<F: FilterFunction<T>>(&self, function: F) -> DataStream<T> {
        self.function("Filter", None, Filter(function))
    }

    /// Turns each record into any number of others. The closure returns nothing, or a `FunctionResult` if it may fail.
    ///
    /// ```
    /// use millrace::prelude::*;
    ///
    /// let env = StreamExecutionEnvironment::new();
    /// env.from_collection(["1 2".to_string(), "3".to_string()])
    ///     .flat_map(|line, out| {
    ///         for word in line.split(' ') {
    ///             out.collect(word.parse::<i64>()?);
    ///         }
    ///         Ok(())
    ///     })
    ///     .print();
    /// env.execute("numbers")?;
    /// # Ok::<(), millrace::Error>(())
    /// ```
    pub fn flat_map<Out, R, F>(&self, function: F) -> DataStream<Out>
    where
        Out: Record,
        R: FlatMapReturn,
        F: Fn(T, &mut Collector<Out>) -> R + Clone + Send + Sync + 'static,
    {
        self.flat_map_with(function)
    }

    /// As [`flat_map`](Self::flat_map), with a type that has `open` and `close`.
    pub fn flat_map_with<Out: Record, F: FlatMapFunction<T, Out>>(&self, function: F) -> DataStream<Out> {
        self.function("Flat Map", None, FlatMap(function))
    }

    /// Partitions the stream by a key: all records of one key reach the same subtask, and functions behind have state
    /// for each key. Two keys are equal when their encodings are.
    ///
    /// ```
    /// use millrace::prelude::*;
    ///
    /// let env = StreamExecutionEnvironment::new();
    /// env.from_collection([("a".to_string(), 1), ("b".to_string(), 2), ("a".to_string(), 3)])
    ///     .key_by(|(name, _)| name.clone())
    ///     .reduce(|(name, sum), (_, amount)| (name, sum + amount))
    ///     .map(|(name, sum)| format!("{name}: {sum}"))
    ///     .print();
    /// env.execute("sums")?;
    /// # Ok::<(), millrace::Error>(())
    /// ```
    pub fn key_by<K, F>(&self, selector: F) -> KeyedStream<K, T>
    where
        K: Key,
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        let exchange = HashExchange::<T, _>::new(KeyBy(selector));
        KeyedStream::new(self.routed(Route::fixed(Partitioning::Hash, exchange)), Schema::of::<K>())
    }

    /// As [`key_by`](Self::key_by), for a key that lies in the record: nothing is cloned.
    pub fn key_by_ref<K, F>(&self, selector: F) -> KeyedStream<K, T>
    where
        K: Serialize + ToOwned<Owned: DeserializeOwned> + ?Sized + 'static,
        F: for<'a> Fn(&'a T) -> &'a K + Clone + Send + Sync + 'static,
    {
        let exchange = HashExchange::<T, _>::new(KeyByRef::<F, K>::new(selector));
        KeyedStream::new(self.routed(Route::fixed(Partitioning::Hash, exchange)), Schema::of::<K::Owned>())
    }

    /// All records of both streams, in no particular order between them.
    ///
    /// ```
    /// use millrace::prelude::*;
    ///
    /// let env = StreamExecutionEnvironment::new();
    /// let small = env.from_collection([1, 2]).name("Source: small");
    /// let large = env.from_collection([1000, 2000]).name("Source: large");
    /// small.union(&large).filter(|number| number % 2 == 0).print();
    /// env.execute("union")?;
    /// # Ok::<(), millrace::Error>(())
    /// ```
    pub fn union(&self, other: &DataStream<T>) -> DataStream<T> {
        if !self.plan.is(&other.plan) {
            let error = Error::invalid("the streams of a union come from two different environments");
            self.plan.edit().errors.push(error);
            return self.clone();
        }
        let heads = self.heads.iter().chain(&other.heads).cloned().collect();
        Self { heads, operator: None, ..self.clone() }
    }

    /// Deals the records out evenly to all subtasks of the next operator.
    pub fn rebalance(&self) -> DataStream<T> {
        self.routed(Route::fixed(Partitioning::Rebalance, RebalanceExchange::<T>::new()))
    }

    /// Gives every record to every subtask of the next operator.
    pub fn broadcast(&self) -> BroadcastStream<T> {
        BroadcastStream::new(self.routed(Route::fixed(Partitioning::Broadcast, BroadcastExchange::<T>::new())))
    }

    /// Handles each record with a look at the time.
    pub fn process<Out: Record, F: ProcessFunction<T, Out>>(&self, function: F) -> DataStream<Out> {
        self.function("Process", None, Process(function))
    }

    /// Puts a broadcast stream beside this one, for a function that handles both.
    pub fn connect<B: Record>(&self, broadcast: &BroadcastStream<B>) -> BroadcastConnectedStream<T, B> {
        BroadcastConnectedStream::new(self.clone(), broadcast.clone())
    }

    /// Ends the stream in a sink.
    pub fn sink_to<S: Sink<Record = T>>(&self, sink: S) -> DataStreamSink {
        self.sink("Sink", sink)
    }

    /// Prints each record on the taskmanager's standard output.
    pub fn print(&self) -> DataStreamSink
    where
        T: std::fmt::Display,
    {
        self.sink("Sink: Print to Std. Out", PrintSink::new())
    }

    /// Names the operator whose results this stream is.
    pub fn name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        describe(&self.plan, self.operator, "name", |node| node.name = name);
        self
    }

    /// Ties the state of the operator to a name that stays the same when the program changes. Without it one follows
    /// from the operator's place in the graph.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        let uid = uid.into();
        describe(&self.plan, self.operator, "uid", |node| node.uid = Some(uid));
        self
    }

    /// How many subtasks the operator has. The default is the environment's parallelism.
    pub fn set_parallelism(self, parallelism: u32) -> Self {
        describe(&self.plan, self.operator, "set_parallelism", |node| node.parallelism = Some(parallelism));
        self
    }

    /// Adds an operator that calls a function.
    pub(crate) fn function<F, Out>(
        &self,
        kind: &'static str,
        key: Option<Result<Schema>>,
        function: F,
    ) -> DataStream<Out>
    where
        F: RecordFunction<T, Out>,
        Out: Record,
    {
        let factory = Arc::new(FunctionFactory::new(function));
        DataStream::of_node(&self.plan, self.add(kind, kind, NodeBody::Operator { factory, key }))
    }

    /// Adds an operator that also takes a broadcast stream.
    pub(crate) fn with_broadcast<F, B, Out>(
        &self,
        broadcast: &DataStream<B>,
        kind: &'static str,
        key: Option<Result<Schema>>,
        function: F,
    ) -> DataStream<Out>
    where
        F: BroadcastFunction<T, B, Out>,
        B: Record,
        Out: Record,
    {
        let factory = Arc::new(BroadcastFactory::new(function));
        let node = self.add(kind, kind, NodeBody::Operator { factory, key });
        if self.plan.is(&broadcast.plan) {
            let heads = broadcast.heads.iter().map(|head| PlanEdge { input: BROADCAST_INPUT, ..head.clone() });
            self.plan.edit().nodes[node].inputs.extend(heads);
        } else {
            let error = Error::invalid("a stream is connected to one of another environment");
            self.plan.edit().errors.push(error);
        }
        DataStream::of_node(&self.plan, node)
    }

    fn sink<S: Sink<Record = T>>(&self, name: &str, sink: S) -> DataStreamSink {
        let guarantee = sink.delivery_guarantee();
        let sink = Arc::new(sink);
        let factory = Arc::new(SinkFactory::new(Arc::clone(&sink)));
        let check = Arc::new(move |checkpoints: &CheckpointConfig| sink.check(checkpoints));
        let node = self.add("Sink", name, NodeBody::Sink { factory, guarantee, check });
        DataStreamSink::new(self.plan.clone(), node)
    }

    fn add(&self, kind: &'static str, name: &str, body: NodeBody) -> NodeId {
        self.plan.add(PlanNode {
            name: name.to_string(),
            kind,
            uid: None,
            parallelism: None,
            single: false,
            body,
            inputs: self.heads.clone(),
        })
    }

    fn routed(&self, route: Route) -> Self {
        let heads = self.heads.iter().map(|head| PlanEdge { route: route.clone(), ..head.clone() }).collect();
        Self { heads, operator: None, ..self.clone() }
    }
}
