//! Functions on two streams: one that is dealt out, and one that every subtask gets all of.

use std::{collections::HashMap, hash::Hash};

use millrace_core::{Error, FunctionResult, Record, Result, operator_state::BroadcastState};

use super::{Collector, KeyedContext, KeyedProcessContext, ProcessContext, RuntimeContext};
use crate::operators::CallContext;

/// Handles a stream together with a broadcast one, such as records and the rules that they are measured by. Every subtask
/// handles all that is broadcast and keeps it in broadcast state, which the other side can read.
///
/// ```
/// use millrace::prelude::*;
///
/// /// Lets records pass that are not below the limit of today.
/// #[derive(Clone, Default)]
/// struct Limit {
///     limit: ReadOnlyBroadcastState<(), i64>,
/// }
///
/// impl BroadcastProcessFunction<i64, i64, i64> for Limit {
///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
///         self.limit = context.broadcast_state("limit")?;
///         Ok(())
///     }
///
///     fn process_element(
///         &mut self,
///         record: i64,
///         _context: &ProcessContext<'_>,
///         out: &mut Collector<i64>,
///     ) -> FunctionResult {
///         if self.limit.get(&())?.is_none_or(|limit| record >= limit) {
///             out.collect(record);
///         }
///         Ok(())
///     }
///
///     fn process_broadcast_element(
///         &mut self,
///         limit: i64,
///         context: &BroadcastContext<'_>,
///         _out: &mut Collector<i64>,
///     ) -> FunctionResult {
///         context.broadcast_state(&self.limit)?.put((), limit);
///         Ok(())
///     }
/// }
///
/// let env = StreamExecutionEnvironment::new();
/// let limits = env.from_collection([10]).name("Source: limits");
/// env.from_collection([5, 15]).connect(&limits.broadcast()).process(Limit::default()).print();
/// env.execute("limits")?;
/// # Ok::<(), millrace::Error>(())
/// ```
pub trait BroadcastProcessFunction<In, B, Out>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Handles a record of the stream that is not broadcast.
    fn process_element(&mut self, record: In, context: &ProcessContext<'_>, out: &mut Collector<Out>)
    -> FunctionResult;

    /// Handles a record that is broadcast. Every subtask must change broadcast state in the same way.
    fn process_broadcast_element(
        &mut self,
        record: B,
        context: &BroadcastContext<'_>,
        out: &mut Collector<Out>,
    ) -> FunctionResult;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// As [`BroadcastProcessFunction`], for a keyed stream: with state and timers for each key.
pub trait KeyedBroadcastProcessFunction<K, In, B, Out>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut KeyedContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Handles a record of the keyed stream.
    fn process_element(
        &mut self,
        record: In,
        context: &KeyedProcessContext<'_, K>,
        out: &mut Collector<Out>,
    ) -> FunctionResult;

    /// Handles a record that is broadcast. Every subtask must change broadcast state in the same way. There is no current
    /// key, and so no keyed state.
    fn process_broadcast_element(
        &mut self,
        record: B,
        context: &BroadcastContext<'_>,
        out: &mut Collector<Out>,
    ) -> FunctionResult;

    /// A timer fires, as in [`KeyedProcessFunction`](crate::KeyedProcessFunction).
    fn on_timer(
        &mut self,
        _timestamp: u64,
        _context: &KeyedProcessContext<'_, K>,
        _out: &mut Collector<Out>,
    ) -> FunctionResult {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// What a function may use while it handles what is broadcast.
pub struct BroadcastContext<'a>(CallContext<'a>);

impl<'a> BroadcastContext<'a> {
    pub(crate) fn new(context: CallContext<'a>) -> Self {
        Self(context)
    }

    /// The state, to be changed.
    pub fn broadcast_state<K: Record + Eq + Hash, V: Record>(
        &self,
        state: &ReadOnlyBroadcastState<K, V>,
    ) -> Result<BroadcastState<K, V>> {
        state.state().cloned()
    }

    /// The time now, in milliseconds since the epoch.
    pub fn current_processing_time(&self) -> u64 {
        self.0.clock.now()
    }
}

/// A map of which every subtask has the same copy, to be read anywhere. It is obtained in `open`, and changed through
/// [`BroadcastContext::broadcast_state`].
pub struct ReadOnlyBroadcastState<K, V>(Option<BroadcastState<K, V>>);

impl<K, V> Clone for ReadOnlyBroadcastState<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for ReadOnlyBroadcastState<K, V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Record + Eq + Hash, V: Record> ReadOnlyBroadcastState<K, V> {
    pub(super) fn new(state: BroadcastState<K, V>) -> Self {
        Self(Some(state))
    }

    /// A copy of the value of an entry.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        Ok(self.state()?.get(key))
    }

    /// Whether there is an entry.
    pub fn contains(&self, key: &K) -> Result<bool> {
        Ok(self.state()?.contains(key))
    }

    /// Hands all entries to `read`, without a copy. The state must not be used inside.
    pub fn with<R>(&self, read: impl FnOnce(&HashMap<K, V>) -> R) -> Result<R> {
        Ok(self.state()?.with(read))
    }

    fn state(&self) -> Result<&BroadcastState<K, V>> {
        self.0.as_ref().ok_or_else(|| {
            Error::invalid(
                "broadcast state was used before it was obtained: ask the runtime context for it in `open` and keep \
                 what it returns",
            )
        })
    }
}
