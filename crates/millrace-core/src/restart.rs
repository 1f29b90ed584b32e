//! What a job does after a failure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Whether, and when, a failed job is started again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum RestartStrategy {
    /// Never: the first failure fails the job. The default without checkpoints.
    None,
    /// Up to `attempts` times, each after `delay`.
    FixedDelay {
        /// How many restarts.
        attempts: u32,
        /// Time before each.
        delay: Duration,
    },
    /// Always; the first restart is immediate, and the delay grows from the second on. The default with checkpoints.
    ExponentialDelay {
        /// The delay before the second restart.
        initial: Duration,
        /// The longest delay.
        max: Duration,
        /// What the delay is multiplied by from one restart to the next.
        multiplier: f64,
        /// A job that ran this long without failure starts again at the first restart.
        reset_threshold: Duration,
    },
    /// As long as there are at most `failures` within `interval`, each after `delay`.
    FailureRate {
        /// How many failures are borne.
        failures: u32,
        /// The time over which they are counted.
        interval: Duration,
        /// Time before each restart.
        delay: Duration,
    },
}

impl RestartStrategy {
    /// Exponential delay with the default settings.
    pub fn exponential_delay() -> Self {
        Self::ExponentialDelay {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            multiplier: 1.5,
            reset_threshold: Duration::from_secs(3600),
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FixedDelay { .. } => "fixed-delay",
            Self::ExponentialDelay { .. } => "exponential-delay",
            Self::FailureRate { .. } => "failure-rate",
        }
    }

    /// Refuses values that make no sense, by name.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::ExponentialDelay { multiplier, .. } if !(1.0..=1000.0).contains(multiplier) => Err(Error::invalid(
                format!("restart-strategy exponential-delay multiplier {multiplier} is out of range: choose 1 to 1000"),
            )),
            Self::ExponentialDelay { initial, max, .. } if initial.is_zero() || max < initial => {
                Err(Error::invalid(format!(
                    "restart-strategy exponential-delay needs 0 < initial <= max, not initial {initial:?} and max {max:?}"
                )))
            }
            Self::FailureRate { interval, .. } if interval.is_zero() => Err(Error::invalid(
                "restart-strategy failure-rate interval 0 counts no failure: choose a positive duration",
            )),
            _ => Ok(()),
        }
    }
}
