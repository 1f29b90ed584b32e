//! The jobmanager: one loop that owns the job. It feeds what happens to the pure scheduler and checkpoint coordinator
//! and carries out what they ask for; whatever waits (the store, sources, timers) runs beside it and comes back as an
//! event.

mod adoption;
mod checkpoints;
mod deletion;
mod deployment;
mod ending;
mod hand_over;
mod progress;
mod publish;
mod recovered;
mod recovery;
mod registration;
mod restore;
mod schedule;
mod splits;
mod takeover;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use millrace_core::{
    Error, Result,
    checkpoint::CheckpointConfig,
    ids::{Attempt, CheckpointId, Generation, JobId, TaskId, TaskManagerId},
    rest::{CheckpointStatistics, ExecutionState, JobStatus},
};
use millrace_runtime::{
    coordinator::{CheckpointCoordinator, CoordinatorEvent},
    graph::JobGraph,
    metrics::{TaskFigures, TaskMetricsSnapshot, TaskRates},
    scheduler::{JobResult, JobScheduler, Plan, adoption::Adoption},
    task::TaskManagerLocation,
};
use millrace_state::{
    log::{JobLog, LogError},
    metadata::CheckpointMetadata,
    storage::CheckpointStorage,
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

pub use deletion::delete_job;
pub use publish::first_view;
pub use registration::{Admission, PeerEvent, listen, serve};
pub use takeover::{Found, Taken, take_over};

use crate::{
    config::Settings,
    rest::{JobCommand, JobView},
    rpc::{ProcessFigures, Sender, ToTaskManager},
};
use hand_over::HandOver;
use progress::{RecordCounts, SourceProgress};
use recovery::RecoveryClock;
use restore::Restored;
use splits::{Enumerators, InitialSplits};

/// What a jobmanager is made of.
pub struct JobManagerSetup {
    /// The program's graph.
    pub graph: Arc<JobGraph>,
    /// Its settings.
    pub settings: Settings,
    /// The job.
    pub job: JobId,
    /// The time since this process started.
    pub clock: Clock,
    /// Its store and log, which has been claimed.
    pub taken: Box<Taken>,
    /// What happens at the door.
    pub peers: mpsc::UnboundedReceiver<PeerEvent>,
    /// Where the job's state is published.
    pub view: watch::Sender<Arc<JobView>>,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct JobOutcome {
    /// The result.
    pub result: JobResult,
    /// The newest checkpoint, where it was kept for another run.
    pub retained_checkpoint: Option<String>,
    /// What was to be deleted and is still there, and why.
    pub left_behind: Option<String>,
}

/// What comes back from beside the loop.
enum Event {
    /// The tasks of an earlier jobmanager were waited for; the second time for the last time.
    AdoptionTimer {
        last: bool,
    },
    Restored(Attempt, Result<Option<Restored>>),
    Marked(Attempt, Result<(), LogError>),
    Splits(splits::Found),
    Coordinator(CoordinatorEvent),
    RestartTimer(Attempt),
    Peer(PeerEvent),
    /// It is time to see whether there are slots enough.
    LookTimer,
    Ended(Result<JobOutcome>),
}

/// A taskmanager that belongs to the job.
struct TaskManager {
    location: TaskManagerLocation,
    /// Its name for people, which it keeps when it is started again.
    resource_id: String,
    /// Tells its connection from an earlier one.
    connection: u64,
    slots: u32,
    pid: u32,
    sender: Sender<ToTaskManager>,
    heard_at_ms: u64,
    process: ProcessFigures,
    /// It runs tasks of an earlier jobmanager; its slots don't count before these are adopted or have ended.
    running: bool,
    /// It was told to end.
    leaving: bool,
}

/// What an attempt starts from.
#[derive(Default)]
struct AttemptState {
    restored: Option<Restored>,
    sources: InitialSplits,
    enumerators: Option<Enumerators>,
    /// Sources wait for a first checkpoint.
    held: bool,
    /// All tasks were deployed and told to run.
    started: bool,
    tasks: BTreeMap<TaskId, TaskState>,
    /// What the sources read again.
    again: RecordCounts,
}

#[derive(Clone)]
struct TaskState {
    execution: ExecutionState,
    counters: TaskMetricsSnapshot,
    /// What the current rates began with.
    window: TaskMetricsSnapshot,
    rates: Option<TaskRates>,
    figures: Arc<TaskFigures>,
}

impl TaskState {
    fn new(execution: ExecutionState) -> Self {
        let (counters, figures) = (TaskMetricsSnapshot::default(), Arc::default());
        Self { execution, counters, window: counters, rates: None, figures }
    }

    /// Takes what the task's taskmanager reports.
    fn report(&mut self, counters: TaskMetricsSnapshot, figures: TaskFigures) {
        self.counters = counters;
        if let Some(rates) = TaskRates::between(&self.window, &counters) {
            (self.window, self.rates) = (counters, Some(rates));
        }
        self.figures = Arc::new(figures);
    }
}

struct JobManager {
    /// The program's graph.
    program: Arc<JobGraph>,
    /// The same in the slots that the job runs in.
    graph: Arc<JobGraph>,
    settings: Settings,
    checkpoints: CheckpointConfig,
    job: JobId,
    generation: Generation,
    storage: CheckpointStorage,
    log: Arc<Mutex<JobLog>>,
    scheduler: JobScheduler,
    coordinator: CheckpointCoordinator,
    taskmanagers: BTreeMap<TaskManagerId, TaskManager>,
    /// The tasks that ran under an earlier jobmanager, while it is not decided what becomes of them.
    adoption: Option<Adoption>,
    attempt: AttemptState,
    /// An attempt whose restore point is not decided yet: a checkpoint is just being completed.
    undecided: Option<Attempt>,
    /// The metadata that this jobmanager has written, of the newest completed checkpoint and of later ones: a restart need
    /// not read it.
    written: BTreeMap<CheckpointId, Arc<CheckpointMetadata>>,
    /// Checkpoints that can't be read.
    damaged: BTreeSet<CheckpointId>,
    /// The splits that each source task was given.
    splits: BTreeMap<TaskId, Vec<String>>,
    /// Abandoned checkpoints may have left files.
    garbage: bool,
    hand_over: Option<HandOver>,
    recovery: RecoveryClock,
    progress: SourceProgress,
    /// The taskmanager whose loss is being reported: its resource id, and when that happened.
    losing: Option<(String, Duration)>,
    /// The newest checkpoint of the incarnations before this one.
    inherited: Option<CheckpointStatistics>,
    /// Where the record was read that the task failed on whose failure is being reported.
    failed_position: Option<String>,
    view: JobView,
    published: watch::Sender<Arc<JobView>>,
    events: mpsc::UnboundedSender<Event>,
    clock: Clock,
    waiting_logged: Option<(u32, u32)>,
    /// Nothing has happened but that tasks told how far they are.
    only_progress: bool,
    /// Tasks have run under this jobmanager.
    has_run: bool,
    /// The final checkpoint of the attempt has been asked for.
    final_triggered: bool,
    /// The job has ended, and that is being written down.
    ending: bool,
    /// With its end, all of the job is deleted from the store.
    delete: bool,
}

/// Wall-clock milliseconds that never go back.
#[derive(Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    /// From now on.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_ms: since_epoch.as_millis() as u64 }
    }

    fn elapsed(self) -> Duration {
        self.started.elapsed()
    }

    /// Milliseconds since the epoch.
    pub fn now_ms(self) -> u64 {
        self.started_ms + self.elapsed().as_millis() as u64
    }

    /// The time from the start to a moment.
    fn until(self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    fn instant(self, ms: u64) -> Instant {
        self.started + Duration::from_millis(ms.saturating_sub(self.started_ms))
    }
}

/// Runs the job to its end. An error means that this jobmanager could not go on, not that the job failed.
pub async fn run(setup: JobManagerSetup, commands: &mut mpsc::Receiver<JobCommand>) -> Result<JobOutcome> {
    let Taken { storage, log, generation, next_id, newest, continues, marked } = *setup.taken;
    let history = log.view().checkpoints().map(|record| record.id).collect();
    let (events, inbox) = mpsc::unbounded_channel();
    let checkpoints = setup.settings.checkpoint.clone();
    let clock = setup.clock;
    let mut view = JobView::clone(&setup.view.borrow());
    (view.generation, view.waiting_for) = (generation, None);
    view.enter(JobStatus::Created, clock.now_ms());
    let mut recovery = RecoveryClock::default();
    if generation > Generation(1) {
        recovery.took_over(clock.elapsed(), &format!("the jobmanager was restarted (generation {generation})"));
    }
    let plan = Plan::new(&setup.graph, checkpoints.is_enabled());
    let mut scheduler = JobScheduler::new(plan, setup.settings.restart_strategy.clone());
    if generation > Generation(1) {
        scheduler = scheduler.taken_over();
    }
    let mut manager = JobManager {
        scheduler: match setup.settings.jobmanager.adaptive {
            Some(adaptive) => scheduler.adaptive(adaptive),
            None => scheduler,
        },
        coordinator: CheckpointCoordinator::recovered(checkpoints.clone(), generation, history, next_id),
        view,
        program: Arc::clone(&setup.graph),
        graph: setup.graph,
        settings: setup.settings,
        checkpoints,
        job: setup.job,
        generation,
        storage,
        log: Arc::new(Mutex::new(log)),
        taskmanagers: BTreeMap::new(),
        adoption: None,
        attempt: AttemptState::default(),
        undecided: None,
        written: BTreeMap::new(),
        damaged: BTreeSet::new(),
        splits: BTreeMap::new(),
        // of earlier incarnations
        garbage: true,
        hand_over: None,
        recovery,
        progress: SourceProgress::default(),
        losing: None,
        inherited: newest,
        failed_position: None,
        published: setup.view,
        events,
        clock,
        waiting_logged: None,
        only_progress: false,
        has_run: false,
        final_triggered: false,
        ending: false,
        delete: false,
    };
    manager.look_for_tasks(continues, marked);
    manager.run(setup.peers, commands, inbox).await
}

impl JobManager {
    async fn run(
        mut self,
        mut peers: mpsc::UnboundedReceiver<PeerEvent>,
        commands: &mut mpsc::Receiver<JobCommand>,
        mut inbox: mpsc::UnboundedReceiver<Event>,
    ) -> Result<JobOutcome> {
        // The first when taskmanagers that start beside this process have had the time to come.
        let interval = self.settings.heartbeat.interval;
        let mut routine = tokio::time::interval_at(Instant::now() + interval, interval);
        routine.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // How far tasks are is told often, and shown with whatever comes next.
            if !std::mem::take(&mut self.only_progress) {
                self.publish();
            }
            let wakeup = self.coordinator.next_wakeup().map(|ms| self.clock.instant(ms));
            tokio::select! {
                Some(event) = peers.recv() => self.on_peer(event),
                // Tasks that are about to report themselves would not hear of it.
                Some(command) = commands.recv(), if self.adoption.is_none() => self.on_command(command),
                Some(event) = inbox.recv() => match event {
                    Event::Ended(outcome) => return self.conclude(outcome, &mut peers).await,
                    event => self.on_event(event),
                },
                () = until(wakeup) => self.coordinate(CoordinatorEvent::Tick),
                _ = routine.tick() => self.routine(),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::AdoptionTimer { last } => self.adoption_timer(last),
            Event::Restored(attempt, restored) => self.restored(attempt, restored),
            Event::Marked(attempt, marked) => self.marked(attempt, marked),
            Event::Splits(found) => self.splits_found(found),
            Event::Coordinator(event) => self.coordinate(event),
            Event::RestartTimer(attempt) => {
                self.schedule(millrace_runtime::scheduler::Event::RestartTimer(attempt));
            }
            Event::LookTimer => self.schedule(millrace_runtime::scheduler::Event::LookTimer),
            Event::Peer(event) => self.on_peer(event),
            Event::Ended(_) => {}
        }
    }

    fn on_command(&mut self, command: JobCommand) {
        let event = match command {
            JobCommand::Cancel(_) | JobCommand::Delete(_) => millrace_runtime::scheduler::Event::Cancel,
            JobCommand::Stop(_) => millrace_runtime::scheduler::Event::Stop,
        };
        tracing::info!(?command, "a user asks");
        self.delete |= matches!(command, JobCommand::Delete(_));
        let has_ended = self.scheduler.status().is_terminal();
        let answer = match has_ended && !self.delete {
            true => Err(Error::invalid("the job has ended already")),
            false => Ok(()),
        };
        if !has_ended {
            self.schedule(event);
        }
        command.answer(answer);
    }
}

/// Waits for a moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
