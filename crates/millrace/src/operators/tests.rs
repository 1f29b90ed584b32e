use std::sync::{Arc, Mutex};

use millrace_core::{
    Batch, Error, ErrorDomain, FunctionResult, RecordBatch, Result,
    clock::Clock,
    ids::{CheckpointId, InputId, JobAttempt, JobId, OperatorUid, OutputId},
    key::{DEFAULT_MAX_PARALLELISM, KeyColumn},
    operator_state::OperatorStateStore,
    sink::{Committer, CommitterContext, NoCommittable, NoCommitter, Sink, SinkWriter, WriterContext},
};
use millrace_runtime::operator::{Operator, OperatorContext, OperatorFactory, Output};
use millrace_state::{KeyedBackendContext, KeyedStateStore, MemoryStateBackend};

use super::{Filter, FlatMap, FunctionFactory, Map, Reduce, SinkFactory, TryMap, function::RecordFunction};
use crate::functions::{Collector, Counter, FlatMapFunction, RuntimeContext};

#[derive(Default)]
pub(super) struct Emitted(Vec<(Vec<i64>, Option<Arc<str>>)>);

impl Output for Emitted {
    fn emit(&mut self, output: OutputId, batch: Batch) -> Result<()> {
        assert_eq!(output, OutputId(0));
        let batch = batch.into_typed::<i64>()?;
        self.0.push((batch.records, batch.origin));
        Ok(())
    }
}

pub(super) fn context() -> OperatorContext {
    OperatorContext {
        uid: OperatorUid("uid".into()),
        name: "Double".into(),
        subtask: 1,
        parallelism: 2,
        attempt: JobAttempt::first(JobId(1)),
        keyed_state: None,
        operator_state: OperatorStateStore::default(),
        checkpoints: true,
        metrics: prometheus::Registry::new(),
        clock: Clock::system(),
    }
}

fn operator<F: RecordFunction<i64, i64>>(function: F) -> Box<dyn Operator> {
    let mut operator = FunctionFactory::new(function).create();
    operator.open(&mut context()).unwrap();
    operator
}

fn batch(records: &[i64]) -> Batch {
    Batch::new(RecordBatch::new(records.to_vec(), Some("topic-0@7..9".into())))
}

fn run<F: RecordFunction<i64, i64>>(function: F, records: &[i64]) -> Result<Emitted> {
    let mut emitted = Emitted::default();
    operator(function).process(InputId(0), batch(records), &mut emitted)?;
    Ok(emitted)
}

#[test]
fn one_batch_in_is_one_batch_out_with_its_origin() {
    let Emitted(batches) = run(Map(|n: i64| n * 2), &[1, 2, 3]).unwrap();
    assert_eq!(batches, [(vec![2, 4, 6], Some("topic-0@7..9".into()))]);
    let Emitted(batches) = run(FlatMap(|n: i64, out: &mut Collector<i64>| out.extend(0..n)), &[1, 0, 3]).unwrap();
    assert_eq!(batches[0].0, [0, 0, 1, 2]);
}

#[test]
fn a_batch_of_which_nothing_is_left_is_not_emitted() {
    let Emitted(batches) = run(Filter(|n: &i64| *n > 5), &[1, 2]).unwrap();
    assert!(batches.is_empty());
}

#[test]
fn an_error_names_the_record() {
    let error =
        run(TryMap(|n: i64| if n == 0 { Err("division by zero") } else { Ok(6 / n) }), &[1, 2, 0]).err().unwrap();
    assert_eq!(error.message, "record 3 of 3: division by zero");
    assert_eq!((error.domain, error.retryable), (ErrorDomain::User, true));
}

#[test]
fn an_error_that_has_a_class_keeps_it() {
    let error = run(TryMap(|_: i64| Err::<i64, _>(Error::external("the service is away"))), &[1]).err().unwrap();
    assert_eq!(error.domain, ErrorDomain::External);
}

#[test]
fn a_panic_is_an_error_with_the_record_too() {
    let error = run(Map(|n: i64| 6 / n), &[1, 0, 3]).err().unwrap();
    assert_eq!(error.message, "record 2 of 3: panicked: attempt to divide by zero");
}

#[test]
fn an_error_behind_the_operator_is_passed_on_as_it_is() {
    struct Full;
    impl Output for Full {
        fn emit(&mut self, _output: OutputId, _batch: Batch) -> Result<()> {
            Err(Error::external("the next operator failed"))
        }
    }
    let error = operator(Map(|n: i64| n)).process(InputId(0), batch(&[1]), &mut Full).unwrap_err();
    assert_eq!(error.message, "the next operator failed");
}

/// Writes down what happens to it.
#[derive(Clone, Default)]
struct Recorder {
    events: Arc<Mutex<Vec<String>>>,
    seen: Counter,
}

impl FlatMapFunction<i64, i64> for Recorder {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> FunctionResult {
        let (index, all) = (context.index_of_this_subtask(), context.number_of_parallel_subtasks());
        self.events.lock().unwrap().push(format!("open {} {index}/{all}", context.operator_name()));
        self.seen = context.metrics().counter("seen")?;
        Ok(())
    }

    fn flat_map(&mut self, record: i64, _out: &mut Collector<i64>) -> FunctionResult {
        self.events.lock().unwrap().push(format!("record {record}"));
        self.seen.inc();
        Ok(())
    }

    fn close(&mut self) -> FunctionResult {
        self.events.lock().unwrap().push("close".into());
        Ok(())
    }
}

#[test]
fn a_type_is_opened_called_and_closed_once_and_every_subtask_has_its_own() {
    let recorder = Recorder::default();
    let events = Arc::clone(&recorder.events);
    let mut context = context();
    let mut operator = FunctionFactory::new(FlatMap(recorder.clone())).create();
    operator.close().unwrap();
    assert!(events.lock().unwrap().is_empty(), "what was not opened is not closed");
    operator.open(&mut context).unwrap();
    operator.process(InputId(0), batch(&[4, 5]), &mut Emitted::default()).unwrap();
    operator.close().unwrap();
    operator.close().unwrap();
    assert_eq!(*events.lock().unwrap(), ["open Double 1/2", "record 4", "record 5", "close"]);
    assert_eq!(context.metrics.gather()[0].get_metric()[0].get_counter().get_value(), 2.0);
    assert_eq!(recorder.seen.get(), 0, "the prototype is not touched");
}

fn keyed_context() -> OperatorContext {
    let store = KeyedBackendContext::alone("uid", DEFAULT_MAX_PARALLELISM);
    let store = KeyedStateStore::open(&MemoryStateBackend::new(), store).unwrap();
    OperatorContext { keyed_state: Some(store), ..context() }
}

fn keyed_batch(records: &[i64], key: impl Fn(i64) -> i64) -> Batch {
    let mut keys = KeyColumn::default();
    for record in records {
        keys.push(&key(*record)).unwrap();
    }
    Batch::new(RecordBatch { keys: Some(keys), ..RecordBatch::new(records.to_vec(), None) })
}

#[test]
fn reduce_goes_on_from_batch_to_batch_for_each_key() {
    let mut operator = FunctionFactory::new(Reduce::new(|sum: i64, n: i64| sum + n)).create();
    operator.open(&mut keyed_context()).unwrap();
    let mut emitted = Emitted::default();
    operator.process(InputId(0), keyed_batch(&[1, 10, 2], |n| n % 2), &mut emitted).unwrap();
    operator.process(InputId(0), keyed_batch(&[5, 20], |n| n % 2), &mut emitted).unwrap();
    let batches: Vec<_> = emitted.0.into_iter().map(|(records, _)| records).collect();
    assert_eq!(batches, [vec![1, 10, 12], vec![6, 32]]);
}

#[test]
fn a_keyed_operator_without_keys_or_state_is_an_internal_error() {
    let factory = FunctionFactory::new(Reduce::new(|sum: i64, n: i64| sum + n));
    let error = factory.create().open(&mut context()).unwrap_err();
    assert_eq!((error.domain, error.retryable), (ErrorDomain::Internal, false));
    let mut operator = factory.create();
    operator.open(&mut keyed_context()).unwrap();
    let error = operator.process(InputId(0), batch(&[1]), &mut Emitted::default()).unwrap_err();
    assert!(error.message.contains("without keys"), "{error}");
}

/// A sink that buffers until it is flushed, and has operator state.
#[derive(Clone, Default)]
struct ListSink(Arc<Mutex<Vec<i64>>>);

impl Sink for ListSink {
    type Record = i64;
    type Committable = NoCommittable;

    fn create_writer(&self, context: &mut WriterContext) -> Result<Box<dyn SinkWriter<i64>>> {
        context.operator_state.list::<i64>("written")?;
        Ok(Box::new(ListWriter { sink: self.clone(), buffer: Vec::new() }))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<NoCommittable>>> {
        Ok(Box::new(NoCommitter))
    }
}

struct ListWriter {
    sink: ListSink,
    buffer: Vec<i64>,
}

impl SinkWriter<i64> for ListWriter {
    fn write(&mut self, records: Vec<i64>) -> Result<()> {
        if records.contains(&13) {
            return Err(Error::external("the disk is full"));
        }
        self.buffer.extend(records);
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<NoCommittable>> {
        self.sink.0.lock().unwrap().append(&mut self.buffer);
        Ok(Vec::new())
    }
}

#[test]
fn a_sink_writes_flushes_and_has_operator_state() {
    let sink = ListSink::default();
    let mut context = context();
    let mut operator = SinkFactory::new(Arc::new(sink.clone())).create();
    operator.open(&mut context).unwrap();
    assert_eq!(context.operator_state.snapshot().unwrap()[0].name, "written");
    operator.process(InputId(0), batch(&[1, 2]), &mut Emitted::default()).unwrap();
    assert!(sink.0.lock().unwrap().is_empty());
    operator.prepare_snapshot(CheckpointId(1)).unwrap();
    assert_eq!(*sink.0.lock().unwrap(), [1, 2]);
    let error = operator.process(InputId(0), batch(&[13]), &mut Emitted::default()).unwrap_err();
    assert_eq!(error.message, "the disk is full");
}
