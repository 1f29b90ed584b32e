//! Functions behind a `key_by`: their context gives keyed state as well. Whatever state they touch while a record is
//! handled is the state of that record's key.

use millrace_core::FunctionResult;

use super::{Collector, FlatMapReturn, KeyedContext};

/// Turns one record into any number of others, with the state of the record's key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no flat-map function for a keyed stream of `{In}`",
    note = "implement `KeyedFlatMapFunction<{In}, _>`, or pass a closure with annotated parameters: \
            `|record: {In}, out: &mut Collector<_>| ...`"
)]
pub trait KeyedFlatMapFunction<In, Out>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut KeyedContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Handles a record; results go to `out`.
    fn flat_map(&mut self, record: In, out: &mut Collector<Out>) -> FunctionResult;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// Turns one record into one other, with the state of the record's key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no map function for a keyed stream of `{In}`",
    note = "implement `KeyedMapFunction<{In}, _>`, or pass a closure with an annotated parameter: `|record: {In}| ...`"
)]
pub trait KeyedMapFunction<In, Out>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut KeyedContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Maps a record.
    fn map(&mut self, record: In) -> FunctionResult<Out>;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// Decides which records go on, with the state of the record's key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no filter function for a keyed stream of `{T}`",
    note = "implement `KeyedFilterFunction<{T}>`, or pass a closure with an annotated parameter: `|record: &{T}| ...`"
)]
pub trait KeyedFilterFunction<T>: Clone + Send + 'static {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, _context: &mut KeyedContext<'_>) -> FunctionResult {
        Ok(())
    }

    /// Whether the record goes on.
    fn filter(&mut self, record: &T) -> FunctionResult<bool>;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

impl<F, In, Out, R> KeyedFlatMapFunction<In, Out> for F
where
    F: Fn(In, &mut Collector<Out>) -> R + Clone + Send + Sync + 'static,
    R: FlatMapReturn,
{
    #[inline]
    fn flat_map(&mut self, record: In, out: &mut Collector<Out>) -> FunctionResult {
        self(record, out).into_result()
    }
}

impl<F, In, Out> KeyedMapFunction<In, Out> for F
where
    F: Fn(In) -> Out + Clone + Send + Sync + 'static,
{
    #[inline]
    fn map(&mut self, record: In) -> FunctionResult<Out> {
        Ok(self(record))
    }
}

impl<F, T> KeyedFilterFunction<T> for F
where
    F: Fn(&T) -> bool + Clone + Send + Sync + 'static,
{
    #[inline]
    fn filter(&mut self, record: &T) -> FunctionResult<bool> {
        Ok(self(record))
    }
}
