//! A schedule: everything there is, and what happens to it in which order.

use std::{cmp::Reverse, collections::BTreeMap};

use millrace_core::{
    checkpoint::CheckpointingMode,
    ids::{Attempt, CheckpointId},
};
use millrace_runtime::scheduler::adoption::AdoptionChecks;
use millrace_state::log::protocol::ProtocolChecks;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    counters::{Counters, Seen},
    jobmanager::{JobManager, JobManagerEvent, Phase},
    oracle::Oracle,
    plan::{Blow, Plan, Planned, Point},
    requests::Op,
    store::{Snapshot, Store},
    task::{Deployment, TaskMessage},
};

/// How long a job may take to its end when nothing goes wrong any more.
const LIMIT_MS: u64 = 10_000;
/// How long the world goes on after the job's end, for those who have not noticed.
const AFTERMATH_MS: u64 = 60;
/// How often somebody looks whether a jobmanager is needed or the input has ended.
const WATCH_MS: u64 = 10;

/// What is left out, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// A jobmanager that finds another's entry in the log goes on behind it.
    NoFence,
    /// The log is not listed again before something is announced or deleted.
    NoRelist,
    /// Barriers are not aligned.
    NoAlignment,
    /// What barriers overtake does not belong to the checkpoint.
    NoDataInFlight,
    /// Tasks that run are adopted whatever they continue.
    NoAgreement,
    /// Tasks are adopted whatever attempts of the job they are a part of.
    AnyAttempt,
    /// Tasks are adopted whatever attempts of the whole job have begun since.
    AnyOlder,
    /// The whole job starts again without a mark in the log.
    NoMark,
}

impl Mutation {
    /// The safety steps of the log.
    pub fn checks(self) -> ProtocolChecks {
        ProtocolChecks { fence: self != Self::NoFence, relist: self != Self::NoRelist }
    }

    /// The rules of adoption.
    pub fn adoption(self) -> AdoptionChecks {
        AdoptionChecks {
            agreement: self != Self::NoAgreement,
            one_attempt: self != Self::AnyAttempt,
            no_later: self != Self::AnyOlder,
        }
    }

    /// How tasks handle barriers.
    pub fn aligner_mode(self, plan: &Plan) -> CheckpointingMode {
        match self {
            Self::NoAlignment => CheckpointingMode::AtLeastOnce,
            _ => plan.config.mode,
        }
    }
}

/// How a schedule went.
#[derive(Debug)]
pub struct Verdict {
    /// What must not happen and did.
    pub violation: Option<String>,
    /// What happened.
    pub counters: Counters,
    /// Every step, if it was asked for.
    pub trace: Vec<String>,
}

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// To a jobmanager.
    JobManager(usize, JobManagerEvent),
    /// A request reaches the store.
    Request(usize, u64, Op),
    /// A message reaches a task.
    Task {
        /// The jobmanager that sent it.
        by: usize,
        /// Whose.
        deployment: usize,
        /// Its index.
        task: usize,
        /// The message's number.
        number: u64,
        /// The message.
        message: TaskMessage,
        /// Whether it is one too many.
        copy: bool,
    },
    /// Tasks that run on hear of another region's attempt: that it begins, or that it runs, from a checkpoint.
    Region {
        /// The jobmanager that sent it.
        by: usize,
        /// Whose tasks run on.
        deployment: usize,
        /// The attempt of the job.
        attempt: Attempt,
        /// The checkpoint, where it runs.
        runs_from: Option<CheckpointId>,
    },
    /// The tasks of a deployment work.
    Step(usize),
    /// A snapshot reaches the store.
    Persist {
        /// Whose.
        deployment: usize,
        /// Its index.
        task: usize,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The state.
        snapshot: Snapshot,
    },
    /// A jobmanager starts.
    StartJobManager,
    /// A planned fault.
    Planned(Planned),
    /// From now on nothing goes wrong any more.
    Calm,
    /// Somebody looks after the job.
    Watch,
}

/// A schedule under way.
pub struct World {
    /// What the seed stands for.
    pub plan: Plan,
    /// What is left out.
    pub mutation: Mutation,
    /// The only source of chance.
    pub rng: ChaCha8Rng,
    /// Milliseconds since the beginning.
    pub now: u64,
    /// The object store.
    pub store: Store,
    /// All jobmanagers that ever were.
    pub jobmanagers: Vec<JobManager>,
    /// All deployments that ever were.
    pub deployments: Vec<Deployment>,
    /// The judge.
    pub oracle: Oracle,
    /// What happened.
    pub counters: Counters,
    /// Faults that wait for somebody to pass.
    pub armed: Vec<(Point, Blow)>,
    /// How many tasks and jobmanagers have died.
    pub crashes: u32,
    /// Whether a source has read anything.
    pub records_were_read: bool,
    queue: BTreeMap<Reverse<(u64, u64)>, Event>,
    last_unique: u64,
    violation: Option<String>,
    trace: Option<Vec<String>>,
}

/// Runs the schedule of a seed.
pub fn run(seed: u64, mutation: Mutation, traced: bool) -> Verdict {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let plan = Plan::draw(&mut rng);
    let mut world = World {
        plan,
        mutation,
        rng,
        now: 0,
        store: Store::default(),
        jobmanagers: Vec::new(),
        deployments: Vec::new(),
        oracle: Oracle::default(),
        counters: Counters::default(),
        armed: Vec::new(),
        crashes: 0,
        records_were_read: false,
        queue: BTreeMap::new(),
        last_unique: 0,
        violation: None,
        trace: traced.then(Vec::new),
    };
    world.note_plan();
    world.run();
    Verdict { violation: world.violation, counters: world.counters, trace: world.trace.unwrap_or_default() }
}

impl World {
    fn run(&mut self) {
        for (at, planned) in self.plan.planned.clone() {
            self.queue_at(at, Event::Planned(planned));
        }
        self.queue_at(self.plan.calm_at, Event::Calm);
        self.queue_at(0, Event::Watch);
        let limit = self.plan.calm_at + LIMIT_MS;
        let mut end = limit;
        while let Some((Reverse((at, _)), event)) = self.queue.pop_last() {
            self.now = at;
            if at > end || self.violation.is_some() {
                break;
            }
            self.happens(event);
            if end == limit && self.store.has_ended() {
                end = self.now + AFTERMATH_MS;
            }
        }
        if self.violation.is_none() && !self.store.has_ended() {
            self.violated(format!("the job has not ended {LIMIT_MS} ms after the last fault"));
        }
        let tasks = self.plan.sources + self.plan.counters;
        if tasks >= 3 && self.oracle.announced() >= 2 && self.crashes >= 1 {
            self.counters.saw(Seen::FullSchedule);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::JobManager(index, event) => self.at_jobmanager(index, event),
            Event::Request(index, id, op) => self.at_store(index, id, op),
            Event::Task { by, deployment, task, number, message, copy } => {
                self.at_task(by, (deployment, task), number, message, copy);
            }
            Event::Region { by, deployment, attempt, runs_from } => {
                self.hears_of_region(by, deployment, attempt, runs_from);
            }
            Event::Step(deployment) => self.step_tasks(deployment),
            Event::Persist { deployment, task, checkpoint, snapshot } => {
                self.persist(deployment, task, checkpoint, snapshot);
            }
            Event::StartJobManager => self.start_jobmanager(),
            Event::Planned(planned) => self.planned(planned),
            Event::Calm => self.calm(),
            Event::Watch => self.watch(),
        }
    }

    fn calm(&mut self) {
        self.armed.clear();
        let newest = self.jobmanagers.iter().rposition(|jm| jm.alive);
        if let Some(index) = newest.filter(|_| self.crashes == 0) {
            self.crash(index);
        }
    }

    fn watch(&mut self) {
        self.queue_in(WATCH_MS, Event::Watch);
        if self.jobmanagers.iter().all(|jm| !jm.alive) {
            self.start_jobmanager();
        }
        for index in 0..self.jobmanagers.len() {
            let jm = &self.jobmanagers[index];
            if jm.phase != Phase::Running {
                continue;
            }
            // Every schedule has two completed checkpoints: one at least before the final one.
            let late = self.is_calm() && self.oracle.announced() > 0;
            let here = late && jm.alive && jm.paused_until <= self.now;
            let (now, plan) = (self.now, &self.plan);
            let end = |source| topic_end(plan, now, source);
            let done = |d: &usize| self.deployments[*d].alive && self.deployments[*d].has_read_all(end);
            if here && jm.running.iter().all(done) {
                self.end_of_input(index);
            }
        }
    }

    /// Whether nothing goes wrong any more.
    pub fn is_calm(&self) -> bool {
        self.now >= self.plan.calm_at
    }

    /// How many records a source has to read by now.
    pub fn topic_end(&self, source: usize) -> u64 {
        topic_end(&self.plan, self.now, source)
    }

    /// A number that was never used.
    pub fn unique(&mut self) -> u64 {
        self.last_unique += 1;
        self.last_unique
    }

    /// Something is going to happen.
    pub fn queue_at(&mut self, at: u64, event: Event) {
        let order = self.unique();
        self.queue.insert(Reverse((at.max(self.now), order)), event);
    }

    /// Something is going to happen after so many milliseconds.
    pub fn queue_in(&mut self, after: u64, event: Event) {
        self.queue_at(self.now + after, event);
    }

    /// Writes a step down, if the steps are wanted.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6} ms  {}", self.now, text()));
        }
    }

    fn note_plan(&mut self) {
        let plan = format!("{:?}", self.plan);
        self.note(|| plan);
    }

    /// Something has happened that must not.
    pub fn violated(&mut self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    /// Something must hold.
    pub fn expect(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.violated(what);
        }
    }
}

/// How many records a source has to read at a time; the topic grows until the calm.
pub fn topic_end(plan: &Plan, now: u64, source: usize) -> u64 {
    5 + source as u64 + now.min(plan.calm_at) / 4
}
