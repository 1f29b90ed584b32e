//! Taskmanagers in one process, and what a jobmanager would do with them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_core::{
    checkpoint::CheckpointBarrier,
    clock::Clock,
    codec,
    ids::{Attempt, CheckpointId, Generation, JobId, TaskId, TaskManagerId, VertexId},
    source::SourceSplit,
};
use millrace_runtime::{
    graph::JobGraph,
    network::{NetworkEnvironment, NetworkSettings},
    source::EncodedSplit,
    task::{
        BarrierHandling, OperatorRestore, TaskCommand, TaskEvent, TaskFailure, TaskHandle, TaskManagerLocation,
        TaskSettings, TaskSetup, TaskSpec, spawn_task,
    },
};
use millrace_state::{
    BackendRegistry, MemoryStateBackend, OperatorSubtaskState, StateBackend,
    assignment::InFlightHandle,
    storage::{CheckpointStorage, StorageOptions},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::numbers::NumberSplit;

pub const JOB: JobId = JobId(42);
/// Far beyond what anything takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::yield_now();
    }
}

/// The subtask of a vertex.
pub fn task(vertex: u32, subtask: u32) -> TaskId {
    TaskId { vertex: VertexId(vertex), subtask }
}

/// A split as the jobmanager would assign it.
pub fn split(split: u32, range: std::ops::Range<u64>) -> EncodedSplit {
    let split = NumberSplit { split, next: range.start, end: range.end };
    EncodedSplit { id: split.split_id(), bytes: codec::encode(&split).unwrap() }
}

pub struct Cluster {
    pub runtime: tokio::runtime::Runtime,
    pub networks: Vec<Arc<NetworkEnvironment>>,
    pub storage: CheckpointStorage,
    pub backend: Arc<dyn StateBackend>,
    pub settings: TaskSettings,
    pub registry: prometheus::Registry,
    pub clock: Clock,
    pub handles: BTreeMap<TaskId, TaskHandle>,
    attempt: Attempt,
    checkpoint: u64,
    sender: UnboundedSender<(TaskId, Attempt, TaskEvent)>,
    events: UnboundedReceiver<(TaskId, Attempt, TaskEvent)>,
    unread: VecDeque<(TaskId, TaskEvent)>,
}

impl Cluster {
    /// As many taskmanagers, connected by sockets.
    pub fn new(taskmanagers: u32) -> Self {
        Self::with_network(taskmanagers, |_| {})
    }

    pub fn with_network(taskmanagers: u32, change: impl Fn(&mut NetworkSettings)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bind = |index| {
            let mut settings = NetworkSettings::new(JOB, TaskManagerId(format!("tm-{index}")));
            change(&mut settings);
            runtime.block_on(NetworkEnvironment::bind("127.0.0.1:0", settings)).unwrap()
        };
        let networks = (0..taskmanagers).map(bind).collect();
        let (sender, events) = unbounded_channel();
        Self {
            runtime,
            networks,
            storage: CheckpointStorage::open("memory:", &StorageOptions::default()).unwrap(),
            backend: Arc::new(MemoryStateBackend::default()),
            settings: TaskSettings::default(),
            registry: prometheus::Registry::new(),
            clock: Clock::system(),
            handles: BTreeMap::new(),
            attempt: Attempt(0),
            checkpoint: 0,
            sender,
            events,
            unread: VecDeque::new(),
        }
    }

    /// The taskmanager of a subtask: neighbours are on different ones.
    pub fn place(&self, task: TaskId) -> usize {
        (task.vertex.0 + task.subtask) as usize % self.networks.len()
    }

    fn location(&self, task: TaskId) -> TaskManagerLocation {
        let network = &self.networks[self.place(task)];
        TaskManagerLocation { id: network.taskmanager().clone(), data_address: network.address().to_string() }
    }

    /// What a task is told to be: nothing to restore, no splits.
    pub fn spec(&self, graph: &JobGraph, task: TaskId) -> TaskSpec {
        let consumers = graph.edges_from(task.vertex).map(|(_, edge)| {
            let all = 0..graph.vertex(edge.to).parallelism;
            all.map(|subtask| self.location(TaskId { vertex: edge.to, subtask })).collect()
        });
        TaskSpec {
            task,
            generation: Generation(1),
            attempt: self.attempt,
            slots: graph.slots_needed(),
            barriers: Some(BarrierHandling::default()),
            consumers: consumers.collect(),
            restore: Vec::new(),
            splits: Vec::new(),
            more_splits: false,
            hold_source: false,
            allow_non_restored: false,
            again: 0,
            continues: None,
        }
    }

    /// Spawns all tasks of a new attempt, each as `change` wants it.
    pub fn spawn(&mut self, graph: &Arc<JobGraph>, change: impl Fn(&mut TaskSpec)) {
        self.attempt = self.attempt.next();
        self.handles.clear();
        for vertex in &graph.vertices {
            for subtask in 0..vertex.parallelism {
                let mut spec = self.spec(graph, TaskId { vertex: vertex.id, subtask });
                change(&mut spec);
                let handle = spawn_task(self.setup(graph, spec)).unwrap();
                self.handles.insert(handle.task(), handle);
            }
        }
    }

    fn setup(&self, graph: &Arc<JobGraph>, spec: TaskSpec) -> TaskSetup {
        TaskSetup {
            graph: Arc::clone(graph),
            job: JOB,
            storage: Arc::new(self.storage.clone()),
            local: None,
            backend: Arc::clone(&self.backend),
            backends: BackendRegistry::default(),
            network: Arc::clone(&self.networks[self.place(spec.task)]),
            events: self.sender.clone(),
            runtime: self.runtime.handle().clone(),
            settings: self.settings.clone(),
            memory: Arc::default(),
            metrics: self.registry.clone(),
            clock: self.clock.clone(),
            spec,
        }
    }

    /// Spawns all tasks, waits until they are deployed and starts them.
    pub fn run(&mut self, graph: &Arc<JobGraph>, change: impl Fn(&mut TaskSpec)) {
        self.spawn(graph, change);
        self.each("is deployed", |event| matches!(event, TaskEvent::Deployed(_)));
        self.command(&TaskCommand::Start);
    }

    /// Gives all tasks a command.
    pub fn command(&self, command: &TaskCommand) {
        self.handles.values().for_each(|handle| handle.command(command.clone()));
    }

    /// Waits for an event.
    pub fn expect<R>(&mut self, what: &str, mut found: impl FnMut(TaskId, &TaskEvent) -> Option<R>) -> R {
        for index in 0..self.unread.len() {
            let (task, event) = &self.unread[index];
            if let Some(result) = found(*task, event) {
                self.unread.remove(index);
                return result;
            }
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self.runtime.block_on(async { tokio::time::timeout(left, self.events.recv()).await });
            let (task, attempt, event) =
                next.unwrap_or_else(|_| panic!("no event {what}; unread: {:?}", self.unread)).unwrap();
            if attempt != self.attempt {
                continue;
            }
            if let Some(result) = found(task, &event) {
                return result;
            }
            self.unread.push_back((task, event));
        }
    }

    /// Waits for an event of each task.
    pub fn each(&mut self, what: &str, is: impl Fn(&TaskEvent) -> bool) {
        for task in self.handles.keys().copied().collect::<Vec<_>>() {
            self.expect(&format!("that {task} {what}"), |of, event| (of == task && is(event)).then_some(()));
        }
    }

    /// Waits until a task has failed.
    pub fn failure(&mut self, task: TaskId) -> TaskFailure {
        self.expect(&format!("that {task} has failed"), |of, event| match event {
            TaskEvent::Failed(failure) if of == task => Some(failure.clone()),
            _ => None,
        })
    }

    /// Waits for the end of all input and lets all tasks finish.
    pub fn finish(&mut self) {
        self.each("has read its input", |event| matches!(event, TaskEvent::EndOfInput));
        self.command(&TaskCommand::Finish);
        self.each("has finished", |event| matches!(event, TaskEvent::Finished));
        self.join();
    }

    /// Cancels all tasks and waits until they have ended.
    pub fn cancel(&mut self) {
        self.command(&TaskCommand::Cancel);
        self.join();
    }

    /// Waits until all threads have ended.
    pub fn join(&self) {
        for handle in self.handles.values() {
            assert!(handle.join_timeout(DEADLINE), "{} goes on", handle.task());
        }
    }

    /// The next checkpoint's barrier.
    pub fn barrier(&mut self) -> CheckpointBarrier {
        self.checkpoint += 1;
        CheckpointBarrier { id: CheckpointId(self.checkpoint), triggered_at_ms: 0 }
    }

    /// Triggers a checkpoint at these tasks.
    pub fn trigger(&mut self, sources: &[TaskId]) -> CheckpointId {
        let barrier = self.barrier();
        for source in sources {
            self.handles[source].command(TaskCommand::TriggerCheckpoint(barrier));
        }
        barrier.id
    }

    /// Waits for a task's part of a checkpoint.
    pub fn acknowledged(&mut self, task: TaskId, id: CheckpointId) -> Vec<OperatorSubtaskState> {
        self.expect(&format!("that {task} acknowledges {id}"), |of, event| match event {
            TaskEvent::Acknowledged { checkpoint, state, .. } if of == task && *checkpoint == id => Some(state.clone()),
            _ => None,
        })
    }

    /// Whether a task's part of a checkpoint has come.
    pub fn has_acknowledged(&mut self, of: TaskId, id: CheckpointId) -> bool {
        while let Ok((task, attempt, event)) = self.events.try_recv() {
            if attempt == self.attempt {
                self.unread.push_back((task, event));
            }
        }
        let is = |event: &TaskEvent| matches!(event, TaskEvent::Acknowledged { checkpoint, .. } if *checkpoint == id);
        self.unread.iter().any(|(task, event)| *task == of && is(event))
    }

    /// Waits for all parts of a checkpoint.
    pub fn checkpoint(&mut self, id: CheckpointId) -> BTreeMap<TaskId, Vec<OperatorSubtaskState>> {
        let tasks: Vec<_> = self.handles.keys().copied().collect();
        tasks.into_iter().map(|task| (task, self.acknowledged(task, id))).collect()
    }
}

/// What a new subtask of an operator starts from, out of a checkpoint of others: keyed state whole, lists as dealt out.
pub fn restore_of(
    checkpoint: &BTreeMap<TaskId, Vec<OperatorSubtaskState>>,
    vertex: u32,
    uid: &str,
    parallelism: u32,
) -> Vec<OperatorRestore> {
    let old: Vec<_> = checkpoint
        .iter()
        .filter(|(task, _)| task.vertex.0 == vertex)
        .filter_map(|(_, state)| state.iter().find(|operator| operator.uid.0 == uid))
        .collect();
    let lists: Vec<_> = old.iter().map(|state| state.lists.clone()).collect();
    let dealt = millrace_core::operator_state::redistribute(&lists, parallelism);
    let keyed: Vec<_> = old.iter().filter_map(|state| state.keyed.clone()).collect();
    let in_flight = (0..).zip(&old);
    let in_flight =
        in_flight.filter_map(|(subtask, old)| Some(InFlightHandle { subtask, data: old.in_flight.clone()? }));
    let in_flight: Vec<_> = in_flight.collect();
    let uid = old.first().expect("an operator of this uid").uid.clone();
    let restore =
        |lists| OperatorRestore { uid: uid.clone(), keyed: keyed.clone(), lists, in_flight: in_flight.clone() };
    dealt.into_iter().map(restore).collect()
}
