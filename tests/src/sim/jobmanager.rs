//! The model of a jobmanager's shell: it runs the effects of the real coordinator and the real log protocol over the
//! simulated store and messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_core::{
    Error,
    ids::{Attempt, CheckpointId, Generation},
};
use millrace_runtime::coordinator::{
    CheckpointCoordinator, CoordinatorEvent, Effect, RestorePoint, TaskAnswer, TriggerReason,
};
use millrace_state::log::{CheckpointRecord, LogProtocol};

use super::{
    counters::Seen,
    plan::Blow,
    regions::Again,
    requests::{Answer, Op},
    store::{JOB, Restored},
    task::{Deployment, Start},
    world::{Event, Mutation, World},
};

/// What a jobmanager wants of the log.
#[derive(Clone, Debug)]
pub enum LogTask {
    /// Take over.
    Claim,
    /// Append a checkpoint.
    Append(CheckpointRecord),
    /// See whether it still is the leader.
    Check(CheckpointId),
    /// Delete void entries.
    Trim,
    /// Append the mark that the whole job begins an attempt.
    Mark(Attempt),
    /// Append the job's end.
    Terminal,
}

/// Where a jobmanager stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is becoming the job's only one.
    TakingOver,
    /// It waits for the coordinator's word from where to restart.
    Deciding,
    /// It reads the checkpoint to restart from.
    Restoring(CheckpointId),
    /// It has read the checkpoint to restart regions from, and waits until the tasks that run on know of that.
    Joining,
    /// It knows what all tasks start from, and waits until the log holds the mark of that.
    Marking,
    /// Its tasks run.
    Running,
    /// The final checkpoint is complete.
    Finishing,
}

/// What happens to a jobmanager.
#[derive(Clone, Debug)]
pub enum JobManagerEvent {
    /// The store answers.
    Answer(u64, Op, Answer),
    /// The store has not answered for long.
    Timeout(u64, Op),
    /// A task answers a barrier: its deployment, its index and the message's number come first.
    Task(usize, usize, u64, TaskAnswer),
    /// The coordinator's time has come.
    Tick,
    /// The tasks of a deployment have died.
    TasksLost(usize),
    /// The tasks of a deployment, which run on, know of an attempt.
    Joined(usize, Attempt),
    /// Effects that were left over when it was stopped between two of them.
    Effects(Vec<Effect>),
}

/// A jobmanager.
#[derive(Debug)]
pub struct JobManager {
    /// Whether it runs.
    pub alive: bool,
    /// Until when it stands still.
    pub paused_until: u64,
    /// Whether it stood still and another was started since.
    pub replaced: bool,
    /// It dies as soon as it has taken over.
    pub short_lived: bool,
    /// Its generation, once claimed.
    pub generation: Generation,
    /// Where it stands.
    pub phase: Phase,
    /// The highest generation that the log had when it last listed it.
    pub listed: Generation,
    /// Its metadata was created, the entry was not.
    pub wrote_metadata: bool,
    /// Its entry was created, nothing was announced.
    pub created_entry: bool,
    /// The requests that wait for an answer.
    pub open: BTreeSet<u64>,
    /// What it wants of the log at present.
    pub log_task: Option<LogTask>,
    /// Its side of the log.
    pub protocol: LogProtocol,
    /// What it wants of the log next.
    pub log_queue: VecDeque<LogTask>,
    /// Its checkpoint coordinator, once it has taken over.
    pub coordinator: Option<CheckpointCoordinator>,
    /// The attempt of the job.
    pub attempt: Attempt,
    /// The deployments that run, or run on: one for each region.
    pub running: Vec<usize>,
    /// A checkpoint was announced since all tasks were started or adopted.
    pub has_checkpoint: bool,
    /// For all that it knows, all tasks of an earlier attempt run on, and the log holds no later one's mark.
    pub may_run_on: bool,
    /// What all tasks start from, while that is being marked.
    pub from: Option<(CheckpointId, Restored)>,
    /// The regions that start again while others run on.
    pub again: Option<Again>,
    /// The checkpoints that it tried to complete.
    pub instances: BTreeMap<CheckpointId, usize>,
    /// The final checkpoint was asked for.
    pub asked_for_final: bool,
    tick_at: Option<u64>,
}

impl World {
    /// Starts a jobmanager.
    pub fn start_jobmanager(&mut self) {
        if self.jobmanagers.iter().filter(|jm| jm.alive).count() > 3 || self.store.has_ended() {
            return;
        }
        for jm in &mut self.jobmanagers {
            jm.replaced |= jm.paused_until > self.now;
        }
        let index = self.jobmanagers.len();
        let short_lived = index > 0 && self.chance(self.plan.short_lived);
        self.note(|| format!("jobmanager {index} starts"));
        self.jobmanagers.push(JobManager {
            alive: true,
            paused_until: 0,
            replaced: false,
            short_lived,
            generation: Generation(0),
            phase: Phase::TakingOver,
            listed: Generation(0),
            wrote_metadata: false,
            created_entry: false,
            open: BTreeSet::new(),
            log_task: None,
            protocol: LogProtocol::new(JOB, self.mutation.checks()),
            log_queue: VecDeque::new(),
            coordinator: None,
            attempt: Attempt(0),
            running: Vec::new(),
            has_checkpoint: false,
            may_run_on: false,
            from: None,
            again: None,
            instances: BTreeMap::new(),
            tick_at: None,
            asked_for_final: false,
        });
        self.want_of_log(index, LogTask::Claim);
    }

    /// Something happens to a jobmanager.
    pub fn at_jobmanager(&mut self, index: usize, event: JobManagerEvent) {
        let jm = &mut self.jobmanagers[index];
        if !jm.alive {
            return;
        }
        if jm.paused_until > self.now {
            let at = jm.paused_until;
            return self.queue_at(at, Event::JobManager(index, event));
        }
        if std::mem::take(&mut jm.replaced) {
            self.counters.saw(Seen::ZombieWoke);
            self.note(|| format!("jobmanager {index} wakes up and has been replaced"));
        }
        let point = self.point_of(index, &event);
        if let Some(point) = point
            && let Some(blow) = self.strike(index, point)
        {
            if let Blow::Pause(_) = blow {
                self.queue_at(self.jobmanagers[index].paused_until, Event::JobManager(index, event));
            }
            return;
        }
        match event {
            JobManagerEvent::Answer(id, op, answer) => self.answered(index, id, op, answer),
            JobManagerEvent::Timeout(id, op) => self.timed_out(index, id, op),
            JobManagerEvent::Task(deployment, task, number, answer) => {
                self.task_answered(index, deployment, task, number, answer);
            }
            JobManagerEvent::Tick => {
                self.jobmanagers[index].tick_at = None;
                self.coordinate(index, CoordinatorEvent::Tick);
            }
            JobManagerEvent::TasksLost(deployment) => self.tasks_lost(index, deployment),
            JobManagerEvent::Joined(deployment, attempt) => self.joined(index, deployment, attempt),
            JobManagerEvent::Effects(effects) => self.run_effects(index, effects),
        }
    }

    fn task_answered(&mut self, index: usize, deployment: usize, task: usize, number: u64, mut answer: TaskAnswer) {
        let own = self.deployments[deployment].generation == self.jobmanagers[index].generation;
        let latest = &mut self.deployments[deployment].latest[task].1;
        if !own {
            self.counters.saw(Seen::MisdirectedAnswer);
        } else if number < *latest {
            self.counters.saw(Seen::ReorderedMessage);
        } else {
            *latest = number;
        }
        let jm = &self.jobmanagers[index];
        if own && jm.running.contains(&deployment) {
            // To the coordinator all tasks that run are of one attempt.
            answer.attempt = jm.attempt;
        }
        self.coordinate(index, CoordinatorEvent::Answered(answer));
    }

    /// The tasks of a deployment have died.
    fn tasks_lost(&mut self, index: usize, deployment: usize) {
        if self.lost_beside_region(index, deployment) {
            return;
        }
        let jm = &mut self.jobmanagers[index];
        if jm.phase != Phase::Running || !jm.running.contains(&deployment) {
            return;
        }
        jm.phase = Phase::Deciding;
        self.note(|| format!("jobmanager {index} notices that deployment {deployment} is lost"));
        self.begin_again(index, deployment);
        self.coordinate(index, CoordinatorEvent::TasksStopped);
        if self.jobmanagers[index].phase == Phase::Deciding && self.jobmanagers[index].alive {
            self.counters.saw(Seen::RestartWaitedForCommit);
        }
    }

    /// The new jobmanager knows which ids were used.
    pub fn recovered(&mut self, index: usize, highest: CheckpointId) {
        let jm = &mut self.jobmanagers[index];
        let history = jm.protocol.view().checkpoints().map(|record| record.id).collect();
        let config = self.plan.config.clone();
        jm.coordinator = Some(CheckpointCoordinator::recovered(config, jm.generation, history, highest.next()));
        (jm.phase, jm.may_run_on) = (Phase::Deciding, jm.generation > Generation(1));
        if !self.adopt_tasks(index) {
            self.decide(index);
        }
    }

    /// Restarts the tasks when it is known from where.
    fn decide(&mut self, index: usize) {
        let jm = &mut self.jobmanagers[index];
        if jm.phase != Phase::Deciding || !jm.alive {
            return;
        }
        match jm.coordinator.as_ref().map(CheckpointCoordinator::restore_point) {
            Some(RestorePoint::Checkpoint(id)) => {
                jm.phase = Phase::Restoring(id);
                self.request(index, Op::ReadCheckpoint(id));
            }
            Some(RestorePoint::Empty) => {
                if jm.generation == self.store.generation() {
                    let result = self.oracle.starts_empty(self.records_were_read);
                    self.expect(result);
                }
                self.start_all(index, None);
            }
            Some(RestorePoint::Undecided) | None => {}
        }
    }

    /// The checkpoint to restart from was read, or something of it is missing.
    pub fn checkpoint_read(&mut self, index: usize, id: CheckpointId, restored: Result<Restored, String>) {
        if self.jobmanagers[index].phase != Phase::Restoring(id) {
            return;
        }
        match restored {
            Ok(restored) if self.jobmanagers[index].again.is_some() => self.region_read(index, (id, restored)),
            Ok(restored) => self.start_all(index, Some((id, restored))),
            // Judged when it was read: the files of an old jobmanager's checkpoint may have been deleted by a newer.
            Err(missing) => {
                self.note(|| format!("jobmanager {index} cannot restore: {missing}"));
                self.retire(index);
            }
        }
    }

    /// Starts all tasks, once the log holds the mark of that where it must.
    pub fn start_all(&mut self, index: usize, restored: Option<(CheckpointId, Restored)>) {
        let jm = &mut self.jobmanagers[index];
        jm.attempt = jm.attempt.next();
        if !jm.may_run_on || self.mutation == Mutation::NoMark {
            return self.deploy(index, restored);
        }
        (jm.phase, jm.from) = (Phase::Marking, restored);
        let mark = LogTask::Mark(jm.attempt);
        self.want_of_log(index, mark);
    }

    /// The log holds the mark.
    pub fn marked(&mut self, index: usize) {
        self.counters.saw(Seen::Marked);
        let jm = &mut self.jobmanagers[index];
        jm.may_run_on = false;
        let restored = jm.from.take();
        self.deploy(index, restored);
    }

    fn deploy(&mut self, index: usize, restored: Option<(CheckpointId, Restored)>) {
        let (spare, generation) = (self.plan.spare_old_tasks, self.jobmanagers[index].generation);
        for other in 0..self.deployments.len() {
            let deployment = &mut self.deployments[other];
            let (theirs, cut_off) = (deployment.generation, deployment.cut_off);
            if theirs <= generation {
                deployment.superseded.get_or_insert(generation);
            } else if deployment.started_by <= generation && deployment.alive {
                let by = deployment.jobmanager;
                self.violated(format!(
                    "jobmanager {index} starts all tasks without deployment {other}, which {by} adopted"
                ));
            }
            let may_live = theirs > generation || ((theirs < generation || cut_off) && self.chance(spare));
            if !may_live {
                self.kill(other);
            }
        }
        let jm = &mut self.jobmanagers[index];
        jm.asked_for_final = false;
        (jm.running, jm.has_checkpoint) = (Vec::new(), false);
        let checkpoint = restored.as_ref().map(|(id, _)| *id);
        for region in 0..self.plan.regions {
            self.start_region(index, region, restored.as_ref());
        }
        self.all_run(index, checkpoint);
    }

    /// Starts the tasks of a region.
    pub fn start_region(&mut self, index: usize, region: usize, restored: Option<&(CheckpointId, Restored)>) {
        let jm = &mut self.jobmanagers[index];
        let deployment = self.deployments.len();
        jm.running.push(deployment);
        jm.may_run_on = true;
        let start = Start {
            region,
            by: (index, jm.generation, jm.attempt),
            exact: self.plan.is_exact(),
            mode: self.mutation.aligner_mode(&self.plan),
            unaligned: self.plan.config.unaligned,
            keeps_in_flight: self.mutation != Mutation::NoDataInFlight,
            bases: (0..self.plan.sources).map(|source| self.topic_end(source)).collect(),
            counters: self.plan.counters,
            restored: restored.map(|(id, restored)| (*id, restored.instance, restored.snapshots.clone())),
        };
        let started = Deployment::start(start);
        if started.has_in_flight() {
            self.counters.saw(Seen::RestoredInFlight);
        }
        self.deployments.push(started);
        let checkpoint = restored.map(|(id, _)| *id);
        self.note(|| format!("jobmanager {index} starts deployment {deployment} from checkpoint {checkpoint:?}"));
        self.queue_in(1, Event::Step(deployment));
    }

    /// All tasks run: checkpoints are taken.
    pub fn all_run(&mut self, index: usize, checkpoint: Option<CheckpointId>) {
        let jm = &mut self.jobmanagers[index];
        jm.phase = Phase::Running;
        let running = jm.running.iter();
        let (attempt, tasks) = (jm.attempt, running.flat_map(|d| self.deployments[*d].tasks()).collect());
        self.coordinate(index, CoordinatorEvent::TasksRunning { attempt, tasks, restored: checkpoint });
        match checkpoint {
            Some(_) => self.counters.saw(Seen::Restored),
            None => self.coordinate(index, CoordinatorEvent::Trigger(TriggerReason::Initial)),
        }
    }

    /// All input has been read: the final checkpoint is taken.
    pub fn end_of_input(&mut self, index: usize) {
        let jm = &mut self.jobmanagers[index];
        if !std::mem::replace(&mut jm.asked_for_final, true) {
            self.note(|| format!("jobmanager {index} takes the final checkpoint"));
            self.coordinate(index, CoordinatorEvent::Trigger(TriggerReason::Final));
        }
    }

    /// Tells the coordinator and does what it wants.
    pub fn coordinate(&mut self, index: usize, event: CoordinatorEvent) {
        let now = self.now;
        let jm = &mut self.jobmanagers[index];
        let Some(coordinator) = jm.coordinator.as_mut().filter(|_| jm.alive) else { return };
        let effects = coordinator.on(now, event);
        self.run_effects(index, effects);
        let jm = &mut self.jobmanagers[index];
        let wakeup = jm.coordinator.as_ref().and_then(CheckpointCoordinator::next_wakeup).map(|at| at.max(now));
        if jm.alive && wakeup.is_some_and(|at| jm.tick_at.is_none_or(|earlier| at < earlier)) {
            jm.tick_at = wakeup;
            let at = wakeup.unwrap_or(now);
            self.queue_at(at, Event::JobManager(index, JobManagerEvent::Tick));
        }
        self.decide(index);
    }

    /// The jobmanager ends by itself, and its tasks with it.
    pub fn retire(&mut self, index: usize) {
        self.note(|| format!("jobmanager {index} ends"));
        self.jobmanagers[index].alive = false;
        for deployment in 0..self.deployments.len() {
            if self.deployments[deployment].jobmanager == index && !self.deployments[deployment].cut_off {
                self.kill(deployment);
            }
        }
    }
}

/// An error that a shell makes up.
pub fn no_answer() -> Error {
    Error::external("the store does not answer")
}
