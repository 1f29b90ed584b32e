//! Each kind of user function in the one form that [`super::function`] calls.

use millrace_core::{BoxError, FunctionResult, Record};
use millrace_state::{StateValue, ValueState};

use super::function::{CallContext, OpenContext, RecordFunction};
use crate::functions::{
    Collector, FilterFunction, FlatMapFunction, KeyedFilterFunction, KeyedFlatMapFunction, KeyedMapFunction,
    MapFunction,
};

/// A [`MapFunction`].
#[derive(Clone)]
pub(crate) struct Map<F>(pub F);

impl<F: MapFunction<In, Out>, In: Record, Out: Record> RecordFunction<In, Out> for Map<F> {
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.0.open(&mut context.runtime())
    }

    #[inline]
    fn call(&mut self, record: In, _context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        out.collect(self.0.map(record)?);
        Ok(())
    }

    fn close(&mut self) -> FunctionResult {
        self.0.close()
    }
}

/// A closure of `try_map`.
#[derive(Clone)]
pub(crate) struct TryMap<F>(pub F);

impl<F, In, Out, E> RecordFunction<In, Out> for TryMap<F>
where
    F: Fn(In) -> Result<Out, E> + Clone + Send + Sync + 'static,
    E: Into<BoxError>,
{
    fn open(&mut self, _context: OpenContext<'_>) -> FunctionResult {
        Ok(())
    }

    #[inline]
    fn call(&mut self, record: In, _context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        out.collect(self.0(record).map_err(Into::into)?);
        Ok(())
    }

    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}

/// A [`FlatMapFunction`].
#[derive(Clone)]
pub(crate) struct FlatMap<F>(pub F);

impl<F: FlatMapFunction<In, Out>, In: Record, Out: Record> RecordFunction<In, Out> for FlatMap<F> {
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.0.open(&mut context.runtime())
    }

    #[inline]
    fn call(&mut self, record: In, _context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        self.0.flat_map(record, out)
    }

    fn close(&mut self) -> FunctionResult {
        self.0.close()
    }
}

/// A [`FilterFunction`].
#[derive(Clone)]
pub(crate) struct Filter<F>(pub F);

impl<F: FilterFunction<T>, T: Record> RecordFunction<T, T> for Filter<F> {
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.0.open(&mut context.runtime())
    }

    #[inline]
    fn call(&mut self, record: T, _context: CallContext<'_>, out: &mut Collector<T>) -> FunctionResult {
        if self.0.filter(&record)? {
            out.collect(record);
        }
        Ok(())
    }

    fn close(&mut self) -> FunctionResult {
        self.0.close()
    }
}

/// A [`KeyedMapFunction`].
#[derive(Clone)]
pub(crate) struct KeyedMap<F>(pub F);

impl<F: KeyedMapFunction<In, Out>, In: Record, Out: Record> RecordFunction<In, Out> for KeyedMap<F> {
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.0.open(&mut context.keyed()?)
    }

    #[inline]
    fn call(&mut self, record: In, _context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        out.collect(self.0.map(record)?);
        Ok(())
    }

    fn close(&mut self) -> FunctionResult {
        self.0.close()
    }
}

/// A [`KeyedFlatMapFunction`].
#[derive(Clone)]
pub(crate) struct KeyedFlatMap<F>(pub F);

impl<F: KeyedFlatMapFunction<In, Out>, In: Record, Out: Record> RecordFunction<In, Out> for KeyedFlatMap<F> {
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.0.open(&mut context.keyed()?)
    }

    #[inline]
    fn call(&mut self, record: In, _context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        self.0.flat_map(record, out)
    }

    fn close(&mut self) -> FunctionResult {
        self.0.close()
    }
}

/// A [`KeyedFilterFunction`].
#[derive(Clone)]
pub(crate) struct KeyedFilter<F>(pub F);

impl<F: KeyedFilterFunction<T>, T: Record> RecordFunction<T, T> for KeyedFilter<F> {
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.0.open(&mut context.keyed()?)
    }

    #[inline]
    fn call(&mut self, record: T, _context: CallContext<'_>, out: &mut Collector<T>) -> FunctionResult {
        if self.0.filter(&record)? {
            out.collect(record);
        }
        Ok(())
    }

    fn close(&mut self) -> FunctionResult {
        self.0.close()
    }
}

/// A closure of `reduce`, with the accumulator of each key in a value state.
#[derive(Clone)]
pub(crate) struct Reduce<F, T: StateValue> {
    function: F,
    accumulator: ValueState<Option<T>>,
}

impl<F, T: StateValue> Reduce<F, T> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, accumulator: ValueState::default() }
    }
}

impl<F, T> RecordFunction<T, T> for Reduce<F, T>
where
    F: Fn(T, T) -> T + Clone + Send + Sync + 'static,
    T: StateValue,
{
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.accumulator = context.keyed()?.value_state("reduce", None)?;
        Ok(())
    }

    #[inline]
    fn call(&mut self, record: T, _context: CallContext<'_>, out: &mut Collector<T>) -> FunctionResult {
        let reduced = self.accumulator.modify(|accumulator| {
            let reduced = match accumulator.take() {
                Some(so_far) => (self.function)(so_far, record),
                None => record,
            };
            *accumulator = Some(reduced.clone());
            reduced
        })?;
        out.collect(reduced);
        Ok(())
    }

    fn close(&mut self) -> FunctionResult {
        Ok(())
    }
}
