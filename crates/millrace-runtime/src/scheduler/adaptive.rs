//! The adaptive scheduler: a job that does not get all the slots it wants runs with those that there are, at a lower
//! parallelism, and with more when they come.

use std::time::Duration;

use millrace_core::Error;

use super::{AfterEnding, Effect, JobResult, JobScheduler, Phase};

/// How patient it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveSettings {
    /// A job that waits for slots waits so long at most: then it runs with those that there are, or fails without any.
    /// `None`: it waits for ever.
    pub submission_wait: Option<Duration>,
    /// A job that waits for slots and has some waits so long for the others.
    pub submission_stabilization: Duration,
    /// A job that runs with fewer slots than it wants, and could have more, waits so long for all of them.
    pub executing_stabilization: Duration,
    /// Least time that it runs at one parallelism.
    pub cooldown_after_rescaling: Duration,
}

/// The adaptive scheduler's part of a job's life.
#[derive(Clone, Debug)]
pub(super) struct Adaptive {
    settings: AdaptiveSettings,
    /// Since when the job waits for slots.
    waiting_since: Option<Duration>,
    /// Since when there are slots enough to run, while the job waits for more of them.
    sufficient_since: Option<Duration>,
    /// Since when there are more slots than the job runs with.
    more_since: Option<Duration>,
    /// When it began to run at its parallelism.
    running_since: Duration,
    /// It is stopping for the slots that have come, and waits for no others.
    rescaling: bool,
    /// When it is looked at again.
    wakeup: Option<Duration>,
}

impl Adaptive {
    /// With these settings.
    pub(super) fn new(settings: AdaptiveSettings) -> Self {
        Self {
            settings,
            waiting_since: None,
            sufficient_since: None,
            more_since: None,
            running_since: Duration::ZERO,
            rescaling: false,
            wakeup: None,
        }
    }

    /// The slots to run with now, of so many that there are and that are wanted; or when to decide that.
    fn slots(&mut self, now: Duration, there: u32, wanted: u32) -> Decision {
        let waiting = *self.waiting_since.get_or_insert(now);
        let limit = self.settings.submission_wait.map(|wait| waiting + wait);
        if there == 0 {
            self.sufficient_since = None;
            return match (limit, self.settings.submission_wait) {
                (Some(limit), Some(wait)) if now >= limit => Decision::GiveUp(wait),
                _ => Decision::Wait(limit),
            };
        }
        let since = *self.sufficient_since.get_or_insert(now);
        let stable = since + self.settings.submission_stabilization;
        let due = limit.map_or(stable, |limit| limit.min(stable));
        if there >= wanted || self.rescaling || now >= due {
            return Decision::Run(there.min(wanted));
        }
        Decision::Wait(Some(due))
    }

    /// When to stop for the slots that could be used beside those that are.
    fn due(&mut self, now: Duration, there: u32, wanted: u32) -> Duration {
        let since = *self.more_since.get_or_insert(now);
        let patience = if there >= wanted { Duration::ZERO } else { self.settings.executing_stabilization };
        (since + patience).max(self.running_since + self.settings.cooldown_after_rescaling)
    }
}

enum Decision {
    Run(u32),
    Wait(Option<Duration>),
    GiveUp(Duration),
}

impl JobScheduler {
    /// The same job under the adaptive scheduler.
    pub fn adaptive(self, settings: AdaptiveSettings) -> Self {
        Self { adaptive: Some(Adaptive::new(settings)), ..self }
    }

    /// The slots that the job runs with, or ran with last.
    pub fn slots_used(&self) -> u32 {
        self.previous.len() as u32
    }

    /// The slots to start the next attempt with; `None` while it waits for more of them.
    pub(super) fn slots_to_use(&mut self, now: Duration, effects: &mut Vec<Effect>) -> Option<u32> {
        let (there, wanted) = (self.slots_there(), self.plan.slots_needed);
        let decision = match &mut self.adaptive {
            None if there >= wanted => Decision::Run(wanted),
            None => Decision::Wait(None),
            Some(adaptive) => adaptive.slots(now, there, wanted),
        };
        match decision {
            Decision::Run(slots) => {
                if let Some(adaptive) = &mut self.adaptive {
                    (adaptive.waiting_since, adaptive.sufficient_since, adaptive.rescaling) = (None, None, false);
                }
                Some(slots)
            }
            Decision::Wait(due) => {
                self.wake_up_at(now, due, effects);
                None
            }
            Decision::GiveUp(wait) => {
                let error = Error::external(format!(
                    "no taskmanager has offered a slot for {wait:?}: start taskmanagers, or let the job wait for longer \
                     (jobmanager.adaptive-scheduler.submission.resource-wait-timeout)"
                ));
                effects.push(Effect::Report(error.clone(), None));
                self.end_tasks(now, AfterEnding::End(JobResult::Failed(error)), effects);
                None
            }
        }
    }

    /// Whether it waits for slots without knowing since when, because nothing has happened yet: it is to be looked at.
    pub fn must_begin_to_wait(&self) -> bool {
        let knows = |adaptive: &Adaptive| adaptive.waiting_since.is_some();
        matches!(self.phase, Phase::WaitingForSlots) && self.adaptive.as_ref().is_some_and(|adaptive| !knows(adaptive))
    }

    /// All tasks run.
    pub(super) fn runs_since(&mut self, now: Duration) {
        if let Some(adaptive) = &mut self.adaptive {
            (adaptive.running_since, adaptive.more_since, adaptive.waiting_since) = (now, None, None);
        }
    }

    /// Hands the tasks over to a higher parallelism, where there are slots for it. Without checkpoints nothing could be
    /// handed over: the job would begin anew.
    pub(super) fn rescale(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let (there, used, wanted) = (self.slots_there(), self.slots_used(), self.plan.slots_needed);
        let reads = matches!(&self.phase, Phase::Running { reading, .. } if !reading.is_empty());
        let may = reads && self.plan.checkpoints && !self.stopping && self.handing_over != Some(self.attempt);
        let Some(adaptive) = &mut self.adaptive else { return };
        if !may || there <= used || used >= wanted {
            adaptive.more_since = None;
            return;
        }
        let due = adaptive.due(now, there, wanted);
        if now < due {
            return self.wake_up_at(now, Some(due), effects);
        }
        adaptive.rescaling = true;
        self.handing_over = Some(self.attempt);
        effects.push(Effect::HandOver(self.attempt));
    }

    /// The time of [`Effect::LookAfter`] has passed.
    pub(super) fn look(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.wakeup = None;
        }
        self.allocate(now, effects);
    }

    fn slots_there(&self) -> u32 {
        self.slots.values().sum()
    }

    fn wake_up_at(&mut self, now: Duration, due: Option<Duration>, effects: &mut Vec<Effect>) {
        let (Some(adaptive), Some(due)) = (&mut self.adaptive, due) else { return };
        if adaptive.wakeup.is_none_or(|known| due < known) {
            adaptive.wakeup = Some(due);
            effects.push(Effect::LookAfter(due.saturating_sub(now)));
        }
    }
}
