//! The operators behind the stream's methods: generic, so that a batch is handled in one tight loop without a dynamic
//! call a record.

mod adapters;
mod function;
mod sink;
#[cfg(test)]
mod tests;

pub(crate) use adapters::{Filter, FlatMap, KeyedFilter, KeyedFlatMap, KeyedMap, Map, Reduce, TryMap};
pub(crate) use function::{FunctionFactory, RecordFunction};
pub(crate) use sink::SinkFactory;
