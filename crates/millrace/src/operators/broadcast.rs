//! The operator of a function on a stream and a broadcast one.

use std::{
    marker::PhantomData,
    sync::{Mutex, PoisonError},
};

use millrace_core::{
    Batch, Error, FunctionResult, Record, RecordBatch, Result,
    ids::InputId,
    key::{Key, KeyColumn},
};
use millrace_runtime::operator::{Operator, OperatorContext, OperatorFactory, Output};

use super::function::{
    CallContext, OpenContext, RecordFunction, Services, emit, fire_timers, for_each, guarded, not_open,
};
use crate::{
    functions::{
        BroadcastContext, BroadcastProcessFunction, Collector, KeyedBroadcastProcessFunction, KeyedProcessContext,
        ProcessContext,
    },
    plan::BROADCAST_INPUT,
};

/// A function that also handles what is broadcast.
pub(crate) trait BroadcastFunction<In, B, Out>: RecordFunction<In, Out> {
    /// Handles a record that is broadcast.
    fn call_broadcast(&mut self, record: B, context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult;
}

/// A [`BroadcastProcessFunction`].
pub(crate) struct BroadcastProcess<F, B> {
    function: F,
    types: PhantomData<fn(B)>,
}

impl<F, B> BroadcastProcess<F, B> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, types: PhantomData }
    }
}

impl<F: Clone, B> Clone for BroadcastProcess<F, B> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<F, In, B, Out> RecordFunction<In, Out> for BroadcastProcess<F, B>
where
    F: BroadcastProcessFunction<In, B, Out>,
    B: Record,
{
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult {
        self.function.open(&mut context.runtime())
    }

    #[inline]
    fn call(&mut self, record: In, context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        self.function.process_element(record, &ProcessContext::new(context), out)
    }

    fn close(&mut self) -> FunctionResult {
        self.function.close()
    }
}

impl<F, In, B, Out> BroadcastFunction<In, B, Out> for BroadcastProcess<F, B>
where
    F: BroadcastProcessFunction<In, B, Out>,
    B: Record,
{
    fn call_broadcast(&mut self, record: B, context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        self.function.process_broadcast_element(record, &BroadcastContext::new(context), out)
    }
}

/// A [`KeyedBroadcastProcessFunction`].
pub(crate) struct KeyedBroadcastProcess<F, K, B> {
    function: F,
    types: PhantomData<fn(K, B)>,
}

impl<F, K, B> KeyedBroadcastProcess<F, K, B> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, types: PhantomData }
    }
}

impl<F: Clone, K, B> Clone for KeyedBroadcastProcess<F, K, B> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<F, K, In, B, Out> RecordFunction<In, Out> for KeyedBroadcastProcess<F, K, B>
where
    F: KeyedBroadcastProcessFunction<K, In, B, Out>,
    K: Key,
    B: Record,
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

impl<F, K, In, B, Out> BroadcastFunction<In, B, Out> for KeyedBroadcastProcess<F, K, B>
where
    F: KeyedBroadcastProcessFunction<K, In, B, Out>,
    K: Key,
    B: Record,
{
    fn call_broadcast(&mut self, record: B, context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult {
        self.function.process_broadcast_element(record, &BroadcastContext::new(context), out)
    }
}

/// Makes the operators of one function: each gets a clone.
pub(crate) struct BroadcastFactory<F, In, B, Out> {
    /// Behind a mutex, so that functions need not be `Sync`.
    prototype: Mutex<F>,
    types: PhantomData<fn(In, B) -> Out>,
}

impl<F, In, B, Out> BroadcastFactory<F, In, B, Out> {
    pub(crate) fn new(function: F) -> Self {
        Self { prototype: Mutex::new(function), types: PhantomData }
    }
}

impl<F, In, B, Out> OperatorFactory for BroadcastFactory<F, In, B, Out>
where
    F: BroadcastFunction<In, B, Out>,
    In: Record,
    B: Record,
    Out: Record,
{
    fn create(&self) -> Box<dyn Operator> {
        let function = self.prototype.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::new(BroadcastOperator::<F, In, B, Out> { function, services: None, opened: false, types: PhantomData })
    }
}

struct BroadcastOperator<F, In, B, Out> {
    function: F,
    services: Option<Services>,
    opened: bool,
    types: PhantomData<fn(In, B) -> Out>,
}

impl<F, In, B, Out> Operator for BroadcastOperator<F, In, B, Out>
where
    F: BroadcastFunction<In, B, Out>,
    In: Record,
    B: Record,
    Out: Record,
{
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        self.opened = true;
        self.services = Some(Services::open(context, |open| self.function.open(open))?);
        Ok(())
    }

    fn process(&mut self, input: InputId, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let services = self.services.as_ref().ok_or_else(not_open)?;
        let (function, mut collector) = (&mut self.function, Collector::with_capacity(0));
        if input != BROADCAST_INPUT {
            let RecordBatch { records, keys, origin } = batch.into_typed::<In>()?;
            for_each(services, records, keys, |record, context| function.call(record, context, &mut collector))?;
            return emit(collector, origin, out);
        }
        let RecordBatch { records, origin, .. } = batch.into_typed::<B>()?;
        if let Some(state) = &services.keyed_state {
            // No record of the keyed stream is being processed: there is no current key.
            state.begin_batch(KeyColumn::default());
        }
        let context = CallContext::new(services);
        guarded("broadcast record", records.len(), |index| {
            for (at, record) in records.into_iter().enumerate() {
                *index = at;
                function.call_broadcast(record, context, &mut collector)?;
            }
            Ok(())
        })?;
        emit(collector, origin, out)
    }

    fn on_processing_time(&mut self, now: u64, out: &mut dyn Output) -> Result<()> {
        let services = self.services.as_ref().ok_or_else(not_open)?;
        let (function, mut collector) = (&mut self.function, Collector::with_capacity(0));
        fire_timers(services, now, |time, context| function.on_timer(time, context, &mut collector))?;
        emit(collector, None, out)
    }

    fn close(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.opened) {
            return Ok(());
        }
        self.function.close().map_err(|error| Error::from_function(error).context("close"))
    }
}
