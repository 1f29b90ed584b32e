//! The tasks that a taskmanager runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millrace_core::{
    Error, Result,
    ids::{Attempt, Generation, JobId, TaskId},
};
use millrace_runtime::{
    network::{NetworkEnvironment, NetworkSettings},
    scheduler::adoption::AdoptableTask,
    task::{TaskCommand, TaskEvent, TaskFailure, TaskHandle, TaskSettings, TaskSetup, TaskSpec, spawn_task},
};
use millrace_state::{
    backend::StateBackend,
    storage::{CheckpointStorage, LocalState},
};
use tokio::sync::mpsc;

use super::{TaskManagerSetup, running::RunningTask};
use crate::{
    rpc::{JobSettings, TaskManagerMetrics, TaskReport, ToTaskManager},
    stores,
};

type Told = (TaskId, Attempt, TaskEvent);

/// What holds for all tasks of a job.
struct Job {
    id: JobId,
    settings: JobSettings,
    storage: Arc<CheckpointStorage>,
    local: Option<Arc<LocalState>>,
    backend: Arc<dyn StateBackend>,
    network: Arc<NetworkEnvironment>,
}

/// The tasks that run, and the job that they belong to.
pub struct Tasks<'a> {
    setup: &'a TaskManagerSetup,
    listener: Option<std::net::TcpListener>,
    job: Option<Job>,
    generation: Generation,
    running: BTreeMap<(Attempt, TaskId), RunningTask>,
    /// All were told to end.
    ending: bool,
    tell: mpsc::UnboundedSender<Told>,
    told: mpsc::UnboundedReceiver<Told>,
}

impl<'a> Tasks<'a> {
    /// No tasks yet. `listener` is the data port.
    pub fn new(setup: &'a TaskManagerSetup, listener: std::net::TcpListener) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Self {
            setup,
            listener: Some(listener),
            job: None,
            generation: Generation(0),
            running: BTreeMap::new(),
            ending: false,
            tell,
            told,
        }
    }

    /// Makes everything ready that the job's tasks share.
    pub fn belong_to(&mut self, job: JobId, generation: Generation, settings: &JobSettings) -> Result<()> {
        self.generation = generation;
        if self.job.as_ref().is_some_and(|known| known.id == job && known.settings == *settings) {
            return Ok(());
        }
        let own = &self.setup.settings;
        let storage = stores::open(settings.checkpoint_dir.as_deref(), own)?;
        let network = match (&self.job, self.listener.take()) {
            (Some(known), _) if known.id == job => Arc::clone(&known.network),
            (_, Some(listener)) => {
                let mut network = NetworkSettings::new(job, self.setup.location.id.clone());
                network.auth = own.security_token.as_ref().map_or_else(Vec::new, |token| token.0.clone().into_bytes());
                let _inside = self.setup.io.enter();
                NetworkEnvironment::serve(listener, network)?
            }
            _ => return Err(Error::invalid(format!("this taskmanager belongs to another job than {job}"))),
        };
        // What a directory of this machine has is read as it is.
        let local = match (&self.job, &own.local_state) {
            (Some(known), _) if known.id == job => known.local.clone(),
            (_, Some(root)) if !storage.is_local() && !storage.is_volatile() => {
                Some(Arc::new(LocalState::open(root, job)?))
            }
            _ => None,
        };
        self.job = Some(Job {
            id: job,
            settings: settings.clone(),
            storage: Arc::new(storage),
            local,
            backend: self.setup.backends.get(&settings.state_backend)?,
            network,
        });
        Ok(())
    }

    /// Does what the jobmanager says.
    pub fn obey(&mut self, message: ToTaskManager) {
        match message {
            ToTaskManager::Deploy(attempt, specs) => {
                for spec in specs {
                    self.deploy(attempt, spec);
                }
            }
            ToTaskManager::Command(attempt, tasks, command) => {
                for task in tasks {
                    if let Some(running) = self.running.get_mut(&(attempt, task)) {
                        running.command(&command);
                    }
                }
                if matches!(command, TaskCommand::Cancel) {
                    self.watch_cancellation();
                }
            }
            ToTaskManager::CommandAll(attempt, command) => {
                for (_, running) in self.running.iter_mut().filter(|((of, _), _)| *of == attempt) {
                    running.command(&command);
                }
            }
            ToTaskManager::Join(attempt) => self.running.values_mut().for_each(|running| running.join(attempt)),
            ToTaskManager::Adopt(attempt, checkpoint) => {
                self.running.values_mut().for_each(|running| running.adopted(self.generation, attempt, checkpoint));
            }
            ToTaskManager::Heartbeat | ToTaskManager::ComeAnew | ToTaskManager::Release | ToTaskManager::Shutdown => {}
        }
    }

    fn deploy(&mut self, attempt: Attempt, spec: TaskSpec) {
        let (task, report) = (spec.task, RunningTask::begin(&spec));
        match self.start(spec) {
            Ok(handle) => {
                self.running.insert((attempt, task), report(handle));
            }
            Err(error) => {
                let failure = TaskEvent::Failed(TaskFailure { error, position: None });
                let _ = self.tell.send((task, attempt, failure));
            }
        }
    }

    fn start(&self, spec: TaskSpec) -> Result<TaskHandle> {
        let job = self.job.as_ref().ok_or_else(|| Error::internal("a task came before its job"))?;
        let settings = &self.setup.settings;
        let program = &self.setup.graph;
        let graph = match spec.slots < program.slots_needed() {
            true => Arc::new(program.in_slots(spec.slots)),
            false => Arc::clone(program),
        };
        spawn_task(TaskSetup {
            graph,
            spec,
            job: job.id,
            storage: Arc::clone(&job.storage),
            local: job.local.clone(),
            backend: Arc::clone(&job.backend),
            backends: self.setup.backends.clone(),
            network: Arc::clone(&job.network),
            events: self.tell.clone(),
            runtime: self.setup.io.clone(),
            settings: TaskSettings {
                queue_capacity: settings.taskmanager.buffers_per_channel as usize,
                inline_threshold: settings.data_inline_threshold as usize,
                debloat: settings.taskmanager.debloat,
                ..TaskSettings::default()
            },
            memory: Arc::clone(&self.setup.memory),
            metrics: self.setup.metrics.clone(),
            clock: self.setup.clock.clone(),
        })
    }

    /// The next thing that a task tells.
    pub async fn next_event(&mut self) -> (Attempt, TaskId, TaskEvent) {
        // This side holds a sender too: the channel is never closed.
        let Some((task, attempt, event)) = self.told.recv().await else { return std::future::pending().await };
        self.note(attempt, task, &event);
        (attempt, task, event)
    }

    fn note(&mut self, attempt: Attempt, task: TaskId, event: &TaskEvent) {
        if matches!(event, TaskEvent::EndOfInput)
            && let Some(running) = self.running.get_mut(&(attempt, task))
        {
            running.ended();
        }
        if matches!(event, TaskEvent::Finished | TaskEvent::Canceled | TaskEvent::Failed(_)) {
            self.running.remove(&(attempt, task));
        }
    }

    /// Lets time pass while there is nobody to tell.
    pub async fn discard_events_for(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, async {
            loop {
                self.next_event().await;
            }
        })
        .await;
    }

    /// Ends all tasks.
    pub fn cancel_all(&mut self, why: &str) {
        if !self.running.is_empty() && !std::mem::replace(&mut self.ending, true) {
            tracing::info!(tasks = self.running.len(), "cancelling all tasks: {why}");
            self.running.values_mut().for_each(|running| running.command(&TaskCommand::Cancel));
            self.watch_cancellation();
        }
    }

    /// Returns when no task runs any more.
    pub async fn until_all_ended(&mut self) {
        while !self.running.is_empty() {
            self.next_event().await;
        }
        self.ending = false;
    }

    /// Whether all tasks were told to end.
    pub fn are_ending(&self) -> bool {
        self.ending
    }

    /// The tasks that run, for a new jobmanager.
    pub fn report(&self) -> Vec<AdoptableTask> {
        self.running.values().map(RunningTask::report).collect()
    }

    /// A thread can't be ended from outside: when a cancelled task goes on for too long, its process has to end.
    fn watch_cancellation(&self) {
        let canceled = self.running.iter().filter(|(_, running)| running.is_canceled());
        let watched: Vec<_> = canceled.map(|((_, task), running)| (*task, running.handle().done())).collect();
        let limit = self.setup.settings.taskmanager.cancellation_timeout;
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            let stuck: Vec<_> =
                watched.iter().filter(|(_, done)| !done.is_set()).map(|(task, _)| task.to_string()).collect();
            if !stuck.is_empty() {
                tracing::error!(?stuck, "tasks ignore their cancellation for {limit:?}; ending the process");
                std::process::exit(70);
            }
        });
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        !self.running.is_empty()
    }

    /// How many records each task has taken.
    pub fn progress(&self) -> Vec<(TaskId, u64)> {
        let taken = |((_, task), running): (&(Attempt, TaskId), &RunningTask)| {
            (*task, running.handle().metrics().num_records_in())
        };
        self.running.iter().map(taken).collect()
    }

    /// What the tasks have done.
    pub fn metrics(&self) -> TaskManagerMetrics {
        let report = |((_, task), running): (&(Attempt, TaskId), &RunningTask)| {
            let metrics = running.handle().metrics();
            TaskReport { task: *task, counters: metrics.snapshot(), figures: metrics.figures() }
        };
        TaskManagerMetrics { tasks: self.running.iter().map(report).collect(), process: self.setup.probe.look() }
    }
}
