//! Sinks: where records leave the job, with a commit in two phases.
//!
//! A [`SinkWriter`] writes. With every checkpoint's barrier it *prepares*: what was written so far has arrived, invisible
//! where the sink can do that, and what is needed to make it visible, the *committables*, goes into the checkpoint. Once
//! the checkpoint is complete, and only then, a [`Committer`] makes it visible. After a failure the committables of the
//! restored checkpoint are committed first, before anything is written. So what readers see is what the checkpoints
//! say, each record once.
//!
//! A sink that can't hide what it writes has [`NoCommittable`]s and a [`NoCommitter`]: it writes at least once.

use std::{any::TypeId, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Record, Result,
    checkpoint::CheckpointConfig,
    ids::{CheckpointId, JobAttempt, JobId, OperatorUid},
    operator_state::OperatorStateStore,
};

/// What a sink promises for the records that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryGuarantee {
    /// Nothing: records may be lost, and may be written more than once.
    None,
    /// None is lost; what was written after the last completed checkpoint is written again after a failure.
    AtLeastOnce,
    /// None is lost and readers see each once. They see it when its checkpoint is complete.
    ExactlyOnce,
}

impl fmt::Display for DeliveryGuarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::AtLeastOnce => "at least once",
            Self::ExactlyOnce => "exactly once",
        })
    }
}

/// A sink of records. It is created by the program, identically in every process, and must hold no open resource.
pub trait Sink: Send + Sync + 'static {
    /// What it takes.
    type Record: Record;
    /// What a writer leaves to be committed: it must say all that a process that knows nothing else needs to commit it.
    /// [`NoCommittable`] for a sink that does not commit.
    type Committable: Record;

    /// Makes a writer; called on its task's thread, after what the checkpoint held was committed.
    fn create_writer(
        &self,
        context: &mut WriterContext<Self::Committable>,
    ) -> Result<Box<dyn SinkWriter<Self::Record, Self::Committable>>>;

    /// Makes a committer; called on its task's thread. [`NoCommitter`] fits a sink that does not commit, and no other.
    fn create_committer(&self, context: &CommitterContext) -> Result<Box<dyn Committer<Self::Committable>>>;

    /// Refuses settings that don't fit the job's checkpoints. Called before the job starts.
    fn check(&self, _checkpoints: &CheckpointConfig) -> Result<()> {
        Ok(())
    }

    /// What it promises. By default what its committables tell.
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        match is_committable::<Self::Committable>() {
            true => DeliveryGuarantee::ExactlyOnce,
            false => DeliveryGuarantee::AtLeastOnce,
        }
    }
}

/// Whether there can be a value of this type to commit.
pub fn is_committable<C: 'static>() -> bool {
    TypeId::of::<C>() != TypeId::of::<NoCommittable>()
}

/// What a writer is told and given.
pub struct WriterContext<C = NoCommittable> {
    /// What ties the sink's state to it: unique in the job, and the same after a restart.
    pub uid: OperatorUid,
    /// The writer's subtask.
    pub subtask: u32,
    /// The sink's parallelism.
    pub parallelism: u32,
    /// The start that the writer belongs to. Those of earlier ones may live on as zombies: what they are able to touch
    /// must not be what this one needs.
    pub attempt: JobAttempt,
    /// Operator lists, for sinks that keep state.
    pub operator_state: OperatorStateStore,
    /// All that the restored checkpoint held to be committed, of *all* subtasks. It is committed when tasks begin to run;
    /// until it is [settled](SinkWriter::settled), a restart may commit it again, so that nothing may be done that would
    /// make this fail.
    pub restored: Vec<C>,
}

impl<C> WriterContext<C> {
    /// The context of a writer that begins anew, in the first start of job 0.
    pub fn new(uid: OperatorUid, subtask: u32, parallelism: u32) -> Self {
        let (attempt, operator_state) = (JobAttempt::first(JobId(0)), OperatorStateStore::default());
        Self { uid, subtask, parallelism, attempt, operator_state, restored: Vec::new() }
    }
}

/// What a committer is told.
#[derive(Clone, Debug)]
pub struct CommitterContext {
    /// What ties the sink's state to it.
    pub uid: OperatorUid,
    /// The committer's subtask.
    pub subtask: u32,
    /// The sink's parallelism.
    pub parallelism: u32,
}

/// Writes records. A writer that is dropped without a commit leaves nothing that readers see.
pub trait SinkWriter<T, C = NoCommittable> {
    /// Takes records. May buffer them.
    fn write(&mut self, records: Vec<T>) -> Result<()>;

    /// The first phase: returns when everything that was written has arrived, with what is to be committed once the
    /// checkpoint is complete. Called before each snapshot; without checkpoints, at the end of the input.
    ///
    /// It must be possible to commit what is returned from another process, whatever becomes of this one. If the
    /// checkpoint does not complete, it is committed with a later one: nothing is ever aborted that was returned here.
    fn prepare_commit(&mut self) -> Result<Vec<C>>;

    /// These were committed, and no checkpoint that the job would go back to by itself holds them any more: what they
    /// refer to may be used again.
    fn settled(&mut self, _committables: &[C]) -> Result<()> {
        Ok(())
    }
}

/// Makes visible what writers have prepared: the second phase.
pub trait Committer<C> {
    /// Commits all of these, in their order. It must be *idempotent*: what was committed already, by this committer or
    /// by one in a process that has died, is success.
    ///
    /// After an error that is retryable it is called again, with the same committables. Any other fails the job: that is
    /// for what can't be committed any more, and so is lost.
    fn commit(&mut self, committables: &[C]) -> Result<()>;
}

/// What a sink commits that does not commit: there is no such value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoCommittable {}

/// The committer of a sink that does not commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCommitter;

impl Committer<NoCommittable> for NoCommitter {
    fn commit(&mut self, committables: &[NoCommittable]) -> Result<()> {
        match committables.first() {
            None => Ok(()),
            Some(never) => match *never {},
        }
    }
}

/// A committable with the checkpoint that it belongs to, as a checkpoint holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCommittable<C> {
    /// The checkpoint whose barrier it was prepared for.
    pub checkpoint: CheckpointId,
    /// What is to be committed.
    pub committable: C,
}

/// The error of a sink whose output can be committed no more: nobody can mend it by trying again.
pub fn lost(what: impl fmt::Display) -> Error {
    Error::external(format!("output can't be committed any more: {what}")).fatal()
}
