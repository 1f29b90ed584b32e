//! User functions: closures, or types with `open` and `close`.
//!
//! A function is cloned for every subtask and called on the subtask's thread alone. A closure can't change what it
//! captures (it is `Fn`): such a change would be in no checkpoint. A type's methods take `&mut self`, for handles and
//! caches; what must survive a failure belongs into state, which `open` obtains from its context.

mod broadcast;
mod collector;
mod context;
mod keyed;
mod metrics;
mod process;

pub use broadcast::{
    BroadcastContext, BroadcastProcessFunction, KeyedBroadcastProcessFunction, ReadOnlyBroadcastState,
};
pub use collector::Collector;
pub use context::{KeyedContext, RuntimeContext};
pub use keyed::{KeyedFilterFunction, KeyedFlatMapFunction, KeyedMapFunction};
pub use metrics::{Counter, Gauge, MetricGroup};
pub use process::{KeyedProcessContext, KeyedProcessFunction, ProcessContext, ProcessFunction, TimerService};

use millrace_core::{BoxError, FunctionResult};

/// Turns one record into one other.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no map function for a stream of `{In}`",
    note = "implement `MapFunction<{In}, _>`, or pass a closure `Fn({In}) -> _` to `map` (`try_map` if it may fail)",
    note = "a function with keyed state (`KeyedMapFunction`) needs a `key_by` before it"
)]
pub trait MapFunction<In, Out>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Maps a record.
    fn map(&mut self, record: In) -> FunctionResult<Out>;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// Turns one record into any number of others.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no flat-map function for a stream of `{In}`",
    note = "implement `FlatMapFunction<{In}, _>`, or pass a closure `Fn({In}, &mut Collector<_>)` to `flat_map`",
    note = "a function with keyed state (`KeyedFlatMapFunction`) needs a `key_by` before it"
)]
pub trait FlatMapFunction<In, Out>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Handles a record; results go to `out`.
    fn flat_map(&mut self, record: In, out: &mut Collector<Out>) -> FunctionResult;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// Decides which records go on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no filter function for a stream of `{T}`",
    note = "implement `FilterFunction<{T}>`, or pass a closure `Fn(&{T}) -> bool` to `filter`",
    note = "a function with keyed state (`KeyedFilterFunction`) needs a `key_by` before it"
)]
pub trait FilterFunction<T>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Whether the record goes on.
    fn filter(&mut self, record: &T) -> FunctionResult<bool>;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// What a closure for `flat_map` may return: nothing, or a result.
pub trait FlatMapReturn {
    /// As a result.
    fn into_result(self) -> FunctionResult;
}

impl FlatMapReturn for () {
    fn into_result(self) -> FunctionResult {
        Ok(())
    }
}

impl FlatMapReturn for Result<(), BoxError> {
    fn into_result(self) -> FunctionResult {
        self
    }
}

impl<F, In, Out> MapFunction<In, Out> for F
where
    F: Fn(In) -> Out + Clone + Send + Sync + 'static,
{
    #[inline]
    fn map(&mut self, record: In) -> FunctionResult<Out> {
        Ok(self(record))
    }
}

impl<F, In, Out, R> FlatMapFunction<In, Out> for F
where
    F: Fn(In, &mut Collector<Out>) -> R + Clone + Send + Sync + 'static,
    R: FlatMapReturn,
{
    #[inline]
    fn flat_map(&mut self, record: In, out: &mut Collector<Out>) -> FunctionResult {
        self(record, out).into_result()
    }
}

impl<F, T> FilterFunction<T> for F
where
    F: Fn(&T) -> bool + Clone + Send + Sync + 'static,
{
    #[inline]
    fn filter(&mut self, record: &T) -> FunctionResult<bool> {
        Ok(self(record))
    }
}
