//! The operator of a sink: prepares with every barrier, and commits when the checkpoint is complete.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    Batch, Error, Result,
    ids::{CheckpointId, InputId, OperatorUid},
    operator_state::OperatorListState,
    sink::{Committer, CommitterContext, PendingCommittable, Sink, SinkWriter, WriterContext, is_committable},
};
use millrace_runtime::{
    STEP,
    operator::{Operator, OperatorContext, OperatorFactory, Output},
};
use millrace_state::SINK_COMMITTABLES;

/// So long a commit that fails is tried again before the task fails. A cancelled task must end sooner than its
/// taskmanager loses patience with it.
const COMMIT_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Makes the writing operators of a sink.
pub(crate) struct SinkFactory<S>(Arc<S>);

impl<S> SinkFactory<S> {
    pub(crate) fn new(sink: Arc<S>) -> Self {
        Self(sink)
    }
}

impl<S: Sink> OperatorFactory for SinkFactory<S> {
    fn create(&self) -> Box<dyn Operator> {
        Box::new(SinkOperator { sink: Arc::clone(&self.0), parts: None })
    }
}

struct SinkOperator<S: Sink> {
    sink: Arc<S>,
    parts: Option<Parts<S::Record, S::Committable>>,
}

/// What an open operator has.
struct Parts<T, C> {
    writer: Box<dyn SinkWriter<T, C>>,
    commits: Option<Commits<C>>,
    checkpoints: bool,
}

impl<S: Sink> SinkOperator<S> {
    fn parts(&mut self) -> Result<&mut Parts<S::Record, S::Committable>> {
        self.parts.as_mut().ok_or_else(|| Error::internal("a sink was used before it was opened"))
    }
}

impl<S: Sink> Operator for SinkOperator<S> {
    fn open(&mut self, context: &mut OperatorContext) -> Result<()> {
        let mut writer_context = WriterContext::new(context.uid.clone(), context.subtask, context.parallelism);
        writer_context.attempt = context.attempt;
        let commits = match is_committable::<S::Committable>() {
            true => {
                let committer = self.sink.create_committer(&committer_context(context))?;
                let (commits, restored) = Commits::open(context, committer)?;
                writer_context.restored = restored;
                Some(commits)
            }
            false => None,
        };
        writer_context.operator_state = std::mem::take(&mut context.operator_state);
        let writer = self.sink.create_writer(&mut writer_context);
        context.operator_state = writer_context.operator_state;
        self.parts = Some(Parts { writer: writer?, commits, checkpoints: context.checkpoints });
        Ok(())
    }

    fn process(&mut self, _input: InputId, batch: Batch, _out: &mut dyn Output) -> Result<()> {
        self.parts()?.writer.write(batch.into_typed::<S::Record>()?.records)
    }

    fn prepare_snapshot(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let Parts { writer, commits, .. } = self.parts()?;
        let committables = writer.prepare_commit()?;
        if let Some(commits) = commits {
            tracing::debug!(target: STEP, step = "prepare-commit", %checkpoint, uid = %commits.uid);
            commits.prepared(checkpoint, committables);
        }
        Ok(())
    }

    fn end_input(&mut self) -> Result<()> {
        let Parts { writer, commits, checkpoints } = self.parts()?;
        if *checkpoints {
            // The final checkpoint is to come, and commits.
            return Ok(());
        }
        let committables = writer.prepare_commit()?;
        commits.as_mut().map_or(Ok(()), |commits| commits.commit(&committables))
    }

    fn notify_checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let Parts { writer, commits, .. } = self.parts()?;
        let Some(commits) = commits else { return Ok(()) };
        match commits.completed(checkpoint)? {
            settled if settled.is_empty() => Ok(()),
            settled => writer.settled(&settled),
        }
    }

    fn close(&mut self) -> Result<()> {
        self.parts = None;
        Ok(())
    }
}

fn committer_context(context: &OperatorContext) -> CommitterContext {
    CommitterContext { uid: context.uid.clone(), subtask: context.subtask, parallelism: context.parallelism }
}

/// What is to be committed, and what was.
struct Commits<C> {
    uid: OperatorUid,
    committer: Box<dyn Committer<C>>,
    /// What a snapshot holds. A checkpoint that does not complete leaves its own here: they join those of the next.
    pending: OperatorListState<PendingCommittable<C>>,
    /// Committed since the last snapshot.
    committed: Vec<C>,
    /// What was committed before each snapshot that is not complete yet: settled once it is.
    settling: VecDeque<(CheckpointId, Vec<C>)>,
}

impl<C: millrace_core::Record> Commits<C> {
    /// Commits what a checkpoint held, of all subtasks, and returns it.
    fn open(context: &mut OperatorContext, committer: Box<dyn Committer<C>>) -> Result<(Self, Vec<C>)> {
        let pending = context.operator_state.union_list::<PendingCommittable<C>>(SINK_COMMITTABLES)?;
        let restored: Vec<C> = pending.get().into_iter().map(|pending| pending.committable).collect();
        pending.clear();
        let uid = context.uid.clone();
        let committed = restored.clone();
        let mut commits = Self { uid, committer, pending, committed, settling: VecDeque::new() };
        tracing::debug!(target: STEP, step = "commit-restored", uid = %commits.uid);
        // Each subtask commits all of it, and begins elsewhere than the others: where only a region starts again, they run
        // on and know nothing of what this one had prepared.
        let mut due = restored.clone();
        let first = due.len() * context.subtask as usize / context.parallelism.max(1) as usize;
        due.rotate_left(first);
        commits.commit(&due).map_err(|error| error.context("committing what the restored checkpoint holds"))?;
        Ok((commits, restored))
    }

    fn prepared(&mut self, checkpoint: CheckpointId, committables: Vec<C>) {
        for committable in committables {
            self.pending.add(PendingCommittable { checkpoint, committable });
        }
        self.settling.push_back((checkpoint, std::mem::take(&mut self.committed)));
    }

    /// Commits all that the checkpoint holds. Returns what is settled by it.
    fn completed(&mut self, checkpoint: CheckpointId) -> Result<Vec<C>> {
        let (due, later): (Vec<_>, Vec<_>) =
            self.pending.get().into_iter().partition(|pending| pending.checkpoint <= checkpoint);
        let due: Vec<C> = due.into_iter().map(|pending| pending.committable).collect();
        tracing::debug!(target: STEP, step = "commit", %checkpoint, uid = %self.uid);
        self.commit(&due).map_err(|error| error.context(format_args!("committing checkpoint {checkpoint}")))?;
        tracing::debug!(target: STEP, step = "committed", %checkpoint, uid = %self.uid);
        self.pending.update(later);
        self.committed.extend(due);
        let mut settled = Vec::new();
        while let Some((_, committed)) = self.settling.pop_front_if(|(taken, _)| *taken <= checkpoint) {
            settled.extend(committed);
        }
        Ok(settled)
    }

    /// Tries again for some time what may pass.
    fn commit(&mut self, committables: &[C]) -> Result<()> {
        if committables.is_empty() {
            return Ok(());
        }
        let give_up = Instant::now() + COMMIT_LIMIT;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.committer.commit(committables) {
                Ok(()) => return Ok(()),
                Err(error) if !error.retryable || Instant::now() + pause > give_up => return Err(error),
                Err(error) => error,
            };
            tracing::warn!(uid = %self.uid, %error, "a sink's commit failed and is tried again in {pause:?}");
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
