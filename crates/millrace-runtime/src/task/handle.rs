//! Starting a task, and what its taskmanager holds of it.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use millrace_core::{
    Error, Result,
    clock::Clock,
    ids::{Attempt, JobId, TaskId},
};
use millrace_state::{
    BackendRegistry, StateBackend,
    memory::MemoryGuard,
    storage::{CheckpointStorage, LocalState},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    DebloatSettings, TaskCommand, TaskEvent, TaskSpec,
    control::TaskControl,
    gate::{ChannelId, Gate},
    run,
};
use crate::{
    graph::{JobGraph, Partitioning},
    metrics::{ShownTask, TaskMetrics},
    network::NetworkEnvironment,
};

/// How a taskmanager's tasks behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSettings {
    /// How many batches wait in a channel.
    pub queue_capacity: usize,
    /// The most records in a batch.
    pub max_batch_size: usize,
    /// Snapshots up to this size in bytes travel inside the checkpoint's metadata.
    pub inline_threshold: usize,
    /// How channels adapt to what the task gets through; `None`: not at all.
    pub debloat: Option<DebloatSettings>,
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            queue_capacity: 8,
            max_batch_size: 1024,
            inline_threshold: 20 << 10,
            debloat: Some(DebloatSettings::default()),
        }
    }
}

/// Everything that a task needs.
pub struct TaskSetup {
    /// The job graph, in the slots that the job runs in.
    pub graph: Arc<JobGraph>,
    /// The subtask.
    pub spec: TaskSpec,
    /// The job.
    pub job: JobId,
    /// Where snapshots are read and written.
    pub storage: Arc<CheckpointStorage>,
    /// Where local copies of snapshots are, where such are kept.
    pub local: Option<Arc<LocalState>>,
    /// Makes keyed state.
    pub backend: Arc<dyn StateBackend>,
    /// All that there are: one may have to read what another has written.
    pub backends: BackendRegistry,
    /// The data plane of this process.
    pub network: Arc<NetworkEnvironment>,
    /// Takes what the task tells.
    pub events: UnboundedSender<(TaskId, Attempt, TaskEvent)>,
    /// Runs what is asynchronous.
    pub runtime: tokio::runtime::Handle,
    /// How the task behaves.
    pub settings: TaskSettings,
    /// The time that timers and state's expiry go by.
    pub clock: Clock,
    /// Tells when the process takes too much memory.
    pub memory: Arc<MemoryGuard>,
    /// The registry of the process, for the task's counters and functions' own metrics.
    pub metrics: prometheus::Registry,
}

impl TaskSetup {
    pub(super) fn tell(&self, event: TaskEvent) {
        // A taskmanager that does not listen any more has ended, and the task with it.
        let _ = self.events.send((self.spec.task, self.spec.attempt, event));
    }
}

/// The input channels of a subtask, in the order of edges and producers.
pub fn input_channels(graph: &JobGraph, task: TaskId) -> Vec<ChannelId> {
    let mut channels = Vec::new();
    for (index, edge) in graph.edges_into(task.vertex) {
        let producers = match edge.partitioning {
            Partitioning::Forward => task.subtask..task.subtask + 1,
            _ => 0..graph.vertex(edge.from).parallelism,
        };
        let channel = |producer| ChannelId { input: edge.input, edge: index as u32, producer };
        channels.extend(producers.map(channel));
    }
    channels
}

/// The edges in whose channels barriers may overtake records: those of which any consumer can take any record's place
/// in a restored job. Behind the others what is in flight belongs to one subtask.
fn overtaking_edges(graph: &JobGraph, task: TaskId) -> Vec<u32> {
    if graph.vertex(task.vertex).operators.is_empty() {
        // What is in flight belongs to an operator's state.
        return Vec::new();
    }
    let all_to_all = graph.edges_into(task.vertex).filter(|(_, edge)| edge.partitioning.is_all_to_all());
    all_to_all.map(|(index, _)| index as u32).collect()
}

/// A running task.
pub struct TaskHandle {
    task: TaskId,
    attempt: Attempt,
    gate: Arc<Gate>,
    control: Arc<TaskControl>,
    metrics: Arc<TaskMetrics>,
    done: Arc<Done>,
}

/// Starts a task on a thread of its own. Everything that happens to it, failures of its start too, is told as an event.
pub fn spawn_task(setup: TaskSetup) -> Result<TaskHandle> {
    let TaskSpec { task, attempt, .. } = setup.spec;
    let vertex = setup.graph.vertices.get(task.vertex.0 as usize).ok_or_else(|| {
        Error::internal(format!("task {task} is of a vertex that the job graph does not have")).fatal()
    })?;
    let name = format!("{} ({}/{})", vertex.name, task.subtask + 1, vertex.parallelism);
    let overtaking = match setup.spec.barriers {
        Some(barriers) if barriers.aligned_timeout.is_some() => overtaking_edges(&setup.graph, task),
        _ => Vec::new(),
    };
    let gate = Gate::new(input_channels(&setup.graph, task), setup.settings.queue_capacity, overtaking);
    if setup.settings.debloat.is_some() {
        gate.limit_until_measured(setup.settings.max_batch_size);
    }
    let handle = TaskHandle {
        task,
        attempt,
        gate: Arc::clone(&gate),
        control: Arc::default(),
        metrics: Arc::default(),
        done: Arc::default(),
    };
    let (control, metrics) = (Arc::clone(&handle.control), Arc::clone(&handle.metrics));
    let shown = ShownTask::register(&setup.metrics, &vertex.name, task, attempt, &metrics)?;
    let done = SetOnDrop(Arc::clone(&handle.done));
    let body = move || {
        run::run(setup, gate, control, metrics, shown);
        drop(done);
    };
    thread::Builder::new()
        .name(name.replace('\0', ""))
        .spawn(body)
        .map_err(|error| Error::external(format!("no thread for task {name}: {error}")))?;
    Ok(handle)
}

impl TaskHandle {
    /// The subtask.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The start of the job that it belongs to.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<TaskMetrics> {
        &self.metrics
    }

    /// Gives it a command.
    pub fn command(&self, command: TaskCommand) {
        match command {
            TaskCommand::Cancel => self.cancel(),
            command => self.gate.command(command),
        }
    }

    /// Ends it wherever it waits. User code that is running is not interrupted: see [`Self::join_timeout`].
    pub fn cancel(&self) {
        self.control.cancel();
        self.gate.close();
    }

    /// Tells when its thread has ended, also after this handle was dropped.
    pub fn done(&self) -> TaskDone {
        TaskDone(Arc::clone(&self.done))
    }

    /// Whether its thread has ended.
    pub fn is_finished(&self) -> bool {
        self.done().is_set()
    }

    /// Waits for the end of its thread; false where that takes longer. A thread can't be ended from outside: after a
    /// cancellation that is ignored, the process has to end.
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        let ended = self.done.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.done.changed.wait_timeout_while(ended, timeout, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Tells whether a task's thread has ended.
#[derive(Clone)]
pub struct TaskDone(Arc<Done>);

impl TaskDone {
    /// Whether it has.
    pub fn is_set(&self) -> bool {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Done {
    ended: Mutex<bool>,
    changed: Condvar,
}

struct SetOnDrop(Arc<Done>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}
