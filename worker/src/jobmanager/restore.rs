//! What an attempt starts from: the newest completed checkpoint that can be read, and the splits.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{
    Error, ErrorDomain, Result,
    ids::{Attempt, CheckpointId, Generation, JobId, TaskId},
    operator_state::OperatorListSnapshot,
};
use millrace_runtime::{
    STEP,
    coordinator::{RestorePoint, TaskStates},
    graph::{JobGraph, SourceNode},
    scheduler::Event as SchedulerEvent,
    source::EncodedSplit,
    task::{OperatorRestore, TaskCommand, decode_splits},
};
use millrace_state::{
    SOURCE_SPLITS,
    assignment::{RestoreTarget, assign},
    log::{JobLog, LogError, LogView},
    metadata::{CheckpointMetadata, OperatorStateMeta},
    storage::{CheckpointStorage, StorageOptions, open_checkpoint},
};
use tokio::sync::Mutex;

use super::{
    Event, JobManager,
    progress::SourceProgress,
    splits::{Enumerators, Found, SplitsByTask, SplitsByVertex},
};
use crate::stores;

/// A checkpoint, made ready for the tasks of this graph.
pub struct Restored {
    /// Which one.
    pub checkpoint: CheckpointId,
    /// The jobmanager and the attempt that took it.
    taken_by: (Generation, Attempt),
    /// The state of each task that has some.
    pub tasks: BTreeMap<TaskId, Vec<OperatorRestore>>,
    /// The splits of each source.
    pub splits: SplitsByVertex,
    /// The same by the tasks that had them.
    pub splits_by_task: SplitsByTask,
}

impl Restored {
    fn has_state_files(&self, task: TaskId) -> bool {
        let has = |operator: &OperatorRestore| !operator.keyed.is_empty() || !operator.in_flight.is_empty();
        self.tasks.get(&task).is_some_and(|operators| operators.iter().any(has))
    }
}

impl JobManager {
    /// Finds out what the attempt starts from.
    pub(super) fn prepare(&mut self, attempt: Attempt) {
        let known = match self.coordinator.restore_point() {
            RestorePoint::Undecided => {
                self.undecided = Some(attempt);
                return;
            }
            RestorePoint::Checkpoint(id) if !self.damaged.contains(&id) => self.written.get(&id).map(Arc::clone),
            _ => None,
        };
        self.run_in_slots(self.scheduler.slots_used());
        let origin = Origin {
            job: self.job,
            storage: self.storage.clone(),
            log: Arc::clone(&self.log),
            // Where the attempt is marked, that takes the log, and what is found need not wait for it.
            view: self.log.try_lock().ok().map(|log| log.view().clone()),
            damaged: self.damaged.iter().copied().collect(),
            allow_older: self.settings.restore.allow_older_checkpoint,
            given: self.settings.restore.path.clone(),
            options: stores::options(&self.settings),
        };
        let (graph, events) = (Arc::clone(&self.graph), self.events.clone());
        let allow_non_restored = self.settings.restore.allow_non_restored_state;
        tokio::spawn(async move {
            let found = match known {
                Some(known) => Ok(Some(known)),
                None => origin.find().await.map(|found| found.map(Arc::new)),
            };
            let restored = found.and_then(|checkpoint| {
                checkpoint.map(|checkpoint| restore(&graph, &checkpoint, allow_non_restored)).transpose()
            });
            let _ = events.send(Event::Restored(attempt, restored));
        });
        if self.scheduler.must_be_marked() {
            self.mark(attempt);
        }
    }

    /// Writes down that the whole job begins an attempt: what may run on of earlier ones is not adopted any more.
    fn mark(&self, attempt: Attempt) {
        tracing::debug!(target: STEP, step = "mark", %attempt);
        let (log, events) = (Arc::clone(&self.log), self.events.clone());
        tokio::spawn(async move {
            let marked = log.lock().await.append_attempt(attempt).await.map(drop);
            let _ = events.send(Event::Marked(attempt, marked));
        });
    }

    /// The attempt is marked, or can't be: then nothing of it may be deployed.
    pub(super) fn marked(&mut self, attempt: Attempt, marked: Result<(), LogError>) {
        match marked {
            _ if self.ending => {}
            Ok(()) => self.schedule(SchedulerEvent::Marked(attempt)),
            Err(LogError::Failed(error)) => {
                let error = error.context(format_args!("the job's log does not take that attempt {attempt} begins"));
                self.schedule(SchedulerEvent::AttemptFailed(attempt, error));
            }
            Err(LogError::Fenced { .. } | LogError::Removed | LogError::Ended(_)) => self.fenced(),
        }
    }

    /// The next attempt has so many slots. What the last checkpoint holds was written with its own number.
    fn run_in_slots(&mut self, slots: u32) {
        if self.graph.slots_needed() == slots {
            return;
        }
        tracing::info!(slots, wanted = self.program.slots_needed(), "the job's parallelism changes with its slots");
        self.graph = Arc::new(self.program.in_slots(slots));
        for (view, vertex) in self.view.vertices.iter_mut().zip(&self.graph.vertices) {
            view.parallelism = vertex.parallelism;
        }
        // Its counts are of other subtasks.
        self.progress = SourceProgress::default();
    }

    /// The checkpoint is read: find the splits.
    pub(super) fn restored(&mut self, attempt: Attempt, restored: Result<Option<Restored>>) {
        if attempt != self.scheduler.attempt() {
            return;
        }
        let restored = match restored {
            Ok(restored) => restored,
            Err(error) => return self.schedule(SchedulerEvent::AttemptFailed(attempt, error)),
        };
        if let Some(Restored { checkpoint, taken_by: (generation, by), .. }) = &restored
            && !self.scheduler.may_go_back_to((*generation == self.generation).then_some(*by))
        {
            let why = format!("checkpoint {checkpoint} is of an earlier start of the job: all tasks go back to it");
            return self.schedule(SchedulerEvent::AttemptFailed(attempt, Error::external(why)));
        }
        let events = self.events.clone();
        let report = move |found| {
            let _ = events.send(Event::Splits(found));
        };
        self.splits.retain(|task, _| self.scheduler.runs_on(*task));
        let graph = Arc::clone(&self.graph);
        let enumerators = match &restored {
            // Those that run on keep theirs, and the others get back what they had.
            Some(restored) if !self.attempt.tasks.is_empty() => {
                let mut initial = restored.splits_by_task.clone();
                initial.retain(|task, _| !self.scheduler.runs_on(*task));
                let mut known = self.splits.clone();
                known.extend(initial.iter().map(|(task, splits)| (*task, ids(splits))));
                Enumerators::go_on(graph, attempt, known, Some(initial), report)
            }
            restored => {
                let splits = restored.as_ref().map(|restored| restored.splits.clone());
                Enumerators::start(graph, attempt, splits, report)
            }
        };
        match enumerators {
            Ok(enumerators) => self.attempt.enumerators = Some(enumerators),
            Err(error) => {
                let error = Error::external(format!("no thread for the sources' enumerators: {error}"));
                return self.schedule(SchedulerEvent::AttemptFailed(attempt, error));
            }
        }
        // With checkpoints on, start positions count only once they are in a completed checkpoint.
        self.attempt.held = restored.is_none() && self.checkpoints.is_enabled();
        self.attempt.restored = restored;
    }

    pub(super) fn splits_found(&mut self, found: Found) {
        let current = self.scheduler.attempt();
        match found {
            Found::Initial(attempt, Ok(sources)) if attempt == current => {
                self.splits.extend(sources.splits.iter().map(|(task, splits)| (*task, ids(splits))));
                self.attempt.sources = sources;
                self.schedule(SchedulerEvent::Prepared(attempt));
            }
            Found::More(attempt, splits) if attempt == current => {
                for (task, splits) in splits {
                    let place = self.scheduler.assignment().and_then(|assignment| assignment.get(&task)).cloned();
                    let Some(place) = place else { continue };
                    tracing::info!(%task, splits = ?splits.iter().map(|s| &s.id).collect::<Vec<_>>(), "new splits");
                    self.splits.entry(task).or_default().extend(ids(&splits));
                    self.tell([(task, place)], &TaskCommand::AddSplits(splits));
                }
            }
            Found::Initial(attempt, Err(error)) | Found::Failed(attempt, error) if attempt == current => {
                self.schedule(SchedulerEvent::AttemptFailed(attempt, error));
            }
            // of an attempt that is over
            Found::Initial(..) | Found::More(..) | Found::Failed(..) => {}
        }
    }

    /// A task that fails because a file of its checkpoint is damaged does not fail the job while an older checkpoint
    /// may be taken: the next attempt looks for one, or refuses by name.
    pub(super) fn while_restoring(&mut self, attempt: Attempt, task: TaskId, error: Error) -> Error {
        let is_damage = error.domain == ErrorDomain::External && !error.retryable;
        if self.attempt.started {
            return error;
        }
        match &self.attempt.restored {
            // Sources have no state files: what is wrong with a position that they restore, an older one does not mend.
            Some(restored) if attempt == self.scheduler.attempt() && is_damage && restored.has_state_files(task) => {
                if self.coordinator.retained().contains(&restored.checkpoint) {
                    self.damaged.insert(restored.checkpoint);
                    return Error { retryable: true, ..error };
                }
                error
            }
            _ => error,
        }
    }

    /// A checkpoint's metadata, from what its tasks acknowledged.
    pub(super) fn metadata(&self, checkpoint: CheckpointId, states: &TaskStates) -> CheckpointMetadata {
        let mut operators = Vec::new();
        for vertex in &self.graph.vertices {
            let source = vertex.source.iter().map(|source| (&source.uid, &source.name));
            let chained = vertex.operators.iter().map(|operator| (&operator.uid, &operator.name));
            for (uid, name) in source.chain(chained) {
                let of_subtask = |subtask| states.get(&TaskId { vertex: vertex.id, subtask });
                let subtasks: Vec<_> = (0..vertex.parallelism)
                    .filter_map(|subtask| of_subtask(subtask)?.iter().find(|state| state.uid == *uid).cloned())
                    .collect();
                if !subtasks.is_empty() {
                    let (uid, name) = (uid.clone(), name.clone());
                    operators.push(OperatorStateMeta { uid, name, parallelism: vertex.parallelism, subtasks });
                }
            }
        }
        CheckpointMetadata {
            job: self.job,
            checkpoint,
            generation: self.generation,
            attempt: self.scheduler.attempt(),
            created_at_ms: self.clock.now_ms(),
            mode: self.checkpoints.mode,
            max_parallelism: self.graph.max_parallelism,
            is_final: self.final_triggered,
            operators,
        }
    }
}

fn ids(splits: &[EncodedSplit]) -> Vec<String> {
    splits.iter().map(|split| split.id.clone()).collect()
}

/// Where to look for a checkpoint.
struct Origin {
    job: JobId,
    storage: CheckpointStorage,
    log: Arc<Mutex<JobLog>>,
    /// What that says, where nobody was writing it.
    view: Option<LogView>,
    damaged: Vec<CheckpointId>,
    allow_older: bool,
    given: Option<String>,
    options: StorageOptions,
}

impl Origin {
    /// The job's own newest readable checkpoint; before it has one, the one that the user gave.
    async fn find(self) -> Result<Option<CheckpointMetadata>> {
        let view = match self.view {
            Some(view) => view,
            None => self.log.lock().await.view().clone(),
        };
        let own = self.storage.latest_checkpoint(self.job, &view, &self.damaged, self.allow_older).await?;
        match (own, &self.given) {
            (None, Some(path)) => open_checkpoint(path, &self.options).await.map(Some),
            (own, _) => Ok(own),
        }
    }
}

/// The splits in these lists, as the source of today has them.
fn read_splits<'a>(
    source: &SourceNode,
    lists: impl IntoIterator<Item = &'a OperatorListSnapshot>,
) -> Result<Vec<EncodedSplit>> {
    let mut all = Vec::new();
    for list in lists {
        let splits = source.source.migrate_splits(&list.schema, decode_splits(list)?);
        all.extend(splits.map_err(|error| error.context(format_args!("source {:?}", source.uid.0)))?);
    }
    Ok(all)
}

/// Deals a checkpoint out to the tasks of a graph.
fn restore(graph: &JobGraph, checkpoint: &CheckpointMetadata, allow_non_restored: bool) -> Result<Restored> {
    let mut targets = Vec::new();
    for vertex in &graph.vertices {
        let source = vertex.source.iter().map(|source| (&source.uid, &source.name));
        for (uid, name) in source.chain(vertex.operators.iter().map(|operator| (&operator.uid, &operator.name))) {
            targets.push(RestoreTarget { uid: uid.clone(), name: name.clone(), parallelism: vertex.parallelism });
        }
    }
    let mut assignment = assign(checkpoint, &targets, graph.max_parallelism, allow_non_restored)?;
    for (uid, name) in &assignment.non_restored {
        tracing::warn!(%uid, name, "state of the checkpoint is left out: no operator claims it");
    }
    let mut tasks = BTreeMap::<TaskId, Vec<OperatorRestore>>::new();
    let (mut splits, mut splits_by_task) = (SplitsByVertex::new(), SplitsByTask::new());
    for vertex in &graph.vertices {
        if let Some(source) = &vertex.source {
            let lists = assignment.operators.get(&source.uid).map_or(&[][..], |operator| &operator.source_splits);
            splits.insert(vertex.id, read_splits(source, lists)?);
            let written = checkpoint.operators.iter().filter(|operator| operator.uid == source.uid);
            for (subtask, state) in written.flat_map(|operator| (0..).zip(&operator.subtasks)) {
                let lists = state.lists.iter().filter(|list| list.name == SOURCE_SPLITS);
                splits_by_task.insert(TaskId { vertex: vertex.id, subtask }, read_splits(source, lists)?);
            }
        }
        let source = vertex.source.iter().map(|source| &source.uid);
        for uid in source.chain(vertex.operators.iter().map(|operator| &operator.uid)) {
            let Some(operator) = assignment.operators.remove(uid) else { continue };
            for (subtask, state) in (0..).zip(operator.subtasks) {
                let restore = OperatorRestore {
                    uid: uid.clone(),
                    keyed: state.keyed,
                    lists: state.lists,
                    in_flight: state.in_flight,
                };
                tasks.entry(TaskId { vertex: vertex.id, subtask }).or_default().push(restore);
            }
        }
    }
    let taken_by = (checkpoint.generation, checkpoint.attempt);
    Ok(Restored { checkpoint: checkpoint.checkpoint, taken_by, tasks, splits, splits_by_task })
}
