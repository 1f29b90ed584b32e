//! What the scheduler is told, and what it answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millrace_core::{
    Error,
    ids::{Attempt, TaskId, TaskManagerId},
};

use super::JobResult;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The tasks of an attempt run already, and are adopted. Comes first, before any taskmanager is registered.
    Adopted {
        /// The attempt of the job.
        attempt: Attempt,
        /// The attempt in which each task was deployed.
        attempts: BTreeMap<TaskId, Attempt>,
        /// Where each task runs.
        assignment: BTreeMap<TaskId, TaskManagerId>,
        /// The tasks that have read all their input.
        ended: BTreeSet<TaskId>,
    },
    /// A taskmanager offers slots.
    TaskManagerRegistered {
        /// The process.
        id: TaskManagerId,
        /// What it keeps when another process comes in its place: its disk may have state.
        resource_id: String,
        /// How many.
        slots: u32,
    },
    /// A taskmanager is gone. Every way to notice it ends here.
    TaskManagerLost {
        /// The process.
        id: TaskManagerId,
        /// How it was noticed.
        error: Error,
    },
    /// A taskmanager was told to end, and asks to be let go.
    TaskManagerLeaving(TaskManagerId),
    /// The checkpoint of [`Effect::HandOver`] is complete.
    HandedOver(Attempt),
    /// The restore point and the splits of an attempt are at hand.
    Prepared(Attempt),
    /// The log holds the mark that an attempt begins.
    Marked(Attempt),
    /// A taskmanager has answered [`Effect::Join`].
    Joined(Attempt, TaskManagerId),
    /// A task's state is restored and its inputs are registered.
    TaskDeployed(Attempt, TaskId),
    /// A task has read all its input.
    TaskEndOfInput(Attempt, TaskId),
    /// A task has ended as it should.
    TaskFinished(Attempt, TaskId),
    /// A task has ended because it was told to.
    TaskCanceled(Attempt, TaskId),
    /// A task has failed and ended.
    TaskFailed(Attempt, TaskId, Error),
    /// Something that belongs to the attempt as a whole failed: its preparation, a source's discovery, or too many
    /// checkpoints.
    AttemptFailed(Attempt, Error),
    /// A checkpoint is complete.
    CheckpointCompleted {
        /// Whether it is the final one of this attempt.
        is_final: bool,
    },
    /// The time of [`Effect::RestartAfter`] has passed.
    RestartTimer(Attempt),
    /// The time of [`Effect::LookAfter`] has passed.
    LookTimer,
    /// A user cancels the job.
    Cancel,
    /// A user stops the job with a final checkpoint.
    Stop,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read the newest completed checkpoint and find the sources' splits, then answer [`Event::Prepared`]. Where it
    /// [must be marked](super::JobScheduler::must_be_marked), write that into the log meanwhile, and answer
    /// [`Event::Marked`]: nothing is deployed before. But not while a checkpoint is being completed, whose entry would
    /// come behind the mark.
    Prepare(Attempt),
    /// Tell these taskmanagers that their tasks, which run on, are to be a part of this attempt of the job, then answer
    /// [`Event::Joined`] for each that has heard it. Nothing is deployed before: see [`super::adoption`].
    Join(Attempt, BTreeSet<TaskManagerId>),
    /// Deploy the tasks of the prepared attempt to their taskmanagers, but for those that run on.
    Deploy(Attempt, BTreeMap<TaskId, TaskManagerId>),
    /// All tasks are deployed: start them and their checkpoints.
    Start(Attempt),
    /// The tasks no longer run: no checkpoint of this attempt can complete.
    Stopped(Attempt),
    /// End these tasks.
    CancelTasks(BTreeMap<TaskId, TaskManagerId>),
    /// Tell the sources to stop reading.
    DrainSources(Attempt),
    /// All input is read: take the final checkpoint.
    TriggerFinalCheckpoint(Attempt),
    /// Tell all tasks to finish.
    FinishTasks(Attempt),
    /// Take a checkpoint at which the sources stop, then answer [`Event::HandedOver`].
    HandOver(Attempt),
    /// The taskmanager may end.
    Release(TaskManagerId),
    /// Answer [`Event::RestartTimer`] after this time.
    RestartAfter(Attempt, Duration),
    /// Answer [`Event::LookTimer`] after this time: whether there are slots enough is decided then.
    LookAfter(Duration),
    /// Show this failure to a person.
    Report(Error, Option<TaskId>),
    /// The job has ended.
    End(JobResult),
}
