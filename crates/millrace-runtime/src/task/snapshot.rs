//! A task's part of a checkpoint: what is taken while it stands still, and what is written beside it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use millrace_core::{
    Error, Result,
    checkpoint::CheckpointBarrier,
    ids::{CheckpointId, OperatorUid},
    key::KeyGroupRange,
    operator_state::OperatorListSnapshot,
};
use millrace_state::{
    KeyedSnapshot, KeyedStateHandle, KeyedStateStore, OperatorSubtaskState, SharedState, StateHandle,
    keyed::SnapshotFiles,
    storage::{UploadedFiles, written_by},
};

use super::{SubtaskCheckpointMetrics, TaskEvent, deploy, handle::TaskSetup, run::Parts, state_sink::StateSink};
use crate::STEP;

/// One operator as it was at the barrier.
struct OperatorPart {
    uid: OperatorUid,
    keyed: Option<KeyedPart>,
    lists: Vec<OperatorListSnapshot>,
}

/// Its keyed state.
struct KeyedPart {
    snapshot: Box<dyn KeyedSnapshot>,
    /// What of the backend's files is in the store.
    uploaded: UploadedFiles,
}

/// A task as it was at the barrier.
pub(super) struct TaskSnapshot(Vec<OperatorPart>);

impl TaskSnapshot {
    /// The synchronous part.
    pub(super) fn take(parts: &mut Parts, checkpoint: CheckpointId) -> Result<Self> {
        let mut taken = Vec::new();
        if let Some(source) = &mut parts.source {
            taken.push(OperatorPart { uid: source.uid.clone(), keyed: None, lists: source.snapshot(checkpoint)? });
        }
        for operator in parts.chain.operators() {
            let context = &operator.context;
            // A store without states has nothing to say, not even an empty snapshot.
            let store = context.keyed_state.as_ref().filter(|store| store.has_states());
            let take = |store: &KeyedStateStore| {
                Ok::<_, Error>(KeyedPart { snapshot: store.snapshot()?, uploaded: store.uploaded_files().clone() })
            };
            let keyed = store.map(take).transpose()?;
            taken.push(OperatorPart { uid: context.uid.clone(), keyed, lists: context.operator_state.snapshot()? });
        }
        Ok(Self(taken))
    }
}

/// When the barriers of a checkpoint came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct BarrierTimes {
    first: Instant,
    start_delay: Duration,
}

impl BarrierTimes {
    /// The first one comes now.
    pub(super) fn now(barrier: CheckpointBarrier) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let start_delay = now.saturating_sub(Duration::from_millis(barrier.triggered_at_ms));
        Self { first: Instant::now(), start_delay }
    }

    /// From the trigger to the first one's arrival.
    pub(super) fn start_delay(self) -> Duration {
        self.start_delay
    }

    /// From the first one to the last, which came at `aligned`.
    pub(super) fn alignment(self, aligned: Instant) -> Duration {
        aligned.duration_since(self.first)
    }

    /// What is known when the task has been snapshotted: the barriers were aligned at `aligned`.
    pub(super) fn metrics(self, aligned: Instant, stood_still: Duration) -> SubtaskCheckpointMetrics {
        SubtaskCheckpointMetrics {
            start_delay_ms: self.start_delay.as_millis() as u64,
            alignment_ms: self.alignment(aligned).as_millis() as u64,
            sync_us: stood_still.as_micros() as u64,
            ..Default::default()
        }
    }
}

/// The asynchronous part, on a thread of its own: writes the snapshot and tells how that went.
pub(super) fn write_beside(
    setup: &Arc<TaskSetup>,
    checkpoint: CheckpointId,
    snapshot: TaskSnapshot,
    mut metrics: SubtaskCheckpointMetrics,
    aborted: Arc<AtomicBool>,
) {
    let writer = SnapshotWriter { setup: Arc::clone(setup), checkpoint, aborted };
    setup.runtime.spawn_blocking(move || {
        let started = Instant::now();
        // The values' own serializers run here: a panic of theirs is a declined checkpoint, not a silent one.
        let written = catch_unwind(AssertUnwindSafe(|| writer.write(snapshot)))
            .unwrap_or_else(|payload| Err(Error::from_panic(&*payload).context("writing the snapshot")));
        let event = match written {
            _ if writer.is_aborted() => return,
            Ok(state) => {
                metrics.async_ms = started.elapsed().as_millis() as u64;
                metrics.state_bytes = state.iter().map(size).sum();
                tracing::debug!(target: STEP, step = "acknowledge", %checkpoint, task = %writer.setup.spec.task);
                metrics.checkpointed_bytes = state.iter().map(|state| newly_written(state, checkpoint)).sum();
                TaskEvent::Acknowledged { checkpoint, state, metrics }
            }
            Err(reason) => TaskEvent::Declined { checkpoint, reason },
        };
        writer.setup.tell(event);
    });
}

struct SnapshotWriter {
    setup: Arc<TaskSetup>,
    checkpoint: CheckpointId,
    aborted: Arc<AtomicBool>,
}

impl SnapshotWriter {
    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    fn write(&self, snapshot: TaskSnapshot) -> Result<Vec<OperatorSubtaskState>> {
        let mut state = Vec::new();
        for (index, part) in snapshot.0.into_iter().enumerate() {
            let keyed = match part.keyed {
                // Nobody waits for the rest.
                _ if self.is_aborted() => return Ok(Vec::new()),
                Some(keyed) => Some(self.write_keyed(index, keyed)?),
                None => None,
            };
            state.push(OperatorSubtaskState { uid: part.uid, keyed, lists: part.lists });
        }
        Ok(state)
    }

    fn write_keyed(&self, index: usize, part: KeyedPart) -> Result<KeyedStateHandle> {
        let KeyedPart { mut snapshot, uploaded } = part;
        let setup = &self.setup;
        let spec = &setup.spec;
        let parallelism = setup.graph.vertex(spec.task.vertex).parallelism;
        let range = KeyGroupRange::of_subtask(setup.graph.max_parallelism, parallelism, spec.task.subtask);
        // Unique for ever: a generation is never reused, nor is an attempt within it, and an attempt's task takes part
        // in a checkpoint once.
        let (generation, attempt, task) = (spec.generation, spec.attempt, spec.task);
        let name = format!("{generation}-{attempt}-{}-{}-{index}.state", task.vertex, task.subtask);
        let shared = match snapshot.files()? {
            Some(SnapshotFiles { files, expiring }) => {
                let written = setup.storage.write_shared(setup.job, self.checkpoint, &files, &uploaded);
                Some((setup.runtime.block_on(written)?, expiring))
            }
            None => None,
        };
        let mut sink = StateSink::new(deploy::inline_limit(setup), &self.aborted, setup.runtime.clone(), || {
            setup.storage.state_writer(setup.job, self.checkpoint, &name)
        });
        snapshot.write(&mut sink).map_err(|error| sink.failure().unwrap_or(error))?;
        let data = match (sink.finish()?, shared) {
            (data, None) => data,
            (data, Some((files, expiring))) => {
                let (snapshot, format) = (data.try_into()?, setup.backend.name().to_string());
                StateHandle::Shared(Box::new(SharedState { snapshot, format, expiring, files }))
            }
        };
        Ok(KeyedStateHandle { range, data })
    }
}

fn size(state: &OperatorSubtaskState) -> u64 {
    state.keyed.as_ref().map_or(0, |keyed| keyed.data.size()) + lists_size(state)
}

fn newly_written(state: &OperatorSubtaskState, checkpoint: CheckpointId) -> u64 {
    state.keyed.as_ref().map_or(0, |keyed| written_by(checkpoint, &keyed.data)) + lists_size(state)
}

fn lists_size(state: &OperatorSubtaskState) -> u64 {
    state.lists.iter().flat_map(|list| &list.items).map(|item| item.len() as u64).sum()
}
