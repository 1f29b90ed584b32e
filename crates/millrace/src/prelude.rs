//! What nearly every program needs: `use millrace::prelude::*;`.

#[cfg(feature = "kafka")]
pub use crate::connectors::kafka::{KafkaSink, KafkaSource};
pub use crate::{
    CheckpointingMode, Collector, Counter, DataStream, Error, FilterFunction, FlatMapFunction, FsStateBackend,
    FunctionResult, Gauge, KeyedContext, KeyedFilterFunction, KeyedFlatMapFunction, KeyedMapFunction, KeyedStream,
    ListState, MapFunction, MapState, MemoryStateBackend, OperatorListState, RestartStrategy, Retention,
    RuntimeContext, StreamExecutionEnvironment, ValueState,
    connectors::{DiscardingSink, FileSink, FileSource, GeneratorSource, PrintSink},
};
