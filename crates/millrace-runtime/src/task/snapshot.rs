//! A task's part of a checkpoint: what is taken while it stands still, and what is written beside it.

use std::{
    fmt::Display,
    io::Write,
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
    KeyedSnapshot, KeyedStateHandle, KeyedStateStore, OperatorSubtaskState, SharedFile, SharedState, SnapshotTarget,
    StateHandle,
    in_flight::{self, EdgeInFlight},
    keyed::StateInFiles,
    storage::{StateWriter, UploadedFiles, written_by},
};

use super::{
    SubtaskCheckpointMetrics, TaskEvent, TaskSpec, deploy,
    handle::TaskSetup,
    run::Parts,
    state_sink::{LocalCopy, StateSink},
};
use crate::{STEP, metrics::TaskMetrics};

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
pub(super) struct TaskSnapshot {
    operators: Vec<OperatorPart>,
    /// What its first operator was going to process before the barrier.
    in_flight: Vec<EdgeInFlight>,
}

impl TaskSnapshot {
    /// The synchronous part.
    pub(super) fn take(parts: &mut Parts, checkpoint: CheckpointId, in_flight: Vec<EdgeInFlight>) -> Result<Self> {
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
        Ok(Self { operators: taken, in_flight })
    }
}

/// When the barriers of a checkpoint came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct BarrierTimes {
    first: Instant,
    start_delay: Duration,
    /// What the task had taken by then of what other processes sent.
    bytes_in: u64,
}

impl BarrierTimes {
    /// The first one comes now, to a task that counts in `metrics`.
    pub(super) fn now(barrier: CheckpointBarrier, metrics: &TaskMetrics) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let start_delay = now.saturating_sub(Duration::from_millis(barrier.triggered_at_ms));
        Self { first: Instant::now(), start_delay, bytes_in: metrics.num_bytes_in() }
    }

    /// From the trigger to the first one's arrival.
    pub(super) fn start_delay(self) -> Duration {
        self.start_delay
    }

    /// From the first one to the last, which came at `aligned`.
    pub(super) fn alignment(self, aligned: Instant) -> Duration {
        aligned.duration_since(self.first)
    }

    /// What is known when the task, which counts in `task`, has been snapshotted: the barriers were aligned at `aligned`.
    pub(super) fn metrics(
        self,
        aligned: Instant,
        stood_still: Duration,
        task: &TaskMetrics,
    ) -> SubtaskCheckpointMetrics {
        SubtaskCheckpointMetrics {
            start_delay_ms: self.start_delay.as_millis() as u64,
            alignment_ms: self.alignment(aligned).as_millis() as u64,
            sync_us: stood_still.as_micros() as u64,
            processed_bytes: task.num_bytes_in() - self.bytes_in,
            records_in: task.num_records_in(),
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
                metrics.state_bytes = state.iter().map(OperatorSubtaskState::size).sum();
                let in_flight = state.iter().filter_map(|operator| operator.in_flight.as_ref());
                metrics.persisted_bytes = in_flight.map(StateHandle::size).sum();
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
        let mut in_flight = self.write_in_flight(&snapshot.in_flight)?;
        for (index, part) in snapshot.operators.into_iter().enumerate() {
            if self.is_aborted() {
                // Nobody waits for the rest.
                return Ok(Vec::new());
            }
            let keyed = part.keyed.map(|keyed| self.write_keyed(index, keyed)).transpose()?;
            let (keyed, ahead) = keyed.unzip();
            let ahead = ahead.unwrap_or_default();
            // A task with inputs has no source: the first part is the operator that takes them.
            let in_flight = in_flight.take();
            state.push(OperatorSubtaskState { uid: part.uid, keyed, lists: part.lists, in_flight, ahead });
        }
        Ok(state)
    }

    fn write_in_flight(&self, in_flight: &[EdgeInFlight]) -> Result<Option<StateHandle>> {
        if in_flight.is_empty() {
            return Ok(None);
        }
        let name = self.file_name("in-flight");
        let mut sink = self.sink(&name);
        for piece in in_flight::encode(in_flight)? {
            let written = sink.write_all(&piece).map_err(|error| Error::external(error.to_string()));
            written.map_err(|error| sink.failure().unwrap_or(error))?;
        }
        let data = sink.finish()?;
        match self.setup.backend.snapshot_target() {
            SnapshotTarget::JobManager { max_state_size } if data.size() > max_state_size => {
                Err(Error::invalid(format!(
                    "{} bytes are in flight, more than the {max_state_size} that a state may have in the jobmanager's \
                     memory: raise state.backend.memory.max-state-size or use another state.backend",
                    data.size()
                )))
            }
            _ => Ok(Some(data)),
        }
    }

    /// Unique for ever: a generation is never reused, nor is an attempt within it, and an attempt's task takes part in a
    /// checkpoint once.
    fn file_name(&self, what: impl Display) -> String {
        let TaskSpec { generation, attempt, task, .. } = self.setup.spec;
        format!("{generation}-{attempt}-{}-{}-{what}.state", task.vertex, task.subtask)
    }

    fn sink<'a>(&'a self, name: &'a str) -> StateSink<'a, impl Fn() -> Result<(StateWriter, LocalCopy<'a>)> + 'a> {
        let setup = &self.setup;
        StateSink::new(deploy::inline_limit(setup), &self.aborted, setup.runtime.clone(), move || {
            let file = setup.storage.state_writer(setup.job, self.checkpoint, name)?;
            let local = setup.local.as_deref();
            Ok((file, local.and_then(|local| Some((local, local.writer(self.checkpoint, name)?)))))
        })
    }

    /// The state, and the files that were written ahead of later checkpoints.
    fn write_keyed(&self, index: usize, part: KeyedPart) -> Result<(KeyedStateHandle, Vec<SharedFile>)> {
        let KeyedPart { mut snapshot, uploaded } = part;
        let setup = &self.setup;
        let spec = &setup.spec;
        let parallelism = setup.graph.vertex(spec.task.vertex).parallelism;
        let range = KeyGroupRange::of_subtask(setup.graph.max_parallelism, parallelism, spec.task.subtask);
        let name = self.file_name(index);
        let mut ahead = Vec::new();
        let shared = match snapshot.files()? {
            Some(StateInFiles { files, expiring }) => {
                let all = [files.files.as_slice(), &files.ahead].concat();
                let written = setup.storage.write_shared(setup.job, self.checkpoint, &all, &uploaded);
                let mut needed = setup.runtime.block_on(written)?;
                ahead = needed.split_off(files.files.len());
                Some((needed, expiring))
            }
            None => None,
        };
        let mut sink = self.sink(&name);
        snapshot.write(&mut sink).map_err(|error| sink.failure().unwrap_or(error))?;
        let data = match (sink.finish()?, shared) {
            (data, None) => data,
            (data, Some((files, expiring))) => {
                let (snapshot, format) = (data.try_into()?, setup.backend.name().to_string());
                StateHandle::Shared(Box::new(SharedState { snapshot, format, expiring, files }))
            }
        };
        Ok((KeyedStateHandle { range, data }, ahead))
    }
}

fn newly_written(state: &OperatorSubtaskState, checkpoint: CheckpointId) -> u64 {
    let shared = state.keyed.as_ref().map_or(&[][..], |keyed| keyed.data.shared_files());
    let all = |files: &[SharedFile]| files.iter().map(|shared| shared.file.size).sum::<u64>();
    state.size() - all(shared) + written_by(checkpoint, shared) + written_by(checkpoint, &state.ahead)
}
