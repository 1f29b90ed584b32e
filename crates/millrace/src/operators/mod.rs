//! The operators behind the stream's methods: generic, so that a batch is handled in one tight loop without a dynamic
//! call a record.

mod adapters;
mod broadcast;
mod function;
mod process;
#[cfg(test)]
mod process_tests;
mod sink;
#[cfg(test)]
mod sink_tests;
#[cfg(test)]
mod tests;

pub(crate) use adapters::{Filter, FlatMap, KeyedFilter, KeyedFlatMap, KeyedMap, Map, Reduce, TryMap};
pub(crate) use broadcast::{BroadcastFactory, BroadcastFunction, BroadcastProcess, KeyedBroadcastProcess};
pub(crate) use function::{CallContext, FunctionFactory, RecordFunction};
pub(crate) use process::{KeyedProcess, Process};
pub(crate) use sink::SinkFactory;
