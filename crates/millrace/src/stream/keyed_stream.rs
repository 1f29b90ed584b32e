//! A stream that is partitioned by a key.

use std::marker::PhantomData;

use millrace_core::{Record, Result, key::Key, schema::Schema};
use millrace_runtime::exchange::KeySelector;
use millrace_state::StateValue;
use serde::Serialize;

use super::{BroadcastStream, DataStream, KeyedBroadcastConnectedStream};
use crate::{
    functions::{KeyedFilterFunction, KeyedFlatMapFunction, KeyedMapFunction, KeyedProcessFunction},
    operators::{KeyedFilter, KeyedFlatMap, KeyedMap, KeyedProcess, Reduce},
};

/// A stream that is partitioned by a key. Its functions have state for each key.
///
/// Functions are types that implement one of the keyed traits. Closures are allowed too, with annotated parameters:
/// `|record: String, out: &mut Collector<String>| ...`. The results are no longer keyed.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedStream<K: ?Sized, T> {
    stream: DataStream<T>,
    schema: Result<Schema>,
    key: PhantomData<fn(&K)>,
}

impl<K: ?Sized, T> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), schema: self.schema.clone(), key: PhantomData }
    }
}

impl<K: ?Sized, T: Record> KeyedStream<K, T> {
    pub(crate) fn new(stream: DataStream<T>, schema: Result<Schema>) -> Self {
        Self { stream, schema, key: PhantomData }
    }

    /// Turns each record into any number of others.
    pub fn flat_map<Out: Record, F: KeyedFlatMapFunction<T, Out>>(&self, function: F) -> DataStream<Out> {
        self.stream.function("Keyed Flat Map", Some(self.schema.clone()), KeyedFlatMap(function))
    }

    /// Turns each record into one other.
    pub fn map<Out: Record, F: KeyedMapFunction<T, Out>>(&self, function: F) -> DataStream<Out> {
        self.stream.function("Keyed Map", Some(self.schema.clone()), KeyedMap(function))
    }

    /// Keeps some of the records.
    pub fn filter<F: KeyedFilterFunction<T>>(&self, function: F) -> DataStream<T> {
        self.stream.function("Keyed Filter", Some(self.schema.clone()), KeyedFilter(function))
    }

    /// Combines all records of a key into one, and yields what came out so far after each record. The combination is
    /// kept in a value state.
    pub fn reduce<F>(&self, function: F) -> DataStream<T>
    where
        T: StateValue,
        F: Fn(T, T) -> T + Clone + Send + Sync + 'static,
    {
        self.stream.function("Keyed Reduce", Some(self.schema.clone()), Reduce::new(function))
    }
}

impl<K, T: Record> KeyedStream<K, T>
where
    K: ToOwned<Owned: Key> + ?Sized,
{
    /// Handles each record with state and timers for its key.
    pub fn process<Out: Record, F: KeyedProcessFunction<K::Owned, T, Out>>(&self, function: F) -> DataStream<Out> {
        self.stream.function("Keyed Process", Some(self.schema.clone()), KeyedProcess::new(function))
    }

    /// Puts a broadcast stream beside this one, for a function that handles both.
    pub fn connect<B: Record>(&self, broadcast: &BroadcastStream<B>) -> KeyedBroadcastConnectedStream<K::Owned, T, B> {
        KeyedBroadcastConnectedStream::new(self.stream.clone(), self.schema.clone(), broadcast.clone())
    }
}

/// The selector of `key_by`.
#[derive(Clone)]
pub(crate) struct KeyBy<F>(pub F);

impl<T, K, F> KeySelector<T> for KeyBy<F>
where
    K: Key,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
{
    type Key = K;

    #[inline]
    fn with_key<R>(&self, record: &T, use_key: impl FnOnce(&K) -> R) -> R {
        use_key(&(self.0)(record))
    }
}

/// The selector of `key_by_ref`.
pub(crate) struct KeyByRef<F, K: ?Sized> {
    selector: F,
    key: PhantomData<fn(&K)>,
}

impl<F, K: ?Sized> KeyByRef<F, K> {
    pub(crate) fn new(selector: F) -> Self {
        Self { selector, key: PhantomData }
    }
}

impl<F: Clone, K: ?Sized> Clone for KeyByRef<F, K> {
    fn clone(&self) -> Self {
        Self { selector: self.selector.clone(), key: PhantomData }
    }
}

impl<T, K, F> KeySelector<T> for KeyByRef<F, K>
where
    K: Serialize + ?Sized + 'static,
    F: for<'a> Fn(&'a T) -> &'a K + Clone + Send + Sync + 'static,
{
    type Key = K;

    #[inline]
    fn with_key<R>(&self, record: &T, use_key: impl FnOnce(&K) -> R) -> R {
        use_key((self.selector)(record))
    }
}
