//! Process functions in the form that [`super::function`] calls.

use std::marker::PhantomData;

use millrace_core::{FunctionResult, Record, key::Key};

use super::function::{CallContext, OpenContext, RecordFunction};
use crate::functions::{Collector, KeyedProcessContext, KeyedProcessFunction, ProcessContext, ProcessFunction};

/// A [`ProcessFunction`].
#[derive(Clone)]
pub(crate) struct Process<F>(pub F);

impl<F: ProcessFunction<In, Out>, In: Record, Out: Record> RecordFunction<In, Out> for Process<F> {
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.0.open(&mut context.runtime())
    }

    #[inline]
    fn call(&mut self, record: In, context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        self.0.process_element(record, &ProcessContext::new(context), out)
    }

    fn close(&mut self) -> FunctionResult {
        self.0.close()
    }
}

/// A [`KeyedProcessFunction`].
pub(crate) struct KeyedProcess<F, K> {
    function: F,
    key: PhantomData<fn() -> K>,
}

impl<F, K> KeyedProcess<F, K> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, key: PhantomData }
    }
}

impl<F: Clone, K> Clone for KeyedProcess<F, K> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<F, K, In, Out> RecordFunction<In, Out> for KeyedProcess<F, K>
where
    F: KeyedProcessFunction<K, In, Out>,
    K: Key,
    In: Record,
    Out: Record,
{
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        let mut context = context.keyed()?;
        context.enable_timers()?;
        self.function.open(&mut context)
    }

    #[inline]
    fn call(&mut self, record: In, context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        self.function.process_element(record, &KeyedProcessContext::new(context)?, out)
    }

    fn on_timer(&mut self, time: u64, context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        self.function.on_timer(time, &KeyedProcessContext::new(context)?, out)
    }

    fn close(&mut self) -> FunctionResult {
        self.function.close()
    }
}
