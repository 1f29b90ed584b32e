//! What a job does after a failure.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Number};

const FIXED: &str = "!has(self.fixedDelay) || self.type == 'fixed-delay'";
const FIXED_MESSAGE: &str = "fixedDelay belongs to type: fixed-delay; set that type, or remove fixedDelay";
const EXPONENTIAL: &str = "!has(self.exponentialDelay) || self.type == 'exponential-delay'";
const EXPONENTIAL_MESSAGE: &str =
    "exponentialDelay belongs to type: exponential-delay; set that type, or remove exponentialDelay";
const RATE: &str = "!has(self.failureRate) || self.type == 'failure-rate'";
const RATE_MESSAGE: &str = "failureRate belongs to type: failure-rate; set that type, or remove failureRate";
const MULTIPLIER: &str = "!self.matches('^[0-9]+([.][0-9]+)?$') || (double(self) >= 1.0 && double(self) <= 1000.0)";
const MULTIPLIER_MESSAGE: &str = "backoffMultiplier must be from 1 to 1000";
const POSITIVE: &str = "!self.matches('^0+(ms|s|m|min|h|d)$')";
const POSITIVE_MESSAGE: &str = "this time must be at least 1ms";

/// Whether and when a failed job starts again.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(FIXED).message(FIXED_MESSAGE),
    validation = Rule::new(EXPONENTIAL).message(EXPONENTIAL_MESSAGE),
    validation = Rule::new(RATE).message(RATE_MESSAGE)
)]
#[serde(rename_all = "camelCase")]
pub struct RestartStrategySpec {
    /// Which strategy.
    #[serde(rename = "type")]
    pub type_: RestartStrategyType,
    /// Settings of fixed-delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_delay: Option<FixedDelay>,
    /// Settings of exponential-delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential_delay: Option<ExponentialDelay>,
    /// Settings of failure-rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<FailureRate>,
}

/// The restart strategies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartStrategyType {
    /// The first failure fails the job.
    None,
    /// A number of times, each after the same delay.
    FixedDelay,
    /// Always, with a delay that grows.
    ExponentialDelay,
    /// As long as failures are not too frequent.
    FailureRate,
}

impl RestartStrategyType {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FixedDelay => "fixed-delay",
            Self::ExponentialDelay => "exponential-delay",
            Self::FailureRate => "failure-rate",
        }
    }
}

/// A number of restarts, each after the same delay.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FixedDelay {
    /// How many restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647))]
    pub attempts: Option<u32>,
    /// Time before each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
}

/// Restarts with a delay that grows.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExponentialDelay {
    /// Time before the second restart; the first is immediate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(POSITIVE).message(POSITIVE_MESSAGE))]
    pub initial_backoff: Option<Duration>,
    /// Longest time before a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(POSITIVE).message(POSITIVE_MESSAGE))]
    pub max_backoff: Option<Duration>,
    /// What the time is multiplied by from one restart to the next; a number in quotes, from 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(MULTIPLIER).message(MULTIPLIER_MESSAGE))]
    pub backoff_multiplier: Option<Number>,
    /// After this long without a failure the next restart counts as the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(POSITIVE).message(POSITIVE_MESSAGE))]
    pub reset_backoff_threshold: Option<Duration>,
}

/// Restarts as long as failures are not too frequent.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureRate {
    /// How many failures within the interval are borne.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub max_failures_per_interval: Option<u32>,
    /// The time over which failures are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(POSITIVE).message(POSITIVE_MESSAGE))]
    pub failure_rate_interval: Option<Duration>,
    /// Time before each restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
}
