//! The operator's own metrics, in the format that Prometheus scrapes.

use std::{collections::BTreeMap, time::Duration};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use crate::error::ErrorClass;

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounter,
    durations: Histogram,
    errors: IntCounterVec,
    jobs: IntGaugeVec,
    oldest: IntGaugeVec,
    phases: HistogramVec,
    leader: IntGauge,
}

/// The jobs that are in a phase now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InPhase {
    /// How many.
    pub jobs: i64,
    /// How long the one has been in it that has been there for longest.
    pub oldest: Duration,
}

/// Seconds: reconciles are mostly a matter of milliseconds.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds: from a restart to a job that has been running for a month.
const PHASE_BUCKETS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0, 86_400.0, 2_592_000.0];

impl Metrics {
    /// Registers them.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("millrace_operator".to_string()), None)?;
        let errors = Opts::new("reconcile_errors_total", "Reconciles that failed, by the class of the error.");
        let errors = registered(&registry, IntCounterVec::new(errors, &["class"])?)?;
        for class in ErrorClass::ALL {
            errors.with_label_values(&[class.name()]);
        }
        let durations = HistogramOpts::new("reconcile_duration_seconds", "How long a reconcile took.");
        let oldest = "Seconds that the job that has been in a phase for longest has been in it.";
        let oldest = Opts::new("longest_in_phase_seconds", oldest);
        let phases = HistogramOpts::new("phase_duration_seconds", "How long jobs stayed in a phase that they left.");
        Ok(Self {
            reconciles: registered(&registry, IntCounter::new("reconciles_total", "Reconciles.")?)?,
            durations: registered(&registry, Histogram::with_opts(durations.buckets(RECONCILE_BUCKETS.to_vec()))?)?,
            errors,
            jobs: registered(&registry, IntGaugeVec::new(Opts::new("jobs", "StreamJobs by phase."), &["phase"])?)?,
            oldest: registered(&registry, IntGaugeVec::new(oldest, &["phase"])?)?,
            phases: registered(&registry, HistogramVec::new(phases.buckets(PHASE_BUCKETS.to_vec()), &["phase"])?)?,
            leader: registered(&registry, IntGauge::new("leader", "1 where this replica leads, else 0.")?)?,
            registry,
        })
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, took: Duration, error: Option<ErrorClass>) {
        self.reconciles.inc();
        self.durations.observe(took.as_secs_f64());
        if let Some(class) = error {
            self.errors.with_label_values(&[class.name()]).inc();
        }
    }

    /// A job has left `phase`, in which it was for so long.
    pub fn left_phase(&self, phase: &str, after: Duration) {
        self.phases.with_label_values(&[phase]).observe(after.as_secs_f64());
    }

    /// Whether this replica leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything as text; `phases` are the jobs by the phase that they are in now.
    pub fn render(&self, phases: &BTreeMap<&str, InPhase>) -> prometheus::Result<String> {
        self.jobs.reset();
        self.oldest.reset();
        for (phase, InPhase { jobs, oldest }) in phases {
            self.jobs.with_label_values(&[phase]).set(*jobs);
            self.oldest.with_label_values(&[phase]).set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled(Duration::from_millis(3), None);
        metrics.reconciled(Duration::from_millis(700), Some(ErrorClass::Conflict));
        metrics.left_phase("Deploying", Duration::from_secs(4));
        metrics.set_leader(true);
        let running = InPhase { jobs: 3, oldest: Duration::from_secs(90) };
        let text = metrics.render(&[("Running", running)].into()).unwrap();
        for line in [
            "millrace_operator_reconciles_total 2",
            "millrace_operator_reconcile_duration_seconds_bucket{le=\"0.005\"} 1",
            "millrace_operator_reconcile_errors_total{class=\"conflict\"} 1",
            "millrace_operator_reconcile_errors_total{class=\"forbidden\"} 0",
            "millrace_operator_phase_duration_seconds_sum{phase=\"Deploying\"} 4",
            "millrace_operator_jobs{phase=\"Running\"} 3",
            "millrace_operator_longest_in_phase_seconds{phase=\"Running\"} 90",
            "millrace_operator_leader 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let text = metrics.render(&BTreeMap::new()).unwrap();
        assert!(!text.contains("phase=\"Running\""), "a phase that no job is in any more is gone: {text}");
    }
}
