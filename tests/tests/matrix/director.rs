//! Takes a job through its stages: what comes next may begin when all that the stage gives has arrived. So what a job
//! tells depends on nothing but its input and the clock, whatever its parallelism.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use millrace::{Clock, ManualClock, source::CheckpointId};

use crate::job::{HALF, KEYS, RECORDS, RULES, Told};

/// The time of the first half.
pub const START: u64 = 1_000_000;
/// The time of the second half, when timers of the first are due.
pub const LATER: u64 = START + 6_000;
/// When all timers are due.
pub const END: u64 = START + 20_000;
/// Whatever lasts longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a job is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first half is read.
    FirstHalf,
    /// The job is to end with the next checkpoint.
    Halfway,
    /// Timers that the first half has registered fire.
    EarlyTimers,
    /// The second half is read.
    SecondHalf,
    /// All other timers fire.
    LateTimers,
    /// The input ends.
    Done,
}

/// What a job has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// In the order of keys and, within a key, as told.
    pub told: Vec<Told>,
    /// What the operator lists held at the end.
    pub list: Vec<u64>,
    /// What the union lists held at the start, for each subtask.
    pub union: Vec<Vec<u64>>,
}

/// Shared by the job's source, its functions and its sink.
#[derive(Clone)]
pub struct Director(Arc<Mutex<Directed>>);

struct Directed {
    stage: Stage,
    /// Whether the job ends half-way.
    half: bool,
    parallelism: u64,
    hand: ManualClock,
    since: Instant,
    records: u64,
    rules: u64,
    early: u64,
    late: u64,
    output: Output,
    completed: Option<CheckpointId>,
}

impl Director {
    /// Of a job from its beginning: to its end, or half-way.
    pub fn from_start(parallelism: u32, half: bool) -> (Self, Clock) {
        Self::new(parallelism, Stage::FirstHalf, half, START)
    }

    /// Of a job that goes on with the second half.
    pub fn from_halfway(parallelism: u32) -> (Self, Clock) {
        Self::new(parallelism, Stage::EarlyTimers, false, LATER)
    }

    fn new(parallelism: u32, stage: Stage, half: bool, now: u64) -> (Self, Clock) {
        let (clock, hand) = Clock::manual(now);
        let behind = stage != Stage::FirstHalf;
        let parallelism = u64::from(parallelism);
        let directed = Directed {
            stage,
            half,
            parallelism,
            hand,
            since: Instant::now(),
            records: if behind { HALF } else { 0 },
            rules: if behind { RULES / 2 * parallelism } else { 0 },
            early: 0,
            late: 0,
            output: Output::default(),
            completed: None,
        };
        (Self(Arc::new(Mutex::new(directed))), clock)
    }

    fn lock(&self) -> MutexGuard<'_, Directed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the job is at; an error if it does not get on.
    pub fn stage(&self) -> Result<Stage, String> {
        let directed = self.lock();
        let Directed { stage, records, rules, early, late, .. } = *directed;
        if stage != Stage::Done && directed.since.elapsed() > PATIENCE {
            return Err(format!(
                "stage {stage:?} hangs: {records} records, {rules} rules, {early} and {late} timers have arrived"
            ));
        }
        Ok(stage)
    }

    /// The sink has got this.
    pub fn told(&self, told: Vec<Told>) {
        let mut directed = self.lock();
        for told in &told {
            match told.timer {
                None => directed.records += 1,
                Some(LATER) => directed.early += 1,
                Some(_) => directed.late += 1,
            }
        }
        directed.output.told.extend(told);
        directed.advance();
    }

    /// A subtask has got a rule.
    pub fn rule(&self) {
        let mut directed = self.lock();
        directed.rules += 1;
        directed.advance();
    }

    /// A union list was restored as this.
    pub fn union(&self, list: Vec<u64>) {
        self.lock().output.union.push(list);
    }

    /// An operator list ends as this.
    pub fn list(&self, list: Vec<u64>) {
        self.lock().output.list.extend(list);
    }

    /// A checkpoint of the job half-way is complete.
    pub fn completed(&self, checkpoint: CheckpointId) {
        self.lock().completed = Some(checkpoint);
    }

    /// That checkpoint, and what the job has told.
    pub fn take(&self) -> (Option<CheckpointId>, Output) {
        let mut directed = self.lock();
        let mut output = std::mem::take(&mut directed.output);
        output.sort();
        (directed.completed, output)
    }
}

impl Directed {
    fn advance(&mut self) {
        let rules = |share| share * self.parallelism;
        let next = match self.stage {
            Stage::FirstHalf if (self.records, self.rules) == (HALF, rules(RULES / 2)) => {
                if self.half {
                    Stage::Halfway
                } else {
                    Stage::EarlyTimers
                }
            }
            Stage::EarlyTimers if self.early == KEYS => Stage::SecondHalf,
            Stage::SecondHalf if (self.records, self.rules) == (RECORDS, rules(RULES)) => Stage::LateTimers,
            Stage::LateTimers if self.late == KEYS * 2 => Stage::Done,
            _ => return,
        };
        match next {
            Stage::EarlyTimers => self.hand.set(LATER),
            Stage::LateTimers => self.hand.set(END),
            _ => {}
        }
        (self.stage, self.since) = (next, Instant::now());
    }
}

impl Output {
    /// The sort is stable: what a key has told stays in order.
    fn sort(&mut self) {
        self.told.sort_by(|one, other| one.key.cmp(&other.key));
        self.list.sort_unstable();
        self.union.iter_mut().for_each(|list| list.sort_unstable());
    }

    /// Both halves' as one.
    pub fn and(&self, second: Output) -> Output {
        let mut both = Output { told: self.told.clone(), ..second };
        both.told.extend(second.told);
        both.sort();
        both
    }
}
