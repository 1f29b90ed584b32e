//! When a failed job is started again: the restart strategies, without a clock.

use std::{collections::VecDeque, time::Duration};

use millrace_core::{Error, ErrorDomain, restart::RestartStrategy};

/// A function that fails on the same input fails again: after this many failures of the user's own code without a
/// completed checkpoint between them, the job fails, whatever the strategy.
pub const USER_FAILURES_WITHOUT_PROGRESS: u32 = 10;

/// Why a job does not go on after an error that is not retryable.
pub(super) const BEYOND_CURE: &str = "a restart can't cure it";

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// Start again after this time.
    After(Duration),
    /// Fail the job, for this reason.
    GiveUp(String),
}

/// Counts failures and decides.
#[derive(Clone, Debug)]
pub struct RestartBackoff {
    strategy: RestartStrategy,
    restarts: u32,
    delay: Duration,
    failures: VecDeque<Duration>,
    last_failure: Option<Duration>,
    user_failures: u32,
}

impl RestartBackoff {
    /// Nothing has failed yet.
    pub fn new(strategy: RestartStrategy) -> Self {
        Self {
            strategy,
            restarts: 0,
            delay: Duration::ZERO,
            failures: VecDeque::new(),
            last_failure: None,
            user_failures: 0,
        }
    }

    /// A checkpoint is complete: the job gets on.
    pub fn checkpoint_completed(&mut self) {
        self.user_failures = 0;
    }

    /// Decides about a failure at `now` (time since any fixed moment).
    pub fn on_failure(&mut self, now: Duration, error: &Error) -> RestartDecision {
        if !error.retryable {
            return RestartDecision::GiveUp(BEYOND_CURE.to_string());
        }
        if error.domain == ErrorDomain::User && !matches!(self.strategy, RestartStrategy::None) {
            self.user_failures += 1;
            if self.user_failures > USER_FAILURES_WITHOUT_PROGRESS {
                return RestartDecision::GiveUp(format!(
                    "the job's own code failed {} times without a completed checkpoint in between",
                    self.user_failures
                ));
            }
        }
        let decision = self.by_strategy(now);
        self.last_failure = Some(now);
        if matches!(decision, RestartDecision::After(_)) {
            self.restarts += 1;
        }
        decision
    }

    fn by_strategy(&mut self, now: Duration) -> RestartDecision {
        match &self.strategy {
            RestartStrategy::None => RestartDecision::GiveUp("the restart strategy is none".to_string()),
            RestartStrategy::FixedDelay { attempts, delay } => {
                if self.restarts >= *attempts {
                    return RestartDecision::GiveUp(format!("all {attempts} restarts of fixed-delay are used up"));
                }
                RestartDecision::After(*delay)
            }
            RestartStrategy::ExponentialDelay { initial, max, multiplier, reset_threshold } => {
                let quiet = self.last_failure.is_some_and(|last| now.saturating_sub(last) >= *reset_threshold);
                if quiet || self.last_failure.is_none() {
                    self.delay = Duration::ZERO;
                } else if self.delay.is_zero() {
                    self.delay = *initial;
                } else {
                    self.delay = self.delay.mul_f64(*multiplier).min(*max);
                }
                RestartDecision::After(self.delay)
            }
            RestartStrategy::FailureRate { failures, interval, delay } => {
                self.failures.push_back(now);
                while self.failures.front().is_some_and(|first| now.saturating_sub(*first) > *interval) {
                    self.failures.pop_front();
                }
                if self.failures.len() > *failures as usize {
                    return RestartDecision::GiveUp(format!(
                        "{} failures within {interval:?} are more than the {failures} that failure-rate bears",
                        self.failures.len()
                    ));
                }
                RestartDecision::After(*delay)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn decide(backoff: &mut RestartBackoff, at: u64) -> Option<Duration> {
        match backoff.on_failure(SECOND * at as u32, &Error::external("x")) {
            RestartDecision::After(delay) => Some(delay),
            RestartDecision::GiveUp(_) => None,
        }
    }

    #[test]
    fn exponential_delay_restarts_at_once_first_and_then_backs_off() {
        let mut backoff = RestartBackoff::new(RestartStrategy::ExponentialDelay {
            initial: SECOND,
            max: SECOND * 3,
            multiplier: 2.0,
            reset_threshold: SECOND * 100,
        });
        let delays: Vec<_> = (0..5).map(|at| decide(&mut backoff, at).unwrap().as_secs()).collect();
        assert_eq!(delays, [0, 1, 2, 3, 3]);
        assert_eq!(decide(&mut backoff, 104), Some(Duration::ZERO), "a quiet time resets it");
    }

    #[test]
    fn fixed_delay_ends_after_its_attempts() {
        let mut backoff = RestartBackoff::new(RestartStrategy::FixedDelay { attempts: 2, delay: SECOND });
        assert_eq!([0, 1, 2].map(|at| decide(&mut backoff, at)), [Some(SECOND), Some(SECOND), None]);
    }

    #[test]
    fn failure_rate_counts_within_its_interval() {
        let mut backoff =
            RestartBackoff::new(RestartStrategy::FailureRate { failures: 2, interval: SECOND * 10, delay: SECOND });
        assert_eq!([0, 1, 20, 21, 22].map(|at| decide(&mut backoff, at).is_some()), [true, true, true, true, false]);
    }

    #[test]
    fn no_strategy_and_fatal_errors_give_up() {
        let mut none = RestartBackoff::new(RestartStrategy::None);
        assert_eq!(decide(&mut none, 0), None);
        let mut backoff = RestartBackoff::new(RestartStrategy::exponential_delay());
        assert!(matches!(backoff.on_failure(SECOND, &Error::invalid("x")), RestartDecision::GiveUp(_)));
    }

    #[test]
    fn a_users_bug_does_not_loop_for_ever_unless_checkpoints_complete() {
        let error = Error::user("poison");
        let give_up_at = |progress: bool| {
            let mut backoff = RestartBackoff::new(RestartStrategy::exponential_delay());
            (1..100).find(|at| {
                if progress {
                    backoff.checkpoint_completed();
                }
                matches!(backoff.on_failure(SECOND * *at, &error), RestartDecision::GiveUp(_))
            })
        };
        assert_eq!(give_up_at(false), Some(USER_FAILURES_WITHOUT_PROGRESS + 1));
        assert_eq!(give_up_at(true), None);
    }
}
