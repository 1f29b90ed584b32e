//! Stateful stream processing in Rust: the part of Millrace that a job's program uses.
//!
//! A program builds streams from sources to sinks and calls [`execute`](StreamExecutionEnvironment::execute). Run by
//! itself it is the whole engine in one process; `millrace run` starts the same program as a cluster of processes.
//! Names are Flink's for Flink's concepts.
//!
//! This job counts words. Its function keeps a number for each word, as state: with checkpoints on, a failure neither
//! loses a word nor counts one twice.
//!
//! ```
//! use std::time::Duration;
//! use millrace::prelude::*;
//!
//! #[derive(Clone, Default)]
//! struct CountWords {
//!     count: ValueState<u64>,
//! }
//!
//! impl KeyedFlatMapFunction<String, String> for CountWords {
//!     fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
//!         self.count = context.value_state("count", 0)?;
//!         Ok(())
//!     }
//!
//!     fn flat_map(&mut self, word: String, out: &mut Collector<String>) -> FunctionResult {
//!         let count = self.count.modify(|count| {
//!             *count += 1;
//!             *count
//!         })?;
//!         out.collect(format!("{word} {count}"));
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), Error> {
//!     let mut env = StreamExecutionEnvironment::new();
//!     env.enable_checkpointing(Duration::from_secs(1));
//!     env.from_collection(["to be or not".to_string(), "to be".to_string()])
//!         .flat_map(|line, out| out.extend(line.split(' ').map(String::from)))
//!         .key_by_ref(|word| word)
//!         .flat_map(CountWords::default())
//!         .uid("count")
//!         .print();
//!     env.execute("word count")?;
//!     Ok(())
//! }
//! ```
//!
//! # Functions
//!
//! [`map`](DataStream::map), [`filter`](DataStream::filter) and [`flat_map`](DataStream::flat_map) take closures.
//! [`map_with`](DataStream::map_with), [`filter_with`](DataStream::filter_with) and
//! [`flat_map_with`](DataStream::flat_map_with) take types that implement [`MapFunction`], [`FilterFunction`] and
//! [`FlatMapFunction`], which are opened with a [`RuntimeContext`] and closed at the end. Behind
//! [`key_by`](DataStream::key_by) the traits are [`KeyedMapFunction`], [`KeyedFilterFunction`] and
//! [`KeyedFlatMapFunction`]; their [`KeyedContext`] gives [`ValueState`], [`ListState`], [`MapState`],
//! [`ReducingState`] and [`AggregatingState`], with a [time to live](StateTtlConfig) if need be. Any function may have
//! operator state, through its context: lists that are dealt out again or given to all when the parallelism changes.
//!
//! [`process`](KeyedStream::process) takes a [`KeyedProcessFunction`], which has processing-time timers as well;
//! [`connect`](DataStream::connect) takes a broadcast stream and a [`BroadcastProcessFunction`], which keeps what is
//! broadcast in broadcast state.
//!
//! A closure can't change what it captures, and keyed state can't be had without a `key_by`: neither compiles. A
//! function that returns an error or panics fails its task, and the job restarts by its restart strategy.
//!
//! # Delivery
//!
//! With checkpoints in mode exactly once each record's effect on state is there once, whatever fails. What a sink
//! promises for the records that leave the job is its [`DeliveryGuarantee`](sink::DeliveryGuarantee): one that delivers
//! exactly once makes records visible when their checkpoint is complete; of the others, what was written after the last
//! completed checkpoint, also what was printed, is written again after a failure.

mod checkpoints;
mod environment;
mod functions;
mod operators;
mod plan;
mod stream;
mod translate;

pub mod prelude;

pub use checkpoints::CheckpointConfig;
pub use environment::StreamExecutionEnvironment;
pub use functions::{
    BroadcastContext, BroadcastProcessFunction, Collector, Counter, FilterFunction, FlatMapFunction, FlatMapReturn,
    Gauge, KeyedBroadcastProcessFunction, KeyedContext, KeyedFilterFunction, KeyedFlatMapFunction, KeyedMapFunction,
    KeyedProcessContext, KeyedProcessFunction, MapFunction, MetricGroup, ProcessContext, ProcessFunction,
    ReadOnlyBroadcastState, RuntimeContext, TimerService,
};
pub use stream::{
    BroadcastConnectedStream, BroadcastStream, DataStream, DataStreamSink, KeyedBroadcastConnectedStream, KeyedStream,
};

pub use millrace_connectors as connectors;
pub use millrace_core::{
    BoxError, Error, ErrorDomain, FunctionResult, Record, Result,
    checkpoint::{CheckpointingMode, Retention},
    clock::{Clock, ManualClock},
    key::Key,
    operator_state::{BroadcastState, OperatorListState, OperatorStateStore},
    restart::RestartStrategy,
};
pub use millrace_state::{
    AggregateFunction, AggregatingState, FsStateBackend, ListState, MapState, MemoryStateBackend, ReduceFunction,
    ReducingState, StateBackend, StateTtlConfig, StateValue, StateVisibility, UpdateType, ValueState, backend,
};
#[cfg(feature = "rocksdb")]
pub use millrace_state_rocksdb::RocksDBStateBackend;
pub use millrace_worker::{JobResult as JobExecutionResult, config};

/// The interfaces that a source of one's own implements.
pub mod source {
    pub use millrace_core::{ids::CheckpointId, source::*};
}

/// The interfaces that a sink of one's own implements.
pub mod sink {
    pub use millrace_core::sink::*;
}

/// Batches are allocated on one thread and freed on another, which is what jemalloc is good at: it makes the difference
/// between 6 and 16 million records a second on a keyed count.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
