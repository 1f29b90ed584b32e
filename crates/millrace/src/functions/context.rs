//! What a function is told and given when it is opened.

use std::{
    hash::Hash,
    ops::{Deref, DerefMut},
};

use millrace_core::{Record, Result, operator_state::OperatorStateStore};
use millrace_runtime::operator::OperatorContext;
use millrace_state::{
    AggregateFunction, AggregatingState, KeyedStateStore, ListState, MapState, ReduceFunction, ReducingState,
    StateTtlConfig, StateValue, ValueState,
};

use super::{MetricGroup, ReadOnlyBroadcastState};

/// The runtime context of a function: which subtask it is, its operator state, its metrics.
///
/// ```
/// use millrace::prelude::*;
///
/// /// Drops every record that its subtask has seen before, also across failures.
/// #[derive(Clone, Default)]
/// struct Once {
///     seen: Option<OperatorListState<i64>>,
///     dropped: Counter,
/// }
///
/// impl FilterFunction<i64> for Once {
///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
///         self.seen = Some(context.operator_state().list("seen")?);
///         self.dropped = context.metrics().counter("dropped")?;
///         Ok(())
///     }
///
///     fn filter(&mut self, record: &i64) -> FunctionResult<bool> {
///         let seen = self.seen.as_ref().ok_or("not open")?;
///         let new = !seen.get().contains(record);
///         if new {
///             seen.add(*record);
///         } else {
///             self.dropped.inc();
///         }
///         Ok(new)
///     }
/// }
///
/// let env = StreamExecutionEnvironment::new();
/// env.from_collection([1, 2, 1]).filter_with(Once::default()).print();
/// env.execute("once")?;
/// # Ok::<(), millrace::Error>(())
/// ```
pub struct RuntimeContext<'a> {
    operator: &'a mut OperatorContext,
    metrics: &'a mut MetricGroup,
}

impl<'a> RuntimeContext<'a> {
    pub(crate) fn new(operator: &'a mut OperatorContext, metrics: &'a mut MetricGroup) -> Self {
        Self { operator, metrics }
    }

    /// The index of this subtask, from 0.
    pub fn index_of_this_subtask(&self) -> u32 {
        self.operator.subtask
    }

    /// How many subtasks the operator has.
    pub fn number_of_parallel_subtasks(&self) -> u32 {
        self.operator.parallelism
    }

    /// The operator's name.
    pub fn operator_name(&self) -> &str {
        &self.operator.name
    }

    /// The operator's uid.
    pub fn operator_uid(&self) -> &str {
        &self.operator.uid.0
    }

    /// State that belongs to the subtask rather than to a key: lists whose items are dealt out again (`list`), or
    /// given to every subtask (`union_list`), when the parallelism changes.
    pub fn operator_state(&mut self) -> &mut OperatorStateStore {
        &mut self.operator.operator_state
    }

    /// Broadcast state: a map of which every subtask has the same copy. It is changed where a function handles what is
    /// broadcast, see [`BroadcastProcessFunction`](crate::BroadcastProcessFunction).
    pub fn broadcast_state<K, V>(&mut self, name: &str) -> Result<ReadOnlyBroadcastState<K, V>>
    where
        K: Record + Eq + Hash,
        V: Record,
    {
        Ok(ReadOnlyBroadcastState::new(self.operator.operator_state.broadcast(name)?))
    }

    /// The function's own metrics.
    pub fn metrics(&mut self) -> &mut MetricGroup {
        self.metrics
    }
}

/// The context of a function behind a `key_by`: a [`RuntimeContext`] that gives keyed state as well.
pub struct KeyedContext<'a> {
    runtime: RuntimeContext<'a>,
    state: KeyedStateStore,
}

impl<'a> KeyedContext<'a> {
    pub(crate) fn new(runtime: RuntimeContext<'a>, state: KeyedStateStore) -> Self {
        Self { runtime, state }
    }

    /// The same context: states that are obtained through it have this time to live.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millrace::prelude::*;
    ///
    /// /// Lets each record pass once an hour.
    /// #[derive(Clone, Default)]
    /// struct OnceAnHour {
    ///     seen: ValueState<bool>,
    /// }
    ///
    /// impl KeyedFilterFunction<i64> for OnceAnHour {
    ///     fn open(&mut self, context: &mut KeyedContext<'_>) -> FunctionResult {
    ///         let hour = StateTtlConfig::new(Duration::from_secs(3600));
    ///         self.seen = context.with_ttl(hour).value_state("seen", false)?;
    ///         Ok(())
    ///     }
    ///
    ///     fn filter(&mut self, _record: &i64) -> FunctionResult<bool> {
    ///         let seen = self.seen.get()?;
    ///         if !seen {
    ///             self.seen.set(true)?;
    ///         }
    ///         Ok(!seen)
    ///     }
    /// }
    ///
    /// let env = StreamExecutionEnvironment::new();
    /// env.from_collection([1, 2, 1]).key_by(|number| *number).filter(OnceAnHour::default()).print();
    /// env.execute("once an hour")?;
    /// # Ok::<(), millrace::Error>(())
    /// ```
    pub fn with_ttl(&mut self, ttl: StateTtlConfig) -> KeyedContext<'_> {
        let runtime = RuntimeContext { operator: &mut *self.runtime.operator, metrics: &mut *self.runtime.metrics };
        KeyedContext { runtime, state: self.state.with_ttl(ttl) }
    }

    /// A value for each key; `default` where a key has none yet.
    pub fn value_state<T: StateValue>(&mut self, name: &str, default: T) -> Result<ValueState<T>> {
        self.state.value(name, default)
    }

    /// A list for each key.
    pub fn list_state<T: StateValue>(&mut self, name: &str) -> Result<ListState<T>> {
        self.state.list(name)
    }

    /// A map for each key.
    pub fn map_state<K, V>(&mut self, name: &str) -> Result<MapState<K, V>>
    where
        K: StateValue + Eq + Hash,
        V: StateValue,
    {
        self.state.map(name)
    }

    /// One value for each key, into which `function` reduces all that is added.
    pub fn reducing_state<T: StateValue>(
        &mut self,
        name: &str,
        function: ReduceFunction<T>,
    ) -> Result<ReducingState<T>> {
        self.state.reducing(name, function)
    }

    /// An accumulator for each key, in which `function` aggregates all that is added.
    pub fn aggregating_state<A: AggregateFunction>(&mut self, name: &str, function: A) -> Result<AggregatingState<A>> {
        self.state.aggregating(name, function)
    }

    /// Lets the function have timers.
    pub(crate) fn enable_timers(&self) -> Result<()> {
        self.state.enable_timers()
    }
}

impl<'a> Deref for KeyedContext<'a> {
    type Target = RuntimeContext<'a>;

    fn deref(&self) -> &Self::Target {
        &self.runtime
    }
}

impl DerefMut for KeyedContext<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.runtime
    }
}
