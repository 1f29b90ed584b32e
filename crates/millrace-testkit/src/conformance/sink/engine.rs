//! What the engine does with a sink, a step at a time, so that it can end at any of them.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering},
};

use millrace_core::{
    Record, Result, codec,
    ids::{Attempt, OperatorUid},
    operator_state::{OperatorListSnapshot, OperatorStateStore, redistribute},
    sink::{Committer, CommitterContext, Sink, SinkWriter, WriterContext},
};

const UID: &str = "sink-under-test";
/// Each start is an attempt of its own.
static STARTS: AtomicU32 = AtomicU32::new(0);

/// A completed checkpoint, as the store would hold it.
pub(super) struct Checkpoint<C> {
    /// Where the source goes on.
    pub position: u64,
    committables: Vec<Vec<u8>>,
    lists: Vec<Vec<OperatorListSnapshot>>,
    kind: std::marker::PhantomData<C>,
}

impl<C: Record> Checkpoint<C> {
    fn committables(&self) -> Vec<C> {
        self.committables.iter().map(|bytes| codec::decode(bytes).expect("a committable is read as written")).collect()
    }
}

type CommittableOf<S> = <S as Sink>::Committable;

struct Subtask<S: Sink> {
    writer: Option<Box<dyn SinkWriter<String, CommittableOf<S>>>>,
    committer: Box<dyn Committer<CommittableOf<S>>>,
    state: OperatorStateStore,
    pending: Vec<(u64, CommittableOf<S>)>,
    committed: Vec<CommittableOf<S>>,
    settling: VecDeque<(u64, Vec<CommittableOf<S>>)>,
}

/// A running job.
pub(super) struct Engine<S: Sink> {
    subtasks: Vec<Subtask<S>>,
}

impl<S: Sink<Record = String>> Engine<S> {
    /// Starts a job: each subtask commits its share of what the checkpoint held and makes its writer, in no particular
    /// order. `only_first`: it dies when the first subtask has done so.
    pub fn start(
        sink: &S,
        parallelism: u32,
        checkpoint: Option<&Checkpoint<CommittableOf<S>>>,
        only_first: bool,
    ) -> Result<Self> {
        let attempt = Attempt(STARTS.fetch_add(1, Ordering::Relaxed) + 1);
        let restored = checkpoint.map(Checkpoint::committables).unwrap_or_default();
        let lists = checkpoint.map(|checkpoint| redistribute(&checkpoint.lists, parallelism)).unwrap_or_default();
        let count = if only_first { 1 } else { parallelism };
        let open = |subtask: u32| -> Result<Subtask<S>> {
            let uid = OperatorUid(UID.into());
            let context = CommitterContext { uid: uid.clone(), subtask, parallelism };
            let mut committer = sink.create_committer(&context)?;
            let mine: Vec<_> = restored.iter().skip(subtask as usize).step_by(parallelism as usize).cloned().collect();
            committer.commit(&mine)?;
            let mut context = WriterContext::new(uid, subtask, parallelism);
            context.attempt.attempt = attempt;
            context.operator_state =
                OperatorStateStore::restored(lists.get(subtask as usize).cloned().unwrap_or_default());
            context.restored = restored.clone();
            let writer = sink.create_writer(&mut context)?;
            let (state, committed) = (context.operator_state, restored.clone());
            let (pending, settling) = (Vec::new(), VecDeque::new());
            Ok(Subtask { writer: Some(writer), committer, state, pending, committed, settling })
        };
        // The last one first, so that what it takes over may be what an earlier one is still to commit.
        let subtasks = (0..parallelism).rev().take(count as usize).map(open).collect::<Result<Vec<_>>>()?;
        Ok(Self { subtasks: subtasks.into_iter().rev().collect() })
    }

    /// Each record goes to the subtask of its key.
    pub fn write(&mut self, records: impl Iterator<Item = (u64, String)>) -> Result<()> {
        let parallelism = self.subtasks.len() as u64;
        for (key, record) in records {
            let subtask = &mut self.subtasks[(key % parallelism) as usize];
            let writer = subtask.writer.as_mut().expect("it is open");
            writer.write(vec![record])?;
        }
        Ok(())
    }

    /// The barrier comes to the first `count` subtasks.
    pub fn prepare(&mut self, checkpoint: u64, count: u32) -> Result<()> {
        for subtask in self.subtasks.iter_mut().take(count as usize) {
            let writer = subtask.writer.as_mut().expect("it is open");
            let committables = writer.prepare_commit()?;
            subtask.pending.extend(committables.into_iter().map(|committable| (checkpoint, committable)));
            subtask.settling.push_back((checkpoint, std::mem::take(&mut subtask.committed)));
        }
        Ok(())
    }

    /// What the checkpoint holds that was prepared by all.
    pub fn snapshot(&self, position: u64) -> Checkpoint<CommittableOf<S>> {
        let committables = self.subtasks.iter().flat_map(|subtask| &subtask.pending);
        let encode = |(_, committable): &(u64, CommittableOf<S>)| codec::encode(committable).expect("it is encoded");
        Checkpoint {
            position,
            committables: committables.map(encode).collect(),
            lists: self.subtasks.iter().map(|subtask| subtask.state.snapshot().expect("lists are encoded")).collect(),
            kind: std::marker::PhantomData,
        }
    }

    /// The first `count` subtasks hear that the checkpoint is complete.
    pub fn commit(&mut self, checkpoint: u64, count: u32) -> Result<()> {
        for subtask in self.subtasks.iter_mut().take(count as usize) {
            let due: Vec<_> = subtask.pending.drain(..).map(|(_, committable)| committable).collect();
            if !due.is_empty() {
                subtask.committer.commit(&due)?;
                // Once more, as if the answer had been lost.
                subtask.committer.commit(&due)?;
            }
            subtask.committed.extend(due);
            while let Some((_, settled)) = subtask.settling.pop_front_if(|(taken, _)| *taken <= checkpoint) {
                let writer = subtask.writer.as_mut().expect("it is open");
                writer.settled(&settled)?;
            }
        }
        Ok(())
    }

    /// The job ends. As a killed process would leave them, writers are not dropped.
    pub fn end(self, killed: bool) {
        for mut subtask in self.subtasks {
            match subtask.writer.take() {
                Some(writer) if killed => std::mem::forget(writer),
                writer => drop(writer),
            }
        }
    }
}
