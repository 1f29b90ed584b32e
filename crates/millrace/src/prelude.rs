//! What nearly every program needs: `use millrace::prelude::*;`.

#[cfg(feature = "rocksdb")]
pub use crate::RocksDBStateBackend;
#[cfg(feature = "kafka")]
pub use crate::connectors::kafka::{KafkaSink, KafkaSource};
pub use crate::{
    AggregateFunction, AggregatingState, BroadcastContext, BroadcastProcessFunction, CheckpointingMode, Collector,
    Counter, DataStream, Error, FilterFunction, FlatMapFunction, FsStateBackend, FunctionResult, Gauge,
    KeyedBroadcastProcessFunction, KeyedContext, KeyedFilterFunction, KeyedFlatMapFunction, KeyedMapFunction,
    KeyedProcessContext, KeyedProcessFunction, KeyedStream, ListState, MapFunction, MapState, MemoryStateBackend,
    OperatorListState, ProcessContext, ProcessFunction, ReadOnlyBroadcastState, ReducingState, RestartStrategy,
    Retention, RuntimeContext, StateTtlConfig, StateVisibility, StreamExecutionEnvironment, UpdateType, ValueState,
    connectors::{DiscardingSink, FileSink, FileSource, GeneratorSource, PrintSink},
};
