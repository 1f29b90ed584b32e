//! The operator of a user function.

use std::{
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use millrace_core::{
    Batch, BoxError, Error, FunctionResult, Record, RecordBatch, Result,
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
    fn call(&mut self, record: In, out: &mut Collector<Out>) -> FunctionResult;

    /// Closes the user's function.
    fn close(&mut self) -> FunctionResult;
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
        let missing = || Error::internal("a keyed operator was opened without keyed state").fatal();
        Ok(KeyedContext::new(self.runtime, self.keyed_state.ok_or_else(missing)?))
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
            keyed_state: None,
            metrics: None,
            results: 0,
            opened: false,
            types: PhantomData,
        })
    }
}

/// Calls a function for each record of a batch.
struct FunctionOperator<F, In, Out> {
    function: F,
    keyed_state: Option<KeyedStateStore>,
    /// Kept so that the metrics stay registered as long as the operator lives.
    metrics: Option<MetricGroup>,
    /// How many results the last batch had: the next is likely to have as many.
    results: usize,
    opened: bool,
    types: PhantomData<fn(In) -> Out>,
}

impl<F: RecordFunction<In, Out>, In: Record, Out: Record> FunctionOperator<F, In, Out> {
    /// Calls the function for each record. An error or a panic is told with the record's place in the batch; the task
    /// adds the operator and where the batch was read.
    fn call_all(&mut self, records: Vec<In>, keys: Option<KeyColumn>, out: &mut Collector<Out>) -> Result<()> {
        let count = records.len();
        let mut index = 0;
        // Nothing is used after a panic: the task fails.
        let called = catch_unwind(AssertUnwindSafe(|| match &self.keyed_state {
            Some(state) => call_keyed(&mut self.function, state, records, keys, &mut index, out),
            None => call_plain(&mut self.function, records, &mut index, out),
        }));
        let error = match called {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Error::from_function(error),
            Err(panic) => Error::from_panic(&*panic),
        };
        Err(error.context(format_args!("record {} of {count}", index + 1)))
    }
}

fn call_plain<F: RecordFunction<In, Out>, In, Out>(
    function: &mut F,
    records: Vec<In>,
    index: &mut usize,
    out: &mut Collector<Out>,
) -> Result<(), BoxError> {
    for (at, record) in records.into_iter().enumerate() {
        *index = at;
        function.call(record, out)?;
    }
    Ok(())
}

fn call_keyed<F: RecordFunction<In, Out>, In, Out>(
    function: &mut F,
    state: &KeyedStateStore,
    records: Vec<In>,
    keys: Option<KeyColumn>,
    index: &mut usize,
    out: &mut Collector<Out>,
) -> Result<(), BoxError> {
    let keys = keys.filter(|keys| keys.len() == records.len());
    state.begin_batch(keys.ok_or_else(|| Error::internal("a keyed operator was given a batch without keys").fatal())?);
    for (at, record) in records.into_iter().enumerate() {
        *index = at;
        state.select(at);
        function.call(record, out)?;
    }
    state.end_batch();
    Ok(())
}

impl<F: RecordFunction<In, Out>, In: Record, Out: Record> Operator for FunctionOperator<F, In, Out> {
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        self.keyed_state.clone_from(&context.keyed_state);
        let metrics = self.metrics.insert(MetricGroup::new(context));
        let open =
            OpenContext { keyed_state: context.keyed_state.clone(), runtime: RuntimeContext::new(context, metrics) };
        self.opened = true;
        self.function.open(open).map_err(|error| Error::from_function(error).context("open"))
    }

    fn process(&mut self, _input: InputId, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let RecordBatch { records, keys, origin } = batch.into_typed::<In>()?;
        let mut collector = Collector::with_capacity(self.results);
        self.call_all(records, keys, &mut collector)?;
        let records = collector.into_records();
        self.results = records.len();
        if records.is_empty() {
            return Ok(());
        }
        out.emit(OUTPUT, Batch::new(RecordBatch::new(records, origin)))
    }

    fn close(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.opened) {
            return Ok(());
        }
        self.function.close().map_err(|error| Error::from_function(error).context("close"))
    }
}
