//! What a sink's operator commits, and when.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use millrace_core::{
    Batch, Error, RecordBatch, Result,
    ids::{CheckpointId, InputId},
    operator_state::{OperatorListSnapshot, OperatorStateStore, redistribute},
    sink::{Committer, CommitterContext, DeliveryGuarantee, Sink, SinkWriter, WriterContext},
};
use millrace_runtime::operator::{Operator, OperatorContext, OperatorFactory};
use millrace_state::SINK_COMMITTABLES;

use super::{
    SinkFactory,
    tests::{Emitted, context},
};

/// Writes down what is done with it.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>, Arc<Mutex<VecDeque<Error>>>);

impl Diary {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Worker {
    diary: Diary,
    open: Vec<i64>,
}

impl Sink for Diary {
    type Record = i64;
    type Committable = Vec<i64>;

    fn create_writer(&self, context: &mut WriterContext<Vec<i64>>) -> Result<Box<dyn SinkWriter<i64, Vec<i64>>>> {
        self.note(format!("open {:?}", context.restored));
        Ok(Box::new(Worker { diary: self.clone(), open: vec![] }))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<Vec<i64>>>> {
        Ok(Box::new(Worker { diary: self.clone(), open: vec![] }))
    }
}

impl SinkWriter<i64, Vec<i64>> for Worker {
    fn write(&mut self, records: Vec<i64>) -> Result<()> {
        self.open.extend(records);
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<Vec<i64>>> {
        Ok(if self.open.is_empty() { vec![] } else { vec![std::mem::take(&mut self.open)] })
    }

    fn settled(&mut self, committables: &[Vec<i64>]) -> Result<()> {
        self.diary.note(format!("settled {committables:?}"));
        Ok(())
    }
}

impl Committer<Vec<i64>> for Worker {
    fn commit(&mut self, committables: &[Vec<i64>]) -> Result<()> {
        if let Some(error) = self.diary.1.lock().unwrap().pop_front() {
            return Err(error);
        }
        self.diary.note(format!("commit {committables:?}"));
        Ok(())
    }
}

struct Subtask {
    operator: Box<dyn Operator>,
    context: OperatorContext,
    diary: Diary,
}

impl Subtask {
    fn try_open(diary: &Diary, lists: Vec<OperatorListSnapshot>, checkpoints: bool) -> Result<Self> {
        let operator_state = OperatorStateStore::restored(lists);
        let mut context = OperatorContext { subtask: 0, parallelism: 1, operator_state, checkpoints, ..context() };
        let mut operator = SinkFactory::new(Arc::new(diary.clone())).create();
        operator.open(&mut context)?;
        Ok(Self { operator, context, diary: diary.clone() })
    }

    fn open() -> Self {
        let subtask = Self::try_open(&Diary::default(), vec![], true).unwrap();
        assert_eq!(subtask.diary.take(), ["open []"]);
        subtask
    }

    fn write(&mut self, record: i64) {
        let batch = Batch::new(RecordBatch::new(vec![record], None));
        self.operator.process(InputId(0), batch, &mut Emitted::default()).unwrap();
    }

    fn snapshot(&mut self, checkpoint: u64) -> Vec<OperatorListSnapshot> {
        self.operator.prepare_snapshot(CheckpointId(checkpoint)).unwrap();
        self.context.operator_state.snapshot().unwrap()
    }

    fn complete(&mut self, checkpoint: u64) -> Vec<String> {
        self.operator.notify_checkpoint_complete(CheckpointId(checkpoint)).unwrap();
        self.diary.take()
    }
}

#[test]
fn nothing_is_committed_before_its_checkpoint_is_complete() {
    let mut sink = Subtask::open();
    sink.write(1);
    sink.snapshot(1);
    sink.write(2);
    sink.snapshot(2);
    assert!(sink.diary.take().is_empty());
    assert_eq!(sink.complete(1), ["commit [[1]]"]);
    assert_eq!(sink.complete(2), ["commit [[2]]"]);
    sink.snapshot(3);
    // Snapshot 2 still held what checkpoint 1 has committed; snapshot 3 is the first that does not.
    assert_eq!(sink.complete(3), ["settled [[1], [2]]"]);
}

#[test]
fn what_a_checkpoint_held_that_did_not_complete_is_committed_with_the_next() {
    let mut sink = Subtask::open();
    for checkpoint in 1..=3 {
        sink.write(checkpoint);
        sink.snapshot(checkpoint as u64);
    }
    assert_eq!(sink.complete(3), ["commit [[1], [2], [3]]"]);
}

#[test]
fn what_was_restored_is_committed_before_anything_is_written_whoever_gets_it() {
    let mut old = Subtask::open();
    for checkpoint in 1..=3 {
        old.write(checkpoint);
    }
    old.snapshot(1);
    old.write(4);
    let lists = old.snapshot(2);
    for parallelism in 1..=3 {
        let diary = Diary::default();
        for (lists, subtask) in redistribute(std::slice::from_ref(&lists), parallelism).into_iter().zip(0..) {
            let operator_state = OperatorStateStore::restored(lists);
            let mut context = OperatorContext { subtask, parallelism, operator_state, ..context() };
            SinkFactory::new(Arc::new(diary.clone())).create().open(&mut context).unwrap();
            let lists = context.operator_state.snapshot().unwrap();
            assert!(lists.iter().all(|list| list.name != SINK_COMMITTABLES || list.items.is_empty()));
        }
        let mut told = diary.take();
        told.sort();
        let opened = vec!["open [[1, 2, 3], [4]]".to_string(); parallelism as usize];
        // By each, since the others may run on while only a region starts again.
        let commits = (0..parallelism).map(|subtask| match subtask % 2 {
            0 => "commit [[1, 2, 3], [4]]".to_string(),
            _ => "commit [[4], [1, 2, 3]]".to_string(),
        });
        let mut commits: Vec<_> = commits.collect();
        commits.sort();
        assert_eq!(told, [commits, opened].concat());
    }
}

#[test]
fn what_was_restored_settles_with_the_first_checkpoint() {
    let mut old = Subtask::open();
    old.write(1);
    let lists = old.snapshot(900);
    let mut sink = Subtask::try_open(&Diary::default(), lists, true).unwrap();
    assert_eq!(sink.diary.take(), ["commit [[1]]", "open [[1]]"]);
    sink.snapshot(1);
    assert_eq!(sink.complete(1), ["settled [[1]]"]);
}

#[test]
fn a_commit_that_fails_for_now_is_tried_again_and_one_that_is_lost_fails_the_task() {
    let mut sink = Subtask::open();
    sink.write(1);
    sink.snapshot(1);
    sink.diary.1.lock().unwrap().push_back(Error::external("the broker restarts"));
    assert_eq!(sink.complete(1), ["commit [[1]]"]);
    sink.write(2);
    let lists = sink.snapshot(2);
    let lost = millrace_core::sink::lost("transaction 2 was aborted");
    sink.diary.1.lock().unwrap().push_back(lost.clone());
    let error = sink.operator.notify_checkpoint_complete(CheckpointId(2)).unwrap_err();
    assert!(!error.retryable && error.message.contains("committing checkpoint 2"), "{error:?}");
    let diary = Diary::default();
    diary.1.lock().unwrap().push_back(lost);
    let error = Subtask::try_open(&diary, lists, true).err().unwrap();
    assert!(!error.retryable && error.message.contains("restored checkpoint holds"), "{error:?}");
    assert!(diary.take().is_empty(), "nothing is written where a commit is lost");
}

#[test]
fn without_checkpoints_the_end_of_the_input_commits() {
    let diary = Diary::default();
    let mut sink = Subtask::try_open(&diary, vec![], false).unwrap();
    sink.write(1);
    diary.take();
    sink.operator.end_input().unwrap();
    assert_eq!(diary.take(), ["commit [[1]]"]);
    let mut sink = Subtask::open();
    sink.write(1);
    sink.operator.end_input().unwrap();
    assert!(sink.diary.take().is_empty(), "the final checkpoint commits");
}

/// A sink that writes at least once: what it is given is there, at the latest with the barrier.
impl Sink for Plain {
    type Record = i64;
    type Committable = Vec<i64>;

    fn create_writer(&self, _context: &mut WriterContext<Vec<i64>>) -> Result<Box<dyn SinkWriter<i64, Vec<i64>>>> {
        Ok(Box::new(self.clone()))
    }

    fn create_committer(&self, _context: &CommitterContext) -> Result<Box<dyn Committer<Vec<i64>>>> {
        Ok(Box::new(Worker { diary: self.0.clone(), open: vec![] }))
    }
}

impl SinkWriter<i64, Vec<i64>> for Plain {
    fn write(&mut self, records: Vec<i64>) -> Result<()> {
        self.0.note(format!("write {records:?}"));
        Ok(())
    }

    fn prepare_commit(&mut self) -> Result<Vec<Vec<i64>>> {
        self.0.note("flush");
        Ok(vec![])
    }
}

#[derive(Clone, Default)]
struct Plain(Diary);

impl Plain {
    fn open(&self, lists: Vec<OperatorListSnapshot>, checkpoints: bool) -> Subtask {
        let operator_state = OperatorStateStore::restored(lists);
        let mut context = OperatorContext { subtask: 0, parallelism: 1, operator_state, checkpoints, ..context() };
        let mut operator = SinkFactory::new(Arc::new(self.clone())).create();
        operator.open(&mut context).unwrap();
        Subtask { operator, context, diary: self.0.clone() }
    }
}

/// Whether its checkpoint is declined, or complete with nobody told of it, or all or a region of the job restarts: the
/// operator writes nothing again by itself; what the sources read again it is given again.
#[test]
fn a_sink_without_committables_flushes_with_the_barrier_and_writes_nothing_again_by_itself() {
    let plain = Plain::default();
    let mut sink = plain.open(vec![], true);
    sink.write(1);
    sink.snapshot(1);
    assert_eq!(plain.0.take(), ["write [1]", "flush"]);
    // Checkpoint 1 is declined.
    sink.write(2);
    let lists = sink.snapshot(2);
    assert_eq!(plain.0.take(), ["write [2]", "flush"]);
    assert!(sink.complete(2).is_empty());
    drop(sink);
    let mut sink = plain.open(lists, true);
    assert!(plain.0.take().is_empty(), "a restart writes nothing");
    sink.write(3);
    drop(sink);
    assert_eq!(plain.0.take(), ["write [3]"], "what was written before the job was cancelled is there");
    let mut sink = plain.open(vec![], false);
    sink.write(4);
    sink.operator.end_input().unwrap();
    assert_eq!(plain.0.take(), ["write [4]", "flush"], "the end flushes");
}

#[test]
fn committables_tell_the_guarantee() {
    assert_eq!(Diary::default().delivery_guarantee(), DeliveryGuarantee::ExactlyOnce);
    let discarding = millrace_connectors::DiscardingSink::<i64>::new();
    assert_eq!(discarding.delivery_guarantee(), DeliveryGuarantee::AtLeastOnce);
}
