//! The operator of a user function.

use std::{
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use millrace_core::{
    Batch, BoxError, Error, FunctionResult, Record, RecordBatch, Result,
    clock::Clock,
    ids::{InputId, OutputId},
    key::KeyColumn,
};
use millrace_runtime::operator::{Operator, OperatorContext, OperatorFactory, Output};
use millrace_state::KeyedStateStore;

use crate::functions::{Collector, KeyedContext, MetricGroup, RuntimeContext};

/// The one output of these operators.
const OUTPUT: OutputId = OutputId(0);

/// A user function of any kind, brought to one form.
pub(crate) trait RecordFunction<In, Out>: Clone + Send + 'static {
    /// Opens the user's function.
    fn open(&mut self, context: OpenContext<'_>) -> FunctionResult;

    /// Handles one record.
    fn call(&mut self, record: In, context: CallContext<'_>, out: &mut Collector<Out>) -> FunctionResult;

    /// Handles a timer of the current key.
    fn on_timer(&mut self, _time: u64, _context: CallContext<'_>, _out: &mut Collector<Out>) -> FunctionResult {
        Ok(())
    }

    /// Closes the user's function.
    fn close(&mut self) -> FunctionResult;
}

/// What a function may use while it handles a record or a timer.
#[derive(Clone, Copy)]
pub(crate) struct CallContext<'a> {
    pub(crate) clock: &'a Clock,
    keyed_state: Option<&'a KeyedStateStore>,
}

impl<'a> CallContext<'a> {
    pub(crate) fn new(services: &'a Services) -> Self {
        Self { clock: &services.clock, keyed_state: services.keyed_state.as_ref() }
    }

    /// The keyed state, of a function behind a `key_by`.
    pub(crate) fn keyed(&self) -> Result<&'a KeyedStateStore> {
        self.keyed_state.ok_or_else(without_keyed_state)
    }
}

fn without_keyed_state() -> Error {
    Error::internal("a keyed operator was opened without keyed state").fatal()
}

/// What an operator keeps of its context.
pub(crate) struct Services {
    pub(crate) keyed_state: Option<KeyedStateStore>,
    clock: Clock,
    /// Kept so that the metrics stay registered as long as the operator lives.
    _metrics: MetricGroup,
}

impl Services {
    /// Opens a function with the operator's context.
    pub(crate) fn open(
        context: &mut OperatorContext,
        open: impl FnOnce(OpenContext<'_>) -> FunctionResult,
    ) -> Result<Self> {
        let mut metrics = MetricGroup::new(context);
        let (keyed_state, clock) = (context.keyed_state.clone(), context.clock.clone());
        let runtime = RuntimeContext::new(context, &mut metrics);
        open(OpenContext { runtime, keyed_state: keyed_state.clone() })
            .map_err(|error| Error::from_function(error).context("open"))?;
        Ok(Self { keyed_state, clock, _metrics: metrics })
    }
}

/// What a function may be opened with.
pub(crate) struct OpenContext<'a> {
    runtime: RuntimeContext<'a>,
    keyed_state: Option<KeyedStateStore>,
}

impl<'a> OpenContext<'a> {
    /// For a function that stands anywhere.
    pub(crate) fn runtime(self) -> RuntimeContext<'a> {
        self.runtime
    }

    /// For a function behind a `key_by`.
    pub(crate) fn keyed(self) -> Result<KeyedContext<'a>> {
        Ok(KeyedContext::new(self.runtime, self.keyed_state.ok_or_else(without_keyed_state)?))
    }
}

/// Makes the operators of one function: each gets a clone.
pub(crate) struct FunctionFactory<F, In, Out> {
    /// Behind a mutex, so that functions need not be `Sync`.
    prototype: Mutex<F>,
    types: PhantomData<fn(In) -> Out>,
}

impl<F, In, Out> FunctionFactory<F, In, Out> {
    pub(crate) fn new(function: F) -> Self {
        Self { prototype: Mutex::new(function), types: PhantomData }
    }
}

impl<F: RecordFunction<In, Out>, In: Record, Out: Record> OperatorFactory for FunctionFactory<F, In, Out> {
    fn create(&self) -> Box<dyn Operator> {
        let function = self.prototype.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::new(FunctionOperator::<F, In, Out> {
            function,
            services: None,
            results: 0,
            opened: false,
            types: PhantomData,
        })
    }
}

/// Calls a function for each record of a batch.
struct FunctionOperator<F, In, Out> {
    function: F,
    services: Option<Services>,
    /// How many results the last batch had: the next is likely to have as many.
    results: usize,
    opened: bool,
    types: PhantomData<fn(In) -> Out>,
}

/// The most timers that fire in one call, so that barriers never wait long.
const TIMERS_AT_ONCE: usize = 1024;

/// An operator was used before it was opened.
pub(crate) fn not_open() -> Error {
    Error::internal("an operator was used before it was opened")
}

/// Runs user code for the `count` things of a batch. An error or a panic is told with the place in the batch that it
/// came to; the task adds the operator and where the batch was read.
pub(crate) fn guarded(what: &str, count: usize, run: impl FnOnce(&mut usize) -> Result<(), BoxError>) -> Result<()> {
    let mut index = 0;
    // Nothing is used after a panic: the task fails.
    let error = match catch_unwind(AssertUnwindSafe(|| run(&mut index))) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => Error::from_function(error),
        Err(panic) => Error::from_panic(&*panic),
    };
    Err(error.context(format_args!("{what} {} of {count}", index + 1)))
}

/// Calls `call` for each record, with its key as the current one where there is keyed state.
pub(crate) fn for_each<In>(
    services: &Services,
    records: Vec<In>,
    keys: Option<KeyColumn>,
    mut call: impl FnMut(In, CallContext<'_>) -> FunctionResult,
) -> Result<()> {
    let context = CallContext::new(services);
    guarded("record", records.len(), |index| {
        let Some(state) = &services.keyed_state else {
            for (at, record) in records.into_iter().enumerate() {
                *index = at;
                call(record, context)?;
            }
            return Ok(());
        };
        let keys = keys.filter(|keys| keys.len() == records.len());
        let missing = || Error::internal("a keyed operator was given a batch without keys").fatal();
        state.begin_batch(keys.ok_or_else(missing)?);
        for (at, record) in records.into_iter().enumerate() {
            *index = at;
            state.select(at);
            call(record, context)?;
        }
        state.end_batch();
        Ok(())
    })
}

/// Calls `fire` for each timer that is due, with its key as the current one.
pub(crate) fn fire_timers(
    services: &Services,
    now: u64,
    mut fire: impl FnMut(u64, CallContext<'_>) -> FunctionResult,
) -> Result<()> {
    let Some(state) = &services.keyed_state else { return Ok(()) };
    let due = state.due_timers(now, TIMERS_AT_ONCE)?;
    let context = CallContext::new(services);
    guarded("timer", due.times.len(), |index| {
        state.begin_batch(due.keys);
        for (at, time) in due.times.into_iter().enumerate() {
            *index = at;
            state.select(at);
            // One before it may have deleted it.
            if state.take_timer(time)? {
                fire(time, context)?;
            }
        }
        state.end_batch();
        Ok(())
    })
}

/// Hands on what was collected.
pub(crate) fn emit<Out: Record>(
    collector: Collector<Out>,
    origin: Option<Arc<str>>,
    out: &mut dyn Output,
) -> Result<()> {
    let records = collector.into_records();
    if records.is_empty() {
        return Ok(());
    }
    out.emit(OUTPUT, Batch::new(RecordBatch::new(records, origin)))
}

impl<F: RecordFunction<In, Out>, In: Record, Out: Record> Operator for FunctionOperator<F, In, Out> {
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        self.opened = true;
        self.services = Some(Services::open(context, |open| self.function.open(open))?);
        Ok(())
    }

    fn process(&mut self, _input: InputId, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let RecordBatch { records, keys, origin } = batch.into_typed::<In>()?;
        let services = self.services.as_ref().ok_or_else(not_open)?;
        let mut collector = Collector::with_capacity(self.results);
        let function = &mut self.function;
        for_each(services, records, keys, |record, context| function.call(record, context, &mut collector))?;
        self.results = collector.len();
        emit(collector, origin, out)
    }

    fn on_processing_time(&mut self, now: u64, out: &mut dyn Output) -> Result<()> {
        let services = self.services.as_ref().ok_or_else(not_open)?;
        let mut collector = Collector::with_capacity(0);
        let function = &mut self.function;
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
