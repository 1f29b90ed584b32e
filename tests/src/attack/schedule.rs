//! A seeded order of faults.

use rand::{
    Rng, SeedableRng,
    seq::{IndexedRandom, SliceRandom},
};
use rand_chacha::ChaCha8Rng;

use super::fault::{Fault, JOBMANAGER_STEPS, Moment, RECOVERY_STEPS, SINK_STEPS, TASKMANAGER_STEPS};

/// Where faults are struck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    /// Everywhere.
    #[default]
    All,
    /// At the steps of sinks that commit with the checkpoint, one after the other.
    Sinks,
}

/// A fault to be struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// What.
    pub fault: Fault,
    /// When.
    pub moment: Moment,
    /// Decides whom it hits, and how long it lasts.
    pub seed: u64,
}

/// Of the most frequent fault of all, so many come for one of each other kind.
const KILLS: usize = 4;
/// The latest random moment: a little longer than the time between two checkpoints.
const MOMENTS_MS: u64 = 700;
/// One in so many faults does not wait for the recovery from the last one.
const HASTY: u32 = 6;

/// So many faults of these kinds, in an order that the seed decides: all kinds come before one comes again. At sinks it
/// decides the first step too, so that short campaigns with seeds that follow each other strike all of them.
pub fn schedule(kinds: &[Fault], focus: Focus, count: usize, seed: u64) -> Vec<Strike> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let more = |kind: &Fault| if *kind == Fault::KillTaskManager { KILLS } else { 1 };
    let once: Vec<_> = kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, more(kind))).collect();
    let mut strikes = Vec::with_capacity(count);
    let first_step = (seed % SINK_STEPS.len() as u64) as usize;
    let mut sink_steps = SINK_STEPS.into_iter().cycle().skip(first_step);
    while strikes.len() < count && !once.is_empty() {
        let mut round = once.clone();
        round.shuffle(&mut rng);
        let left = count - strikes.len();
        strikes.extend(round.into_iter().take(left).map(|fault| {
            let step = if focus == Focus::Sinks && fault.is_instant() { sink_steps.next() } else { None };
            let moment = step.unwrap_or_else(|| moment(fault, &mut rng));
            Strike { fault, moment, seed: rng.random() }
        }));
    }
    strikes
}

fn moment(fault: Fault, rng: &mut ChaCha8Rng) -> Moment {
    let ms = rng.random_range(0..MOMENTS_MS);
    if !fault.is_instant() {
        return Moment::After(ms);
    }
    let mut one_of = |steps: &[&'static str]| *steps.choose(rng).expect("there are steps");
    let (jobmanager, taskmanager, recovery) =
        (one_of(&JOBMANAGER_STEPS), one_of(&TASKMANAGER_STEPS), one_of(&RECOVERY_STEPS));
    match rng.random_range(0..HASTY) {
        0 => Moment::Hasty(ms),
        1 => Moment::JobManagerStep(jobmanager),
        2 => Moment::TaskManagerStep(taskmanager),
        3 => Moment::JobManagerStep(recovery),
        _ => Moment::After(ms),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_decides_all_and_all_kinds_come_before_one_comes_again() {
        let strikes = schedule(&Fault::ALL, Focus::All, 60, 7);
        assert_eq!(strikes, schedule(&Fault::ALL, Focus::All, 60, 7));
        assert_ne!(strikes, schedule(&Fault::ALL, Focus::All, 60, 8));
        let round: BTreeSet<_> = strikes[..Fault::ALL.len() + KILLS - 1].iter().map(|strike| strike.fault).collect();
        assert_eq!(round, Fault::ALL.into());
        assert_eq!(schedule(&[], Focus::All, 3, 1), []);
    }

    #[test]
    fn every_step_and_every_sort_of_moment_comes() {
        let strikes = schedule(&Fault::ALL, Focus::All, 2000, 1);
        let steps: BTreeSet<_> = strikes
            .iter()
            .filter_map(|strike| match strike.moment {
                Moment::JobManagerStep(step) | Moment::TaskManagerStep(step) => Some(step),
                _ => None,
            })
            .collect();
        assert_eq!(steps.len(), JOBMANAGER_STEPS.len() + TASKMANAGER_STEPS.len() + RECOVERY_STEPS.len());
        assert!(strikes.iter().any(|strike| matches!(strike.moment, Moment::Hasty(_))));
        assert!(strikes.iter().all(|strike| strike.fault.is_instant() || matches!(strike.moment, Moment::After(_))));
    }

    #[test]
    fn every_step_of_a_sink_comes_with_its_focus_whatever_else_is_struck_between() {
        let kinds = [Fault::KillTaskManager, Fault::JumpClock, Fault::Latency];
        for seed in 0..20 {
            let strikes = schedule(&kinds, Focus::Sinks, 3 * SINK_STEPS.len(), seed);
            let instant = strikes.iter().filter(|strike| strike.fault.is_instant());
            let moments: Vec<_> = instant.map(|strike| strike.moment).collect();
            let first = (seed % SINK_STEPS.len() as u64) as usize;
            let steps = SINK_STEPS.into_iter().cycle().skip(first);
            assert_eq!(moments, steps.take(moments.len()).collect::<Vec<_>>(), "seed {seed}");
            assert!(moments.len() > SINK_STEPS.len());
        }
    }
}
