//! What a seed stands for: the job, its settings, and which faults the schedule has and how often ("swarm testing":
//! a schedule in which everything fails all the time gets nowhere interesting).

use std::time::Duration;

use millrace_core::checkpoint::{CheckpointConfig, CheckpointingMode};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Where a planned fault strikes the jobmanager that passes there next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// It is taking over.
    TakingOver,
    /// Its metadata has been created.
    MetadataWritten,
    /// It has sent the create of a log entry, which is on its way.
    CreateSent,
    /// Its log entry has been created.
    Created,
    /// It has announced a checkpoint and not deleted older ones yet.
    Announced,
    /// Anywhere: at its next event.
    Anywhere,
}

/// What a planned fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The jobmanager dies, and another is started.
    Crash,
    /// The jobmanager stands still for so long, and another is started meanwhile.
    Pause(u64),
}

/// Something that is going to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// The next jobmanager that passes there is hit.
    Strike(Point, Blow),
    /// A task of one of the newest deployments dies.
    KillTask,
    /// The tasks of a region are cut off from their jobmanager, which gives them up, and go on.
    CutOff,
}

/// A schedule's job and faults. Probabilities are in percent, times in milliseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many graphs that nothing connects, one to three. Each has as many sources and counting tasks.
    pub regions: usize,
    /// How many sources, two or more.
    pub sources: usize,
    /// How many counting tasks, one or two.
    pub counters: usize,
    /// The job's settings.
    pub config: CheckpointConfig,
    /// A message between jobmanager and tasks is lost.
    pub lose_message: u32,
    /// It arrives twice.
    pub double_message: u32,
    /// It takes long.
    pub delay_message: u32,
    /// A task's answer is also sent to the newest jobmanager.
    pub misdirect: u32,
    /// A snapshot cannot be written.
    pub fail_snapshot: u32,
    /// The answer of the store is lost.
    pub lose_answer: u32,
    /// A request to the store takes long, mostly longer than its sender waits.
    pub delay_request: u32,
    /// A create is answered as a conflict without cause.
    pub false_conflict: u32,
    /// A jobmanager's operation on the log is given up when an answer does not come.
    pub give_up: u32,
    /// A jobmanager trims the log after a change.
    pub trim: u32,
    /// The deployment of a jobmanager that was replaced goes on.
    pub spare_old_tasks: u32,
    /// A new jobmanager hears of tasks that run, of each attempt.
    pub adopt: u32,
    /// A jobmanager that is started in another's place dies right after it has taken over.
    pub short_lived: u32,
    /// What happens, and when.
    pub planned: Vec<(u64, Planned)>,
    /// From then on nothing goes wrong any more.
    pub calm_at: u64,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let calm_at = rng.random_range(150..400);
        let mut planned = vec![(rng.random_range(10..calm_at * 2 / 3), crash(rng))];
        for _ in 0..rng.random_range(1..5) {
            planned.push((rng.random_range(0..calm_at * 3 / 4), fault(rng)));
        }
        let regions = rng.random_range(1..4);
        let mut at = rng.random_range(calm_at / 4..calm_at / 2);
        // With three, a second may be lost before the first has started again.
        for _ in 1..regions {
            let lost = if rng.random_bool(0.5) { Planned::KillTask } else { Planned::CutOff };
            planned.push((at, lost));
            at += rng.random_range(0..10);
        }
        Self {
            regions,
            sources: rng.random_range(2..4),
            counters: rng.random_range(1..3),
            config: config(rng),
            lose_message: swarm(rng, &[0, 1, 4]),
            double_message: swarm(rng, &[0, 3, 15]),
            delay_message: swarm(rng, &[0, 3, 15]),
            misdirect: swarm(rng, &[0, 0, 10]),
            fail_snapshot: swarm(rng, &[0, 0, 3]),
            lose_answer: swarm(rng, &[0, 3, 10]),
            delay_request: swarm(rng, &[0, 2, 6]),
            false_conflict: swarm(rng, &[0, 0, 5]),
            give_up: swarm(rng, &[0, 20, 50]),
            trim: swarm(rng, &[20, 60, 100]),
            spare_old_tasks: swarm(rng, &[0, 30, 100]),
            adopt: swarm(rng, &[0, 50, 100]),
            short_lived: swarm(rng, &[0, 20, 70]),
            planned,
            calm_at,
        }
    }

    /// Whether state must be exact.
    pub fn is_exact(&self) -> bool {
        self.config.mode == CheckpointingMode::ExactlyOnce
    }
}

fn swarm(rng: &mut ChaCha8Rng, levels: &[u32]) -> u32 {
    levels[rng.random_range(0..levels.len())]
}

fn config(rng: &mut ChaCha8Rng) -> CheckpointConfig {
    let mode = match rng.random_range(0..5) {
        0 => CheckpointingMode::AtLeastOnce,
        _ => CheckpointingMode::ExactlyOnce,
    };
    let unaligned = mode == CheckpointingMode::ExactlyOnce && rng.random_range(0..2) == 0;
    CheckpointConfig {
        unaligned,
        interval: Some(Duration::from_millis(rng.random_range(6..20))),
        mode,
        timeout: Duration::from_millis(rng.random_range(50..140)),
        min_pause: Duration::from_millis(rng.random_range(0..4)),
        max_concurrent: if unaligned { 1 } else { rng.random_range(1..4) },
        tolerable_failed: [None, None, Some(0), Some(2)][rng.random_range(0..4)],
        num_retained: rng.random_range(1..4),
        ..CheckpointConfig::default()
    }
}

fn crash(rng: &mut ChaCha8Rng) -> Planned {
    match rng.random_range(0..4) {
        0 => Planned::KillTask,
        _ => Planned::Strike(point(rng), Blow::Crash),
    }
}

fn fault(rng: &mut ChaCha8Rng) -> Planned {
    match rng.random_range(0..6) {
        0 => Planned::KillTask,
        5 => Planned::CutOff,
        1 | 2 => Planned::Strike(point(rng), Blow::Crash),
        _ => Planned::Strike(point(rng), Blow::Pause(rng.random_range(20..200))),
    }
}

fn point(rng: &mut ChaCha8Rng) -> Point {
    [
        Point::TakingOver,
        Point::MetadataWritten,
        Point::CreateSent,
        Point::CreateSent,
        Point::Created,
        Point::Created,
        Point::Created,
        Point::Announced,
        Point::Anywhere,
    ][rng.random_range(0..9)]
}
