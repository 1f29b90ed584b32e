//! Streams that are broadcast, and streams that are connected to them.

use std::{marker::PhantomData, ops::Deref};

use millrace_core::{Record, Result, key::Key, schema::Schema};

use super::DataStream;
use crate::{
    functions::{BroadcastProcessFunction, KeyedBroadcastProcessFunction},
    operators::{BroadcastProcess, KeyedBroadcastProcess},
};

/// A stream of which every subtask of the next operator gets all records. It is used as any other stream, or connected to
/// one that is dealt out.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct BroadcastStream<T>(DataStream<T>);

impl<T> BroadcastStream<T> {
    pub(super) fn new(stream: DataStream<T>) -> Self {
        Self(stream)
    }
}

impl<T> Clone for BroadcastStream<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for BroadcastStream<T> {
    type Target = DataStream<T>;

    fn deref(&self) -> &DataStream<T> {
        &self.0
    }
}

/// A stream with a broadcast stream beside it.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct BroadcastConnectedStream<T, B> {
    stream: DataStream<T>,
    broadcast: BroadcastStream<B>,
}

impl<T: Record, B: Record> BroadcastConnectedStream<T, B> {
    pub(super) fn new(stream: DataStream<T>, broadcast: BroadcastStream<B>) -> Self {
        Self { stream, broadcast }
    }

    /// Handles the records of both streams.
    pub fn process<Out: Record, F: BroadcastProcessFunction<T, B, Out>>(&self, function: F) -> DataStream<Out> {
        self.stream.with_broadcast(&self.broadcast, "Broadcast Process", None, BroadcastProcess::new(function))
    }
}

/// A keyed stream with a broadcast stream beside it.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct KeyedBroadcastConnectedStream<K, T, B> {
    stream: DataStream<T>,
    schema: Result<Schema>,
    broadcast: BroadcastStream<B>,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, T: Record, B: Record> KeyedBroadcastConnectedStream<K, T, B> {
    pub(super) fn new(stream: DataStream<T>, schema: Result<Schema>, broadcast: BroadcastStream<B>) -> Self {
        Self { stream, schema, broadcast, key: PhantomData }
    }

    /// Handles the records of both streams, with state and timers for the key of a keyed one.
    pub fn process<Out, F>(&self, function: F) -> DataStream<Out>
    where
        Out: Record,
        F: KeyedBroadcastProcessFunction<K, T, B, Out>,
    {
        let function = KeyedBroadcastProcess::<F, K, B>::new(function);
        let key = Some(self.schema.clone());
        self.stream.with_broadcast(&self.broadcast, "Keyed Broadcast Process", key, function)
    }
}
