//! Taskmanagers and tasks: what they report goes to the scheduler, and what it asks for goes to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millrace_core::{
    Error,
    ids::{Attempt, TaskId, TaskManagerId},
    rest::ExecutionState,
};
use millrace_runtime::{
    STEP,
    coordinator::{CoordinatorEvent, TaskAnswer, TaskPart, TriggerReason},
    scheduler::{Effect, Event as SchedulerEvent},
    task::{BarrierHandling, TaskCommand, TaskEvent, TaskFailure},
};
use tokio::time::Instant;

use super::{
    AttemptState, Event, JobManager, PeerEvent, TaskManager, TaskState,
    deployment::{AttemptPlan, specs},
    registration::Registered,
};
use crate::rpc::{FromTaskManager, ProcessFigures, TaskManagerMetrics, TaskReport, ToTaskManager};

impl JobManager {
    /// Tells the scheduler and carries out what it asks for.
    pub(super) fn schedule(&mut self, event: SchedulerEvent) {
        if self.ending {
            return;
        }
        let effects = self.scheduler.on(self.clock.elapsed(), event);
        for effect in effects {
            self.carry_out(effect);
        }
        if !self.ending {
            self.view.enter(self.scheduler.status(), self.clock.now_ms());
        }
        if self.scheduler.waiting_for_slots().is_some() {
            self.recovery.canceled(self.clock.elapsed());
        }
        self.log_waiting();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Prepare(attempt) => {
                tracing::debug!(target: STEP, step = "prepare", %attempt);
                self.recovery.allocated(self.clock.elapsed());
                let mut tasks = std::mem::take(&mut self.attempt.tasks);
                tasks.retain(|task, _| self.scheduler.runs_on(*task));
                self.attempt = AttemptState { tasks, ..AttemptState::default() };
                self.hand_over = None;
                self.final_triggered = false;
                self.prepare(attempt);
            }
            Effect::Join(attempt, places) => {
                tracing::debug!(target: STEP, step = "join", %attempt, taskmanagers = places.len());
                places.iter().for_each(|id| self.send(id, &ToTaskManager::Join(attempt)));
            }
            Effect::Deploy(attempt, assignment) => self.deploy(attempt, &assignment),
            Effect::Start(attempt) => self.start(attempt),
            Effect::Stopped(_) => {
                let run_on = self.attempt.tasks.keys().filter(|task| self.scheduler.runs_on(**task)).count();
                if run_on > 0 {
                    tracing::info!(run_on, "only the tasks that are connected to those that failed start again");
                }
                self.attempt.enumerators = None;
                self.undecided = None;
                self.coordinate(CoordinatorEvent::TasksStopped);
            }
            Effect::CancelTasks(tasks) => {
                tracing::debug!(target: STEP, step = "cancel", attempt = %self.scheduler.attempt(), tasks = tasks.len());
                for task in tasks.keys() {
                    self.attempt.tasks.entry(*task).and_modify(|known| known.execution = ExecutionState::Canceling);
                }
                self.tell(tasks, &TaskCommand::Cancel);
            }
            Effect::DrainSources(_) => self.tell_all(&TaskCommand::Drain),
            Effect::TriggerFinalCheckpoint(_) => {
                self.final_triggered = true;
                self.coordinate(CoordinatorEvent::Trigger(TriggerReason::Final));
            }
            Effect::HandOver(attempt) => self.begin_hand_over(attempt),
            Effect::Release(id) => self.release(&id),
            Effect::FinishTasks(_) => self.tell_all(&TaskCommand::Finish),
            Effect::RestartAfter(attempt, delay) => {
                tracing::info!(?delay, "the job restarts");
                self.recovery.canceled(self.clock.elapsed());
                self.send_after(delay, Event::RestartTimer(attempt));
            }
            Effect::LookAfter(delay) => self.send_after(delay, Event::LookTimer),
            Effect::Report(error, task) => self.report(&error, task),
            Effect::End(result) => self.end(result),
        }
    }

    fn send_after(&self, delay: Duration, event: Event) {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = events.send(event);
        });
    }

    fn deploy(&mut self, attempt: Attempt, assignment: &BTreeMap<TaskId, TaskManagerId>) {
        tracing::debug!(target: STEP, step = "deploy", %attempt);
        self.recovery.prepared(self.clock.elapsed());
        let continues = self.attempt.restored.as_ref().map(|restored| restored.checkpoint);
        let starts: BTreeSet<_> = assignment.keys().filter(|task| !self.scheduler.runs_on(**task)).copied().collect();
        self.attempt.again = match starts.len() == assignment.len() {
            true => self.progress.begin(continues),
            false => self.progress.begin_again(continues, &starts),
        };
        let locations = self.taskmanagers.iter().map(|(id, tm)| (id.clone(), tm.location.clone())).collect();
        let no_state = BTreeMap::new();
        let plan = AttemptPlan {
            graph: &self.graph,
            generation: self.generation,
            attempt,
            barriers: self.checkpoints.is_enabled().then_some(BarrierHandling {
                mode: self.checkpoints.mode,
                aligned_timeout: self.checkpoints.unaligned.then_some(self.checkpoints.aligned_timeout),
            }),
            hold_sources: self.attempt.held,
            allow_non_restored: self.settings.restore.allow_non_restored_state,
            assignment,
            locations: &locations,
            continues,
            restore: self.attempt.restored.as_ref().map_or(&no_state, |restored| &restored.tasks),
            sources: &self.attempt.sources,
            again: &self.attempt.again,
        };
        // A taskmanager that is gone has been reported as lost, or is about to be.
        let Some(specs) = specs(&plan) else { return };
        let deploying = TaskState::new(ExecutionState::Deploying);
        self.attempt.tasks.extend(starts.iter().map(|task| (*task, deploying.clone())));
        for (id, mut specs) in specs {
            specs.retain(|spec| starts.contains(&spec.task));
            self.send(&id, &ToTaskManager::Deploy(attempt, specs));
        }
    }

    fn start(&mut self, attempt: Attempt) {
        tracing::debug!(target: STEP, step = "start", %attempt);
        (self.has_run, self.attempt.started) = (true, true);
        self.tell_attempt(attempt, &TaskCommand::Start);
        self.set_all(ExecutionState::Running);
        let now_ms = self.clock.now_ms();
        self.view.vertices.iter_mut().for_each(|vertex| vertex.start_time = Some(now_ms));
        if let Some(enumerators) = &self.attempt.enumerators {
            enumerators.tasks_run();
        }
        let restored = self.attempt.restored.as_ref().map(|restored| restored.checkpoint);
        if let Some(restored) = restored {
            let run_on: Vec<_> = self.scheduler.attempts().into_iter().filter(|earlier| *earlier != attempt).collect();
            if !run_on.is_empty() {
                // Not one that has come again with tasks that it is about to end.
                let places: BTreeSet<_> = self.assigned(|_| true).into_iter().map(|(_, place)| place).collect();
                places.iter().for_each(|id| self.send(id, &ToTaskManager::Adopt(attempt, restored)));
            }
            // It may have completed when tasks that run on could not be told, since others had ended.
            for earlier in run_on {
                self.tell_attempt(earlier, &TaskCommand::NotifyComplete(restored));
            }
        }
        self.recovery.running(self.clock.elapsed(), restored, &self.attempt.again);
        self.show_recovery();
        self.await_output();
        if self.checkpoints.is_enabled() {
            let tasks = self.attempt.tasks.keys().copied().collect();
            self.coordinate(CoordinatorEvent::TasksRunning { attempt, tasks, restored });
            if self.attempt.held {
                self.coordinate(CoordinatorEvent::Trigger(TriggerReason::Initial));
            }
        }
    }

    fn report(&mut self, error: &Error, task: Option<TaskId>) {
        tracing::error!(task = task.map(|task| task.to_string()), "the job failed: {error}");
        let now = self.clock.elapsed();
        let (lost, since) = self.losing.clone().map_or((None, now), |(lost, since)| (Some(lost), since));
        let before = self.recovery.failed(now, since, &error.message, lost);
        self.tell_recovery(before);
        self.publish_failure(error, task);
    }

    pub(super) fn on_peer(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Registered(registered) => self.on_registered(registered),
            PeerEvent::Message(id, message) => {
                // What a taskmanager says after it was given up counts for nothing.
                let Some(taskmanager) = self.taskmanagers.get_mut(&id) else { return };
                taskmanager.heard_at_ms = self.clock.now_ms();
                match message {
                    FromTaskManager::Heartbeat(metrics) => self.on_metrics(&id, metrics),
                    FromTaskManager::Leaving => self.leaving(id),
                    FromTaskManager::Joined(attempt) => self.schedule(SchedulerEvent::Joined(attempt, id)),
                    FromTaskManager::Running(reports) => self.tasks_reported(&id, reports),
                    FromTaskManager::Progress(progress) => self.on_progress(&progress),
                    FromTaskManager::Task(attempt, task, event) => self.on_task(attempt, task, event),
                }
            }
            PeerEvent::Lost { id, connection, error, since } => {
                if self.taskmanagers.get(&id).is_some_and(|taskmanager| taskmanager.connection == connection) {
                    self.lose(&id, error, self.clock.until(since));
                }
            }
        }
    }

    fn on_registered(&mut self, registered: Registered) {
        let Registered { location, resource_id, slots, pid, running, connection, sender } = registered;
        let id = location.id.clone();
        // It has given its tasks up before it came again; that its earlier connection is gone may be noticed late, or
        // never.
        self.lose(&id, Error::external(format!("taskmanager {id} has connected anew")), self.clock.elapsed());
        tracing::info!(taskmanager = %id, slots, pid, address = location.data_address, "taskmanager registered");
        let taskmanager = TaskManager {
            location,
            resource_id,
            slots,
            pid,
            connection,
            sender,
            heard_at_ms: self.clock.now_ms(),
            process: ProcessFigures::default(),
            running,
            leaving: false,
        };
        self.taskmanagers.insert(id.clone(), taskmanager);
        self.registered(id);
    }

    fn on_task(&mut self, attempt: Attempt, task: TaskId, event: TaskEvent) {
        self.while_adopting(task, &event);
        let state = match &event {
            TaskEvent::Deployed(_) => Some(ExecutionState::Initializing),
            TaskEvent::Finished => Some(ExecutionState::Finished),
            TaskEvent::Canceled => Some(ExecutionState::Canceled),
            TaskEvent::Failed(_) => Some(ExecutionState::Failed),
            _ => None,
        };
        let is_current = self.scheduler.is_current(attempt, task);
        if let (true, Some(state)) = (is_current, state) {
            self.attempt.tasks.entry(task).and_modify(|known| known.execution = state);
        }
        let answer = |checkpoint, outcome| {
            let generation = self.generation;
            // To the coordinator all tasks that run are of one attempt.
            let attempt = if is_current { self.scheduler.attempt() } else { attempt };
            CoordinatorEvent::Answered(TaskAnswer { generation, attempt, task, checkpoint, outcome })
        };
        match event {
            TaskEvent::Acknowledged { checkpoint, state, metrics } => {
                if is_current && self.is_source(task) {
                    self.progress.acknowledged(checkpoint, task, metrics.records_in);
                }
                let answer = answer(checkpoint, Ok(TaskPart { state, metrics }));
                self.coordinate(answer);
            }
            TaskEvent::Declined { checkpoint, reason } => {
                let answer = answer(checkpoint, Err(reason.clone()));
                self.coordinate(answer);
                // The job waits for this one, and no other will go better.
                if !reason.retryable && (self.final_triggered || self.attempt.held) {
                    let what = format!("checkpoint {checkpoint}, which the job can't go on without, is impossible");
                    self.schedule(SchedulerEvent::AttemptFailed(attempt, reason.context(what)));
                }
            }
            TaskEvent::Deployed(metrics) => {
                if is_current {
                    self.recovery.deployed(&metrics);
                }
                self.schedule(SchedulerEvent::TaskDeployed(attempt, task));
            }
            TaskEvent::CaughtUp if is_current => self.caught_up(task),
            TaskEvent::PutOut if is_current => {
                let finished = self.recovery.first_output(self.clock.elapsed());
                self.tell_recovery(finished);
            }
            TaskEvent::CaughtUp | TaskEvent::PutOut => {}
            TaskEvent::EndOfInput => self.schedule(SchedulerEvent::TaskEndOfInput(attempt, task)),
            TaskEvent::Finished => self.schedule(SchedulerEvent::TaskFinished(attempt, task)),
            TaskEvent::Canceled => self.schedule(SchedulerEvent::TaskCanceled(attempt, task)),
            TaskEvent::Failed(TaskFailure { error, position }) => {
                let error = self.while_restoring(attempt, task, error);
                self.failed_position = position;
                self.schedule(SchedulerEvent::TaskFailed(attempt, task, error));
            }
        }
    }

    fn on_progress(&mut self, progress: &[(TaskId, u64)]) {
        self.only_progress = true;
        for (task, records) in progress {
            if self.is_source(*task) {
                self.progress.reported(*task, *records);
            }
        }
    }

    fn on_metrics(&mut self, from: &TaskManagerId, metrics: TaskManagerMetrics) {
        if let Some(taskmanager) = self.taskmanagers.get_mut(from) {
            taskmanager.process = metrics.process;
        }
        for TaskReport { task, counters, figures } in metrics.tasks {
            if let Some(state) = self.attempt.tasks.get_mut(&task) {
                state.report(counters, figures);
            }
        }
    }

    pub(super) fn is_source(&self, task: TaskId) -> bool {
        self.graph.vertex(task.vertex).source.is_some()
    }

    /// What is to be done from time to time.
    pub(super) fn routine(&mut self) {
        // Nothing else happens to a job whose first taskmanager has not come.
        self.log_waiting();
        if self.adoption.is_none() && self.scheduler.must_begin_to_wait() {
            self.schedule(SchedulerEvent::LookTimer);
        }
        let given_up = self.recovery.give_up(self.clock.elapsed());
        self.tell_recovery(given_up);
    }

    /// The one place where a taskmanager is given up.
    fn lose(&mut self, id: &TaskManagerId, error: Error, since: Duration) {
        if let Some(taskmanager) = self.taskmanagers.remove(id) {
            match taskmanager.leaving {
                true => tracing::info!(taskmanager = %id, %error, "the taskmanager has left"),
                false => tracing::warn!(taskmanager = %id, %error, "taskmanager lost"),
            }
            // Its neighbours may have told of it first.
            if self.attempt.tasks.keys().any(|task| self.scheduler.last_place(*task) == Some(id)) {
                self.recovery.lost(since, &taskmanager.resource_id);
            }
            self.losing = Some((taskmanager.resource_id, since));
            self.schedule(SchedulerEvent::TaskManagerLost { id: id.clone(), error });
            self.losing = None;
            self.lost_while_adopting(id);
        }
    }

    /// Tells a taskmanager. One that can't be told is lost, but not before what is being done is done: what others are told
    /// because of that comes behind what they are being told now.
    pub(super) fn send(&self, id: &TaskManagerId, message: &ToTaskManager) {
        let Some(TaskManager { connection, sender, .. }) = self.taskmanagers.get(id) else { return };
        if let Err(error) = sender.send(message) {
            let error = error.context(format!("taskmanager {id} can't be told anything"));
            let lost = PeerEvent::Lost { id: id.clone(), connection: *connection, error, since: Instant::now() };
            let _ = self.events.send(Event::Peer(lost));
        }
    }

    /// Tells every source.
    pub(super) fn tell_sources(&mut self, command: &TaskCommand) {
        let sources = self.assigned(|task| self.is_source(task));
        self.tell(sources, command);
    }

    /// Tells every task that was deployed.
    pub(super) fn tell_all(&mut self, command: &TaskCommand) {
        for attempt in self.scheduler.attempts() {
            self.tell_attempt(attempt, command);
        }
    }

    /// Tells these tasks.
    pub(super) fn tell(&mut self, tasks: impl IntoIterator<Item = (TaskId, TaskManagerId)>, command: &TaskCommand) {
        let mut by_place = BTreeMap::<_, Vec<_>>::new();
        for (task, place) in tasks {
            if let Some(attempt) = self.scheduler.attempt_of(task) {
                by_place.entry((place, attempt)).or_default().push(task);
            }
        }
        for ((id, attempt), tasks) in by_place {
            self.send(&id, &ToTaskManager::Command(attempt, tasks, command.clone()));
        }
    }

    /// The tasks of the current assignment for which this holds, and where they run.
    pub(super) fn assigned(&self, holds: impl Fn(TaskId) -> bool) -> Vec<(TaskId, TaskManagerId)> {
        let assignment = self.scheduler.assignment().into_iter().flatten();
        assignment.filter(|(task, _)| holds(**task)).map(|(task, place)| (*task, place.clone())).collect()
    }

    /// Tells every task of an attempt.
    pub(super) fn tell_attempt(&mut self, attempt: Attempt, command: &TaskCommand) {
        let message = ToTaskManager::CommandAll(attempt, command.clone());
        let ids: Vec<_> = self.taskmanagers.keys().cloned().collect();
        for id in ids {
            self.send(&id, &message);
        }
    }

    fn set_all(&mut self, execution: ExecutionState) {
        self.attempt.tasks.values_mut().for_each(|task| task.execution = execution);
    }

    fn log_waiting(&mut self) {
        let waiting = self.scheduler.waiting_for_slots();
        self.view.waiting_for = waiting.map(|(there, needed)| {
            format!("{} more slots: the job needs {needed}, {there} are offered", needed.saturating_sub(there))
        });
        if waiting != self.waiting_logged {
            if let Some(reason) = &self.view.waiting_for {
                tracing::info!("waiting for {reason}; start taskmanagers to provide them");
            }
            self.waiting_logged = waiting;
        }
    }
}
